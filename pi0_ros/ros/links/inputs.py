# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Subscriptions: every callback keeps the newest message and its stamp, and nothing else."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
import threading
import time

from pi0_ros.checkpoint.config import RobotConfig
from pi0_ros.control.controllers import Group, lags_ns
from pi0_ros.observation.config import InputConfig
from pi0_ros.observation.finding import Finding
from pi0_ros.observation.streams import Streams
from pi0_ros.ros.links import conversions, qos
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CompressedImage, Image, JointState

POLL_S = 0.0005  # between two looks for the next frame
LATE_S = 0.002   # that it may come later than usual


class Inputs(Streams):
    """Cameras and joint states of one configured node."""

    def __init__(self, node: LifecycleNode, robot: RobotConfig, config: InputConfig,
                 groups: Sequence[Group] = ()) -> None:
        """Subscribe to what the configuration names, and to joint states of single groups."""
        self.decoder = conversions.ImageDecoder()
        super().__init__(robot.observed, robot.cameras, config.freshness, self.decoder,
                         config.unstamped(robot.cameras), config.turns(robot.cameras),
                         lags_ns(groups))
        self._node = node
        self._subscriptions: list = []
        apart = [group for group in groups if group.joint_states]
        for group in apart:
            self._subscribe(JointState, group.joint_states,
                            partial(self.put_joints, prefix=group.prefix), qos.JOINTS)
        if set(robot.observed) - {joint for group in apart for joint in group.joints}:
            self._subscribe(JointState, 'joint_states', self.put_joints, qos.JOINTS)
        packed = config.image_transport == 'compressed'
        self._topics: dict[str, tuple[str, str]] = {}  # of each camera, and the other of the two
        for slot, name in enumerate(robot.cameras, start=1):
            if name:
                both = (f'camera_{slot}/image_raw', f'camera_{slot}/image_raw/compressed')
                self._topics[name] = both[::-1] if packed else both
                self._subscribe(CompressedImage if packed else Image, self._topics[name][0],
                                partial(self.put_image, name))

    def _subscribe(self, kind: type, topic: str, put: object,
                   profile: QoSProfile = qos.NEWEST) -> None:
        self._subscriptions.append(self._node.create_subscription(
            kind, topic, lambda message: put(message, self._node.get_clock().now().nanoseconds),
            profile, qos_overriding_options=QoSOverridingOptions.with_default_policies()))

    def problem(self, now_ns: int) -> Finding | None:
        """Return what is wrong with the inputs, or with the clock that they are measured by."""
        if not now_ns:
            return Finding('no_clock', 'there is no /clock yet: start the simulator or the bag, '
                           "or set parameter 'use_sim_time' to false", 'clock')
        found = super().problem(now_ns)
        if found and found.reason == 'camera_missing':
            mine, other = (self._node.resolve_topic_name(topic)
                           for topic in self._topics[found.subject])
            beside = (f", but somebody publishes on '{other}': set 'image_transport' to "
                      + ('raw' if mine.endswith('/compressed') else 'compressed')
                      ) if self._node.count_publishers(other) else ''
            return replace(found, text=f"{found} on '{mine}'{beside}")
        return found

    def await_frame(self, allowed: Callable[[int], bool], closing: threading.Event) -> None:
        """
        Wait for the next frame where that pays, see ``next_frame``.

        :param allowed: whether there is time for so many nanoseconds. :param closing: ends it.
        """
        found = self.next_frame(self._node.get_clock().now().nanoseconds)
        if not found or not allowed(found[2]):
            return
        camera, before, due_ns = found
        end_s = time.monotonic() + due_ns / 1e9 + LATE_S
        while camera.get() is before and time.monotonic() < end_s and not closing.wait(POLL_S):
            pass

    def close(self) -> None:
        """Unsubscribe."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []
