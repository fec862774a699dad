# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Image decoding and letterbox."""

from pathlib import Path
import re
from types import SimpleNamespace

import cv2
from hypothesis import given
from hypothesis import strategies as st
import numpy as np
from pi0_ros.observation.decoding import compressed_to_rgb, ENCODINGS, raw_to_rgb
from pi0_ros.observation.images import letterbox
from PIL import Image
import pytest
import torch
from torch.nn import functional as F

ROOT = Path(__file__).parents[1]


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def lerobot_letterbox(image, height, width):
    """As LeRobot >= 0.5 does it, in its own framework."""
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    ratio = max(image.shape[1] / width, image.shape[0] / height)
    size = int(image.shape[0] / ratio), int(image.shape[1] / ratio)
    if image.shape[:2] != (height, width):
        tensor = F.interpolate(tensor, size, mode='bilinear', align_corners=False).clamp(0, 1)
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    tensor = F.pad(tensor, (left, width - size[1] - left, top, height - size[0] - top))
    return (tensor * 2 - 1)[0].numpy()


@pytest.mark.parametrize('size', [(480, 640), (240, 320), (720, 1280), (333, 97), (224, 224),
                                  (100, 100)])
def test_letterbox_is_lerobots(size):
    image = picture(*size)
    assert np.abs(letterbox(image, 224, 224) - lerobot_letterbox(image, 224, 224)).max() < 2e-4


@given(height=st.integers(8, 300), width=st.integers(8, 300), size=st.integers(16, 128))
def test_letterbox_keeps_proportions_and_range(height, width, size):
    out = letterbox(np.full((height, width, 3), 255, np.uint8), size, size)
    assert out.shape == (3, size, size) and set(np.unique(out)) <= {-1.0, 1.0}
    rows, columns = (out[0] == 1).any(1).sum(), (out[0] == 1).any(0).sum()
    assert max(rows, columns) == size or max(rows, columns) == size - 1
    assert abs(rows * width - columns * height) <= max(height, width)


def test_letterboxes_of_older_and_other_trainers():
    image = picture(30, 60)
    centred = letterbox(image, 64, 64)
    assert set(np.unique(centred[:, :16])) == {-1.0} == set(np.unique(centred[:, -16:]))
    assert set(np.unique(letterbox(image, 64, 64, 'lerobot_0.4')[:, :16])) == {-3.0}
    left_top = letterbox(image, 64, 64, 'lerobot_0.3')
    np.testing.assert_array_equal(left_top[:, 32:], centred[:, 16:48])
    grey = letterbox(image, 64, 64, 'transformers')
    assert set(np.unique(grey[:, 32:])) == {0.0}
    pillow = Image.fromarray(image).resize((64, 32), Image.Resampling.BILINEAR)
    expected = np.asarray(pillow, np.float32).transpose(2, 0, 1) / 127.5 - 1
    np.testing.assert_allclose(letterbox(image, 64, 64, 'openpi')[:, 16:48], expected, atol=1e-6)


@given(encoding=st.sampled_from(['rgb8', 'bgr8', 'rgba8', 'bgra8', 'mono8']),
       height=st.integers(1, 20), width=st.integers(1, 20), padding=st.integers(0, 9),
       cut=st.booleans())
def test_raw_images_with_padded_rows(encoding, height, width, padding, cut):
    rgb = picture(height, width)
    channels = {'rgb8': rgb, 'bgr8': rgb[..., ::-1], 'mono8': rgb[..., :1],
                'rgba8': np.dstack([rgb, rgb[..., 0]]),
                'bgra8': np.dstack([rgb[..., ::-1], rgb[..., 0]])}[encoding]
    rows = channels.reshape(height, -1)
    data = np.hstack([rows, np.full((height, padding), 77, np.uint8)]).ravel()
    if cut and padding:
        data = data[:-padding]  # some drivers leave the last row unpadded
    expected = np.repeat(rgb[..., :1], 3, axis=2) if encoding == 'mono8' else rgb
    out = raw_to_rgb(data, encoding, height, width, rows.shape[1] + padding)
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize('change, words', [
    ({'encoding': '16SC1'}, "encoding '16SC1' is not supported, expected one of rgb8"),
    ({'encoding': '32FC1'}, "'32FC1' is a depth image, .* give the camera's colour topic"),
    ({'step': 11}, 'needs rows of at least 12 bytes, but step is 11'),
    ({'height': 5}, 'truncated: 48 bytes of 60'),
    ({'width': 0}, 'needs rows')])
