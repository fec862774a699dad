"""From the bytes of an image message to RGB, without ROS types."""

from typing import Any

import cv2
import numpy as np

SECOND_NS = 1_000_000_000

# Bytes of a pixel, by sensor_msgs/image_encodings.hpp.
CHANNELS = {'rgb8': 3, 'bgr8': 3, 'rgba8': 4, 'bgra8': 4, 'mono8': 1,
            'bayer_rggb8': 1, 'bayer_bggr8': 1, 'bayer_gbrg8': 1, 'bayer_grbg8': 1,
            'yuv422': 2, 'uyvy': 2, 'yuv422_yuy2': 2, 'yuyv': 2}
_TO_RGB = {'bgr8': cv2.COLOR_BGR2RGB, 'rgba8': cv2.COLOR_RGBA2RGB, 'bgra8': cv2.COLOR_BGRA2RGB,
           'mono8': cv2.COLOR_GRAY2RGB, 'bayer_rggb8': cv2.COLOR_BayerRGGB2RGB,
           'bayer_bggr8': cv2.COLOR_BayerBGGR2RGB, 'bayer_gbrg8': cv2.COLOR_BayerGBRG2RGB,
           'bayer_grbg8': cv2.COLOR_BayerGRBG2RGB, 'yuv422': cv2.COLOR_YUV2RGB_UYVY,
           'uyvy': cv2.COLOR_YUV2RGB_UYVY, 'yuv422_yuy2': cv2.COLOR_YUV2RGB_YUY2,
           'yuyv': cv2.COLOR_YUV2RGB_YUY2}


def raw_to_rgb(data: np.ndarray, encoding: str, height: int, width: int, step: int) -> np.ndarray:
    """Return the image as [height, width, 3] uint8 RGB.

    :param data: the message's bytes, [height * step] uint8; rows may be padded at the end.
    :raises ValueError: the encoding is not supported, or the sizes do not fit together.
    """
    channels = CHANNELS.get(encoding)
    if channels is None:
        raise ValueError(f"image encoding '{encoding}' is not supported, expected one of "
                         f"{', '.join(CHANNELS)}: convert it, for example with image_proc")
    if height < 1 or width < 1 or step < width * channels:
        raise ValueError(f'a {width} x {height} {encoding} image needs rows of at least '
                         f'{width * channels} bytes, but step is {step}')
    if len(data) < height * step - (step - width * channels):
        raise ValueError(f'image is truncated: {len(data)} bytes of {height * step}')
    rows = np.lib.stride_tricks.as_strided(data, (height, width * channels), (step, 1),
                                           writeable=False)
    pixels = rows.reshape(height, width, channels)
    if encoding == 'rgb8':
        return np.ascontiguousarray(pixels)
    try:
        return cv2.cvtColor(np.ascontiguousarray(pixels), _TO_RGB[encoding])
    except cv2.error as error:  # for example an odd width, where two pixels share a colour
        raise ValueError(f'a {width} x {height} {encoding} image cannot be converted') from error


def compressed_to_rgb(data: np.ndarray) -> np.ndarray:
    """Return a JPEG or PNG image as [H, W, 3] uint8 RGB.

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


def message_to_rgb(message: Any) -> np.ndarray:
    """Return an Image or CompressedImage, or an object with its fields, as [H, W, 3] uint8 RGB.

    :raises ValueError: the message cannot be read.
    """
    data = np.frombuffer(message.data, np.uint8)
    if hasattr(message, 'format'):
        return compressed_to_rgb(data)
    return raw_to_rgb(data, message.encoding, message.height, message.width, message.step)
