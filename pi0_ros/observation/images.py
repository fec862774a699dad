"""Camera images as the network wants them: RGB, letterboxed, in [-1, 1]."""

from functools import lru_cache

import numpy as np
from PIL import Image

PAD = {'lerobot_0.4': -3.0, 'transformers': 0.0}  # of the border, where it is not black (-1)
PILLOW = {'openpi': Image.Resampling.BILINEAR, 'transformers': Image.Resampling.BICUBIC}


@lru_cache(maxsize=16)
def _taps(size: int, new_size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the two source indices and the weight of the second for every output sample."""
    scale = np.float32(size / new_size)
    position = np.maximum((np.arange(new_size, dtype=np.float32) + np.float32(0.5)) * scale
                          - np.float32(0.5), np.float32(0))
    low = position.astype(np.int64)
    return low, np.minimum(low + 1, size - 1), position - low.astype(np.float32)


def resize_bilinear(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize without antialiasing, as torch's ``interpolate(mode='bilinear')`` does.

    :param image: [H, W, C] uint8.
    :returns: [height, width, C] float32 in the same 0 to 255 range, not rounded. Only the pixels
        that count are read, so the cost follows the output's size.
    """
    top, bottom, down = _taps(image.shape[0], height)
    left, right, across = _taps(image.shape[1], width)
    rows = np.stack([image[top], image[bottom]])  # [2, height, W, C]
    first, second = rows[:, :, left].astype(np.float32), rows[:, :, right].astype(np.float32)
    across, down = across[:, None], down[:, None, None]
    blended = first * (1 - across) + second * across
    return blended[0] * (1 - down) + blended[1] * down


def letterbox(image: np.ndarray, height: int, width: int, style: str = 'lerobot') -> np.ndarray:
    """Fit an RGB image into ``height`` x ``width`` without distortion, as the trainer did.

    The longer side decides the ratio and the new size is truncated. lerobot (>= 0.5,
    ``common/vla_utils.py``): bilinear without antialias, centred on black. lerobot_0.4: on -3.
    lerobot_0.3: at the right and bottom. openpi (``image_tools.py``): Pillow's antialiased
    bilinear on uint8, centred. transformers: Pillow's bicubic, at the top left, on grey.

    :param image: [H, W, 3] uint8 RGB.
    :returns: [3, height, width] float32 in [-1, 1].
    """
    ratio = max(image.shape[1] / width, image.shape[0] / height)
    new_height = max(1, int(image.shape[0] / ratio))
    new_width = max(1, int(image.shape[1] / ratio))
    if image.shape[:2] == (height, width):
        resized = image.astype(np.float32)
    elif style in PILLOW:
        picture = Image.fromarray(image).resize((new_width, new_height), PILLOW[style])
        resized = np.asarray(picture, np.float32)
    else:
        resized = resize_bilinear(image, new_height, new_width)
    out = np.full((3, height, width), PAD.get(style, -1.0), np.float32)
    spare_height, spare_width = height - new_height, width - new_width
    top, left = {'lerobot_0.3': (spare_height, spare_width), 'transformers': (0, 0)}.get(
        style, (spare_height // 2, spare_width // 2))
    out[:, top:top + new_height, left:left + new_width] = (
        resized.transpose(2, 0, 1) * np.float32(2 / 255) - np.float32(1))
    return out
