# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Checkpoints as LeRobot 0.4 and newer saves them."""

from pathlib import Path
from typing import Any

import numpy as np
from pi0_ros.checkpoint import pipeline
from pi0_ros.checkpoint.dataset import DataSet, flat_names
from pi0_ros.checkpoint.pipeline import (ABSOLUTE, AFTER, BEFORE, IMAGES, NORMALISES, RELATIVE,
                                         RENAMES, RESTORES, STATE_PROMPT, Step, TOKENIZES)
from pi0_ros.checkpoint.spec import (Choices, find_tokenizer, PI0, PI05, PolicySpec, relative_mask,
                                     texts, Unrecorded, whole)
from pi0_ros.weights.adapter import CONFIG as ADAPTER
from pi0_ros.weights.files import AGAIN, CheckpointError, inside, part, read_json
from pi0_ros.weights.header import read_header

CONFIG = 'config.json'
OLD_BORDER = 'lerobot_0.4'  # whose pi0.5 pads states before they become digits, too
BASE_CAMERAS = ('base_0_rgb', 'left_wrist_0_rgb', 'right_wrist_0_rgb')  # of lerobot/pi0_base
OLD_KEYS = ('resize_imgs_with_padding', 'adapt_to_pi_aloha', 'use_delta_joint_actions_aloha',
            'proj_width', 'num_steps', 'use_cache', 'attention_implementation',
            'train_state_proj')  # of its configuration before 0.4


def migrate(config: dict[str, Any]) -> str:
    """Return how a checkpoint of LeRobot before 0.4 is converted."""
    old = [key for key in config if key in OLD_KEYS]
    steps = f" (num_steps is {config['num_steps']}: write it as num_inference_steps)" \
        if config.get('num_steps', 10) != 10 else ''
    return ("convert it with LeRobot's migrate_policy_normalization and the transformers that "
            'this LeRobot asks for (another leaves the image encoder untrained: it must say "all '
            'keys matched"), and set \'letterbox\' to lerobot_0.3 afterwards' + (
                f'; LeRobot 0.6 stops at keys of config.json that it does not know, so take them '
                f"out of a copy first: {', '.join(old)}{steps}" if old else ''))


def describe(folder: Path, config: dict[str, Any], choices: Choices, network: str = PI0
             ) -> PolicySpec:
    """Return the description of a LeRobot checkpoint."""
    if not (folder / 'policy_preprocessor.json').exists():
        if (folder / ADAPTER).exists():
            raise CheckpointError(f"checkpoint '{folder}' is an adapter without "
                                  'policy_preprocessor.json, which says how states and actions '
                                  'are normalised: copy the whole folder that training saved')
        raise CheckpointError(
            f"checkpoint '{folder}' has no policy_preprocessor.json: it is incomplete, or LeRobot "
            f'before 0.4 saved it: {migrate(config)}')
    before = pipeline.read_steps(folder / 'policy_preprocessor.json', BEFORE)
    after = pipeline.read_steps(folder / 'policy_postprocessor.json', AFTER)
    pipeline.require_steps(before, (TOKENIZES, NORMALISES), 'policy_preprocessor.json')
    pipeline.require_prompt(before, network, 'policy_preprocessor.json')
    pipeline.require_steps(after, (RESTORES,), 'policy_postprocessor.json')
    inputs, outputs = (part(config, name, dict, CONFIG) for name in (
        'input_features', 'output_features'))
    normalise, restore = before[NORMALISES], after[RESTORES]
    pipeline.modes(normalise, restore)
    warnings: list[str] = []
    state, state_width = pipeline.normaliser(folder, normalise, 'STATE', 'observation.state',
                                             _width(inputs, 'observation.state'), warnings)
    action, action_width = pipeline.normaliser(folder, restore, 'ACTION', 'action',
                                               _width(outputs, 'action'), warnings)
    renamed = _renamed(before)
    data = DataSet(folder)
    cameras = _cameras(config, renamed, pipeline.cameras_in(folder, normalise), data, warnings)
    pixels = pipeline.pixels(folder, normalise, cameras)
    if pixels:
        warnings.append('its images are normalised by statistics, as its processor says: '
                        + ', '.join(pixels))
    cast = {part(step.config, 'float_dtype', str, step.where, 'float32')
            for step in before.values()} - {'float32'}
    if cast:
        warnings.append(f'its processor makes {cast.pop()} of states, which is not done here: '
                        'they are a little more exact')
    names = flat_names(config.get('action_feature_names'))
    names = names if len(names) == action_width else ()
    tokenize = before[TOKENIZES]
    tokenizer = part(tokenize.artifacts, 'tokenizer_name', str, tokenize.where, 'tokenizer')
    size = config.get('image_resolution', [224, 224])
    if not isinstance(size, list) or len(size) != 2 or set(map(type, size)) != {int}:
        raise ValueError(f'its image_resolution is {size!r}, expected two whole numbers')
    relative, why = _relative(config, before, after, action_width, choices)
    trainer, told = _trainer(folder, config, normalise, choices, network)
    padded = (part(before[STATE_PROMPT].config, 'max_state_dim', int, before[
        STATE_PROMPT].where, 32) if network == PI05 and choices.letterbox == OLD_BORDER else 0)
    if (folder / ADAPTER).exists():
        trainer += f", an adapter of {read_json(folder / ADAPTER).get('base_model_name_or_path')}"
    return PolicySpec(
        folder, 'LeRobot', cameras, state_width, action_width, state, action,
        data.names('observation.state', state_width),
        names or data.names('action', action_width), True,
        relative,
        choices.chunk_length or whole(config, 'chunk_size'),
        whole(config, 'num_inference_steps'), data.control_period, tuple(size),
        choices.letterbox or 'lerobot', PI05 if network == PI05 else 'lerobot',
        whole(tokenize.config, 'max_length'),
        find_tokenizer(inside(folder, tokenizer, 'tokenizer_name'),
                       part(tokenize.config, 'tokenizer_name', str, tokenize.where, None)),
        trainer, (*told, *warnings), renamed, pixels, why, prompt_states=padded)


