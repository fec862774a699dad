# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What shapes the commands in time, how time passes, and what is counted."""

from collections import deque
from dataclasses import dataclass

import numpy as np

DELIVERY_NS = 15_000_000  # that a message may take to the controller
KEPT_DELAYS = 10        # of which the longest counts (arXiv 2506.07339)
KEPT = 200              # changes of how fast time passes, of ticks


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


class TimeScale:
    """
    Maps times of the clock to those of the plan.

    A controller whose speed is scaled by s goes through its trajectory s times as fast (a UR's
    speed slider; ros2_controllers, doc/speed_scaling.rst). The plan's time passes as slowly, so
    that the plan is where the controller is.
    """

    def __init__(self) -> None:
        """Begin at full speed."""
        self.factor = 1.0
        self._behind_ns = 0
        self._last_ns: int | None = None
        self._past: deque[tuple[int, int]] = deque(maxlen=KEPT)  # since when, so far behind

    def use(self, factor: float) -> None:
        """Let time pass so fast from now on, 0 to 1."""
        self.factor = factor

    def advance(self, now_ns: int) -> int:
        """Let time pass until ``now_ns``; return what the plan calls it."""
        if self._last_ns is not None and self.factor != 1.0:
            if not self._past or self._past[-1][0] < self._last_ns:  # it was as fast as the clock
                self._past.append((self._last_ns, self._behind_ns))
            self._behind_ns += round((1.0 - self.factor) * max(0, now_ns - self._last_ns))
            self._past.append((now_ns, self._behind_ns))
        self._last_ns = now_ns
        return now_ns - self._behind_ns

    def shift(self, by_ns: int) -> None:
        """Keep the plan's time where the clock is set by ``by_ns``."""
        self._behind_ns += by_ns
        self._last_ns = None
        self._past.clear()

    def at(self, time_ns: int) -> int:
        """Return what the plan calls a time of the clock, now or in the past."""
        past = self._past.copy()
        if not past or time_ns >= past[-1][0]:
            return time_ns - self._behind_ns
        times, behind = zip(*past)
        return time_ns - round(float(np.interp(time_ns, times, behind)))

    def of(self, times_ns: np.ndarray) -> np.ndarray:
        """Return what the plan calls times [N]."""
        if not self._past:
            return np.asarray(times_ns) - self._behind_ns
        return np.array([self.at(int(time_ns)) for time_ns in np.asarray(times_ns)], np.int64)
