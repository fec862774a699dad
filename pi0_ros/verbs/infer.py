# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Verb ``infer``: decide one action chunk from a file, without ROS."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
import json
import logging
from pathlib import Path
import sys
import time
from typing import TYPE_CHECKING
from zipfile import BadZipFile

import numpy as np
from pi0_ros.checkpoint.config import RobotConfig
from pi0_ros.checkpoint.fit import fit
from pi0_ros.checkpoint.layout_lerobot import IMAGES
from pi0_ros.checkpoint.mapping import JointMap
from pi0_ros.checkpoint.spec import Choices, PolicySpec, POSITIONS, Unrecorded
from pi0_ros.configuration.advice import advised
from pi0_ros.configuration.configuration import Configuration
from pi0_ros.configuration.file import read_description, read_parameters
from pi0_ros.motion.limits import RobotLimits
from pi0_ros.observation.observation import Observation
from pi0_ros.policy.factory import checkpoint_folder, in_numbers, policy_class, with_hands
from pi0_ros.policy.policy import ActionChunk, Body, Unserved
from pi0_ros.verbs.servers import connected, of_server
from pi0_ros.weights.files import CheckpointError

if TYPE_CHECKING:
    from pi0_ros.policy.pi0 import Pi0Policy

IMAGE = 'image.'
log = logging.getLogger(__name__)


def parser() -> argparse.ArgumentParser:
    """Return the command line of this verb."""
    out = argparse.ArgumentParser(
        prog='pi0_ros infer', description=__doc__,
        epilog='OBS.npz holds image.CAMERA (uint8 [H, W, 3] RGB, one for each camera), state '
               '(float [D], in the order of the checkpoint) and instruction (text).')
    whom = out.add_mutually_exclusive_group(required=True)
    whom.add_argument('--checkpoint', help="folder, or 'demo'")
    whom.add_argument('--server', metavar='ws://HOST:PORT',
                      help='ask a server; of one that is not of this package the parameter file '
                           'says server_schema, joint_names, cameras and action_rate')
    out.add_argument('--observation', required=True, type=Path, metavar='OBS.npz')
    out.add_argument('--output', required=True, type=Path, metavar='ACTIONS.npy',
                     help='absolute, un-normalised joint positions [chunk, D]')
    out.add_argument('--camera', action='append', default=[], metavar='ROBOT=CHECKPOINT',
                     help='which camera of the checkpoint image.ROBOT is; without it, equal names '
                          'belong together; repeatable')
    out.add_argument('--tokenizer', default='', help='folder with tokenizer.json, or a '
                     "name in the hub's cache on this disk")
    out.add_argument('--params-file', type=Path, metavar='YAML',
                     help='parameter file of the node: joints, conversions, cameras and what it '
                          'says of the checkpoint are taken from it; image.camera_1 is then what '
                          'the node sees on camera_1, and state and actions are in the units of '
                          "the robot: state by state_names (any number for '-'), actions by "
                          'joint_names')
    out.add_argument('--robot-description', type=read_description, metavar='URDF',
                     help='description of the robot, for actions or a state that are poses of a '
                          'tool; state is then that of the joints, in the order of the node: '
                          'those that are commanded, then the others of state_names')
    out.add_argument('--noise', type=Path, metavar='NOISE.npy',
                     help='[chunk, 32] start of the denoising; drawn from --seed without it')
    out.add_argument('--seed', type=int, default=0, help='of the noise (default: 0)')
    out.add_argument('--steps', type=int, default=0, choices=range(101), metavar='N',
                     help="denoising steps, at most 100 (default: the checkpoint's)")
    out.add_argument('--reference', action='store_true',
                     help="use transformers' own code instead of our engine")
    out.add_argument('--dtype', choices=('float32', 'bfloat16'), default='float32')
    out.add_argument('--device', choices=('auto', 'cpu', 'cuda'), default='auto')
    return out


