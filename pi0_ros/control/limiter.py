"""Makes a plan one that the robot may follow: inside position, velocity and acceleration limits.

The plan is followed in steps of constant acceleration. Each step goes for the planned velocity and
for what the plan is ahead, all joints slowed by one factor where one would be too fast, and then
is held to what its joint may do: change its velocity by at most a * dt, and keep room to stop,
v^2 / 2a, before its position limits. Between steps the path is a parabola, so that velocity and
acceleration hold at every time and not only at the steps; positions to within a h^2 / 8, where a
step of h = 10 ms turns at its limit (0.06 mrad at 5 rad/s^2), which the pilot clips.
"""

import numpy as np

from pi0_ros.control.limits import JointLimits
from pi0_ros.control.trajectory import cubic

STEP_NS = 10_000_000
CATCH_UP_S = 0.02          # time constant of the last part of catching up
CATCH_UP_SHARE = 0.5       # of the acceleration; the rest is for what the plan does meanwhile
SETTLED = 1e-4             # radians or metres from the end of the plan that end the motion
MOST_EXTRA_NS = 20_000_000_000
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
    """Return the plan from ``start_ns`` on, followed as well as the limits allow."""
    step = STEP_NS / 1e9
    count = max(1, -(-(int(plan[0][-1]) - start_ns) // STEP_NS))
    at = start_ns + STEP_NS * np.arange(count + 1, dtype=np.int64)
    wanted, speeds = cubic(*plan, at)
    inside = limits.clamp(wanted)
    clamped = bool((np.abs(inside - wanted) > SETTLED).any())
    speeds[inside != wanted] = 0.0
    now, speed = cubic(*plan, at[:1])
    now, speed = now[0], speed[0]
    most, brake = limits.acceleration * step, 1 / (2 * limits.acceleration)
    positions, velocities, slowed = [now], [speed], False
    number = 0
    while number < count + MOST_EXTRA_NS // STEP_NS:
        number += 1
        row = min(number, count)
        target, pace = inside[row], speeds[row]
        behind = target - now - step * (speed + pace) / 2
        if number > count and (np.abs(behind) < SETTLED).all() and (
                np.abs(speed) <= most * SLACK).all():
            goal = np.zeros_like(speed)
        else:
            goal = pace + _catch_up(behind, CATCH_UP_SHARE * limits.acceleration)
            ratio = (np.abs(goal) / limits.velocity).max()
            goal /= max(1.0, ratio)
        slowest, fastest = _allowed(now, speed, most, brake, step, limits)
        new = np.minimum(np.maximum(goal, slowest), fastest)
        now = now + step * (speed + new) / 2
        slowed = slowed or bool((np.abs(now - target) > 10 * SETTLED).any())
        speed = new
        positions.append(now)
        velocities.append(speed)
        if number >= count and not speed.any():
            break
    times = start_ns + STEP_NS * np.arange(number + 1, dtype=np.int64)
    return (times, np.array(positions), np.array(velocities)), clamped, slowed


def _catch_up(behind: np.ndarray, acceleration: np.ndarray) -> np.ndarray:
    """Return the velocity, straight to where it is to be, from which every joint stops there.

    sqrt(2 a x) for the joint that takes longest, and proportional near the goal.
    """
    near = acceleration * CATCH_UP_S**2
    far = np.maximum(np.abs(behind), near)
    return behind * (np.sqrt(2 * acceleration * (far - near / 2)) / far).min()


def _allowed(now: np.ndarray, speed: np.ndarray, most: np.ndarray, brake: np.ndarray, step: float,
             limits: JointLimits) -> tuple[np.ndarray, np.ndarray]:
    """Return the lowest and highest velocity, each [D], that a joint may have after a step.

    What cannot be kept, because the joint already is too fast or too far, is approached as fast as
    the acceleration allows.
    """
    high = _towards(limits.upper - now, speed, most, brake, step)
    low = -_towards(now - limits.lower, -speed, most, brake, step)
    fastest = np.maximum(speed - most, np.minimum(np.minimum(speed + most, limits.velocity), high))
    slowest = np.minimum(speed + most, np.maximum(np.maximum(speed - most, -limits.velocity), low))
    return np.minimum(slowest, fastest), np.maximum(slowest, fastest)


def _towards(room: np.ndarray, speed: np.ndarray, most: np.ndarray, brake: np.ndarray, step: float
             ) -> np.ndarray:
    """Return the highest velocity after a step that stops within ``room`` of a limit.

    The step covers h (v + v') / 2, the stop v'^2 / 2a.
    """
    left = room - step * speed / 2
    square = step * step / 16 + brake * np.maximum(left, 0.0)
    stops = (np.sqrt(square) - step / 4) / brake
    return np.where(left >= 0, stops, 2 * left / step)
