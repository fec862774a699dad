# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""From frames of a data set to what the network reads, by the rules of its checkpoint."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
import threading

import numpy as np
from pi0_ros.checkpoint.normalise import lerobot_normaliser, Normaliser
from pi0_ros.checkpoint.spec import PI05, PolicySpec
from pi0_ros.dataset.reader import ACTION, DataError, DataSet, Item, STATE
from pi0_ros.dataset.relative import relative_mask, relative_statistics
from pi0_ros.finetune.flow import Batch
from pi0_ros.policy.pixels import Pixels
from pi0_ros.policy.prompt import prompt_ids
from tokenizers import Tokenizer
import torch
from torch import Tensor
from torch.nn import functional as F

MODES = {PI05: 'QUANTILES'}  # of LeRobot's configuration; mean and deviation elsewhere


@dataclass(frozen=True)
class Meaning:
    """What the numbers and images of a data set mean to the network that is trained on it."""

    spec: PolicySpec                    # of the checkpoint, with this data
    mode: str                           # of normalisation, as LeRobot calls it
    statistics: Mapping[str, np.ndarray]  # such as action.mean
    exclude: tuple[str, ...]            # what names of actions contain that are not relative
    state: Normaliser                   # forward, of the raw state
    action: Normaliser                  # forward, of absolute or relative actions


def adopt(spec: PolicySpec, data: DataSet, cameras: Sequence[str], length: int,
          relative: bool | None, exclude: Sequence[str] | None, mode: str = '',
          statistics: Mapping[str, np.ndarray] | None = None) -> Meaning:
    """
    Return what a data set means to the network of a checkpoint.

    Names, widths, rate and statistics are the data set's, as when LeRobot fine-tunes.

    :param cameras: of the data set, in the order of the network's slots; none: those of the
        checkpoint if the data set has all of them, else all of the data set's in its order.
    :param relative: whether actions are relative to the state; None: as the checkpoint has it.
    :param exclude: parts of names of actions that are not; None: those of the checkpoint if it has
        relative ones, else grippers.
    :param statistics: instead of the data set's.
    :raises DataError: a camera, statistic or name is missing.
    """
    unknown = [name for name in cameras if name not in data.cameras]
    if unknown:
        raise DataError(f"the data set has no camera '{unknown[0]}', it has "
                        f"{', '.join(data.cameras)}")
    named = tuple(cameras) or (spec.cameras if set(spec.cameras) <= set(data.cameras)
                               else data.cameras)
    wide, width = data.state.shape[1], data.action.shape[1]
    names = data.names(ACTION)
    relative = bool(spec.relative.any()) if relative is None else relative
    if relative and exclude is None and spec.relative.any() and len(spec.relative) == width:
        mask = spec.relative
        exclude = [names[at].lower() for at in np.flatnonzero(~mask)] if names else []
    else:
        exclude = ('gripper',) if exclude is None else exclude
        mask = relative_mask(names, exclude, width) if relative else np.zeros(width, bool)
    if statistics is not None and (not np.array_equal(mask, spec.relative) or (
            spec.action_names and names and names != spec.action_names)):
        raise DataError("the checkpoint's statistics are of other actions ("
                        f"{', '.join(spec.action_names or ())}; {int(spec.relative.sum())} of "
                        'them relative): leave out --keep-statistics')
    if mask.any() and wide < width:
        raise DataError(f'{width} actions cannot be relative to a state of {wide} numbers')
    if statistics is None:
        statistics = data.statistics()
        if relative:
            statistics |= relative_statistics(data, mask, length)
    mode = mode or MODES.get(spec.network, 'MEAN_STD')
    state = lerobot_normaliser(mode, STATE, statistics, wide)
    action = lerobot_normaliser(mode, ACTION, statistics, width)
    return Meaning(
        replace(spec, cameras=named, state_width=wide, action_width=width, state=state,
                action=action, state_names=data.names(STATE) or None,
                action_names=data.names(ACTION) or None, widths_recorded=True, relative=mask,
                chunk_length=length, dt_s=1 / data.fps, renamed={}, pixels={},
                # As it is written: who reads it again must see what was trained.
                letterbox='lerobot', prompt=PI05 if spec.network == PI05 else 'lerobot',
                action_offset=data.action_offset, velocity=None, layout='LeRobot'),
        mode, statistics, tuple(exclude), state, action)


