"""Verb ``inspect``: tell what a checkpoint is, wants and gives."""

import argparse
import json
import sys

import numpy as np

from pi0_ros.policy.checkpoint import read, tensor_sizes
from pi0_ros.policy.factory import checkpoint_folder
from pi0_ros.policy.spec import CheckpointError, Choices, PolicySpec, RelativeUnknown

STILL = 1e-4  # a joint that moved less than this in training, radians or metres


def parser() -> argparse.ArgumentParser:
    """Return the command line of this verb."""
    out = argparse.ArgumentParser(prog='pi0_ros inspect', description=__doc__)
    out.add_argument('checkpoint', help="folder, or 'demo'")
    out.add_argument('--json', action='store_true', help='for programs')
    return out


def describe(spec: PolicySpec) -> dict[str, object]:
    """Return what a person wants to know first."""
    sizes = tensor_sizes(spec.folder)
    return {
        'checkpoint': str(spec.folder), 'layout': spec.layout, 'parameters': sum(sizes.values()),
        'cameras': list(spec.cameras), 'image_size': list(spec.image_size),
        'state_width': spec.state_width, 'action_width': spec.action_width,
        'action_names': list(spec.action_names or ()),
        'state_middle': spec.state.middle.round(4).tolist(),
        'state_spread': spec.state.spread.round(4).tolist(),
        'still_joints': np.flatnonzero(spec.state.spread < STILL).tolist(),
        'chunk_length': spec.chunk_length, 'denoising_steps': spec.denoising_steps,
        'action_rate_hz': None if spec.dt_s is None else round(1 / spec.dt_s, 3),
        'relative_actions': _relative(spec), 'letterbox': spec.letterbox, 'prompt': spec.prompt,
        'tokenizer': str(spec.tokenizer) if spec.tokenizer else None}


def _relative(spec: PolicySpec) -> list[int] | None:
    if spec.layout == 'openpi':
        return None
    return np.flatnonzero(spec.relative).tolist()


def parameter_yaml(spec: PolicySpec, given: str) -> str:
    """Return a parameter file to start from."""
    names = list(spec.action_names or [f'joint_{i + 1}' for i in range(spec.state_width)])
    rate = '' if spec.dt_s else '\n    action_rate: 0.0  # fps of the training data: required'
    tokenizer = '' if spec.tokenizer else "\n    tokenizer: ''  # folder: required"
    relative = ''
    if spec.layout == 'openpi':
        relative = "\n    relative_joints: ['']  # joints, or [none]: required"
    return (f'/**:\n  ros__parameters:\n    checkpoint: {given}{tokenizer}{rate}{relative}\n'
            f'    joint_names: {json.dumps(names)}  # ROS names, in this order\n'
            f'    cameras: {json.dumps(list(spec.cameras[:3]))}  # of camera_1, camera_2, ...\n')


def main(argv: list[str] | None = None) -> int:
    """Run the verb."""
    args = parser().parse_args(argv)
    try:
        folder = checkpoint_folder(args.checkpoint)
        try:
            spec = read(folder)
        except RelativeUnknown:
            spec = read(folder, Choices(relative_joints=()))
        facts = describe(spec)
    except CheckpointError as error:
        print(f'pi0_ros inspect: {error}', file=sys.stderr)
        return 1
    if args.json:
        print(json.dumps(facts, indent=2))
        return 0
    for name, value in facts.items():
        if isinstance(value, list):
            value = ', '.join(map(str, value)) or 'none'
        print(f"{name.replace('_', ' '):18} {'not recorded' if value is None else value}")
    print(f'\nparameter file to start from:\n\n{parameter_yaml(spec, args.checkpoint)}', end='')
    return 0
