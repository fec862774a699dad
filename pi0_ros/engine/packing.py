# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Weights of transformers' layers as the engine reads them: packed, without a second copy."""

from dataclasses import dataclass

import torch
from torch import nn, Tensor
from transformers import PI0ForConditionalGeneration
from transformers.models.gemma.modeling_gemma import GemmaDecoderLayer
from transformers.models.siglip.modeling_siglip import SiglipEncoderLayer

GELU = 'gelu_pytorch_tanh'


@dataclass(frozen=True)
class Gemma:
    """Weights of one layer of the language model or of the expert."""

    qkv: Tensor      # [(H + 2) * D, W]
    out: Tensor      # [W, H * D]
    gate_up: Tensor  # [2 * M, W]
    down: Tensor     # [W, M]
    eps: float


@dataclass(frozen=True)
class Norms:
    """What the two norms of a layer do: for all tokens [.], or for each of its own [T, .]."""

    first: Tensor               # [W] float32, before attention
    second: Tensor              # [W] float32, before the MLP
    into: Tensor | None = None  # bias of queries, keys and values [(H + 2) D]; of pi0.5
    hidden: Tensor | None = None  # bias of the MLP's first product [2 M]
    gate: Tensor | None = None  # [W] of what attention adds
    out: Tensor | None = None   # [W] of what the MLP adds


@dataclass(frozen=True)
class Siglip:
    """Weights and biases of one layer of the image encoder."""

    norm1: tuple[Tensor, Tensor]  # [W]
    qkv: tuple[Tensor, Tensor]    # [3 * W, W], [3 * W]
    out: tuple[Tensor, Tensor]
    norm2: tuple[Tensor, Tensor]
    up: tuple[Tensor, Tensor]     # [M, W], [M]
    down: tuple[Tensor, Tensor]
    eps: float


def unsupported(model: PI0ForConditionalGeneration) -> str | None:
    """Return what this path does not know about ``model``, or None."""
    text, expert = model.config.vlm_config.text_config, model.config.dit_config
    vision = model.config.vlm_config.vision_config
    for name, part in (('language model', text), ('action expert', expert)):
        if part.num_key_value_heads != 1:
            return f'the {name} has {part.num_key_value_heads} key-value heads, not 1'
        if part.attention_bias or part.hidden_act != GELU:
            return f'the {name} has attention biases or activation {part.hidden_act}'
        if part.rope_parameters.get('rope_type') != 'default':
            return f'the {name} has rotary embedding {part.rope_parameters.get("rope_type")}'
        if getattr(part, 'sliding_window', None):
            return f'the {name} has a sliding window'
    if (text.head_dim, text.num_hidden_layers) != (expert.head_dim, expert.num_hidden_layers):
        return 'language model and action expert differ in layers or head size'
    if vision.hidden_act != GELU:
        return f'the image encoder has activation {vision.hidden_act}'
    layers = [*model.model.vlm.language_model.layers, *model.model.dit.layers]
    images = list(model.model.vlm.vision_tower.encoder.layers)
    if {type(layer) for layer in layers} != {GemmaDecoderLayer} or \
            {type(layer) for layer in images} != {SiglipEncoderLayer}:
        return 'it has layers of another kind'
    for part in (*layers, *images, model.embed_action_time, model.model.vlm.multi_modal_projector,
                 nn.ModuleDict({'action_out_proj': model.action_out_proj})):
        for name, module in part.named_modules():
            if name.endswith(('proj', 'fc1', 'fc2', 'mlp_in', 'mlp_out', 'linear', 'dense')) and \
                    type(module) is not nn.Linear:
                return f'{name} is a {type(module).__name__}, not a plain Linear (LoRA?)'
    if text.rope_parameters.get('rope_theta') != expert.rope_parameters.get('rope_theta'):
        return 'language model and action expert have different rotary embeddings'
    return None


def _pack(parts: list[nn.Linear], attribute: str) -> Tensor:
    """Return the parts' tensors as one; the modules then hold views of it, not copies."""
    tensors = [getattr(part, attribute).data for part in parts]
    length, first = sum(map(len, tensors)), tensors[0]
    ends = [tensor.data_ptr() + tensor.nbytes for tensor in tensors]
    if [tensor.data_ptr() for tensor in tensors[1:]] == ends[:-1] and len(
            {tensor.untyped_storage().data_ptr() for tensor in tensors}) == 1:
        return first.as_strided((length, *first.shape[1:]), first.stride())  # packed before
    packed, start = torch.cat(tensors), 0
    for part, tensor in zip(parts, tensors):
        end = start + len(tensor)
        getattr(part, attribute).data = packed[start:end]
        start = end
    if packed.is_cuda:
        torch.cuda.empty_cache()  # else the parts' memory stays reserved, layer by layer
    return packed


def pack_gemma(layer: GemmaDecoderLayer) -> Gemma:
    """Return the weights of a layer, packed."""
    attention, mlp = layer.self_attn, layer.mlp
    return Gemma(
        _pack([attention.q_proj, attention.k_proj, attention.v_proj], 'weight'),
        attention.o_proj.weight.data, _pack([mlp.gate_proj, mlp.up_proj], 'weight'),
        mlp.down_proj.weight.data, layer.input_layernorm.eps)


def pack_siglip(layer: SiglipEncoderLayer) -> Siglip:
    """Return the weights of a layer, packed."""
    def both(module: nn.Module) -> tuple[Tensor, Tensor]:
        return module.weight.data, module.bias.data

    parts = [layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj]
    return Siglip(both(layer.layer_norm1), (_pack(parts, 'weight'), _pack(parts, 'bias')),
                  both(layer.self_attn.out_proj), both(layer.layer_norm2), both(layer.mlp.fc1),
                  both(layer.mlp.fc2), layer.layer_norm1.eps)


def plain_norms(layer: GemmaDecoderLayer) -> Norms:
    """Return what the norms of a layer do, with Gemma's 1 added; not for pi0.5's expert."""
    return Norms(1 + layer.input_layernorm.weight.float(),
                 1 + layer.post_attention_layernorm.weight.float())