def read_observation(path: Path, routes: Sequence[str], slots: Sequence[str] = ()
                     ) -> Observation:
    """
    Return the observation in ``path``.

    :param routes: ``ROBOT=CHECKPOINT`` camera names.
    :param slots: the same, for cameras that need not be there.
    :raises ValueError: the file is no observation, or a route is wrong.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            values = {name: file[name] for name in file.files}
    except (OSError, ValueError, TypeError, AttributeError, EOFError, BadZipFile) as error:
        raise ValueError(f"observation '{path}' is no .npz file: {error}") from error
    for name in ('state', 'instruction'):
        if name not in values:
            raise ValueError(f"observation '{path}' lacks '{name}', it has "
                             f"{', '.join(sorted(values))}")
    state, text = values['state'], values['instruction']
    if state.ndim != 1 or state.dtype.kind not in 'fiu' or not np.isfinite(state).all():
        raise ValueError(f"'state' in '{path}' is {state.dtype} {state.shape}, expected one row "
                         'of finite numbers')
    if text.dtype.kind != 'U' or text.size != 1:
        raise ValueError(f"'instruction' in '{path}' is {text.dtype} {text.shape}, expected one "
                         'text')
    route = dict(pair.split('=', 1) for pair in slots)
    for pair in routes:
        robot, separator, wanted = pair.partition('=')
        if not separator or IMAGE + robot not in values:
            raise ValueError(f"--camera '{pair}' is not ROBOT=CHECKPOINT with an image.ROBOT in "
                             f"'{path}'")
        route[robot] = wanted
    images = {}
    for key, image in values.items():
        if key.startswith(IMAGE):
            if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 \
                    or not image.size:
                raise ValueError(f"'{key}' is {image.dtype} {image.shape}, expected uint8 "
                                 '(height, width, 3)')
            robot = key.removeprefix(IMAGE)
            name = route.get(robot, robot).removeprefix(IMAGES)
            if name in images:
                raise ValueError(f"two images in '{path}' are for camera '{name}'")
            images[name] = image
    return Observation(0, state.astype(float), images, {}, str(text.item()))


def read_noise(path: Path | None, shape: tuple[int, int]) -> np.ndarray | None:
    """
    Return the noise in ``path``, None without one.

    :raises ValueError: it is not finite numbers of ``shape``.
    """
    if path is None:
        return None
    try:
        noise = np.load(path, allow_pickle=False)
        fits = noise.shape == shape and noise.dtype.kind == 'f' and np.isfinite(noise).all()
    except (OSError, ValueError, EOFError, AttributeError, BadZipFile) as error:
        raise ValueError(f"noise '{path}' is no .npy file: {error}") from error
    if not fits:
        raise ValueError(f"noise '{path}' is {noise.dtype} {noise.shape}, expected finite float "
                         f'{shape}')
    return noise


def joint_map(spec: PolicySpec, robot: RobotConfig, given: np.ndarray
              ) -> tuple[JointMap, np.ndarray]:
    """
    Return the map for a file's joints, which come in the order of the checkpoint's state.

    :param given: the file's state; what is at the place of a '-' does not matter.
    :returns: the map, and the state in the order that it reads.
    :raises ValueError: they do not fit.
    """
    if not robot.joint_names:
        joints, names = JointMap.identity(spec.state_width, spec.action_width), None
        width = spec.state_width
    else:
        joints, names = fit(spec, robot), robot.states
        width = len(names)
    if len(given) != width:
        raise ValueError(f'state has {len(given)} joints, expected {width}')
    if names is None:
        return joints, given
    at = {name: index for index, name in enumerate(names)}
    return joints, np.array([given[at[name]] if name in at else 0.0 for name in robot.observed])


def in_order(observation: Observation, spec: PolicySpec) -> Observation:
    """
    Return the observation with the checkpoint's names of cameras, where it only numbers them.

    Images are then taken in the order of the file, and that is told.
    """
    names = list(observation.images)
    if spec.layout != 'transformers' or set(names) & set(spec.cameras):
        return observation
    if len(names) > len(spec.cameras):
        raise ValueError(f'the observation has {len(names)} images, expected at most the '
                         f'{len(spec.cameras)} of the checkpoint: {", ".join(spec.cameras)}')
    log.info('the checkpoint only numbers its cameras, so the images go by their order: '
             + ', '.join(f'{name} is {slot}' for name, slot in zip(names, spec.cameras)))
    return replace(observation, images=dict(zip(spec.cameras, observation.images.values())))


def _policy(args: argparse.Namespace, config: Configuration, robot: RobotConfig
            ) -> 'Pi0Policy':
    """Return the policy; the actions do not depend on the control rate, so any will do here."""
    folder = checkpoint_folder(args.checkpoint)

    def make(choices: Choices) -> 'Pi0Policy':
        return policy_class(folder)(
            folder, dt_ns=20_000_000, device=args.device, dtype=args.dtype,
            steps=args.steps or config.policy.denoising_steps, seed=args.seed,
            tokenizer=args.tokenizer or config.policy.tokenizer, choices=choices,
            engine='reference' if args.reference else 'auto', compiled='off')

    choices = config.policy.choices(robot)
    try:
        return make(choices)
    except Unrecorded as error:
        if error.setting != 'actions' or args.params_file:
            raise
        log.warning(f'{error}; here they are given as they are')
        return make(replace(choices, actions=POSITIONS))


def _ask_server(args: argparse.Namespace, config: Configuration) -> int:
    """Let a server decide; its state is in the order of the node."""
    slots = [f'camera_{slot}={name}' for slot, name in enumerate(config.robot.cameras, 1) if name]
    observation = read_observation(args.observation, args.camera, slots)
    policy = connected(of_server(config, args.server).with_policy(seed=args.seed))
    try:
        names, given = policy.robot.states, observation.state
        if len(given) != len(names):
            raise ValueError(f'state has {len(given)} numbers, expected {len(names)}: '
                             f"{', '.join(names)}")
        at = dict(zip(names, given))
        observation = replace(observation, state=np.array([
            at.get(name, 0.0) for name in policy.robot.observed]))
        strange = [name for name in observation.images
                   if policy.spec.camera(name) not in policy.cameras]
        if strange:
            raise ValueError(f"cameras {', '.join(strange)} are none of "
                             f"{', '.join(policy.cameras)}")
        chunk = policy.infer(observation, read_noise(args.noise, policy.noise_shape))
    finally:
        policy.close()
    with open(args.output, 'wb') as file:
        np.save(file, chunk.positions)
    print(json.dumps({'output': str(args.output), 'shape': list(chunk.positions.shape),
                      **policy.describe()}))
    return 0


def _told(chunk: ActionChunk) -> dict[str, str]:
    """Return what a chunk says of itself."""
    said = {'problem': chunk.problem, 'unlike': chunk.unlike, 'preview': chunk.preview}
    return {name: text for name, text in said.items() if text}


def _body(args: argparse.Namespace, config: Configuration, observation: Observation
          ) -> Callable[[], Body]:
    """
    Return what is known of a robot with tools.

    :raises ValueError: the state is not that of its joints.
    """
    robot = config.robot
    if len(observation.state) != len(robot.observed):
        raise ValueError(f'state has {len(observation.state)} joints, expected '
                         f"{len(robot.observed)}: {', '.join(robot.observed)}")
    limits = RobotLimits(robot.commanded, config.safety.limit_rules(robot.commanded))
    if args.robot_description:
        limits.describe(args.robot_description)
    return limits.body


def main(argv: list[str] | None = None) -> int:
    """Run the verb."""
    args = parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format='pi0_ros infer: %(message)s')
    started = time.perf_counter()
    try:
        if not args.output.absolute().parent.is_dir():
            raise ValueError(f"folder of --output '{args.output}' does not exist: make it first")
        config = read_parameters(args.params_file)
        slots = [f'camera_{slot}={name}'
                 for slot, name in enumerate(config.robot.cameras, 1) if name]
        observation = read_observation(args.observation, args.camera, slots)
        if args.server:
            return _ask_server(args, config)
        robot = in_numbers(config.policy, config.robot)
        inner = _policy(args, config, robot)
        observation = in_order(observation, inner.spec)
        inner.cameras = tuple(inner.spec.camera(name) for name in observation.images)
        policy = inner
        if robot is config.robot:
            inner.joints, state = joint_map(inner.spec, robot, observation.state)
            observation = replace(observation, state=state)
        else:
            inner.joints = fit(inner.spec, robot)
            policy = with_hands(inner, config.policy, config.robot,
                                _body(args, config, observation), inner.spec)
        policy.load()
        noise = read_noise(args.noise, policy.noise_shape)
        policy.warm_up()
        loaded = time.perf_counter()
        chunk = policy.infer(observation, noise)
        inferred = time.perf_counter()
        with open(args.output, 'wb') as file:
            np.save(file, chunk.positions)
    except (CheckpointError, ValueError, OSError, Unserved) as error:
        print(f'pi0_ros infer: {advised(error)}', file=sys.stderr)
        return 1
    print(json.dumps({'output': str(args.output), 'shape': list(chunk.positions.shape),
                      'device': str(inner.device), 'steps': inner.steps,
                      'engine': inner.report.path, **_told(chunk),
                      'load_ms': round(1e3 * (loaded - started), 1),
                      'infer_ms': round(1e3 * (inferred - loaded), 1)}))
    return 0
