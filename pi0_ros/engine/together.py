# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Several questions in one pass: other cameras, other texts, other leftovers, padded and masked.

What is padded weighs nothing and takes no place, so that each answer is that of its question alone
but for rounding. The modules are the network's own, layer by layer, without transformers' cache.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pi0_ros.engine.guidance import embed_at, steer, steer_full, steering
from pi0_ros.engine.kernels import Graphs
from pi0_ros.engine.paths import BUCKET, Prompt
from pi0_ros.weights.pi05 import CACHE, PI05ForConditionalGeneration
import torch
from torch import nn, Tensor
from transformers import PI0ForConditionalGeneration

KEPT_GRAPHS = 8  # of other numbers of questions, cameras and tokens


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


def tokens(model: PI0ForConditionalGeneration, state: Tensor, actions: Tensor, times: Tensor
           ) -> tuple[Tensor, Tensor | None]:
    """
    Return the expert's tokens [B, N, W], and of pi0.5 the condition of its norms.

    :param state: [B, A]. :param actions: [B, T, A] noisy. :param times: [B, T].
    """
    if not isinstance(model, PI05ForConditionalGeneration):
        return embed_at(model.embed_action_time, state, actions, times), None
    heads = model.embed_action_time
    out = heads.action_in_proj(actions.to(heads.action_in_proj.weight.dtype))
    return out, heads.conditions(times).to(out.dtype)


def places(model: PI0ForConditionalGeneration, mask: Tensor, suffix: Tensor, kind: torch.dtype
           ) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """
    Return where the expert's tokens stand behind a prefix, and what they see.

    :param mask: [B, L] of the prefix. :param suffix: [B, N, W].
    """
    length = suffix.shape[1]
    begin = mask.sum(-1, keepdim=True) + torch.arange(length, device=mask.device)
    seen = hidden(torch.cat([mask, mask.new_ones(len(mask), length)], 1), length, kind)
    if not isinstance(model, PI05ForConditionalGeneration):  # the state sees no actions
        seen[:, :, 0, mask.shape[1] + 1:] = torch.finfo(kind).min
    return model.model.dit.rotary_emb(suffix, begin), seen


