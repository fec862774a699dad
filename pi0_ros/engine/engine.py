# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
PI0 and pi0.5 inference without their waste, over the weights of transformers' classes.

Batch 1, no padding, unless a CUDA graph wants it. Then nothing depends on data and nothing needs a
mask: the prefix sees itself, PI0's state token sees the prefix and itself, the actions see
everything. What each remedy saves and why it is exact is in docs/engine.md.

Letters in shapes: C cameras, S tokens of an image, P = C * S + text tokens of the prefix, T steps
of a chunk, W width, H query heads, D head dimension, A padded action width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pi0_ros.engine.expert import Pi05Expert, Pi0Expert
from pi0_ros.engine.guidance import steer_full, steering
from pi0_ros.engine.layers import (after, attend, before, encode, keys_values, leave, leave_along,
                                   leave_steered, linear)
from pi0_ros.engine.packing import Gemma, Norms, pack_gemma, pack_siglip, plain_norms, unsupported
from pi0_ros.weights.pi05 import PI05ForConditionalGeneration
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PI0ForConditionalGeneration


def _any_length(*tensors: Tensor) -> None:
    """Let what is compiled for these take any number of rows: prompts differ in length."""
    for tensor in tensors:
        torch._dynamo.mark_dynamic(tensor, 0)


@dataclass(frozen=True)
class Padding:
    """Where the rows of a padded text end; all of it may change between two calls of a graph."""

    hidden: Tensor  # [P + T], 0 for what is seen, minus infinity for padding
    cos: Tensor     # [T, 1, D] of the actions' true places
    sin: Tensor

    def parts(self) -> tuple[Tensor, ...]:
        """Return its tensors."""
        return self.hidden, self.cos, self.sin


