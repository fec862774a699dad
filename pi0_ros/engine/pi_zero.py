# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Chunks of a network of pi-zero-pytorch, sampled by the library itself."""

import numpy as np
from pi0_ros.engine.paths import Prompt
import torch
from torch import nn, Tensor


class PiZero:
    """Has the signature of the other paths, see ``paths.Reference``."""

    def __init__(self, model: nn.Module, encoder: nn.Module | None, steps: int, rtc: str = '',
                 scaling: tuple[np.ndarray, np.ndarray] | None = None) -> None:
        """
        Use ``model`` as it is.

        :param encoder: makes tokens of images, where the network has no encoder of its own.
        :param steps: times of the solver. :param rtc: one of guidance.KINDS.
        :param scaling: mean and deviation of images in [0, 1], see ``image_scaling``.
        """
        self.model, self.steps, self.rtc, self._encoder = model, steps, rtc, encoder
        self._scaling = None if scaling is None else tuple(
            torch.tensor(one, dtype=torch.float32, device=model.device)[:, None, None]
            for one in scaling)
        self._solve = model.odeint_fn

    def __call__(self, pixels: Tensor, prompt: Prompt, state: Tensor, noise: Tensor,
                 *guide: Tensor) -> Tensor:
        """
        Return normalised actions [T, A] float32.

        :param pixels: [C, 3, S, S] in [-1, 1]. :param state: [N] normalised.
        :param noise: [T, A], in place of the library's own draw.
        :param guide: what is planned already [T, A], and how much it counts, 1 where it is given.
        """
        model, device = self.model, self.model.device
        images, frozen = self._images(pixels.to(device)), {}
        if guide and bool((guide[1] > 0).any()):
            frozen = self._frozen(*guide)
        begin = noise.to(device, torch.float32)[None]
        # The noise is drawn inside; this is where it is used.
        model.odeint_fn = lambda flow, _, times: self._solve(flow, begin, times)
        try:
            with torch.set_grad_enabled(bool(frozen)):  # its guidance differentiates
                return model.sample_actions(
                    images, prompt.ids.to(device)[None], state.to(device)[None],
                    trajectory_length=len(noise), steps=self.steps, show_pbar=False,
                    **frozen)[0].detach()
        finally:
            model.odeint_fn = self._solve

    def _images(self, pixels: Tensor) -> Tensor:
        """Return [1, 3, C, S, S], or tokens [1, C, L, W] of an encoder that lies beside."""
        if self._scaling is not None:
            mean, std = self._scaling
            pixels = ((pixels + 1) / 2 - mean) / std
        if self._encoder is None:
            return pixels.transpose(0, 1)[None]
        with torch.no_grad():
            return self._encoder(pixel_values=pixels).last_hidden_state[None]

    def _frozen(self, target: Tensor, weight: Tensor) -> dict[str, object]:
        """
        Return the library's words for a leftover.

        The first actions are given, then what is planned counts less and less, by the library's
        own mask (arXiv 2506.07339, equation 5), which wants at least one of the first and one
        that is free. Trained for it (arXiv 2512.05964), the network is given the first alone.
        """
        length = len(target)
        # What stood still in training, or is not known, has no weight in its column.
        given = max(1, int((weight == 1).any(1).sum()))
        counted = weight > 0
        known = counted[0] if bool(counted[0].any()) else counted.any(0)
        planned = given if self.rtc == 'trained' else int(
            counted[:, known].all(1).sum())
        planned = min(max(planned, given), length - 1)
        given = min(given, planned)
        return {'frozen_actions': target[:planned].to(self.model.device)[None],
                'soft_mask_lens': (given, planned - given, length - planned),
                'return_frozen_actions_with_sampled': True}
