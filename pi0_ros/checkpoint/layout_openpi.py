# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Checkpoints that openpi converted to PyTorch, or trained there."""

from pathlib import Path
from typing import Any

import numpy as np
from pi0_ros.checkpoint.normalise import openpi_normaliser
from pi0_ros.checkpoint.spec import (Choices, find_tokenizer, PALIGEMMA, PI0, PI05, PolicySpec,
                                     relative_mask, Unrecorded, whole)
from pi0_ros.weights.files import CheckpointError, read_json

STATISTICS = 'norm_stats.json'
WITH_STATE = ("its prompts are taken to have the state in them, as most of pi0.5's: if it was "
              "trained with discrete_state_input=False, as openpi's LIBERO configuration has it, "
              "set 'state_in_prompt' to no; yes says that this is known")
CAMERAS = ('base_0_rgb', 'left_wrist_0_rgb', 'right_wrist_0_rgb')


def describe(folder: Path, config: dict[str, Any], choices: Choices, network: str = PI0
             ) -> PolicySpec:
    """
    Return the description of an openpi checkpoint.

    openpi records neither the delta mask nor the rate: the first must come from ``choices``.
    """
    for key in ('paligemma_variant', 'action_expert_variant'):
        if str(config.get(key, '')).endswith('_lora'):
            raise CheckpointError(
                f"checkpoint '{folder}': its {key} is '{config[key]}', and openpi's conversion of "
                'such a model drops the adapters: what is left is the base. Merge them in JAX '
                'before it is converted, or train without LoRA')
    if choices.relative_joints is None:
        raise Unrecorded(
            f"checkpoint '{folder}' is openpi's, which does not record which actions are relative "
            "to the state: set 'relative_joints' to those joints (ALOHA: all but the grippers), "
            "or to [none]. It does not record what actions mean, either: DROID's are velocities, "
            "LIBERO's steps of a tool ('actions')", 'relative_joints')
    path = _norm_stats(folder, choices.assets)
    stats = read_json(path)
    stats = stats.get('norm_stats', stats)  # some save what is inside
    try:
        state_width, width = (len(stats[part]['mean']) for part in ('state', 'actions'))
        steps = [part for part in ('state', 'actions') if np.ndim(stats[part]['mean']) > 1]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"'{path}' lacks lists state.mean and actions.mean") from error
    if steps:
        raise ValueError(f"'{path}' has {steps[0]}.mean for every step of a chunk, expected one "
                         "for each joint: a fork of openpi's made it, which this package does not "
                         "know. Compute them with openpi's own scripts/compute_norm_stats.py")
    relative = relative_mask(choices.relative_joints, width)
    if not choices.chunk_length and 'action_horizon' not in config:
        raise Unrecorded(
            f"checkpoint '{folder}' does not record its chunk length, which openpi's training in "
            "PyTorch leaves out: set 'chunk_length' to the action_horizon of the "
            'training configuration (50 unless you changed it)', 'chunk_length')
    pi05 = network == PI05
    state = openpi_normaliser('state', stats['state'], state_width, quantiles=pi05)
    action = openpi_normaliser('actions', stats['actions'], width, quantiles=pi05)
    told = pi05 and choices.plain_prompt is None
    return PolicySpec(
        folder, 'openpi', CAMERAS, state_width, width,
        state, action, None, None, False, relative,
        choices.chunk_length or whole(config, 'action_horizon'), 10, None, (224, 224),
        choices.letterbox or 'openpi', PI05 if pi05 and not choices.plain_prompt else 'openpi',
        200 if pi05 else 48,
        find_tokenizer(folder / 'tokenizer', PALIGEMMA),
        'openpi, converted from JAX' if config else 'openpi, trained in PyTorch',
        (WITH_STATE,) if told else ())


def _norm_stats(folder: Path, assets: str) -> Path:
    beside = folder / STATISTICS
    found = sorted((folder / 'assets').rglob(STATISTICS))
    names = [str(path.parent.relative_to(folder / 'assets')) for path in found]
    if beside.is_file() and not assets:
        other = [path for path in found if path.read_bytes() != beside.read_bytes()]
        if other:
            raise CheckpointError(f"checkpoint '{folder}' has {STATISTICS} beside the weights and "
                                  f'another below assets/, {names[found.index(other[0])]}: remove '
                                  'the one that it was not trained with')
        return beside
    if assets:
        if assets not in names:
            raise CheckpointError(f"checkpoint '{folder}' has no assets/{assets}/norm_stats.json, "
                                  f"it has {', '.join(names) or 'none'}")
        return found[names.index(assets)]
    if len(found) != 1:
        raise CheckpointError(
            f"checkpoint '{folder}' has {len(found)} norm_stats.json below assets/"
            + (f" ({', '.join(names)}): choose one with 'assets'" if found else
               ': copy assets/<asset id>/norm_stats.json from the training run'))
    return found[0]
