# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
What is constant in the action expert, of PI0 and of pi0.5.

In PI0 the flow time is an input of every action's token, and the state is a token of its own. In
pi0.5 the time is the condition of the norms, and the state is in the prompt. Either way, what
depends on the time alone is a table with a row a step, made once.
"""

from collections.abc import Callable

from pi0_ros.engine.layers import enter, enter_each, enter_plain, linear
from pi0_ros.engine.packing import Gemma, Norms, plain_norms
from pi0_ros.weights.pi05 import PI05ForConditionalGeneration
import torch
from torch import Tensor
from transformers import PI0ForConditionalGeneration

# Of a last norm: the gate of what comes before it, weight, eps, and the product that follows.
Last = tuple[Tensor | None, Tensor, float, tuple[Tensor, Tensor]]


class Pi0Expert:
    """The expert of PI0: one token for the state, and actions that know their time."""

    lead = 1  # tokens before the actions

    def __init__(self, model: PI0ForConditionalGeneration, layers: list[Gemma], steps: int,
                 each: bool, compiled: Callable[[Callable], Callable]) -> None:
        """
        Fold and keep what is constant.

        :param each: whether actions may have times of their own.
        :param compiled: returns a function compiled, or as it is.
        """
        heads, expert = model.embed_action_time, model.model.dit
        self.dtype, self._steps = heads.action_in_proj.weight.dtype, steps
        self._norms = [plain_norms(layer) for layer in expert.layers]
        # Small, and every step adds what it rounds: float32.
        self._last: Last = (None, 1 + expert.norm.weight.float(), expert.norm.eps, (
            model.action_out_proj.weight.float(), model.action_out_proj.bias.float()))
        self._state = heads.state_proj.weight.float(), heads.state_proj.bias.float()
        self._out = heads.action_time_mlp_out.weight.data, heads.action_time_mlp_out.bias.data
        self._fold(heads, model.config)
        self._enter = compiled(enter_each if each else enter)

    def _fold(self, heads: torch.nn.Module, config: object) -> None:
        """
        Join action_in_proj and the first layer of the time MLP, in float64.

        mlp([in(x), time]) = (A W) x + (A b + B time + c): one product, and one bias a step.
        """
        into, mlp = heads.action_in_proj, heads.action_time_mlp_in
        width = into.weight.shape[0]
        actions, times = mlp.weight.double().split(width, 1)
        self._in = (actions @ into.weight.double()).float()  # [W, A]
        fraction = torch.linspace(0, 1, width // 2, dtype=torch.float64)
        period = config.min_period * (config.max_period / config.min_period) ** fraction
        # As LeRobot: times in float32, their waves in float64. The reference's are in float32.
        # The last row is that of an action without noise.
        angle = (2 * torch.pi / period * flow_times(self._steps)[:, None].double()).to(
            into.weight.device)
        wave = torch.cat([angle.sin(), angle.cos()], 1)  # [steps + 1, W]
        self._bias = (wave @ times.T + actions @ into.bias.double() + mlp.bias.double()).float()

    def state(self, state: Tensor) -> Tensor:
        """Return the state's token [1, W]."""
        return linear(state[None], *self._state).to(self.dtype)

    def enter(self, actions: Tensor, step: int, fixed: Tensor | None = None) -> Tensor:
        """
        Return the tokens [T, W] of actions [T, A] float32.

        :param fixed: [T, A] bool, what is given and has no noise.
        """
        bias = self._bias[step]
        if fixed is not None:
            bias = torch.where(fixed[:, :1], self._bias[-1], bias)
        return self._enter(actions, self._in, bias, self._out)

    def differentiable(self, actions: Tensor, step: int) -> Tensor:
        """Return the same, not compiled, for gradients."""
        return enter(actions, self._in, self._bias[step], self._out)

    def norms(self, step: int, fixed: Tensor | None = None) -> tuple[list[Norms], Last]:
        """Return what the layers' norms do in a step, and the last one."""
        return self._norms, self._last


