# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Checkpoints that transformers' own PI0 classes saved."""

from pathlib import Path
from typing import Any

from pi0_ros.checkpoint.normalise import EPS, Normaliser, openpi_normaliser
from pi0_ros.checkpoint.spec import (Choices, find_tokenizer, NETWORKS, PALIGEMMA, PI0, PolicySpec,
                                     relative_mask, whole)
from pi0_ros.weights.files import AGAIN, CheckpointError, part, read_json

CAMERAS = ('image_1', 'image_2', 'image_3')


def describe(folder: Path, config: dict[str, Any], choices: Choices, network: str = PI0
             ) -> PolicySpec:
    """Return the description; statistics come from processor_config.json."""
    if network != PI0:
        raise CheckpointError(f"checkpoint '{folder}' has the layout of transformers' own PI0 and "
                              f'weights of {NETWORKS[network]}, which transformers does not know')
    path = folder / 'processor_config.json'
    processor = read_json(path) if path.exists() else {}
    normalisers: dict[str, Normaliser] = {}
    for name in ('state', 'actions'):
        mean, std = processor.get(f'{name}_mean'), processor.get(f'{name}_std')
        if mean is None or std is None:
            raise CheckpointError(
                f"checkpoint '{folder}' has no {name}_mean and {name}_std in "
                'processor_config.json: without statistics its numbers mean nothing to a robot')
        if not isinstance(mean, list) or not isinstance(std, list):
            raise ValueError(f"'{name}_mean' and '{name}_std' of processor_config.json are "
                             f'{str(mean)[:40]!r} and {str(std)[:40]!r}, expected lists: {AGAIN}')
        normalisers[name] = openpi_normaliser(name, {'mean': mean, 'std': std}, len(mean), EPS)
    width = len(processor['actions_mean'])
    relative = relative_mask(choices.relative_joints or (), width)
    vlm = part(config, 'vlm_config', dict, 'config.json', {})
    vision = part(vlm, 'vision_config', dict, 'vlm_config of config.json', {})
    side = whole(vision, 'image_size', 224)
    return PolicySpec(
        folder, 'transformers', CAMERAS, len(processor['state_mean']), width,
        normalisers['state'], normalisers['actions'], None, None, False, relative,
        choices.chunk_length or whole(config, 'chunk_size', 50),
        whole(config, 'num_inference_steps', 10), None, (side, side),
        choices.letterbox or 'transformers', 'lerobot', 48, find_tokenizer(folder, PALIGEMMA),
        f"transformers {config.get('transformers_version', 'of unknown version')}")
