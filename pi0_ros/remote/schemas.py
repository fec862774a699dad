# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
What a server calls the parts of an observation: aloha, droid and libero as openpi has them.

A schema is a text for each key of the request, a dot for a map inside a map:

    camera NAME[, hwc|chw][, HEIGHTxWIDTH][, openpi|stretch][, uint8|float32]
    state[, FIRST to LAST][, float32|float64]
    instruction

An image without a size goes as it comes; one with a size is fitted with openpi's letterbox, or
stretched. float32 is from 0 to 1. Of a state the numbers FIRST to LAST, LAST included, from 0.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
import re
from typing import Any

import numpy as np
from pi0_ros.observation.images import fitted

CUSTOM, OURS = 'custom', 'pi0_ros'
FITTERS = ThreadPoolExecutor(3, 'fitting')
OPENPI_224 = '224x224'
TEXTS = {
    'aloha': {'state': 'state', 'prompt': 'instruction', **{
        f'images.{name}': f'camera {name}, chw, {OPENPI_224}'
        for name in ('cam_high', 'cam_low', 'cam_left_wrist', 'cam_right_wrist')}},
    'droid': {'observation/joint_position': 'state, 0 to 6',
              'observation/gripper_position': 'state, 7 to 7', 'prompt': 'instruction', **{
                  f'observation/{name}': f'camera {name}, {OPENPI_224}'
                  for name in ('exterior_image_1_left', 'wrist_image_left')}},
    'libero': {'observation/state': 'state', 'prompt': 'instruction', **{
        f'observation/{name}': f'camera {name}, {OPENPI_224}'
        for name in ('image', 'wrist_image')}}}
NAMES = (*TEXTS, OURS, CUSTOM)
SIZE = re.compile(r'(\d{1,4})x(\d{1,4})')
PART = re.compile(r'(\d{1,3}) to (\d{1,3})')


@dataclass(frozen=True)
class Image:
    """One image of a request."""

    camera: str
    first: bool = False                     # channels first, CHW
    size: tuple[int, int] | None = None     # height, width; None: as it comes
    style: str = 'openpi'                   # how it is fitted, see ``images.fitted``
    floats: bool = False                    # 0 to 1, float32; else uint8

    def packed(self, image: np.ndarray) -> np.ndarray:
        """Return what is sent of an [H, W, 3] uint8 RGB image."""
        if self.size is not None:
            image = fitted(image, *self.size, self.style)
        if self.floats:
            image = image.astype(np.float32) / 255
        return np.ascontiguousarray(image.transpose(2, 0, 1) if self.first else image)

    def unpacked(self, image: np.ndarray) -> np.ndarray:
        """
        Return an [H, W, 3] uint8 RGB image of what came; channels first are told by the shape.

        As openpi's ``_parse_image`` does it.

        :raises ValueError: it is no image.
        """
        if image.ndim != 3 or 3 not in (image.shape[0], image.shape[2]) or not image.size:
            raise ValueError(f"camera '{self.camera}' has shape {list(image.shape)}, expected "
                             '[height, width, 3] or [3, height, width]')
        if image.dtype.kind == 'f':
            if not np.isfinite(image).all():
                raise ValueError(f"camera '{self.camera}' has values that are not finite")
            image = (255 * np.clip(image, 0, 1)).astype(np.uint8)
        if image.dtype != np.uint8:
            raise ValueError(f"camera '{self.camera}' is {image.dtype}, expected uint8, or float "
                             'from 0 to 1')
        if image.shape[2] != 3 or (self.first and image.shape[0] == 3):
            image = image.transpose(1, 2, 0)
        return np.ascontiguousarray(image)


@dataclass(frozen=True)
class Numbers:
    """A part of the state."""

    first: int = 0
    last: int | None = None  # None: to the end
    kind: str = 'float64'

    @property
    def part(self) -> slice:
        """Return the numbers that are meant."""
        return slice(self.first, None if self.last is None else self.last + 1)


