# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Which path computes a chunk: our engine, or transformers' own code where that is not certain."""

from collections.abc import Callable
from dataclasses import dataclass
import inspect
import logging

from pi0_ros.engine.engine import Engine, Padding
from pi0_ros.engine.guidance import embed_at, steer, steer_full, steering, weights
from pi0_ros.engine.kernels import count_kernels, Graphs
from pi0_ros.weights.files import CheckpointError
from pi0_ros.weights.pi05 import PI05ForConditionalGeneration
import torch
from torch import nn, Tensor
from transformers import PI0ForConditionalGeneration, PI0Model

log = logging.getLogger(__name__)
# Largest difference from the reference, relative to the largest action. float32 paths differ in
# rounding by 1e-5 at most; in bfloat16 the reference itself is 1e-2 away from exact.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2}
# What transformers calls keys and values: from 5.24 on cache, before that past_key_values.
CACHE = next(name for name in ('cache', 'past_key_values')
             if name in inspect.signature(PI0Model.forward).parameters)
CHECK_TOKENS = 12
BUCKET = 16  # tokens


@dataclass(frozen=True)
class Prompt:
    """An instruction as the paths read it."""

    ids: Tensor   # [N] tokens
    text: Tensor  # [N, W] embedded


Path = Callable[..., Tensor]


@dataclass(frozen=True)
class Report:
    """Which path was chosen, and why."""

    path: str          # reference, fast, fast compiled, each in a graph on a GPU
    reason: str
    difference: float | None = None  # from the reference, of the largest action
    kernels: int | None = None       # of one chunk

    def __str__(self) -> str:
        """Return one line for a log."""
        out = f'engine: {self.path} ({self.reason}'
        if self.difference is not None:
            out += f'; differs from the reference by {self.difference:.1e} of the largest action'
        if self.kernels is not None:
            out += f'; {self.kernels} kernels a chunk'
        return out + ')'


