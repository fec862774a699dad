"""Makes a plan one that the robot may follow: inside position, velocity and acceleration limits.

The plan is followed in steps of constant acceleration. Each step goes for the planned velocity and
for what the plan is ahead, all joints slowed by one factor where one would be too fast, and then
is held to what its joint may do: change its velocity by at most a * dt, and keep room to stop,
v^2 / 2a, before its position limits. Between steps the path is a parabola, so that velocity and
acceleration hold at every time and not only at the steps; positions to within a h^2 / 8, where a
step of h = 10 ms turns at its limit (0.06 mrad at 5 rad/s^2), which the pilot clips.
"""

from collections.abc import Callable

import numpy as np

from pi0_ros.control.limits import JointLimits
from pi0_ros.control.trajectory import cubic

STEP_NS = 10_000_000
CATCH_UP_S = 0.02          # time constant of the last part of catching up
CATCH_UP_SHARE = 0.5       # of the acceleration; the rest is for what the plan does meanwhile
SETTLED = 1e-4             # radians or metres from the end of the plan that end the motion
CATCH_UP_NS = 500_000_000  # after the end of the plan
MOST_EXTRA_NS = 20_000_000_000  # a stop from any speed is shorter
MOST_STEPS = 200           # of a plan, as long as they are not too long
LONGEST_STEP_NS = 50_000_000
STILL = 1e-6               # slower is at rest
SLACK = 1 + 1e-6
CLOSE = 1e-9

Plan = tuple[np.ndarray, np.ndarray, np.ndarray]  # times [N] ns, positions and velocities [N, D]


def limit(plan: Plan, start_ns: int, limits: JointLimits) -> tuple[Plan, bool, bool]:
    """Return a plan that keeps ``limits`` from ``start_ns`` on, one of its knots.

    :returns: the plan; whether positions were clamped; whether it was slowed down.
    """
    times = plan[0]
    first = int(np.searchsorted(times, start_ns))
    if limits.none or first >= len(times) - 1 or keeps(tuple(part[first:] for part in plan),
                                                       limits):
        return plan, False, False
    new, clamped, slowed = _follow(plan, start_ns, limits)
    return tuple(np.concatenate([old[:first], part]) for old, part in zip(plan, new)), clamped, \
        slowed


def keeps(plan: Plan, limits: JointLimits) -> bool:
    """Return whether a plan, a cubic between its knots, keeps the limits as it is."""
    times, positions, velocities = plan
    length = np.diff(times)[:, None] / 1e9
    begin, end = velocities[:-1], velocities[1:]
    slope = np.diff(positions, axis=0) / length
    at_begin = (6 * slope - 4 * begin - 2 * end) / length
    at_end = (2 * begin + 4 * end - 6 * slope) / length
    most = limits.acceleration * SLACK
    if (np.abs(at_begin) > most).any() or (np.abs(at_end) > most).any():
        return False
    # Where the acceleration changes its sign, the velocity has a vertex inside.
    hardest = np.maximum(np.abs(at_begin), np.abs(at_end))
    vertex = np.where(at_begin * at_end < 0, length * hardest / 2, 0.0)
    fastest = np.maximum(np.abs(begin), np.abs(end)) + vertex
    if (fastest > limits.velocity * SLACK).any():
        return False
    room = velocities * np.abs(velocities) / (2 * limits.acceleration)
    stops = np.minimum(room, 0.0), np.maximum(room, 0.0)
    between = times[:-1] + np.diff(times) // 4 * np.arange(1, 4)[:, None]
    inner, _ = cubic(*plan, np.sort(between.ravel()))
    low = min((positions + stops[0] - limits.lower).min(), (inner - limits.lower).min())
    high = max((positions + stops[1] - limits.upper).max(), (inner - limits.upper).max())
    return low >= -CLOSE and high <= CLOSE


