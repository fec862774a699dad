# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""A robot in MuJoCo as a ROS node, on a time of its own that it publishes as ``/clock``."""

from collections.abc import Callable

from pi0_ros.physics.models import Model
from pi0_ros.physics.robot import PhysicsRobot
from pi0_ros.ros.demo.robot_node import RobotNode, stamp
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.clock import Clock, ClockType
from rosgraph_msgs.msg import Clock as ClockMessage
from std_msgs.msg import Float64

STEP_NS = 4_000_000  # of the clock
CAMERA_HZ, JOINT_HZ, STATE_HZ = 30, 100, 50
SIZES = {320: 240, 640: 480}
GRIPPER_TOLERANCE = 0.02  # goal_tolerance, rad
START_NS = 1_000_000_000  # a time of zero is no time


class PhysicsNode(RobotNode):
    """
    Publishes what a robot would, and obeys the controllers of its profile.

    The time is the robot's: as fast as the parameter ``speed`` says, or as this machine can.
    """

    def __init__(self, model: Model, **kwargs: object) -> None:
        """
        Set the table and start. Arguments go to Node.

        :raises NotInstalled: a package that has the robot's files is not there, or this machine
            cannot draw.
        """
        super().__init__('sim', **{'namespace': model.namespace, **kwargs})
        self._declare()
        width = self.value('width')
        robot = PhysicsRobot(model, self.value('seed'), START_NS, size=(width, SIZES[width]))
        robot.image(robot.cameras[0])  # else it is told only when somebody looks
        self.show(robot, robot.cameras, robot.urdf())
        for topic, prefix in dict.fromkeys((group.joint_states, group.prefix)
                                           for group in model.groups):
            self.tell_joints(topic, [joint for group in model.groups for joint in group.joints
                                     if group.joint_states == topic], prefix)
        for number, group in enumerate(model.groups):
            self.add_controller(group.name, number, group.prefix,
                                GRIPPER_TOLERANCE if group.gripper else None)
        self._clock_topic = self.create_publisher(ClockMessage, '/clock', 10)
        self._ratio = self.create_publisher(Float64, '~/real_time_factor', 10)
        self._due: list[tuple[Callable[[], None], int, list[int]]] = [
            (what, round(1e9 / rate), [START_NS]) for what, rate in (
                (self.publish_joints, JOINT_HZ), (self.publish_state, STATE_HZ),
                (self.publish_images, CAMERA_HZ), (self._tell_ratio, 1))]
        self._wall = Clock(clock_type=ClockType.STEADY_TIME)
        self._since = self._wall.now().nanoseconds, START_NS
        self.create_timer(STEP_NS / 1e9 / self.value('speed'), self._step, clock=self._wall)
        self.get_logger().info(f"{model.name} is there; cameras {', '.join(robot.cameras)}; "
                               f'a {model.thing} at {robot.thing.round(3).tolist()}')

    def _declare(self) -> None:
        def described(text: str, **ranges: object) -> ParameterDescriptor:
            return ParameterDescriptor(description=text, read_only=True, **ranges)

        self.declare_parameter('seed', 0, described(
            'Of where the thing lies that can be taken.',
            integer_range=[IntegerRange(from_value=0, to_value=2**31 - 1)]))
        self.declare_parameter('width', 320, described(
            f"Of the images, pixels: one of {', '.join(map(str, SIZES))}.",
            integer_range=[IntegerRange(from_value=320, to_value=640, step=320)]))
        self.declare_parameter('speed', 1.0, described(
            'Of the time, at most: 1.0 is real time.',
            floating_point_range=[FloatingPointRange(from_value=0.05, to_value=10.0)]))

    def now(self) -> int:
        """Return the robot's time, nanoseconds."""
        return self.robot.now_ns

    def _step(self) -> None:
        """Let one step of the time pass, and publish what is due."""
        self.robot.advance(self.now() + STEP_NS)
        now_ns = self.now()
        self._clock_topic.publish(ClockMessage(clock=stamp(now_ns)))
        for what, period_ns, due in self._due:
            if now_ns >= due[0]:
                due[0] += period_ns
                what()

    def _tell_ratio(self) -> None:
        wall_ns, before_ns = self._since
        self._since = self._wall.now().nanoseconds, self.now()
        passed_ns = self._since[0] - wall_ns
        if passed_ns:
            self._ratio.publish(Float64(data=(self.now() - before_ns) / passed_ns))

    def destroy_node(self) -> None:
        """End what draws, too."""
        robot = getattr(self, 'robot', None)
        if robot is not None:
            robot.close()
        super().destroy_node()
