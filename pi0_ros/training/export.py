"""Writes the demo checkpoint in LeRobot's layout."""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from tokenizers import Tokenizer

from pi0_ros.sim import arm
from pi0_ros.sim.render import HEIGHT, WIDTH
from pi0_ros.training.demonstrations import CAMERAS, CHUNK, DT
from pi0_ros.training.instructions import MAX_TOKENS
from pi0_ros.training.learning import Samples
from pi0_ros.training.model import IMAGE_SIZE, small_config
from pi0_ros.weights.loading import save_as_lerobot

NORM_MAP = {'VISUAL': 'IDENTITY', 'STATE': 'MEAN_STD', 'ACTION': 'MEAN_STD'}


def export(folder: Path, weights: dict[str, torch.Tensor], samples: Samples,
           tokenizer: Tokenizer, trained_delay: int = 0) -> None:
    """Write a checkpoint that LeRobot's own loader and ours can read.

    :param trained_delay: how many actions the network was trained to be given, see Learner.
    """
    (folder / 'tokenizer').mkdir(parents=True, exist_ok=True)
    width = len(arm.JOINT_NAMES)
    features = {f'observation.images.{name}': {'type': 'VISUAL', 'shape': [3, HEIGHT, WIDTH]}
                for name in CAMERAS}
    features['observation.state'] = {'type': 'STATE', 'shape': [width]}
    action = {'action': {'type': 'ACTION', 'shape': [width]}}
    network = small_config().to_dict()
    _json(folder / 'config.json', {
        'type': 'pi0', 'n_obs_steps': 1, 'input_features': features, 'output_features': action,
        'device': 'cpu', 'dtype': 'float32', 'paligemma_variant': 'gemma_2b',
        'action_expert_variant': 'gemma_300m', 'chunk_size': CHUNK, 'n_action_steps': CHUNK,
        'max_state_dim': 32, 'max_action_dim': 32, 'num_inference_steps': 10,
        'min_period': 0.004, 'max_period': 4.0, 'use_relative_actions': False,
        'relative_exclude_joints': ['gripper'], 'action_feature_names': list(arm.JOINT_NAMES),
        'image_resolution': [IMAGE_SIZE, IMAGE_SIZE], 'empty_cameras': 0,
        'normalization_mapping': NORM_MAP, 'tokenizer_max_length': MAX_TOKENS,
        'action_offset': 1,  # the demonstrator's actions are the next states
        'vlm_config': network['vlm_config'], 'dit_config': network['dit_config'],
        **({'trained_delay': trained_delay} if trained_delay else {})})
    _json(folder / 'train_config.json', {'dataset': {
        'repo_id': 'pi0_ros/sim', 'fps': round(1 / DT)}})
    _processors(folder, features, action)
    statistics = _statistics(samples)
    for name in ('policy_preprocessor_step_6_normalizer_processor',
                 'policy_postprocessor_step_0_unnormalizer_processor'):
        save_file(statistics, folder / f'{name}.safetensors')
    save_as_lerobot(weights, folder / 'model.safetensors')
    tokenizer.save(str(folder / 'tokenizer' / 'tokenizer.json'))
    _json(folder / 'tokenizer' / 'tokenizer_config.json', {
        'tokenizer_class': 'PreTrainedTokenizerFast', 'bos_token': '<bos>', 'eos_token': '<eos>',
        'pad_token': '<pad>', 'unk_token': '<unk>', 'padding_side': 'right'})


def _processors(folder: Path, features: dict, action: dict) -> None:
    def step(name: str, config: dict, **extra: object) -> dict:
        return {'registry_name': name, 'config': config, **extra}

    relative = {'enabled': False, 'exclude_joints': ['gripper'], 'action_names': None}
    _json(folder / 'policy_preprocessor.json', {'name': 'policy_preprocessor', 'steps': [
        step('rename_observations_processor', {'rename_map': {}}),
        step('to_batch_processor', {}),
        step('pi0_new_line_processor', {}),
        step('tokenizer_processor', {
            'max_length': MAX_TOKENS, 'task_key': 'task', 'padding_side': 'right',
            'padding': 'max_length', 'truncation': True, 'tokenizer_name': 'tokenizer'},
            artifacts={'tokenizer_name': 'tokenizer'}),
        step('device_processor', {'device': 'cpu', 'float_dtype': None}),
        step('relative_actions_processor', relative),
        step('normalizer_processor', {'eps': 1e-8, 'features': {**features, **action},
                                      'norm_map': NORM_MAP},
             state_file='policy_preprocessor_step_6_normalizer_processor.safetensors')]})
    _json(folder / 'policy_postprocessor.json', {'name': 'policy_postprocessor', 'steps': [
        step('unnormalizer_processor', {'eps': 1e-8, 'features': action, 'norm_map': NORM_MAP},
             state_file='policy_postprocessor_step_0_unnormalizer_processor.safetensors'),
        step('absolute_actions_processor', {'enabled': False}),
        step('device_processor', {'device': 'cpu', 'float_dtype': None})]})


def _statistics(samples: Samples) -> dict[str, np.ndarray]:
    out = {}
    for feature, name in (('observation.state', 'state'), ('action', 'actions')):
        values = samples.data[name].reshape(-1, len(arm.JOINT_NAMES))
        out |= {f'{feature}.mean': values.mean(0), f'{feature}.std': values.std(0),
                f'{feature}.min': values.min(0), f'{feature}.max': values.max(0)}
        for percent in (1, 10, 50, 90, 99):
            out[f'{feature}.q{percent:02d}'] = np.percentile(values, percent, axis=0)
    return {key: np.ascontiguousarray(value, np.float32) for key, value in out.items()}


def _json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + '\n')
