# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Physics of the table: joints that lag behind their commands, blocks that can be grasped.

Everything has a leading batch dimension n, so that the ROS simulator (n = 1) and the making of
demonstrations (n = thousands) run the very same rules.
"""

from dataclasses import dataclass

import numpy as np
from pi0_ros.sim import arm

COLOURS = ('red', 'green', 'blue')
BLOCK_SIZE = 0.045      # edge of a cube, metres
GRASP_DISTANCE = 0.02   # tool tip to block centre at the moment the fingers close, metres
JOINT_LAG = 0.04        # time constant of every joint, seconds
FALL_SPEED = 1.0        # of a dropped block, m/s
REST_HEIGHT = BLOCK_SIZE / 2
NOTHING = -1            # value of ``held`` while the gripper is empty
TASKS = ('blocks', 'peg')
PEG_HEIGHT = 0.15       # higher than the hand travels: the way leads past it, left or right
PEG_CLEARANCE = 0.025   # from its axis to the tool's: closer, the hand hits it, metres


@dataclass
class World:
    """State of n tables: arm joints, blocks, and which block each gripper holds."""

    joints: np.ndarray    # (n, 5) measured positions
    velocity: np.ndarray  # (n, 5)
    blocks: np.ndarray    # (n, 3, 3) block centres, in the order of COLOURS
    angles: np.ndarray    # (n, 3) rotation of each block about the vertical
    held: np.ndarray      # (n,) index of the held block, or NOTHING
    grip: np.ndarray      # (n, 3) held block relative to the tool, turned into the hand's frame
    peg: np.ndarray       # (n, 2) where a peg stands, not a number where none does
    hit: np.ndarray       # (n,) whether the hand has ever hit it


def random_world(rng: np.random.Generator, n: int = 1, task: str = 'blocks') -> World:
    """
    Return n tables with the arm at home and three blocks at random reachable places.

    :param task: peg: one block, ``behind``, stands behind a peg that the arm is drawn back from.
    """
    blocks, pegs = np.zeros((n, len(COLOURS), 3)), np.full((n, 2), np.nan)
    joints = np.tile(arm.home(), (n, 1))
    for table in range(n):
        if task == 'peg':
            joints[table], pegs[table], blocks[table] = _random_peg(rng)
        else:
            blocks[table] = _random_blocks(rng)
    return World(joints, np.zeros_like(joints), blocks,
                 rng.uniform(-np.pi / 4, np.pi / 4, (n, len(COLOURS))),
                 np.full(n, NOTHING), np.zeros((n, 3)), pegs, np.zeros(n, bool))


def missed(rng: np.random.Generator, blocks: np.ndarray) -> np.ndarray:
    """Return joints [n, 5] of raised hands, closed on nothing, about above ``blocks`` [n, 3]."""
    n = len(blocks)
    tool = np.column_stack([np.arctan2(blocks[:, 1], blocks[:, 0]),
                            np.hypot(blocks[:, 0], blocks[:, 1]), rng.uniform(0.05, 0.12, n)])
    tool[:, :2] += rng.normal(0, 1, (n, 2)) * (0.1, 0.02)
    return np.column_stack([arm.inverse(tool),
                            rng.uniform(BLOCK_SIZE - 0.012, BLOCK_SIZE - 0.003, n)])


def behind(world: World) -> np.ndarray:
    """Return [n] which block stands nearest to the line from the base through the peg."""
    pan = np.arctan2(world.blocks[..., 1], world.blocks[..., 0])
    return np.abs(pan - np.arctan2(world.peg[:, 1], world.peg[:, 0])[:, None]).argmin(1)


def _random_peg(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return joints [5], peg [2] and blocks [3, 3]: peg and one block straight ahead."""
    ahead = rng.uniform(-0.4, 0.4)
    aside = np.array([0.0, 0.55, -0.55]) + rng.uniform(-0.06, 0.06, 3)
    radius = np.array([rng.uniform(0.275, 0.30), *rng.uniform(0.18, 0.28, 2)])
    pan, order = ahead + aside, rng.permutation(len(COLOURS))
    blocks = np.stack([radius * np.cos(pan), radius * np.sin(pan),
                       np.full(len(COLOURS), REST_HEIGHT)], axis=-1)
    away = rng.uniform(0.20, 0.21)
    tool = np.array([ahead + rng.normal(0, 0.01), rng.uniform(0.09, 0.105), 0.12])
    joints = np.append(arm.inverse(tool), arm.GRIPPER_OPEN)
    return joints, away * np.array([np.cos(ahead), np.sin(ahead)]), blocks[order]


def _random_blocks(rng: np.random.Generator) -> np.ndarray:
    while True:
        pan = rng.uniform(-0.65, 0.65, len(COLOURS))
        radius = rng.uniform(0.17, 0.30, len(COLOURS))
        xy = np.stack([radius * np.cos(pan), radius * np.sin(pan)], axis=-1)
        gaps = np.linalg.norm(xy[:, None] - xy[None], axis=-1) + 1e3 * np.eye(len(COLOURS))
        if gaps.min() > 0.08:
            return np.column_stack([xy, np.full(len(COLOURS), REST_HEIGHT)])


def step(world: World, command: np.ndarray, dt: float) -> None:
    """Advance all tables by ``dt`` seconds towards the joint ``command`` [n, 5], in place."""
    before = world.joints.copy()
    gain = 1.0 - np.exp(-dt / JOINT_LAG)
    limit = arm.MAX_VELOCITY * dt
    world.joints += np.clip((np.clip(command, arm.LOWER, arm.UPPER) - before) * gain,
                            -limit, limit)
    tool = arm.forward(world.joints)[:, 3]
    world.hit |= (np.linalg.norm(tool[:, :2] - world.peg, axis=-1) < PEG_CLEARANCE) & (
        tool[:, 2] < PEG_HEIGHT)
    _grasp(world, before[:, arm.GRIPPER], tool)
    _carry(world, tool, dt)
    world.velocity = (world.joints - before) / dt


def _grasp(world: World, opening_before: np.ndarray, tool: np.ndarray) -> None:
    opening = world.joints[:, arm.GRIPPER]
    distance = np.linalg.norm(world.blocks - tool[:, None], axis=-1)
    nearest = distance.argmin(-1)
    rows = np.arange(len(opening))
    closing = (opening_before >= BLOCK_SIZE) & (opening < BLOCK_SIZE)
    takes = closing & (world.held == NOTHING) & (distance[rows, nearest] < GRASP_DISTANCE)
    world.held[takes] = nearest[takes]
    offset = world.blocks[rows, nearest] - tool
    world.grip[takes] = _turn(offset, -world.joints[:, 0])[takes]
    world.held[opening > BLOCK_SIZE + 0.003] = NOTHING
    holding = world.held != NOTHING
    world.joints[holding, arm.GRIPPER] = np.maximum(opening[holding], BLOCK_SIZE - 1e-4)


def _carry(world: World, tool: np.ndarray, dt: float) -> None:
    world.blocks[..., 2] = np.maximum(world.blocks[..., 2] - FALL_SPEED * dt, REST_HEIGHT)
    holding = np.flatnonzero(world.held != NOTHING)
    carried = tool[holding] + _turn(world.grip[holding], world.joints[holding, 0])
    carried[:, 2] = np.maximum(carried[:, 2], REST_HEIGHT)
    world.blocks[holding, world.held[holding]] = carried


def _turn(vector: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Rotate [n, 3] vectors about the vertical by [n] angles."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([cos * vector[:, 0] - sin * vector[:, 1],
                     sin * vector[:, 0] + cos * vector[:, 1], vector[:, 2]], axis=-1)
