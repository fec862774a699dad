# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What is trained, by which optimiser and schedule, and everything that survives a restart."""

from collections.abc import Callable, Iterable
import contextlib
from dataclasses import dataclass
import math
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
import torch
from torch import nn, Tensor

VISION = 'model.vlm.vision_tower.', 'model.vlm.model.vision_tower.'
VLM = 'model.vlm.'
# What LeRobot keeps in float32 where weights are bfloat16 (``to_bfloat16_for_selected_params``).
FLOAT32 = ('vision_tower', 'multi_modal_projector', 'layernorm', 'norm.', 'embed_action_time',
           'action_out_proj')


@dataclass(frozen=True)
class Schedule:
    """
    LeRobot's cosine with warm-up (``CosineDecayWithWarmupSchedulerConfig``).

    Fewer steps than ``decay_steps`` scale both, more go on at the end of it.
    """

    steps: int
    peak: float = 2.5e-5
    least: float = 2.5e-6
    warm_up: int = 1000
    decay_steps: int = 30_000

    def rate(self, number: int) -> float:
        """Return the learning rate of step ``number``, from 0."""
        warm_up, decay = self.warm_up, self.decay_steps
        if self.steps < decay:
            warm_up, decay = int(warm_up * self.steps / decay), self.steps
        if number < warm_up:
            return self.peak * (1 / (warm_up + 1) if number <= 0 else
                                (1 / (warm_up + 1) - 1) * (1 - number / warm_up) + 1)
        cosine = 0.5 * (1 + math.cos(math.pi * min(number, decay) / decay))
        return self.least + (self.peak - self.least) * cosine


@dataclass(frozen=True)
class Optimiser:
    """LeRobot's AdamW for PI0 (``PI0Config``)."""

    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.01
    clip: float = 1.0
    decay_all: bool = True  # norms and biases, too, as LeRobot does


def freeze(model: nn.Module, expert_only: bool, freeze_vision: bool) -> list[str]:
    """
    Let parameters be trained, but for those that are frozen; return the names of the former.

    :param expert_only: only the expert and the projections are trained, as LeRobot's
        ``train_expert_only``. :param freeze_vision: not the image encoder.
    """
    frozen = (VLM,) if expert_only else VISION if freeze_vision else ()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(frozen) if frozen else True)
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def cast(model: nn.Module, dtype: str) -> torch.dtype:
    """
    Give parameters the types of ``dtype``; return in which type products are computed.

    bfloat16 is LeRobot's: weights in bfloat16, but for the image encoder, norms and projections.
    A step of 2.5e-5 is lost in a weight of bfloat16 above 0.01, so ``mixed`` keeps what is trained
    in float32 and computes as bfloat16 does.
    """
    for name, parameter in model.named_parameters():
        half = not any(part in name for part in FLOAT32) and (
            dtype == 'bfloat16' or dtype == 'mixed' and not parameter.requires_grad)
        parameter.data = parameter.data.to(torch.bfloat16 if half else torch.float32)
    return torch.float32 if dtype == 'float32' else torch.bfloat16


