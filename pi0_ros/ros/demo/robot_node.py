# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""A robot as a ROS node: cameras, joint states and controllers, as drivers have them."""

from collections.abc import Sequence
from functools import partial
from typing import Protocol

from builtin_interfaces.msg import Time
import cv2
import numpy as np
from pi0_ros.observation.decoding import to_ns
from pi0_ros.ros.demo.gripper_server import Gripper
from pi0_ros.ros.links import qos
from pi0_ros.ros.links.controller_link import JointTrajectoryControllerState
from pi0_ros.sim.controller import TrajectoryController, TrajectoryMessage, TrajectoryRejected
from rclpy.node import Node
from rclpy.publisher import Publisher
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

JPEG_QUALITY = 90


class Robot(Protocol):
    """What is shown of a robot; positions are those that its driver tells."""

    joint_names: Sequence[str]
    now_ns: int
    joints: np.ndarray
    velocity: np.ndarray
    controllers: list[TrajectoryController]
    taken: str | None

    def accept(self, message: TrajectoryMessage, number: int = 0) -> None:
        """Let controller ``number`` follow a trajectory."""

    def advance(self, now_ns: int) -> None:
        """Let the time run."""

    def image(self, camera: str) -> np.ndarray:
        """Return what a camera sees, [H, W, 3] uint8 RGB."""


