"""Subscriptions: every callback keeps the newest message and its stamp, and nothing else."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
from rclpy.lifecycle import LifecycleNode
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CompressedImage, Image, JointState

from pi0_ros.observation.buffers import Arrivals, JointBuffer, LatestBuffer
from pi0_ros.observation.finding import Finding
from pi0_ros.observation.observation import Freshness, ObservationBuilder
from pi0_ros.ros import conversions, qos


class Inputs:
    """Cameras and joint states of one configured node."""

    def __init__(self, node: LifecycleNode, values: SimpleNamespace) -> None:
        """Subscribe to what ``values`` names."""
        self._node = node
        self.joints = JointBuffer(values.observed_names)
        self.cameras: dict[str, LatestBuffer] = {}
        self.decoder = conversions.ImageDecoder()
        self.joint_error: str | None = None
        self.joint_arrivals = Arrivals()
        self._subscriptions = [node.create_subscription(
            JointState, 'joint_states', self._on_joints, qos.NEWEST,
            qos_overriding_options=QoSOverridingOptions.with_default_policies())]
        for slot, name in enumerate(values.cameras, start=1):
            if name:
                self._subscribe_camera(slot, name, values.image_transport)
        self.builder = ObservationBuilder(self.joints, self.cameras, self.decoder,
                                          freshness(values))

    def _subscribe_camera(self, slot: int, name: str, transport: str) -> None:
        buffer: LatestBuffer = LatestBuffer()
        self.cameras[name] = buffer

        def keep(message: Image | CompressedImage) -> None:
            buffer.put(message, conversions.to_ns(message.header.stamp), self._now())

        topic = f'camera_{slot}/image_raw'
        kind = Image
        if transport == 'compressed':
            topic, kind = topic + '/compressed', CompressedImage
        self._subscriptions.append(self._node.create_subscription(
            kind, topic, keep, qos.NEWEST,
            qos_overriding_options=QoSOverridingOptions.with_default_policies()))

    def _on_joints(self, message: JointState) -> None:
        stamp_ns, now_ns = conversions.to_ns(message.header.stamp), self._now()
        self.joint_arrivals.add(stamp_ns, now_ns)
        try:
            self.joints.put(message.name, np.asarray(message.position), stamp_ns, now_ns)
            self.joint_error = None
        except ValueError as error:
            self.joint_error = str(error)

    def _now(self) -> int:
        return self._node.get_clock().now().nanoseconds

    def problem(self, now_ns: int) -> Finding | None:
        """Return what is wrong with the inputs, or None."""
        found = self.builder.check(now_ns)
        if found and self.joint_error:
            return replace(found, text=f'{found} ({self.joint_error})')
        return found

    def clear(self) -> None:
        """Forget everything received, for example after the clock went back."""
        self.joints.clear()
        self.joint_arrivals.clear()
        for buffer in self.cameras.values():
            buffer.clear()

    def close(self) -> None:
        """Unsubscribe."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []


def freshness(values: SimpleNamespace) -> Freshness:
    """Return the ages that parameters allow."""
    return Freshness(*(round(1e9 * seconds) for seconds in (
        values.max_joint_age, values.max_image_age, values.max_skew)))