class Together:
    """
    Decides several at once, on a GPU as CUDA graphs.

    For graphs there are as many questions as a power of two, the last one again where they are
    fewer, and texts end at a multiple of ``BUCKET`` tokens, so that few graphs do for all.
    """

    def __init__(self, model: PI0ForConditionalGeneration, steps: int, rtc: str = '') -> None:
        """Use ``model`` as it is. :param rtc: one of guidance.KINDS."""
        self._model, self._steps, self._rtc = model, steps, rtc
        vision = model.config.vlm_config.vision_config
        self._pieces = (vision.image_size // vision.patch_size) ** 2
        self._device = model.action_out_proj.weight.device
        self._steering = steering(steps).to(self._device)
        self._seconds: dict[int, float] = {}
        # gradients are in no graph
        self._graphs = (Graphs(self._compute, self._device, KEPT_GRAPHS)
                        if self._device.type == 'cuda' and rtc != 'full' else None)

    def learn(self, seconds: Mapping[int, float]) -> None:
        """Take over how long one question and batches of some sizes take, see ``pays``."""
        self._seconds = dict(seconds)

    def pays(self, count: int) -> bool:
        """Return whether so many are sooner ready than one after another, by what was learnt."""
        if not self._seconds:
            return count > 1
        size = 1 << (count - 1).bit_length() if self._graphs else count
        sizes = sorted(self._seconds)
        taken = np.interp(size, sizes, [self._seconds[one] for one in sizes])
        return count > 1 and taken < count * self._seconds[1]

    def __call__(self, questions: Sequence[Question]) -> Tensor:
        """Return normalised actions [B, T, A] float32; the same questions give the same bits."""
        if self._graphs is None:
            return self._compute(*(part.to(self._device) for part in self._padded(questions)))
        more = (1 << (len(questions) - 1).bit_length()) - len(questions)
        padded = self._padded([*questions, *questions[-1:] * more], BUCKET)
        return self._graphs(*padded)[:len(questions)]

    def _padded(self, questions: Sequence[Question], multiple: int = 1) -> list[Tensor]:
        """Return what ``_compute`` takes, wherever it lies."""
        cameras = max(len(one.pixels) for one in questions)
        longest = max(len(one.prompt.text) for one in questions)
        longest = -(-longest // multiple) * multiple
        pixels, words = questions[0].pixels, questions[0].prompt.text
        images = pixels.new_zeros(len(questions), cameras, *pixels.shape[1:])
        text = words.new_zeros(len(questions), longest, words.shape[1])
        begin = cameras * self._pieces
        mask = torch.zeros(len(questions), begin + longest, dtype=torch.long)
        for row, one in enumerate(questions):
            images[row, :len(one.pixels)] = one.pixels
            text[row, :len(one.prompt.text)] = one.prompt.text
            mask[row, :len(one.pixels) * self._pieces] = 1
            mask[row, begin:begin + len(one.prompt.text)] = 1
        return [images, text, mask, *(torch.stack(part) for part in zip(*(
            (one.state, one.noise, *one.guide) for one in questions)))]

    @torch.no_grad()
    def _compute(self, images: Tensor, text: Tensor, mask: Tensor, state: Tensor,
                 actions: Tensor, *guide: Tensor) -> Tensor:
        """
        Return actions [B, T, A].

        :param images: [B, C, 3, S, S]. :param text: embedded [B, N, W].
        :param mask: [B, L] int64, 0 where there is no image or text.
        """
        core, kind = self._model.model, self._model.action_out_proj.weight.dtype
        layers = core.dit.layers
        seen = core.vlm.get_image_features(images.flatten(0, 1).to(
            next(layers.parameters()).dtype)).pooler_output
        x = torch.cat([seen.reshape(len(text), -1, seen.shape[-1]).to(text.dtype), text], 1)
        language = core.vlm.model.language_model if hasattr(
            core.vlm, 'model') else core.vlm.language_model
        turns = language.rotary_emb(x, (mask.cumsum(-1) - 1).clamp(min=0))
        shown, pairs = hidden(mask, mask.shape[1], x.dtype), []
        for layer in language.layers:
            pairs.append(Pair())
            x = block(layer, x, turns, shown, pairs[-1], None)
        actions = actions.float()
        times, where = torch.ones(actions.shape[:2], device=actions.device), None
        for step, row in enumerate(self._steering):
            now = times * (1 - step / self._steps)
            if self._rtc == 'trained':
                actions = torch.where(guide[1] > 0, guide[0], actions)
                now = torch.where(guide[1][..., 0] > 0, 0.0, now)
            with torch.set_grad_enabled(self._rtc == 'full'):
                actions = actions.requires_grad_(self._rtc == 'full')
                x, condition = tokens(self._model, state.to(kind), actions.to(kind), now)
                where = where or places(self._model, mask, x, x.dtype)
                velocity = self._velocity(x, condition, where, pairs)[:, -actions.shape[1]:]
                actions = (steer_full(actions, velocity, row, *guide) if self._rtc == 'full' else
                           steer(actions, velocity, row, *guide) if self._rtc == 'identity' else
                           actions + row[1] * velocity)
        return torch.where(guide[1] > 0, guide[0], actions) if self._rtc == 'trained' else actions

    def _velocity(self, x: Tensor, condition: Tensor | None,
                  where: tuple[tuple[Tensor, Tensor], Tensor], pairs: Sequence[Pair]) -> Tensor:
        """Return what the expert makes of its tokens [B, N, W]: [B, N, A] float32."""
        model, expert = self._model, self._model.model.dit
        for layer, pair in zip(expert.layers, pairs):
            x = block(layer, x, *where, pair, condition)
        out = expert.norm(x, condition)[0] if condition is not None else expert.norm(x)
        return model.action_out_proj(out.to(model.action_out_proj.weight.dtype)).float()
