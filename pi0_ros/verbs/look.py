# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Verb ``inspect``: tell what a checkpoint is, wants and gives."""

import argparse
from collections.abc import Collection
from dataclasses import replace
import json
import logging
from pathlib import Path
import sys
import time

import numpy as np
from pi0_ros.checkpoint.normalise import Normaliser
from pi0_ros.checkpoint.reader import read
from pi0_ros.checkpoint.spec import Choices, find_tokenizer, NETWORKS, PolicySpec, Unrecorded
from pi0_ros.configuration.advice import advised
from pi0_ros.configuration.configuration import Configuration
from pi0_ros.configuration.file import read_description, read_parameters
from pi0_ros.observation.observation import Observation
from pi0_ros.policy.factory import checkpoint_folder, in_numbers, policy_class
from pi0_ros.policy.policy import Unserved
from pi0_ros.verbs.servers import describe as describe_server
from pi0_ros.verbs.servers import is_server
from pi0_ros.weights.files import CheckpointError
from pi0_ros.weights.header import read_header

GIB = 2**30
# To go on with where it is not recorded.
GUESSES = {'relative_joints': (), 'chunk_length': 50, 'letterbox': 'lerobot',
           'actions': 'positions'}
REQUIRED = {'chunk_length': '50  # required: action_horizon of the training configuration',
            'letterbox': 'auto  # required: lerobot_0.3 or lerobot, by who trained it',
            'actions': 'auto  # required: positions, or velocities, end_effector_pose or '
                       'end_effector_delta and what they need more',
            'relative_joints': "['']  # required: joints, or [none]"}
LARGEST_ANGLE = 7.0  # radians; a joint that is found further out is in other units


def parser() -> argparse.ArgumentParser:
    """Return the command line of this verb."""
    out = argparse.ArgumentParser(prog='pi0_ros inspect', description=__doc__)
    out.add_argument('checkpoint', help="folder, 'demo', or a server's address, ws://HOST:PORT")
    out.add_argument('--tokenizer', default='', help='folder with tokenizer.json, or a name in '
                     "the hub's cache on this disk")
    out.add_argument('--json', action='store_true', help='for programs')
    out.add_argument('--params-file', type=Path, metavar='YAML',
                     help='parameter file of the node, for what the checkpoint does not record')
    out.add_argument('--measure', action='store_true',
                     help='also load it, check the fast engine against the reference and time it')
    out.add_argument('--robot-description', type=read_description, metavar='URDF',
                     help='with --measure and a parameter file that has end_effectors: where the '
                          'tool would go from the mean pose of training')
    return out


def describe(spec: PolicySpec) -> dict[str, object]:
    """Return what a checkpoint is, wants and gives, ready for JSON."""
    _, stored = read_header(spec.folder)
    parameters = sum(tensor.size for tensor in stored.values())
    return {
        'checkpoint': str(spec.folder), 'network': NETWORKS[spec.network],
        'layout': spec.layout, 'trainer': spec.trainer,
        'parameters': parameters, 'dtypes': sorted({part.dtype for part in stored.values()}),
        'memory_gib': {'bfloat16': 2 * parameters / GIB,
                       'float32': 4 * parameters / GIB},
        'cameras': list(spec.cameras), 'renamed': dict(spec.renamed),
        'image_size': list(spec.image_size),
        'letterbox': spec.letterbox, 'prompt': spec.prompt,
        'max_prompt_tokens': spec.max_prompt_tokens,
        'tokenizer': str(spec.tokenizer) if spec.tokenizer else None,
        'chunk_length': spec.chunk_length, 'denoising_steps': spec.denoising_steps,
        'action_rate_hz': None if spec.dt_s is None else round(1 / spec.dt_s, 3),
        'action_offset': spec.action_offset,
        'state': _feature(spec.state, spec.state_names),
        'action': _feature(spec.action, spec.action_names),
        'relative_actions': _relative(spec), 'relative_why': spec.relative_why,
        'velocities': [] if spec.velocity is None else spec.velocity.tolist(),
        'trained_delay': spec.trained_delay,
        'warnings': [
            *map(advised, spec.warnings), *_unit_warnings(spec)]}


def _feature(normaliser: Normaliser, names: tuple[str, ...] | None) -> dict[str, object]:
    return {'width': len(normaliser.middle), 'names': list(names) if names else None,
            'middle': normaliser.middle.round(4).tolist(),
            'spread': normaliser.spread.round(4).tolist(),
            'still': np.flatnonzero(normaliser.still).tolist()}


def _relative(spec: PolicySpec) -> list[int] | None:
    if spec.layout == 'openpi':
        return None
    return np.flatnonzero(spec.relative).tolist()


