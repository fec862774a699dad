# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Writes the demo checkpoint in LeRobot's layout."""

import json
from pathlib import Path

from pi0_ros.sim import arm
from pi0_ros.sim.render import HEIGHT, WIDTH
from pi0_ros.training.demonstrations import CAMERAS, CHUNK, DT
from pi0_ros.training.instructions import MAX_TOKENS
from pi0_ros.training.learning import Samples
from pi0_ros.training.model import IMAGE_SIZE, small_config
from pi0_ros.weights.loading import save_as_lerobot
from safetensors.numpy import save_file
from tokenizers import Tokenizer
import torch

NORMALISES = 'normalizer_processor'


def export(folder: Path, weights: dict[str, torch.Tensor], samples: Samples,
           tokenizer: Tokenizer, trained_delay: int = 0) -> None:
    """
    Write a checkpoint that LeRobot's own loader and ours can read.

    :param trained_delay: how many actions the network was trained to be given, see Learner.
    """
    (folder / 'tokenizer').mkdir(parents=True, exist_ok=True)
    width, network = len(arm.JOINT_NAMES), samples.network
    features = {f'observation.images.{name}': {'type': 'VISUAL', 'shape': [3, HEIGHT, WIDTH]}
                for name in CAMERAS}
    features['observation.state'] = {'type': 'STATE', 'shape': [width]}
    action = {'action': {'type': 'ACTION', 'shape': [width]}}
    norm_map = {'VISUAL': 'IDENTITY', 'STATE': samples.mode, 'ACTION': samples.mode}
    widths = small_config(network).to_dict()
    delay = 'rtc_training_max_delay' if network == 'pi05' else 'trained_delay'  # as LeRobot has it
    _json(folder / 'config.json', {
        'type': network, 'n_obs_steps': 1, 'input_features': features, 'output_features': action,
        'device': 'cpu', 'dtype': 'float32', 'paligemma_variant': 'gemma_2b',
        'action_expert_variant': 'gemma_300m', 'chunk_size': CHUNK, 'n_action_steps': CHUNK,
        'max_state_dim': 32, 'max_action_dim': 32, 'num_inference_steps': 10,
        'min_period': 0.004, 'max_period': 4.0, 'use_relative_actions': False,
        'relative_exclude_joints': ['gripper'], 'action_feature_names': list(arm.JOINT_NAMES),
        'image_resolution': [IMAGE_SIZE, IMAGE_SIZE], 'empty_cameras': 0,
        'normalization_mapping': norm_map, 'tokenizer_max_length': MAX_TOKENS[network],
        'action_offset': 1,  # the demonstrator's actions are the next states
        'vlm_config': widths['vlm_config'], 'dit_config': widths['dit_config'],
        **({delay: trained_delay} if trained_delay else {})})
    _json(folder / 'train_config.json', {'dataset': {
        'repo_id': 'pi0_ros/sim', 'fps': round(1 / DT)}})
    for name in _processors(folder, network, features, action, norm_map):
        save_file(samples.statistics, folder / name)
    save_as_lerobot(weights, folder / 'model.safetensors')
    tokenizer.save(str(folder / 'tokenizer' / 'tokenizer.json'))
    _json(folder / 'tokenizer' / 'tokenizer_config.json', {
        'tokenizer_class': 'PreTrainedTokenizerFast', 'bos_token': '<bos>', 'eos_token': '<eos>',
        'pad_token': '<pad>', 'unk_token': '<unk>', 'padding_side': 'right'})


def _processors(folder: Path, network: str, features: dict, action: dict, norm_map: dict
                ) -> list[str]:
    """Write the processors as LeRobot orders them; return the files that their statistics need."""
    relative = {'enabled': False, 'exclude_joints': ['gripper'], 'action_names': None}
    tokenize = ('tokenizer_processor', {
        'max_length': MAX_TOKENS[network], 'task_key': 'task', 'padding_side': 'right',
        'padding': 'max_length', 'truncation': True, 'tokenizer_name': 'tokenizer'})
    device = ('device_processor', {'device': 'cpu', 'float_dtype': None})
    normalise = (NORMALISES, {'eps': 1e-8, 'features': {**features, **action},
                              'norm_map': norm_map})
    begin = [('rename_observations_processor', {'rename_map': {}}), ('to_batch_processor', {})]
    if network == 'pi05':
        before = [*begin, ('relative_actions_processor', relative), normalise,
                  ('pi05_prepare_state_tokenizer_processor_step', {}), tokenize, device]
    else:
        before = [*begin, ('pi0_new_line_processor', {}), tokenize, device,
                  ('relative_actions_processor', relative), normalise]
    after = [('unnormalizer_processor', {'eps': 1e-8, 'features': action, 'norm_map': norm_map}),
             ('absolute_actions_processor', {'enabled': False}), device]
    files = []
    for name, steps in (('policy_preprocessor', before), ('policy_postprocessor', after)):
        out = []
        for number, (step, config) in enumerate(steps):
            out.append({'registry_name': step, 'config': config})
            if 'normalizer' in step:
                out[-1]['state_file'] = f'{name}_step_{number}_{step}.safetensors'
                files.append(out[-1]['state_file'])
            elif step == 'tokenizer_processor':
                out[-1]['artifacts'] = {'tokenizer_name': 'tokenizer'}
        _json(folder / f'{name}.json', {'name': name, 'steps': out})
    return files


def _json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + '\n')
