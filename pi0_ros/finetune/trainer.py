# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Fine-tunes a checkpoint on a data set, and can be ended at any time."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
import json
from pathlib import Path
import signal
import threading
import time
from typing import Any

import numpy as np
from pi0_ros.checkpoint.reader import read
from pi0_ros.checkpoint.spec import Choices, PolicySpec
from pi0_ros.dataset.reader import DataError, DataSet, IMAGES
from pi0_ros.finetune import flow, parallel
from pi0_ros.finetune.adapters import adapt, merged
from pi0_ros.finetune.held_out import measure
from pi0_ros.finetune.inputs import adopt, Inputs
from pi0_ros.finetune.learner import cast, count, freeze, Learner, Optimiser, Schedule
from pi0_ros.finetune.output import Output, STATE
from pi0_ros.finetune.saving import write_checkpoint
from pi0_ros.finetune.settings import Settings
from pi0_ros.policy.factory import checkpoint_folder
from pi0_ros.policy.prompt import load_tokenizer
from pi0_ros.weights.loading import load_model, stored_tensors
from safetensors.numpy import load_file
import torch
from torch import Tensor
from tqdm import tqdm

GIB = 2**30
LEAST_EPISODES = 10  # of a data set, from which on some are held out


class Trainer:
    """One run: what it reads, the learner, and what it writes."""

    def __init__(self, settings: Settings, resume: bool = False) -> None:
        """
        Read the data set and the checkpoint; take up what was begun if ``resume``.

        :raises DataError: the data set cannot be used, or does not fit.
        :raises CheckpointError: the checkpoint cannot.
        :raises ValueError: the output folder holds another training.
        """
        self.settings = settings
        self.beside, self._begin_s = parallel.here(), 0.0
        self.output = Output(settings, resume, self.beside.number == 0)
        if settings.threads:
            torch.set_num_threads(settings.threads)
        self.device = getattr(self.beside, 'device', None) or torch.device(
            settings.device if settings.device != 'auto' else
            'cuda' if torch.cuda.is_available() else 'cpu')
        self.data = DataSet(settings.dataset)
        source = self.source = checkpoint_folder(settings.checkpoint)
        spec = read(source, Choices())
        length = settings.chunk_size or spec.chunk_length
        self.model = load_model(source, torch.float32, torch.device('cpu'), length)
        self.tokenizer = load_tokenizer(settings.tokenizer, spec)
        self.meaning = adopt(
            spec, self.data, settings.cameras, length, settings.relative_actions,
            settings.relative_exclude_joints, _mode(source),
            _statistics(source, spec, self.data) if settings.keep_statistics else None)
        vision = self.model.config.vlm_config.vision_config
        self.inputs = Inputs(
            self.meaning, self.tokenizer, self.model.config.vlm_config.image_token_id,
            (vision.image_size // vision.patch_size) ** 2,
            (self.model.config.max_state_dim, self.model.config.max_action_dim),
            round(settings.cache_gib * GIB / self.beside.count))
        if not 0 <= settings.trained_delay < length:
            raise ValueError(f'--trained-delay is {settings.trained_delay}, expected 0 to '
                             f'{length - 1}, less than a chunk')
        self.episodes, self.held = _split(self.data, settings)
        self.frames = self.data.frames_of(self.episodes)
        torch.manual_seed(settings.seed)
        if settings.gradient_checkpointing:  # of images, whose layers keep no cache
            self.model.model.vlm.vision_tower.gradient_checkpointing_enable(
                {'use_reentrant': False})
        if settings.lora_rank:
            adapt(self.model, settings.lora_rank)
        else:
            freeze(self.model, settings.train_expert_only, settings.freeze_vision_encoder)
        computed = cast(self.model, settings.dtype)
        self.model.to(self.device)
        self.learner = Learner(self.model, Schedule(
            settings.steps, settings.learning_rate, settings.decay_rate, settings.warmup_steps,
            settings.decay_steps), Optimiser(), computed)
        self.model.train()
        if settings.train_expert_only:
            self.model.model.vlm.eval()
        loss = _Loss(self.model, self.meaning.spec.action_width, settings)
        self._loss = self.beside.prepare(torch.compile(loss) if settings.compile else loss)
        self.best, self._stop = float('inf'), False
        self.told = [
            f"data set '{settings.dataset}': {len(self.episodes)} episodes, {len(self.frames)} "
            f'frames, {self.data.fps} a second; {len(self.held)} episodes held out',
            f"cameras {', '.join(self.meaning.spec.cameras)}; state "
            f'{self.meaning.spec.state_width}, actions {self.meaning.spec.action_width}, '
            f'{int(self.meaning.spec.relative.sum())} of them relative; chunks of {length}',
            f"checkpoint '{source}': {spec.layout}, {spec.network}; "
            f'{count(self.learner.trained) / 1e6:.1f} of '
            f'{count(self.model.parameters()) / 1e6:.1f} million parameters are trained, '
            f'{len(self.learner.names)} tensors; {settings.dtype} on {self.device}'
            + (f', {self.beside.count} processes' if self.beside.count > 1 else '')]
        size, state = count(self.model.parameters()), count(self.learner.trained)
        self.told.append(f'a checkpoint takes {4 * size / GIB:.2f} GiB at most, what is needed to '
                         f'go on {12 * state / GIB:.2f}')
        now = self.meaning.spec
        if (spec.letterbox, spec.prompt) != (now.letterbox, now.prompt):
            self.told.append('images and prompts are as LeRobot has them from now on: letterbox '
                             f'{spec.letterbox} and prompt {spec.prompt} before')
        if set(spec.cameras) - set(self.meaning.spec.cameras):
            self.told.append(f"the checkpoint's cameras are {', '.join(spec.cameras)}: slot by "
                             'slot they become those of the data set')
        if resume:
            self.learner.restore(self.output.last / STATE)
            self.best = self.output.resumed(self.learner.number)
            self.told.append(f'going on from step {self.learner.number}')

    # ---- what it does ----

    def run(self) -> None:
        """
        Train to the last step; save, measure and log on the way.

        :raises FloatingPointError: the loss is no number.
        :raises OSError: the disk is full; the last checkpoint stays.
        """
        settings, learner = self.settings, self.learner
        self.fill()
        self._listen()
        bar = tqdm(total=settings.steps, initial=learner.number, unit='step', dynamic_ncols=True)
        self._begin_s, images = time.monotonic(), 0
        shown: dict[str, str] = {}
        for batch in self._batches(learner.number):
            number = learner.number
            noise, times, given = self._draw(number, batch.actions.shape[1:])
            ready = batch.to(self.device)
            done = learner.learn(lambda: self._loss(ready, noise, times, given),
                                 self.beside.backward)
            done['loss'] = self.beside.mean(done['loss'])
            images += batch.images.shape[0] * batch.images.shape[1] * self.beside.count
            rate = images / max(time.monotonic() - self._begin_s, 1e-9)
            bar.update()
            shown |= {'loss': f"{done['loss']:.4f}", 'images/s': f'{rate:.1f}'}
            bar.set_postfix(shown)
            number = learner.number
            if self.beside.number == 0 and (
                    number % settings.log_every == 0 or number == settings.steps):
                self.output.log(step=number, **done, images_per_s=round(rate, 2),
                                seconds=round(time.monotonic() - self._begin_s, 1))
            last = number == settings.steps
            measured = self.held and (number % settings.eval_every == 0 or last)
            if self.beside.number == 0:
                if number % settings.save_every == 0 or last or measured or self._stop:
                    self.save()
                if measured:
                    error = self.measure()
                    shown['held out'] = f'{100 * error:.2f} %'
                    if error < self.best:
                        self.best = error
                        self.output.mark_best(number, error)
                elif not self.held and last:
                    self.output.mark_best(number, self.best)
            self.beside.wait()
            if self._stop:
                raise KeyboardInterrupt
        bar.close()

    def _listen(self) -> None:
        """Let Ctrl-C end after the step that is under way; a second one ends at once."""
        def told(number: int, frame: object) -> None:
            if self._stop:
                raise KeyboardInterrupt
            self._stop = True

        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, told)

    def fill(self) -> None:
        """Decode all images in order, where there is room for all and they are used again."""
        size = len(self.meaning.spec.cameras) * self.inputs.image_bytes * len(self.data)
        asked = (self.settings.steps - self.learner.number) * self.settings.batch_size
        if self.beside.count > 1 or size > self.settings.cache_gib * GIB or asked < len(
                self.data) / 2:
            return
        self.inputs.fill(self.data.item(index, 1) for index in tqdm(
            range(len(self.data)), unit='frame', desc='images', dynamic_ncols=True))

    def measure(self) -> float:
        """Return the mean error on held-out episodes, a share of the joints' ranges."""
        frames = self.data.frames_of(self.held)
        every = max(1, len(frames) // self.settings.eval_frames)
        with self.learner.computing():
            told = measure(self.model, self.inputs, self.data, frames[::every],
                           self.meaning.spec.denoising_steps, self.settings.seed)
        share = told['error_share']
        self.output.log(
            step=self.learner.number, held_out=share['policy'], hold_still=share['hold_still'],
            moments=told['compared'],
            joints={name: one['policy']['mean'] for name, one in told['joints'].items()})
        return share['policy']

    def save(self) -> None:
        """
        Write a checkpoint and what is needed to go on; the one before goes after that.

        :raises OSError: the disk is full; what was there before stays.
        """
        self.output.save(self.learner.number, self.write, self.learner.save, self.best)

    def write(self, folder: Path) -> None:
        """Write the checkpoint as it is now."""
        shapes = {name: self.data.features[IMAGES + name]['shape'] for name in self.data.cameras}
        shapes = {name: of[1:] if of[0] == 3 else of[:2] for name, of in shapes.items()}
        tensors = merged(self.model)
        changed = {name.replace('.base_layer', '').partition('.lora_')[0] for name in
                   self.learner.names}
        frozen = [name for name in tensors if name not in changed
                  and f"{name.rpartition('.')[0]}" not in changed]
        tensors |= stored_tensors(self.source, frozen)  # as exact as they were
        write_checkpoint(
            folder, tensors, self.meaning, self.model.config, self.tokenizer,
            shapes, self._train_config(), self._card(), self.settings.trained_delay)

    # ---- its parts ----

    def _draw(self, number: int, chunk: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Return noise [B, T, A], times [B, T] and which actions are given, of a step."""
        shape = (self.settings.batch_size * self.beside.count, *chunk)
        generator = torch.Generator().manual_seed(self.settings.seed * 1_000_003 + number)
        noise = torch.randn(*shape, generator=generator)
        times = flow.draw_times(self.model.config, shape[0], generator)[:, None].expand(shape[:2])
        given = torch.zeros(*shape[:2], dtype=torch.bool)
        if self.settings.trained_delay:  # arXiv 2512.05964: half of the chunks have a prefix
            delays = torch.randint(1, self.settings.trained_delay + 1, (shape[0], 1),
                                   generator=generator)
            delays *= torch.rand(shape[0], 1, generator=generator) < 0.5
            given = torch.arange(shape[1]) < delays
            times = torch.where(given, 0.0, times)
        rows = self.beside.share(range(shape[0]))
        return tuple(value[list(rows)].to(self.device) for value in (noise, times, given))

    def _batches(self, first: int) -> Iterator[flow.Batch]:
        """Yield the batches from step ``first`` on; some are made ahead."""
        ahead = max(1, self.settings.workers)
        with ThreadPoolExecutor(ahead) as pool:
            waiting = []
            for number in range(first, self.settings.steps + ahead):
                if number < self.settings.steps:
                    waiting.append(pool.submit(self.batch, number))
                if len(waiting) > ahead or number >= self.settings.steps:
                    if not waiting:
                        return
                    yield waiting.pop(0).result()

    def batch(self, number: int) -> flow.Batch:
        """Return the batch of a step: every frame once in an epoch, in another order in each."""
        size, count = self.settings.batch_size * self.beside.count, len(self.frames)
        rows = []
        for at in self.beside.share(range(number * size, (number + 1) * size)):
            epoch, place = divmod(at, count)
            rows.append(int(self.frames[self._order(epoch)[place]]))
        length = self.meaning.spec.chunk_length
        return self.inputs.batch([self.data.item(row, length) for row in rows])

    def _order(self, epoch: int) -> np.ndarray:
        return np.random.default_rng((self.settings.seed, epoch)).permutation(len(self.frames))

    def _train_config(self) -> dict[str, Any]:
        settings = self.settings
        return {'dataset': {'repo_id': settings.dataset.name, 'root': str(settings.dataset),
                            'fps': self.data.fps,
                            'episodes': [self.data.episodes[one] for one in self.episodes]},
                'policy': {'type': self.meaning.spec.network,
                           'pretrained_path': settings.checkpoint},
                'steps': settings.steps, 'batch_size': settings.batch_size,
                'seed': settings.seed, 'pi0_ros': {
                    **settings.same(), 'step': self.learner.number}}

    def _card(self) -> str:
        spec, settings = self.meaning.spec, self.settings
        frozen = ('the expert alone' if settings.train_expert_only else 'all but the image encoder'
                  if settings.freeze_vision_encoder else 'all weights')
        return '\n'.join([
            '---', 'library_name: lerobot', 'pipeline_tag: robotics', f'tags: [{spec.network}]',
            '---', '', f'# {self.settings.output.name}', '',
            f'{spec.network}, fine-tuned by pi0_ros {_version()} from {settings.checkpoint} on '
            f'{settings.dataset.name} ({len(self.episodes)} episodes, {len(self.frames)} frames, '
            f'{self.data.fps} a second): {self.learner.number} of {settings.steps} steps of '
            f'{settings.batch_size}, {frozen}, {settings.dtype}.', '',
            f"- cameras: {', '.join(spec.cameras)}",
            f"- state: {', '.join(spec.state_names or [str(spec.state_width)])}",
            f"- actions: {', '.join(spec.action_names or [str(spec.action_width)])}; "
            f'{int(spec.relative.sum())} relative to the state; due {spec.action_offset} periods '
            'after the observation',
            *([f'- mean error on held-out episodes: {100 * self.best:.2f} % of the range']
              if np.isfinite(self.best) else []), ''])


class _Loss(torch.nn.Module):
    """The loss as a module, which several processes can have copies of."""

    def __init__(self, model: torch.nn.Module, width: int, settings: Settings) -> None:
        super().__init__()
        self.model, self._width = model, width
        self._settings = settings

    def forward(self, batch: flow.Batch, noise: Tensor, times: Tensor, given: Tensor) -> Tensor:
        """Return the mean over what was not given."""
        errors = flow.losses(self.model, batch, noise, times, self._width,
                             self._settings.gradient_checkpointing)
        return errors.mean() if not self._settings.trained_delay else errors[~given].mean()


def _mode(folder: Path) -> str:
    """Return how a checkpoint of LeRobot's normalises actions, '' where that is not said."""
    path = folder / 'config.json'
    told = json.loads(path.read_text()).get('normalization_mapping') if path.exists() else None
    return str(told.get('ACTION', '')) if isinstance(told, dict) else ''


def _statistics(folder: Path, spec: PolicySpec, data: DataSet) -> dict[str, np.ndarray]:
    """
    Return the statistics of a checkpoint of LeRobot's.

    :raises DataError: it is none, or of another robot.
    """
    files = sorted(folder.glob('policy_preprocessor_step_*_normalizer_processor.safetensors'))
    if not files:
        raise DataError(f"checkpoint '{folder}' has no statistics in LeRobot's files: leave out "
                        '--keep-statistics')
    if (spec.state_width, spec.action_width) != (data.state.shape[1], data.action.shape[1]):
        raise DataError(f'the statistics are of {spec.state_width} states and {spec.action_width} '
                        f'actions, the data set has {data.state.shape[1]} and '
                        f'{data.action.shape[1]}: leave out --keep-statistics')
    return load_file(files[0])


def _split(data: DataSet, settings: Settings) -> tuple[list[int], list[int]]:
    """Return positions of episodes to train on, and of those held out; drawn by the seed."""
    total = len(data.episodes)
    if not 0 <= settings.held_out < 1:
        raise ValueError(f'--held-out is {settings.held_out}, expected 0 to less than 1')
    held = min(round(settings.held_out * total), total - 1) if total >= LEAST_EPISODES else 0
    order = np.random.default_rng(settings.seed).permutation(total).tolist()
    return sorted(order[held:]), sorted(order[:held])


def _version() -> str:
    try:
        return metadata.version('pi0_ros')
    except metadata.PackageNotFoundError:
        return '0.1.0'
