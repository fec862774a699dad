# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""A private ROS graph for one test: fake robot, operator, and the node in one process."""

from collections.abc import Callable
import time

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
import numpy as np
from pi0_ros.control import teller
from pi0_ros.observation.decoding import to_ns
from pi0_ros.ros import control_loop
from pi0_ros.ros.links import qos
from pi0_ros.ros.node import Pi0Node
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import Float64MultiArray, String
from std_srvs.srv import SetBool, Trigger
from support import robot_urdf
from trajectory_msgs.msg import JointTrajectory

JOINTS = ('a', 'b')
TIMEOUT_S = 20.0
# A busy machine lets everything wait, for seconds at times: inputs, threads and the policy may be
# late here. Tests of lateness itself set their own ages, or ask for those of a node.
PATIENT = {'max_joint_age': 5.0, 'max_image_age': 5.0, 'max_skew': 5.0, 'max_chunk_age': 10.0,
           'max_inference_time': 60.0}
PATIENCE_NS = 60 * 10**9  # after which a clock counts as having jumped, a thread as hanging
CLOCK_JUMP_NS, STALLED_NS = teller.CLOCK_JUMP_NS, control_loop.STALLED_NS  # as a node is


def spin_until(executor, done: Callable[[], object], timeout_s: float = TIMEOUT_S):
    """Let callbacks run until ``done`` is true; fail when the time is over."""
    end = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < end, f'waited {timeout_s} s in vain'
        executor.spin_once(timeout_sec=0.02)


def ways(message):
    """Return the times, ns, and the places of each joint of a trajectory."""
    times = [to_ns(message.header.stamp) + to_ns(point.time_from_start)
             for point in message.points]
    return {name: (times, way) for name, way in zip(
        message.joint_names, zip(*(point.positions for point in message.points)))}


class Robot(Node):
    """Publishes what a test tells it to, and remembers what the node says."""

    def __init__(self, context, namespace):
        super().__init__('robot', context=context, namespace=namespace)
        self.images = self.create_publisher(Image, 'camera_1/image_raw', 2)
        self.jpegs = self.create_publisher(CompressedImage, 'camera_1/image_raw/compressed', 2)
        self.joints = self.create_publisher(JointState, 'joint_states', 2)
        self.description = self.create_publisher(String, 'robot_description', qos.LATCHED)
        self.instruction = self.create_publisher(String, 'instruction', 10)
        self.clock_publisher = self.create_publisher(Clock, '/clock', 10)
        self.commands, self.chunks, self.statuses, self.active = [], [], [], []
        self.positions = []
        self.create_subscription(Float64MultiArray, 'position_commands', self._on_positions, 50)
        self.diagnostics = {}
        self.commands_in = self.create_subscription(JointTrajectory, 'joint_trajectory',
                                                    self._on_command, 50)
        self.create_subscription(JointTrajectory, 'pi0/action_chunk', self.chunks.append, 50)
        self.create_subscription(DiagnosticStatus, 'pi0/status', self.statuses.append,
                                 qos.LATCHED)
        self.create_subscription(String, 'pi0/active_instruction',
                                 lambda message: self.active.append(message.data), qos.LATCHED)
        self.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)
        self.enable_client = self.create_client(SetBool, 'pi0/enable')
        self.reset_client = self.create_client(Trigger, 'pi0/reset')
        self.position, self.names = [0.1, 0.2], list(JOINTS)
        self.follows = True  # what it is told; else it stays at ``position``
        self._ways = {}      # of each joint: times and places
        self.image = {'height': 4, 'width': 4, 'encoding': 'rgb8', 'step': 12, 'data': bytes(48)}
        self.feeds = {'joints', 'images'}
        self.now_ns = None  # of simulated time

    def _on_command(self, message):
        self.commands.append(message)
        self.follow(message)

    def follow(self, message):
        """Do from now on what a trajectory says, to its end, as a controller does."""
        for name, (times, way) in ways(message).items():
            if times[0] > to_ns(message.header.stamp):  # the first piece of a motion
                times = [self.now(), *times]
                way = [dict(zip(self.names, self.position)).get(name, way[0]), *way]
            self._ways[name] = times, way

    def _on_positions(self, message):
        self.positions.append(message)
        if self.follows:
            self.position = list(message.data)

    def _on_diagnostics(self, message):
        for part in message.status:
            self.diagnostics[part.name] = part

    def now(self):
        """Return the time, ns."""
        return self.get_clock().now().nanoseconds if self.now_ns is None else self.now_ns

    def stamp(self):
        return rclpy.time.Time(nanoseconds=self.now()).to_msg()

    def feed(self):
        """Move, and publish the inputs that are not switched off."""
        for index, name in enumerate(self.names):
            if self.follows and name in self._ways:
                self.position[index] = float(np.interp(self.now(), *self._ways[name]))
        if 'joints' in self.feeds:
            message = JointState(name=self.names, position=self.position)
            message.header.stamp = self.stamp()
            self.joints.publish(message)
        if 'images' in self.feeds:
            image = Image(**self.image)
            image.header.stamp = self.stamp()
            self.images.publish(image)

    def starts(self):
        """Return the first position of joint a in every command."""
        return np.array([message.points[0].positions[0] for message in self.commands])

    def jumps(self):
        """Return how far commands begin from where the one before is at that time."""
        out = []
        for before, after in zip(map(ways, self.commands), map(ways, self.commands[1:])):
            out += [abs(way[0] - np.interp(times[0], *before[name]))
                    for name, (times, way) in after.items()]
        return np.array(out)


