# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Writes a checkpoint in LeRobot's layout, whole or not at all."""

from collections.abc import Mapping, Sequence
import json
from pathlib import Path
import shutil
from typing import Any

import numpy as np
from pi0_ros.checkpoint.reader import OURS
from pi0_ros.checkpoint.spec import PALIGEMMA, PI05, PolicySpec
from pi0_ros.dataset.reader import ACTION, IMAGES, STATE
from pi0_ros.finetune.inputs import Meaning
from pi0_ros.weights.loading import save_as_lerobot
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from torch import Tensor
from transformers import PI0Config

PALIGEMMA_WORDS = 257_152  # in its vocabulary
VARIANTS = {2048: 'gemma_2b', 1024: 'gemma_300m'}  # by width
NORMALISES = 'normalizer_processor'
TOKENIZER = {'tokenizer_class': 'PreTrainedTokenizerFast', 'bos_token': '<bos>',
             'eos_token': '<eos>', 'pad_token': '<pad>', 'unk_token': '<unk>',
             'padding_side': 'right'}


def write_checkpoint(folder: Path, tensors: dict[str, Tensor], meaning: Meaning,
                     config: PI0Config, tokenizer: Tokenizer, shapes: Mapping[str, Sequence[int]],
                     training: Mapping[str, Any], card: str, trained_delay: int = 0) -> None:
    """
    Write a checkpoint that LeRobot's own loader and ours read.

    :param tensors: of the network, under transformers' names.
    :param shapes: height and width of the images of each camera.
    :param training: for train_config.json. :param card: the text of README.md.
    :raises OSError: it cannot be written; what was there before stays.
    """
    part = folder.with_name(folder.name + '.partial')
    shutil.rmtree(part, ignore_errors=True)
    try:
        (part / 'tokenizer').mkdir(parents=True)
        _describe(part, meaning, config, shapes, trained_delay)
        _json(part / 'train_config.json', training)
        (part / 'README.md').write_text(card)
        tokenizer.save(str(part / 'tokenizer' / 'tokenizer.json'))
        _json(part / 'tokenizer' / 'tokenizer_config.json', TOKENIZER)
        save_as_lerobot(tensors, part / 'model.safetensors')
        old = folder.with_name(folder.name + '.old')
        if folder.exists():
            folder.rename(old)
        part.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    except Exception as error:
        shutil.rmtree(part, ignore_errors=True)
        raise error if isinstance(error, OSError) else OSError(f"'{folder}': {error}") from error


def _describe(folder: Path, meaning: Meaning, config: PI0Config,
              shapes: Mapping[str, Sequence[int]], trained_delay: int) -> None:
    """Write config.json and the processors with their statistics."""
    spec = meaning.spec
    inputs = {IMAGES + name: {'type': 'VISUAL', 'shape': [3, *shapes[name]]}
              for name in spec.cameras}
    inputs[STATE] = {'type': 'STATE', 'shape': [spec.state_width]}
    outputs = {ACTION: {'type': 'ACTION', 'shape': [spec.action_width]}}
    modes = {'VISUAL': 'IDENTITY', 'STATE': meaning.mode, 'ACTION': meaning.mode}
    text, expert = config.vlm_config.text_config, config.dit_config
    variants = [VARIANTS.get(part.hidden_size) for part in (text, expert)]
    widths = config.to_dict()
    ours: dict[str, Any] = {}
    if spec.network == PI05 and trained_delay:
        delay = {'rtc_training_max_delay': trained_delay}  # as LeRobot has it
    else:
        delay, ours = {}, {'trained_delay': trained_delay} if trained_delay else {}
    ours |= {'action_offset': spec.action_offset} if spec.action_offset else {}
    _json(folder / 'config.json', {
        'type': spec.network, 'n_obs_steps': 1, 'input_features': inputs,
        'output_features': outputs, 'device': 'cpu', 'dtype': 'float32',
        'paligemma_variant': variants[0] or 'gemma_2b',
        'action_expert_variant': variants[1] or 'gemma_300m', 'chunk_size': spec.chunk_length,
        'n_action_steps': spec.chunk_length, 'max_state_dim': config.max_state_dim,
        'max_action_dim': config.max_action_dim, 'num_inference_steps': spec.denoising_steps,
        'min_period': config.min_period, 'max_period': config.max_period,
        'use_relative_actions': bool(spec.relative.any()),
        'relative_exclude_joints': list(meaning.exclude),
        'action_feature_names': list(spec.action_names) if spec.action_names else None,
        'image_resolution': list(spec.image_size), 'empty_cameras': 0,
        'normalization_mapping': modes, 'tokenizer_max_length': spec.max_prompt_tokens, **delay,
        # Of a size that was never published, which LeRobot's classes do not make.
        **({} if all(variants) else {name: widths[name] for name in ('vlm_config',
                                                                     'dit_config')})})
    if ours:
        _json(folder / OURS, ours)
    statistics = {name: np.ascontiguousarray(value, np.float32)
                  for name, value in meaning.statistics.items()}
    # LeRobot 0.6 looks a tokenizer up by its name, newer ones beside the checkpoint.
    known = PALIGEMMA if text.vocab_size >= PALIGEMMA_WORDS else 'tokenizer'
    for name in _processors(folder, spec, meaning.exclude, known, inputs, outputs, modes):
        save_file(statistics, folder / name)


def _processors(folder: Path, spec: PolicySpec, exclude: Sequence[str], tokenizer: str,
                inputs: dict, outputs: dict, modes: dict) -> list[str]:
    """Write the processors as LeRobot orders them; return the files that their statistics need."""
    enabled = bool(spec.relative.any())
    relative = ('relative_actions_processor', {
        'enabled': enabled, 'exclude_joints': list(exclude),
        'action_names': list(spec.action_names) if enabled and spec.action_names else None})
    tokenize = ('tokenizer_processor', {
        'max_length': spec.max_prompt_tokens, 'task_key': 'task', 'padding_side': 'right',
        'padding': 'max_length', 'truncation': True, 'tokenizer_name': tokenizer})
    device = ('device_processor', {'device': 'cpu', 'float_dtype': None})
    normalise = (NORMALISES, {'eps': 1e-8, 'features': {**inputs, **outputs}, 'norm_map': modes})
    begin = [('rename_observations_processor', {'rename_map': {}}), ('to_batch_processor', {})]
    if spec.network == PI05:
        before = [*begin, relative, normalise,
                  ('pi05_prepare_state_tokenizer_processor_step', {}), tokenize, device]
    else:
        before = [*begin, ('pi0_new_line_processor', {}), tokenize, device, relative, normalise]
    after = [('unnormalizer_processor', {'eps': 1e-8, 'features': outputs, 'norm_map': modes}),
             ('absolute_actions_processor', {'enabled': enabled}), device]
    files = []
    for name, steps in (('policy_preprocessor', before), ('policy_postprocessor', after)):
        out: list[dict[str, Any]] = []
        for number, (step, settings) in enumerate(steps):
            out.append({'registry_name': step, 'config': settings})
            if 'normalizer' in step:
                out[-1]['state_file'] = f'{name}_step_{number}_{step}.safetensors'
                files.append(out[-1]['state_file'])
            elif step == 'tokenizer_processor':
                out[-1]['artifacts'] = {'tokenizer_name': 'tokenizer'}
        _json(folder / f'{name}.json', {'name': name, 'steps': out})
    return files


def _json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + '\n')
