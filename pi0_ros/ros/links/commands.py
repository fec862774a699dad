# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""How commands leave the node: each controller is told its joints in its own way."""

from collections.abc import Iterator, Sequence

import numpy as np
from pi0_ros.control.controllers import columns, GRIPPER, Group, TRAJECTORY, VELOCITIES
from pi0_ros.control.pilot import Pilot
from pi0_ros.motion.trajectory import Trajectory
from pi0_ros.observation.buffers import Stamped
from pi0_ros.observation.finding import Finding
from pi0_ros.ros.links import conversions, qos
from pi0_ros.ros.links.gripper import check, GripperClient
from rclpy.lifecycle import LifecycleNode
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

# Message, topic of the only controller, and topic of one of several, below its name.
TOPICS = {TRAJECTORY: (JointTrajectory, 'joint_trajectory', 'joint_trajectory'),
          'positions': (Float64MultiArray, 'position_commands', 'commands'),
          'joint_state_command': (JointState, 'joint_command', 'joint_command'),
          VELOCITIES: (Float64MultiArray, 'velocity_commands', 'commands')}
CATCH_UP = 2.0  # 1/s: how fast a joint that is commanded by its velocity makes up a distance


class CommandPublisher:
    """
    Tells one controller by a topic.

    A joint_trajectory_controller follows a window to its end when the node dies. The others know
    no time and no end: positions stop dead at the last, velocities go on.
    """

    def __init__(self, node: LifecycleNode, group: Group, dry_run: bool = False) -> None:
        """Create the publisher. :param dry_run: publish where no robot listens."""
        self._node, self._dry_run, self.group = node, dry_run, group
        self._message: JointTrajectory | None = None
        kind, alone, below = TOPICS[group.interface]
        topic = group.topic or (f'{group.name}/{below}' if group.name else alone)
        self.publisher = node.create_lifecycle_publisher(
            kind, f"~/dry_run/{topic.lstrip('/')}" if dry_run else topic, qos.COMMAND,
            qos_overriding_options=QoSOverridingOptions.with_default_policies())

    @property
    def topic(self) -> str:
        """Return the topic, remapped."""
        return self.publisher.topic_name

    def missing(self) -> str | None:
        """Return a sentence if no controller subscribes; a dry run needs none."""
        if self._dry_run or self.publisher.get_subscription_count():
            return None
        return f"no controller subscribes to '{self.topic}': start it, or remap the topic"

    def followers(self) -> dict[str, frozenset[bytes]]:
        """
        Return the nodes that subscribe as controllers do, and what names their subscriptions.

        The node that the topic belongs to, such as /arm of /arm/joint_trajectory; where there is
        none, all: who records and who moves cannot be told apart.
        """
        found: dict[str, frozenset[bytes]] = {}
        for info in self._node.get_subscriptions_info_by_topic(self.topic):
            name = _name(info)
            found[name] = found.get(name, frozenset()) | {bytes(info.endpoint_gid)}
        owner = self.topic.rpartition('/')[0]
        return {owner: found[owner]} if owner in found else found

    def endpoints(self) -> frozenset[bytes]:
        """Return what names all subscriptions, whoever has them."""
        return frozenset(bytes(info.endpoint_gid)
                         for info in self._node.get_subscriptions_info_by_topic(self.topic))

    def others(self) -> list[str]:
        """Return the other nodes that publish on the topic; two of one name count as two."""
        if self._node.count_publishers(self.topic) < 2:
            return []
        names = [_name(info) for info in self._node.get_publishers_info_by_topic(self.topic)]
        own = self._node.get_fully_qualified_name()
        if own in names:
            names.remove(own)
        return sorted(names)

    def problem(self) -> Finding | None:
        """Return nothing: a topic does not answer."""
        return None

    def begin(self) -> None:
        """Begin anew when somebody arms: nothing is kept here."""

    def publish(self, trajectory: Trajectory | None, speed: np.ndarray) -> None:
        """Publish a command. :param speed: [G] to be commanded, where velocities are."""
        interface, names = self.group.interface, self.group.own
        if interface == TRAJECTORY:
            message = self._message = conversions.trajectory_message(trajectory, names,
                                                                     self._message)
        elif interface == VELOCITIES:
            message = Float64MultiArray(data=speed.tolist())
        elif interface == 'positions':
            message = Float64MultiArray(data=trajectory.start.tolist())
        else:
            message = JointState(name=list(names), position=trajectory.start.tolist())
            message.header.stamp = self._node.get_clock().now().to_msg()
        self.publisher.publish(message)

    def close(self) -> None:
        """Take the publisher back."""
        self._node.destroy_lifecycle_publisher(self.publisher)


class Commands:
    """All controllers of a robot, told of one plan at one time."""

    def __init__(self, node: LifecycleNode, groups: Sequence[Group],
                 joint_names: tuple[str, ...], dry_run: bool = False) -> None:
        """
        Create topics and actions.

        :raises ValueError: what an interface needs is not installed.
        """
        check(groups)
        self._each = [GripperClient(node, group, dry_run) if group.interface == GRIPPER else
                      CommandPublisher(node, group, dry_run) for group in groups]
        self._columns = [columns(group, joint_names) for group in groups]
        self._turns = [each for each in self._each if each.group.interface == VELOCITIES]
        self._turning = False

    def __iter__(self) -> Iterator[CommandPublisher | GripperClient]:
        """Return them in their order."""
        return iter(self._each)

    def missing(self) -> str | None:
        """Return a sentence for the first controller that is not there."""
        return next(filter(None, (each.missing() for each in self._each)), None)

    def followers(self) -> list[str]:
        """Return who is there to follow."""
        return [name for each in self._each for name in each.followers()]

    def others(self) -> list[tuple[str, str]]:
        """Return who else commands, and where: node, topic."""
        return [(name, each.topic) for each in self._each for name in each.others()]

    def problem(self) -> Finding | None:
        """Return what a controller answered that forbids to go on."""
        return next(filter(None, (each.problem() for each in self._each)), None)

    def begin(self) -> None:
        """Begin anew: somebody arms."""
        for each in self._each:
            each.begin()

    def rest(self) -> None:
        """Do nothing, but let what turns stop."""
        if self._turning:
            for each in self._turns:
                each.publish(None, np.zeros(len(each.group.joints)))
        self._turning = False

    def tell(self, trajectory: Trajectory | None, pilot: Pilot, joints: Stamped | None) -> None:
        """Tell what is to be done, None for nothing; see ``publish``."""
        if trajectory is None:
            self.rest()
        else:
            self.publish(trajectory, pilot, joints)

    def publish(self, trajectory: Trajectory, pilot: Pilot, joints: Stamped | None) -> None:
        """
        Tell every controller its part of a window of ``pilot``'s plan.

        :param joints: as they were measured last.
        """
        self._turning = bool(self._turns)
        speed = trajectory.speed * pilot.scale.factor  # the controller's time may pass slowly
        if self._turns and np.any(trajectory.speed) and joints is not None:
            told, limits = pilot.told(np.array([joints.stamp_ns]))[0], pilot.limits
            behind = limits.shortest(told - joints.value[:len(told)])
            speed = np.clip(speed + CATCH_UP * behind, -limits.velocity, limits.velocity)
        for each, its in zip(self._each, self._columns):
            each.publish(trajectory if len(self._each) == 1 else trajectory.of(its), speed[its])

    def close(self) -> None:
        """Take all of it back."""
        for each in self._each:
            each.close()


def _name(info: object) -> str:
    return f'{info.node_namespace.rstrip("/")}/{info.node_name}'
