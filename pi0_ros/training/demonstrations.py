# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Demonstrations of the expert in the simulated robot, as arrays on disk.

One sample is what the robot saw and measured at one moment, and what the expert would command in
the next second for each colour that might have been named.
"""

from copy import deepcopy
from pathlib import Path

import numpy as np
from pi0_ros.observation.images import letterbox
from pi0_ros.sim import arm, expert, world
from pi0_ros.sim.render import render
from pi0_ros.sim.world import COLOURS, World

CAMERAS = ('overhead', 'wrist')
CHUNK = 50
DT = 0.02
SHARD = 512             # samples a shard: the unit of work, of the seed and of resuming
MISSED = 0.15           # share that begins with nothing between closed fingers
LONGEST = 180           # control periods that a demonstration may have run before the moment


def make_shard(seed: int, image_size: int, task: str = 'blocks') -> dict[str, np.ndarray]:
    """
    Return ``SHARD`` samples, the same for the same seed.

    :param task: one of world.TASKS.
    :returns: ``images`` [n, 2, 3, S, S] uint8 (0 is -1, 255 is 1), ``state`` [n, 5] measured
        joints, ``actions`` [n, 3, 50, 5] future commands for each colour, ``hold`` [n, 5] the
        command of the moment, ``blocks`` [n, 3, 2] block centres on the table, metres;
        for task peg also ``behind`` [n], which of them is behind it.
    """
    rng = np.random.default_rng((seed, 0x9E3779B9))
    table, command = _start(rng, task)
    side = rng.choice([-1, 1], SHARD) if task == 'peg' else np.ones(SHARD, int)
    _run_up(rng, table, command, side)
    images = np.empty((SHARD, len(CAMERAS), 3, image_size, image_size), np.uint8)
    for row in range(SHARD):
        for slot, name in enumerate(CAMERAS):
            image = letterbox(render(table, name, row), image_size, image_size)
            images[row, slot] = np.round((image + 1) * 127.5)
    return {'images': images, 'state': table.joints.astype(np.float32),
            'actions': np.stack([_continue(table, command, colour, side)
                                 for colour in range(len(COLOURS))], axis=1),
            'hold': command.astype(np.float32),
            'blocks': table.blocks[..., :2].astype(np.float32),
            **({'behind': world.behind(table)} if task == 'peg' else {})}


def _start(rng: np.random.Generator, task: str) -> tuple[World, np.ndarray]:
    """Return tables at a demonstration's start: at home, anywhere, closed on a block or none."""
    table = world.random_world(rng, SHARD, task)
    if task == 'peg':
        return table, table.joints.copy()
    tool = np.stack([rng.uniform(-1.0, 1.0, SHARD), rng.uniform(0.12, 0.30, SHARD),
                     rng.uniform(0.02, 0.17, SHARD)], axis=-1)
    anywhere = rng.random(SHARD) < 0.45
    table.joints[anywhere, :4] = arm.inverse(tool)[anywhere]
    holding = np.flatnonzero(rng.random(SHARD) < 0.2)
    table.held[holding] = rng.integers(0, len(COLOURS), len(holding))
    table.grip[holding, :2] = rng.normal(0, 0.005, (len(holding), 2))
    table.joints[holding, arm.GRIPPER] = world.BLOCK_SIZE - 1e-4
    missed = np.flatnonzero((rng.random(SHARD) < MISSED) & (table.held == world.NOTHING))
    table.joints[missed] = world.missed(
        rng, table.blocks[missed, rng.integers(0, len(COLOURS), len(missed))])
    command = table.joints.copy()
    command[holding, arm.GRIPPER] = expert.CLOSED
    still = missed[rng.random(len(missed)) < 0.5]  # about to close, the others about to open
    command[still, arm.GRIPPER] = expert.CLOSED
    return table, command


def _run_up(rng: np.random.Generator, table: World, command: np.ndarray, side: np.ndarray
            ) -> None:
    """Let each demonstration run for a time of its own, then push it off its path a little."""
    target = rng.integers(0, len(COLOURS), SHARD)
    pegs = np.isfinite(table.peg).all(1)
    target = np.where(pegs & (rng.random(SHARD) < 0.7) if pegs.any() else pegs,
                      world.behind(table), target)
    periods = np.where(rng.random(SHARD) < 0.12, 0, rng.integers(0, LONGEST, SHARD))
    # Fingers that closed on nothing are open again soon.
    periods = np.where(table.joints[:, arm.GRIPPER] < world.BLOCK_SIZE - 0.002, periods // 8,
                       periods)
    # Most of what is to be learnt about a peg comes before it.
    early = pegs & (rng.random(SHARD) < 0.85) if pegs.any() else pegs
    periods = np.where(early, periods // 2, periods)
    for period in range(LONGEST):
        running = np.flatnonzero(period < periods)
        if not len(running):
            break
        part = _rows(table, running)
        command[running] = expert.advance(part, command[running], target[running], DT,
                                          side[running])
        world.step(part, command[running], DT)
        for name, value in vars(part).items():
            getattr(table, name)[running] = value
    pushed = rng.random(SHARD) < 0.5
    # Beside a peg there is less room.
    push = rng.normal(0, np.where(pegs, 0.012, 0.03)[:, None], (SHARD, 4)) * pushed[:, None]
    table.joints[:, :4] += push
    command[:, :4] += push
    world.step(table, np.clip(command, arm.LOWER, arm.UPPER), 1e-6)


def _continue(table: World, command: np.ndarray, colour: int, side: np.ndarray) -> np.ndarray:
    """Return the commands [n, 50, 5] of the expert's next second towards block ``colour``."""
    table, command = deepcopy(table), command.copy()
    target = np.full(len(command), colour)
    out = np.empty((len(command), CHUNK, len(arm.JOINT_NAMES)), np.float32)
    for k in range(CHUNK):
        command = expert.advance(table, command, target, DT, side)
        world.step(table, command, DT)
        out[:, k] = command
    return out


def _rows(table: World, rows: np.ndarray) -> World:
    return World(**{name: value[rows] for name, value in vars(table).items()})


def write_shard(job: tuple[Path, int, int, str]) -> Path:
    """Make shard ``job[1]`` unless its file exists; write it whole or not at all."""
    folder, seed, image_size, task = job
    path = folder / f'{task}-{image_size}-{seed:05d}.npz'
    if not path.exists():
        part = path.with_suffix('.part.npz')
        np.savez(part, **make_shard(seed, image_size, task))
        part.rename(path)
    return path


def load(paths: list[Path]) -> dict[str, np.ndarray]:
    """Return the samples of several shards, one array a name."""
    shards = [np.load(path) for path in paths]
    return {name: np.concatenate([shard[name] for shard in shards]) for name in shards[0].files}
