"""The simulated robot as a ROS node: cameras, joint states and a trajectory controller."""

from functools import partial

import cv2
import numpy as np
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node
from rclpy.publisher import Publisher
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import Float64, String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from pi0_ros.observation.decoding import to_ns
from pi0_ros.ros.demo.gripper_server import Gripper
from pi0_ros.ros.links import qos
from pi0_ros.ros.links.controller_link import JointTrajectoryControllerState
from pi0_ros.sim import arm, render
from pi0_ros.sim.controller import KINDS, Settings, TrajectoryMessage, TrajectoryRejected
from pi0_ros.sim.description import urdf
from pi0_ros.sim.robot import SimulatedRobot

CAMERA_HZ, JOINT_HZ, STATE_HZ = 30, 100, 50
JPEG_QUALITY = 90
GROUPS = {'arm': arm.JOINT_NAMES[:arm.GRIPPER], 'gripper': arm.JOINT_NAMES[arm.GRIPPER:]}
LAG_LIMIT_NS = 1_000_000_000  # a clock that jumps further does not make the physics run after it


class SimNode(Node):
    """Publishes what a robot would and obeys ``joint_trajectory``."""

    def __init__(self, **kwargs: object) -> None:
        """Set the table and start. Arguments go to Node."""
        super().__init__('sim', **kwargs)
        self._declare()
        self._robot = SimulatedRobot(self._value('seed'), self._now(), Settings(
            self._value('controller'), self._value('interpolate_from_desired_state'),
            self._value('update_rate'), self._value('allow_trajectory_replacement')),
            groups=GROUPS.values() if self._value('groups') else (arm.JOINT_NAMES,))
        self.beside: list[Node] = []  # the nodes of controllers of their own
        self._order = np.arange(len(arm.JOINT_NAMES))
        self._shuffle_rng = np.random.default_rng(0)
        self._joint_states = self.create_publisher(JointState, 'joint_states', 10)
        self._description = self.create_publisher(String, 'robot_description', qos.LATCHED)
        self._description.publish(String(data=urdf()))
        self._taken = self.create_publisher(String, '~/taken', qos.LATCHED)
        self._shown: str | None = None
        names = [name for name in render.CAMERAS
                 if name != 'side' or self._value('third_camera')]
        self._cameras = {
            name: (self.create_publisher(Image, f'{name}/image_raw', 2),
                   self.create_publisher(CompressedImage, f'{name}/image_raw/compressed', 2))
            for name in names}
        self._scaling = self.create_publisher(Float64, '~/speed_scaling', 10)
        self._states: list[tuple[Publisher, int]] = []
        if self._value('groups'):
            self._add_controllers()
        else:
            self._follow(self, 'joint_trajectory', 0)
        self.create_timer(1 / STATE_HZ, self._publish_state)
        self.create_service(Trigger, '~/reset', self._on_reset)
        self.create_timer(1 / JOINT_HZ, self._publish_joints)
        self.create_timer(1 / CAMERA_HZ, self._publish_images)
        self.get_logger().info(f"table {self._value('seed')} is set; cameras {', '.join(names)}")

    def _follow(self, node: Node, topic: str, number: int) -> None:
        """Let controller ``number`` be the node that obeys a topic, and tells its state."""
        node.create_subscription(JointTrajectory, topic, partial(
            self._on_trajectory, number=number), 10)
        if JointTrajectoryControllerState:
            self._states.append((node.create_publisher(
                JointTrajectoryControllerState, '~/controller_state', 10), number))

    def _add_controllers(self) -> None:
        """Have arm and gripper on controllers of their own, each a node."""
        for number, name in enumerate(GROUPS):
            node = Node(name, context=self.context, namespace=self.get_namespace(),
                        use_global_arguments=False)
            self.beside.append(node)
            if name == 'gripper' and JointTrajectoryControllerState:  # control_msgs is there
                self._gripper = Gripper(node, self._robot, number)
            else:
                self._follow(node, '~/joint_trajectory', number)

    def destroy_node(self) -> None:
        """End the controllers, too."""
        for node in self.beside:
            node.destroy_node()
        super().destroy_node()

    def _declare(self) -> None:
        def described(text: str, read_only: bool = True) -> ParameterDescriptor:
            return ParameterDescriptor(description=text, read_only=read_only)

        seed = described('Of the block places; ~/reset sets the table for it.', False)
        seed.integer_range = [IntegerRange(from_value=0, to_value=2**31 - 1)]
        self.declare_parameter('seed', 0, seed)
        self.declare_parameter('shuffle_joints', False, described(
            'Publish the joints of every joint state in another order, as some drivers do.'))
        self.declare_parameter('groups', False, described(
            'Arm and gripper on controllers of their own: arm/joint_trajectory, and the action '
            'gripper/gripper_cmd where control_msgs is installed, else gripper/joint_trajectory.'))
        self.declare_parameter('third_camera', False, described('Also publish camera side.'))
        self.declare_parameter('interpolate_from_desired_state', True, described(
            'As the parameter of joint_trajectory_controller; humble calls it open_loop_control.'))
        self.declare_parameter('controller', 'jazzy', described(
            f"Whose joint_trajectory_controller: {', '.join(KINDS)}."))
        rate = described('Of the controller, Hz.')
        rate.floating_point_range = [FloatingPointRange(from_value=10.0, to_value=1000.0)]
        self.declare_parameter('update_rate', 500.0, rate)
        self.declare_parameter('allow_trajectory_replacement', False, described(
            'As the parameter of joint_trajectory_controller master, which has it true.'))

        scaling = described('Of the controller, per cent, as the speed slider of a UR.', False)
        scaling.floating_point_range = [FloatingPointRange(from_value=0.0, to_value=100.0)]
        self.declare_parameter('speed_scaling', 100.0, scaling)

    def _value(self, name: str) -> object:
        return self.get_parameter(name).value

    def _now(self) -> int:
        return self.get_clock().now().nanoseconds

    def _advance(self) -> None:
        now_ns = self._now()
        if abs(now_ns - self._robot.now_ns) > LAG_LIMIT_NS:
            self._robot.now_ns = now_ns
        self._robot.advance(now_ns)
        if self._robot.taken != self._shown:
            self._shown = self._robot.taken
            self._taken.publish(String(data=self._shown or ''))
            self.get_logger().info(f'took the {self._shown} block' if self._shown
                                   else 'the gripper is empty')

    def _on_trajectory(self, message: JointTrajectory, number: int) -> None:
        self._advance()
        try:
            self._robot.accept(TrajectoryMessage(
                to_ns(message.header.stamp), list(message.joint_names),
                [to_ns(point.time_from_start) for point in message.points],
                *([list(getattr(point, kind)) for point in message.points] for kind in (
                    'positions', 'velocities', 'accelerations', 'effort'))), number)
        except TrajectoryRejected as rejected:
            self.get_logger().error(f'trajectory rejected: {rejected}')

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response
                  ) -> Trigger.Response:
        self._robot.reset(self._value('seed'), self._now())
        response.success = True
        response.message = f"table {self._value('seed')} is set"
        self.get_logger().info(response.message)
        return response

    def _publish_joints(self) -> None:
        self._advance()
        if self._value('shuffle_joints'):
            self._order = self._shuffle_rng.permutation(len(arm.JOINT_NAMES))
        out = JointState(name=[arm.JOINT_NAMES[i] for i in self._order],
                         position=self._robot.joints[self._order].tolist(),
                         velocity=self._robot.velocity[self._order].tolist())
        out.header.stamp = self.get_clock().now().to_msg()
        self._joint_states.publish(out)

    def _publish_state(self) -> None:
        scaling = self._value('speed_scaling') / 100
        self._scaling.publish(Float64(data=100 * scaling))
        for controller in self._robot.controllers:
            controller.speed_scaling = scaling
        measured = dict(zip(arm.JOINT_NAMES, self._robot.joints.tolist()))
        for publisher, number in self._states:
            controller = self._robot.controllers[number]
            out = JointTrajectoryControllerState(joint_names=list(controller.joint_names))
            out.header.stamp = self.get_clock().now().to_msg()
            out.reference.positions = controller.reference.tolist()
            out.feedback.positions = [measured[name] for name in controller.joint_names]
            out.speed_scaling_factor = scaling
            publisher.publish(out)

    def _publish_images(self) -> None:
        self._advance()
        for name, (raw, compressed) in self._cameras.items():
            wants_raw = raw.get_subscription_count()
            if not (wants_raw or compressed.get_subscription_count()):
                continue
            image = self._robot.image(name)
            stamp = self.get_clock().now().to_msg()
            if wants_raw:
                out = Image(height=image.shape[0], width=image.shape[1], encoding='rgb8',
                            step=image.shape[1] * 3)
                out.header.stamp, out.header.frame_id = stamp, f'{name}_camera'
                out.data.frombytes(image.tobytes())
                raw.publish(out)
            if compressed.get_subscription_count():
                _, jpeg = cv2.imencode('.jpg', cv2.cvtColor(image, cv2.COLOR_RGB2BGR),
                                       [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
                out = CompressedImage(format='rgb8; jpeg compressed bgr8')
                out.header.stamp, out.header.frame_id = stamp, f'{name}_camera'
                out.data.frombytes(jpeg.tobytes())
                compressed.publish(out)
