"""Reads a PI0 checkpoint folder: what the policy is, wants and gives.

Only JSON and safetensors are read. The folder is LeRobot's (0.4 and newer); other layouts are
refused by name.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file

from pi0_ros.policy.normalise import Normaliser, lerobot_normaliser

IMAGES = 'observation.images.'


class CheckpointError(Exception):
    """A checkpoint cannot be used; the text says why and what to do."""


@dataclass(frozen=True)
class PolicySpec:
    """What a checkpoint is, whatever its layout."""

    folder: Path
    cameras: tuple[str, ...]      # names, in the order of the prefix
    state_width: int
    action_width: int
    state: Normaliser
    action: Normaliser
    action_names: tuple[str, ...] | None
    chunk_length: int
    denoising_steps: int
    dt_s: float | None            # control period of the training data, None when not recorded
    image_size: tuple[int, int]   # height, width
    image_pad: float              # letterbox border, in [-1, 1] units
    max_prompt_tokens: int
    tokenizer: Path | None        # folder with tokenizer.json


def read(folder: Path) -> PolicySpec:
    """Return the description of the checkpoint in ``folder``.

    :raises CheckpointError: the folder is missing, incomplete, or of a kind that is not supported.
    """
    if not folder.is_dir():
        raise CheckpointError(f"checkpoint folder '{folder}' does not exist: give the folder that "
                              'holds config.json and model.safetensors')
    config = _json(folder / 'config.json')
    _recognise(folder, config)
    before = _json(folder / 'policy_preprocessor.json')
    after = _json(folder / 'policy_postprocessor.json')
    try:
        return _describe(folder, config, _steps(before), _steps(after))
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise CheckpointError(f"checkpoint '{folder}' is incomplete or damaged: "
                              f'{type(error).__name__}: {error}') from error
    except ValueError as error:
        raise CheckpointError(f"checkpoint '{folder}': {error}") from error


def _recognise(folder: Path, config: dict[str, Any]) -> None:
    kind = config.get('type') or config.get('model_type')
    if kind != 'pi0' or 'input_features' not in config:
        what = f"type '{kind}'" if kind else 'no type'
        if 'action_expert_variant' in config and kind is None:
            what = 'the layout of openpi'
        elif config.get('model_type') == 'pi0':
            what = 'the layout of transformers'
        raise CheckpointError(f"checkpoint '{folder}' has {what}; this version reads PI0 "
                              'checkpoints as LeRobot saves them (0.4 and newer)')
    if not (folder / 'policy_preprocessor.json').exists():
        raise CheckpointError(f"checkpoint '{folder}' has no policy_preprocessor.json: it is "
                              'incomplete, or LeRobot before 0.4 saved it; convert that with '
                              "LeRobot's migrate_policy_normalization")


def _describe(folder: Path, config: dict[str, Any], before: dict[str, dict],
              after: dict[str, dict]) -> PolicySpec:
    inputs, outputs = config['input_features'], config['output_features']
    if config.get('use_relative_actions'):
        raise ValueError('it was trained on relative actions, which this version does not support')
    state_width = int(inputs['observation.state']['shape'][0])
    action_width = int(outputs['action']['shape'][0])
    cameras = tuple(key.removeprefix(IMAGES) for key in inputs if key.startswith(IMAGES)
                    and not key.startswith(IMAGES + 'empty_camera'))
    if not cameras:
        raise ValueError('it declares no camera')
    names = config.get('action_feature_names')
    if names is not None and len(names) != action_width:
        raise ValueError(f'it names {len(names)} actions but has {action_width}')
    normalise, restore = before['normalizer_processor'], after['unnormalizer_processor']
    tokenize = before['tokenizer_processor']
    tokenizer = folder / str(tokenize.get('artifacts', {}).get('tokenizer_name', 'tokenizer'))
    return PolicySpec(
        folder, cameras, state_width, action_width,
        lerobot_normaliser(normalise['config']['norm_map']['STATE'], 'observation.state',
                           _statistics(folder, normalise), state_width),
        lerobot_normaliser(restore['config']['norm_map']['ACTION'], 'action',
                           _statistics(folder, restore), action_width),
        tuple(names) if names else None,
        int(config['chunk_size']), int(config['num_inference_steps']), _control_period(folder),
        (int(config['image_resolution'][0]), int(config['image_resolution'][1])), -1.0,
        int(tokenize['config']['max_length']),
        tokenizer if (tokenizer / 'tokenizer.json').exists() else None)


def _steps(pipeline: dict[str, Any]) -> dict[str, dict]:
    return {step['registry_name']: step for step in pipeline['steps']}


def _statistics(folder: Path, step: dict[str, Any]) -> dict[str, np.ndarray]:
    path = folder / step['state_file']
    if path.parent != folder:
        raise ValueError(f"statistics file '{step['state_file']}' lies outside the checkpoint")
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise ValueError(f"statistics file '{path.name}' is missing: copy the whole folder") \
            from error
    except SafetensorError as error:
        raise ValueError(f"statistics file '{path.name}' is damaged: {error}") from error


def _control_period(folder: Path) -> float | None:
    """Return the training data's control period, seconds, where a training left it behind."""
    path = folder / 'train_config.json'
    if not path.exists():
        return None
    config = _json(path)
    for section in ('env', 'dataset'):
        fps = (config.get(section) or {}).get('fps')
        if fps:
            return 1 / float(fps)
    return None


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise CheckpointError(f"checkpoint file '{path}' is missing: copy the whole folder that "
                              'training saved') from error
    except (ValueError, UnicodeDecodeError) as error:
        raise CheckpointError(f"checkpoint file '{path}' is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"checkpoint file '{path}' holds no JSON object")
    return value


def tensor_sizes(folder: Path) -> dict[str, int]:
    """Return the number of values in each tensor of the checkpoint.

    :raises CheckpointError: the file is missing or damaged.
    """
    path = folder / 'model.safetensors'
    if not path.exists():
        raise CheckpointError(f"checkpoint file '{path}' is missing: copy the whole folder")
    try:
        with safe_open(path, 'numpy') as file:
            return {name: int(np.prod(file.get_slice(name).get_shape())) for name in file.keys()}
    except SafetensorError as error:
        raise CheckpointError(f"checkpoint file '{path}' is damaged: {error}") from error