def _unit_warnings(spec: PolicySpec) -> list[str]:
    """Return a warning if values are too large for radians and metres."""
    reach = np.abs(spec.state.middle) + np.abs(spec.state.spread)
    large = np.flatnonzero(reach > LARGEST_ANGLE)
    if not len(large):
        return []
    return [f"state {', '.join(map(str, large))} goes up to {reach.max():.0f}: that is degrees or "
            "per cent, not radians or metres; set parameter 'conversions'"]


def measure(folder: Path, choices: Choices, tokenizer: str, config: Configuration,
            urdf: str | None) -> dict[str, object]:
    """Load a checkpoint, let its engine check itself, time ten chunks, and see where tools go."""
    from pi0_ros.verbs.preview import preview
    started = time.perf_counter()
    policy = policy_class(folder)(folder, dt_ns=config.policy.dt_ns or 20_000_000,
                                  choices=choices, tokenizer=tokenizer)
    policy.load()
    loaded = time.perf_counter()
    policy.warm_up()
    ready = time.perf_counter()
    height, width = policy.spec.image_size
    seen = Observation(0, policy.spec.state.middle, {
        name: np.full((height, width, 3), 128, np.uint8) for name in policy.cameras}, {},
        'pick up the red block')
    times = []
    for _ in range(10):
        before = time.perf_counter()
        policy.infer(seen)
        times.append(1e3 * (time.perf_counter() - before))
    report = policy.report
    return {'engine': report.path, 'reason': report.reason, 'difference': report.difference,
            'kernels': report.kernels, 'device': str(policy.device), 'dtype': str(policy.dtype),
            'load_s': round(loaded - started, 2), 'check_s': round(ready - loaded, 2),
            'infer_p50_ms': round(float(np.median(times)), 2),
            **({'tools': tools} if (tools := preview(policy, config, urdf)) else {})}


def parameter_yaml(spec: PolicySpec, given: str, missing: Collection[str] = (),
                   tokenizer: str = '') -> str:
    """
    Return a parameter file to start from.

    :param missing: settings that must be made. :param tokenizer: that was given, '' for none.
    """
    def guess(names: tuple[str, ...] | None, width: int) -> str:
        return json.dumps([name.removesuffix('.pos') for name in names or ()]
                          or [f'joint_{i + 1}' for i in range(width)])

    lines = ['/**:', '  ros__parameters:', f'    checkpoint: {json.dumps(given)}',
             f'    joint_names: {guess(spec.action_names, spec.action_width)}'
             '  # ROS names, in the order of the actions']
    if spec.state_width != spec.action_width or (
            spec.state_names and spec.state_names != spec.action_names):
        lines.append(f'    state_names: {guess(spec.state_names, spec.state_width)}'
                     '  # ROS names, in the order of the state')
    lines.append(f'    cameras: {json.dumps(list(spec.cameras[:3]))}'
                 '  # what camera_1, camera_2, camera_3 show')
    if not spec.dt_s:
        lines.append('    action_rate: 0.0  # required: fps of the training data')
    if tokenizer:
        lines.append(f'    tokenizer: {json.dumps(tokenizer)}')
    elif not spec.tokenizer:
        lines.append("    tokenizer: ''  # required: folder with PaliGemma's tokenizer.json")
    if spec.layout == 'openpi':
        lines.append("    relative_joints: ['']  # required: joints, or [none]")
    lines += [f'    {name}: {REQUIRED[name]}' for name in missing if name in REQUIRED
              and not any(line.startswith(f'    {name}:') for line in lines)]
    if _unit_warnings(spec):
        joints = json.loads(guess(spec.action_names, spec.action_width))
        turning = [name for name in joints if 'gripper' not in name.lower()]
        lines.append('    conversions: ' + json.dumps(dict.fromkeys(
            turning if len(turning) < len(joints) else ['*'], 'degree'))
            + '  # check: units of the training data')
    return '\n'.join(lines) + '\n'