def _cameras(config: dict[str, Any], renamed: dict[str, str], measured: set[str],
             data: DataSet, warnings: list[str]) -> tuple[str, ...]:
    """
    Return the cameras that training had, in the order of config.json.

    A model that was fine-tuned from a base keeps that one's cameras; those that training's renames
    did not feed, and that the data set's statistics do not have, were empty. Features of one
    channel, or that the data set calls depth, are no colour cameras.

    :param measured: the data set's names of cameras in the statistics.
    """
    where = 'input_features of config.json'
    inputs = part(config, 'input_features', dict, CONFIG)
    features = {key: part(inputs, key, dict, where) for key in inputs}
    found = {key.removeprefix(IMAGES): of for key, of in features.items()
             if part(of, 'type', str, f'{key} in {where}') == 'VISUAL'}
    for name, of in found.items():
        shape = part(of, 'shape', list, f'{name} in {where}')
        if len(shape) != 3 or not all(type(size) is int for size in shape):
            raise ValueError(f"'shape' of {name} in {where} is {shape}, expected three whole "
                             f'numbers: {AGAIN}')
    empty = {f'empty_camera_{number}' for number in range(whole(config, 'empty_cameras', 0))}
    known_as = {new: old for old, new in renamed.items()}
    depth = [name for name, of in found.items() if 1 in (of['shape'][0], of['shape'][-1])
             or data.is_depth(known_as.get(name, name))]
    out = [name for name in found if name not in empty and name not in depth]
    lost = sorted(set(renamed.values()) - set(found) - {'observation.state', 'action'})
    if lost:
        warnings.append(f"training renamed a camera to {', '.join(lost)}, which the network does "
                        'not have: it has never seen it')
    if depth:
        warnings.append(f"{', '.join(depth)} is a depth image, no colour camera: left out")
    mapped = {renamed.get(name, name) for name in measured}
    fed = [name for name in out if name in renamed.values() or name in mapped]
    base = set(BASE_CAMERAS) <= set(found)
    if renamed and fed and len(fed) < len(out) and (base or mapped & set(out)):
        unfed = [name for name in out if name not in fed]
        warnings.append(f"{', '.join(unfed)} of the base was fed by none of training's renames: "
                        'taken for empty')
        out = fed
    if not out:
        raise ValueError('it declares no camera')
    return tuple(out)


