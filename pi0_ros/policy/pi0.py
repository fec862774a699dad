# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""PI0 and pi0.5: from an observation to joint positions."""

from collections.abc import Sequence
from dataclasses import dataclass
import logging
from pathlib import Path

import numpy as np
from pi0_ros.checkpoint import reader as checkpoint
from pi0_ros.checkpoint.mapping import JointMap
from pi0_ros.checkpoint.spec import Choices, NETWORKS, PI05
from pi0_ros.engine import guidance
from pi0_ros.engine.paths import choose, Fast, Prompt, Reference, Report
from pi0_ros.engine.together import Question, Together
from pi0_ros.observation.observation import Observation
from pi0_ros.policy.actions import Actions
from pi0_ros.policy.pixels import host_buffer, Pixels
from pi0_ros.policy.policy import ActionChunk, Leftover
from pi0_ros.policy.prompt import load_tokenizer, prompt_ids, state_digits
from pi0_ros.weights import loading as weights
from pi0_ros.weights.files import CheckpointError
import torch

log = logging.getLogger(__name__)
USUAL_PROMPT = 'pick up the red block and put it in the box'  # in its length


@dataclass(frozen=True)
class Begun:
    """An observation on its way through the network."""

    observation: Observation
    number: int        # of the chunk
    seed: int | None   # that its noise follows from
    raw: np.ndarray    # state in the checkpoint's units
    given: int         # so many first actions are executed as planned before
    meaning: Actions
    question: Question


