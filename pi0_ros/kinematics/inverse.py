# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Joints for a way of the tool: solved step by step, each from the one before.

Levenberg-Marquardt with the damping of Sugihara, "Solvability-Unconcerned Inverse Kinematics by
the Levenberg-Marquardt Method", IEEE Transactions on Robotics 27(5), 2011: as large as the error
is, so that it neither leaps at a singularity nor crawls elsewhere. Each error counts as a share
of what is tolerated.
"""

from dataclasses import dataclass

import numpy as np
from pi0_ros.kinematics.arm import Arm
from pi0_ros.kinematics.rotations import turn

MOST_TRIES = 40        # for one pose
CLOSE = 0.05           # of the tolerance: closer is not looked for
LEAST_DAMPING = 1e-6   # of the largest column's square
FLAT = 0.02            # m or rad that the tool moves for 1 rad: less is close to a singularity
HURRY = 0.1            # rad or m that a joint may move in one step there
LEAP = 0.5             # rad or m that a joint moves in one step


@dataclass(frozen=True)
class Tolerance:
    """How far the tool may be away from where it is wanted, metres and radians."""

    position: float = 0.001
    rotation: float = 0.0087  # 0.5 degrees


@dataclass(frozen=True)
class Way:
    """Joint positions for a way of the tool, as far as it can be gone."""

    positions: np.ndarray  # [T, n], the last one that is good repeated from where it ends
    problem: str           # why it ends early, '' if it does not


def follow(arm: Arm, begin: np.ndarray, wanted: np.ndarray, rotations: np.ndarray,
           lower: np.ndarray, upper: np.ndarray, tolerance: Tolerance = Tolerance()) -> Way:
    """
    Return joints that bring the tool to each of T poses, one after another.

    :param begin: [n] where the joints are, radians or metres.
    :param wanted: [T, 3] of the tool in the arm's frame, metres. :param rotations: [T, 3, 3].
    :param lower: [n] :param upper: [n] limits of the joints; one that begins outside may stay.
    """
    lower, upper = np.minimum(lower, begin), np.maximum(upper, begin)
    out = np.empty((len(wanted), len(begin)))
    last, speed = begin, np.zeros(len(begin))
    redundant = arm.rank < len(begin)  # then what joints do beside the tool would go on by itself
    for step, (place, rotation) in enumerate(zip(wanted, rotations)):
        guess = last if redundant else np.clip(last + speed, lower, upper)
        now, problem = reach(arm, guess, place, rotation, lower, upper, tolerance)
        if not problem:
            problem = _leap(arm, last, now)
        if problem:
            out[step:] = last
            return Way(out, f'step {step}: {problem}')
        out[step], speed, last = now, now - last if step else speed, now
    return Way(out, '')


def reach(arm: Arm, begin: np.ndarray, place: np.ndarray, rotation: np.ndarray,
          lower: np.ndarray, upper: np.ndarray, tolerance: Tolerance = Tolerance()
          ) -> tuple[np.ndarray, str]:
    """Return joints for one pose, and why they do not bring the tool there, '' if they do."""
    weight = np.repeat([1 / tolerance.position, 1 / tolerance.rotation], 3)
    best, at, least = begin, begin, np.inf
    for _ in range(MOST_TRIES):
        here, turned = arm.pose(at)
        away = np.concatenate([place - here, turn(rotation @ turned.T)])
        error = weight * away
        shares = np.linalg.norm(error[:3]), np.linalg.norm(error[3:])
        if max(shares) < least:
            best, least, far = at, max(shares), away
        if max(shares) < CLOSE:
            break
        jacobian = weight[:, None] * arm.jacobian(at)
        pull = jacobian.T @ error
        held = ((at <= lower) & (pull < 0)) | ((at >= upper) & (pull > 0))
        jacobian[:, held] = 0.0
        square = jacobian.T @ jacobian
        damping = 0.5 * min(error @ error, 1.0) + LEAST_DAMPING * square.diagonal().max()
        square[np.diag_indices(len(at))] += damping
        moved = np.where(held, 0.0, np.linalg.solve(square, jacobian.T @ error))
        after = np.clip(at + moved, lower, upper)
        if np.abs(after - at).max() < 1e-9:
            break
        at = after
    if least <= 1.0:
        return best, ''
    ends = [name for name, value, low, high in zip(arm.joints, best, lower, upper)
            if value <= low or value >= high]
    why = (f"{' and '.join(ends)} at the limit" if ends else
           'out of reach, or too few joints for this direction')
    return best, (f'the tool stays {1e3 * np.linalg.norm(far[:3]):.1f} mm and '
                  f'{np.degrees(np.linalg.norm(far[3:])):.1f} degrees away from '
                  f'{_place(place)}: {why}')


def _leap(arm: Arm, before: np.ndarray, after: np.ndarray) -> str:
    """
    Return whether a joint would fly: to another posture, or by a singularity.

    An arm may go through a singularity, as whoever showed it did, but not be thrown by it.
    """
    moved = np.abs(after - before)
    joint = int(np.argmax(moved))
    if moved[joint] <= HURRY:
        return ''
    least = np.linalg.svd(arm.jacobian(after), compute_uv=False)[arm.rank - 1]
    if moved[joint] <= LEAP and least >= FLAT:
        return ''
    return f'{arm.joints[joint]} would move by {moved[joint]:.2f} in one step' + (
        f', close to a singularity (the tool moves by {least:.3f} for 1 rad there)'
        if least < FLAT else f', allowed are {LEAP}')


def _place(place: np.ndarray) -> str:
    return '[' + ', '.join(f'{value:.3f}' for value in place) + '] m'