class RobotNode(Node):
    """Shows a robot, and lets its controllers be commanded."""

    def __init__(self, name: str, **kwargs: object) -> None:
        """Make the node; ``show`` does the rest. Arguments go to Node."""
        super().__init__(name, **kwargs)
        self.beside: list[Node] = []  # the nodes of controllers of their own
        self._states: list[tuple[Publisher, int, str]] = []
        self._grippers: list[Gripper] = []
        self._told: list[tuple[Publisher, list[int], list[str]]] = []
        self._cameras: dict[str, tuple[Publisher, Publisher]] = {}
        self._taken = self.create_publisher(String, '~/taken', qos.LATCHED)
        self._shown: str | None = None

    def show(self, robot: Robot, cameras: Sequence[str], description: str | None) -> None:
        """Publish a robot's cameras, and its description where its driver does."""
        self.robot = robot
        if description:
            self._description = self.create_publisher(String, 'robot_description', qos.LATCHED)
            self._description.publish(String(data=description))
        self._cameras = {
            name: (self.create_publisher(Image, f'{name}/image_raw', 2),
                   self.create_publisher(CompressedImage, f'{name}/image_raw/compressed', 2))
            for name in cameras}

    def tell_joints(self, topic: str, names: Sequence[str], prefix: str = '') -> None:
        """Publish these joints on a topic, without the prefix."""
        self._told.append((self.create_publisher(JointState, topic, 10),
                           [list(self.robot.joint_names).index(name) for name in names],
                           [name.removeprefix(prefix) for name in names]))

    def follow(self, node: Node, topic: str, number: int, prefix: str = '') -> None:
        """Let controller ``number`` be the node that obeys a topic, and tells its state."""
        node.create_subscription(JointTrajectory, topic, partial(
            self._on_trajectory, number=number, prefix=prefix), 10)
        if JointTrajectoryControllerState:
            self._states.append((node.create_publisher(
                JointTrajectoryControllerState, '~/controller_state', 10), number, prefix))

    def add_controller(self, name: str, number: int, prefix: str = '',
                       gripper: float | None = None) -> None:
        """
        Have controller ``number`` as a node of its own.

        :param prefix: of the robot's names, which the controller's lack.
        :param gripper: its goal_tolerance if it is an action, where control_msgs is there.
        """
        space, _, name = f'{self.get_namespace().rstrip("/")}/{name}'.rpartition('/')
        node = Node(name, context=self.context, namespace=space or '/',
                    use_global_arguments=False)
        self.beside.append(node)
        if gripper and not JointTrajectoryControllerState:
            self.get_logger().info(
                f'{name} takes trajectories: control_msgs is not installed, so there is no '
                f'action; give the node {name}.interface:=joint_trajectory and '
                f'{name}.dead_band:=0.0')
        if gripper and JointTrajectoryControllerState:
            self._grippers.append(Gripper(node, self.robot, number, gripper))
        else:
            self.follow(node, '~/joint_trajectory', number, prefix)

    def destroy_node(self) -> None:
        """End the controllers, too."""
        for node in self.beside:
            node.destroy_node()
        super().destroy_node()

    def value(self, name: str) -> object:
        """Return a parameter's value."""
        return self.get_parameter(name).value

    def now(self) -> int:
        """Return the robot's time, nanoseconds."""
        return self.get_clock().now().nanoseconds

    def advance(self) -> None:
        """Let the robot's time run until now, and tell what it holds."""
        self.robot.advance(self.now())
        for gripper in self._grippers:
            gripper.look()
        if self.robot.taken != self._shown:
            self._shown = self.robot.taken
            self._taken.publish(String(data=self._shown or ''))
            self.get_logger().info(f'took: {self._shown}' if self._shown
                                   else 'the gripper is empty')

    def _on_trajectory(self, message: JointTrajectory, number: int, prefix: str) -> None:
        self.advance()
        try:
            self.robot.accept(TrajectoryMessage(
                to_ns(message.header.stamp), [prefix + name for name in message.joint_names],
                [to_ns(point.time_from_start) for point in message.points],
                *([list(getattr(point, kind)) for point in message.points] for kind in (
                    'positions', 'velocities', 'accelerations', 'effort'))), number)
        except TrajectoryRejected as rejected:
            self.get_logger().error(f'trajectory rejected: {rejected}')

    def publish_joints(self) -> None:
        """Tell where the joints are."""
        self.advance()
        joints, velocity = self.robot.joints, self.robot.velocity
        for publisher, columns, names in self._told:
            order = self.order(len(columns))
            its = [columns[i] for i in order]
            out = JointState(name=[names[i] for i in order], position=joints[its].tolist(),
                             velocity=velocity[its].tolist())
            out.header.stamp = stamp(self.now())
            publisher.publish(out)

    def order(self, count: int) -> Sequence[int]:
        """Return in which order the joints of a message are."""
        return range(count)

    def publish_state(self, scaling: float = 1.0) -> None:
        """Tell what the controllers follow."""
        for controller in self.robot.controllers:
            controller.speed_scaling = scaling
        measured = dict(zip(self.robot.joint_names, self.robot.joints.tolist()))
        for publisher, number, prefix in self._states:
            controller = self.robot.controllers[number]
            out = JointTrajectoryControllerState(joint_names=[
                name.removeprefix(prefix) for name in controller.joint_names])
            out.header.stamp = stamp(self.now())
            out.reference.positions = controller.reference.tolist()
            out.feedback.positions = [measured[name] for name in controller.joint_names]
            if hasattr(out, 'speed_scaling_factor'):  # not on Humble
                out.speed_scaling_factor = scaling
            publisher.publish(out)

    def publish_images(self) -> None:
        """Show what the cameras see that somebody listens to."""
        self.advance()
        for name, (raw, compressed) in self._cameras.items():
            wants_raw = raw.get_subscription_count()
            if not (wants_raw or compressed.get_subscription_count()):
                continue
            image = self.robot.image(name)
            at = stamp(self.now())
            if wants_raw:
                out = Image(height=image.shape[0], width=image.shape[1], encoding='rgb8',
                            step=image.shape[1] * 3)
                out.header.stamp, out.header.frame_id = at, f'{name}_camera'
                out.data.frombytes(image.tobytes())
                raw.publish(out)
            if compressed.get_subscription_count():
                _, jpeg = cv2.imencode('.jpg', cv2.cvtColor(image, cv2.COLOR_RGB2BGR),
                                       [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
                out = CompressedImage(format='rgb8; jpeg compressed bgr8')
                out.header.stamp, out.header.frame_id = at, f'{name}_camera'
                out.data.frombytes(jpeg.tobytes())
                compressed.publish(out)


def stamp(nanoseconds: int) -> Time:
    """Return a time as messages have it."""
    return Time(sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)
