# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""A policy that takes the wrong block is taken over, in the simulator; recorded, exported."""

import os
from pathlib import Path
import sys

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')

from graph import spin_until  # noqa: E402, I100
from pi0_ros.dataset.outcome import Outcome  # noqa: E402
from pi0_ros.ros.demo.processes import Children  # noqa: E402
from pi0_ros.ros.links import qos  # noqa: E402
from pi0_ros.sim import arm, expert, world  # noqa: E402
from pi0_ros.sim.demonstration import BagWriter  # noqa: E402
from pi0_ros.verbs import export  # noqa: E402
import pyarrow.parquet  # noqa: E402
import rclpy  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.serialization import deserialize_message  # noqa: E402
from sensor_msgs.msg import CompressedImage, JointState  # noqa: E402
from std_msgs.msg import Bool, String  # noqa: E402
from std_srvs.srv import SetBool  # noqa: E402
from trajectory_msgs.msg import JointTrajectory  # noqa: E402

ROOT = Path(__file__).parents[1]
SEED, FPS, PERIOD_S = 7, 20, 0.02
SLOWLY = 0.45  # of the expert's pace: a robot at half its velocity keeps up
AHEAD = 0.12     # rad, that the person is ahead of the robot at most
SEES_S = 8.0     # after which a person sees that the robot's hand has closed on nothing
RECORDED = {
    '/joint_states': (JointState, 'sensor_msgs/msg/JointState', qos.JOINTS),
    '/joint_trajectory': (JointTrajectory, 'trajectory_msgs/msg/JointTrajectory', qos.RECORD),
    '/overhead/image_raw/compressed': (CompressedImage, 'sensor_msgs/msg/CompressedImage',
                                       qos.NEWEST),
    '/wrist/image_raw/compressed': (CompressedImage, 'sensor_msgs/msg/CompressedImage',
                                    qos.NEWEST),
    '/pi0/active_instruction': (String, 'std_msgs/msg/String', qos.LATCHED),
    '/robot_description': (String, 'std_msgs/msg/String', qos.LATCHED),
    '/pi0/led': (Bool, 'std_msgs/msg/Bool', qos.LATCHED),
    '/pi0/episode_result': (String, 'std_msgs/msg/String', qos.RECORD)}


class Person:
    """Presses the switch and moves a leader arm, which here is another simulated one."""

    def __init__(self, node):
        self.node, self.joints, self.taken, self.led = node, None, '', []
        self.leader = node.create_publisher(JointState, 'pi0/takeover', qos.NEWEST)
        self.switch = node.create_publisher(Bool, 'pi0/takeover_enable', qos.NEWEST)
        self.instruction = node.create_publisher(String, 'instruction', 10)
        self.episode = node.create_publisher(String, 'pi0/episode', 10)
        self.enable = node.create_client(SetBool, 'pi0/enable')
        node.create_subscription(JointState, 'joint_states', self._on_joints, qos.NEWEST)
        node.create_subscription(String, 'sim/taken', self._on_taken, qos.LATCHED)
        node.create_timer(PERIOD_S, self._work)
        self.pressed, self.table, self.command = None, None, None

    def _on_joints(self, message):
        places = dict(zip(message.name, message.position))
        self.joints = np.array([places[name] for name in arm.JOINT_NAMES])

    def _on_taken(self, message):
        self.taken = message.data

    def begin(self):
        """Hold the leader as the robot stands, before the same table."""
        self.table = world.random_world(np.random.default_rng(SEED))
        self.table.joints[0] = self.joints
        self.command = self.table.joints.copy()
        self.held_s = 0.0

    def _work(self):
        if self.pressed is not None:
            self.switch.publish(Bool(data=self.pressed))
        if self.table is not None:
            red = np.array([world.COLOURS.index('red')])
            step_s = SLOWLY * PERIOD_S
            if np.abs(self.joints - self.table.joints[0])[:-1].max() < AHEAD:
                self.command = expert.advance(self.table, self.command, red, step_s)
                world.step(self.table, self.command, step_s)
                self.held_s += PERIOD_S * (self.table.held[0] == red[0])
            if self.held_s > SEES_S and self.taken != 'red':
                self.begin()  # the robot was late when the hand closed
            message = JointState(name=list(arm.JOINT_NAMES),
                                 position=self.table.joints[0].tolist())
            message.header.stamp = self.node.get_clock().now().to_msg()
            self.leader.publish(message)