class Learner:
    """Optimiser steps on a network, and what is needed to go on with them."""

    def __init__(self, model: nn.Module, schedule: Schedule, optimiser: Optimiser = Optimiser(),
                 computed: torch.dtype = torch.float32, beside: nn.Module | None = None) -> None:
        """
        Train what requires gradients.

        :param computed: in which products are computed.
        :param beside: trained with it, and no part of the checkpoint.
        """
        self.model, self.schedule, self.settings = model, schedule, optimiser
        self.beside, self.number = beside or nn.Identity(), 0
        self.names = [name for name, one in model.named_parameters() if one.requires_grad]
        self.trained = [one for one in model.parameters() if one.requires_grad]
        self.trained += list(self.beside.parameters())
        self._computed = computed
        plain = [] if optimiser.decay_all else [one for one in self.trained if one.ndim < 2]
        decays = [one for one in self.trained if optimiser.decay_all or one.ndim >= 2]
        self.optimiser = torch.optim.AdamW(
            [{'params': decays, 'weight_decay': optimiser.weight_decay},
             {'params': plain, 'weight_decay': 0.0}], lr=schedule.peak, betas=optimiser.betas,
            eps=optimiser.eps)

    @property
    def device(self) -> torch.device:
        """Return where it is trained."""
        return self.trained[0].device

    def computing(self) -> contextlib.AbstractContextManager:
        """Return the context in which losses are computed."""
        if self._computed == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self._computed)

    def learn(self, loss: Callable[[], Tensor], backward: Callable[[Tensor], None] | None = None
              ) -> dict[str, float]:
        """
        Do one step; return loss, norm of the gradient before it is clipped, and learning rate.

        :param loss: computes it.
        :param backward: computes gradients; the loss's own if None.
        :raises FloatingPointError: the loss is not finite; nothing was changed.
        """
        rate = self.schedule.rate(self.number)
        for group in self.optimiser.param_groups:
            group['lr'] = rate
        with self.computing():
            value = loss()
        if not torch.isfinite(value):
            raise FloatingPointError(
                f'the loss of step {self.number} is {value.item()}: a smaller --learning-rate, or '
                '--dtype float32; nothing was changed by this step')
        self.optimiser.zero_grad(set_to_none=True)
        (backward or Tensor.backward)(value)
        norm = nn.utils.clip_grad_norm_(self.trained, self.settings.clip)
        if not torch.isfinite(norm):
            raise FloatingPointError(
                f'the gradient of step {self.number} is not finite: a smaller --learning-rate, or '
                '--dtype float32; nothing was changed by this step')
        self.optimiser.step()
        self.number += 1
        return {'loss': value.item(), 'grad_norm': float(norm), 'rate': rate}

    def tensors(self) -> dict[str, Tensor]:
        """Return everything that is needed to go on, but for what is frozen."""
        numbered = self.optimiser.state_dict()['state']
        out = {f'optimiser.{index}.{name}': value for index, state in numbered.items()
               for name, value in state.items()}
        weights = dict(self.model.named_parameters())
        out |= {f'model.{name}': weights[name] for name in self.names}
        out |= {f'beside.{name}': value for name, value in self.beside.state_dict().items()}
        return out | {'number': torch.tensor(self.number)}

    def save(self, path: Path) -> None:
        """
        Write it, whole or not at all.

        :raises OSError: the disk is full; what was there before stays.
        """
        write_tensors(path, self.tensors())

    @torch.no_grad()
    def restore(self, path: Path) -> None:
        """
        Go on where ``save`` left off.

        :raises ValueError: that was another training.
        """
        weights, states = dict(self.model.named_parameters()), {}
        with safe_open(path, 'pt') as file:
            kept = set(file.keys())
            beside = self.beside.state_dict()
            wanted = {f'model.{name}' for name in self.names} | {f'beside.{n}' for n in beside}
            if {name for name in kept if name.startswith(('model.', 'beside.'))} != wanted:
                raise ValueError(f"'{path}' is of another training: other tensors are trained")
            self.number = int(file.get_tensor('number'))
            for name in self.names:
                weights[name].copy_(file.get_tensor(f'model.{name}'))
            self.beside.load_state_dict({name: file.get_tensor(f'beside.{name}')
                                         for name in beside})
            for name in kept:
                if name.startswith('optimiser.'):
                    _, index, part = name.split('.')
                    states.setdefault(int(index), {})[part] = file.get_tensor(name)
        told: dict[str, Any] = self.optimiser.state_dict()
        self.optimiser.load_state_dict({**told, 'state': states})


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """
    Write a safetensors file, in place of what is there only when it is written whole.

    :raises OSError: it cannot be written.
    """
    part = path.with_name(path.name + '.partial')
    try:
        save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()},
                  part)
        part.replace(path)
    except Exception as error:
        part.unlink(missing_ok=True)
        raise error if isinstance(error, OSError) else OSError(f"'{path}': {error}") from error


def count(parameters: Iterable[Tensor]) -> int:
    """Return how many numbers they have."""
    return sum(one.numel() for one in parameters)
