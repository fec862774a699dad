"""The joint trajectory that is published every control period."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Trajectory:
    """N points for D joints, starting at ``stamp_ns``."""

    stamp_ns: int
    joint_names: tuple[str, ...]
    times_ns: np.ndarray    # [N] int64, after the stamp, strictly increasing from > 0
    positions: np.ndarray   # [N, D] radians or metres
    velocities: np.ndarray  # [N, D] per second, last row 0


def rolling_window(sample: Callable[[np.ndarray], np.ndarray], joint_names: tuple[str, ...],
                   now_ns: int, length_ns: int, points: int) -> Trajectory:
    """Return the plan's next ``length_ns`` as ``points`` equally spaced points that end at rest.

    The first half follows the plan on time. In the second half time slows down evenly to a stop,
    so that a robot whose node dies comes to rest on the planned path. The next window replaces
    this one long before.

    :param sample: returns planned positions [N, D] at times [N] in nanoseconds.
    """
    times_ns = length_ns * np.arange(1, points + 1, dtype=np.int64) // points
    along_ns = np.concatenate([[0], slowed(times_ns, length_ns)])
    planned = sample(now_ns + along_ns.astype(np.int64))
    return Trajectory(now_ns, joint_names, times_ns, planned[1:],
                      point_velocities(times_ns / 1e9, planned[1:], planned[0]))


def slowed(times_ns: np.ndarray, length_ns: int) -> np.ndarray:
    """Return how far along the plan a window of ``length_ns`` is at ``times_ns`` after its start.

    On time in the first half; in the second the pace falls evenly from 1 to 0.
    """
    half = length_ns / 2
    late = np.maximum(times_ns - half, 0)
    return np.minimum(times_ns, half) + late - late**2 / length_ns


def point_velocities(times_s: np.ndarray, positions: np.ndarray,
                     start: np.ndarray) -> np.ndarray:
    """Return a velocity for every point: the smaller one-sided difference, at last 0.

    It is 0 where the direction reverses (the rule of moveit_servo, ``utils/common.cpp``): a
    cubic through such points does not overshoot.

    :param times_s: [N] seconds after the start. :param positions: [N, D].
    :param start: [D] position at time 0.
    """
    slopes = (np.diff(positions, axis=0, prepend=start[None])
              / np.diff(times_s, prepend=0.0)[:, None])
    before, after = slopes[:-1], slopes[1:]
    smaller = np.where(np.abs(before) < np.abs(after), before, after)
    out = np.zeros_like(positions)
    out[:-1] = np.where(before * after > 0, smaller, 0.0)
    return out