class Graph:
    """
    A robot and a node that talk to each other and to nobody else.

    :param patient: whether inputs and chunks may be older than a node usually lets them be.
    :param hangs_ns: after which the control thread counts as hanging.
    """

    def __init__(self, use_sim_time=False, namespace='', urdf=None, patient=True,
                 hangs_ns=PATIENCE_NS, **parameters):
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.robot = Robot(self.context, namespace)
        values = {'policy': 'mock_sine', 'joint_names': list(JOINTS), 'cameras': ['front'],
                  'use_sim_time': use_sim_time, **(PATIENT if patient else {}), **parameters}
        self.node = Pi0Node(context=self.context, namespace=namespace, parameter_overrides=[
            Parameter(name, value=value) for name, value in values.items()])
        control_loop.STALLED_NS = hangs_ns
        teller.CLOCK_JUMP_NS = CLOCK_JUMP_NS if use_sim_time else PATIENCE_NS
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.robot)
        self.executor.add_node(self.node)
        self.robot.description.publish(String(data=urdf or robot_urdf(**{
            name: 'revolute -2 2 1' if name in JOINTS else 'revolute -999 999 99'
            for name in values['joint_names']})))
        self._feeding = self.robot.create_timer(0.01, self.robot.feed)

    def start(self):
        """Bring the node to active; its inputs arrive."""
        assert self.node.trigger_configure().name == 'SUCCESS'
        assert self.node.trigger_activate().name == 'SUCCESS'
        robot, session = self.robot, self.node.session
        self.wait(lambda: not session.pilot.limits.unknown
                  and robot.instruction.get_subscription_count()
                  and not session.commands.missing() and robot.commands_in)
        self.wait(lambda: session.inputs.problem(session.now()) is None)
        return self

    def wait(self, done, timeout_s=TIMEOUT_S):
        """Let callbacks run until ``done``."""
        spin_until(self.executor, done, timeout_s)

    def call(self, client, request):
        """Call a service; return its answer."""
        self.wait(client.service_is_ready)
        answer = client.call_async(request)
        self.wait(answer.done)
        return answer.result()

    def enable(self, on=True):
        """Call ~/enable; again where a busy machine let inputs become old, and none is off."""
        for _ in range(20):
            answer = self.call(self.robot.enable_client, SetBool.Request(data=on))
            if not (on and ' s old' in answer.message and self.robot.feeds == {'joints', 'images'}
                    ) or answer.success:
                break
        return answer

    def reset(self):
        """Call ~/reset."""
        return self.call(self.robot.reset_client, Trigger.Request())

    def instruct(self, text):
        """Publish an instruction and wait until the node has taken or refused it."""
        before = len(self.robot.active)
        self.robot.instruction.publish(String(data=text))
        self.wait(lambda: len(self.robot.active) > before)

    def quiet(self):
        """
        Wait until the node publishes no more commands; return how many there were.

        Thirty control periods are time enough for another inference and its command.
        """
        session = self.node.session
        self.wait(lambda: not session.pilot.speaking)
        ticks = session.loop.ticks
        self.wait(lambda: session.loop.ticks > ticks + 30)
        assert not session.pilot.speaking
        return len(self.robot.commands)

    def status(self, state, words=''):
        """Wait until ~/status tells ``state``, and ``words``; return its message."""
        def told():
            latest = self.robot.statuses[-1:] and self.robot.statuses[-1]
            return latest and words in latest.message and {'state': state}.items() <= {
                pair.key: pair.value for pair in latest.values}.items()
        self.wait(told)
        return self.robot.statuses[-1].message

    def close(self):
        """End everything."""
        control_loop.STALLED_NS, teller.CLOCK_JUMP_NS = STALLED_NS, CLOCK_JUMP_NS
        self.node.close()
        self.executor.shutdown()
        self.node.destroy_node()
        self.robot.destroy_node()
        rclpy.shutdown(context=self.context)
