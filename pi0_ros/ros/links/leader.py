# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The topics of a person who takes over: where the leader is, and the dead man's switch."""

from collections.abc import Callable, Sequence

from pi0_ros.control.leading import Leading
from pi0_ros.observation.decoding import SECOND_NS
from pi0_ros.ros.links import qos
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool
from trajectory_msgs.msg import JointTrajectory

TOPICS = ('~/takeover', '~/takeover_trajectory')


class LeaderLink:
    """Hears a leader; everything happens on the executor's thread."""

    def __init__(self, node: LifecycleNode, leading: Leading, now: Callable[[], int],
                 steady: Callable[[], int]) -> None:
        """Subscribe."""
        self._node, self._leading, self._now, self._steady = node, leading, now, steady
        self._told = False
        self._switch = node.resolve_topic_name('~/takeover_enable')
        self._topics = [node.resolve_topic_name(topic) for topic in TOPICS]
        self._subscriptions = [
            node.create_subscription(kind, topic, hear, qos.NEWEST, event_callbacks=qos.HEARD)
            for kind, topic, hear in (
                (JointState, TOPICS[0], self._on_joints),
                (JointTrajectory, TOPICS[1], self._on_trajectory),
                (Bool, '~/takeover_enable', self._on_switch))]
        self._led = node.create_publisher(Bool, '~/led', qos.LATCHED, event_callbacks=qos.SAID)
        self._led.publish(Bool(data=False))

    def close(self) -> None:
        """Hear nobody any more; the robot is given back."""
        self.release()
        self._node.destroy_publisher(self._led)
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)

    def release(self) -> None:
        """Give the robot back, and say so."""
        self._leading.release()
        self.tell()

    def tell(self) -> None:
        """Say at once who leads, where that is news: recordings are marked by it."""
        if self._leading.engaged != self._told:
            self._told = self._leading.engaged
            self._led.publish(Bool(data=self._told))
            self._node.get_logger().warning('a person has taken over' if self._told else
                                            'the robot is given back to the policy')

    def _on_switch(self, message: Bool) -> None:
        switches = self._node.count_publishers(self._switch)
        self._leading.press(message.data, self._now(), self._steady(), switches)
        self.tell()
        if message.data and switches > 1 and not self._leading.engaged:
            self._node.get_logger().warning(
                f"{switches} publish '{self._switch}': nobody takes over", throttle_duration_sec=5)

    def _on_joints(self, message: JointState) -> None:
        self._lead(message.name, message.position, message.header.stamp)

    def _on_trajectory(self, message: JointTrajectory) -> None:
        """Take where a trajectory ends: MoveIt Servo sends one point."""
        if message.points:
            self._lead(message.joint_names, message.points[-1].positions, message.header.stamp)

    def _lead(self, names: Sequence[str], positions: Sequence[float], stamp: object) -> None:
        if self._leading.engaged:
            leaders = sum(self._node.count_publishers(topic) for topic in self._topics)
            self._leading.lead(list(names), list(positions), self._now(), self._steady(),
                               stamp.sec * SECOND_NS + stamp.nanosec, leaders)
