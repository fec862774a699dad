# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""One training step of the small PI0, and everything that must survive a restart."""

from dataclasses import dataclass
import math
from pathlib import Path
import random

import numpy as np
from pi0_ros.checkpoint.normalise import lerobot_normaliser
from pi0_ros.finetune import flow, learner
from pi0_ros.policy.prompt import prompt_ids
from pi0_ros.sim.arm import home
from pi0_ros.sim.expert import NO_BLOCK
from pi0_ros.sim.render import camera
from pi0_ros.sim.render import HEIGHT as HEIGHT_PIXELS
from pi0_ros.sim.render import WIDTH as WIDTH_PIXELS
from pi0_ros.sim.world import REST_HEIGHT
from pi0_ros.training import attention, instructions
from pi0_ros.training.model import IMAGE_SIZE, PATCH, READABLE, WIDTH
from safetensors.torch import load_file
from tokenizers import Tokenizer
import torch
from torch import nn
from torch.nn import functional as F
from transformers import PI0ForConditionalGeneration

UNNAMED = 0.06          # share of instructions that name no block: the arm holds still
BEHIND = 0.9            # share of instructions that name the block behind a peg, if there is one
REPEATS = 3             # flow times and noises drawn for each observation
PLACE_WEIGHT = 0.3      # of the loss that reads the named block's place off the prompt
PATCH_WEIGHT = 0.3      # of the loss that points at the named block's patch of the overhead image
EMA = 0.998             # of the weights that are evaluated and saved
BLOCK_CENTRE, BLOCK_SPREAD = (0.21, 0.0), (0.05, 0.08)  # of block places on the table, metres


@dataclass(frozen=True)
class Batch:
    """Model-ready tensors of B observations."""

    images: torch.Tensor   # (B, cameras, 3, S, S) float32 in [-1, 1]
    input_ids: torch.Tensor  # (B, L) image tokens, prompt, right padding
    mask: torch.Tensor     # (B, L) 1 for tokens that count
    state: torch.Tensor    # (B, 32) normalised, zero-padded
    actions: torch.Tensor  # (B, 50, 32) normalised, zero-padded
    block: torch.Tensor    # (B, 2) place of the named block on the table, normalised
    patch: torch.Tensor    # (B,) index of the overhead image's patch that shows it
    named: torch.Tensor    # (B,) whether a block is named


class Samples:
    """Draws batches out of the demonstrations: batch number k is the same for the same seed."""

    def __init__(self, data: dict[str, np.ndarray], tokenizer: Tokenizer, image_tokens: int,
                 seed: int, batch_size: int, network: str = 'pi0') -> None:
        """Keep ``data`` as ``demonstrations.load`` returns it and compute its statistics."""
        self.data, self.tokenizer, self.seed, self.size = data, tokenizer, seed, batch_size
        self.image_tokens, self.network = image_tokens, network
        self.mode = 'QUANTILES' if network == 'pi05' else 'MEAN_STD'  # as LeRobot's defaults
        self.statistics: dict[str, np.ndarray] = {}
        for feature, name in (('observation.state', 'state'), ('action', 'actions')):
            values = data[name].reshape(-1, data[name].shape[-1])
            told = {'mean': values.mean(0), 'std': values.std(0), 'min': values.min(0),
                    'max': values.max(0), **{f'q{percent:02d}': np.percentile(
                        values, percent, axis=0) for percent in (1, 10, 50, 90, 99)}}
            self.statistics |= {f'{feature}.{what}': np.ascontiguousarray(value, np.float32)
                                for what, value in told.items()}
        width = data['state'].shape[-1]
        self.normalisers = {
            name: lerobot_normaliser(self.mode, feature, self.statistics, width)
            for name, feature in (('state', 'observation.state'), ('action', 'action'))}

    def batch(self, number: int) -> Batch:
        """Return batch ``number``."""
        rng = np.random.default_rng((self.seed, number))
        words = random.Random(f'{self.seed}/{number}')
        rows = rng.integers(0, len(self.data['state']), self.size)
        target = np.where(rng.random(self.size) < UNNAMED, NO_BLOCK,
                          rng.integers(0, self.data['actions'].shape[1], self.size))
        if 'behind' in self.data:
            behind = (rng.random(self.size) < BEHIND) & (target != NO_BLOCK)
            target = np.where(behind, self.data['behind'][rows], target)
        digits = (self.normalisers['state'].digits(self.data['state'][rows])
                  if self.network == 'pi05' else np.zeros((self.size, 0), int))
        style = 'pi05' if self.network == 'pi05' else 'lerobot'
        prompts = [prompt_ids(self.tokenizer, instructions.sample(words, t), style, row.tolist())
                   for t, row in zip(target, digits)]
        length = self.image_tokens + max(map(len, prompts))
        ids = np.full((self.size, length), self.tokenizer.token_to_id('<pad>'))
        ids[:, :self.image_tokens] = self.tokenizer.get_vocab_size()
        mask = np.zeros((self.size, length), np.int64)
        for row, prompt in enumerate(prompts):
            ids[row, self.image_tokens:self.image_tokens + len(prompt)] = prompt
            mask[row, :self.image_tokens + len(prompt)] = 1
        actions = np.where((target == NO_BLOCK)[:, None, None],
                           self.data['hold'][rows][:, None],
                           self.data['actions'][rows, np.maximum(target, 0)])
        blocks = self.data['blocks'][rows, np.maximum(target, 0)]
        images = self.data['images'][rows].astype(np.float32) / 127.5 - 1
        light = rng.normal(1, 0.06, (self.size, 1, 1, 1, 1)) * np.ones((1, 1, 3, 1, 1))
        images = np.clip((images + 1) * light.astype(np.float32), 0, 2) - 1
        return Batch(
            torch.from_numpy(images), torch.from_numpy(ids), torch.from_numpy(mask),
            self._normalised('state', self.data['state'][rows]),
            self._normalised('action', actions),
            torch.from_numpy(((blocks - BLOCK_CENTRE) / BLOCK_SPREAD).astype(np.float32)),
            torch.from_numpy(_overhead_patch(blocks)),
            torch.from_numpy(target != NO_BLOCK))

    def _normalised(self, name: str, value: np.ndarray) -> torch.Tensor:
        value = torch.from_numpy(self.normalisers[name].normalise(value).astype(np.float32))
        return F.pad(value, (0, 32 - value.shape[-1]))


