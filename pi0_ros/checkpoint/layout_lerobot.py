"""Checkpoints as LeRobot 0.4 and newer saves them."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from pi0_ros.checkpoint.normalise import EPS, NEEDS, Normaliser, lerobot_normaliser
from pi0_ros.checkpoint.spec import (
    CheckpointError, Choices, PolicySpec, Unrecorded, find_tokenizer, inside, read_json,
    relative_mask, texts, whole)

IMAGES = 'observation.images.'
FASTEST_HZ = 1000
BASE_CAMERAS = ('base_0_rgb', 'left_wrist_0_rgb', 'right_wrist_0_rgb')  # of lerobot/pi0_base
POSES = ('x', 'y', 'z', 'roll', 'pitch', 'yaw', 'rx', 'ry', 'rz', 'qx', 'qy', 'qz', 'qw')
# The steps of LeRobot's own pipelines for pi0; what each does is done here, or does nothing here.
BEFORE = ('rename_observations_processor', 'to_batch_processor', 'pi0_new_line_processor',
          'tokenizer_processor', 'device_processor', 'relative_actions_processor',
          'normalizer_processor')
AFTER = ('unnormalizer_processor', 'absolute_actions_processor', 'device_processor')


def describe(folder: Path, config: dict[str, Any], choices: Choices) -> PolicySpec:
    """Return the description of a LeRobot checkpoint."""
    if not (folder / 'policy_preprocessor.json').exists():
        raise CheckpointError(
            f"checkpoint '{folder}' has no policy_preprocessor.json: it is incomplete, or LeRobot "
            "before 0.4 saved it; convert that with LeRobot's migrate_policy_normalization")
    before = _steps(read_json(folder / 'policy_preprocessor.json'), BEFORE)
    after = _steps(read_json(folder / 'policy_postprocessor.json'), AFTER)
    inputs, outputs = config['input_features'], config['output_features']
    normalise, restore = before['normalizer_processor'], after['unnormalizer_processor']
    _require_plain_images(normalise, inputs)
    warnings: list[str] = []
    state, state_width = _normaliser(folder, normalise, 'STATE', 'observation.state',
                                     _width(inputs, 'observation.state'), warnings)
    action, action_width = _normaliser(folder, restore, 'ACTION', 'action',
                                       _width(outputs, 'action'), warnings)
    renamed = _renamed(before)
    cameras = _cameras(config, renamed, warnings)
    names = flat_names(config.get('action_feature_names'))
    names = names if len(names) == action_width else ()
    tokenize = before['tokenizer_processor']
    tokenizer = str(tokenize.get('artifacts', {}).get('tokenizer_name', 'tokenizer'))
    size = config.get('image_resolution', [224, 224])
    if not isinstance(size, list) or len(size) != 2 or set(map(type, size)) != {int}:
        raise ValueError(f'its image_resolution is {size!r}, expected two whole numbers')
    data = _DataSet(folder)
    poses = [name for name in names or data.names('action', action_width) or ()
             if name.lower() in POSES]
    if len(poses) > 2:
        warnings.append(f"its actions are called {', '.join(poses)}: poses of a hand, not "
                        'positions of joints, which this package commands')
    trainer, told = _trainer(folder, config, choices)
    return PolicySpec(
        folder, 'LeRobot', cameras, state_width, action_width, state, action,
        data.names('observation.state', state_width),
        names or data.names('action', action_width), True,
        _relative(config, before, names, action_width, choices),
        choices.chunk_length or whole(config, 'chunk_size'),
        whole(config, 'num_inference_steps', 10), data.control_period, tuple(size),
        choices.letterbox or 'lerobot', 'lerobot',
        whole(tokenize['config'], 'max_length'),
        find_tokenizer(inside(folder, tokenizer, 'tokenizer_name'),
                       tokenize['config'].get('tokenizer_name')),
        trainer, (*told, *warnings), renamed)


def _cameras(config: dict[str, Any], renamed: dict[str, str], warnings: list[str]
             ) -> tuple[str, ...]:
    """Return the cameras that training had, in the order of config.json.

    A model that was fine-tuned from pi0_base keeps that one's cameras; those that training's
    renames did not feed were empty. Features of one channel are depth, which is no colour camera.
    """
    found = {key.removeprefix(IMAGES): of for key, of in config['input_features'].items()
             if isinstance(of, dict) and of.get('type') == 'VISUAL'}
    empty = {f'empty_camera_{number}' for number in range(whole(config, 'empty_cameras', 0))}
    depth = [name for name, of in found.items() if (of.get('shape') or [3])[0] == 1]
    out = [name for name in found if name not in empty and name not in depth
           and not name.startswith('empty_camera')]
    lost = sorted(set(renamed.values()) - set(found) - {'observation.state', 'action'})
    if lost:
        warnings.append(f"training renamed a camera to {', '.join(lost)}, which the network does "
                        'not have: it has never seen it')
    if depth:
        warnings.append(f"{', '.join(depth)} is a depth image, no colour camera: left out")
    fed = [name for name in out if name in renamed.values()]
    if fed and set(BASE_CAMERAS) <= set(found) and len(fed) < len(out):
        unfed = [name for name in out if name not in fed]
        warnings.append(f"{', '.join(unfed)} of the base was fed by none of training's renames: "
                        'taken for empty')
        out = fed
    if not out:
        raise ValueError('it declares no camera')
    return tuple(out)


def _normaliser(folder: Path, step: dict[str, Any], kind: str, feature: str, width: int,
                warnings: list[str]) -> tuple[Normaliser, int]:
    """Return the normaliser of a feature, and how many values it has.

    As LeRobot's ``normalize_processor.py``: a type that the map lacks, and a feature that the step
    does not have, stay as they are. The width is that of the statistics: the configuration of a
    fine-tuned model keeps its base's.
    """
    config = step['config']
    keys = config.get('normalize_observation_keys')
    left_out = kind == 'STATE' and (feature not in config.get('features', {feature: ()})
                                    or (keys is not None and feature not in keys))
    mode = config['norm_map'].get(kind)
    if mode is None or left_out:
        warnings.append(f'its {feature} is not normalised, as its processor says: LeRobot gives '
                        'the network the numbers as they are')
        mode = 'IDENTITY'
    if mode == 'IDENTITY' or mode not in NEEDS:
        return lerobot_normaliser(mode, feature, {}, width), width
    statistics = _statistics(folder, step)
    for name in NEEDS[mode]:
        value = statistics.get(f'{feature}.{name}')
        if value is not None and value.ndim and value.size == value.shape[-1]:
            statistics[f'{feature}.{name}'] = value.reshape(-1)
            width = value.size
    return lerobot_normaliser(mode, feature, statistics, width,
                              float(config.get('eps', EPS))), width


def _require_plain_images(step: dict[str, Any], inputs: dict[str, Any]) -> None:
    """Refuse images that training normalised by statistics of its own."""
    mode = step['config']['norm_map'].get('VISUAL', 'IDENTITY')
    if mode != 'IDENTITY':
        raise ValueError(f'its images are normalised by statistics (VISUAL {mode}), which this '
                         'package does not do: the actions would be wrong. Train it with VISUAL '
                         'IDENTITY, as LeRobot does for pi0')


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
    names = flat_names(step.get('action_names')) or names
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


def _steps(pipeline: dict[str, Any], known: tuple[str, ...]) -> dict[str, dict]:
    """Return the steps of a pipeline by name.

    :raises ValueError: there is one that nobody here knows: it may change what moves the robot.
    """
    out = {}
    for step in pipeline['steps']:
        name = step.get('registry_name')
        if name not in known:
            raise ValueError(f"its pipeline has the step '{name or step.get('class')}', which is "
                             f"none of LeRobot's for pi0 ({', '.join(known)}): what it does to "
                             'states, images or actions is not known, so the robot could move '
                             'wrongly')
        out[name] = step
    return out


def _statistics(folder: Path, step: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return statistics by flat names: of the file, else of the JSON, as LeRobot resolves them."""
    name = step.get('state_file')
    if name is None:
        told = step['config'].get('stats') or {}
        if not told:
            raise ValueError('it has no statistics: it is a base model, which says nothing to a '
                             'robot before it is fine-tuned on its data')
        return {f'{feature}.{key}': np.asarray(value, np.float64)
                for feature, of in told.items() for key, value in of.items()}
    path = inside(folder, name, 'state_file')
    try:
        with safe_open(path, 'pt') as file:  # numpy knows no bfloat16
            return {key: file.get_tensor(key).double().numpy() for key in file.keys()}
    except FileNotFoundError as error:
        raise ValueError(f"statistics file '{path.name}' is missing: copy the whole folder") \
            from error
    except (SafetensorError, OSError) as error:
        raise ValueError(f"statistics file '{path.name}' is damaged: {error}") from error


