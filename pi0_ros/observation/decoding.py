# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""From the bytes of an image message to RGB, without ROS types."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

SECOND_NS = 1_000_000_000


@dataclass(frozen=True)
class Encoding:
    """How the pixels of an image are written."""

    channels: int
    to_rgb: int | None = None  # OpenCV's conversion
    kind: str = 'u1'
    half_rows: int = 2         # for each row of the image: colours may come behind it

    @property
    def pixel_bytes(self) -> int:
        """Return how many bytes of a row a pixel has."""
        return self.channels * np.dtype(self.kind).itemsize


_PLAIN = {'rgb': (3,), 'bgr': (3, cv2.COLOR_BGR2RGB), 'rgba': (4, cv2.COLOR_RGBA2RGB),
          'bgra': (4, cv2.COLOR_BGRA2RGB), 'mono': (1, cv2.COLOR_GRAY2RGB),
          'bayer_rggb': (1, cv2.COLOR_BayerRGGB2RGB), 'bayer_bggr': (1, cv2.COLOR_BayerBGGR2RGB),
          'bayer_gbrg': (1, cv2.COLOR_BayerGBRG2RGB), 'bayer_grbg': (1, cv2.COLOR_BayerGRBG2RGB)}
# By the names of sensor_msgs/image_encodings.hpp, and nv12, which is missing there.
ENCODINGS = {
    **{f'{name}8': Encoding(*form) for name, form in _PLAIN.items()},
    **{f'{name}16': Encoding(*form, **{'kind': 'u2'}) for name, form in _PLAIN.items()},
    # Drivers that know no better say what OpenCV calls an image, in the order it has.
    '8UC1': Encoding(1, cv2.COLOR_GRAY2RGB), '8UC3': Encoding(3, cv2.COLOR_BGR2RGB),
    '8UC4': Encoding(4, cv2.COLOR_BGRA2RGB),
    **dict.fromkeys(('yuv422', 'uyvy'), Encoding(2, cv2.COLOR_YUV2RGB_UYVY)),
    **dict.fromkeys(('yuv422_yuy2', 'yuyv'), Encoding(2, cv2.COLOR_YUV2RGB_YUY2)),
    'nv12': Encoding(1, cv2.COLOR_YUV2RGB_NV12, half_rows=3),
    'nv21': Encoding(1, cv2.COLOR_YUV2RGB_NV21, half_rows=3)}
DEPTH = ('16UC1', '32FC1')
IS_DEPTH = "'{}' is a depth image, which the policy cannot use: give the camera's colour topic"


def raw_to_rgb(data: np.ndarray, encoding: str, height: int, width: int, step: int,
               is_bigendian: bool = False) -> np.ndarray:
    """
    Return the image as [height, width, 3] uint8 RGB.

    :param data: the message's bytes, uint8; rows of ``step``, which may be padded at the end.
    :param is_bigendian: whether values of 16 bits have their high byte first.
    :raises ValueError: the encoding is not supported, or the sizes do not fit together.
    """
    form = ENCODINGS.get(encoding)
    if form is None:
        raise ValueError(IS_DEPTH.format(encoding) if encoding in DEPTH else
                         f"image encoding '{encoding}' is not supported, expected one of "
                         f"{', '.join(ENCODINGS)}: convert it, for example with image_proc")
    row = width * form.pixel_bytes
    if height < 1 or width < 1 or step < row:
        raise ValueError(f'a {width} x {height} {encoding} image needs rows of at least {row} '
                         f'bytes, but step is {step}')
    count = height * form.half_rows // 2
    if len(data) < count * step - (step - row):
        raise ValueError(f'image is truncated: {len(data)} bytes of {count * step}')
    rows = np.lib.stride_tricks.as_strided(data, (count, row), (step, 1), writeable=False)
    pixels = np.ascontiguousarray(rows)
    if form.kind == 'u2':
        pixels = pixels.view('>u2' if is_bigendian else '<u2').astype(np.uint16, copy=False)
    if form.channels > 1:
        pixels = pixels.reshape(count, width, form.channels)
    try:
        if form.to_rgb is not None:
            pixels = cv2.cvtColor(pixels, form.to_rgb)
    except cv2.error as error:  # for example an odd width, where two pixels share a colour
        raise ValueError(f'a {width} x {height} {encoding} image cannot be converted') from error
    return pixels if form.kind == 'u1' else cv2.convertScaleAbs(pixels, alpha=255 / 65535)


def compressed_to_rgb(data: np.ndarray) -> np.ndarray:
    """
    Return a JPEG or PNG image as [H, W, 3] uint8 RGB.

    :raises ValueError: the bytes are not a whole JPEG or PNG.
    """
    jpeg = data[:2].tobytes() == b'\xff\xd8'
    png = data[:8].tobytes() == b'\x89PNG\r\n\x1a\n'
    if not (jpeg or png):
        raise ValueError(f'compressed image starts with {data[:4].tobytes()!r}, which is neither '
                         'JPEG nor PNG')
    # OpenCV fills what a truncated file lacks with grey instead of failing.
    written = data[:len(data) - int(np.argmax(data[::-1] != 0))]  # drivers pad with zeros
    tail = written[-32:].tobytes()
    if (jpeg and b'\xff\xd9' not in tail) or (png and b'IEND' not in tail):
        raise ValueError(f'compressed image is truncated after {len(data)} bytes')
    try:
        image = cv2.imdecode(data, cv2.IMREAD_COLOR)
    except cv2.error:  # for example a size in the header that no memory holds
        image = None
    if image is None:
        raise ValueError(f'compressed image of {len(data)} bytes cannot be decoded')
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def to_ns(stamp: Any) -> int:
    """Return the stamp of a message, an object with sec and nanosec, in nanoseconds."""
    return stamp.sec * SECOND_NS + stamp.nanosec


class Turned:
    """A message of a camera that is mounted turned; its fields are the message's."""

    def __init__(self, message: Any, quarters: int) -> None:
        """Turn what ``message`` shows clockwise, by so many right angles."""
        self.message, self.quarters = message, quarters

    def __getattr__(self, name: str) -> Any:
        """Return a field of the message."""
        return getattr(self.message, name)

    def upright(self, image: np.ndarray) -> np.ndarray:
        """Return the decoded ``image`` [H, W, 3] as it should be seen."""
        return np.ascontiguousarray(np.rot90(image, -self.quarters))


def turned(message: Any, quarters: int) -> Any:
    """Return ``message``, or with ``quarters`` what is decoded turned by so many right angles."""
    return Turned(message, quarters) if quarters else message


def message_to_rgb(message: Any) -> np.ndarray:
    """
    Return an Image or CompressedImage, or an object with its fields, as [H, W, 3] uint8 RGB.

    :raises ValueError: the message cannot be read.
    """
    if isinstance(message, Turned):
        return message.upright(message_to_rgb(message.message))
    data = np.frombuffer(message.data, np.uint8)
    if hasattr(message, 'format'):
        if 'compressedDepth' in message.format:
            raise ValueError(IS_DEPTH.format(message.format))
        return compressed_to_rgb(data)
    return raw_to_rgb(data, message.encoding, message.height, message.width, message.step,
                      bool(message.is_bigendian))