class Reference:
    """transformers' own ``sample_actions``; guided, and of pi0.5, its loop over its layers."""

    def __init__(self, model: PI0ForConditionalGeneration, steps: int, rtc: str = '') -> None:
        """Use ``model`` as it is."""
        self.model, self.steps, self.rtc = model, steps, rtc
        self._own = not rtc and not isinstance(model, PI05ForConditionalGeneration)
        vision = model.config.vlm_config.vision_config
        self.image_tokens = (vision.image_size // vision.patch_size) ** 2

    @torch.no_grad()
    def __call__(self, pixels: Tensor, prompt: Prompt, state: Tensor, noise: Tensor,
                 *guide: Tensor) -> Tensor:
        """Return normalised actions [T, A] float32; see Engine for the arguments."""
        weight = self.model.action_out_proj.weight
        device = weight.device
        images = torch.full((len(pixels) * self.image_tokens,),
                            self.model.config.vlm_config.image_token_id, device=device)
        ids = torch.cat([images, prompt.ids])[None]
        if not self._own:
            return self._guided(pixels.to(device, weight.dtype)[None], ids,
                                state.to(device, weight.dtype)[None], noise.to(device),
                                *(part.to(device) for part in guide))
        # A mask of ones is not the same as no mask, which shifts the positions by one.
        return self.model.sample_actions(
            state=state.to(device, weight.dtype)[None], input_ids=ids,
            pixel_values=pixels.to(device, weight.dtype)[None], noise=noise.to(device)[None],
            attention_mask=torch.ones_like(ids), num_steps=self.steps,
            pixel_attention_mask=torch.ones((1, len(pixels)), dtype=torch.bool,
                                            device=device))[0].float()

    def _guided(self, pixels: Tensor, ids: Tensor, state: Tensor, actions: Tensor,
                target: Tensor | None = None, weight: Tensor | None = None) -> Tensor:
        """Return actions; what ``sample_actions`` does, with a hand on every step."""
        core, mask = self.model.model, torch.ones_like(ids)
        embeds = core.embed_prefix(ids, pixels, mask.new_ones((1, pixels.shape[1]),
                                                              dtype=torch.bool))
        cache = getattr(core.vlm(
            inputs_embeds=embeds, attention_mask=mask, position_ids=mask.cumsum(-1) - 1,
            token_type_ids=torch.zeros_like(ids), use_cache=True), CACHE)
        prefix = cache.get_seq_length()
        times = torch.ones(1, len(actions), device=actions.device)
        for step, row in enumerate(steering(self.steps).to(actions.device)):
            now = times * (1 - step / self.steps)
            if self.rtc == 'trained':
                actions = torch.where(weight > 0, target, actions)
                now = torch.where(weight[None, :, 0] > 0, 0.0, now)
            with torch.set_grad_enabled(self.rtc == 'full'):
                actions = actions.requires_grad_(self.rtc == 'full')
                velocity = self._velocity(state, actions, now, mask, cache)
                if self.rtc == 'full':
                    actions = steer_full(actions, velocity, row, target, weight)
                elif self.rtc == 'identity':
                    actions = steer(actions, velocity, row, target, weight)
                else:
                    actions = actions + row[1] * velocity
            cache.crop(prefix - cache.get_seq_length())
        return torch.where(weight > 0, target, actions) if self.rtc == 'trained' else actions

    def _velocity(self, state: Tensor, actions: Tensor, times: Tensor, mask: Tensor,
                  cache: object) -> Tensor:
        """Return the network's velocity [T, A] float32 of actions at flow times [1, T]."""
        if isinstance(self.model, PI05ForConditionalGeneration):
            return self.model.velocity(actions[None], times, cache)[0].float()
        tokens = embed_at(self.model.embed_action_time, state, actions[None].to(state.dtype),
                          times)
        seen = self.model.model(action_embeds=tokens, attention_mask=mask,
                                **{CACHE: cache}).last_hidden_state[0, -len(actions):]
        return self.model.action_out_proj(seen).float()


class Fast:
    """
    Our engine, on a GPU as CUDA graphs.

    The prompts of pi0.5 differ in length with the state's digits: for graphs they are padded to a
    multiple of ``BUCKET`` tokens, which nothing sees.
    """

    def __init__(self, model: PI0ForConditionalGeneration, steps: int, most_tokens: int,
                 compiled: bool, rtc: str = '', padded: bool | None = None) -> None:
        """
        Pack the weights; ``model`` stays usable.

        :param padded: whether prompts are padded; None: where graphs need it.
        """
        varies = isinstance(model, PI05ForConditionalGeneration)
        self.engine = Engine(model, steps, most_tokens + BUCKET * varies, compiled, rtc)
        vision = model.config.vlm_config.vision_config
        self._most = most_tokens
        self._image_tokens = (vision.image_size // vision.patch_size) ** 2
        graph = self.engine.device.type == 'cuda' and rtc != 'full'  # gradients are in no graph
        self._padded = varies and graph if padded is None else padded
        self._run = Graphs(self._compute, self.engine.device) if graph else self._compute

    @property
    def name(self) -> str:
        """Return what a report calls this."""
        return ('fast compiled' if self.engine.compiled else 'fast') + (
            ' in a CUDA graph' if isinstance(self._run, Graphs) else '')

    def __call__(self, pixels: Tensor, prompt: Prompt, *given: Tensor) -> Tensor:
        """
        Return normalised actions [T, A] float32; see Engine for the arguments.

        They may lie in memory of the host.
        """
        given = self._padding(pixels, prompt.text, *given)
        return self._run(*(given if isinstance(self._run, Graphs) else self._here(given)))

    def eager(self, pixels: Tensor, prompt: Prompt, *given: Tensor) -> Tensor:
        """Return the same, not from a graph."""
        return self._compute(*self._here(self._padding(pixels, prompt.text, *given)))

    def _padding(self, pixels: Tensor, text: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
        """Return the inputs, and with padding what says where the text ends."""
        if not self._padded:
            return pixels, text, *given
        length = -(-len(text) // BUCKET) * BUCKET
        where = self.engine.padding(len(pixels) * self._image_tokens, len(text), length)
        return (pixels, nn.functional.pad(text, (0, 0, 0, length - len(text))), *given,
                *where.parts())

    def _compute(self, *given: Tensor) -> Tensor:
        if not self._padded:
            return self.engine(*given)
        return self.engine(*given[:-3], padding=Padding(*given[-3:]))

    def _here(self, given: tuple[Tensor, ...]) -> list[Tensor]:
        return [part.to(self.engine.device) for part in given]

    def prepare(self, pixels: Tensor, prompt: Prompt, *given: Tensor) -> None:
        """
        Capture graphs for padded prompts that are a little shorter and longer.

        The digits of a state make them so, and a capture takes its time, while the robot moves.
        """
        if self._padded:
            for more in (-BUCKET, BUCKET):
                count = len(prompt.text) + more
                if 0 < count and len(pixels) * self._image_tokens + count <= self._most:
                    rows = torch.arange(count, device=prompt.text.device) % len(prompt.text)
                    self(pixels, Prompt(prompt.ids, prompt.text[rows]), *given)

    def forget(self) -> None:
        """Give back the graphs of the check, whose sizes may never come again."""
        if isinstance(self._run, Graphs):
            self._run.clear()

    def kernels(self, *given: object) -> int | None:
        """Return how many kernels a chunk takes; None where torch compiled them."""
        if self.engine.compiled:
            return None
        pixels, prompt, *rest = (part.to(self.engine.device) if isinstance(part, Tensor) else part
                                 for part in given)  # copies are no kernels
        return count_kernels(lambda: self.eager(pixels, prompt, *rest))


def choose(model: PI0ForConditionalGeneration, steps: int, cameras: int, prompt_tokens: int,
           engine: str, compiled: str, embed: Callable[[Tensor], Prompt], rtc: str = ''
           ) -> tuple[Path, Report]:
    """
    Return the path that computes chunks from now on.

    The fast one must agree with the reference on made-up inputs, and with itself.

    :param cameras: most that will be seen. :param prompt_tokens: most that an instruction has.
    :param engine: one of ENGINES. :param compiled: one of COMPILE; auto compiles on a GPU.
    :param embed: makes a prompt of tokens. :param rtc: one of guidance.KINDS.
    :raises CheckpointError: ``engine`` is fast, and it cannot be used.
    """
    reference = Reference(model, steps, rtc)
    if engine == 'reference':
        return reference, Report('reference', 'as configured')
    on_gpu = model.action_out_proj.weight.is_cuda
    attempts = [True, False] if compiled == 'on' or (compiled == 'auto' and on_gpu) else [False]
    most = cameras * reference.image_tokens + prompt_tokens
    why = problem = ''
    for attempt in attempts:
        fast = None  # before the next one packs the weights anew
        try:
            fast = Fast(model, steps, most, attempt, rtc)
            difference = check(fast, reference, cameras, min(CHECK_TOKENS, prompt_tokens), embed)
            allowed = TOLERANCE[fast.engine.dtype]
            if difference <= allowed:
                fast.forget()
                return fast, Report(fast.name, 'checked' + why, difference,
                                    fast.kernels(*made_up(model, cameras, min(
                                        CHECK_TOKENS, prompt_tokens), embed, 0, rtc)))
            problem = (f'it differs from the reference by {difference:.1e} of the largest action, '
                       f'allowed is {allowed:.0e}')
        except Exception as error:  # a compiler, a driver or a capture may fail in any way
            problem = (f'{type(error).__name__}: '
                       f"{(str(error).strip().splitlines() or [''])[0]}")
        if attempt:
            log.warning(f'the compiled engine failed, going on without compiling: {problem}')
            why = f'; compiled it failed: {problem}'
    fast = None
    if engine == 'fast':
        raise CheckpointError(f"engine 'fast' cannot be used: {problem}; set 'engine' "
                              'to auto or reference')
    log.warning(f"using transformers' own code, which is slower than our engine: {problem}")
    return reference, Report('reference', problem)


def made_up(model: PI0ForConditionalGeneration, cameras: int, tokens: int,
            embed: Callable[[Tensor], Prompt], seed: int, rtc: str = '') -> tuple:
    """Return random pixels and prompt where the model lies; the rest on the host, as a policy."""
    config, device = model.config, model.action_out_proj.weight.device
    size = config.vlm_config.vision_config.image_size
    dice = torch.Generator().manual_seed(seed)
    ids = torch.randint(2, config.vlm_config.text_config.vocab_size - 1, (tokens,), generator=dice)
    shape = config.chunk_size, config.max_action_dim
    length = shape[0]
    falling = torch.from_numpy(weights(length, length // 2, length // 8)).float()
    if rtc == 'trained':
        falling = (falling == 1).float()
    guide = torch.randn(shape, generator=dice), falling[:, None].repeat(1, shape[1])
    return ((torch.rand(cameras, 3, size, size, generator=dice) * 2 - 1).to(device),
            embed(ids.to(device)), torch.randn(config.max_state_dim, generator=dice),
            torch.randn(shape, generator=dice), *(part for part in guide if rtc))


def check(fast: Fast, reference: Reference, cameras: int, tokens: int,
          embed: Callable[[Tensor], Prompt]) -> float:
    """
    Return how far the fast path is from the reference, of the largest action.

    It computes for inputs A, B and A: memory that is not written anew, or an input that is not
    taken over, would show. A CUDA graph must give what its engine gives, bit for bit.

    :raises RuntimeError: the same input gave two results.
    """
    a, b = (made_up(reference.model, cameras, tokens, embed, seed, reference.rtc)
            for seed in (0, 1))
    results = [fast(*given) for given in (a, b, a)]
    if not all(result.isfinite().all() for result in results):
        return float('inf')
    exact = not (reference.rtc == 'full' and results[0].is_cuda)  # backward sums in any order
    if exact and not torch.equal(results[0], results[2]):
        raise RuntimeError('the same input gave two results')
    for given, result in zip((a, b), results):
        if exact and not torch.equal(fast.eager(*given), result):
            raise RuntimeError('a CUDA graph gave another result than its engine')
    differences = []
    for given, result in zip((a, b), results):
        wanted = reference(*given)
        differences.append(float((result - wanted).abs().max() / wanted.abs().max()))
    return max(differences)
