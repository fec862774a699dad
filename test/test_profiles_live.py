# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Profiles of robots, moved on kinematics: controllers that go where the node tells them."""

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')

from graph import spin_until  # noqa: E402, I100
from pi0_ros.ros.demo.robot_node import RobotNode  # noqa: E402
from pi0_ros.ros.links import gripper  # noqa: E402
from pi0_ros.ros.node import Pi0Node  # noqa: E402
from pi0_ros.sim.controller import Settings, TrajectoryController  # noqa: E402
import rclpy  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from std_msgs.msg import String  # noqa: E402
from std_srvs.srv import SetBool  # noqa: E402
from test_robots import description, profile, ROOT  # noqa: E402

STEP_NS = 2_000_000
HOMES = {'ur5e_2f85': [0, -1.57, 1.57, -1.57, -1.57, 0, 0.3],
         'openarm': [0.2, -0.2, 0.0, 0.5, 0.0, 0.0, 0.0, 0.02,
                     0.2, 0.2, 0.0, 0.5, 0.0, 0.0, 0.0, 0.02]}
FASTEST = 0.02  # of a joint in a step, rad or m: it is where it is told


class Kinematics:
    """Joints that are where their controllers want them."""

    taken = None

    def __init__(self, names, groups, home, now_ns):
        self.joint_names, self.now_ns = tuple(names), now_ns
        self.joints, self.velocity = np.array(home, float), np.zeros(len(home))
        self._columns = [[self.joint_names.index(name) for name in group] for group in groups]
        self.controllers = [TrajectoryController(group, self.joints[its], Settings())
                            for group, its in zip(groups, self._columns)]

    def accept(self, message, number=0):
        self.controllers[number].accept(message, self.now_ns)

    def advance(self, now_ns):
        while self.now_ns + STEP_NS <= now_ns:
            self.now_ns += STEP_NS
            before = self.joints.copy()
            for controller, its in zip(self.controllers, self._columns):
                wanted = controller.update(self.now_ns, self.joints[its], self.velocity[its])
                self.joints[its] += np.clip(wanted - self.joints[its], -FASTEST, FASTEST)
            self.velocity = (self.joints - before) / (STEP_NS / 1e9)

    def image(self, camera):
        return np.full((24, 32, 3), 90, np.uint8)


@pytest.mark.parametrize('name', HOMES)
def test_a_profile_moves_every_joint_of_its_robot(name):
    path = ROOT / 'config' / 'robots' / f'{name}.yaml'
    config = profile(path)
    context = rclpy.Context()
    rclpy.init(context=context)
    given = {'policy': 'mock_sine', 'mock_amplitude': '0.05'}
    if gripper.actions is None:
        given |= {f'{group.name}.{what}': how for group in config.groups
                  if group.interface == 'gripper_command'
                  for what, how in (('interface', 'joint_trajectory'), ('dead_band', '0.0'))}
    shown = [camera for camera in config.robot.cameras if camera]
    node = Pi0Node(context=context, cli_args=[
        '--ros-args', '--params-file', str(path),
        *(word for key, value in given.items() for word in ('-p', f'{key}:={value}')),
        *(word for number, camera in enumerate(shown, 1)
          for word in ('-r', f'camera_{number}/image_raw:=/{camera}/image_raw'))])
    robot = RobotNode('robot', context=context)
    robot.show(Kinematics(config.robot.commanded, [group.joints for group in config.groups],
                          HOMES[name], robot.now()), shown, description(
                              'ur5e_2f85' if name == 'ur5e_2f85' else name))
    robot.tell_joints('joint_states', config.robot.commanded)
    for number, group in enumerate(config.groups):
        robot.add_controller(group.name, number, gripper=0.01 if (
            group.interface == 'gripper_command') else None)
    for call, hz in ((robot.publish_joints, 100), (robot.publish_state, 50),
                     (robot.publish_images, 20)):
        robot.create_timer(1 / hz, call)
    executor = SingleThreadedExecutor(context=context)
    for each in (node, robot, *robot.beside):
        executor.add_node(each)
    enable = robot.create_client(SetBool, 'pi0/enable')
    instruction = robot.create_publisher(String, 'instruction', 10)
    try:
        assert node.trigger_configure().name == 'SUCCESS'
        assert node.trigger_activate().name == 'SUCCESS'
        said = []

        def armed():
            answer = enable.call_async(SetBool.Request(data=True))
            spin_until(executor, answer.done)
            said.append(answer.result())
            return said[-1].success

        spin_until(executor, enable.service_is_ready)
        spin_until(executor, armed, 30.0)
        spin_until(executor, instruction.get_subscription_count)
        instruction.publish(String(data='swing'))
        low, high = robot.robot.joints.copy(), robot.robot.joints.copy()

        def swung():
            np.minimum(low, robot.robot.joints, out=low)
            np.maximum(high, robot.robot.joints, out=high)
            slow = np.array(['finger' in joint for joint in config.robot.commanded])
            return ((high - low > 0.05) | (slow & (high - low > 0.005))).all()

        spin_until(executor, swung, 30.0)
        assert node.session.guard.fault is None and node.session.pilot.enabled
    finally:
        node.close()
        for each in (node, robot):
            each.destroy_node()
        context.try_shutdown()
