# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
What must be true before a chunk becomes part of the plan and before the robot is armed.

Pure checks; each returns None or what it found. guard.py says when they are asked.
"""

from collections.abc import Sequence

import numpy as np
from pi0_ros.motion.limits import JointLimits, UNLIMITED
from pi0_ros.observation.finding import Finding
from pi0_ros.policy.policy import ActionChunk

STILL = 0.1  # rad/s or m/s: faster, a robot is not armed
MOVED_SHARE = 0.2  # of the tracking limit, that a robot which stands may be moved
GRIPPER_HELD = 0.1  # rad or m that a gripper's controller may hold beyond what is in the hand
REFERENCE_SHARE = 0.2  # of the tracking limit, between what was told and what a controller holds
FULL_SPEED = 1.005   # of a controller's time; drivers round
MANY = 20  # plans, before it is said that most are slowed
SANE = 1e6           # positions beyond are no places


def check_form(chunk: ActionChunk, names: Sequence[str]) -> Finding | None:
    """Return whether a chunk is none: wrong shape, no time, or a value that is not finite."""
    positions = chunk.positions
    if positions.ndim != 2 or positions.shape[1] != len(names) or not len(positions):
        return Finding('chunk_shape', f'chunk has shape {positions.shape}, expected (steps, '
                       f'{len(names)})', 'chunk')
    if chunk.dt_ns <= 0:
        return Finding('chunk_shape', f'chunk has a control period of {chunk.dt_ns} ns, expected '
                       '> 0', 'chunk', chunk.dt_ns / 1e9)
    good = np.abs(positions) < SANE  # what is not a number is not less either
    if not good.all():
        step, joint = np.argwhere(~good)[0]
        what = ('a value that is not finite' if not np.isfinite(positions[step, joint]) else
                f'the value {positions[step, joint]:.3g}')
        return Finding('chunk_not_finite', f'chunk has {what} at step {step}, joint '
                       f"'{names[joint]}'", names[joint])
    return None


def ceiling(unit: float, limits: JointLimits, names: Sequence[str], merged: int, slowed: int
            ) -> str:
    """
    Return a sentence where limits slow most plans of a policy whose actions are velocities.

    :param unit: what an action of 1 is, rad/s or m/s.
    :param merged: plans. :param slowed: of them.
    """
    arm = np.flatnonzero(~limits.alone)
    if merged < MANY or 2 * slowed <= merged or not len(arm):
        return ''
    slowest = arm[int(np.argmin(limits.velocity[arm]))]
    most = limits.velocity[slowest]
    return (f'the limits slow {slowed} of {merged} plans: an action of 1 is {unit:g} rad/s or '
            f"m/s, '{names[slowest]}' goes at most {most:.2f}, an action of {most / unit:.2f}; "
            'the robot comes less far than the policy means')


def check_age(chunk: ActionChunk, now_ns: int, allowed_ns: int) -> Finding | None:
    """Return whether a chunk is too old when it comes."""
    age_s, allowed_s = (now_ns - chunk.t_obs_ns) / 1e9, allowed_ns / 1e9
    if age_s <= allowed_s:
        return None
    return Finding('chunk_late', f'chunk is {age_s:.2f} s old when it comes, allowed are '
                   f'{allowed_s:.2f} s: inference is slow', 'chunk', age_s, allowed_s)


def check_way(chunk: ActionChunk, near: Sequence[np.ndarray], limits: JointLimits,
              names: Sequence[str]) -> Finding | None:
    """
    Return whether a chunk begins too far away, jumps, or leads out of the limits.

    A step may be as far as a joint may go in its time, and by the jump limit further.

    :param near: places [D], any of which it may begin at: where the robot was measured, and where
        it was told to be at that moment. A policy that learnt commands leads the measured joints,
        and a new instruction leaves the plan.
    """
    away = distance(chunk.positions, near, limits)
    positions = limits.nearest_turn(chunk.positions, near[0])
    jump = limits.jump + np.where(limits.velocity < UNLIMITED,
                                  limits.velocity * chunk.dt_ns / 1e9, 0.0)
    steps = np.abs(np.diff(positions, axis=0)).max(axis=0, initial=0.0)
    outside = np.maximum(limits.lower - positions, positions - limits.upper).max(axis=0)
    for reason, found, allowed, text in (
            ('chunk_start', away, jump, 'begins {:.2f} from where the robot was'),
            ('chunk_jump', steps, jump, 'moves by {:.2f} in one step'),
            ('chunk_limits', outside, np.maximum(limits.jump, limits.outside),
             'leads {:.2f} beyond the limits')):
        if (found > allowed).any():
            worst = int(np.argmax(found - allowed))
            return Finding(reason, f"joint '{names[worst]}' of the chunk "
                           f'{text.format(found[worst])}, allowed are {allowed[worst]:.2f}',
                           names[worst], float(found[worst]), float(allowed[worst]))
    return None


def distance(positions: np.ndarray, near: Sequence[np.ndarray], limits: JointLimits) -> np.ndarray:
    """Return how far each joint [D] of a chunk [T, D] begins from the nearest of ``near``."""
    return np.min([np.abs(limits.nearest_turn(positions, place)[0] - place) for place in near],
                  axis=0)


def check_tracking(measured: np.ndarray, told: np.ndarray, limits: JointLimits,
                   names: Sequence[str]) -> Finding | None:
    """
    Return which joint is not where it was told to be.

    :param measured: [D]. :param told: [N, D] now and a little before: outside the range of all.
    """
    near = limits.nearest_turn(measured[None], told[0])[0]
    away = np.maximum(np.maximum(near - told.max(axis=0), told.min(axis=0) - near), 0.0)
    worst = int(np.argmax(away - limits.tracking))
    if away[worst] <= limits.tracking[worst]:
        return None
    return Finding('tracking', f"joint '{names[worst]}' is {away[worst]:.2f} from where it is "
                   f'told to be, allowed are {limits.tracking[worst]:.2f}: something is in its '
                   'way, or the controller does not follow', names[worst],
                   float(away[worst]), float(limits.tracking[worst]))


def check_follows(moved: np.ndarray, told: np.ndarray, share: float, limits: JointLimits,
                  names: Sequence[str]) -> Finding | None:
    """
    Return which joint stood although it was told to move.

    :param moved: [D] the range it was measured in. :param told: [D] that it was told to be in.
    :param share: of that, that it must have moved at least.
    """
    least = np.where(limits.alone, np.inf, MOVED_SHARE * limits.tracking)
    stood = (told > least) & (moved < share * told)
    if not stood.any():
        return None
    worst = int(np.argmax(np.where(stood, told, 0.0)))
    return Finding('not_following', f"joint '{names[worst]}' was told to move by "
                   f'{told[worst]:.2f} and has moved by {moved[worst]:.2f}: its drive or its '
                   'controller is off, or something holds it; arm again when it follows',
                   names[worst], float(told[worst]), float(least[worst]))


def check_reference(reference: np.ndarray, told: np.ndarray, limits: JointLimits,
                    names: Sequence[str], share: float = REFERENCE_SHARE) -> Finding | None:
    """
    Return which joint a controller holds where it was not told to, or where it is not.

    :param reference: [D] by its own word. :param told: [N, D] now and a little before.
    :param share: of the tracking limit, that they may be apart.
    """
    near = limits.nearest_turn(reference[None], told[0])[0]
    away = np.maximum(np.maximum(near - told.max(axis=0), told.min(axis=0) - near), 0.0)
    allowed = np.where(limits.alone, np.inf, share * limits.tracking)
    worst = int(np.argmax(away - allowed))
    if away[worst] <= allowed[worst]:
        return None
    return Finding('controller_departed', f"the controller holds joint '{names[worst]}' "
                   f'{away[worst]:.2f} from where it should be, allowed are '
                   f'{allowed[worst]:.2f}: it was restarted, a tolerance of its own was broken, '
                   'or somebody else commands it; arm again', names[worst], float(away[worst]),
                   float(allowed[worst]))


def check_rest(measured: np.ndarray, rest: np.ndarray, limits: JointLimits, names: Sequence[str]
               ) -> Finding | None:
    """Return which joint has moved since the robot came to rest; both [D]."""
    away = np.abs(limits.nearest_turn(measured[None], rest)[0] - rest)
    allowed = MOVED_SHARE * limits.tracking
    worst = int(np.argmax(away - allowed))
    if away[worst] <= allowed[worst]:
        return None
    return Finding('moved', f"joint '{names[worst]}' was moved by {away[worst]:.2f} while the "
                   f'robot stood, allowed are {allowed[worst]:.2f}: disarmed; arm it again',
                   names[worst], float(away[worst]), float(allowed[worst]))


def check_still(moved: np.ndarray, seconds: float, limits: JointLimits, names: Sequence[str]
                ) -> Finding | None:
    """Return which joint moves; ``moved`` [D] in the last ``seconds``."""
    speeds = np.abs(limits.shortest(moved)) / seconds
    worst = int(np.argmax(speeds))
    if speeds[worst] <= STILL:
        return None
    return Finding('moving', f"joint '{names[worst]}' moves at {speeds[worst]:.2f} a second, "
                   f'allowed are {STILL}: wait until the robot stands', names[worst],
                   float(speeds[worst]), STILL)


def check_inside(measured: np.ndarray, limits: JointLimits, names: Sequence[str]
                 ) -> Finding | None:
    """Return which joint is measured so far outside its limits that they cannot be its."""
    beyond = np.maximum(limits.lower - measured, measured - limits.upper)
    allowed = np.broadcast_to(limits.outside, beyond.shape)
    worst = int(np.argmax(beyond - allowed))
    if beyond[worst] <= allowed[worst]:
        return None
    return Finding('outside', f"joint '{names[worst]}' is at {measured[worst]:.2f}, outside its "
                   f'limits {limits.lower[worst]:.2f} to {limits.upper[worst]:.2f}: move it '
                   'inside, or its unit, zero or name is not that of robot_description',
                   names[worst], float(beyond[worst]), float(allowed[worst]))
