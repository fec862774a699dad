# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What ``serve`` serves: a policy, and what the parts of an observation mean to it."""

import argparse
import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
import contextlib
from dataclasses import replace
import logging
import signal
import time
from typing import TYPE_CHECKING

import numpy as np
from pi0_ros.checkpoint.mapping import JointMap
from pi0_ros.checkpoint.spec import PolicySpec, POSITIONS
from pi0_ros.configuration.configuration import Configuration
from pi0_ros.configuration.file import read_parameters
from pi0_ros.observation.observation import Observation
from pi0_ros.policy.factory import checkpoint_folder, policy_class
from pi0_ros.policy.policy import ActionChunk
from pi0_ros.policy.provenance import fingerprint
from pi0_ros.remote import metadata, schemas
from pi0_ros.remote.server import PolicyServer
from pi0_ros.verbs.infer import joint_map

if TYPE_CHECKING:
    from pi0_ros.policy.pi0 import Pi0Policy

log = logging.getLogger(__name__)
TIMED = 3  # batches of each size at the start, the first of which does not count
UNKNOWN_NS = 20_000_000  # a control period, where nobody says it; actions do not depend on it
# The checkpoint's camera for each of a schema's, as openpi's transforms have it.
OPENPI = {'cam_high': 'base_0_rgb', 'cam_left_wrist': 'left_wrist_0_rgb',
          'cam_right_wrist': 'right_wrist_0_rgb', 'exterior_image_1_left': 'base_0_rgb',
          'wrist_image_left': 'left_wrist_0_rgb', 'image': 'base_0_rgb',
          'wrist_image': 'left_wrist_0_rgb'}


def make(args: argparse.Namespace, key: str, thread: ThreadPoolExecutor, replica: bool = False
         ) -> tuple['Pi0Policy', PolicyServer]:
    """
    Return the policy, loaded, and what serves it; called in the thread that infers.

    :param args: of the verb. :param replica: whether others do the same, and guests come.
    """
    config = read_parameters(args.params_file)
    if config.robot.end_effectors:
        raise ValueError("parameter 'end_effectors' is for the robot's machine, which has its "
                         'description: leave it out here')
    policy = _policy(args, config)
    schema = (schemas.ours(policy.spec.cameras) if args.schema == schemas.OURS else
              schemas.named(args.schema, config.policy.server_map))
    cameras = _cameras(schema, policy.spec, args.camera)
    policy.cameras = tuple(name for name in policy.spec.cameras if name in cameras.values())
    width, reads = policy.spec.state_width, _of_any_width(policy)
    if args.schema != schemas.OURS and config.robot.joint_names:
        width, reads = _of_robot(policy, config)
    policy.load()
    policy.warm_up()
    _warm_together(policy, args.max_batch)
    rate = 0.0 if policy.dt_ns == UNKNOWN_NS and not policy.spec.dt_s and not \
        config.policy.action_rate else 1e9 / policy.dt_ns
    described = metadata.describe(policy.spec, rate, policy.offset, policy.rtc,
                                  policy.noise_shape, fingerprint(policy.spec.folder))
    return policy, PolicyServer(
        _decides(policy, reads), described, schema, cameras, width, thread, key,
        not policy.spec.widths_recorded, args.max_batch, args.max_wait_ms / 1e3,
        args.max_waiting, (lambda: check(policy)) if replica else None,
        args.schema == schemas.OURS)


def check(policy: 'Pi0Policy') -> None:
    """
    Decide once on grey images.

    :raises ValueError: what it decides is not finite. :raises Exception: it cannot.
    """
    chunk, = _grey(policy, 1)
    if not np.isfinite(chunk.positions).all():
        raise ValueError('what it decides on grey images is not finite')


def _grey(policy: 'Pi0Policy', count: int) -> list[ActionChunk]:
    """Return what it decides for so many made-up questions at once."""
    height, width = policy.spec.image_size
    images = {name: np.full((height, width, 3), 128, np.uint8) for name in policy.cameras}
    seen = Observation(0, policy.spec.state.middle, images, {}, 'pick up the red block')
    joints = policy.joints
    policy.joints = JointMap.identity(policy.spec.state_width, policy.spec.action_width)
    try:
        return policy.infer_together([
            policy.begin(seen, np.zeros(policy.noise_shape), keep=True) for _ in range(count)])
    finally:
        policy.joints = joints


def _warm_together(policy: 'Pi0Policy', most: int) -> None:
    """
    Compute batches of some sizes, so that no robot waits for the first, and time them.

    Few questions may be sooner ready one after another, because that way has the engine.
    """
    if most == 1 or not policy.together:
        return
    seconds = {}
    for count in sorted({1, most, *(2**power for power in range(1, 7) if 2**power <= most)}):
        taken = []
        for _ in range(TIMED):
            began = time.perf_counter()
            _grey(policy, count)
            taken.append(time.perf_counter() - began)
        seconds[count] = min(taken[1:])
    policy.together.learn(seconds)
    log.info('questions at once: ' + ', '.join(
        f"{count} in {1e3 * one:.0f} ms{'' if policy.together.pays(count) else ' (in turn)'}"
        for count, one in seconds.items()))


