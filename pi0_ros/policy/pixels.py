# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""From camera images to the network's pixels, on the host or on the GPU."""

from collections.abc import Sequence
import logging

import numpy as np
from pi0_ros.observation.images import letterbox, placement, Scaling
import torch
from torch import Tensor
from torch.nn import functional as F

log = logging.getLogger(__name__)
ON_DEVICE = ('lerobot', 'lerobot_0.4', 'lerobot_0.3')  # torch's own resize is what they trained on


def host_buffer(shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return memory of the host; pinned if the device is a GPU, so that copies do not wait."""
    if device.type == 'cuda':
        try:
            return torch.empty(shape, dtype=dtype, pin_memory=True)
        except RuntimeError:  # not every driver and container allows it
            pass
    return torch.empty(shape, dtype=dtype)


class Pixels:
    """Fits images as the trainer did; keeps its memory from call to call."""

    def __init__(self, height: int, width: int, style: str, device: torch.device) -> None:
        """Fit to ``height`` x ``width`` in the letterbox ``style`` for ``device``."""
        self.size, self.style, self.device = (height, width), style, device
        self.on_device = device.type == 'cuda' and style in ON_DEVICE
        self._buffers: dict[tuple, Tensor] = {}
        self._copied: torch.cuda.Event | None = None  # once the last images are on the device

    def __call__(self, images: Sequence[np.ndarray], scalings: Sequence[Scaling | None] = ()
                 ) -> Tensor:
        """
        Return [C, 3, height, width] float32 of [H, W, 3] uint8 RGB images.

        In [-1, 1], but for images with a scaling that are not fitted. The result is overwritten by
        the next call.

        :param scalings: of each image, see ``observation.images``; none if empty.
        """
        scalings = scalings or [None] * len(images)
        if self.on_device:
            out = torch.stack([self.fit(self._upload(i, image), scaling) for i, (image, scaling)
                               in enumerate(zip(images, scalings))])
            self._copied = torch.cuda.Event()
            self._copied.record()
            return out
        out = self._buffer('out', (len(images), 3, *self.size), torch.float32)
        for image, scaling, target in zip(images, scalings, out.numpy()):
            letterbox(image, *self.size, self.style, target, scaling)
        return out

    def check(self) -> None:
        """Fit images on the host from now on if the GPU does it differently."""
        if not self.on_device:
            return
        image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
        try:
            got = self([image])[0].cpu().numpy()
            problem = float(np.abs(got - letterbox(image, *self.size, self.style)).max())
        except RuntimeError as error:
            problem = error
        if isinstance(problem, Exception) or not problem < 1e-3:
            log.warning(f'images are fitted on the processor: the GPU failed ({problem})')
            self.on_device = False

    def _buffer(self, name: object, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        key = (name, shape)
        if key not in self._buffers:
            self._buffers = {old: value for old, value in self._buffers.items() if old[0] != name}
            self._buffers[key] = host_buffer(shape, self.device, dtype)
        return self._buffers[key]

    def _upload(self, slot: int, image: np.ndarray) -> Tensor:
        host = self._buffer(slot, image.shape, torch.uint8)
        if self._copied is not None:  # the one before, for another question, may be under way
            self._copied.synchronize()
        np.copyto(host.numpy(), image)
        return host.to(self.device, non_blocking=True)

    def fit(self, image: Tensor, scaling: Scaling | None = None) -> Tensor:
        """Return [3, height, width] of one [H, W, 3] uint8 image, where the image lies."""
        style = self.style
        new_height, new_width, top, left, border = placement(*image.shape[:2], *self.size, style)
        floats = image.permute(2, 0, 1)[None].float() / 255
        if scaling is not None:
            shift, scale = (torch.tensor(part, dtype=torch.float32, device=image.device)
                            [:, None, None] for part in scaling)
            floats = (floats - shift) * scale
        if tuple(image.shape[:2]) != (new_height, new_width):
            floats = F.interpolate(floats, (new_height, new_width), mode='bilinear',
                                   align_corners=False)
        if tuple(image.shape[:2]) != self.size:  # only what is fitted is clipped there
            floats = floats.clamp(0, 1)
        bottom, right = self.size[0] - new_height - top, self.size[1] - new_width - left
        return F.pad(floats * 2 - 1, (left, right, top, bottom), value=border)[0]
