"""The small PI0: transformers' own classes at a width that two processor cores can train."""

import math

import torch
from transformers import PI0Config, PI0ForConditionalGeneration

from pi0_ros.training.demonstrations import CHUNK

IMAGE_SIZE = 64
PATCH = 8
VOCABULARY = 512
WIDTH = 128
LAYERS = 5
READABLE = 2  # layers after which the named block is known, see learning.Learner.losses


def small_config() -> PI0Config:
    """Return the architecture of the demo checkpoint, about 1.9 million parameters."""
    heads = {'num_attention_heads': 4, 'num_key_value_heads': 1, 'head_dim': 32}
    vision = {'model_type': 'siglip_vision_model', 'hidden_size': 96, 'intermediate_size': 256,
              'num_hidden_layers': 3, 'num_attention_heads': 4, 'patch_size': PATCH,
              'image_size': IMAGE_SIZE, 'vision_use_head': False, 'projection_dim': WIDTH}
    text = {'model_type': 'gemma', 'hidden_size': WIDTH, 'intermediate_size': 256,
            'num_hidden_layers': LAYERS, 'vocab_size': VOCABULARY, **heads}
    return PI0Config(
        vlm_config={'model_type': 'paligemma', 'text_config': text, 'vision_config': vision,
                    'projection_dim': WIDTH, 'hidden_size': WIDTH, 'image_token_id': VOCABULARY},
        dit_config={'model_type': 'gemma', 'hidden_size': WIDTH, 'intermediate_size': 256,
                    'num_hidden_layers': LAYERS, 'vocab_size': VOCABULARY, **heads},
        chunk_size=CHUNK)


def new_model(seed: int) -> PI0ForConditionalGeneration:
    """Return a model with random weights scaled by the width of each layer.

    transformers' fixed deviation of 0.02 suits a width of 2048; at 128 it all but silences the
    layers and training does not begin.
    """
    torch.manual_seed(seed)
    model = PI0ForConditionalGeneration(small_config())
    for name, parameter in model.named_parameters():
        if name.endswith('bias'):
            torch.nn.init.zeros_(parameter)
        elif parameter.ndim >= 2:
            fan_in = parameter[0].numel()
            if 'embed_tokens' in name or 'position_embedding' in name:
                fan_in = 4.0 if 'position' in name else 1.0
                # Gemma multiplies token embeddings by the root of the width.
                fan_in = fan_in if 'position' in name else float(WIDTH)
            torch.nn.init.normal_(parameter, std=1 / math.sqrt(fan_in))
    return model