class Engine:
    """Runs a chunk over static buffers. One thread may use it at a time."""

    def __init__(self, model: PI0ForConditionalGeneration, steps: int, most_tokens: int,
                 compiled: bool = False, rtc: str = '') -> None:
        """
        Pack the weights of ``model``, which stays usable and shares them.

        :param steps: denoising steps. :param most_tokens: of a prefix, at most.
        :param compiled: let torch compile the layers, in the first calls.
        :param rtc: one of guidance.KINDS; '' continues nothing.
        :raises ValueError: this path does not know the architecture.
        """
        problem = unsupported(model)
        if problem:
            raise ValueError(problem)
        vlm, expert = model.model.vlm, model.model.dit
        config, weight = model.config, model.embed_action_time.action_in_proj.weight
        self.steps, self.chunk_length = steps, config.chunk_size
        self.dtype, self.device = weight.dtype, weight.device
        self.compiled, self.rtc = compiled, rtc
        self.vision = vlm.vision_tower
        self.image_layers = [pack_siglip(layer) for layer in self.vision.encoder.layers]
        self.image_heads = config.vlm_config.vision_config.num_attention_heads
        self.project = vlm.multi_modal_projector.linear
        self.text_layers = [pack_gemma(layer) for layer in vlm.language_model.layers]
        self.text_norms = [plain_norms(layer) for layer in vlm.language_model.layers]
        self.expert_layers = [pack_gemma(layer) for layer in expert.layers]
        kind = Pi05Expert if isinstance(model, PI05ForConditionalGeneration) else Pi0Expert
        self.expert = kind(model, self.expert_layers, steps, rtc == 'trained', self._compile)
        length = most_tokens + self.expert.lead + self.chunk_length
        size = config.dit_config.head_dim
        self.cos, self.sin = self._positions(length, size, expert.rotary_emb.inv_freq)
        cache = torch.zeros(2, len(self.text_layers), length, size, dtype=self.dtype,
                            device=self.device)
        self.keys, self.values = cache
        self.nothing = {width: torch.zeros(length, width, dtype=self.dtype, device=self.device)
                        for width in (config.vlm_config.text_config.hidden_size,
                                      config.dit_config.hidden_size)}
        self.steering = steering(steps).to(self.device)
        self.encode, self.before, self.after, self.keys_values, self.leave = (
            self._compile(function)
            for function in (encode, before, after, keys_values,
                             leave_steered if rtc == 'identity' else leave_along))

    def _compile(self, function: Callable) -> Callable:
        if not self.compiled:
            return function
        config = torch._dynamo.config  # one variant for each number of cameras and kind of layer
        config.recompile_limit = max(config.recompile_limit, 64)
        return torch.compile(function, fullgraph=True, dynamic=False)

    def _positions(self, length: int, size: int, frequency: Tensor) -> tuple[Tensor, Tensor]:
        angle = torch.outer(torch.arange(length, device=self.device, dtype=torch.float32),
                            frequency.to(self.device).float())
        cos, sin = angle.cos().to(self.dtype), angle.sin().to(self.dtype)
        return torch.cat([cos, cos], 1)[:, None], torch.cat([-sin, sin], 1)[:, None]

    def padding(self, images: int, text: int, padded: int) -> Padding:
        """
        Return where a text of ``text`` tokens ends that is padded to ``padded``.

        :param images: tokens of images before it. Only where the expert has no state token.
        """
        end, length = images + text, self.chunk_length
        hidden = torch.zeros(images + padded + length, dtype=self.dtype, device=self.device)
        hidden[end:images + padded] = -torch.inf
        return Padding(hidden, self.cos[end:end + length], self.sin[end:end + length])

    @torch.no_grad()
    def __call__(self, pixels: Tensor, text: Tensor, state: Tensor, noise: Tensor,
                 *guide: Tensor, padding: Padding | None = None) -> Tensor:
        """
        Return normalised actions [T, A] float32.

        :param pixels: [C, 3, size, size] in [-1, 1]. :param text: embedded prompt [N, W].
        :param state: [A] normalised and padded. :param noise: [T, A] float32.
        :param guide: with ``rtc``, what to continue, normalised, and how much, both [T, A]
            float32; of a trained prefix 1 in the rows that are given, else 0.
        :param padding: of a text that is longer than what it says.
        """
        x = torch.cat([self.images(pixels).flatten(0, 1), text])
        end, expert = len(x), self.expert
        if end + expert.lead + len(noise) > len(self.cos):
            raise ValueError(f'{end} tokens of images and text, expected at most '
                             f'{len(self.cos) - expert.lead - len(noise)}')
        self._through(self.text_layers, self.text_norms, x, 0, last=False, padding=padding)
        if self.rtc == 'full':
            return self._differentiated(end, state, noise, *guide, padding=padding)
        actions, fixed = noise, None
        if self.rtc == 'trained':
            target, fixed = guide[0], guide[1] > 0
        start = end + expert.lead
        for step in range(self.steps):
            if fixed is not None:
                actions = torch.where(fixed, target, actions)
            norms, last = expert.norms(step, fixed)
            x = expert.enter(actions, step, fixed)
            if step or not expert.lead:
                x, plus = self._through(self.expert_layers, norms, x, start, padding=padding)
            else:  # the state's keys and values are the same in every step
                x, plus = self._through(self.expert_layers, norms,
                                        torch.cat([expert.state(state), x]), end, alone=1)
                x, plus = x[1:], plus[1:]
            along = ((self.steering[step], *guide) if self.rtc == 'identity'
                     else (-1 / self.steps,))
            actions = self.leave(x, plus, *last, actions, *along)
        return actions if fixed is None else torch.where(fixed, target, actions)

    def _differentiated(self, end: int, state: Tensor, noise: Tensor, target: Tensor,
                        weight: Tensor, padding: Padding | None) -> Tensor:
        """Return actions steered by the gradient of the expert; the prefix is a constant."""
        expert = self.expert
        if expert.lead:
            self._through(self.expert_layers, expert.norms(0)[0], expert.state(state), end)
        actions, start = noise, end + expert.lead
        cos, sin, hidden = self._places(start, start + len(noise), padding)
        for step in range(self.steps):
            norms, last = expert.norms(step)
            with torch.enable_grad():
                actions.requires_grad_(True)
                x, gate = expert.differentiable(actions, step), None
                plus = self.nothing[x.shape[1]][:len(x)]
                for i, (w, n) in enumerate(zip(self.expert_layers, norms)):
                    keys, values = (x.new_empty(len(x), self.keys.shape[-1]) for _ in range(2))
                    x, queries = before(w, n, gate, x, plus, cos, sin, keys, values)
                    seen = attend(queries, torch.cat([self.keys[i, :start], keys]),
                                  torch.cat([self.values[i, :start], values]), hidden)
                    x, plus = after(w, n, x, seen)
                    gate = n.out
                actions = steer_full(actions, leave(x, plus, *last), self.steering[step], target,
                                     weight)
        return actions

    def _places(self, start: int, end: int, padding: Padding | None
                ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the rotary positions of rows from ``start`` to ``end``, and what they see not."""
        if padding is None:
            return self.cos[start:end], self.sin[start:end], None
        if start:
            return padding.cos, padding.sin, padding.hidden
        return self.cos[:end], self.sin[:end], padding.hidden[:end]

    def _through(self, layers: list[Gemma], norms: Sequence[Norms], x: Tensor, start: int,
                 last: bool = True, alone: int = 0, padding: Padding | None = None
                 ) -> tuple[Tensor, Tensor]:
        """
        Take x [L, W], at positions from ``start``, through the layers; they see all before it.

        :param alone: so many rows, the first, do not see the others.
        :param last: False leaves out what the last layer does after its keys and values.
        :returns: x, and what the last layer adds to it, times its gate.
        """
        end = start + len(x)
        cos, sin, hidden = self._places(start, end, padding)
        plus, gate = self.nothing[x.shape[1]][:len(x)], None
        for i, (w, n) in enumerate(zip(layers, norms)):
            place = x, plus, cos, sin, self.keys[i, start:end], self.values[i, start:end]
            if self.compiled and not start:
                _any_length(*place)
            if not last and i == len(layers) - 1:
                self.keys_values(w, n, *place)
                break
            x, queries = self.before(w, n, gate, *place)
            rows = alone * len(queries) // len(x)
            seen = attend(queries[rows:], self.keys[i, :end], self.values[i, :end], hidden)
            if alone:
                first = start + alone
                seen = torch.cat([attend(queries[:rows], self.keys[i, :first],
                                         self.values[i, :first]), seen])
            if self.compiled and not start:
                _any_length(x, seen)
            x, plus = self.after(w, n, x, seen)
            gate = n.out
        return x, plus

    def images(self, pixels: Tensor) -> Tensor:
        """Return the images' tokens [C, S, W]."""
        embeddings = self.vision.embeddings
        x = embeddings.patch_embedding(pixels.to(self.dtype)).flatten(2).transpose(1, 2)
        plus = embeddings.position_embedding.weight.expand_as(x)
        for w in self.image_layers:
            x, plus = self.encode(w, x, plus, self.image_heads)
        last = self.vision.post_layernorm
        x = F.layer_norm(x + plus, x.shape[-1:], last.weight, last.bias, last.eps)
        return linear(x, self.project.weight, self.project.bias)
