"""Checkpoints as LeRobot 0.4 and newer saves them."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file

from pi0_ros.checkpoint.normalise import EPS, lerobot_normaliser
from pi0_ros.checkpoint.spec import (
    CheckpointError, Choices, PolicySpec, Unrecorded, find_tokenizer, inside, read_json,
    relative_mask, texts, whole)

IMAGES = 'observation.images.'
FASTEST_HZ = 1000


def describe(folder: Path, config: dict[str, Any], choices: Choices) -> PolicySpec:
    """Return the description of a LeRobot checkpoint."""
    if not (folder / 'policy_preprocessor.json').exists():
        raise CheckpointError(
            f"checkpoint '{folder}' has no policy_preprocessor.json: it is incomplete, or LeRobot "
            "before 0.4 saved it; convert that with LeRobot's migrate_policy_normalization")
    before = _steps(read_json(folder / 'policy_preprocessor.json'))
    after = _steps(read_json(folder / 'policy_postprocessor.json'))
    inputs, outputs = config['input_features'], config['output_features']
    state_width = _width(inputs, 'observation.state')
    action_width = _width(outputs, 'action')
    cameras = tuple(key.removeprefix(IMAGES) for key in inputs if key.startswith(IMAGES)
                    and not key.startswith(IMAGES + 'empty_camera'))
    if not cameras:
        raise ValueError('it declares no camera')
    names = texts(config.get('action_feature_names'), 'action_feature_names')
    if names and len(names) != action_width:
        raise ValueError(f'it names {len(names)} actions but has {action_width}')
    normalise, restore = before['normalizer_processor'], after['unnormalizer_processor']
    tokenize = before['tokenizer_processor']
    tokenizer = str(tokenize.get('artifacts', {}).get('tokenizer_name', 'tokenizer'))
    size = config.get('image_resolution', [224, 224])
    if not isinstance(size, list) or len(size) != 2 or set(map(type, size)) != {int}:
        raise ValueError(f'its image_resolution is {size!r}, expected two whole numbers')
    data = _DataSet(folder)
    return PolicySpec(
        folder, 'LeRobot', cameras, state_width, action_width,
        lerobot_normaliser(normalise['config']['norm_map']['STATE'], 'observation.state',
                           _statistics(folder, normalise), state_width,
                           float(normalise['config'].get('eps', EPS))),
        lerobot_normaliser(restore['config']['norm_map']['ACTION'], 'action',
                           _statistics(folder, restore), action_width,
                           float(restore['config'].get('eps', EPS))),
        data.names('observation.state', state_width),
        names or data.names('action', action_width), True,
        _relative(config, before, names, action_width, choices),
        choices.chunk_length or whole(config, 'chunk_size'),
        whole(config, 'num_inference_steps', 10), data.control_period, tuple(size),
        choices.letterbox or 'lerobot', 'lerobot',
        whole(tokenize['config'], 'max_length'),
        find_tokenizer(inside(folder, tokenizer, 'tokenizer_name'),
                       tokenize['config'].get('tokenizer_name')),
        *_trainer(folder, config, choices), _renamed(before))


def _relative(config: dict[str, Any], before: dict[str, dict], names: tuple[str, ...],
              width: int, choices: Choices) -> np.ndarray:
    """Return which actions are relative to the observation's state.

    LeRobot excludes joints whose lower-cased action name contains one of the excluded words, and
    excludes nothing, silently, where the names are missing.
    """
    if choices.relative_joints is not None:
        return relative_mask(choices.relative_joints, width)
    step = before.get('relative_actions_processor', {}).get('config')
    enabled = bool(config.get('use_relative_actions'))
    if step is not None and bool(step.get('enabled')) != enabled:
        raise Unrecorded('config.json and policy_preprocessor.json disagree on whether actions '
                         "are relative: set 'relative_joints' to those, or to [none]")
    if not enabled:
        return np.zeros(width, bool)
    step = step or {}
    names = texts(step.get('action_names'), 'action_names') or names
    words = step.get('exclude_joints', config.get('relative_exclude_joints', ['gripper']))
    exclude = [word.lower() for word in texts(words, 'exclude_joints')]
    if exclude and len(names) != width:
        raise Unrecorded(
            f"its actions are relative except {', '.join(exclude)}, but it names "
            f"{len(names)} of {width} actions: set 'relative_joints'")
    out = np.ones(width, bool)
    for index, name in enumerate(names):
        out[index] = not any(word in name.lower() for word in exclude)
    return out


def _renamed(before: dict[str, dict]) -> dict[str, str]:
    """Return what training called its data set's cameras."""
    step = before.get('rename_observations_processor', {}).get('config') or {}
    return {str(old).removeprefix(IMAGES): str(new).removeprefix(IMAGES)
            for old, new in (step.get('rename_map') or {}).items()}


