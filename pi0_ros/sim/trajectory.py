# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The class Trajectory of joint_trajectory_controller (``trajectory.cpp``)."""

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Point:
    """A point of a trajectory, or a state on it; None for what it does not say."""

    time_ns: int
    position: np.ndarray
    velocity: np.ndarray | None
    acceleration: np.ndarray | None = None


class Trajectory:
    """Points from a start on, and where the controller was before the first."""

    def __init__(self, start_ns: int, points: list[Point]) -> None:
        """Take the points; ``begin`` says what comes before. A start of 0 is the first sample."""
        self.start_ns, self.points = start_ns, points
        self.sampled = False
        self.before: Point | None = None
        self._times = [point.time_ns for point in points]
        self._cubics: tuple[np.ndarray, tuple[np.ndarray, ...]] | None = None

    def begin(self, time_ns: int, before: Point) -> None:
        """Take the first sample's time, and the state that comes before the points."""
        first, zero = self.points[0], np.zeros_like(before.position)
        velocity, acceleration = before.velocity, before.acceleration
        if velocity is None and first.velocity is not None:
            velocity = zero
        if acceleration is None and first.acceleration is not None:
            acceleration = zero
        self.before = Point(before.time_ns, before.position, velocity, acceleration)
        self.sampled, self.start_ns = True, self.start_ns or time_ns

    def sample(self, time_ns: int) -> tuple[Point | None, int, bool]:
        """Return the state, when its segment begins, and whether that is before the last point."""
        points = self.points
        if time_ns < self.before.time_ns:
            return None, points[0].time_ns, True
        row = bisect_right(self._times, time_ns - self.start_ns) - 1
        if row < 0:
            return (between(self.before.time_ns, self.before, self.start_ns + points[0].time_ns,
                            points[0], time_ns), points[0].time_ns, True)
        if row == len(points) - 1:
            last, zero = points[-1], np.zeros_like(points[-1].position)
            return (Point(0, last.position, zero if last.velocity is None else last.velocity,
                          zero if last.acceleration is None else last.acceleration),
                    last.time_ns, False)
        return (between(self.start_ns + points[row].time_ns, points[row],
                        self.start_ns + points[row + 1].time_ns, points[row + 1], time_ns),
                points[row].time_ns, True)

    def positions(self, times_ns: np.ndarray) -> np.ndarray | None:
        """
        Return what ``sample`` does at many times [N], increasing: positions [N, D].

        None where not all pieces are cubics, and before the first of them.
        """
        if self._cubics is None:
            self._cubics = self._make_cubics()
        begins, factors = self._cubics
        if not len(begins) or times_ns[0] < begins[0]:
            return None
        row = np.searchsorted(begins, times_ns, side='right') - 1
        passed = ((times_ns - begins[row]) / 1e9)[:, None]
        start, speed, square, cube = (part[row] for part in factors)
        return start + passed * (speed + passed * (square + passed * cube))

    def _make_cubics(self) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        """Return when pieces begin and their factors; none where they are no cubics."""
        points = [Point(self.start_ns + point.time_ns, point.position, point.velocity,
                        point.acceleration) for point in self.points]
        if any(point.acceleration is not None for point in points):
            return _cubics([])
        if len(points) > 1 and any(point.velocity is None for point in points):
            return _cubics([])
        before = self.before
        if points[0].velocity is not None and before.time_ns < points[0].time_ns:
            points = [before, *points]
        return _cubics(points)


def _cubics(points: list[Point]) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Return when pieces begin, [N], and their four factors, each [N, D]; the last stands."""
    begins = np.array([point.time_ns for point in points], np.int64)
    if not points:
        return begins, ()
    at = np.array([point.position for point in points])
    speed = np.array([np.zeros_like(point.position) if point.velocity is None
                      else point.velocity for point in points])
    length = (np.diff(begins) / 1e9)[:, None]
    way = np.diff(at, axis=0)
    square = (3 * way / length - 2 * speed[:-1] - speed[1:]) / length
    cube = (speed[:-1] + speed[1:] - 2 * way / length) / length**2
    still = np.zeros((1, at.shape[1]))
    return begins, (at, np.vstack([speed[:-1], still]), np.vstack([square, still]),
                    np.vstack([cube, still]))


def between(begin_ns: int, begin: Point, end_ns: int, end: Point, time_ns: int) -> Point:
    """Return the state between two points: linear, cubic or quintic, by what both have."""
    length, passed = (end_ns - begin_ns) / 1e9, (time_ns - begin_ns) / 1e9
    cubic = begin.velocity is not None and end.velocity is not None
    quintic = begin.acceleration is not None and end.acceleration is not None
    start, way = begin.position, end.position - begin.position
    if passed < 0 or passed > length:
        passed, cubic, quintic = min(max(passed, 0.0), length), False, False
    zero = np.zeros_like(start)
    if not cubic and not quintic:
        slope = way / length if length else zero
        return Point(0, start + passed * slope, slope, zero)
    if not cubic:
        return Point(0, zero, zero, zero)  # the source has no branch for it
    speed, last = begin.velocity, end.velocity
    if not quintic:
        square = (3 * way / length - 2 * speed - last) / length
        cube = (speed + last - 2 * way / length) / length**2
        return Point(0, start + passed * (speed + passed * (square + passed * cube)),
                     speed + passed * (2 * square + 3 * passed * cube),
                     2 * square + 6 * passed * cube)
    pull, pulled = begin.acceleration, end.acceleration
    third = (20 * way - (8 * last + 12 * speed) * length - (3 * pull - pulled) * length**2) / (
        2 * length**3)
    fourth = (-30 * way + (14 * last + 16 * speed) * length
              + (3 * pull - 2 * pulled) * length**2) / (2 * length**4)
    fifth = (12 * way - 6 * (last + speed) * length - (pull - pulled) * length**2) / (
        2 * length**5)
    powers = passed ** np.arange(6)
    return Point(
        0, start + powers[1] * speed + powers[2] * pull / 2 + powers[3] * third
        + powers[4] * fourth + powers[5] * fifth,
        speed + powers[1] * pull + 3 * powers[2] * third + 4 * powers[3] * fourth
        + 5 * powers[4] * fifth,
        pull + 6 * powers[1] * third + 12 * powers[2] * fourth + 20 * powers[3] * fifth)
