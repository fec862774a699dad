# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Makes a plan one that the robot may follow: inside position, velocity and acceleration limits.

The plan is followed in steps of constant acceleration. Each step goes for the planned velocity and
for what the plan is ahead, all joints slowed by one factor where one would be too fast, and then
is held to what its joint may do: change its velocity by at most a * dt, and keep room to stop,
v^2 / 2a, before its position limits. Between steps the path is a parabola, so that velocity and
acceleration hold at every time and not only at the steps; positions to within a h^2 / 8, where a
step of h = 10 ms turns at its limit: 0.06 mrad at 5 rad/s^2, which a gripper, that has no margin,
may go beyond its limit.
"""

from dataclasses import replace
import math

import numpy as np
from pi0_ros.motion.limits import JointLimits
from pi0_ros.motion.spline import cubic
from pi0_ros.motion.stops import Knots, stop

STEP_NS = 10_000_000
CATCH_UP_S = 0.02          # time constant of the last part of catching up
CATCH_UP_SHARE = 0.5       # of the acceleration; the rest is for what the plan does meanwhile
SETTLED = 1e-4             # radians or metres from the end of the plan that end the motion
CATCH_UP_NS = 500_000_000  # after the end of the plan
MOST_STEPS = 200           # of a plan, as long as they are not too long
LONGEST_STEP_NS = 50_000_000
STILL = 1e-6               # slower is at rest
SLACK = 1 + 1e-6
CLOSE = 1e-9
TINY = 1e-12               # radians or metres that are nothing
NEAR = 1e-4                # radians or metres from the plan, to try to go on with it
REJOIN_NS = 800_000_000    # after it keeps the limits, in which a plan must be caught up with


def limit(plan: Knots, start_ns: int, limits: JointLimits
          ) -> tuple[Knots, np.ndarray | None, bool]:
    """
    Return a plan that keeps ``limits`` from ``start_ns`` on, one of its knots.

    :returns: the plan; how far its positions led out [D], None if they did not; whether it was
        slowed down.
    """
    times = plan[0]
    first = int(np.searchsorted(times, start_ns))
    coming = tuple(part[first:] for part in plan)
    if limits.none or first >= len(times) - 1:
        return plan, None, False
    broken = breaks(coming, limits)
    if not broken.any():
        return plan, None, False
    free_ns = int(coming[0][np.flatnonzero(broken)[-1] + 1])
    new, clamped, slowed = (_rejoin(coming, free_ns, limits) or _follow(plan, start_ns, limits))
    return tuple(np.concatenate([old[:first], part]) for old, part in zip(plan, new)), clamped, \
        slowed


def keeps(plan: Knots, limits: JointLimits) -> bool:
    """Return whether a plan, a cubic between its knots, keeps the limits as it is."""
    return not breaks(plan, limits).any()


def breaks(plan: Knots, limits: JointLimits) -> np.ndarray:
    """Return for each piece between two knots, [N - 1], whether it breaks the limits."""
    times, positions, velocities = plan
    length = np.diff(times)[:, None] / 1e9
    begin, end = velocities[:-1], velocities[1:]
    slope = np.diff(positions, axis=0) / length
    at_begin = (6 * slope - 4 * begin - 2 * end) / length
    at_end = (2 * begin + 4 * end - 6 * slope) / length
    hardest = np.maximum(np.abs(at_begin), np.abs(at_end))
    # Where the acceleration changes its sign, the velocity has a vertex inside.
    vertex = np.where(at_begin * at_end < 0, length * hardest / 2, 0.0)
    fastest = np.maximum(np.abs(begin), np.abs(end)) + vertex
    out = ((hardest > limits.acceleration * SLACK) | (fastest > limits.velocity * SLACK)).any(1)
    room = velocities * np.abs(velocities) / (2 * limits.acceleration)
    outside = ((positions + np.minimum(room, 0.0) < limits.lower - CLOSE)
               | (positions + np.maximum(room, 0.0) > limits.upper + CLOSE)).any(1)
    out |= outside[:-1] | outside[1:]
    # A cubic lies between its ends and the two places that its tangents reach in a third of it.
    third = np.stack([positions[:-1] + length * begin / 3, positions[1:] - length * end / 3])
    unsure = np.flatnonzero(((third < limits.lower) | (third > limits.upper)).any((0, 2)) & ~out)
    if len(unsure):
        quarter = np.diff(times)[unsure] // 4
        between = times[unsure] + quarter * np.arange(1, 4)[:, None]
        inner, _ = cubic(*plan, between.ravel())
        beyond = ((inner < limits.lower - CLOSE) | (inner > limits.upper + CLOSE)).any(1)
        out[unsure] |= beyond.reshape(3, -1).any(0)
    return out


def _rejoin(plan: Knots, free_ns: int, limits: JointLimits
            ) -> tuple[Knots, np.ndarray | None, bool] | None:
    """
    Return the plan followed until it keeps the limits by itself, and as it is from there on.

    None where it cannot be caught up with soon: it is then followed to its end.

    :param free_ns: from when on it keeps the limits.
    """
    times, positions, velocities = plan
    count = min(int(free_ns - times[0]) + REJOIN_NS, int(times[-1] - times[0])) // STEP_NS
    at = times[0] + STEP_NS * np.arange(count + 1, dtype=np.int64)
    if count < 1 or count > MOST_STEPS // 2 or times[-1] - free_ns < REJOIN_NS // 2:
        return None  # little would be left of it
    way = _Way(plan, at, limits)
    for number in range(1, count + 1):
        way.go(number, count)
        if at[number] < free_ns or way.apart(number) > NEAR:
            continue
        row = int(np.searchsorted(times, at[number] + STEP_NS // 2))
        if row == len(times):
            break
        here = (at[number], way.walk.now, way.walk.speed)
        piece = tuple(np.array([begin, end]) for begin, end in zip(here, (
            part[row] for part in plan)))
        if keeps(piece, limits):
            out = tuple(np.concatenate([made, part[row:]]) for made, part in zip(
                (at[:number + 1], way.positions, way.velocities), plan))
            return out, way.outside, way.slowed
    return None


def _follow(plan: Knots, start_ns: int, limits: JointLimits
            ) -> tuple[Knots, np.ndarray | None, bool]:
    """
    Return the plan from ``start_ns`` on, followed as well as the limits allow.

    Where it ends, what is behind has a little time to catch up, and then stops where it is.
    """
    length = int(plan[0][-1]) - start_ns
    step_ns = min(max(STEP_NS, length // MOST_STEPS), LONGEST_STEP_NS)
    count = max(1, -(-length // step_ns))
    way = _Way(plan, start_ns + step_ns * np.arange(count + 1, dtype=np.int64), limits)
    patient, number = count + CATCH_UP_NS // step_ns, 0
    while number < count or (number < patient and any(way.walk.speed)):
        number += 1
        if not way.go(number, count):
            number -= 1
            break
    times = start_ns + step_ns * np.arange(number + 1, dtype=np.int64)
    # Whatever still moves is braked exactly; there is room for it.
    rest = stop(np.array(way.walk.now), np.array(way.walk.speed),
                replace(limits, stopping=limits.acceleration), 0)
    return (np.concatenate([times, times[-1] + rest[0][1:]]),
            np.concatenate([way.positions, rest[1][1:]]),
            np.concatenate([way.velocities, rest[2][1:]])), way.outside, way.slowed


class _Way:
    """The way of a robot that follows a plan, step by step."""

    def __init__(self, plan: Knots, at: np.ndarray, limits: JointLimits) -> None:
        """Begin where the plan is at the first of the times ``at`` [N], a step apart."""
        wanted, paces = cubic(*plan, at)
        now, speed = wanted[0].tolist(), paces[0].tolist()
        inside = limits.clamp(wanted)
        outside = np.abs(inside - wanted).max(axis=0)
        self.outside = outside if (outside > SETTLED).any() else None  # [D] it led out so far
        paces[inside != wanted] = 0.0
        # What is behind may not overtake: no further than the plan ever goes from here on.
        ever = limits.clamp(plan[1][np.searchsorted(plan[0], at[-1]):])
        highest = np.maximum.accumulate(np.vstack([ever.max(0, initial=-np.inf)[None],
                                                   inside[::-1]]))[:0:-1]
        lowest = np.minimum.accumulate(np.vstack([ever.min(0, initial=np.inf)[None],
                                                  inside[::-1]]))[:0:-1]
        self.walk = _Walk(now, speed, limits, int(at[1] - at[0]) / 1e9)
        self._rows = [part.tolist() for part in (inside, paces, lowest, highest)]
        self.positions, self.velocities = [self.walk.now], [self.walk.speed]
        self.slowed = False

    def go(self, number: int, count: int) -> bool:
        """Take a step; return False instead where the end has been reached already."""
        walk, row = self.walk, min(number, count)
        target, pace, low, high = (part[row] for part in self._rows)
        behind = walk.behind(target, pace)
        if number > count and max(map(abs, behind)) < SETTLED:
            return False
        walk.step(walk.towards(behind, pace), low, high)
        self.slowed = self.slowed or any(abs(here - there) > 10 * SETTLED
                                         for here, there in zip(walk.now, target))
        self.positions.append(walk.now)
        self.velocities.append(walk.speed)
        return True

    def apart(self, number: int) -> float:
        """Return how far the joint that is furthest from the plan is after a step."""
        return max(abs(here - there) for here, there in zip(self.walk.now, self._rows[0][number]))


class _Walk:
    """A robot on its way. Plain numbers: for a few joints they are faster than arrays."""

    def __init__(self, now: list[float], speed: list[float], limits: JointLimits, step_s: float
                 ) -> None:
        """Stand at ``now`` with ``speed``, both [D]; take steps of ``step_s``."""
        self.now, self.speed, self._step = now, speed, step_s
        self._lower, self._upper = limits.lower.tolist(), limits.upper.tolist()
        self._fastest, self._alone = limits.velocity.tolist(), limits.alone.tolist()
        self._acceleration = limits.acceleration.tolist()

    def behind(self, target: list[float], pace: list[float]) -> list[float]:
        """Return how far each joint is from ``target`` after a step to the plan's ``pace``."""
        half = self._step / 2
        return [to - here - half * (speed + then) for to, here, speed, then
                in zip(target, self.now, self.speed, pace)]

    def towards(self, behind: list[float], pace: list[float]) -> list[float]:
        """
        Return the velocity straight to the plan, all joints slowed by one factor.

        At the pace from which every joint still stops there: sqrt(2 a x) for the one that takes
        longest, proportional near the goal.
        """
        rates, common = [], math.inf
        for far, acceleration, alone in zip(behind, self._acceleration, self._alone):
            far, share = abs(far), CATCH_UP_SHARE * acceleration
            near = share * CATCH_UP_S**2
            rate = math.sqrt(share * (2 * far - near)) / far if far > near else 1 / CATCH_UP_S
            rates.append(rate)
            if not alone and rate < common:
                common = rate
        goal, factor = [], 1.0
        for far, rate, then, most, alone in zip(behind, rates, pace, self._fastest, self._alone):
            wanted = then + far * (rate if alone else common)
            over = abs(wanted) / most
            if alone:
                wanted = wanted / over if over > 1.0 else wanted
            elif over > factor:
                factor = over
            goal.append(wanted)
        return goal if factor == 1.0 else [
            wanted if alone else wanted / factor for wanted, alone in zip(goal, self._alone)]

    def step(self, goal: list[float], lowest: list[float], highest: list[float]) -> None:
        """
        Take a step towards the velocity ``goal``, as each joint may.

        :param lowest, highest: [D] beyond which it should not go, if it can still stop before.
        """
        now, speed, step = [], [], self._step
        half = step / 2
        # Comparisons in place of min and max, which take three times as long.
        for here, velocity, acceleration, most, wanted, low, high, lower, upper in zip(
                self.now, self.speed, self._acceleration, self._fastest, goal, lowest, highest,
                self._lower, self._upper):
            room, change = velocity * abs(velocity) / (2 * acceleration), acceleration * step
            up, free = upper - here, high - here
            free = room if room > free else free
            free = 0.0 if free < 0.0 else free
            up = free if free < up else up
            down, free = here - lower, here - low
            free = -room if -room > free else free
            free = 0.0 if free < 0.0 else free
            down = free if free < down else down
            fastest = _within(up, velocity, acceleration, most, change, step)
            slowest = -_within(down, -velocity, acceleration, most, change, step)
            # What cannot be kept, because the joint already is too fast or too far, is
            # approached as fast as the acceleration allows.
            if slowest > fastest:
                slowest, fastest = fastest, slowest
            new = slowest if wanted < slowest else wanted
            new = fastest if fastest < new else new
            if -STILL < new < STILL:
                new = 0.0
            now.append(here + half * (velocity + new))
            speed.append(new)
        self.now, self.speed = now, speed


def _within(room: float, velocity: float, acceleration: float, most: float, change: float,
            step: float) -> float:
    """
    Return the highest velocity after a step that is allowed, and still stops within ``room``.

    The step covers h (v + v') / 2 and the stop after it v'^2 / 2a.
    """
    out = velocity + change
    out = most if most < out else out
    half = step / 2
    left = room - half * velocity
    if left < 0:
        stops = 2 * left / step
        out = stops if stops < out else out
    elif left < out * (half + out / (2 * acceleration)) * SLACK + TINY:  # else it is no question
        stops = (math.sqrt(step * step / 16 + left / (2 * acceleration)) - step / 4) * (
            2 * acceleration)
        out = stops if stops < out else out
    return out if out > velocity - change else velocity - change
