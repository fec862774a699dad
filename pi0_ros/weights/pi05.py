# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
pi0.5, which transformers has no class for: its PaliGemma and Gemma with adaptive norms.

As openpi's ``gemma.py`` and ``pi0_pytorch.py`` (``pi05``) and LeRobot's ``modeling_pi05.py`` have
it. Small and slow; the engine is checked against it.
"""

import inspect

import torch
from torch import nn, Tensor
from torch.nn import functional as F
from transformers import PI0Config, PI0ForConditionalGeneration
from transformers.models.gemma.modeling_gemma import GemmaAttention

# What transformers calls keys and values: from 5.24 on cache, before that past_key_values.
CACHE = next(name for name in ('cache', 'past_key_values')
             if name in inspect.signature(GemmaAttention.forward).parameters)


class AdaptiveNorm(nn.Module):
    """RMS norm whose scale, shift and gate come from a condition (arXiv 2212.09748, adaLN)."""

    def __init__(self, width: int, eps: float) -> None:
        """Make the projection of the condition."""
        super().__init__()
        self.dense, self.eps = nn.Linear(width, 3 * width), eps

    def forward(self, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """
        Return x [B, T, W] normed, and the gate of what the block adds to its residual.

        :param condition: [B, T, W], or [B, 1, W] for all tokens.
        """
        scale, shift, gate = self.dense(condition).chunk(3, -1)
        y = x.float()
        y = y * torch.rsqrt(y.square().mean(-1, keepdim=True) + self.eps)
        return (y * (1 + scale.float()) + shift.float()).to(x.dtype), gate


class ActionTime(nn.Module):
    """How actions and flow times enter the expert."""

    def __init__(self, config: PI0Config) -> None:
        """Make the projections."""
        super().__init__()
        width = config.dit_config.hidden_size
        self.action_in_proj = nn.Linear(config.max_action_dim, width)
        self.time_mlp_in, self.time_mlp_out = nn.Linear(width, width), nn.Linear(width, width)
        self.periods = config.min_period, config.max_period

    def conditions(self, times: Tensor) -> Tensor:
        """
        Return the norms' conditions [..., W] for flow times [...]; 1 is noise, 0 an action.

        The waves are in float64, as LeRobot's; the rest in float32, whatever the weights are.
        """
        width = self.time_mlp_in.in_features
        fraction = torch.linspace(0, 1, width // 2, dtype=torch.float64, device=times.device)
        low, high = self.periods
        angle = times.double()[..., None] * (2 * torch.pi / (low * (high / low) ** fraction))
        out = torch.cat([angle.sin(), angle.cos()], -1).float()
        for layer in (self.time_mlp_in, self.time_mlp_out):
            out = F.silu(F.linear(out, layer.weight.float(), layer.bias.float()))
        return out


class PI05ForConditionalGeneration(PI0ForConditionalGeneration):
    """The network; its parts have the names that they have in transformers' PI0."""

    def __init__(self, config: PI0Config) -> None:
        """Make pi0, and put other norms and another entrance in it."""
        super().__init__(config)
        self.embed_action_time = ActionTime(config)
        expert, width = self.model.dit, config.dit_config.hidden_size
        for layer in expert.layers:
            for name in ('input_layernorm', 'post_attention_layernorm'):
                setattr(layer, name, AdaptiveNorm(width, config.dit_config.rms_norm_eps))
        expert.norm = AdaptiveNorm(width, config.dit_config.rms_norm_eps)

    def velocity(self, actions: Tensor, times: Tensor, cache: object,
                 mask: Tensor | None = None) -> Tensor:
        """
        Return the velocity [B, T, A] of actions [B, T, A] that see ``cache`` and each other.

        :param times: [B, T] or [B, 1]. :param cache: keys and values of images and text, to which
            this adds its own. :param mask: [B, P], 0 where ``cache`` has padding at its end.
        """
        expert, heads = self.model.dit, self.embed_action_time
        x = heads.action_in_proj(actions.to(heads.action_in_proj.weight.dtype))
        condition = heads.conditions(times).to(x.dtype)
        count, length, before = len(x), x.shape[1], cache.get_seq_length()
        seen = x.new_zeros(count, 1, length, before + length)
        begin = torch.full((count, 1), before, device=x.device)
        if mask is not None:
            seen[..., :before].masked_fill_(mask[:, None, None] == 0, torch.finfo(x.dtype).min)
            begin = mask.sum(-1, keepdim=True)
        turns = expert.rotary_emb(x, begin + torch.arange(length, device=x.device))
        for layer in expert.layers:
            y, gate = layer.input_layernorm(x, condition)
            y, _ = layer.self_attn(y, position_embeddings=turns, attention_mask=seen,
                                   **{CACHE: cache})
            x = x + gate * y
            y, gate = layer.post_attention_layernorm(x, condition)
            x = x + gate * layer.mlp(y)
        return self.action_out_proj(expert.norm(x, condition)[0])
