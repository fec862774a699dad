# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Cubics through knots: how a plan goes between the places it is made of."""

import numpy as np


def knot_velocities(times_ns: np.ndarray, positions: np.ndarray, first: np.ndarray) -> np.ndarray:
    """
    Return velocities [N, D] for a cubic through ``positions`` [N, D] that does not overshoot.

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
    """
    Return velocities [N, D], made small enough that a cubic stays between its knots.

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
    """
    Return positions and velocities, both [M, D], at ``at_ns`` [M]; at rest before and after.

    :param times_ns: [N] of the knots. :param positions: [N, D]. :param velocities: [N, D].
    """
    if len(times_ns) == 1:
        still = np.repeat(positions, len(at_ns), axis=0)
        return still, np.zeros_like(still)
    row = np.minimum(np.maximum(times_ns.searchsorted(at_ns, 'right'), 1), len(times_ns) - 1)
    first_ns, begin, start = times_ns[row - 1], positions[row - 1], velocities[row - 1]
    inside = (at_ns >= times_ns[0]) & (at_ns < times_ns[-1])
    length = ((times_ns[row] - first_ns) / 1e9)[:, None]
    share = np.minimum(np.maximum((at_ns - first_ns)[:, None] / 1e9 / length, 0.0), 1.0)
    way, start, end = positions[row] - begin, start * length, velocities[row] * length
    square, cube = 3 * way - 2 * start - end, start + end - 2 * way
    out = begin + share * (start + share * (square + share * cube))
    speed = (start + share * (2 * square + 3 * share * cube)) / length
    return out, np.where(inside[:, None], speed, 0.0)