def _relative(config: dict[str, Any], before: dict[str, Step], after: dict[str, Step],
              width: int, choices: Choices) -> tuple[np.ndarray, str]:
    """
    Return which actions are relative to the observation's state, and by which rule.

    As LeRobot's ``relative_action_processor.py``: an action is left out whose lower-cased name
    contains one of the excluded words; those without a name are relative, whatever they are.
    """
    if choices.relative_joints is not None:
        return relative_mask(choices.relative_joints, width), 'as set'
    step, back = before.get(RELATIVE), after.get(ABSOLUTE)
    enabled = part(config, 'use_relative_actions', bool, CONFIG, False)
    if step is not None and part(step.config, 'enabled', bool, step.where, False) != enabled:
        raise Unrecorded('config.json and policy_preprocessor.json disagree on whether actions '
                         "are relative: set 'relative_joints' to those, or to [none]",
                         'relative_joints')
    if not enabled:
        return np.zeros(width, bool), ''
    if back is None or not part(back.config, 'enabled', bool, back.where, False):
        raise ValueError('its actions are relative, but policy_postprocessor.json has no step '
                         f"'{ABSOLUTE}' that is enabled: {AGAIN}")
    told = step.config if step else {}
    for key, other in (('exclude_joints', 'relative_exclude_joints'),
                       ('action_names', 'action_feature_names')):
        if config.get(other) is not None and told.get(key) != config[other]:
            raise Unrecorded(f'{other} of config.json and {key} of policy_preprocessor.json '
                             f'disagree on which actions are relative, {config[other]!r} and '
                             f"{told.get(key)!r}: set 'relative_joints'", 'relative_joints')
    where = step.where if step else CONFIG
    names = [str(name).lower() for name in part(told, 'action_names', list, where, [])][:width]
    words = [word.lower() for word in texts(told.get('exclude_joints'), 'exclude_joints') if word]
    out = np.ones(width, bool)
    for index, name in enumerate(names):
        out[index] = not any(word in name for word in words)
    if not words:
        return out, 'all'
    if out.all():
        return out, (f"all: none of the names {', '.join(names) or '(it stored none)'} contains "
                     f"{', '.join(words)}, so LeRobot made every action relative")
    return out, 'all but those whose names contain ' + ', '.join(words)


def _renamed(before: dict[str, Step]) -> dict[str, str]:
    """Return what training called its data set's cameras."""
    step = before.get(RENAMES)
    names = part(step.config, 'rename_map', dict, step.where, {}) if step else {}
    return {old.removeprefix(IMAGES): part(names, old, str, 'rename_map').removeprefix(IMAGES)
            for old in names}


def _width(features: dict[str, Any], name: str) -> int:
    """Return how many values a feature of config.json has."""
    shape = part(part(features, name, dict, CONFIG), 'shape', list, f'{name} in {CONFIG}')
    if len(shape) != 1 or type(shape[0]) is not int:
        raise ValueError(f'its {name} has shape {shape!r}, expected one whole number')
    return shape[0]


def _trainer(folder: Path, config: dict[str, Any], normalise: Step, choices: Choices,
             network: str) -> tuple[str, tuple[str, ...]]:
    """
    Return what the files betray of LeRobot's version, and a warning where it matters.

    :raises Unrecorded: it was converted from a version whose letterbox was another.
    """
    if pipeline.migrated(folder, normalise):
        if not choices.letterbox:
            raise Unrecorded(
                f"checkpoint '{folder}': its statistics hold only what normalisation needs, "
                'as those that were converted from LeRobot before 0.4, which put the border of '
                "images at another side: set 'letterbox' to lerobot_0.3, or to lerobot if a newer "
                'one trained it', 'letterbox')
        return 'LeRobot before 0.4, converted', ()
    if (folder / 'tokenizer').is_dir():
        return 'LeRobot newer than 0.6.1', ()
    if 'use_relative_actions' in config:
        return 'LeRobot 0.5.1 or newer', ()
    if any(name.endswith('embed_tokens.weight') for name in read_header(folder)[0]):
        return 'LeRobot 0.5.0 or newer', ()
    if choices.letterbox:
        return 'LeRobot 0.4', ()
    if network == PI05:
        raise Unrecorded(
            f"checkpoint '{folder}': LeRobot 0.4 seems to have saved it. If 0.4 also trained it, "
            'its images had another border, and its prompts a number for every place that a state '
            "is padded to: set 'letterbox' to lerobot_0.4, else to lerobot", 'letterbox')
    return 'LeRobot 0.4', (
        'LeRobot 0.4 seems to have saved this checkpoint. If 0.4 also trained it, its images had '
        "another border: set 'letterbox' to lerobot_0.4, else to lerobot",)
