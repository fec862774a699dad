# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Several questions in one pass: other cameras, other texts, other leftovers, padded and masked.

What is padded weighs nothing and takes no place, so that each answer is that of its question alone
but for rounding. The modules are the network's own, layer by layer, without transformers' cache.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pi0_ros.engine.guidance import embed_at, steer, steer_full, steering
from pi0_ros.engine.paths import Prompt
from pi0_ros.weights.pi05 import CACHE, PI05ForConditionalGeneration
import torch
from torch import nn, Tensor
from transformers import PI0ForConditionalGeneration


@dataclass(frozen=True)
class Question:
    """What the network reads of one observation; see Engine for the parts."""

    pixels: Tensor  # [C, 3, S, S]
    prompt: Prompt
    state: Tensor   # [A]
    noise: Tensor   # [T, A]
    guide: tuple[Tensor, ...] = ()  # target and weight [T, A]


class Pair:
    """Keys and values of one layer: those of the prefix, and of the actions behind them."""

    def __init__(self, repeats: int = 1) -> None:
        """Keep what comes first, so many times for each row of what comes after it."""
        self._kept: tuple[Tensor, Tensor] | None = None
        self._repeats = repeats

    def update(self, keys: Tensor, values: Tensor, *_: object, **__: object
               ) -> tuple[Tensor, Tensor]:
        """Keep the first; put the others behind them."""
        if self._kept is None:
            self._kept = keys, values
            return keys, values
        return tuple(torch.cat([before.repeat(self._repeats, 1, 1, 1), behind], 2)
                     for before, behind in zip(self._kept, (keys, values)))


def block(layer: nn.Module, x: Tensor, turns: tuple[Tensor, Tensor], seen: Tensor, pair: Pair,
          condition: Tensor | None) -> Tensor:
    """Return x [B, L, W] after one layer, which adds its keys and values to ``pair``."""
    def normed(norm: nn.Module, x: Tensor) -> tuple[Tensor, Tensor | float]:
        return norm(x, condition) if condition is not None else (norm(x), 1.0)

    y, gate = normed(layer.input_layernorm, x)
    y, _ = layer.self_attn(y, position_embeddings=turns, attention_mask=seen, **{CACHE: pair})
    x = x + gate * y
    y, gate = normed(layer.post_attention_layernorm, x)
    return x + gate * layer.mlp(y)


def hidden(mask: Tensor, rows: int, kind: torch.dtype) -> Tensor:
    """Return what is added to scores [B, 1, rows, L], so that what ``mask`` [B, L] has as 0 is."""
    out = torch.zeros(len(mask), 1, rows, mask.shape[1], dtype=kind, device=mask.device)
    return out.masked_fill_(mask[:, None, None] == 0, torch.finfo(kind).min)


class Together:
    """Decides several at once."""

    def __init__(self, model: PI0ForConditionalGeneration, steps: int, rtc: str = '') -> None:
        """Use ``model`` as it is. :param rtc: one of guidance.KINDS."""
        self._model, self._steps, self._rtc = model, steps, rtc
        self._adaptive = isinstance(model, PI05ForConditionalGeneration)
        vision = model.config.vlm_config.vision_config
        self._pieces = (vision.image_size // vision.patch_size) ** 2

    @torch.no_grad()
    def __call__(self, questions: Sequence[Question]) -> Tensor:
        """Return normalised actions [B, T, A] float32; the same questions give the same bits."""
        model, core = self._model, self._model.model
        weight = model.action_out_proj.weight
        device, kind = weight.device, next(core.dit.layers.parameters()).dtype
        images, shown, ids, mask = (part.to(device) for part in self._padded(questions))
        text = core.vlm.model.language_model if hasattr(
            core.vlm, 'model') else core.vlm.language_model
        prefix = core.embed_prefix(ids, images.to(kind), shown)
        turns = text.rotary_emb(prefix, (mask.cumsum(-1) - 1).clamp(min=0))
        seen, pairs = hidden(mask, mask.shape[1], prefix.dtype), []
        for layer in text.layers:
            pairs.append(Pair())
            prefix = block(layer, prefix, turns, seen, pairs[-1], None)
        state, actions = (torch.stack([getattr(one, name) for one in questions]).to(device)
                          for name in ('state', 'noise'))
        guide = [torch.stack([one.guide[part] for one in questions]).to(device)
                 for part in range(2)] if questions[0].guide else []
        actions = actions.float()
        times = torch.ones(actions.shape[:2], device=device)
        for step, row in enumerate(steering(self._steps).to(device)):
            now = times * (1 - step / self._steps)
            if self._rtc == 'trained':
                actions = torch.where(guide[1] > 0, guide[0], actions)
                now = torch.where(guide[1][..., 0] > 0, 0.0, now)
            with torch.set_grad_enabled(self._rtc == 'full'):
                actions = actions.requires_grad_(self._rtc == 'full')
                velocity = self._velocity(state, actions, now, mask, pairs)
                actions = (steer_full(actions, velocity, row, *guide) if self._rtc == 'full' else
                           steer(actions, velocity, row, *guide) if self._rtc == 'identity' else
                           actions + row[1] * velocity)
        return torch.where(guide[1] > 0, guide[0], actions) if self._rtc == 'trained' else actions

    def _padded(self, questions: Sequence[Question]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return images [B, C, 3, S, S], which are there [B, C], tokens and their mask [B, L]."""
        cameras = max(len(one.pixels) for one in questions)
        longest = max(len(one.prompt.ids) for one in questions)
        pixels = questions[0].pixels
        images = pixels.new_zeros(len(questions), cameras, *pixels.shape[1:])
        shown = torch.zeros(len(questions), cameras, dtype=torch.bool, device=pixels.device)
        ids = torch.zeros(len(questions), cameras * self._pieces + longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, one in enumerate(questions):
            count, length = len(one.pixels), len(one.prompt.ids)
            images[row, :count], shown[row, :count] = one.pixels, True
            ids[row, :count * self._pieces] = self._model.config.vlm_config.image_token_id
            mask[row, :count * self._pieces] = 1
            begin = cameras * self._pieces
            ids[row, begin:begin + length] = one.prompt.ids.cpu()
            mask[row, begin:begin + length] = 1
        return images, shown, ids, mask

    def _velocity(self, state: Tensor, actions: Tensor, times: Tensor, mask: Tensor,
                  pairs: Sequence[Pair]) -> Tensor:
        """Return the velocity [B, T, A] float32 of actions that see the prefix."""
        model, expert = self._model, self._model.model.dit
        if self._adaptive:
            heads = model.embed_action_time
            x = heads.action_in_proj(actions.to(heads.action_in_proj.weight.dtype))
            condition = heads.conditions(times).to(x.dtype)
        else:
            kind = model.action_out_proj.weight.dtype
            x = embed_at(model.embed_action_time, state.to(kind), actions.to(kind), times)
            condition = None
        length = x.shape[1]
        begin = mask.sum(-1, keepdim=True) + torch.arange(length, device=mask.device)
        turns = expert.rotary_emb(x, begin)
        whole = torch.cat([mask, mask.new_ones(len(mask), length)], 1)
        seen = hidden(whole, length, x.dtype)
        if not self._adaptive:  # the state does not see the actions
            seen[:, :, 0, mask.shape[1] + 1:] = torch.finfo(x.dtype).min
        for layer, pair in zip(expert.layers, pairs):
            x = block(layer, x, turns, seen, pair, condition)
        out = expert.norm(x, condition)[0] if self._adaptive else expert.norm(x)
        return model.action_out_proj(out[:, -actions.shape[1]:].to(
            model.action_out_proj.weight.dtype)).float()
