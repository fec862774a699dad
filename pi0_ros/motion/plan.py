# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The plan: what the robot will do next, over time. A value: it is never changed, only replaced.

Between its knots positions follow a cubic, so that the velocity has no steps. Before the first and
after the last it stands still, and it always ends in a smooth stop: a chunk that is never followed
by another is no reason to stop dead.
"""

from dataclasses import dataclass, replace

import numpy as np
from pi0_ros.motion.limits import JointLimits
from pi0_ros.motion.spline import cubic
from pi0_ros.motion.stops import Knots, stop, way
from pi0_ros.observation.observation import Observation
from pi0_ros.policy.policy import ActionChunk, Leftover

HISTORY_NS = 400_000_000  # of the past that a plan still knows: robots lag, ticks come early


@dataclass(frozen=True)
class Plan:
    """Knots over time, and what they are made of."""

    times: np.ndarray       # [N] int64 nanoseconds, increasing
    positions: np.ndarray   # [N, D] radians or metres
    velocities: np.ndarray  # [N, D] per second, 0 in the last row
    begin_ns: int           # until then it is the plan that it replaced
    end_ns: int             # where it begins to stop
    instruction: str | None = None  # that it serves, None for a stop
    newest_obs_ns: int = -1         # of the observations that it was decided from
    sources: tuple[tuple[int, ActionChunk], ...] = ()  # from when on which chunk is executed
    blended: tuple = ()     # what the hand-over remembers
    late_steps: int = 0     # of the newest chunk, that were due when it came
    starved: bool = False   # whether the plan before was at its end then
    clamped: np.ndarray | None = None  # [D] how far the chunk led out of the position limits
    slowed: bool = False    # whether it is later than the chunk because of limits

    @staticmethod
    def standing(positions: np.ndarray, now_ns: int) -> 'Plan':
        """Return a plan that stands still at ``positions`` [D]."""
        still = np.array(positions, float)[None]
        return Plan(np.array([now_ns], np.int64), still, np.zeros_like(still), now_ns, now_ns)

    @staticmethod
    def of(knots: Knots, now_ns: int) -> 'Plan':
        """Return a plan that goes to rest as ``knots`` do."""
        return Plan(*knots, now_ns, int(knots[0][0]))

    @property
    def knots(self) -> Knots:
        """Return times, positions and velocities."""
        return self.times, self.positions, self.velocities

    @property
    def rest(self) -> np.ndarray:
        """Return where it ends, [D]."""
        return self.positions[-1]

    @property
    def finite(self) -> bool:
        """Return whether every number is one."""
        return bool(np.isfinite(self.positions).all() and np.isfinite(self.velocities).all())

    def sample(self, times_ns: np.ndarray) -> np.ndarray:
        """Return planned positions [N, D] at ``times_ns`` [N]."""
        return cubic(*self.knots, times_ns)[0]

    def motion(self, times_ns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return planned positions and velocities, both [N, D], at ``times_ns`` [N]."""
        return cubic(*self.knots, times_ns)

    def at(self, time_ns: int) -> np.ndarray:
        """Return planned positions [D] at one time."""
        return self.sample(np.array([time_ns]))[0]

    def remaining_ns(self, now_ns: int) -> int:
        """Return how long it still moves, 0 when it stands still."""
        return max(0, int(self.times[-1]) - now_ns) if len(self.times) > 1 else 0

    def before_stop_ns(self, now_ns: int) -> int:
        """Return how long it goes on before it begins to stop."""
        return max(0, self.end_ns - now_ns)

    def leftover(self, first_ns: int, dt_ns: int, length: int) -> np.ndarray:
        """
        Return what is planned, [M, D], for the first M steps of a chunk of ``length`` steps.

        :param first_ns: when its first step is due.
        """
        due = first_ns + dt_ns * np.arange(length)
        return self.sample(due[due <= self.end_ns])

    def source(self, time_ns: int) -> ActionChunk | None:
        """
        Return the chunk, without its positions, that is executed at a time; None for a stand.

        While one chunk fades into the next, it is the next.
        """
        found = [chunk for begin, chunk in self.sources if begin <= time_ns]
        return found[-1] if found else None

    @property
    def taken_over_ns(self) -> int | None:
        """Return the due time of the first step of the newest chunk in the plan."""
        return self.sources[-1][0] if self.sources else None

    def later(self, by_ns: int) -> 'Plan':
        """Return the same with what begins at ``begin_ns`` so much later; it stands until then."""
        moved = np.where(self.times < self.begin_ns, 0, by_ns)
        return replace(self, times=self.times + moved, begin_ns=self.begin_ns + by_ns,
                       end_ns=self.end_ns + by_ns,
                       sources=tuple((begin + by_ns * (begin >= self.begin_ns), chunk)
                                     for begin, chunk in self.sources))

    def stopped(self, now_ns: int, limits: JointLimits, least_ns: int,
                target: np.ndarray | None = None) -> 'Plan':
        """
        Return a plan that comes to rest from ``now_ns`` on, and serves nothing any more.

        :param target: [D] that it then goes to, NaN for joints that stay; None: none does.
        """
        (here,), (speed,) = self.motion(np.array([now_ns]))
        after, *rows = (stop(here, speed, limits, least_ns) if target is None else
                        way(here, speed, target, limits, least_ns))
        times, *rows = (np.concatenate([old, new]) for old, new in zip(
            self.past(now_ns), (now_ns + after, *rows)))
        return Plan(times, *rows, now_ns, now_ns, newest_obs_ns=self.newest_obs_ns)

    def past(self, now_ns: int, since_ns: int | None = None) -> Knots:
        """
        Return the knots before ``now_ns`` that are still of interest.

        :param since_ns: when the robot was told something last, if that is longer ago.
        """
        since_ns = now_ns if since_ns is None else min(now_ns, since_ns)
        end = int(np.searchsorted(self.times, now_ns))
        begin = int(np.searchsorted(self.times, since_ns - HISTORY_NS)) - 1  # it is within that
        return tuple(part[max(0, begin):end] for part in self.knots)


def leftover(plan: Plan, first_ns: int, seen: Observation, dt_ns: int, steps: int, delay: int,
             last_delay: int, limits: JointLimits) -> Leftover | None:
    """
    Return what of ``plan`` a chunk of ``steps`` shall continue, None where nothing is left.

    :param first_ns: when its first step is due, on the plan's clock.
    :param delay: in steps, the longest of late; of a plan for another instruction only
        ``last_delay`` steps are left.
    """
    positions = plan.leftover(first_ns, dt_ns, steps)
    if seen.instruction != plan.instruction:
        delay = last_delay
        positions = positions[:delay]
    if not len(positions):
        return None
    state = seen.state[:positions.shape[1]]
    return Leftover(limits.nearest_turn(positions, state), delay)
