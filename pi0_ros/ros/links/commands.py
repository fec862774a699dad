"""How commands leave the node: as trajectories, or as plain positions."""

from rclpy.lifecycle import LifecycleNode
from rclpy.qos_overriding_options import QoSOverridingOptions
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from pi0_ros.motion.trajectory import Trajectory
from pi0_ros.ros.links import conversions, qos


class CommandPublisher:
    """Publishes windows of the plan, or where the plan is now.

    A joint_trajectory_controller follows a window to its end when the node dies. A
    forward_position_controller knows no names, no time and no end: it stops dead at the last
    position and holds it.
    """

    def __init__(self, node: LifecycleNode, interface: str, dry_run: bool = False) -> None:
        """Create the publisher.

        :param interface: one of control.config.INTERFACES.
        :param dry_run: publish where no robot listens.
        """
        self._node, self._dry_run = node, dry_run
        self.plain = interface == 'positions'
        kind, topic = ((Float64MultiArray, 'position_commands') if self.plain
                       else (JointTrajectory, 'joint_trajectory'))
        self.publisher = node.create_lifecycle_publisher(
            kind, f'~/dry_run/{topic}' if dry_run else topic, qos.COMMAND,
            qos_overriding_options=QoSOverridingOptions.with_default_policies())

    @property
    def topic(self) -> str:
        """Return the topic, remapped."""
        return self.publisher.topic_name

    def followed(self) -> bool:
        """Return whether a controller subscribes; a dry run needs none."""
        return self._dry_run or self.publisher.get_subscription_count() > 0

    def followers(self) -> dict[str, frozenset[bytes]]:
        """Return the nodes that subscribe as controllers do, and what names their subscriptions.

        The node that the topic belongs to, such as /arm of /arm/joint_trajectory; where there is
        none, all: who records and who moves cannot be told apart.
        """
        found: dict[str, frozenset[bytes]] = {}
        for info in self._node.get_subscriptions_info_by_topic(self.topic):
            name = _name(info)
            found[name] = found.get(name, frozenset()) | {bytes(info.endpoint_gid)}
        owner = self.topic.rpartition('/')[0]
        return {owner: found[owner]} if owner in found else found

    def others(self) -> list[str]:
        """Return the other nodes that publish on the topic; two of one name count as two."""
        if self._node.count_publishers(self.topic) < 2:
            return []
        names = [_name(info) for info in self._node.get_publishers_info_by_topic(self.topic)]
        own = self._node.get_fully_qualified_name()
        if own in names:
            names.remove(own)
        return sorted(names)

    def publish(self, trajectory: Trajectory) -> None:
        """Publish a command."""
        self.publisher.publish(Float64MultiArray(data=trajectory.start.tolist()) if self.plain
                               else conversions.trajectory_message(trajectory))


def _name(info: object) -> str:
    return f'{info.node_namespace.rstrip("/")}/{info.node_name}'
