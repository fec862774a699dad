# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The widths of a checkpoint's network: written down beside it, or read off its tensors."""

import math
from pathlib import Path

from pi0_ros.weights.files import CheckpointError, read_json
from pi0_ros.weights.tensors import Shapes, TABLE
from transformers import PI0Config

HEAD_DIM = 256                 # of every published PI0
VISION_HEADS = {1152: 16}      # SigLIP So400m: hidden size to attention heads
TEXT, EXPERT, VISION = 'model.vlm.language_model.', 'model.dit.', 'model.vlm.vision_tower.'


def network_config(folder: Path, shapes: Shapes, chunk_length: int) -> PI0Config:
    """
    Return the configuration of the network in ``folder``.

    :param shapes: of the stored tensors under transformers' names.
    :param chunk_length: steps; nothing in the weights depends on it.
    :raises CheckpointError: config.json describes no PI0, or is silent on what the shapes leave
        open.
    """
    path = folder / 'config.json'
    given = read_json(path) if path.exists() else {}
    if given.get('type') == 'pi_zero_pytorch':
        raise CheckpointError(f"checkpoint '{folder}' is of pi-zero-pytorch, which is trained "
                              'with that library')
    try:
        if given.get('vlm_config') and given.get('dit_config'):
            config = PI0Config.from_pretrained(folder)
        else:
            kept = {key: given[key] for key in ('min_period', 'max_period') if key in given}
            config = PI0Config(**_widths(folder, shapes), **kept)
        # [width, padded]: config.json may have openpi's action_dim, or nothing
        for name, part in (('max_state_dim', 'state_proj'), ('max_action_dim', 'action_in_proj')):
            shape = shapes.get(f'embed_action_time.{part}.weight')
            if shape and len(shape) == 2:
                setattr(config, name, shape[1])
    except CheckpointError:
        raise
    except Exception as error:  # transformers' strict configuration has no common error class
        raise CheckpointError(f"checkpoint file '{path}' describes no PI0 network: {error}") \
            from error
    config.chunk_size = chunk_length
    return config


def _widths(folder: Path, shapes: Shapes) -> dict[str, dict]:
    """Return ``vlm_config`` and ``dit_config`` as the tensors have them."""
    def shape(name: str) -> tuple[int, ...]:
        if name not in shapes:
            raise CheckpointError(f"checkpoint '{folder}' lacks tensor {name}: copy the whole "
                                  'folder that training saved')
        return shapes[name]

    def layers(prefix: str) -> int:
        return len({name.removeprefix(prefix).split('.')[0] for name in shapes
                    if name.startswith(prefix)})

    def gemma(prefix: str) -> dict[str, object]:
        queries, hidden = shape(prefix + 'layers.0.self_attn.q_proj.weight')
        head_dim = shape(prefix + 'layers.0.self_attn.k_proj.weight')[0]
        if head_dim != HEAD_DIM or queries % head_dim:
            raise CheckpointError(
                f"checkpoint '{folder}' is no published size of PI0, and its tensors do not tell "
                'how many attention heads it has: add vlm_config and dit_config to config.json')
        return {'model_type': 'gemma', 'hidden_size': hidden, 'head_dim': head_dim,
                'num_attention_heads': queries // head_dim, 'num_key_value_heads': 1,
                'num_hidden_layers': layers(prefix + 'layers.'),
                'intermediate_size': shape(prefix + 'layers.0.mlp.gate_proj.weight')[0]}

    text, expert = gemma(TEXT), gemma(EXPERT)
    text['vocab_size'] = shape(TABLE)[0]
    hidden, _, patch, _ = shape(VISION + 'embeddings.patch_embedding.weight')
    positions = shape(VISION + 'embeddings.position_embedding.weight')[0]
    side = math.isqrt(positions)
    if hidden not in VISION_HEADS or side * side != positions:
        raise CheckpointError(f"checkpoint '{folder}' has an image encoder of width {hidden} with "
                              f'{positions} patches, which is not SigLIP So400m: add vlm_config '
                              'and dit_config to config.json')
    vision = {'model_type': 'siglip_vision_model', 'hidden_size': hidden, 'patch_size': patch,
              'image_size': side * patch, 'num_attention_heads': VISION_HEADS[hidden],
              'num_hidden_layers': layers(VISION + 'encoder.layers.'), 'vision_use_head': False,
              'intermediate_size': shape(VISION + 'encoder.layers.0.mlp.fc1.weight')[0]}
    vlm = {'model_type': 'paligemma', 'text_config': text, 'vision_config': vision,
           'projection_dim': text['hidden_size'], 'image_token_id': 257152}
    return {'vlm_config': vlm, 'dit_config': expert}
