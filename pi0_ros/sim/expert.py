# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The demonstrator: a rule that takes the named block, from wherever the arm stands.

It has no memory. What to do next follows from the joints, the blocks and what is held, so every
state has one right continuation and a policy can learn it from positions alone.
"""

import numpy as np
from pi0_ros.sim import arm
from pi0_ros.sim.world import BLOCK_SIZE, NOTHING, REST_HEIGHT, World

NO_BLOCK = -1           # target index that means: hold still
LIFT_HEIGHT = 0.10      # of the tool tip once the block is held, metres
HOVER_HEIGHT = 0.11     # while travelling between blocks
CLOSED = 0.035          # commanded opening when grasping: under the block's width
PAN_SPEED, RADIUS_SPEED, HEIGHT_SPEED, GRIPPER_SPEED = 0.9, 0.16, 0.12, 0.08
PAN_EASE, RADIUS_EASE, HEIGHT_EASE, GRIPPER_EASE = 0.16, 0.035, 0.03, 0.006
PEG_TURN, PEG_ASIDE, PEG_PASSED = 0.062, 0.06, 0.03  # before, beside and behind it, metres


def goal(world: World, command: np.ndarray, target: np.ndarray, side: np.ndarray) -> np.ndarray:
    """
    Return where tool and gripper should go next, [n, 4]: pan, radius, height, opening.

    :param command: [n, 5] current joint command.
    :param target: [n] index of the named block in ``COLOURS``, or ``NO_BLOCK`` to hold still.
    :param side: [n] 1 or -1, where to pass a peg that stands straight ahead.
    """
    rows = np.arange(len(target))
    tool = arm.tool_polar(command[:, :4])
    block = world.blocks[rows, target]
    pan = np.arctan2(block[:, 1], block[:, 0])
    radius = np.hypot(block[:, 0], block[:, 1])
    aside = np.hypot(radius - tool[:, 1], radius * (pan - tool[:, 0]))
    # A funnel: far from the block travel at hover height, close to it come down.
    height = REST_HEIGHT + np.clip(2.0 * (aside - 0.01), 0, HOVER_HEIGHT - REST_HEIGHT)
    reached = np.hypot(aside, tool[:, 2] - REST_HEIGHT)
    pan, radius, height = _past_peg(world.peg, tool, np.stack([pan, radius, height]), side)
    opening = world.joints[:, arm.GRIPPER]
    grasp = (reached < 0.009) | ((opening < arm.GRIPPER_OPEN - 0.006) & (reached < 0.016))
    grasp &= opening > BLOCK_SIZE - 0.002  # closed on nothing: open and try again
    fingers = np.where(grasp, CLOSED, arm.GRIPPER_OPEN)
    wanted = np.stack([pan, radius, height, fingers], axis=-1)

    right, wrong = world.held == target, (world.held != target) & (world.held != NOTHING)
    still = (target == NO_BLOCK)
    lift = np.column_stack([tool[:, :2], np.full(len(rows), LIFT_HEIGHT),
                            np.full(len(rows), CLOSED)])
    drop = np.column_stack([tool, np.full(len(rows), arm.GRIPPER_OPEN)])
    stay = np.column_stack([tool, command[:, arm.GRIPPER]])
    wanted = np.where((right & ~still)[:, None], lift, wanted)
    wanted = np.where((wrong & ~still)[:, None], drop, wanted)
    return np.where(still[:, None], stay, wanted)


def _past_peg(peg: np.ndarray, tool: np.ndarray, wanted: np.ndarray, side: np.ndarray
              ) -> np.ndarray:
    """
    Return [3, n] pan, radius and height that lead around a peg between tool and goal.

    Straight towards it, then aside and past. Which side is told by where the tool is, by ``side``
    while it is straight ahead: two right ways, which no average of the two is.
    """
    pan, radius = np.arctan2(peg[:, 1], peg[:, 0]), np.hypot(peg[:, 0], peg[:, 1])
    aside = radius * (tool[:, 0] - pan)
    blocked = ((np.abs(wanted[0] - pan) < 0.3) & (wanted[1] > radius)
               & (tool[:, 1] < radius + PEG_PASSED))
    way = np.where(np.abs(aside) < 0.006, side, np.sign(aside))
    ahead = np.abs(aside) < PEG_ASIDE - 0.012  # not beside it yet
    near = tool[:, 1] > radius - PEG_TURN
    around = np.stack([
        np.where(near, pan + way * PEG_ASIDE / radius, tool[:, 0]),
        np.where(ahead, radius - PEG_TURN + 0.012, wanted[1]),
        np.full(len(pan), HOVER_HEIGHT)])
    return np.where(blocked, around, wanted)


def advance(world: World, command: np.ndarray, target: np.ndarray, dt: float,
            side: np.ndarray | int = 1) -> np.ndarray:
    """Return the joint command [n, 5] that follows ``command`` after ``dt`` seconds."""
    tool = np.column_stack([arm.tool_polar(command[:, :4]), command[:, arm.GRIPPER]])
    speed = np.array([PAN_SPEED, RADIUS_SPEED, HEIGHT_SPEED, GRIPPER_SPEED])
    ease = np.array([PAN_EASE, RADIUS_EASE, HEIGHT_EASE, GRIPPER_EASE])
    moved = tool + speed * dt * np.tanh(
        (goal(world, command, target, side) - tool) / ease)
    # Joints off the hand-down posture return to it within a fifth of a second.
    posture = command[:, :4] - arm.inverse(tool[:, :3])
    joints = arm.inverse(moved[:, :3]) + posture * np.exp(-dt / 0.2)
    still = (target == NO_BLOCK)[:, None]
    following = np.column_stack([joints, moved[:, 3]])
    return np.clip(np.where(still, command, following), arm.LOWER, arm.UPPER)
