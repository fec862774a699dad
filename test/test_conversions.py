# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""ROS messages to and from the core's types."""

import sys
import types

from hypothesis import given, strategies as st
import numpy as np
from pi0_ros.motion.trajectory import Trajectory
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')

from pi0_ros.observation.decoding import (ENCODINGS, raw_to_rgb, SECOND_NS,  # noqa: E402, I100
                                          to_ns)
from pi0_ros.ros.links import conversions  # noqa: E402
from sensor_msgs.msg import CompressedImage, Image  # noqa: E402
from support import chunk, MS  # noqa: E402

PAIRS = [name for name in ENCODINGS if name.startswith(('yu', 'uy', 'nv'))]


def fake_cv_bridge(monkeypatch, convert):
    class CvBridge:

        def imgmsg_to_cv2(self, message, encoding):
            return convert(message, encoding)

    monkeypatch.setitem(sys.modules, 'cv_bridge', types.SimpleNamespace(CvBridge=CvBridge))


def image(encoding='rgb8', height=3, width=5, padding=0):
    pairs, form = encoding in PAIRS, ENCODINGS[encoding]  # of pixels that share a colour
    width, height = width + pairs * width % 2, height + pairs * height % 2
    step = width * form.pixel_bytes + padding * np.dtype(form.kind).itemsize
    data = np.random.default_rng(1).integers(0, 256, height * form.half_rows // 2 * step, np.uint8)
    return Image(height=height, width=width, encoding=encoding, step=step, data=data.tobytes())


def test_broken_cv_bridge_is_not_used_and_said(monkeypatch):
    def numpy_abi(message, encoding):
        raise AttributeError('_ARRAY_API not found')

    for convert, words in ((numpy_abi, '_ARRAY_API not found'),
                           (lambda message, encoding: np.zeros((1, 1, 3)), 'converts wrongly')):
        fake_cv_bridge(monkeypatch, convert)
        bridge, note = conversions.load_cv_bridge()
        assert bridge is None and words in note and 'by pi0_ros itself' in note


def test_missing_cv_bridge_is_not_used(monkeypatch):
    monkeypatch.setitem(sys.modules, 'cv_bridge', None)
    assert conversions.load_cv_bridge()[0] is None


def cut_by_pixels(message, encoding):
    """Convert as the Python part of cv_bridge does: rows are so many whole pixels."""
    known = {'mono16': (np.uint16, 1), '16UC3': (np.uint16, 3), 'rgb8': (np.uint8, 3)}
    if message.encoding not in known:
        raise RuntimeError('no conversion')
    kind, channels = known[message.encoding]
    size = np.dtype(kind).itemsize
    row = message.step // size // channels
    data = np.frombuffer(bytes(message.data), kind)[:message.height * row * channels]
    pixels = data.reshape(message.height, row, channels)[:, :message.width]
    out = (pixels / 257).round().astype(np.uint8) if size == 2 else pixels
    return np.repeat(out, 3, axis=2) if channels == 1 else out


def test_what_is_known_here_is_converted_here_with_cv_bridge_and_without(monkeypatch):
    """641 pixels, rows of 1924 bytes: cv_bridge shears that, 98 % of the pixels."""
    message = image('rgb8', height=4, width=641, padding=1)
    without = conversions.ImageDecoder()(message)
    fake_cv_bridge(monkeypatch, cut_by_pixels)
    decoder = conversions.ImageDecoder()
    assert decoder.bridge and 'does not know are converted by cv_bridge' in decoder.note
    np.testing.assert_array_equal(decoder(message), without)
    assert (cut_by_pixels(message, 'rgb8') != without).mean() > 0.7


def test_cv_bridge_adds_encodings_and_its_errors_are_ours(monkeypatch):
    fake_cv_bridge(monkeypatch, cut_by_pixels)
    decoder = conversions.ImageDecoder()
    wide = Image(height=2, width=1, encoding='16UC3', step=6, data=b'\xff\xff\x00\x00\0\0' * 2)
    assert decoder(wide).tolist() == [[[255, 0, 0]]] * 2
    with pytest.raises(ValueError, match="cannot convert encoding '32SC1': no conversion"):
        decoder(Image(height=1, width=1, encoding='32SC1', step=4, data=b'abcd'))
    with pytest.raises(ValueError, match="rows of 8 bytes hold no whole pixels of .* '16UC3'"):
        decoder(Image(height=1, width=1, encoding='16UC3', step=8, data=b'abcdefgh'))
    with pytest.raises(ValueError, match="'16UC1' is a depth image, .* colour topic"):
        decoder(Image(height=1, width=1, encoding='16UC1', step=2, data=b'ab'))
    with pytest.raises(ValueError, match='16UC1; compressedDepth png.* is a depth image'):
        decoder(CompressedImage(format='16UC1; compressedDepth png', data=b'abc'))


@pytest.mark.parametrize('encoding, size', [
    ('mono16', 2), ('rgb16', 6), ('bgra16', 8), ('bayer_rggb16', 2), ('32FC1', 4), ('16UC3', 6),
    ('8UC4', 4), ('nv21', 1), ('bayer_bggr8', 1), ('bayer_grbg8', 1)])
def test_how_many_bytes_a_pixel_has(encoding, size):
    assert conversions._pixel_bytes(encoding) == size


@pytest.mark.parametrize('encoding', ENCODINGS)
@pytest.mark.parametrize('padding', [0, 3])
def test_own_conversion_equals_cv_bridge(encoding, padding):
    try:
        from cv_bridge import CvBridge
        expected = CvBridge().imgmsg_to_cv2(image(encoding, padding=padding), 'rgb8')
    except Exception as error:
        pytest.skip(f'no working cv_bridge here: {error}')
    message = image(encoding, padding=padding)
    own = raw_to_rgb(np.frombuffer(message.data, np.uint8), encoding, message.height,
                     message.width, message.step)
    np.testing.assert_array_equal(own, expected)


def test_garbage_compressed_image_is_an_error():
    with pytest.raises(ValueError, match='neither JPEG nor PNG'):
        conversions.ImageDecoder()(CompressedImage(format='jpeg', data=b'hello'))


@given(st.lists(st.integers(1, 6), min_size=1, max_size=6), st.integers(1, 3))
def test_a_message_that_is_written_anew_is_as_a_new_one(lengths, joints):
    dice, names, again = np.random.default_rng(3), ('a', 'b', 'c')[:joints], None
    for number, length in enumerate(lengths):
        positions, velocities = dice.normal(size=(2, length, joints))
        velocities[-1] = 0.0
        told = Trajectory(number * SECOND_NS + 17, names, np.arange(length) * 17 * MS,
                          np.asfortranarray(positions), velocities, positions[0], velocities[0])
        again = conversions.trajectory_message(told, names, again)
        assert again == conversions.trajectory_message(told)
        assert again.header.stamp.sec == number and again.header.stamp.nanosec == 17
        assert [list(point.positions) for point in again.points] == positions.tolist()
        assert [list(point.velocities) for point in again.points] == velocities.tolist()
        assert [point.time_from_start.sec * SECOND_NS + point.time_from_start.nanosec
                for point in again.points] == told.times_ns.tolist()


def test_chunk_message_keeps_its_numbers():
    raw = conversions.chunk_message(chunk([1, 2], t_obs_ns=3 * 10**9), ('a',))
    assert list(raw.joint_names) == ['a'] and list(raw.points[1].positions) == [2.0]
    assert (raw.header.stamp.sec, raw.points[1].time_from_start.nanosec) == (3, 40 * MS)
    assert to_ns(conversions.duration(1_500_000_000)) == 1_500_000_000