def as_text(facts: dict) -> str:
    """Return ``facts`` for people."""
    height, width = facts['image_size']
    memory, rate = facts['memory_gib'], facts['action_rate_hz']
    seconds = f" at {rate:g} Hz = {facts['chunk_length'] / rate:.2f} s" if rate else \
        ', rate not recorded'
    relative = facts['relative_actions']
    if relative is None:
        kind = 'not recorded whether relative to the state'
    else:
        why = f" ({facts['relative_why']})" if facts['relative_why'] else ''
        kind = f'relative to the state where marked{why}' if relative else 'absolute'
    if any(facts['velocities']):
        kind += f", velocities where marked, of {max(facts['velocities']):g} rad/s or m/s"
    lines = [
        ('checkpoint', facts['checkpoint']),
        ('network', facts['network'] + (
            f", trained to be given up to {facts['trained_delay']} actions (rtc_trained)"
            if facts['trained_delay'] else '')),
        ('trained by', facts['trainer']),
        ('weights', f"{facts['parameters'] / 1e6:,.1f} million parameters, stored as "
         f"{' and '.join(facts['dtypes'])}; in memory {_size(memory['bfloat16'])} as bfloat16, "
         f"{_size(memory['float32'])} as float32, and room to work"),
        ('cameras', f"{', '.join(_called(facts, name) for name in facts['cameras'])}; fitted to "
         f"{width} x {height}, letterbox {facts['letterbox']}"),
        ('prompt', f"{facts['prompt']}, at most {facts['max_prompt_tokens']} tokens"),
        ('tokenizer', facts['tokenizer'] or 'not found: set parameter tokenizer'),
        ('chunk', f"{facts['chunk_length']} steps{seconds}; {facts['denoising_steps']} denoising "
         'steps'),
        ('actions', f'{kind}; the first is due ' + (
            'with the observation' if not facts['action_offset'] else
            f"{facts['action_offset']} x 1 / rate after the observation"))]
    out = [f'{name:11} {value}' for name, value in lines]
    out += ['', *_statistics(facts), '']
    out += [f'warning: {text}' for text in facts['warnings']]
    return '\n'.join(out).rstrip() + '\n'


def _called(facts: dict, name: str) -> str:
    """Return a camera's name, and what the data set calls it."""
    other = [mine for mine, its in facts['renamed'].items() if its == name]
    return f'{name} (in the data set {other[0]})' if other else name


def _size(gib: float) -> str:
    return f'{gib:.1f} GiB' if gib >= 1 else f'{1024 * gib:.1f} MiB'


def _statistics(facts: dict) -> list[str]:
    columns = f"{'middle':>9}{'spread':>9}"
    out = [f"     {'state':24}{columns}     {'action':24}{columns}"]

    def half(feature: dict, index: int, marks: dict[str, list[int]]) -> str:
        if index >= feature['width']:
            return ' ' * 46
        name = feature['names'][index] if feature['names'] else '-'
        mark = ' '.join(word for word, indices in marks.items() if index in indices)
        return (f"{name[:23]:24}{feature['middle'][index]:9.4g}{feature['spread'][index]:9.4g}"
                f'{mark and " " + mark:4}')

    state, action = facts['state'], facts['action']
    for index in range(max(state['width'], action['width'])):
        out.append(f"{index:3}  {half(state, index, {'still': state['still']})} "
                   + half(action, index, {'still': action['still'],
                                          'relative': facts['relative_actions'] or [],
                                          'velocity': np.flatnonzero(facts['velocities'])
                                          }).rstrip())
    return out


def main(argv: list[str] | None = None) -> int:
    """Run the verb."""
    args = parser().parse_args(argv)
    logging.basicConfig(format='pi0_ros inspect: %(message)s')
    try:
        if is_server(args.checkpoint):
            print(describe_server(args.checkpoint, read_parameters(args.params_file)), end='')
            return 0
        folder = checkpoint_folder(args.checkpoint)
        config = read_parameters(args.params_file)
        robot = in_numbers(config.policy, config.robot)
        choices, missing, spec = config.policy.choices(robot), {}, None
        while spec is None:
            try:
                spec = read(folder, choices)
            except Unrecorded as error:
                missing[error.setting] = str(error)
                choices = replace(choices, **{error.setting: GUESSES[error.setting]})
        tokenizer = args.tokenizer or config.policy.tokenizer
        if tokenizer:
            found = find_tokenizer(Path(tokenizer).expanduser().absolute(), tokenizer)
            if found is None:
                raise ValueError(f"tokenizer '{tokenizer}' is no folder with tokenizer.json, and "
                                 "not in the hub's cache on this disk")
            tokenizer, spec = str(found.resolve()), replace(spec, tokenizer=found.resolve())
        facts = describe(replace(spec, warnings=(*missing.values(), *spec.warnings)))
        if args.measure:
            facts['measured'] = measure(folder, choices, tokenizer, config,
                                        args.robot_description)
    except (CheckpointError, ValueError, Unserved) as error:
        print(f'pi0_ros inspect: {advised(error)}', file=sys.stderr)
        return 1
    name = args.checkpoint if args.checkpoint == 'demo' else str(spec.folder)
    if args.json:
        print(json.dumps(facts, indent=2))
        return 0
    print(as_text(facts))
    if args.measure:
        print('measured    ' + ', '.join(f'{name} {value}' for name, value in
                                         facts['measured'].items()) + '\n')
    print('parameter file to start from:\n\n'
          + parameter_yaml(spec, name, missing, tokenizer), end='')
    return 0
