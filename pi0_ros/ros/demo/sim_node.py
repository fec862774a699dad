# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The simulated robot as a ROS node."""

from collections.abc import Sequence

import numpy as np
from pi0_ros.ros.demo.robot_node import RobotNode
from pi0_ros.sim import arm, render
from pi0_ros.sim.controller import KINDS, Settings
from pi0_ros.sim.description import urdf
from pi0_ros.sim.robot import SimulatedRobot
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from std_msgs.msg import Float64
from std_srvs.srv import Trigger

CAMERA_HZ, JOINT_HZ, STATE_HZ = 30, 100, 50
GROUPS = {'arm': arm.JOINT_NAMES[:arm.GRIPPER], 'gripper': arm.JOINT_NAMES[arm.GRIPPER:]}
GRIPPER_TOLERANCE = 0.002  # m
LAG_LIMIT_NS = 1_000_000_000  # a clock that jumps further does not make the physics run after it


class SimNode(RobotNode):
    """Publishes what a robot would and obeys ``joint_trajectory``."""

    def __init__(self, **kwargs: object) -> None:
        """Set the table and start. Arguments go to Node."""
        super().__init__('sim', **kwargs)
        self._declare()
        groups = self.value('groups')
        robot = SimulatedRobot(self.value('seed'), self.now(), Settings(
            self.value('controller'), self.value('interpolate_from_desired_state'),
            self.value('update_rate'), self.value('allow_trajectory_replacement')),
            groups=GROUPS.values() if groups else (arm.JOINT_NAMES,))
        self._shuffle_rng = np.random.default_rng(0)
        names = [name for name in render.CAMERAS if name != 'side' or self.value('third_camera')]
        self.show(robot, names, urdf())
        self.tell_joints('joint_states', arm.JOINT_NAMES)
        self._scaling = self.create_publisher(Float64, '~/speed_scaling', 10)
        if groups:
            for number, name in enumerate(GROUPS):
                self.add_controller(name, number,
                                    gripper=GRIPPER_TOLERANCE if name == 'gripper' else None)
        else:
            self.follow(self, 'joint_trajectory', 0)
        self.create_timer(1 / STATE_HZ, self._publish_state)
        self.create_service(Trigger, '~/reset', self._on_reset)
        self.create_timer(1 / JOINT_HZ, self.publish_joints)
        self.create_timer(1 / CAMERA_HZ, self.publish_images)
        self.get_logger().info(f"table {self.value('seed')} is set; cameras {', '.join(names)}")

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

    def advance(self) -> None:
        """Let the robot's time run until now, or jump there."""
        now_ns = self.now()
        if abs(now_ns - self.robot.now_ns) > LAG_LIMIT_NS:
            self.robot.now_ns = now_ns
        super().advance()

    def order(self, count: int) -> Sequence[int]:
        """Return in which order the joints of a message are."""
        return self._shuffle_rng.permutation(count) if self.value('shuffle_joints') else (
            super().order(count))

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response
                  ) -> Trigger.Response:
        self.robot.reset(self.value('seed'), self.now())
        response.success = True
        response.message = f"table {self.value('seed')} is set"
        self.get_logger().info(response.message)
        return response

    def _publish_state(self) -> None:
        scaling = self.value('speed_scaling') / 100
        self._scaling.publish(Float64(data=100 * scaling))
        self.publish_state(scaling)