class Pi05Expert:
    """
    The expert of pi0.5, whose norms know the time.

    The modulations of all steps are constants: scale + 1; shift, multiplied by the product that
    follows, which makes it a bias; gate. The last row is that of an action without noise.
    """

    lead = 0

    def __init__(self, model: PI05ForConditionalGeneration, layers: list[Gemma], steps: int,
                 each: bool, compiled: Callable[[Callable], Callable]) -> None:
        """Compute the tables; see Pi0Expert."""
        heads, expert = model.embed_action_time, model.model.dit
        into = heads.action_in_proj
        self.dtype = into.weight.dtype
        self._in = into.weight.float(), into.bias.float()
        condition = heads.conditions(flow_times(steps).to(into.weight.device)).double()

        def modulations(norm: torch.nn.Module) -> tuple[Tensor, Tensor, Tensor]:
            """Return 1 + scale, shift and gate, [steps + 1, W] float64."""
            scale, shift, gate = (condition @ norm.dense.weight.double().T
                                  + norm.dense.bias.double()).chunk(3, -1)
            return 1 + scale, shift, gate

        scales, others = [], []
        for layer, w in zip(expert.layers, layers):
            first, before, gate = modulations(layer.input_layernorm)
            second, between, out = modulations(layer.post_attention_layernorm)
            scales += [first, second]
            others += [before @ w.qkv.double().T, between @ w.gate_up.double().T, gate, out]
        # Of all layers in one: which of two rows counts is then one operation a step.
        self._scales = torch.cat(scales, 1).float()
        self._others = torch.cat(others, 1).to(self.dtype)
        self._scale_widths = [part.shape[1] for part in scales]
        self._widths = [part.shape[1] for part in others]
        weight, shift, _ = modulations(expert.norm)
        out = model.action_out_proj
        self._weight, self._eps = weight.float(), expert.norm.eps
        self._out = out.weight.float()
        self._bias = (shift @ out.weight.double().T + out.bias.double()).float()
        self._enter = compiled(enter_plain)
        self._rows = [self._split(self._scales[step], self._others[step])
                      for step in range(steps)]

    def _split(self, scales: Tensor, others: Tensor) -> list[Norms]:
        parts = scales.split(self._scale_widths, -1), others.split(self._widths, -1)
        return [Norms(*parts[0][2 * i:2 * i + 2], *parts[1][4 * i:4 * i + 4])
                for i in range(len(self._widths) // 4)]

    def state(self, state: Tensor) -> Tensor:
        """Return no token [0, W]: the state is in the prompt."""
        return self._in[0].new_empty(0, len(self._in[1]), dtype=self.dtype)

    def enter(self, actions: Tensor, step: int, fixed: Tensor | None = None) -> Tensor:
        """Return the tokens [T, W] of actions [T, A] float32."""
        return self._enter(actions, *self._in, self._others)

    def differentiable(self, actions: Tensor, step: int) -> Tensor:
        """Return the same, not compiled, for gradients."""
        return enter_plain(actions, *self._in, self._others)

    def norms(self, step: int, fixed: Tensor | None = None) -> tuple[list[Norms], Last]:
        """
        Return what the layers' norms do in a step, and the last one.

        :param fixed: [T, A] bool, what is given and has no noise.
        """
        if fixed is None:
            rows = self._rows[step]
            last = self._weight[step], self._bias[step]
        else:
            given = fixed[:, :1]
            rows = self._split(torch.where(given, self._scales[-1], self._scales[step]),
                               torch.where(given, self._others[-1], self._others[step]))
            last = (torch.where(given, self._weight[-1], self._weight[step]),
                    torch.where(given, self._bias[-1], self._bias[step]))
        return rows, (rows[-1].out, last[0], self._eps, (self._out, last[1]))


def flow_times(steps: int) -> Tensor:
    """Return the flow time of every step, and 0, [steps + 1] float32: 1 is noise, 0 an action."""
    return torch.tensor([1 - step / steps for step in range(steps + 1)])
