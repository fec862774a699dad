"""ROS messages to and from the core's types."""

import sys
import types

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')

from sensor_msgs.msg import CompressedImage, Image  # noqa: E402

from pi0_ros.observation.decoding import CHANNELS, raw_to_rgb, to_ns  # noqa: E402
from pi0_ros.ros.links import conversions  # noqa: E402
from support import MS, chunk  # noqa: E402


def fake_cv_bridge(monkeypatch, convert):
    class CvBridge:
        def imgmsg_to_cv2(self, message, encoding):
            return convert(message, encoding)

    monkeypatch.setitem(sys.modules, 'cv_bridge', types.SimpleNamespace(CvBridge=CvBridge))


def image(encoding='rgb8', height=3, width=5, padding=0):
    step = width * CHANNELS[encoding] + padding
    data = np.random.default_rng(1).integers(0, 256, height * step, np.uint8)
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


def test_working_cv_bridge_is_used_and_its_errors_are_ours(monkeypatch):
    def convert(message, encoding):
        if message.encoding == '16UC1':
            raise RuntimeError('no conversion')
        return raw_to_rgb(np.frombuffer(message.data, np.uint8), message.encoding, message.height,
                          message.width, message.step)

    fake_cv_bridge(monkeypatch, convert)
    decoder = conversions.ImageDecoder()
    assert decoder.note == 'images are converted by cv_bridge'
    assert decoder(image('bgr8')).shape == (3, 5, 3)
    with pytest.raises(ValueError, match="cannot convert encoding '16UC1': no conversion"):
        decoder(Image(height=1, width=1, encoding='16UC1', step=2, data=b'ab'))


@pytest.mark.parametrize('encoding', CHANNELS)
@pytest.mark.parametrize('padding', [0, 3])
def test_own_conversion_equals_cv_bridge(encoding, padding):
    try:
        from cv_bridge import CvBridge
        expected = CvBridge().imgmsg_to_cv2(image(encoding, padding=padding), 'rgb8')
    except Exception as error:
        pytest.skip(f'no working cv_bridge here: {error}')
    message = image(encoding, padding=padding)
    own = raw_to_rgb(np.frombuffer(message.data, np.uint8), encoding, 3, 5, message.step)
    np.testing.assert_array_equal(own, expected)


def test_garbage_compressed_image_is_an_error():
    with pytest.raises(ValueError, match='neither JPEG nor PNG'):
        conversions.ImageDecoder()(CompressedImage(format='jpeg', data=b'hello'))


def test_chunk_message_keeps_its_numbers():
    raw = conversions.chunk_message(chunk([1, 2], t_obs_ns=3 * 10**9), ('a',))
    assert list(raw.joint_names) == ['a'] and list(raw.points[1].positions) == [2.0]
    assert (raw.header.stamp.sec, raw.points[1].time_from_start.nanosec) == (3, 40 * MS)
    assert to_ns(conversions.duration(1_500_000_000)) == 1_500_000_000