def _follow(plan: Plan, start_ns: int, limits: JointLimits) -> tuple[Plan, bool, bool]:
    """Return the plan from ``start_ns`` on, followed as well as the limits allow.

    Where it ends, what is behind has a little time to catch up, and then stops where it is.
    """
    length = int(plan[0][-1]) - start_ns
    step_ns = min(max(STEP_NS, length // MOST_STEPS), LONGEST_STEP_NS)
    step, count = step_ns / 1e9, max(1, -(-length // step_ns))
    at = start_ns + step_ns * np.arange(count + 1, dtype=np.int64)
    wanted, paces = cubic(*plan, at)
    inside = limits.clamp(wanted)
    clamped = bool((np.abs(inside - wanted) > SETTLED).any())
    paces[inside != wanted] = 0.0
    (now,), (speed,) = cubic(*plan, at[:1])
    most, catch_up = limits.acceleration * step, CATCH_UP_SHARE * limits.acceleration
    near = catch_up * CATCH_UP_S**2
    # What is behind may not overtake: no further than the plan ever goes from here on.
    highest = np.maximum.accumulate(inside[::-1])[::-1]
    lowest = np.minimum.accumulate(inside[::-1])[::-1]
    positions, velocities, slowed, number = [now], [speed], False, 0
    while (number < count or speed.any()) and number < count + MOST_EXTRA_NS // step_ns:
        number += 1
        row = min(number, count)
        target, pace = inside[row], paces[row]
        behind = target - now - step * (speed + pace) / 2
        settled = number > count and np.abs(behind).max() < SETTLED
        room = limits.upper - now, now - limits.lower
        if settled or number > count + CATCH_UP_NS // step_ns:
            goal = speed * max(0.0, 1.0 - 1.0 / max(1.0, (np.abs(speed) / most).max()))
        else:
            # Straight to the plan, at the pace from which every joint still stops there:
            # sqrt(2 a x) for the joint that takes longest, proportional near the goal.
            far = np.maximum(np.abs(behind), near)
            rate = np.sqrt(2 * catch_up * (far - near / 2)) / far
            goal = pace + behind * _common(rate, limits.alone, np.min)
            goal /= np.maximum(1.0, _common(np.abs(goal) / limits.velocity, limits.alone, np.max))
            if number <= count:
                stop = speed * np.abs(speed) / (2 * limits.acceleration)
                most_up = np.maximum(highest[row] - now, np.maximum(stop, 0.0))
                most_down = np.maximum(now - lowest[row], np.maximum(-stop, 0.0))
                room = np.minimum(room[0], most_up), np.minimum(room[1], most_down)
        slowest, fastest = _allowed(room, speed, most, step, limits)
        new = np.minimum(np.maximum(goal, slowest), fastest)
        new[np.abs(new) < STILL] = 0.0
        now = now + step * (speed + new) / 2
        slowed = slowed or np.abs(now - target).max() > 10 * SETTLED
        speed = new
        positions.append(now)
        velocities.append(speed)
    times = start_ns + step_ns * np.arange(number + 1, dtype=np.int64)
    return (times, np.array(positions), np.array(velocities)), clamped, bool(slowed)


def _common(values: np.ndarray, alone: np.ndarray, pick: Callable[[np.ndarray], float]
            ) -> np.ndarray:
    """Return for every joint what ``pick`` picks of all, and of a gripper its own."""
    if alone.all():
        return values
    return np.where(alone, values, pick(values[~alone]))


def _allowed(room: tuple[np.ndarray, np.ndarray], speed: np.ndarray, most: np.ndarray,
             step: float, limits: JointLimits) -> tuple[np.ndarray, np.ndarray]:
    """Return the lowest and highest velocity, each [D], that a joint may have after a step.

    A step covers h (v + v') / 2 and the stop after it v'^2 / 2a, which together must fit into the
    room upwards and downwards. What cannot be kept, because the joint already is too fast or too
    far, is approached as fast as the acceleration allows.
    """
    towards = np.stack([speed, -speed])
    left = np.stack(room) - step / 2 * towards
    square = step * step / 16 + np.maximum(left, 0.0) / (2 * limits.acceleration)
    stops = (np.sqrt(square) - step / 4) * (2 * limits.acceleration)
    stops = np.where(left >= 0, stops, 2 / step * left)
    high = np.minimum(np.minimum(towards + most, limits.velocity), stops)
    fastest, slowest = np.maximum(towards - most, high)
    return np.minimum(-slowest, fastest), np.maximum(-slowest, fastest)
