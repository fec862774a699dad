# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""How a chunk becomes part of a plan: a new plan is made of the old one, whole or not at all."""

from dataclasses import dataclass, replace

import numpy as np
from pi0_ros.motion.handover import Switch
from pi0_ros.motion.limiter import limit
from pi0_ros.motion.limits import JointLimits
from pi0_ros.motion.plan import Plan
from pi0_ros.motion.spline import knot_velocities, without_overshoot
from pi0_ros.policy.policy import ActionChunk

STEP_NS = 10_000_000
STOP_SHARE = 1.3   # of the time that the acceleration limit takes: the path may bend too
LONGEST_STOP_NS = 2_000_000_000
KEPT_SOURCES = 16


@dataclass(frozen=True)
class Rules:
    """By which plans are made."""

    limits: JointLimits
    handover: Switch
    brake_ns: int  # of the stop at the end, at least
    told_ns: int | None = None  # when the robot was told something last


def splice(plan: Plan, chunk: ActionChunk, at_ns: int, rules: Rules) -> Plan | str:
    """
    Return the plan with ``chunk`` in place of what was planned for its times after ``at_ns``.

    Steps that are already due are dropped, and so are those that only repeat the plan. A robot
    that has stood since the observation begins with the first step.

    :returns: the new plan, or one sentence on why the chunk is of no use any more.
    :raises ValueError: the chunk is malformed, or no finite plan can be made of it.
    """
    require_well_formed(chunk, plan.positions.shape[1])
    if chunk.t_obs_ns <= plan.newest_obs_ns:
        return 'chunk is older than the one in use'
    stands = not plan.remaining_ns(at_ns)
    # Who has stood still since the observation has executed nothing meanwhile.
    since = plan.times[-1] <= chunk.t_obs_ns or len(plan.times) == 1
    due = chunk.due_ns
    if rules.handover.waits or (stands and since):  # it comes to the first step within a period
        due = due + max(0, at_ns + chunk.dt_ns - int(due[0]))
    if due[-1] <= at_ns:
        return f'chunk came too late: its last action was due {(at_ns - due[-1]) / 1e9:.3f} s ago'
    if due[0] > at_ns + (chunk.end_ns - chunk.t_obs_ns):
        return ('chunk lies in the future: its first action is due in '
                f'{(due[0] - at_ns) / 1e9:.3f} s')
    late = int((due <= at_ns).sum())
    begin = max(late, min(chunk.given, len(due) - 1))
    made = _through(plan, chunk, at_ns, due, begin, rules)
    made, clamped, slowed = _keep_limits(made, at_ns, rules)
    source = int(due[begin]), replace(chunk, positions=chunk.positions[:0])
    out = replace(
        made, late_steps=late, clamped=clamped, slowed=slowed, newest_obs_ns=chunk.t_obs_ns,
        starved=plan.instruction is not None and not rules.handover.waits
        and at_ns > plan.end_ns,
        sources=(*[old for old in plan.sources if old[0] < source[0]], source)[-KEPT_SOURCES:])
    if not out.finite:
        raise ValueError('no finite plan can be made of the chunk')
    return out


def require_well_formed(chunk: ActionChunk, joint_count: int) -> None:
    """
    Return if a chunk is one for so many joints.

    :raises ValueError: it is not.
    """
    shape = chunk.positions.shape
    if len(shape) != 2 or shape[1] != joint_count or not shape[0]:
        raise ValueError(f'chunk has shape {shape}, expected (steps, {joint_count})')
    if chunk.dt_ns <= 0:
        raise ValueError(f'chunk has a control period of {chunk.dt_ns} ns, expected > 0')
    if not np.isfinite(chunk.positions).all():
        step, joint = np.argwhere(~np.isfinite(chunk.positions))[0]
        raise ValueError(f'chunk has a value that is not finite at step {step}, joint {joint}')


def _through(plan: Plan, chunk: ActionChunk, at_ns: int, due: np.ndarray, begin: int,
             rules: Rules) -> Plan:
    """Return the plan until ``at_ns``, then through the chunk's steps from ``begin`` on."""
    handover, new_times = rules.handover, due[begin:]
    steps = rules.limits.nearest_turn(chunk.positions, plan.sample(due[:1])[0])
    new = np.array(steps[begin:], float)
    changed = chunk.instruction != plan.instruction
    kept = (plan.times > at_ns) & (plan.times < new_times[0])
    unchanged = max([at_ns, int(new_times[0]) - chunk.dt_ns, *plan.times[kept].tolist()])
    new, blended = handover.take(
        new_times, new, plan.sample(new_times), unchanged,
        changed or not plan.remaining_ns(at_ns), () if changed else plan.blended)
    (here,), (speed,) = plan.motion(np.array([at_ns]))
    coming = np.concatenate([[at_ns], plan.times[kept], new_times]).astype(np.int64)
    through = np.concatenate([here[None], plan.positions[kept], new])
    past = plan.past(at_ns, rules.told_ns)
    return Plan(np.concatenate([past[0], coming]), np.concatenate([past[1], through]),
                np.concatenate([past[2], knot_velocities(coming, through, speed)]), at_ns,
                int(new_times[-1]), chunk.instruction, blended=blended)


def _keep_limits(plan: Plan, at_ns: int, rules: Rules
                 ) -> tuple[Plan, np.ndarray | None, bool]:
    """Return the plan with a stop at its end and inside the limits; how far it was clamped [D]."""
    last_ns, limits = int(plan.times[-1]), rules.limits
    stop_ns = rules.brake_ns
    if not limits.none:
        _, (before,) = plan.motion(np.array([last_ns - STEP_NS]))
        speed = np.minimum(np.abs(before), limits.velocity)[~limits.alone]
        needed = STOP_SHARE * (speed / limits.acceleration[~limits.alone]).max(initial=0.0)
        stop_ns = max(stop_ns, round(1e9 * min(needed, LONGEST_STOP_NS / 1e9)))
    plan = _slow_down(plan, max(at_ns, last_ns - stop_ns // 2), stop_ns)
    knots, clamped, slowed = limit(plan.knots, at_ns, limits)
    return replace(plan, times=knots[0], positions=knots[1], velocities=knots[2]), clamped, slowed


def _slow_down(plan: Plan, start_ns: int, stop_ns: int) -> Plan:
    """
    Return the plan with a stop of ``stop_ns`` on its path in place of what comes after.

    Time along the plan slows down evenly from its pace to zero, so the stop covers half of what
    the plan would have covered.
    """
    after = np.unique(np.append(np.arange(0, stop_ns, STEP_NS), stop_ns))
    along = after - after**2 / (2 * stop_ns)
    before = plan.times < start_ns
    stop, speed = plan.motion(start_ns + along.astype(np.int64))
    speed *= (1 - after / stop_ns)[:, None]
    speed[1:] = without_overshoot(after, stop, speed)[1:]
    return replace(
        plan, times=np.concatenate([plan.times[before], start_ns + after]).astype(np.int64),
        positions=np.concatenate([plan.positions[before], stop]),
        velocities=np.concatenate([plan.velocities[before], speed]), end_ns=start_ns)
