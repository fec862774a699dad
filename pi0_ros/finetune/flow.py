# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The loss of flow matching, layer by layer through both Gemmas.

transformers keeps keys and values in a cache, which gradient checkpointing cannot make again. Here
layer k of images and text is computed beside layer k of the actions that read it, as LeRobot does,
with the same modules: what is kept is a pair, and both networks, pi0 and pi0.5, go through.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pi0_ros.engine.together import block, hidden, Pair, places, tokens
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import PI0ForConditionalGeneration


@dataclass(frozen=True)
class Batch:
    """What the network reads of B observations, and what was done."""

    images: Tensor   # [B, C, 3, S, S] float32 in [-1, 1]
    shown: Tensor    # [B, C] bool: images that are there
    ids: Tensor      # [B, L] tokens: of images first, then the prompt; padding at the end
    mask: Tensor     # [B, L] 1 for tokens that count
    state: Tensor    # [B, A] normalised, zeros behind
    actions: Tensor  # [B, T, A] normalised, zeros behind

    def to(self, device: torch.device) -> 'Batch':
        """Return it there."""
        return Batch(*(value.to(device, non_blocking=True) for value in vars(self).values()))


def draw_times(config: Any, count: int, generator: torch.Generator) -> Tensor:
    """
    Return [count] flow times, 1 is noise: 0.001 + 0.999 Beta(1.5, 1), as openpi and LeRobot.

    Beta(a, 1) is u^(1/a) of a uniform u.
    """
    if config.time_sampling_beta_beta != 1:
        raise ValueError(f'time_sampling_beta_beta is {config.time_sampling_beta_beta}, expected '
                         '1, which every published PI0 has')
    uniform = torch.rand(count, generator=generator, dtype=torch.float64)
    beta = uniform ** (1 / config.time_sampling_beta_alpha)
    return (beta * config.time_sampling_scale + config.time_sampling_offset).float()


def noisy(actions: Tensor, noise: Tensor, times: Tensor) -> Tensor:
    """Return actions [B, T, A] on their way, at flow times [B, T]."""
    return times[..., None] * noise + (1 - times[..., None]) * actions


def losses(model: PI0ForConditionalGeneration, batch: Batch, noise: Tensor, times: Tensor,
           width: int, checkpointing: bool = False) -> Tensor:
    """
    Return squared errors [B, T, width] of the velocity, as LeRobot's ``modeling_pi0.py``.

    The padded columns are noisy, too, but have no loss; the steps behind an episode's end have,
    with the last action repeated.

    :param noise: [B, T, A]. :param times: [B, T]; 0 gives the network the action itself.
    :param width: of the actions without padding.
    """
    found = velocity(model, batch, noisy(batch.actions, noise, times), times,
                     checkpointing=checkpointing)
    return (noise - batch.actions - found.float())[..., :width].square()


def velocity(model: PI0ForConditionalGeneration, batch: Batch, actions: Tensor, times: Tensor,
             repeats: int = 1, checkpointing: bool = False,
             readable: Callable[[int, Tensor], None] | None = None) -> Tensor:
    """
    Return the velocity [B, T, A] of noisy actions [B, T, A] at flow times [B, T].

    :param repeats: draws of noise for each observation; ``actions`` has so many times B then.
    :param checkpointing: compute each pair of layers again on the way back, and keep less.
    :param readable: is told the prefix before each layer, its number first.
    """
    core = model.model
    text, expert = core.vlm.model.language_model if hasattr(
        core.vlm, 'model') else core.vlm.language_model, core.dit
    prefix = core.embed_prefix(batch.ids, batch.images, batch.shown)
    suffix, condition = tokens(model, batch.state.repeat(repeats, 1), actions, times)
    turns = text.rotary_emb(prefix, batch.mask.cumsum(-1) - 1)
    kind = torch.get_autocast_dtype(prefix.device.type) if torch.is_autocast_enabled(
        prefix.device.type) else prefix.dtype
    seen = hidden(batch.mask, batch.mask.shape[1], kind)
    behind = places(model, batch.mask.repeat(repeats, 1), suffix, kind)

    def both(number: int, prefix: Tensor, suffix: Tensor) -> tuple[Tensor, Tensor]:
        pair = Pair(repeats)
        layer = text.layers[number]
        prefix = block(layer, prefix, turns, seen, pair, None)
        return prefix, block(expert.layers[number], suffix, *behind, pair, condition)

    for number in range(len(expert.layers)):
        if readable:
            readable(number, prefix)
        prefix, suffix = (checkpoint(both, number, prefix, suffix, use_reentrant=False)
                          if checkpointing else both(number, prefix, suffix))
    out = expert.norm(suffix, condition)[0] if condition is not None else expert.norm(suffix)
    return model.action_out_proj(out[:, -actions.shape[1]:].to(
        model.action_out_proj.weight.dtype))
