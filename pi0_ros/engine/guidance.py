# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Real-time chunking: a chunk is denoised so that it continues what is being executed.

The equations are those of arXiv 2506.07339, in PI0's sign: flow time t from 1 (noise) to 0
(actions), tau = 1 - t, and PI0's velocity is minus the paper's. A trained prefix is that of arXiv
2512.05964.

identity: dA1/dA is taken for the identity, which needs no gradient (LeRobot and pi-zero-pytorch do
so, unnamed). full: the gradient of the action expert, as in the paper. trained: the network was
trained to be given the first actions.
"""

import math

import numpy as np
import torch
from torch import nn, Tensor

KINDS = ('', 'identity', 'full', 'trained')
BETA = 5.0  # most that the guidance pulls, the paper's


def weights(length: int, end: int, delay: int) -> np.ndarray:
    """
    Return W [length]: 1 for the first ``delay`` actions, then falling to 0 at ``end``.

    :param length: H, of a chunk. :param end: H - s, so many actions are planned already.
    :param delay: d, so many of them will be executed before the chunk comes. The bound of the
        paper, d <= s <= H - d, is kept: ``end`` is at most ``length - delay``, ``delay`` at most
        ``end``.
    """
    end = min(end, length)
    delay = min(delay, end)
    end = max(delay, min(end, length - delay))
    i = np.arange(length)
    c = (end - i) / (end - delay + 1)
    falling = c * np.expm1(c) / (math.e - 1)
    return np.where(i < delay, 1.0, np.where(i < end, falling, 0.0))


def factor(tau: float, beta: float = BETA) -> float:
    """Return min(beta, (1 - tau) / (tau r^2)), r^2 = (1 - tau)^2 / (tau^2 + (1 - tau)^2)."""
    if tau <= 0 or tau >= 1:
        return beta
    return min(beta, (tau**2 + (1 - tau)**2) / (tau * (1 - tau)))


def steering(steps: int) -> Tensor:
    """
    Return [steps, 3] for every denoising step: flow time t, step dt, pull.

    ``pull`` is the guidance factor times the length of a step, at most 1: with few steps it would
    push beyond the target.
    """
    rows = [(1 - k / steps, -1 / steps, min(1.0, factor(k / steps) / steps))
            for k in range(steps)]
    return torch.tensor(rows, dtype=torch.float32)


def steer(actions: Tensor, velocity: Tensor, step: Tensor, target: Tensor, weight: Tensor
          ) -> Tensor:
    """
    Return actions [T, A] after one step along the velocity, pulled towards the target.

    :param step: one row of ``steering``. :param weight: [T, A].
    """
    clean = actions - step[0] * velocity
    return actions + step[1] * velocity + step[2] * weight * (target - clean)


def steer_full(actions: Tensor, velocity: Tensor, step: Tensor, target: Tensor, weight: Tensor
               ) -> Tensor:
    """
    Return the same with the whole Jacobian.

    :param actions: requires a gradient, and ``velocity`` was computed from it.
    """
    clean = actions - step[0] * velocity
    error = (weight * (target - clean)).detach()
    gradient, = torch.autograd.grad(clean, actions, error)
    return (actions + step[1] * velocity + step[2] * gradient).detach()


def embed_at(heads: nn.Module, state: Tensor, actions: Tensor, times: Tensor) -> Tensor:
    """
    Return the action expert's tokens [B, 1 + T, W], every action at a flow time of its own.

    :param heads: ``embed_action_time`` of a PI0ForConditionalGeneration, whose own call knows
        only one time a chunk. :param state: [B, A]. :param actions: [B, T, A].
    :param times: [B, T], 1 is noise, 0 an action.
    """
    embedded = heads.action_in_proj(actions)
    waves = heads.sinusoid_embeds(times.flatten()).view(embedded.shape).to(embedded.dtype)
    mixed = heads.action_time_mlp_in(torch.cat([embedded, waves], 2))
    mixed = heads.action_time_mlp_out(nn.functional.silu(mixed))
    return torch.cat([heads.state_proj(state)[:, None], mixed], 1)