def test_bad_raw_images_are_refused(change, words):
    good = {'encoding': 'rgb8', 'height': 4, 'width': 4, 'step': 12}
    with pytest.raises(ValueError, match=words):
        raw_to_rgb(picture(4, 4).ravel(), **{**good, **change})


@pytest.mark.parametrize('ending', ['.jpg', '.png'])
def test_compressed_images(ending):
    smooth = cv2.GaussianBlur(picture(60, 80), (0, 0), 5)
    _, data = cv2.imencode(ending, smooth[..., ::-1])
    out = compressed_to_rgb(data.ravel())
    assert out.shape == smooth.shape
    assert np.abs(out.astype(int) - smooth).mean() < (3 if ending == '.jpg' else 0.01)
    half, zeros = data.ravel()[:len(data) // 2], np.zeros(200, np.uint8)
    for cut in (half, np.concatenate([half, zeros])):
        with pytest.raises(ValueError, match='truncated after'):
            compressed_to_rgb(cut)
    # Drivers of USB cameras pad what they send.
    np.testing.assert_array_equal(compressed_to_rgb(np.concatenate([data.ravel(), zeros])), out)


def test_compressed_image_of_absurd_size_is_refused():
    _, data = cv2.imencode('.png', picture(4, 4))
    data = bytearray(data.tobytes())
    data[16:24] = (60_000).to_bytes(4, 'big') * 2  # width and height in the header
    with pytest.raises(ValueError, match='cannot be decoded'):
        compressed_to_rgb(np.frombuffer(bytes(data), np.uint8))


@given(st.binary(max_size=200))
def test_garbage_is_never_an_image(data):
    with pytest.raises(ValueError):
        compressed_to_rgb(np.frombuffer(data, np.uint8))


@pytest.mark.parametrize('pattern', ['rggb', 'bggr', 'gbrg', 'grbg'])
@pytest.mark.parametrize('padding', [0, 3])
def test_a_bayer_pattern_of_one_colour_is_that_colour(pattern, padding):
    value = {'r': 200, 'g': 100, 'b': 50}
    cell = np.array([value[letter] for letter in pattern], np.uint8).reshape(2, 2)
    rows = np.pad(np.tile(cell, (4, 4)), ((0, 0), (0, padding)), constant_values=7)
    out = raw_to_rgb(rows.ravel(), f'bayer_{pattern}8', 8, 8, 8 + padding)
    np.testing.assert_array_equal(out, np.tile(np.array([200, 100, 50], np.uint8), (8, 8, 1)))


@pytest.mark.parametrize('encoding, order', [('yuv422', 'uyvy'), ('uyvy', 'uyvy'),
                                             ('yuv422_yuy2', 'yuyv'), ('yuyv', 'yuyv')])
def test_yuv_images_are_read_in_their_order(encoding, order):
    value = {'y': 81, 'u': 90, 'v': 240}  # red, by BT.601
    row = np.array([value[letter] for letter in order] * 2, np.uint8)
    out = raw_to_rgb(np.tile(row, 2), encoding, 2, 4, 8)
    assert np.abs(out.astype(int) - [255, 0, 0]).max() <= 2
    with pytest.raises(ValueError, match='5 x 2 .* image cannot be converted'):
        raw_to_rgb(np.zeros(20, np.uint8), encoding, 2, 5, 10)


@pytest.mark.parametrize('big', [False, True])
@pytest.mark.parametrize('padding', [0, 3])
@pytest.mark.parametrize('encoding', [name for name in ENCODINGS if name.endswith('16')])
def test_images_of_16_bits_are_those_of_8(encoding, padding, big):
    """As cv_bridge scales: by 255 / 65535."""
    form = ENCODINGS[encoding]
    small = np.random.default_rng(3).integers(0, 256, (6, 8 * form.channels), np.uint8)
    wide = (small.astype(np.uint16) * 257).astype('>u2' if big else '<u2')
    rows = np.pad(wide.view(np.uint8).reshape(6, -1), ((0, 0), (0, padding)))
    out = raw_to_rgb(rows.ravel(), encoding, 6, 8, rows.shape[1], big)
    expected = raw_to_rgb(small.ravel(), f'{encoding[:-2]}8', 6, 8, small.shape[1])
    np.testing.assert_allclose(out, expected, atol=1 if 'bayer' in encoding else 0)


@pytest.mark.parametrize('encoding, same', [('8UC1', 'mono8'), ('8UC3', 'bgr8'),
                                            ('8UC4', 'bgra8')])
def test_opencvs_own_names_are_read_in_its_order(encoding, same):
    data = np.random.default_rng(4).integers(0, 256, 4 * 24, np.uint8)
    size = {'height': 4, 'width': 5, 'step': 24}
    np.testing.assert_array_equal(raw_to_rgb(data, encoding, **size),
                                  raw_to_rgb(data, same, **size))


@pytest.mark.parametrize('encoding, order', [('nv12', 'uv'), ('nv21', 'vu')])
@pytest.mark.parametrize('padding', [0, 5])
def test_colours_behind_the_image(encoding, order, padding):
    value = {'u': 90, 'v': 240}  # red, by BT.601
    rows = np.full((6, 6 + padding), 81, np.uint8)
    rows[4:, :6] = [value[letter] for letter in order] * 3
    data = rows.ravel()[:rows.size - padding]
    out = raw_to_rgb(data, encoding, 4, 6, 6 + padding)
    assert out.shape == (4, 6, 3) and np.abs(out.astype(int) - [255, 0, 0]).max() <= 2
    with pytest.raises(ValueError, match='truncated'):
        raw_to_rgb(data[:-1], encoding, 4, 6, 6 + padding)
    with pytest.raises(ValueError, match='cannot be converted'):
        raw_to_rgb(data, encoding, 3, 6, 6 + padding)


def test_the_docs_list_the_encodings():
    text = (ROOT / 'docs/interface.md').read_text()
    rows = text[text.index('| encoding | read as |'):text.index('JPEG and PNG by their')]
    listed = re.findall(r'\w+', ' '.join(row.split('|')[1] for row in rows.splitlines()[2:-1]))
    assert sorted(listed) == sorted(ENCODINGS)


@pytest.mark.parametrize('degrees, corner', [(0, (0, 0)), (90, (0, -1)), (180, (-1, -1)),
                                             (270, (-1, 0))])
def test_a_camera_that_is_mounted_turned_is_seen_upright(degrees, corner):
    """What is at the top left goes to this corner when the image is turned clockwise."""
    from pi0_ros.observation.config import InputConfig
    from pi0_ros.observation.streams import Streams
    image = np.zeros((4, 6, 3), np.uint8)
    image[0, 0] = 255
    message = SimpleNamespace(
        header=SimpleNamespace(stamp=SimpleNamespace(sec=1, nanosec=0)), encoding='rgb8', height=4,
        width=6, step=18, is_bigendian=0, data=image.tobytes())
    config = InputConfig(rotate=(0, degrees))
    streams = Streams(('a',), ('top', 'wrist'), config.freshness,
                      turns=config.turns(('top', 'wrist')))
    for name in ('top', 'wrist'):
        streams.put_image(name, message, 10**9)
    streams.put_joints(SimpleNamespace(header=message.header, name=['a'], position=[0.0]), 10**9)
    seen = streams.builder.build(10**9, 'go').images
    np.testing.assert_array_equal(seen['top'], image)
    assert seen['wrist'].shape == ((6, 4, 3) if degrees % 180 else (4, 6, 3))
    assert seen['wrist'][corner].tolist() == [255] * 3 and seen['wrist'].sum() == 3 * 255
    assert streams.cameras['wrist'].get().value.encoding == 'rgb8'
