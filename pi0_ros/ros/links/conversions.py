# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Between ROS messages and the core's own types."""

from array import array
from collections.abc import Sequence
import re
from typing import Any

from builtin_interfaces.msg import Duration
import numpy as np
from pi0_ros.motion.trajectory import Trajectory
from pi0_ros.observation.decoding import DEPTH, ENCODINGS, message_to_rgb, SECOND_NS, Turned
from pi0_ros.policy.policy import ActionChunk
from rclpy.time import Time
from sensor_msgs.msg import CompressedImage, Image
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint


def load_cv_bridge() -> tuple[Any | None, str]:
    """
    Return a working CvBridge, or None, and a sentence on which it is.

    The apt package is built against numpy 1 and fails beside numpy 2; the PyPI package of that
    name is ROS 1 code. So it is tried on a small image before it is trusted.
    """
    try:
        from cv_bridge import CvBridge
        bridge = CvBridge()
        # Two rows of one pixel, each with a byte behind it, which some versions cut wrongly.
        probe = Image(height=2, width=1, encoding='mono16', step=4,
                      data=b'\x00\x00\xff\xff\xff\xff\x00\x00')
        if bridge.imgmsg_to_cv2(probe, 'rgb8').tolist() != [[[0] * 3], [[255] * 3]]:
            return None, 'cv_bridge converts wrongly: images are converted by pi0_ros itself'
    except Exception as error:  # whatever a broken binary raises, images must still arrive
        reason = (str(error).splitlines() or [''])[0]
        return None, ('cv_bridge is not usable, images are converted by pi0_ros itself '
                      f'({type(error).__name__}: {reason})')
    return bridge, 'encodings that pi0_ros does not know are converted by cv_bridge'


class ImageDecoder:
    """Turns image messages into RGB arrays."""

    def __init__(self) -> None:
        """
        Use cv_bridge for what it adds, where it works.

        What is known here is converted here, with it and without it: it cuts rows by whole pixels,
        which shears an image whose padding is none.
        """
        self.bridge, self.note = load_cv_bridge()

    def __call__(self, message: Image | CompressedImage) -> np.ndarray:
        """
        Return [H, W, 3] uint8 RGB.

        :raises ValueError: the message cannot be read.
        """
        if isinstance(message, Turned):
            return message.upright(self(message.message))
        if self.bridge is None or isinstance(message, CompressedImage) or (
                message.encoding in ENCODINGS or message.encoding in DEPTH):
            return message_to_rgb(message)
        pixel = _pixel_bytes(message.encoding)
        if message.step % pixel:
            raise ValueError(f'rows of {message.step} bytes hold no whole pixels of encoding '
                             f"'{message.encoding}', {pixel} bytes each: cv_bridge would shear "
                             'the image; let the driver send another encoding')
        try:
            return self.bridge.imgmsg_to_cv2(message, 'rgb8')
        except Exception as error:  # CvBridgeError, and cv2.error for truncated data
            raise ValueError(f"cv_bridge cannot convert encoding '{message.encoding}': {error}") \
                from error


def _pixel_bytes(encoding: str) -> int:
    """Return how many bytes a pixel has, by the names of sensor_msgs/image_encodings.hpp."""
    name = encoding.lower()
    found = re.fullmatch(r'(8|16|32|64)[usf]c(\d+)', name)
    if found:
        return int(found[1]) // 8 * int(found[2])
    channels = 4 if 'rgba' in name or 'bgra' in name else (
        3 if 'rgb' in name or 'bgr' in name and 'bayer' not in name else 2 if 'yuv' in name else 1)
    return channels * (2 if name.endswith('16') else 1)


def duration(nanoseconds: int) -> Duration:
    """Return a message duration."""
    return Duration(sec=nanoseconds // SECOND_NS, nanosec=nanoseconds % SECOND_NS)


def trajectory_message(trajectory: Trajectory, names: Sequence[str] = (),
                       into: JointTrajectory | None = None) -> JointTrajectory:
    """
    Return the message of a window of commands.

    :param names: of its joints, if others. :param into: a message of the same joints, already
        published, whose numbers are changed: making its points takes longer than all else.
    """
    out = into or JointTrajectory(joint_names=list(names or trajectory.joint_names))
    points, stamp = out.points, out.header.stamp
    stamp.sec, stamp.nanosec = divmod(trajectory.stamp_ns, SECOND_NS)
    del points[len(trajectory.times_ns):]
    points += [JointTrajectoryPoint() for _ in trajectory.times_ns[len(points):]]
    for point, time_ns, positions, velocities in zip(
            points, trajectory.times_ns.tolist(), trajectory.positions, trajectory.velocities):
        point.positions = array('d', positions.tobytes())
        point.velocities = array('d', velocities.tobytes())
        after = point.time_from_start
        after.sec, after.nanosec = divmod(time_ns, SECOND_NS)
    return out


def chunk_message(chunk: ActionChunk, joint_names: tuple[str, ...]) -> JointTrajectory:
    """Return the message of a raw chunk, stamped with its observation."""
    out = JointTrajectory(joint_names=list(joint_names))
    out.header.stamp = Time(nanoseconds=chunk.t_obs_ns).to_msg()
    out.points = [JointTrajectoryPoint(positions=positions,
                                       time_from_start=duration(due_ns - chunk.t_obs_ns))
                  for due_ns, positions in zip(chunk.due_ns.tolist(), chunk.positions.tolist())]
    return out