def _policy(args: argparse.Namespace, config: Configuration) -> 'Pi0Policy':
    from pi0_ros.checkpoint.reader import read
    folder, choices = checkpoint_folder(args.checkpoint), config.policy.choices(config.robot)
    # What they mean is the robot's business: velocities go out as velocities, as openpi's do.
    choices = replace(choices, actions=POSITIONS, velocity=0.0, positions=(), places=())
    spec = read(folder, choices)
    rtc = {'none': '', 'auto': 'trained' if spec.trained_delay else 'identity'}.get(
        args.rtc, args.rtc) if args.schema == schemas.OURS else ''
    return policy_class(folder)(
        folder, dt_ns=config.policy.dt_ns or (0 if spec.dt_s else UNKNOWN_NS),
        offset=config.policy.action_offset, device=args.device, dtype=args.dtype,
        steps=args.steps or config.policy.denoising_steps, seed=args.seed, threads=args.threads,
        tokenizer=args.tokenizer or config.policy.tokenizer, choices=choices,
        engine=config.policy.engine, compiled=config.policy.compile, rtc=rtc)


def _decides(policy: 'Pi0Policy', reads: Callable[[Observation], Observation]
             ) -> Callable[..., list['ActionChunk | Exception']]:
    """
    Return what decides for several questions; what does not fit fails alone.

    :param reads: returns an observation as the policy reads it, whose joints it sets.
    """
    def decide(asked: Sequence[tuple]) -> list['ActionChunk | Exception']:
        out: list[ActionChunk | Exception | None] = [None] * len(asked)
        begun = {}
        for number, (seen, *given) in enumerate(asked):
            try:
                begun[number] = policy.begin(reads(seen), *given, keep=len(asked) > 1)
            except ValueError as error:
                out[number] = error
        if begun:
            for number, chunk in zip(begun, policy.infer_together(list(begun.values()))):
                out[number] = chunk
        return out

    return decide


def _of_any_width(policy: 'Pi0Policy') -> Callable[[Observation], Observation]:
    """Return what reads an observation, also one without the padding that statistics have."""
    whole = policy.joints

    def read(seen: Observation) -> Observation:
        count, width = len(seen.state), len(whole.rows)
        policy.joints = whole
        if count == width:
            return seen
        policy.joints = replace(whole, rows=np.where(np.arange(width) < count, whole.rows, -1))
        needed = max(count, len(whole.columns))
        return replace(seen, state=np.pad(seen.state, (0, max(0, needed - count))))

    return read


def _of_robot(policy: 'Pi0Policy', config: Configuration
              ) -> tuple[int, Callable[[Observation], Observation]]:
    """Return how many numbers a state has, and what reads it, in units of the robot."""
    names = config.robot.states
    policy.joints, _ = joint_map(policy.spec, config.robot, np.zeros(len(names)))

    def read(seen: Observation) -> Observation:
        _, state = joint_map(policy.spec, config.robot, seen.state)
        return replace(seen, state=state)

    return len(names), read


def _cameras(schema: schemas.Schema, spec: PolicySpec, given: list[str]) -> Mapping[str, str]:
    """
    Return the checkpoint's camera for each of the schema's that it has.

    :raises ValueError: one that is given is not there, or the checkpoint gets no image at all.
    """
    out = {}
    said = dict(pair.partition('=')[::2] for pair in given)
    for name, camera in said.items():
        if name not in schema.cameras or spec.camera(camera) not in spec.cameras:
            raise ValueError(f"--camera '{name}={camera}': clients have "
                             f"{', '.join(schema.cameras)}, the checkpoint "
                             f"{', '.join(spec.cameras)}")
    for name in schema.cameras:
        for candidate in (said.get(name), name, OPENPI.get(name)):
            if candidate and spec.camera(candidate) in spec.cameras:
                out[name] = spec.camera(candidate)
                break
    log.info('cameras: ' + ', '.join(f'{name} is {camera}' for name, camera in out.items()))
    left = [name for name in spec.cameras if name not in out.values()]
    unsaid = [name for name in schema.cameras if name not in out]
    if out and left and unsaid:
        log.warning(f"nobody feeds the checkpoint's {', '.join(left)}, and clients' "
                    f"{', '.join(unsaid)} go nowhere: --camera CLIENT=CHECKPOINT connects them")
    if not out or len(set(out.values())) < len(out):
        raise ValueError(f"clients call cameras {', '.join(schema.cameras)}, the checkpoint "
                         f"{', '.join(spec.cameras)}: say which is which with --camera "
                         'CLIENT=CHECKPOINT')
    return out


async def until_told(also: Mapping[signal.Signals, Callable[[], object]] = {}) -> None:
    """Wait for SIGINT or SIGTERM; do on other signals what is given."""
    ended, loop = asyncio.Event(), asyncio.get_running_loop()
    for number, then in ((signal.SIGINT, ended.set), (signal.SIGTERM, ended.set), *also.items()):
        with contextlib.suppress(NotImplementedError, ValueError):
            loop.add_signal_handler(number, then)
    await ended.wait()
