# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Motions in closed form: stops, and ways to a place, in pieces of constant acceleration.

What has constant acceleration between its knots is a cubic between them, exactly: so is what a
controller makes of it.
"""

import numpy as np
from pi0_ros.motion.limits import JointLimits, UNLIMITED

Knots = tuple[np.ndarray, np.ndarray, np.ndarray]  # times [N] ns, positions and velocities [N, D]


def stop(position: np.ndarray, velocity: np.ndarray, limits: JointLimits, least_ns: int) -> Knots:
    """
    Return the way to rest from ``position`` with ``velocity``, both [D]; times count from 0.

    Straight on with constant deceleration: all joints that are not ``alone`` in the same time, at
    least ``least_ns`` and as long as the slowest needs; a joint that is short of room before its
    position limit in less, down to what its acceleration limit takes. Grippers each in their own.
    """
    return _knots(position, velocity, *_stops(position, velocity, limits, least_ns))


def way(position: np.ndarray, velocity: np.ndarray, target: np.ndarray, limits: JointLimits,
        least_ns: int) -> Knots:
    """
    Return the way to rest at ``target`` [D]: to rest as in ``stop``, then there.

    A joint whose target is NaN rests where it stops. From rest to rest each joint goes as fast as
    its limits of velocity and acceleration allow.
    """
    first = _stops(position, velocity, limits, least_ns)
    rests = position + velocity * first[0] / 2
    far = np.where(np.isfinite(target), target - rests, 0.0)
    most, fastest = limits.stopping, limits.velocity
    ramp = _whole(np.minimum(np.sqrt(np.abs(far) / most), fastest / most))
    moves = ramp > 0
    lasts = np.where(moves, ramp, 1.0)
    cruise = _whole(np.maximum(0.0, np.abs(far) / (lasts * most) - ramp) * moves)
    pull = np.where(moves, far / (lasts * (lasts + cruise)), 0.0)
    begin = first[0].max()  # all at rest: then nothing turns back while others go on
    return _knots(position, velocity, *first, begin,
                  (ramp, pull), (cruise, 0 * pull), (ramp, -pull))


def _stops(position: np.ndarray, velocity: np.ndarray, limits: JointLimits, least_ns: int
           ) -> tuple[np.ndarray, np.ndarray]:
    """Return for each joint [D] how many seconds its stop takes, and its acceleration."""
    speed = np.abs(velocity)
    soonest = np.where(limits.stopping < UNLIMITED, speed / limits.stopping, 0.0)
    together = soonest[~limits.alone].max(initial=least_ns / 1e9)
    seconds = np.where(limits.alone, np.maximum(soonest, least_ns / 1e9), together)
    room = np.where(velocity > 0, limits.upper - position, position - limits.lower)
    with np.errstate(divide='ignore', invalid='ignore', over='ignore'):
        reach = np.where(speed > 0, 2 * np.maximum(room, 0.0) / speed, 0.0)
        seconds = _whole(np.maximum(soonest, np.minimum(seconds, reach)))
        return seconds, np.where(seconds > 0, -velocity / seconds, 0.0)


def _whole(seconds: np.ndarray) -> np.ndarray:
    """Return seconds, rounded up to whole nanoseconds."""
    return np.ceil(1e9 * seconds) / 1e9


def _knots(position: np.ndarray, velocity: np.ndarray, seconds: np.ndarray, pull: np.ndarray,
           begin: float = 0.0, *pieces: tuple[np.ndarray, np.ndarray]) -> Knots:
    """
    Return knots wherever a joint's acceleration changes: a stop, and ``pieces`` after it.

    :param begin: seconds from 0 until the first of ``pieces``, each seconds and accelerations [D].
    """
    ends = [seconds] + list(begin + np.cumsum([length for length, _ in pieces], axis=0))
    starts = [np.zeros_like(seconds)] + [begin + 0 * seconds] + ends[1:-1]
    times_ns = np.unique(np.round(1e9 * np.concatenate([[0.0, begin], *ends])).astype(np.int64))
    at = times_ns[:, None] / 1e9
    positions = np.repeat(position[None].astype(float), len(at), axis=0)
    velocities = np.zeros_like(positions)
    speed = velocity.astype(float)
    for start, end, change in zip(starts, ends, [pull] + [change for _, change in pieces]):
        passed = np.clip(at - start, 0.0, end - start)
        positions = positions + speed * passed + change * passed**2 / 2
        inside = (at >= start) & (at < end)
        velocities = np.where(inside, speed + change * passed, velocities)
        speed = 0.0 if start is starts[0] else speed + change * (end - start)
    velocities[-1] = 0.0
    return times_ns, positions, velocities
