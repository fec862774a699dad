"""Which path computes a chunk: our engine, or transformers' own code where that is not certain."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PI0ForConditionalGeneration

from pi0_ros.policy.engine import Engine
from pi0_ros.policy.kernels import Graphs, count_kernels
from pi0_ros.policy.packing import unsupported
from pi0_ros.policy.spec import CheckpointError

log = logging.getLogger(__name__)
# Largest difference from the reference, relative to the largest action. float32 paths differ in
# rounding by 1e-5 at most; in bfloat16 the reference itself is 1e-2 away from exact.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2}
CHECK_TOKENS = 12


@dataclass(frozen=True)
class Prompt:
    """An instruction as the paths read it."""

    ids: Tensor   # [N] tokens
    text: Tensor  # [N, W] embedded


Path = Callable[[Tensor, Prompt, Tensor, Tensor], Tensor]


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
    """transformers' own ``sample_actions``."""

    def __init__(self, model: PI0ForConditionalGeneration, steps: int) -> None:
        """Use ``model`` as it is."""
        self.model, self.steps = model, steps
        vision = model.config.vlm_config.vision_config
        self._image_tokens = (vision.image_size // vision.patch_size) ** 2

    @torch.no_grad()
    def __call__(self, pixels: Tensor, prompt: Prompt, state: Tensor, noise: Tensor) -> Tensor:
        """Return normalised actions [T, A] float32; see Engine for the arguments."""
        weight = self.model.action_out_proj.weight
        device = weight.device
        images = torch.full((len(pixels) * self._image_tokens,),
                            self.model.config.vlm_config.image_token_id, device=device)
        ids = torch.cat([images, prompt.ids])[None]
        # A mask of ones is not the same as no mask, which shifts the positions by one.
        return self.model.sample_actions(
            state=state.to(device, weight.dtype)[None], input_ids=ids,
            pixel_values=pixels.to(device, weight.dtype)[None], noise=noise.to(device)[None],
            attention_mask=torch.ones_like(ids), num_steps=self.steps,
            pixel_attention_mask=torch.ones((1, len(pixels)), dtype=torch.bool,
                                            device=device))[0].float()


class Fast:
    """Our engine, on a GPU as CUDA graphs."""

    def __init__(self, model: PI0ForConditionalGeneration, steps: int, most_tokens: int,
                 compiled: bool) -> None:
        """Pack the weights; ``model`` stays usable."""
        self.engine = Engine(model, steps, most_tokens, compiled)
        self._run = Graphs(self.engine) if self.engine.device.type == 'cuda' else self.engine

    @property
    def name(self) -> str:
        """Return what a report calls this."""
        return ('fast compiled' if self.engine.compiled else 'fast') + (
            ' in a CUDA graph' if isinstance(self._run, Graphs) else '')

    def __call__(self, pixels: Tensor, prompt: Prompt, state: Tensor, noise: Tensor) -> Tensor:
        """Return normalised actions [T, A] float32; see Engine for the arguments."""
        return self._run(pixels, prompt.text, state, noise)


def choose(model: PI0ForConditionalGeneration, steps: int, most_tokens: int, cameras: int,
           engine: str, compiled: str, embed: Callable[[Tensor], Prompt]) -> tuple[Path, Report]:
    """Return the path that computes chunks from now on.

    The fast one must agree with the reference on a made-up input, and with itself after another.

    :param engine: one of ENGINES. :param compiled: one of COMPILE; auto compiles on a GPU.
    :param embed: makes a prompt of tokens.
    :raises CheckpointError: ``engine`` is fast, and it cannot be used.
    """
    reference = Reference(model, steps)
    if engine == 'reference':
        return reference, Report('reference', 'as configured')
    problem = unsupported(model)
    if problem:
        return _refused(engine, reference, problem)
    on_gpu = model.action_out_proj.weight.is_cuda
    tries = [True, False] if compiled == 'on' or (compiled == 'auto' and on_gpu) else [False]
    why = 'checked'
    for attempt in tries:
        try:
            fast = Fast(model, steps, most_tokens, attempt)
            report = check(fast, reference, cameras, embed)
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:  # a compiler, a driver or a capture may fail in any way
            first = (str(error).strip().splitlines() or [''])[0]
            problem = f'{type(error).__name__}: {first}'
            if attempt:
                log.warning(f'torch.compile failed, going on without it: {problem}')
                why = 'checked; torch.compile failed'
            continue
        if report.difference <= TOLERANCE[fast.engine.dtype]:
            return fast, Report(fast.name, why, report.difference, report.kernels)
        problem = (f'the fast path differs from the reference by {report.difference:.1e} of the '
                   f'largest action, allowed is {TOLERANCE[fast.engine.dtype]:.0e}')
    return _refused(engine, reference, problem)


def _refused(engine: str, reference: Reference, problem: str) -> tuple[Path, Report]:
    if engine == 'fast':
        raise CheckpointError(f"engine 'fast' cannot be used: {problem}; set parameter 'engine' "
                              'to auto or reference')
    log.warning(f"using transformers' own code, which is slower: {problem}")
    return reference, Report('reference', problem)


def check(fast: Fast, reference: Reference, cameras: int, embed: Callable[[Tensor], Prompt]
          ) -> Report:
    """Return how far the fast path is from the reference on made-up input.

    It computes for input A, for B, and for A again: memory that is not written anew would show.
    """
    config, device = reference.model.config, fast.engine.device
    size = config.vlm_config.vision_config.image_size
    vocabulary = config.vlm_config.text_config.vocab_size

    def made_up(seed: int) -> tuple:
        dice = torch.Generator().manual_seed(seed)
        ids = torch.randint(2, vocabulary - 1, (CHECK_TOKENS,), generator=dice)
        return (torch.rand(cameras, 3, size, size, generator=dice) * 2 - 1, embed(ids.to(device)),
                torch.randn(config.max_state_dim, generator=dice),
                torch.randn(config.chunk_size, config.max_action_dim, generator=dice))

    a, b = ([value.to(device) if isinstance(value, Tensor) else value for value in made_up(seed)]
            for seed in (0, 1))
    first, _, again = fast(*a), fast(*b), fast(*a)
    if not first.isfinite().all():
        return Report('', '', float('inf'))
    if not torch.equal(first, again):
        raise RuntimeError('the same input gave two results')
    wanted = reference(*a)
    difference = float((first - wanted).abs().max() / wanted.abs().max())
    kernels = None if fast.engine.compiled and device.type != 'cuda' else \
        count_kernels(lambda: fast(*a), device)
    return Report('', '', difference, kernels)
