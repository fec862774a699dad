"""Checkpoints that openpi converted to PyTorch, or trained there."""

from pathlib import Path
from typing import Any

from pi0_ros.checkpoint.normalise import openpi_normaliser
from pi0_ros.checkpoint.spec import (
    PALIGEMMA, CheckpointError, Choices, PolicySpec, Unrecorded, find_tokenizer, read_json,
    relative_mask, whole)

CAMERAS = ('base_0_rgb', 'left_wrist_0_rgb', 'right_wrist_0_rgb')


def describe(folder: Path, config: dict[str, Any], choices: Choices) -> PolicySpec:
    """Return the description of an openpi checkpoint.

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
            "to the state: set 'relative_joints' to those joints (ALOHA: all but the "
            "grippers), or to [none]")
    path = _norm_stats(folder, choices.assets)
    stats = read_json(path).get('norm_stats')
    try:
        state_width, width = (len(stats[part]['mean']) for part in ('state', 'actions'))
    except (KeyError, TypeError) as error:
        raise ValueError(f"'{path}' lacks norm_stats with lists state.mean and actions.mean") \
            from error
    relative = relative_mask(choices.relative_joints, width)
    if not choices.chunk_length and 'action_horizon' not in config:
        raise Unrecorded(
            f"checkpoint '{folder}' does not record its chunk length, which openpi's training in "
            "PyTorch leaves out: set 'chunk_length' to the action_horizon of the "
            'training configuration (50 unless you changed it)')
    return PolicySpec(
        folder, 'openpi', CAMERAS, state_width, width,
        openpi_normaliser('state', stats['state'], state_width),
        openpi_normaliser('actions', stats['actions'], width), None, None, False, relative,
        choices.chunk_length or whole(config, 'action_horizon'), 10, None, (224, 224),
        choices.letterbox or 'openpi', 'openpi', 48,
        find_tokenizer(folder / 'tokenizer', PALIGEMMA),
        'openpi, converted from JAX' if config else 'openpi, trained in PyTorch')


def _norm_stats(folder: Path, assets: str) -> Path:
    found = sorted((folder / 'assets').rglob('norm_stats.json'))
    names = [str(path.parent.relative_to(folder / 'assets')) for path in found]
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
