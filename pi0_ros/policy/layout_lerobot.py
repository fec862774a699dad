"""Checkpoints as LeRobot 0.4 and newer saves them."""

from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from pi0_ros.policy.normalise import lerobot_normaliser
from pi0_ros.policy.spec import CheckpointError, Choices, PolicySpec, read_json

IMAGES = 'observation.images.'


def describe(folder: Path, config: dict[str, Any], choices: Choices) -> PolicySpec:
    """Return the description of a LeRobot checkpoint."""
    if not (folder / 'policy_preprocessor.json').exists():
        raise CheckpointError(
            f"checkpoint '{folder}' has no policy_preprocessor.json: it is incomplete, or LeRobot "
            "before 0.4 saved it; convert that with LeRobot's migrate_policy_normalization")
    before = _steps(read_json(folder / 'policy_preprocessor.json'))
    after = _steps(read_json(folder / 'policy_postprocessor.json'))
    inputs, outputs = config['input_features'], config['output_features']
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
        folder, 'LeRobot', cameras, state_width, action_width,
        lerobot_normaliser(normalise['config']['norm_map']['STATE'], 'observation.state',
                           _statistics(folder, normalise), state_width),
        lerobot_normaliser(restore['config']['norm_map']['ACTION'], 'action',
                           _statistics(folder, restore), action_width),
        tuple(names) if names else None, _relative(config, before, names, action_width, choices),
        int(config['chunk_size']), int(config['num_inference_steps']), _control_period(folder),
        (int(config['image_resolution'][0]), int(config['image_resolution'][1])),
        choices.letterbox or 'lerobot', 'lerobot', int(tokenize['config']['max_length']),
        tokenizer if (tokenizer / 'tokenizer.json').exists() else None)


def _relative(config: dict[str, Any], before: dict[str, dict], names: list[str] | None,
              width: int, choices: Choices) -> np.ndarray:
    """Return which actions are relative to the observation's state.

    LeRobot excludes joints whose lower-cased action name contains one of the excluded words, and
    excludes nothing, silently, where the names are missing.
    """
    out = np.zeros(width, bool)
    if choices.relative_joints is not None:
        out[list(choices.relative_joints)] = True
        return out
    step = before.get('relative_actions_processor', {}).get('config', {})
    if not (config.get('use_relative_actions') or step.get('enabled')):
        return out
    names = step.get('action_names') or names
    exclude = [str(word).lower() for word in
               step.get('exclude_joints', config.get('relative_exclude_joints', ['gripper']))]
    if exclude and (not names or len(names) != width):
        raise ValueError(
            f"its actions are relative except {', '.join(exclude)}, but it names "
            f"{len(names or ())} of {width} actions: set parameter 'relative_joints'")
    out[:] = True
    for index, name in enumerate(names or ()):
        out[index] = not any(word in str(name).lower() for word in exclude)
    return out


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


def _control_period(folder: Path) -> float | None:
    """Return the training data's control period, seconds, where a training left it behind."""
    path = folder / 'train_config.json'
    if not path.exists():
        return None
    config = read_json(path)
    for section in ('env', 'dataset'):
        fps = (config.get(section) or {}).get('fps')
        if fps:
            return 1 / float(fps)
    return None
