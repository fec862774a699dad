"""The joint trajectory that is published every control period."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

CLOSE_NS = 25_000_000  # between points that a cubic through them misses nothing of


@dataclass(frozen=True)
class Trajectory:
    """N points for D joints, starting at ``stamp_ns``."""

    stamp_ns: int
    joint_names: tuple[str, ...]
    times_ns: np.ndarray    # [N] int64, after the stamp, strictly increasing from > 0
    positions: np.ndarray   # [N, D] radians or metres
    velocities: np.ndarray  # [N, D] per second, last row 0
    start: np.ndarray       # [D] position at the stamp


def rolling_window(sample: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
                   joint_names: tuple[str, ...], now_ns: int, length_ns: int, points: int
                   ) -> Trajectory:
    """Return the plan's next ``length_ns`` as ``points`` equally spaced points that end at rest.

    The first half follows the plan on time. In the second half time slows down evenly to a stop,
    so that a robot whose node dies comes to rest on the planned path. The next window replaces
    this one long before. Velocities are the plan's own, so that the controller's cubic between
    two points is the plan, and accelerates no harder.

    :param sample: returns planned positions and velocities, both [N, D], at times [N] in
        nanoseconds.
    """
    times_ns = length_ns * np.arange(points + 1, dtype=np.int64) // points
    planned, velocities = sample(now_ns + slowed(times_ns, length_ns).astype(np.int64))
    velocities = velocities * pace(times_ns, length_ns)[:, None]
    if length_ns > points * CLOSE_NS:  # sparse points: what lies between is not known to them
        velocities = without_overshoot(times_ns, planned, velocities)
    return Trajectory(now_ns, joint_names, times_ns[1:], planned[1:], velocities[1:], planned[0])


def pace(times_ns: np.ndarray, length_ns: int) -> np.ndarray:
    """Return how fast time passes along the plan in a window; see ``slowed``."""
    return np.minimum(1.0, 2 - 2 * times_ns / length_ns)


def slowed(times_ns: np.ndarray, length_ns: int) -> np.ndarray:
    """Return how far along the plan a window of ``length_ns`` is at ``times_ns`` after its start.

    On time in the first half; in the second the pace falls evenly from 1 to 0.
    """
    half = length_ns / 2
    late = np.maximum(times_ns - half, 0)
    return np.minimum(times_ns, half) + late - late**2 / length_ns


def knot_velocities(times_ns: np.ndarray, positions: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Return velocities [N, D] for a cubic through ``positions`` [N, D] that does not overshoot.

    Between two slopes their weighted harmonic mean, 0 where the direction reverses (Fritsch and
    Butland 1984, as in PCHIP); ``first`` [D] at the beginning, the last slope at the end.

    :param times_ns: [N], N > 1.
    """
    lengths = np.diff(times_ns)[:, None] / 1e9
    slopes = np.diff(positions, axis=0) / lengths
    before, after = slopes[:-1], slopes[1:]
    same = before * after > 0
    heavy, light = 2 * lengths[1:] + lengths[:-1], lengths[1:] + 2 * lengths[:-1]
    total = heavy * np.where(same, after, 1.0) + light * np.where(same, before, 1.0)
    inner = np.where(same, (heavy + light) * before * after / total, 0.0)
    return np.vstack([first, inner, slopes[-1]])


def without_overshoot(times_ns: np.ndarray, positions: np.ndarray, velocities: np.ndarray
                      ) -> np.ndarray:
    """Return velocities [N, D], made small enough that a cubic stays between its knots.

    At most three times the smaller slope beside a knot, 0 at a reversal (Fritsch and Carlson
    1980).
    """
    slopes = np.diff(positions, axis=0) / (np.diff(times_ns)[:, None] / 1e9)
    before, after = np.vstack([slopes[:1], slopes]), np.vstack([slopes, slopes[-1:]])
    most = 3 * np.minimum(np.abs(before), np.abs(after))
    most[before * after < 0] = 0
    return np.where(velocities * (before + after) < 0, 0.0, np.clip(velocities, -most, most))


def cubic(times_ns: np.ndarray, positions: np.ndarray, velocities: np.ndarray, at_ns: np.ndarray
          ) -> tuple[np.ndarray, np.ndarray]:
    """Return positions and velocities, both [M, D], at ``at_ns`` [M]; at rest before and after.

    :param times_ns: [N] of the knots. :param positions: [N, D]. :param velocities: [N, D].
    """
    if len(times_ns) == 1:
        still = np.repeat(positions, len(at_ns), axis=0)
        return still, np.zeros_like(still)
    row = np.clip(np.searchsorted(times_ns, at_ns, side='right'), 1, len(times_ns) - 1)
    length = ((times_ns[row] - times_ns[row - 1]) / 1e9)[:, None]
    inside = (at_ns >= times_ns[0]) & (at_ns < times_ns[-1])
    share = np.clip((at_ns - times_ns[row - 1])[:, None] / 1e9 / length, 0.0, 1.0)
    begin, way = positions[row - 1], positions[row] - positions[row - 1]
    start, end = velocities[row - 1] * length, velocities[row] * length
    square, cube = 3 * way - 2 * start - end, start + end - 2 * way
    out = begin + share * (start + share * (square + share * cube))
    speed = (start + share * (2 * square + 3 * share * cube)) / length
    return out, np.where(inside[:, None], speed, 0.0)
