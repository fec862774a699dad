"""PI0 inference without its waste, over the weights of transformers' classes.

Batch 1, no padding. Then nothing depends on data and nothing needs a mask: the prefix sees itself,
the state token sees the prefix and itself, the actions see everything. What each remedy saves and
why it is exact is in docs/engine.md.

Letters in shapes: C cameras, S tokens of an image, P = C * S + text tokens of the prefix, T steps
of a chunk, W width, H query heads, D head dimension, A padded action width.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PI0ForConditionalGeneration

from pi0_ros.engine.guidance import steer, steer_full, steering
from pi0_ros.engine.packing import Gemma, Siglip, pack_gemma, pack_siglip, unsupported

ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, '_linear_pointwise')


# ---- the layers: pure functions; residuals travel beside what is still to be added to them, so
# ---- that a compiler joins the addition to the normalisation that follows it

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


def norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return Gemma's RMS norm of x [L, W], computed in float32."""
    return F.rms_norm(x.float(), weight.shape, weight, eps).to(x.dtype)


def add(x: Tensor, y: Tensor) -> Tensor:
    """Return x + y, in a form that a compiler joins to what follows and not to a product before.

    Joined to the product it would copy x first. In float32 and back rounds as the plain sum does.
    """
    return (x.float() + y.float()).to(x.dtype) if torch.compiler.is_compiling() else x + y


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Return x [L, heads, D] with rotary positions; sin [L, 1, D] has its first half negated."""
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)


def keys_values(w: Gemma, x: Tensor, plus: Tensor, cos: Tensor, sin: Tensor, keys: Tensor,
                values: Tensor) -> None:
    """Write keys and values [L, D] of x + plus [L, W]: all that is read of a last prefix layer."""
    size = keys.shape[-1]
    both = linear(norm(x + plus, w.norm1, w.eps), w.qkv[-2 * size:])
    keys.copy_(rotate(both[:, None, :size], cos, sin)[:, 0])
    values.copy_(both[:, size:])


def before(w: Gemma, x: Tensor, plus: Tensor, cos: Tensor, sin: Tensor, keys: Tensor,
           values: Tensor) -> tuple[Tensor, Tensor]:
    """Return x + plus [L, W] and queries [L * H, D]; write keys and values [L, D].

    With one key-value head the query heads are rows like any others.
    """
    size = keys.shape[-1]
    x = add(x, plus)
    qkv = linear(norm(x, w.norm1, w.eps), w.qkv).view(len(x), -1, size)  # [L, H + 2, D]
    turned = rotate(qkv[:, :-1], cos, sin)
    keys.copy_(turned[:, -1])
    values.copy_(qkv[:, -1])
    return x, turned[:, :-1].reshape(-1, size)


def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Return what queries [N, D] see of keys and values [K, D]: [N, D].

    It stays outside of what is compiled, because nothing else depends on the prompt's length.
    """
    return F.scaled_dot_product_attention(queries[None, None], keys[None, None],
                                          values[None, None])[0, 0]


