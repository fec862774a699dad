# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The joint trajectories that are published: windows of the plan, and the first piece of a motion.

A joint_trajectory_controller that gets a new message goes from a state that it remembers to the
message's first point, and remembers that state with a wrong time (docs/controller.md). So a window
that continues the one before begins with the plan at its stamp, which lies in the past when it is
handled: the controller then never uses a piece of its own.
"""

from dataclasses import dataclass

import numpy as np
from pi0_ros.motion import stops as motion
from pi0_ros.motion.limits import JointLimits
from pi0_ros.motion.spline import cubic

APART_NS = 20_000_000  # between points, at most
PAST_NS = 5_000_000    # that a stamp is old: a controller's clock is read before its messages are


@dataclass(frozen=True)
class Trajectory:
    """N points for D joints; times count from ``stamp_ns``."""

    stamp_ns: int
    joint_names: tuple[str, ...]
    times_ns: np.ndarray    # [N] int64, strictly increasing, from 0 where it continues
    positions: np.ndarray   # [N, D] radians or metres
    velocities: np.ndarray  # [N, D] per second, last row 0
    start: np.ndarray       # [D] position when it is published
    speed: np.ndarray       # [D] and how fast it is then

    def of(self, columns: np.ndarray) -> 'Trajectory':
        """Return the same for some joints. :param columns: [G] where they stand."""
        return Trajectory(self.stamp_ns, tuple(self.joint_names[row] for row in columns),
                          self.times_ns, self.positions[:, columns], self.velocities[:, columns],
                          self.start[columns], self.speed[columns])

    @property
    def finite(self) -> bool:
        """Return whether every number is one."""
        return bool(np.isfinite(self.positions).all() and np.isfinite(self.velocities).all()
                    and np.isfinite(self.start).all())


def window(knots: motion.Knots, joint_names: tuple[str, ...], now_ns: int, follow_ns: int,
           limits: JointLimits, rest_ns: int, stamp_ns: int) -> Trajectory:
    """
    Return what a controller is told at ``now_ns``: the plan, and how to stop if no other comes.

    The plan's own knots for ``follow_ns``, so that the controller's cubics are the plan; then
    straight on to rest, see ``motion.stop``.

    :param knots: the plan: a cubic between its knots, at rest before and after.
    :param rest_ns: that the stop takes at least. :param stamp_ns: what ``now_ns`` is called on
        the clock of stamps.
    """
    times, *_ = knots
    past_ns = min(PAST_NS, max(0, stamp_ns - 1))  # a stamp of 0 has another meaning
    begin, end = now_ns - past_ns, now_ns + follow_ns
    inner = times[(times > begin) & (times < end)]
    at = closer(np.concatenate([[begin], inner, [end]]))
    (*positions, start), (*velocities, speed) = cubic(*knots, np.append(at, now_ns))
    tail_ns, tail, tail_speeds = motion.stop(positions[-1], velocities[-1], limits, rest_ns)
    rest = closer(tail_ns)[1:]
    rest_at, rest_speed = cubic(tail_ns, tail, tail_speeds, rest)
    velocities = np.concatenate([velocities, rest_speed])
    if not len(rest):
        velocities[-1] = 0.0
    return Trajectory(
        stamp_ns - past_ns, joint_names, np.concatenate([at - begin, end - begin + rest]),
        np.concatenate([positions, rest_at]), velocities, start, speed)


def first_piece(positions: np.ndarray, joint_names: tuple[str, ...], length_ns: int,
                stamp_ns: int) -> Trajectory:
    """
    Return one point: rest at ``positions`` [D] after ``length_ns``.

    Where the controller holds the joints is not known: it finds the way from there itself, and is
    told nothing else until it is over.
    """
    return Trajectory(stamp_ns, joint_names, np.array([length_ns], np.int64),
                      positions[None].astype(float), np.zeros((1, len(positions))), positions,
                      np.zeros(len(positions)))


def closer(times_ns: np.ndarray) -> np.ndarray:
    """Return ``times_ns`` [N], increasing, with more between those that are far apart."""
    pieces = -(-np.diff(times_ns) // APART_NS)
    if not len(pieces) or pieces.max() <= 1:
        return times_ns
    parts = [begin + (end - begin) * np.arange(count) // count
             for begin, end, count in zip(times_ns[:-1], times_ns[1:], pieces)]
    return np.concatenate([*parts, times_ns[-1:]]).astype(np.int64)