@pytest.mark.live
@pytest.mark.xdist_group('live')
def test_a_wrong_policy_is_taken_over_and_the_recording_says_when(tmp_path):
    children = Children(dict(os.environ), tmp_path)
    config = ['--ros-args', '--params-file', str(ROOT / 'config' / 'sim.yaml')]
    run = [sys.executable, '-m', 'pi0_ros']
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node('person', context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    bag, person, led, results = BagWriter(tmp_path / 'bag'), Person(node), [], []

    def now():
        return node.get_clock().now().nanoseconds

    def hear(topic, kind, raw):
        bag.write_raw(topic, kind, now(), raw)
        if topic == '/pi0/led':
            led.append((now(), deserialize_message(raw, Bool).data))
        elif topic == '/pi0/episode_result':
            results.append(Outcome.from_json(deserialize_message(raw, String).data))

    for topic, (kind, name, profile) in RECORDED.items():
        node.create_subscription(kind, topic, lambda raw, topic=topic, name=name: hear(
            topic, name, raw), profile, raw=True)
    try:
        children.start('sim', [*run, 'sim', *config, '-p', f'seed:={SEED}'])
        children.start('node', [*run, 'node', *config, '-p', 'takeover_mode:=absolute', '-r',
                                'camera_1/image_raw:=overhead/image_raw', '-r',
                                'camera_2/image_raw:=wrist/image_raw'])
        spin_until(executor, person.enable.service_is_ready, 90.0)
        answers = []

        def armed():
            if not answers or answers[-1].done() and not answers[-1].result().success:
                answers.append(person.enable.call_async(SetBool.Request(data=True)))
            return answers[-1].done() and answers[-1].result().success

        spin_until(executor, armed, 90.0)
        home = person.joints.copy()
        # The person meant the red one.
        person.instruction.publish(String(data='pick up the green block'))
        spin_until(executor, lambda: np.abs(person.joints - home).max() > 0.15, 30.0)
        person.pressed = True
        spin_until(executor, lambda: led and led[-1][1], 10.0)
        stood = [person.joints]

        def rests():
            stood.append(person.joints)
            return len(stood) > 40 and np.ptp(stood[-30:], axis=0).max() < 1e-3

        spin_until(executor, rests, 20.0)
        person.begin()
        spin_until(executor, lambda: person.taken == 'red', 120.0)
        person.instruction.publish(String(data='pick up the red block'))
        person.pressed = False
        spin_until(executor, lambda: not led[-1][1], 10.0)
        person.pressed = person.table = None
        end_ns = now() + 2 * 10**9
        spin_until(executor, lambda: now() > end_ns, 20.0)
        assert person.taken == 'red'  # the policy holds on to it
        person.episode.publish(String(data='success: a person helped'))
        spin_until(executor, lambda: results, 10.0)
    finally:
        children.end()
        bag.close()
        executor.shutdown()
        node.destroy_node()
        context.try_shutdown()
    times = [at for at, _ in led]
    assert [value for _, value in led] == [False, True, False]
    assert (results[0].instruction, results[0].outcome) == ('pick up the red block', 'success')
    assert len(results[0].checkpoint) == 16 and results[0].takeovers == 1
    folder = tmp_path / 'set'
    assert export.main([str(tmp_path / 'bag'), '--dataset', str(folder), '--fps', str(FPS),
                        '--params-file', str(ROOT / 'config' / 'sim.yaml'), '--min-seconds',
                        '0.1']) == 0
    told = pyarrow.parquet.read_table(next((folder / 'meta' / 'episodes').rglob('*.parquet')))
    judged = set(zip((tasks[0] for tasks in told['tasks'].to_pylist()),
                     told['success'].to_pylist()))
    assert judged == {('pick up the green block', None), ('pick up the red block', True)}
    rows = sum(table['intervention'].to_pylist().count(True) for table in map(
        pyarrow.parquet.read_table, sorted((folder / 'data').rglob('*.parquet'))))
    led_for = FPS * (times[2] - times[1]) / 1e9  # a busy machine loses some of them
    assert 0.8 * led_for - 3 < rows < led_for + 3