@dataclass(frozen=True)
class Schema:
    """What goes under which key, a path of keys."""

    images: Mapping[tuple[str, ...], Image]
    states: Mapping[tuple[str, ...], Numbers]
    instruction: tuple[str, ...] | None

    @property
    def cameras(self) -> tuple[str, ...]:
        """Return the names of the cameras."""
        return tuple(image.camera for image in self.images.values())

    def request(self, state: np.ndarray, images: Mapping[str, np.ndarray], instruction: str
                ) -> dict[str, Any]:
        """Return the request; cameras that are not there are left out."""
        out: dict[str, Any] = {}
        for path, numbers in self.states.items():
            _put(out, path, state[numbers.part].astype(numbers.kind))
        there = [(path, image) for path, image in self.images.items() if image.camera in images]
        # Pillow lets others work while it fits one.
        for (path, _), fitted_one in zip(there, FITTERS.map(
                lambda one: one[1].packed(images[one[1].camera]), there)):
            _put(out, path, fitted_one)
        if self.instruction:
            _put(out, self.instruction, instruction)
        return out

    def observation(self, request: Mapping[str, Any]
                    ) -> tuple[np.ndarray, dict[str, np.ndarray], str]:
        """
        Return state, images by camera, and instruction of a request.

        :raises ValueError: something is missing or of another kind.
        """
        parts = []
        for path, numbers in self.states.items():
            value = np.asarray(_get(request, path, required=True))
            if value.dtype.kind not in 'fiu' or value.ndim > 1 or not np.isfinite(value).all():
                raise ValueError(f"'{'.'.join(path)}' is {value.dtype} {list(value.shape)}, "
                                 'expected one row of finite numbers')
            parts.append((numbers.first, np.atleast_1d(value).astype(float)))
        state = np.concatenate([value for _, value in sorted(parts, key=lambda one: one[0])]
                               or [np.zeros(0)])
        images = {}
        for path, image in self.images.items():
            value = _get(request, path)
            if value is not None:
                if not isinstance(value, np.ndarray):
                    raise ValueError(f"'{'.'.join(path)}' is no array")
                images[image.camera] = image.unpacked(value)
        text = _get(request, self.instruction, required=True) if self.instruction else ''
        text = text.decode(errors='replace') if isinstance(text, bytes) else text
        if isinstance(text, (np.ndarray, np.generic)) and np.asarray(
                text).dtype.kind in 'SU' and np.asarray(text).size == 1:
            text = str(np.asarray(text).astype(str).item())
        if not isinstance(text, str):
            raise ValueError(f"'{'.'.join(self.instruction)}' is {text!r:.80}, expected text")
        return state, images, text


def parse(texts: Sequence[str]) -> Schema:
    """
    Return the schema of ``KEY: TEXT`` lines, see this module.

    :raises ValueError: a text says something else.
    """
    images, states, instruction = {}, {}, None
    for line in texts:
        key, _, text = line.partition(': ')
        path, words = tuple(key.split('.')), [word.strip() for word in text.split(',')]
        kind, _, name = words[0].partition(' ')
        if kind == 'camera' and name:
            images[path] = _image(name.strip(), words[1:], line)
        elif words[0] == 'state':
            states[path] = _numbers(words[1:], line)
        elif words == ['instruction']:
            instruction = path
        else:
            raise ValueError(f"'server_map' has '{line}', expected 'camera NAME', 'state' or "
                             "'instruction', and what is said of them in docs/remote.md")
    if not images or not states:
        raise ValueError(f"'server_map' needs a camera and a state, it has "
                         f"{'; '.join(texts) or 'nothing'}")
    return Schema(images, states, instruction)


def named(name: str, texts: Sequence[str] = ()) -> Schema:
    """Return a schema by its name. :param texts: of ``custom``."""
    if name == CUSTOM:
        return parse(texts)
    return parse([f'{key}: {text}' for key, text in TEXTS[name].items()])


def ours(cameras: Sequence[str], size: tuple[int, int] | None = None, style: str = 'openpi'
         ) -> Schema:
    """
    Return the schema of a server of this package.

    :param size: to which images are fitted before they are sent; None: as they come.
    """
    return Schema({('images', name): Image(name, False, size, style) for name in cameras},
                  {('state',): Numbers()}, ('prompt',))


def _image(camera: str, words: Sequence[str], line: str) -> Image:
    given = {'size': None}
    for word in words:
        size = SIZE.fullmatch(word)
        if size:
            given['size'] = int(size.group(1)), int(size.group(2))
        elif word in ('hwc', 'chw'):
            given['first'] = word == 'chw'
        elif word in ('openpi', 'stretch'):
            given['style'] = word
        elif word in ('uint8', 'float32'):
            given['floats'] = word == 'float32'
        else:
            raise ValueError(f"'server_map' has '{word}' in '{line}', expected hwc, chw, "
                             'HEIGHTxWIDTH, openpi, stretch, uint8 or float32')
    return Image(camera, **given)


def _numbers(words: Sequence[str], line: str) -> Numbers:
    first, last, kind = 0, None, 'float64'
    for word in words:
        ends = PART.fullmatch(word)
        if ends:
            first, last = int(ends.group(1)), int(ends.group(2))
        elif word in ('float32', 'float64'):
            kind = word
        else:
            raise ValueError(f"'server_map' has '{word}' in '{line}', expected FIRST to LAST, "
                             'float32 or float64')
    return Numbers(first, last, kind)


def _put(tree: dict, path: Sequence[str], value: object) -> None:
    for key in path[:-1]:
        tree = tree.setdefault(key, {})
    tree[path[-1]] = value


def _get(tree: Any, path: Sequence[str], required: bool = False) -> Any:
    for key in path:
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    if tree is None and required:
        raise ValueError(f"the request lacks '{'.'.join(path)}'")
    return tree
