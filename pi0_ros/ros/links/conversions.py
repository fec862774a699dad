"""Between ROS messages and the core's own types."""

from typing import Any

import numpy as np
from builtin_interfaces.msg import Duration
from rclpy.time import Time
from sensor_msgs.msg import CompressedImage, Image
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from pi0_ros.motion.trajectory import Trajectory
from pi0_ros.observation.decoding import SECOND_NS, message_to_rgb
from pi0_ros.policy.policy import ActionChunk


def load_cv_bridge() -> tuple[Any | None, str]:
    """Return a working CvBridge, or None, and a sentence on which it is.

    The apt package is built against numpy 1 and fails beside numpy 2; the PyPI package of that
    name is ROS 1 code. So it is tried on a small image before it is trusted.
    """
    try:
        from cv_bridge import CvBridge
        bridge = CvBridge()
        probe = Image(height=1, width=1, encoding='bgr8', step=3, data=b'\x01\x02\x03')
        if bridge.imgmsg_to_cv2(probe, 'rgb8').tolist() != [[[3, 2, 1]]]:
            return None, 'cv_bridge converts wrongly: images are converted by pi0_ros itself'
    except Exception as error:  # whatever a broken binary raises, images must still arrive
        reason = (str(error).splitlines() or [''])[0]
        return None, ('cv_bridge is not usable, images are converted by pi0_ros itself '
                      f'({type(error).__name__}: {reason})')
    return bridge, 'images are converted by cv_bridge'


class ImageDecoder:
    """Turns image messages into RGB arrays."""

    def __init__(self) -> None:
        """Use cv_bridge where it works."""
        self.bridge, self.note = load_cv_bridge()

    def __call__(self, message: Image | CompressedImage) -> np.ndarray:
        """Return [H, W, 3] uint8 RGB.

        :raises ValueError: the message cannot be read.
        """
        if self.bridge is None or isinstance(message, CompressedImage):
            return message_to_rgb(message)
        try:
            return self.bridge.imgmsg_to_cv2(message, 'rgb8')
        except Exception as error:  # CvBridgeError, and cv2.error for truncated data
            raise ValueError(f"cv_bridge cannot convert encoding '{message.encoding}': {error}") \
                from error


def duration(nanoseconds: int) -> Duration:
    """Return a message duration."""
    return Duration(sec=nanoseconds // SECOND_NS, nanosec=nanoseconds % SECOND_NS)


def trajectory_message(trajectory: Trajectory) -> JointTrajectory:
    """Return the message of a window of commands."""
    out = JointTrajectory(joint_names=list(trajectory.joint_names))
    out.header.stamp = Time(nanoseconds=trajectory.stamp_ns).to_msg()
    out.points = [
        JointTrajectoryPoint(positions=positions, velocities=velocities,
                             time_from_start=duration(time_ns))
        for time_ns, positions, velocities in zip(trajectory.times_ns.tolist(),
                                                  trajectory.positions.tolist(),
                                                  trajectory.velocities.tolist())]
    return out


def chunk_message(chunk: ActionChunk, joint_names: tuple[str, ...]) -> JointTrajectory:
    """Return the message of a raw chunk, stamped with its observation."""
    out = JointTrajectory(joint_names=list(joint_names))
    out.header.stamp = Time(nanoseconds=chunk.t_obs_ns).to_msg()
    out.points = [JointTrajectoryPoint(positions=positions,
                                       time_from_start=duration(due_ns - chunk.t_obs_ns))
                  for due_ns, positions in zip(chunk.due_ns.tolist(), chunk.positions.tolist())]
    return out
