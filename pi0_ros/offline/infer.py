"""Verb ``infer``: decide one action chunk from a file, without ROS."""

import argparse
import json
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import yaml

from pi0_ros.observation.observation import Observation
from pi0_ros.policy.factory import checkpoint_folder, choices_from, complete, robot_from
from pi0_ros.policy.fit import fit
from pi0_ros.policy.layout_lerobot import IMAGES
from pi0_ros.policy.mapping import NONE, JointMap
from pi0_ros.policy.spec import CheckpointError, PolicySpec

IMAGE = 'image.'


def parser() -> argparse.ArgumentParser:
    """Return the command line of this verb."""
    out = argparse.ArgumentParser(
        prog='pi0_ros infer', description=__doc__,
        epilog='OBS.npz holds image.CAMERA (uint8 [H, W, 3] RGB, one for each camera), state '
               '(float [D], in the order of the checkpoint) and instruction (text).')
    out.add_argument('--checkpoint', required=True, help="folder, or 'demo'")
    out.add_argument('--observation', required=True, type=Path, metavar='OBS.npz')
    out.add_argument('--output', required=True, type=Path, metavar='ACTIONS.npy',
                     help='absolute, un-normalised joint positions [chunk, D]')
    out.add_argument('--camera', action='append', default=[], metavar='ROBOT=CHECKPOINT',
                     help='which camera of the checkpoint image.ROBOT is; without it, equal names '
                          'belong together; repeatable')
    out.add_argument('--tokenizer', default='', help="folder with tokenizer.json, or a "
                     "name in the hub's cache on this disk")
    out.add_argument('--params-file', type=Path, metavar='YAML',
                     help='parameter file of the node: joints, conversions, cameras and what it '
                          'says of the checkpoint are taken from it; image.camera_1 is then what '
                          'the node sees on camera_1, and state and actions are in the units of '
                          'the robot')
    out.add_argument('--noise', type=Path, metavar='NOISE.npy',
                     help='[chunk, 32] start of the denoising; drawn from --seed without it')
    out.add_argument('--seed', type=int, default=0, help='of the noise (default: 0)')
    out.add_argument('--steps', type=int, default=0,
                     help="denoising steps (default: the checkpoint's)")
    out.add_argument('--dtype', choices=('float32', 'bfloat16'), default='float32')
    out.add_argument('--device', choices=('auto', 'cpu', 'cuda'), default='auto')
    return out


def read_observation(path: Path, routes: Sequence[str], slots: Sequence[str] = ()
                     ) -> Observation:
    """Return the observation in ``path``.

    :param routes: ``ROBOT=CHECKPOINT`` camera names.
    :param slots: the same, for cameras that need not be there.
    :raises ValueError: the file is no observation, or a route is wrong.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            values = {name: file[name] for name in file.files}
    except (OSError, ValueError) as error:
        raise ValueError(f"observation '{path}' cannot be read: {error}") from error
    for name in ('state', 'instruction'):
        if name not in values:
            raise ValueError(f"observation '{path}' lacks '{name}', it has "
                             f"{', '.join(sorted(values))}")
    route = dict(text.split('=', 1) for text in slots)
    for text in routes:
        robot, separator, wanted = text.partition('=')
        if not separator or IMAGE + robot not in values:
            raise ValueError(f"--camera '{text}' is not ROBOT=CHECKPOINT with an image.ROBOT in "
                             f"'{path}'")
        route[robot] = wanted
    images = {}
    for key, image in values.items():
        if key.startswith(IMAGE):
            if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
                raise ValueError(f"'{key}' is {image.dtype} {image.shape}, expected uint8 "
                                 '(height, width, 3)')
            robot = key.removeprefix(IMAGE)
            name = route.get(robot, robot).removeprefix(IMAGES)
            if name in images:
                raise ValueError(f"two images in '{path}' are for camera '{name}'")
            images[name] = image
    return Observation(0, values['state'].astype(float), images, {}, str(values['instruction']))


def read_parameters(path: Path | None) -> SimpleNamespace:
    """Return what a parameter file says of checkpoint and robot, the node's defaults for the rest.

    :raises ValueError: the file holds no ros__parameters.
    """
    out = SimpleNamespace(joint_names=(), state_names=(), conversions=(), relative_joints=(),
                          cameras=(), adaptation='none', letterbox='auto', assets='',
                          tokenizer='', chunk_length=0)
    if path is None:
        return complete(out)
    try:
        content = yaml.safe_load(path.read_text())
        for section in content.values():
            for name, value in section['ros__parameters'].items():
                if hasattr(out, name):
                    kind = type(getattr(out, name))
                    setattr(out, name, kind(value))
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"'{path}' is no ROS parameter file: {error!r}") from error
    return complete(out)


def joint_map(spec: PolicySpec, values: SimpleNamespace, observed: np.ndarray
              ) -> tuple[JointMap, np.ndarray]:
    """Return the map for a file's joints, which come in the order of the checkpoint.

    :param observed: the file's state, as long as the checkpoint's.
    :returns: the map, and the state in the order that it reads.
    :raises ValueError: they do not fit.
    """
    if len(observed) != spec.state_width:
        raise ValueError(f'state has {len(observed)} joints, the checkpoint expects '
                         f'{spec.state_width}')
    if not values.action_names:
        return JointMap.identity(spec.state_width, spec.action_width), observed
    robot = robot_from(values)
    # A position without a joint has a value here all the same.
    every = replace(robot, action_names=_all_named(robot.action_names, spec.action_width, 'a'),
                    state_names=_all_named(robot.states, spec.state_width, 's'))
    at = {name: index for index, name in enumerate(every.states)}
    state = np.array([observed[at[name]] if name in at else 0.0 for name in every.observed])
    return fit(spec, every), state


def _all_named(names: Sequence[str], width: int, kind: str) -> tuple[str, ...]:
    padded = (*names, *[NONE] * (width - len(names)))
    return tuple(f'{kind}{i}' if name == NONE else name for i, name in enumerate(padded))


def main(argv: list[str] | None = None) -> int:
    """Run the verb."""
    args = parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format='pi0_ros infer: %(message)s')
    from pi0_ros.policy.pi0 import Pi0Policy
    started = time.perf_counter()
    try:
        values = read_parameters(args.params_file)
        slots = [f'camera_{slot}={name}' for slot, name in enumerate(values.cameras, 1) if name]
        observation = read_observation(args.observation, args.camera, slots)
        # The actions do not depend on the control rate, so any will do here.
        policy = Pi0Policy(checkpoint_folder(args.checkpoint), dt_ns=20_000_000,
                           device=args.device, dtype=args.dtype, steps=args.steps,
                           seed=args.seed, tokenizer=args.tokenizer or values.tokenizer,
                           choices=choices_from(values))
        policy.joints, state = joint_map(policy.spec, values, observation.state)
        observation = replace(observation, state=state)
        policy.load()
        loaded = time.perf_counter()
        chunk = policy.infer(observation, None if args.noise is None else np.load(args.noise))
    except (CheckpointError, ValueError, OSError) as error:
        print(f'pi0_ros infer: {error}', file=sys.stderr)
        return 1
    inferred = time.perf_counter()
    np.save(args.output, chunk.positions)
    print(json.dumps({'output': str(args.output), 'shape': list(chunk.positions.shape),
                      'device': str(policy.device), 'steps': policy.steps,
                      'load_ms': round(1e3 * (loaded - started), 1),
                      'infer_ms': round(1e3 * (inferred - loaded), 1)}))
    return 0
