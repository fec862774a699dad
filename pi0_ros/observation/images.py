# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Camera images as the network wants them: RGB, letterboxed, in [-1, 1]."""

import cv2
import numpy as np
from PIL import Image

# Values in [0, 1] become (value - shift) * scale, both [3]: what training made of images.
Scaling = tuple[np.ndarray, np.ndarray]
PAD = {'lerobot_0.4': -3.0, 'transformers': 0.0}  # of the border, where it is not black (-1)
FITTED = ('openpi', 'lerobot', 'lerobot_0.3', 'stretch')  # whose border is black
PILLOW = {'openpi': Image.BILINEAR, 'transformers': Image.BICUBIC}


def placement(image_height: int, image_width: int, height: int, width: int, style: str
              ) -> tuple[int, int, int, int, float]:
    """
    Return where a letterbox puts an image: new height and width, top, left, border's value.

    The longer side decides the ratio and the new size is truncated.
    """
    ratio = max(image_width / width, image_height / height)
    new_height, new_width = max(1, int(image_height / ratio)), max(1, int(image_width / ratio))
    spare_height, spare_width = height - new_height, width - new_width
    top, left = {'lerobot_0.3': (spare_height, spare_width), 'transformers': (0, 0)}.get(
        style, (spare_height // 2, spare_width // 2))
    return new_height, new_width, top, left, PAD.get(style, -1.0)


def fitted(image: np.ndarray, height: int, width: int, style: str) -> np.ndarray:
    """
    Fit an RGB image as ``letterbox`` does, in whole grey levels, to be sent somewhere.

    openpi's is exact; lerobot's loses what is between grey levels. stretch is no letterbox: the
    whole image, distorted.

    :param image: [H, W, 3] uint8 RGB. :param style: one of FITTED.
    :returns: [height, width, 3] uint8.
    """
    if image.shape[:2] == (height, width):
        return image
    if style == 'stretch':
        return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    new_height, new_width, top, left, _ = placement(*image.shape[:2], height, width, style)
    if style in PILLOW:
        resized = np.asarray(Image.fromarray(image).resize((new_width, new_height), PILLOW[style]))
    else:
        resized = np.rint(cv2.resize(image.astype(np.float32), (new_width, new_height),
                                     interpolation=cv2.INTER_LINEAR))
    out = np.zeros((height, width, 3), np.uint8)
    out[top:top + new_height, left:left + new_width] = resized
    return out


def letterbox(image: np.ndarray, height: int, width: int, style: str = 'lerobot',
              out: np.ndarray | None = None, scaling: Scaling | None = None) -> np.ndarray:
    """
    Fit an RGB image into ``height`` x ``width`` without distortion, as the trainer did.

    lerobot (>= 0.5, ``common/vla_utils.py``): bilinear without antialias, centred on black.
    lerobot_0.4: on -3. lerobot_0.3: at the right and bottom. openpi (``image_tools.py``): Pillow's
    antialiased bilinear on uint8, centred. transformers: Pillow's bicubic, at the top left, on
    grey.

    :param image: [H, W, 3] uint8 RGB.
    :param out: where to write, [3, height, width] float32; a new array if None.
    :param scaling: of values in [0, 1] before all else, for a lerobot style.
    :returns: [3, height, width] float32 in [-1, 1].
    """
    new_height, new_width, top, left, border = placement(*image.shape[:2], height, width, style)
    if scaling is not None:
        scaled = (image.astype(np.float32) / 255 - scaling[0]) * scaling[1] * 255
        resized = cv2.resize(scaled.astype(np.float32), (new_width, new_height),
                             interpolation=cv2.INTER_LINEAR)
        if image.shape[:2] != (height, width):  # only what is fitted is clipped there
            resized = resized.clip(0, 255)
    elif image.shape[:2] == (new_height, new_width):
        resized = image.astype(np.float32)
    elif style in PILLOW:
        picture = Image.fromarray(image).resize((new_width, new_height), PILLOW[style])
        resized = np.asarray(picture, np.float32)
    else:  # on float32, within 1/40 grey level of torch: on uint8 OpenCV rounds
        resized = cv2.resize(image.astype(np.float32), (new_width, new_height),
                             interpolation=cv2.INTER_LINEAR)
    if out is None:
        out = np.empty((3, height, width), np.float32)
    if (new_height, new_width) != (height, width):
        out[:] = border
    picture = out[:, top:top + new_height, left:left + new_width]
    np.multiply(resized.transpose(2, 0, 1), np.float32(2 / 255), out=picture)
    picture -= np.float32(1)
    return out