def _width(features: dict[str, Any], name: str) -> int:
    """Return how many values a feature of config.json has."""
    shape = features[name]['shape']
    if not isinstance(shape, list) or len(shape) != 1 or type(shape[0]) is not int:
        raise ValueError(f'its {name} has shape {shape!r}, expected one whole number')
    return shape[0]


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
    except (SafetensorError, OSError) as error:
        raise ValueError(f"statistics file '{path.name}' is damaged: {error}") from error


class _DataSet:
    """What is known of the training data: in the checkpoint, else in the data set on this disk."""

    def __init__(self, folder: Path) -> None:
        path = folder / 'train_config.json'
        config = read_json(path) if path.exists() else {}
        data = config.get('dataset') or {}
        self._info: dict[str, Any] = {}
        home = os.environ.get('HF_LEROBOT_HOME', '~/.cache/huggingface/lerobot')
        for root in (data.get('root'), data.get('repo_id') and f"{home}/{data['repo_id']}"):
            info = Path(str(root)).expanduser() / 'meta' / 'info.json'
            if root and info.is_file():
                self._info = read_json(info)
                break
        # The data set's rate times the actions; an environment is where it was tried out.
        rate = next((section['fps'] for section in (data, self._info, config.get('env') or {})
                     if section.get('fps') is not None), None)
        if rate is not None and (isinstance(rate, bool) or not isinstance(rate, (int, float))
                                 or not 0 < rate <= FASTEST_HZ):
            raise ValueError(f'its control rate (fps) is {rate!r}, expected above 0 to '
                             f"{FASTEST_HZ} Hz: set 'action_rate'")
        self.control_period = 1 / rate if rate else None  # seconds

    def names(self, feature: str, width: int) -> tuple[str, ...] | None:
        """Return the names of a feature's values, where they are known."""
        names = self._info.get('features', {}).get(feature, {}).get('names')
        if isinstance(names, dict):  # {"motors": [...]}, as older recordings have it
            names = [name for part in names.values() for name in part]
        names = texts(names, f'names of {feature} in info.json')
        return names if len(names) == width else None


def _trainer(folder: Path, config: dict[str, Any], choices: Choices
             ) -> tuple[str, tuple[str, ...]]:
    """Return what the files betray of LeRobot's version, and a warning where it matters."""
    with safe_open(folder / 'model.safetensors', 'numpy') as file:
        tied = not any(name.endswith('embed_tokens.weight') for name in file.keys())
    if (folder / 'tokenizer').is_dir():
        return 'LeRobot newer than 0.6.1', ()
    if 'use_relative_actions' in config:
        return 'LeRobot 0.5.1 or newer', ()
    if not tied:
        return 'LeRobot 0.5.0 or newer', ()
    if choices.letterbox:
        return 'LeRobot 0.4', ()
    return 'LeRobot 0.4', (
        "LeRobot 0.4 seems to have saved this checkpoint. If 0.4 also trained it, its images had "
        "another border: set 'letterbox' to lerobot_0.4, else to lerobot",)
