# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The small PI0: transformers' own classes at a width that two processor cores can train."""

import math

from pi0_ros.training.demonstrations import CHUNK
from pi0_ros.training.instructions import ADDED
from pi0_ros.weights.pi05 import AdaptiveNorm, PI05ForConditionalGeneration
import torch
from transformers import PI0Config, PI0ForConditionalGeneration

IMAGE_SIZE = 64
PATCH = 8
VOCABULARY = 512
WIDTH = 128
LAYERS = 5
READABLE = 2  # layers after which the named block is known, see learning.Learner.losses


def architecture(*, width: int, expert_width: int, layers: int, heads: int, head_dim: int,
                 image_width: int, image_layers: int, image_heads: int, image_size: int,
                 patch: int, vocabulary: int, chunk: int, mlp: int = 2) -> PI0Config:
    """Return an architecture; hidden layers are ``mlp`` times as wide, one key-value head."""
    attention = {'num_attention_heads': heads, 'num_key_value_heads': 1, 'head_dim': head_dim,
                 'num_hidden_layers': layers, 'vocab_size': vocabulary, 'model_type': 'gemma'}
    text = {**attention, 'hidden_size': width, 'intermediate_size': mlp * width}
    vision = {'model_type': 'siglip_vision_model', 'hidden_size': image_width,
              'intermediate_size': mlp * image_width, 'num_hidden_layers': image_layers,
              'num_attention_heads': image_heads, 'patch_size': patch, 'image_size': image_size,
              'vision_use_head': False, 'projection_dim': width}
    return PI0Config(
        vlm_config={'model_type': 'paligemma', 'text_config': text, 'vision_config': vision,
                    'projection_dim': width, 'hidden_size': width, 'image_token_id': vocabulary},
        dit_config={**attention, 'hidden_size': expert_width,
                    'intermediate_size': mlp * expert_width}, chunk_size=chunk)


def small_config(network: str = 'pi0') -> PI0Config:
    """
    Return the architecture of the demo checkpoint, about 1.8 million parameters.

    pi0.5 reads a token more for every digit of a state.
    """
    config = architecture(
        width=WIDTH, expert_width=WIDTH, layers=LAYERS, heads=4, head_dim=32, image_width=96,
        image_layers=3, image_heads=4, image_size=IMAGE_SIZE, patch=PATCH,
        vocabulary=VOCABULARY + ADDED[network], chunk=CHUNK)
    config.vlm_config.vision_config.intermediate_size = 256
    return config


def new_model(seed: int, config: PI0Config | None = None, network: str = 'pi0'
              ) -> PI0ForConditionalGeneration:
    """
    Return a model with random weights scaled by the width of each layer.

    transformers' fixed deviation of 0.02 suits a width of 2048; at 128 it all but silences the
    layers and training does not begin.

    :param config: the demo checkpoint's if None. :param network: pi0 or pi05, whose norms begin
        as those without a condition, and with gates of 1.
    """
    torch.manual_seed(seed)
    config = config or small_config(network)
    model = (PI05ForConditionalGeneration if network == 'pi05'
             else PI0ForConditionalGeneration)(config)
    for name, parameter in model.named_parameters():
        if name.endswith('bias'):
            torch.nn.init.zeros_(parameter)
        elif parameter.ndim >= 2:
            fan_in = parameter[0].numel()
            if 'embed_tokens' in name or 'position_embedding' in name:
                fan_in = 4.0 if 'position' in name else 1.0
                # Gemma multiplies token embeddings by the root of the width.
                fan_in = fan_in if 'position' in name else float(
                    config.vlm_config.text_config.hidden_size)
            torch.nn.init.normal_(parameter, std=1 / math.sqrt(fan_in))
    for norm in (module for module in model.modules() if isinstance(module, AdaptiveNorm)):
        torch.nn.init.zeros_(norm.dense.weight)
        torch.nn.init.ones_(norm.dense.bias[-len(norm.dense.bias) // 3:].data)
    return model


def start_from(model: PI0ForConditionalGeneration, before: PI0ForConditionalGeneration) -> None:
    """
    Give ``model`` the weights of another of this size; what that lacks stays as it is.

    From PI0 to pi0.5: norms begin with its weights for scale, and tokens are added behind its own.

    :raises ValueError: a tensor is of another size.
    """
    weights, given = model.state_dict(), before.state_dict()
    for name, value in given.items():
        scale = weights.get(name.removesuffix('.weight') + '.dense.bias')
        if scale is not None and value.ndim == 1 and 3 * len(value) == len(scale):
            scale[:len(value)] = value
            continue
        if name not in weights:
            continue
        mine = weights[name]
        longer = 'embed_tokens' in name and len(mine) >= len(value)
        if mine.shape[1:] != value.shape[1:] or not (longer or len(mine) == len(value)):
            raise ValueError(f'cannot go on from there: {name} is {tuple(value.shape)}, expected '
                             f'{tuple(mine.shape)}')
        mine[:len(value)] = value
    model.load_state_dict(weights)