def flat_names(value: Any) -> tuple[str, ...]:
    """Return the names of joints in whatever shape a data set has them, () where that is no list.

    A list, nested or not; groups of lists; names to indices.
    """
    if isinstance(value, str):
        return (value,)
    if isinstance(value, dict):
        if value and all(type(index) is int for index in value.values()):
            return tuple(sorted(value, key=value.get))
        value = list(value.values())
    if not isinstance(value, list):
        return ()
    return tuple(name for part in value for name in flat_names(part))


class _DataSet:
    """What is known of the training data: in the checkpoint, else in the data set on this disk."""

    def __init__(self, folder: Path) -> None:
        path = folder / 'train_config.json'
        config = read_json(path) if path.exists() else {}
        data = config.get('dataset') or {}
        self._info: dict[str, Any] = {}
        for info in _info_files(data):
            if info.is_file():
                self._info = read_json(info)
                break
        # The data set's rate times the actions; an environment is where it was tried out.
        rate = next((section['fps'] for section in (data, self._info)
                     if section.get('fps') is not None), None)
        if rate is not None and (isinstance(rate, bool) or not isinstance(rate, (int, float))
                                 or not 0 < rate <= FASTEST_HZ):
            raise ValueError(f'its control rate (fps) is {rate!r}, expected above 0 to '
                             f"{FASTEST_HZ} Hz: set 'action_rate'")
        self.control_period = 1 / rate if rate else None  # seconds

    def names(self, feature: str, width: int) -> tuple[str, ...] | None:
        """Return the names of a feature's values, where they are known."""
        names = self._info.get('features', {}).get(feature, {}).get('names')
        names = flat_names(names)
        return names if len(names) == width else None


def _info_files(data: dict[str, Any]) -> list[Path]:
    """Return where the info.json of a data set may lie on this disk."""
    hub = Path(os.environ.get('HF_HOME') or '~/.cache/huggingface')
    home = Path(os.environ.get('HF_LEROBOT_HOME') or hub / 'lerobot').expanduser()
    roots, repo = [data.get('root')], data.get('repo_id')
    if isinstance(repo, str) and repo:
        roots.append(home / repo)
        cached = f"datasets--{repo.replace('/', '--')}"
        for cache in (home / 'hub', hub.expanduser() / 'hub'):
            main = cache / cached / 'refs' / 'main'
            if main.is_file():
                roots.append(cache / cached / 'snapshots' / main.read_text().strip())
    return [Path(str(root)).expanduser() / 'meta' / 'info.json' for root in roots if root]


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