class Pi0Policy:
    """Decides with a checkpoint of either: normalise, letterbox, tokenise, denoise, restore."""

    def __init__(self, folder: Path, *, dt_ns: int = 0, offset: int = -1,
                 device: str = 'auto', dtype: str = 'auto', steps: int = 0, seed: int = 0,
                 threads: int = 1, tokenizer: str = '', choices: Choices = Choices(),
                 engine: str = 'auto', compiled: str = 'auto', rtc: str = '') -> None:
        """
        Read what the checkpoint is; ``load`` reads the weights.

        :param dt_ns: control period of the training data; 0 takes the checkpoint's.
        :param offset: periods until the first action is due; -1 takes the checkpoint's.
        :param device: auto, cpu or cuda. :param dtype: auto, float32 or bfloat16.
        :param steps: denoising steps; 0 takes the checkpoint's.
        :param threads: processor threads of torch in the thread that infers.
        :param tokenizer: folder with tokenizer.json, or a name in the hub's cache on this disk,
            for checkpoints that lack it.
        :param engine: auto, fast or reference. :param compiled: auto, on or off; see paths.choose.
        :param rtc: how chunks continue what is executed: one of guidance.KINDS.
        :raises CheckpointError: the checkpoint cannot be used.
        """
        self.spec = checkpoint.read(folder, choices)
        if rtc == 'trained' and not self.spec.trained_delay:
            raise CheckpointError(
                f"checkpoint '{folder}' does not say that it was trained for hand-over "
                "rtc_trained (trained_delay in config.json): set 'handover' to rtc, "
                'which needs no training')
        self.dt_ns = dt_ns or round((self.spec.dt_s or 0) * 1e9)
        self.offset = self.spec.action_offset if offset < 0 else offset
        if not self.dt_ns:
            raise CheckpointError(
                f"checkpoint '{folder}' does not record its control rate: set "
                "'action_rate' to the fps of the training data (meta/info.json of the data set)")
        if device == 'cuda' and not torch.cuda.is_available():
            raise CheckpointError("device 'cuda' was asked for, but torch finds no GPU: check the "
                                  "driver and the torch build, or set 'device' to 'cpu'")
        if device == 'auto':
            device = 'cuda' if torch.cuda.is_available() else 'cpu'
        if dtype == 'auto':
            dtype = self.usual_dtype(device)
        self.device, self.dtype = torch.device(device), getattr(torch, dtype)
        self.steps, self.threads = steps or self.spec.denoising_steps, threads
        self.seed, self.rtc, self._warned = seed, rtc, False
        self._tokenizer_name = tokenizer
        self._prompt: tuple[tuple[str, tuple[int, ...]], Prompt] | None = None
        self._long = ''  # an instruction that was cut, as was said
        self._engine, self._compiled = engine, compiled
        self._pixels = Pixels(*self.spec.image_size, self.spec.letterbox, self.device)
        self.model, self.number = None, 0
        self._path = self._reference = self._table = self.together = None
        self.report = Report('none', 'not loaded')
        self.cameras = self.spec.cameras  # those that will be fed
        self.joints = JointMap.identity(self.spec.state_width, self.spec.action_width)

    def load(self) -> None:
        """
        Load weights and tokenizer.

        :raises CheckpointError: either cannot be used.
        """
        torch.set_num_threads(self.threads)
        self._tokenizer = load_tokenizer(self._tokenizer_name, self.spec)
        problem = None
        try:
            self._load()
        except torch.cuda.OutOfMemoryError as error:
            problem = weights.out_of_memory(error, self.spec.folder, self.device)
        if problem:
            raise problem
        for warning in self.spec.warnings:
            log.warning(warning)
        if self.rtc == 'trained':
            log.info(f'hand-over rtc_trained: {NETWORKS[self.spec.network]} was trained to be '
                     f'given up to {self.spec.trained_delay} actions that are executed meanwhile')

    def _load(self) -> None:
        """Load the weights, and let the reference compute until another path is checked."""
        self.model = weights.load_model(self.spec.folder, self.dtype, self.device,
                                        self.spec.chunk_length)
        self._table = self.model.model.vlm.get_input_embeddings()
        self._path = self._reference = Reference(self.model, self.steps, self.rtc)
        self.together = Together(self.model, self.steps, self.rtc)
        self.report = Report('reference', 'not checked yet')

    def _choose(self) -> None:
        """Choose the path that computes chunks."""
        self._path, self.report = choose(
            self.model, self.steps, max(1, len(self.cameras)), self.spec.max_prompt_tokens,
            self._engine, self._compiled, self._embed, self.rtc)

    def warm_up(self) -> None:
        """
        Choose the path that computes chunks, check it, and infer once on grey images.

        :raises CheckpointError: the engine that was asked for cannot be used.
        """
        self._pixels.check()
        self._choose()
        log.info(str(self.report))
        height, width = self.spec.image_size
        images = {name: np.full((height, width, 3), 128, np.uint8) for name in self.cameras}
        problem = None
        try:
            # The values do not matter, only how many there are.
            seen = Observation(0, np.zeros(self._observed()), images, {}, USUAL_PROMPT)
            self.infer(seen, np.zeros(self.noise_shape))
            if isinstance(self._path, Fast):
                raw, state, prompt, pixels = self.prepare(seen)
                self._path.prepare(pixels, prompt, state, torch.zeros(self.noise_shape),
                                   *self._guide(None, raw)[1])
        except torch.cuda.OutOfMemoryError as error:
            self.close()
            problem = weights.out_of_memory(error, self.spec.folder, self.device)
        if problem:
            raise problem
        self.number = 0

    @staticmethod
    def usual_dtype(device: str) -> str:
        """Return the number format of cuda or cpu."""
        return 'bfloat16' if device == 'cuda' else 'float32'

    loaded = True

    def ensure_loaded(self) -> None:
        """Do nothing: what is loaded stays."""

    def infer(self, observation: Observation, noise: np.ndarray | None = None,
              leftover: Leftover | None = None) -> ActionChunk:
        """
        Decide a chunk of [chunk_length, D] absolute positions of the commanded joints.

        :raises ValueError: the observation does not fit the checkpoint.
        """
        return self.infer_together([self.begin(observation, noise, leftover)])[0]

    def infer_together(self, begun: Sequence['Begun']) -> list[ActionChunk]:
        """
        Decide for several observations in one pass, see ``engine.together``.

        :param begun: what ``begin`` returned; a single one goes the way of ``infer``.
        """
        asked = [one.question for one in begun]
        out = self.together(asked).cpu() if self.together and self.together.pays(len(asked)) else [
            self._compute(one.pixels, one.prompt, one.state, one.noise, *one.guide)
            for one in asked]
        return [self.finish(one, actions) for one, actions in zip(begun, out)]

    def begin(self, observation: Observation, noise: np.ndarray | None = None,
              leftover: Leftover | None = None, keep: bool = False) -> 'Begun':
        """
        Return what the network reads of an observation, and what ``finish`` needs.

        :param keep: whether it shall outlive the next call.
        :raises ValueError: the observation does not fit the checkpoint.
        """
        number, self.number = self.number, self.number + 1
        seed = self.seed if noise is None else None
        if noise is None:
            noise = np.random.default_rng((seed, number)).standard_normal(self.noise_shape)
        raw, state, prompt, pixels = self.prepare(observation)
        start = host_buffer(self.noise_shape, self.device, torch.float32)
        start.copy_(torch.from_numpy(noise))
        given, guide = self._guide(leftover, raw)
        return Begun(observation, number, seed, raw, given, self._actions, Question(
            pixels.clone() if keep else pixels, prompt, state, start, guide))

    def finish(self, one: 'Begun', actions: torch.Tensor) -> ActionChunk:
        """Return the chunk of normalised actions [T, A], on the host."""
        restored = self.spec.action.restore(actions[:, :self.spec.action_width].double().numpy())
        relative = np.flatnonzero(self.spec.relative)
        restored[:, relative] += one.raw[relative]
        seen, positions = one.observation, one.meaning.out(restored, one.observation.state)
        return ActionChunk(seen.t_obs_ns, self.dt_ns, positions, seen.instruction, one.number,
                           seen.image_stamps_ns, one.seed, one.given, self.offset)

    def _guide(self, leftover: Leftover | None, raw: np.ndarray
               ) -> tuple[int, tuple[torch.Tensor, ...]]:
        """
        Return how many first actions are given, and what the network reads of a leftover.

        Relative actions are relative to the state of the new observation, ``raw``. What no joint
        takes, what is only padding and what stood still in training is not guided; a trained
        prefix is given whole, there with the mean of training.
        """
        if not self.rtc:
            return 0, ()
        target, weight = (host_buffer(self.noise_shape, self.device, torch.float32).zero_()
                          for _ in range(2))
        planned = leftover.positions[:self.spec.chunk_length] if leftover else ()
        if not len(planned):
            return 0, (target, weight)
        width, given = self.spec.action_width, min(leftover.delay, len(planned))
        actions = self._actions.back(planned, width)
        relative = np.flatnonzero(self.spec.relative)
        actions[:, relative] -= raw[relative]
        if len(self._actions.moving):  # the last of a plan is not known
            given = min(given, len(planned) - 1)
        wanted = self.spec.action.undo(actions)
        known = np.isfinite(wanted)
        target[:len(planned), :width] = torch.from_numpy(np.where(known, wanted, 0.0))
        if self.rtc == 'trained':
            if given > self.spec.trained_delay and not self._warned:
                self._warned = True
                log.warning(f'{given} actions are executed while a chunk is inferred, the '
                            f'checkpoint was trained for {self.spec.trained_delay} at most: the '
                            "rest is faded in; hand-over 'rtc' has no such bound")
            given = min(given, self.spec.trained_delay)
            weight[:given] = 1.0
        else:
            falling = guidance.weights(self.spec.chunk_length, len(planned), given)
            weight[:len(planned), :width] = torch.from_numpy(
                falling[:len(planned), None] * known)
        return given, (target, weight)

    @property
    def _actions(self) -> Actions:
        return Actions(self.joints, self.spec.velocity, self.dt_ns, self.offset)

    def _compute(self, *given: object) -> torch.Tensor:
        """Return normalised actions on the host; the reference's, where the fast path fails."""
        if self._path is not self._reference:
            try:
                return self._path(*given).cpu()
            except Exception as error:  # for example a capture for a new length of the prompt
                reason = f'the fast path failed: {type(error).__name__}: {error}'
                log.error(f"going on with transformers' own code: {reason}")
                self._path, self.report = self._reference, Report('reference', reason)
        return self._path(*given).cpu()

    def prepare(self, observation: Observation
                ) -> tuple[np.ndarray, torch.Tensor, Prompt, torch.Tensor]:
        """
        Return what the network reads.

        :returns: raw state [state_width] in the checkpoint's units, normalised and padded state
            [max_state_dim], the prompt, images [C, 3, S, S].
        :raises ValueError: the observation does not fit the checkpoint.
        """
        images = {self.spec.camera(name): image for name, image in observation.images.items()}
        unknown = set(images) - set(self.spec.cameras)
        if unknown or not 0 < len(images) <= len(self.cameras):
            raise ValueError(f"cameras {sorted(images)} do not fit the checkpoint's "
                             f'{list(self.spec.cameras)}')
        if len(observation.state) != self._observed():
            raise ValueError(f'state has {len(observation.state)} joints, expected '
                             f'{self._observed()}')
        raw = self.joints.state_in(observation.state, self.spec.state.middle)
        state = host_buffer((self._padded_state,), self.device, torch.float32)
        state.zero_()[:len(raw)] = torch.from_numpy(self.spec.state.normalise(raw))
        named = [name for name in self.spec.cameras if name in images]
        return (raw, state, self._prompted(observation.instruction, raw),
                self._pixels([images[name] for name in named],
                             [self.spec.pixels.get(name) for name in named]))

    def _observed(self) -> int:
        return int(max(self.joints.rows.max(), len(self.joints.columns) - 1)) + 1

    @property
    def noise_shape(self) -> tuple[int, int]:
        """Return the shape [chunk_length, max_action_dim] that denoising starts from."""
        return self.spec.chunk_length, self.model.config.max_action_dim

    @property
    def _padded_state(self) -> int:
        """Return how many numbers of state the network reads."""
        return self.model.config.max_state_dim

    def _prompted(self, instruction: str, raw: np.ndarray) -> Prompt:
        """
        Return the prompt of an instruction, and of pi0.5 of a raw state; the last one is kept.

        Tokenising the whole of it takes some 0.06 ms, so its parts are not kept.
        """
        digits = (state_digits(raw, self.spec, self.joints.rows) if self.spec.prompt == PI05
                  else ())
        if self._prompt is None or self._prompt[0] != (instruction, digits):
            ids = prompt_ids(self._tokenizer, instruction, self.spec.prompt, digits)
            most = self.spec.max_prompt_tokens
            known = self._table.num_embeddings
            if not ids:
                raise ValueError(f"instruction '{instruction}' has no token of the tokenizer")
            if max(ids) >= known:
                raise ValueError(f"instruction '{instruction}' has the token {max(ids)}, the "
                                 f'network knows {known}: the tokenizer is not the one that it '
                                 'was trained with')
            if len(ids) > most and self._long != instruction:
                self._long = instruction
                log.warning(f"instruction '{instruction}' has {len(ids)} tokens"
                            + (' with the state behind it' if digits else '')
                            + f', the policy reads the first {most}: say it in fewer words')
            self._prompt = ((instruction, digits),
                            self._embed(torch.tensor(ids[:most], device=self.device)))
        return self._prompt[1]

    @torch.no_grad()
    def _embed(self, ids: torch.Tensor) -> Prompt:
        return Prompt(ids, self._table(ids))

    def describe(self) -> dict[str, str]:
        """Return which path computes, why, and where."""
        difference, kernels = self.report.difference, self.report.kernels
        return {'engine': self.report.path, 'engine_reason': self.report.reason,
                'self_check': 'none' if difference is None else f'{difference:.1e}',
                'kernels': 'not counted' if kernels is None else str(kernels),
                'device': str(self.device), 'dtype': str(self.dtype).removeprefix('torch.'),
                'denoising_steps': str(self.steps)}

    def abort(self) -> None:
        """Do nothing: torch cannot be interrupted."""

    def close(self) -> None:
        """Free the network."""
        self.model = self._path = self._reference = self._prompt = self.together = None
        self._table = None
        if self.device.type == 'cuda':
            torch.cuda.empty_cache()
