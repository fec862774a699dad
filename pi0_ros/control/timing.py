# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What shapes the commands in time, and what is counted of them."""

from collections import deque
from dataclasses import dataclass

import numpy as np

DELIVERY_NS = 15_000_000  # that a message may take to the controller
KEPT_DELAYS = 10        # of which the longest counts (arXiv 2506.07339)


@dataclass(frozen=True)
class Timing:
    """Lengths of time that shape the commands, nanoseconds."""

    period_ns: int           # of the control loop
    replan_ns: int           # age of the newest observation at which the next chunk is wanted
    fade_ns: int = 100_000_000
    brake_ns: int = 200_000_000
    lead_ns: int = 0         # after it is published, that a change of the plan begins
    late_ns: int = 100_000_000  # between ticks, at most: then the robot comes to rest
    handover: str = 'blend'  # one of handover.STRATEGIES; read when the pilot is made
    coasts: bool = True      # whether the robot follows the last window when no other comes

    @staticmethod
    def at_rate(rate_hz: float, replan_s: float, handover: str = 'blend', coasts: bool = True,
                update_rate_hz: float = 100.0, streams: bool = False) -> 'Timing':
        """
        Return timing for ``rate_hz``: what a window follows outlasts a control period.

        :param update_rate_hz: of the controller. It has commanded a period ahead when it takes a
            message, so nothing that a message changes may begin before that.
        :param streams: whether some joints are told no more than where to be now: after a hole
            they would jump.
        """
        period_ns = round(1e9 / rate_hz)
        return Timing(period_ns, round(replan_s * 1e9), handover=handover, coasts=coasts,
                      lead_ns=DELIVERY_NS + round(1e9 / update_rate_hz) if coasts else 0,
                      late_ns=max(100_000_000, 3 * period_ns // 2) if coasts and not streams
                      else 2 * period_ns)

    @property
    def follow_ns(self) -> int:
        """Return for how long a window follows the plan, before it comes to rest."""
        return self.late_ns + self.lead_ns


@dataclass(frozen=True)
class Stance:
    """Where a motion begins, for a robot that stands."""

    positions: np.ndarray  # [D]
    first_ns: int = 0      # that the controller is given to come there from wherever it holds


@dataclass
class Counters:
    """What became of chunks and ticks, in all."""

    merged: int = 0
    dropped: int = 0
    late_steps: int = 0   # that were due before their chunk came
    starved: int = 0      # chunks that came when the plan before was at its end
    clamped: int = 0      # plans that led out of the position limits
    slowed: int = 0       # plans that are slower than their chunk
    late_ticks: int = 0   # after which the robot had slowed down already
    late_plans: int = 0   # that were ready for a tick that came too late to tell them


class Delays:
    """How many steps an inference takes, as measured."""

    def __init__(self) -> None:
        """Nothing is known."""
        self._recent: deque[int] = deque(maxlen=KEPT_DELAYS)
        self._first = self.last = 0

    @property
    def longest(self) -> int:
        """Return the longest of the last ten, in steps."""
        return max(self._recent.copy(), default=self._first)

    def measure(self, steps: int, length: int, first: bool) -> None:
        """
        Remember how many steps were executed while a chunk of ``length`` was inferred.

        The first after a stand or a stop is that of a policy that may still warm up.
        """
        self.last = max(0, min(steps, length))
        if first:
            self._first = self.last
        else:
            self._recent.append(self.last)
