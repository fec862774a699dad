# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Attention for training on a processor: one key-value head, queries folded into its rows.

On a CPU the fused kernels are slow in bfloat16 with a mask, and the eager form repeats the one
key-value head for every query head. This form does two matrix products and a softmax.
"""

import torch
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

NAME = 'pi0_ros_folded'


def folded_attention(module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor,
                     value: torch.Tensor, attention_mask: torch.Tensor | None = None,
                     scaling: float | None = None, dropout: float = 0.0,
                     **kwargs: object) -> tuple[torch.Tensor, None]:
    """Return attention for (B, H, L, D) queries and (B, K, M, D) keys, H a multiple of K."""
    batch, heads, length, width = query.shape
    query = query * (width ** -0.5 if scaling is None else scaling)
    query = query.reshape(batch, key.shape[1], -1, width)
    weights = torch.matmul(query, key.transpose(2, 3))
    if attention_mask is not None:
        weights = weights.view(batch, heads, length, -1) + attention_mask.to(weights.dtype)
        weights = weights.view(batch, key.shape[1], -1, key.shape[2])
    out = torch.matmul(torch.softmax(weights, dim=-1), value)
    return out.view(batch, heads, length, width).transpose(1, 2).contiguous(), None


def register() -> str:
    """Make the function known to transformers; return its name."""
    ALL_ATTENTION_FUNCTIONS.register(NAME, folded_attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, eager_mask)
    return NAME
