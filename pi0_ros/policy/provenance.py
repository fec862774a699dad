# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What a decision follows from: one hash for configuration and checkpoint, one for images."""

import hashlib
import json
from pathlib import Path
import zlib

import numpy as np
from pi0_ros.checkpoint.config import RobotConfig
from pi0_ros.checkpoint.spec import VELOCITIES
from pi0_ros.policy.config import PolicyConfig
from pi0_ros.policy.factory import checkpoint_folder
from pi0_ros.weights import adapter
from pi0_ros.weights.files import CheckpointError, read_json

# Parameters that another chunk follows from if they are others.
DECIDES = ('policy', 'tokenizer', 'device', 'dtype', 'engine', 'compile', 'denoising_steps',
           'chunk_length', 'action_rate', 'relative_joints', 'letterbox', 'assets', 'seed',
           'torch_threads', 'mock_amplitude', 'mock_script')
OF_VELOCITIES = ('actions', 'velocity_of_training', 'position_joints')  # where actions are such
OF_SERVERS = ('server', 'server_schema', 'server_map', 'server_raw_images', 'actions')
OF_TOOLS = ('actions', 'step_of_training', 'turn_of_training', 'step_axes', 'tool_tolerance',
            'turn_tolerance')
OF_THE_ROBOT = ('state_names', 'conversions', 'adaptation', 'cameras')
READ = ('*.json', '*.safetensors', 'assets/**/*.json', 'tokenizer/*.json')
READ_WHOLE = 2**20   # bytes of a file; of a longer one its beginning and samples
SAMPLES = 64
SAMPLE = 4096


def fingerprint(folder: Path) -> str:
    """
    Return a hash of a checkpoint's JSON and safetensors files, and of an adapter's base.

    Of a large file it reads the header and samples: training moves every weight. It takes
    milliseconds for gigabytes. What cannot be read counts as such.
    """
    out = hashlib.sha256()
    for path in sorted({path for pattern in READ for path in folder.glob(pattern)}):
        out.update(f'{path.relative_to(folder)}\n'.encode())
        try:
            out.update(_content(path))
        except OSError:  # a link to nothing, for example: whether that matters, loading says
            out.update(b'unreadable')
    if (folder / adapter.CONFIG).exists():
        try:
            base = adapter.base_folder(folder, read_json(folder / adapter.CONFIG))
            out.update(fingerprint(base).encode())
        except CheckpointError:  # loading says so
            out.update(b'unreadable')
    return out.hexdigest()[:16]


def _content(path: Path) -> bytes:
    size = path.stat().st_size
    with path.open('rb') as file:
        parts = [f'{size}\n'.encode(), file.read(READ_WHOLE)]
        for at in np.linspace(READ_WHOLE, max(READ_WHOLE, size - SAMPLE), SAMPLES).astype(int):
            file.seek(at)
            parts.append(file.read(SAMPLE))
    return b''.join(parts)


def configuration(config: PolicyConfig, robot: RobotConfig, handover: str, jacobian: str
                  ) -> dict[str, object]:
    """
    Return what a chunk follows from: settings, and the checkpoint's fingerprint.

    The names are those of the records that were made so far.
    """
    out = {name: getattr(config, name) for name in DECIDES}
    if config.actions == VELOCITIES:
        out |= {name: getattr(config, name) for name in OF_VELOCITIES}
    if config.policy == 'remote':
        out |= {name: getattr(config, name) for name in OF_SERVERS}
    if robot.end_effectors:
        out |= {name: getattr(config, name) for name in OF_TOOLS}
        out['end_effectors'] = robot.end_effectors
    if config.state_in_prompt != 'auto':  # which no record had before
        out['state_in_prompt'] = config.state_in_prompt
    out['relative_joints'] = config.relative_joints or ('',)
    out |= {name: getattr(robot, name) for name in OF_THE_ROBOT}
    out |= {'action_names': robot.joint_names, 'handover': handover, 'jacobian': jacobian}
    out['checkpoint'] = fingerprint(checkpoint_folder(config.checkpoint)) \
        if config.has_checkpoint else ''
    return json.loads(json.dumps(out))


def configuration_hash(decides: dict[str, object]) -> str:
    """Return a hash of what ``configuration`` returned."""
    text = json.dumps(decides, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def image_hash(image: np.ndarray) -> int:
    """Return a checksum of an image's pixels."""
    return zlib.crc32(np.ascontiguousarray(image))