def _overhead_patch(blocks: np.ndarray) -> np.ndarray:
    """Return the index of the overhead patch that shows each block; blocks [B, 2] in metres."""
    points = np.column_stack([blocks, np.full(len(blocks), REST_HEIGHT)])
    pixels, _ = camera('overhead', home()).project(points)
    ratio = IMAGE_SIZE / WIDTH_PIXELS
    border = np.array([0.0, (IMAGE_SIZE - HEIGHT_PIXELS * ratio) / 2])
    column, row = np.clip((pixels * ratio + border) // PATCH, 0, IMAGE_SIZE // PATCH - 1).T
    return (row * (IMAGE_SIZE // PATCH) + column).astype(np.int64)


@dataclass(frozen=True)
class Rates:
    """Warm-up, then a cosine down to a fiftieth."""

    steps: int
    peak: float

    def rate(self, number: int) -> float:
        """Return the learning rate of a step."""
        cosine = 0.5 * (1 + math.cos(math.pi * number / self.steps))
        return self.peak * min(1.0, (number + 1) / 200) * (0.02 + 0.98 * cosine)


class Learner:
    """The fine-tuning's learner with auxiliary heads and averaged weights."""

    def __init__(self, model: PI0ForConditionalGeneration, steps: int, rate: float,
                 device: torch.device, trained_delay: int = 0) -> None:
        """
        Train ``model`` for ``steps`` steps.

        :param trained_delay: half of the chunks begin with up to so many actions that are given
            (arXiv 2512.05964): they enter without noise, at flow time 0, and have no loss.
        """
        self.trained_delay, self.device = trained_delay, device
        self.model = model.to(device)
        self.head = nn.ModuleDict({'place': nn.Linear(WIDTH, 2), 'patch': nn.Linear(WIDTH, 1)})
        self.head.to(device)
        if device.type == 'cpu':
            model.set_attn_implementation(attention.register())
        self._learner = learner.Learner(
            model, Rates(steps, rate), learner.Optimiser(betas=(0.9, 0.98), decay_all=False),
            torch.bfloat16, self.head)
        self.average = {k: v.detach().clone() for k, v in model.state_dict().items()}

    @property
    def number(self) -> int:
        """Return how many steps were done."""
        return self._learner.number

    def learn(self, batch: Batch, seed: int) -> tuple[float, float]:
        """Do one step; return the flow-matching loss and the auxiliary loss."""
        torch.manual_seed(seed * 1_000_003 + self.number)
        told = []

        def loss() -> torch.Tensor:
            told[:] = self.losses(batch)
            return told[0] + told[1]

        self._learner.learn(loss)
        keep = min(EMA, (1 + self.number) / (10 + self.number))
        with torch.no_grad():
            for key, value in self.model.state_dict().items():
                self.average[key].lerp_(value, 1 - keep)
        return told[0].item(), told[1].item()

    def losses(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Return the flow-matching loss of ``PI0ForConditionalGeneration`` and the auxiliary ones.

        Binding the colour word to the right block is what is hard to learn. The auxiliary heads
        read the named block off the prompt and off the image; they are not part of the checkpoint.

        The prefix is computed once and shared by ``REPEATS`` draws of noise and flow time.
        """
        images, ids = batch.images.to(self.device), batch.input_ids.to(self.device)
        shown = (ids == self.model.config.vlm_config.image_token_id).sum()
        if shown != len(ids) * images.shape[1] * (IMAGE_SIZE // PATCH) ** 2:
            raise ValueError("the tokenizer's size is not that of the network: no image is seen")
        mask, state = batch.mask.to(self.device), batch.state.to(self.device)
        present = torch.ones(images.shape[:2], dtype=torch.bool, device=self.device)
        seen = flow.Batch(images, present, ids, mask, state, batch.actions.to(self.device))
        actions = seen.actions.repeat(REPEATS, 1, 1)
        times = self._flow_times(len(actions))
        noise = torch.randn_like(actions)
        given = self._given(*actions.shape[:2])
        times = torch.where(given, 0.0, times[:, None])
        auxiliary: list[torch.Tensor] = []

        # Layer k of the action expert reads the input of layer k of this prefix: what is known
        # early can be read by many layers, what the last layer finds out by none.
        def look(number: int, prefix: torch.Tensor) -> None:
            if number == READABLE:
                auxiliary.append(self._auxiliary(batch, prefix, mask))

        velocity = flow.velocity(self.model, seen, flow.noisy(actions, noise, times), times,
                                 REPEATS, readable=look)
        errors = (noise - actions - velocity).square().mean(-1)
        return errors[~given].mean(), auxiliary[0]

    def _auxiliary(self, batch: Batch, readable: torch.Tensor, mask: torch.Tensor
                   ) -> torch.Tensor:
        """Return the loss of what is read off the prefix after some layers."""
        last = mask.sum(-1) - 1
        prompt = readable[torch.arange(len(last)), last]
        named = batch.named.to(self.device)
        place = F.smooth_l1_loss(self.head['place'](prompt)[named],
                                 batch.block.to(self.device)[named], beta=0.2)
        overhead = readable[:, :(IMAGE_SIZE // PATCH) ** 2]
        pointing = F.cross_entropy(self.head['patch'](overhead)[named, :, 0].float(),
                                   batch.patch.to(self.device)[named])
        return PLACE_WEIGHT * place + PATCH_WEIGHT * pointing

    def _flow_times(self, count: int) -> torch.Tensor:
        """Return [count] flow times, distributed as ``PI0ForConditionalGeneration`` draws them."""
        config = self.model.config
        beta = torch.distributions.Beta(torch.tensor(config.time_sampling_beta_alpha),
                                        torch.tensor(config.time_sampling_beta_beta))
        times = beta.sample((count,)) * config.time_sampling_scale + config.time_sampling_offset
        return times.to(self.device)

    def _given(self, count: int, length: int) -> torch.Tensor:
        """Return [count, length] which actions are given; none of half of the chunks."""
        if not self.trained_delay:
            return torch.zeros(count, length, dtype=torch.bool, device=self.device)
        delays = torch.randint(1, self.trained_delay + 1, (count, 1)) * (torch.rand(count, 1) < .5)
        return (torch.arange(length) < delays).to(self.device)

    def save(self, path: Path) -> None:
        """Write everything needed to go on, whole or not at all."""
        learner.write_tensors(path, self._learner.tensors() | {
            f'average.{name}': value for name, value in self.average.items()})

    def restore(self, path: Path) -> None:
        """Go on where ``save`` left off."""
        self._learner.restore(path)
        self.average = {name.removeprefix('average.'): value for name, value in
                        load_file(path, device=str(self.device)).items()
                        if name.startswith('average.')}