def after(w: Gemma, x: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Return x [L, W] after attention, and what the layer adds to it."""
    x = add(x, linear(seen.view(len(x), -1), w.out))
    gate, up = linear(norm(x, w.norm2, w.eps), w.gate_up).chunk(2, -1)
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


def leave(x: Tensor, plus: Tensor, weight: Tensor, eps: float, out: tuple[Tensor, Tensor]
          ) -> Tensor:
    """Return the velocity [T, A] float32 that the expert sees."""
    return linear(F.rms_norm((x + plus).float(), weight.shape, weight, eps), *out)


def leave_along(x: Tensor, plus: Tensor, weight: Tensor, eps: float, out: tuple[Tensor, Tensor],
                actions: Tensor, dt: float) -> Tensor:
    """Return actions [T, A] float32 after one step along the velocity."""
    return actions + dt * leave(x, plus, weight, eps, out)


def leave_steered(x: Tensor, plus: Tensor, weight: Tensor, eps: float,
                  out: tuple[Tensor, Tensor], actions: Tensor, step: Tensor, target: Tensor,
                  pull: Tensor) -> Tensor:
    """Return the same, pulled towards what the chunk shall continue; see guidance.steer."""
    return steer(actions, leave(x, plus, weight, eps, out), step, target, pull)


def _any_length(*tensors: Tensor) -> None:
    """Let what is compiled for these take any number of rows: prompts differ in length."""
    for tensor in tensors:
        torch._dynamo.mark_dynamic(tensor, 0)


class Engine:
    """Runs a chunk over static buffers. One thread may use it at a time."""

    def __init__(self, model: PI0ForConditionalGeneration, steps: int, most_tokens: int,
                 compiled: bool = False, rtc: str = '') -> None:
        """Pack the weights of ``model``, which stays usable and shares them.

        :param steps: denoising steps. :param most_tokens: of a prefix, at most.
        :param compiled: let torch compile the layers, in the first calls.
        :param rtc: one of guidance.KINDS; '' continues nothing.
        :raises ValueError: this path does not know the architecture.
        """
        problem = unsupported(model)
        if problem:
            raise ValueError(problem)
        vlm, expert, heads = model.model.vlm, model.model.dit, model.embed_action_time
        config = model.config
        self.steps, self.chunk_length = steps, config.chunk_size
        self.dtype, self.device = heads.state_proj.weight.dtype, heads.state_proj.weight.device
        self.vision = vlm.vision_tower
        self.image_layers = [pack_siglip(layer) for layer in self.vision.encoder.layers]
        self.image_heads = config.vlm_config.vision_config.num_attention_heads
        self.project = vlm.multi_modal_projector.linear
        self.text_layers = [pack_gemma(layer) for layer in vlm.language_model.layers]
        self.expert_layers = [pack_gemma(layer) for layer in expert.layers]
        self.last_norm, self.eps = 1 + expert.norm.weight.float(), expert.norm.eps
        self.state_in = heads.state_proj.weight.float(), heads.state_proj.bias.float()
        self.mlp_out = heads.action_time_mlp_out.weight.data, heads.action_time_mlp_out.bias.data
        # Small, and every step adds what it rounds: float32.
        self.action_out = (model.action_out_proj.weight.float(),
                           model.action_out_proj.bias.float())
        self._fold(heads, config)
        length, size = most_tokens + 1 + self.chunk_length, config.dit_config.head_dim
        self.cos, self.sin = self._positions(length, size, expert.rotary_emb.inv_freq)
        cache = torch.zeros(2, len(self.text_layers), length, size, dtype=self.dtype,
                            device=self.device)
        self.keys, self.values = cache
        self.nothing = {width: torch.zeros(length, width, dtype=self.dtype, device=self.device)
                        for width in (config.vlm_config.text_config.hidden_size,
                                      config.dit_config.hidden_size)}
        self.compiled, self.rtc = compiled, rtc
        self.steering = steering(steps).to(self.device)
        self.encode, self.before, self.after, self.keys_values, self.enter, self.leave = (
            self._compile(function) if compiled else function
            for function in (encode, before, after, keys_values,
                             enter_each if rtc == 'trained' else enter,
                             leave_steered if rtc == 'identity' else leave_along))

    def _compile(self, function: Callable) -> Callable:
        config = torch._dynamo.config  # one variant for each number of cameras and kind of layer
        config.recompile_limit = max(config.recompile_limit, 64)
        return torch.compile(function, fullgraph=True, dynamic=False,
                             mode='max-autotune-no-cudagraphs' if self.device.type == 'cuda'
                             else 'default')

    def _fold(self, heads: nn.Module, config: object) -> None:
        """Join action_in_proj and the first layer of the time MLP, in float64.

        mlp([in(x), time]) = (A W) x + (A b + B time + c): one product, and one bias a step.
        """
        into, mlp = heads.action_in_proj, heads.action_time_mlp_in
        width = into.weight.shape[0]
        actions, times = mlp.weight.double().split(width, 1)
        self.action_in = (actions @ into.weight.double()).float()  # [W, A]
        fraction = torch.linspace(0, 1, width // 2, dtype=torch.float64)
        period = config.min_period * (config.max_period / config.min_period) ** fraction
        # As LeRobot: times in float32, their waves in float64. The reference's are in float32.
        # The last row is that of an action without noise.
        t = torch.tensor([[1 - step / self.steps] for step in range(self.steps + 1)]).double()
        angle = (2 * torch.pi / period * t).to(self.device)
        wave = torch.cat([angle.sin(), angle.cos()], 1)  # [steps + 1, W]
        self.action_bias = (wave @ times.T + actions @ into.bias.double()
                            + mlp.bias.double()).float()

    def _positions(self, length: int, size: int, frequency: Tensor) -> tuple[Tensor, Tensor]:
        angle = torch.outer(torch.arange(length, device=self.device, dtype=torch.float32),
                            frequency.to(self.device).float())
        cos, sin = angle.cos().to(self.dtype), angle.sin().to(self.dtype)
        return torch.cat([cos, cos], 1)[:, None], torch.cat([-sin, sin], 1)[:, None]

    @torch.no_grad()
    def __call__(self, pixels: Tensor, text: Tensor, state: Tensor, noise: Tensor,
                 *guide: Tensor) -> Tensor:
        """Return normalised actions [T, A] float32.

        :param pixels: [C, 3, size, size] in [-1, 1]. :param text: embedded prompt [N, W].
        :param state: [A] normalised and padded. :param noise: [T, A] float32.
        :param guide: with ``rtc``, what to continue, normalised, and how much, both [T, A]
            float32; of a trained prefix 1 in the rows that are given, else 0.
        """
        x = torch.cat([self.images(pixels).flatten(0, 1), text])
        end = len(x)
        if end + 1 + len(noise) > len(self.cos):
            raise ValueError(f'{end} tokens of images and text, expected at most '
                             f'{len(self.cos) - 1 - len(noise)}')
        self._through(self.text_layers, x, 0, last=False)
        if self.rtc == 'full':
            return self._differentiated(end, state, noise, *guide)
        actions, fixed = noise, None
        if self.rtc == 'trained':
            target, fixed = guide[0], guide[1] > 0
        for step in range(self.steps):
            bias = self.action_bias[step]
            if fixed is not None:
                actions = torch.where(fixed, target, actions)
                bias = torch.where(fixed[:, :1], self.action_bias[-1], bias)
            x = self.enter(actions, self.action_in, bias, self.mlp_out)
            if step:
                x, plus = self._through(self.expert_layers, x, end + 1)
            else:  # the state's keys and values are the same in every step
                token = linear(state[None], *self.state_in).to(self.dtype)
                x, plus = self._through(self.expert_layers, torch.cat([token, x]), end, alone=1)
                x, plus = x[1:], plus[1:]
            along = ((self.steering[step], *guide) if self.rtc == 'identity'
                     else (-1 / self.steps,))
            actions = self.leave(x, plus, self.last_norm, self.eps, self.action_out, actions,
                                 *along)
        return actions if fixed is None else torch.where(fixed, target, actions)

    def _differentiated(self, end: int, state: Tensor, noise: Tensor, target: Tensor,
                        weight: Tensor) -> Tensor:
        """Return actions steered by the gradient of the expert; the prefix is a constant."""
        token = linear(state[None], *self.state_in).to(self.dtype)
        self._through(self.expert_layers, token, end)
        actions, start = noise, end + 1
        stop = start + len(noise)
        for step in range(self.steps):
            with torch.enable_grad():
                actions.requires_grad_(True)
                x = enter(actions, self.action_in, self.action_bias[step], self.mlp_out)
                plus = self.nothing[x.shape[1]][:len(x)]
                for i, w in enumerate(self.expert_layers):
                    keys, values = (x.new_empty(len(x), self.keys.shape[-1]) for _ in range(2))
                    x, queries = before(w, x, plus, self.cos[start:stop], self.sin[start:stop],
                                        keys, values)
                    seen = attend(queries, torch.cat([self.keys[i, :start], keys]),
                                  torch.cat([self.values[i, :start], values]))
                    x, plus = after(w, x, seen)
                velocity = leave(x, plus, self.last_norm, self.eps, self.action_out)
                actions = steer_full(actions, velocity, self.steering[step], target, weight)
        return actions

    def _through(self, layers: list[Gemma], x: Tensor, start: int, last: bool = True,
                 alone: int = 0) -> tuple[Tensor, Tensor]:
        """Take x [L, W], at positions from ``start``, through the layers; they see all before it.

        :param alone: so many rows, the first, do not see the others.
        :param last: False leaves out what the last layer does after its keys and values.
        """
        end = start + len(x)
        cos, sin = self.cos[start:end], self.sin[start:end]
        plus = self.nothing[x.shape[1]][:len(x)]
        for i, w in enumerate(layers):
            place = x, plus, cos, sin, self.keys[i, start:end], self.values[i, start:end]
            if self.compiled and not start:
                _any_length(*place)
            if not last and i == len(layers) - 1:
                self.keys_values(w, *place)
                break
            x, queries = self.before(w, *place)
            rows = alone * len(queries) // len(x)
            seen = attend(queries[rows:], self.keys[i, :end], self.values[i, :end])
            if alone:
                first = start + alone
                seen = torch.cat([attend(queries[:rows], self.keys[i, :first],
                                         self.values[i, :first]), seen])
            if self.compiled and not start:
                _any_length(x, seen)
            x, plus = self.after(w, x, seen)
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