class Inputs:
    """Makes batches."""

    def __init__(self, meaning: Meaning, tokenizer: Tokenizer, image_token: int,
                 image_tokens: int, padded: tuple[int, int], cache_bytes: int = 0) -> None:
        """
        Prepare them.

        :param image_token: the id that stands for a piece of an image.
        :param image_tokens: pieces of each. :param padded: widths of state and actions that the
            network reads. :param cache_bytes: of fitted images that are kept.
        :raises DataError: the data is wider than the network.
        """
        spec = meaning.spec
        for what, width, most in (('state', spec.state_width, padded[0]),
                                  ('action', spec.action_width, padded[1])):
            if width > most:
                raise DataError(f'{what} has {width} numbers in the data set, the network reads '
                                f'{most} at most')
        self.meaning, self._tokenizer, self._padded = meaning, tokenizer, padded
        self.image_token, self._image_tokens = image_token, image_tokens
        self._mine = threading.local()  # memory of each thread that makes batches
        self._kept: dict[tuple[int, str], Tensor] = {}
        self._limit = cache_bytes

    def batch(self, items: Sequence[Item]) -> Batch:
        """Return the batch of ``items``; no image is missing in a data set."""
        spec = self.meaning.spec
        images = torch.stack([torch.stack([self._fitted(one, name) for name in spec.cameras])
                              for one in items])
        states = np.stack([one.state for one in items]).astype(np.float32)
        actions = np.stack([one.actions for one in items]).astype(np.float32)
        relative = np.flatnonzero(spec.relative)
        actions[:, :, relative] -= states[:, None, relative]
        prompts = [self._prompt(one.task, state) for one, state in zip(items, states)]
        shown = len(spec.cameras) * self._image_tokens
        ids = torch.zeros(len(items), shown + max(map(len, prompts)), dtype=torch.long)
        mask = torch.zeros_like(ids)
        ids[:, :shown] = self.image_token
        for row, prompt in enumerate(prompts):
            ids[row, shown:shown + len(prompt)] = torch.tensor(prompt)
            mask[row, :shown + len(prompt)] = 1
        return Batch(images, torch.ones(images.shape[:2], dtype=torch.bool), ids, mask,
                     self._widened(self.meaning.state, states, self._padded[0]),
                     self._widened(self.meaning.action, actions, self._padded[1]))

    def fill(self, items: Iterable[Item]) -> None:
        """Fit the images of frames in order, which is much faster than in any other."""
        for item in items:
            for name in self.meaning.spec.cameras:
                self._fitted(item, name)

    @property
    def image_bytes(self) -> int:
        """Return what a fitted image takes."""
        return 4 * 3 * int(np.prod(self.meaning.spec.image_size))

    def _fitted(self, item: Item, camera: str) -> Tensor:
        """Return an image as the network reads it [3, H, W]; kept while there is room."""
        key = item.index, camera
        found = self._kept.get(key) if item.index >= 0 else None
        if found is not None:
            return found
        if not hasattr(self._mine, 'pixels'):
            spec = self.meaning.spec
            self._mine.pixels = Pixels(*spec.image_size, spec.letterbox, torch.device('cpu'))
        fitted = self._mine.pixels([item.images[camera]])[0].clone()
        if item.index >= 0 and (len(self._kept) + 1) * self.image_bytes <= self._limit:
            self._kept[key] = fitted
        return fitted

    def _prompt(self, task: str, state: np.ndarray) -> list[int]:
        spec = self.meaning.spec
        digits = self.meaning.state.digits(state).tolist() if spec.network == PI05 else ()
        return prompt_ids(self._tokenizer, task, spec.prompt, digits)[:spec.max_prompt_tokens]

    @staticmethod
    def _widened(normaliser: Normaliser, values: np.ndarray, width: int) -> Tensor:
        """Return normalised values, as the trainer computes them, with zeros behind."""
        rows = torch.from_numpy(np.asarray(normaliser.trained(values), np.float32))
        return F.pad(rows, (0, width - rows.shape[-1]))
