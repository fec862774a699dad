# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The layers of PI0 and pi0.5 as pure functions over packed weights.

Residuals travel beside what is still to be added to them, so that a compiler joins the addition to
the normalisation that follows it. Letters in shapes: see engine.py. What the norms of pi0.5 do is
constant, so their shift is a bias of the product that follows, and their gate is multiplied where
the residual is added: see expert.py.
"""

from pi0_ros.engine.guidance import steer
from pi0_ros.engine.packing import Gemma, Norms, Siglip
import torch
from torch import Tensor
from torch.nn import functional as F

ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, '_linear_pointwise')


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x W + b. For float32 on a processor by oneDNN: MKL leaves AMD's AVX-512 unused."""
    if not ONEDNN or x.dtype != torch.float32 or x.is_cuda or torch.is_grad_enabled():
        return F.linear(x, weight, bias)
    if torch.compiler.is_compiling():  # the compiler takes oneDNN's own only with frozen weights
        return torch.ops.pi0_ros.linear(x, weight, bias)
    return _onednn(x, weight, bias)


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, 'none', [], '')


_library = torch.library.Library('pi0_ros', 'DEF')
_library.define('linear(Tensor x, Tensor weight, Tensor? bias) -> Tensor')
_library.impl('linear', _onednn, 'CPU')
torch.library.register_fake('pi0_ros::linear', lib=_library)(
    lambda x, weight, bias: x.new_empty((*x.shape[:-1], len(weight))))


def linear_each(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return x W + b, where b may be [L, .], one for each row."""
    if bias is None or bias.dim() == 1:
        return linear(x, weight, bias)
    return linear(x, weight) + bias


def rms(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return Gemma's RMS norm of x [L, W] in float32; weight [W] or [L, W]."""
    x, width = x.float(), x.shape[-1:]
    if weight.dim() == 1:
        return F.rms_norm(x, width, weight, eps)
    return F.rms_norm(x, width, None, eps) * weight


def norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return Gemma's RMS norm of x [L, W], computed in float32."""
    return rms(x, weight, eps).to(x.dtype)


def add(x: Tensor, y: Tensor, gate: Tensor | None = None) -> Tensor:
    """
    Return x + gate y, in a form that a compiler joins to what follows, not to a product before.

    Joined to the product it would copy x first. In float32 and back rounds as the plain sum does.
    """
    if torch.compiler.is_compiling():
        y = y.float() if gate is None else y.float() * gate.float()
        return (x.float() + y).to(x.dtype)
    return x + y if gate is None else torch.addcmul(x, y, gate)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Return x [L, heads, D] with rotary positions; sin [L, 1, D] has its first half negated."""
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)


def keys_values(w: Gemma, n: Norms, x: Tensor, plus: Tensor, cos: Tensor, sin: Tensor,
                keys: Tensor, values: Tensor) -> None:
    """Write keys and values [L, D] of x + plus [L, W]: all that is read of a last prefix layer."""
    size = keys.shape[-1]
    both = linear(norm(x + plus, n.first, w.eps), w.qkv[-2 * size:])
    keys.copy_(rotate(both[:, None, :size], cos, sin)[:, 0])
    values.copy_(both[:, size:])


def before(w: Gemma, n: Norms, gate: Tensor | None, x: Tensor, plus: Tensor, cos: Tensor,
           sin: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """
    Return x + gate plus [L, W] and queries [L * H, D]; write keys and values [L, D].

    With one key-value head the query heads are rows like any others.
    """
    size = keys.shape[-1]
    x = add(x, plus, gate)
    qkv = linear_each(norm(x, n.first, w.eps), w.qkv, n.into).view(len(x), -1, size)
    turned = rotate(qkv[:, :-1], cos, sin)
    keys.copy_(turned[:, -1])
    values.copy_(qkv[:, -1])
    return x, turned[:, :-1].reshape(-1, size)


def attend(queries: Tensor, keys: Tensor, values: Tensor, hidden: Tensor | None = None) -> Tensor:
    """
    Return what queries [N, D] see of keys and values [K, D]: [N, D].

    It stays outside of what is compiled, because nothing else depends on the prompt's length.

    :param hidden: [K], added to the scores: minus infinity for keys that stand for nothing.
    """
    if hidden is not None:
        hidden = hidden[None].expand(len(queries), -1)
    return F.scaled_dot_product_attention(queries[None, None], keys[None, None],
                                          values[None, None], hidden)[0, 0]


def after(w: Gemma, n: Norms, x: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Return x [L, W] after attention, and what the layer adds to it, times its gate."""
    x = add(x, linear(seen.view(len(x), -1), w.out), n.gate)
    gate, up = linear_each(norm(x, n.second, w.eps), w.gate_up, n.hidden).chunk(2, -1)
    return x, linear(F.gelu(gate, approximate='tanh') * up, w.down)


def encode(w: Siglip, x: Tensor, plus: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """Return x + plus [C, S, W] and what the layer of the image encoder adds to it."""
    x = x + plus
    width = x.shape[-1:]
    qkv = linear(F.layer_norm(x, width, *w.norm1, w.eps), *w.qkv)
    q, k, v = qkv.view(*x.shape[:2], 3, heads, -1).permute(2, 0, 3, 1, 4)  # [C, heads, S, d]
    seen = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
    x = x + linear(seen, *w.out)
    hidden = linear(F.layer_norm(x, width, *w.norm2, w.eps), *w.up)
    return x, linear(F.gelu(hidden, approximate='tanh'), *w.down)


def enter(x: Tensor, weight: Tensor, bias: Tensor, out: tuple[Tensor, Tensor]) -> Tensor:
    """Return the expert's tokens [T, W] for actions x [T, A] float32, the time in ``bias``."""
    return linear(F.silu(linear(x, weight, bias)).to(out[0].dtype), *out)


def enter_each(x: Tensor, weight: Tensor, biases: Tensor, out: tuple[Tensor, Tensor]) -> Tensor:
    """Return the same for actions that have flow times of their own; ``biases`` [T, W]."""
    return linear(F.silu(linear(x, weight) + biases).to(out[0].dtype), *out)


def enter_plain(x: Tensor, weight: Tensor, bias: Tensor, out: Tensor) -> Tensor:
    """Return the tokens of pi0.5 [T, W], of the type of ``out``: its time is in the norms."""
    return linear(x, weight, bias).to(out.dtype)


def leave(x: Tensor, plus: Tensor, gate: Tensor | None, weight: Tensor, eps: float,
          out: tuple[Tensor, Tensor]) -> Tensor:
    """Return the velocity [T, A] float32 that the expert sees."""
    x = x + plus if gate is None else torch.addcmul(x, plus, gate)
    return linear_each(rms(x, weight, eps), *out)


def leave_along(x: Tensor, plus: Tensor, gate: Tensor | None, weight: Tensor, eps: float,
                out: tuple[Tensor, Tensor], actions: Tensor, dt: float) -> Tensor:
    """Return actions [T, A] float32 after one step along the velocity."""
    return actions + dt * leave(x, plus, gate, weight, eps, out)


def leave_steered(x: Tensor, plus: Tensor, gate: Tensor | None, weight: Tensor, eps: float,
                  out: tuple[Tensor, Tensor], actions: Tensor, step: Tensor, target: Tensor,
                  pull: Tensor) -> Tensor:
    """Return the same, pulled towards what the chunk shall continue; see guidance.steer."""
    return steer(actions, leave(x, plus, gate, weight, eps, out), step, target, pull)
