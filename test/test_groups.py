"""One plan, several controllers: arm and gripper, or left and right, on their own."""

from functools import partial

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')

import rclpy  # noqa: E402
from sensor_msgs.msg import JointState  # noqa: E402
from std_msgs.msg import Float64MultiArray  # noqa: E402
from trajectory_msgs.msg import JointTrajectory  # noqa: E402

from graph import Graph  # noqa: E402
from pi0_ros.ros.links import gripper  # noqa: E402

KINDS = {'joint_trajectory': (JointTrajectory, 'joint_trajectory'),
         'positions': (Float64MultiArray, 'commands'),
         'velocities': (Float64MultiArray, 'commands'),
         'joint_state_command': (JointState, 'joint_command')}


class Hand:
    """A controller of joint b that is moved by what it is told, in its own way."""

    def __init__(self, graph, interface):
        self.graph, self.interface, self.heard = graph, interface, []
        kind, topic = KINDS[interface]
        graph.robot.create_subscription(kind, f'hand/{topic}', self._on, 50)
        if interface == 'velocities':
            graph.robot.create_timer(0.01, self._turn)
        self.speed = 0.0

    def _on(self, message):
        self.heard.append(message)
        if self.interface == 'joint_trajectory':
            assert message.joint_names == ['b']
            self.graph.robot.position[1] = message.points[0].positions[0]
        elif self.interface == 'joint_state_command':
            self.graph.robot.position[1] = dict(zip(message.name, message.position))['b']
        elif self.interface == 'positions':
            self.graph.robot.position[1], = message.data
        else:
            self.speed, = message.data

    def _turn(self):
        self.graph.robot.position[1] += 0.01 * self.speed


def on_arm(graph, arm):
    """Let joint a follow, as a controller that refuses joints it does not have."""
    def follow(message):
        arm.append(message)
        assert message.joint_names == ['a'], 'foreign joints are refused'
        graph.robot.position[0] = message.points[0].positions[0]

    graph.robot.create_subscription(JointTrajectory, 'arm/joint_trajectory', follow, 50)


def arm(graph):
    """Arm as soon as that can be done on a busy machine; return what is answered."""
    said = []
    graph.wait(lambda: said.append(graph.enable()) or said[-1].success)
    return said[-1].message


@pytest.fixture
def make():
    made = []

    def build(interface, start=True, **parameters):
        graph = Graph(commands=['arm', 'hand'], **{
            'arm.joints': ['a'], 'hand.joints': ['b'], 'hand.interface': interface,
            'control_rate': 50.0, **parameters})
        made.append(graph)
        graph.arm = []
        on_arm(graph, graph.arm)
        graph.robot.destroy_subscription(graph.robot.commands_in)
        graph.hand = Hand(graph, interface) if interface in KINDS else None
        return graph.start() if start else graph

    yield build
    for graph in made:
        graph.close()


@pytest.mark.parametrize('interface', KINDS)
def test_two_controllers_are_told_one_plan_each_its_joints(make, interface):
    graph = make(interface)
    arm(graph)
    graph.instruct('swing')
    graph.wait(lambda: len(graph.arm) > 80 and len(graph.hand.heard) > 80)
    assert graph.node.session.pilot.enabled
    moved = graph.robot.position[1]
    told = graph.node.session.pilot.told(np.array([graph.node.session.now()]))[0, 1]
    assert moved == pytest.approx(told, abs=0.05)
    graph.enable(False)
    graph.quiet()
    if interface == 'velocities':
        graph.wait(lambda: graph.hand.heard[-1].data[0] == 0.0)
    elif interface == 'positions':
        steps = np.diff([message.data[0] for message in graph.hand.heard])
        assert np.abs(steps).max() < 0.03 and np.abs(steps[-1]) < 5e-3


def test_two_arms_whose_joints_have_the_same_names_each_in_a_namespace():
    graph = Graph(joint_names=['left/x', 'right/x'], commands=['left_arm', 'right_arm'], **{
        f'{side}_arm.{key}': value for side in ('left', 'right') for key, value in {
            'joints': [f'{side}/x'], 'prefix': f'{side}/',
            'joint_states': f'{side}_arm/joint_states'}.items()})
    places, told = {'left': 0.1, 'right': -0.2}, {'left': [], 'right': []}

    def on(side, message):
        assert message.joint_names == ['x']
        told[side].append(message)
        places[side] = message.points[0].positions[0]

    publishers = {}
    for side in places:
        graph.robot.create_subscription(JointTrajectory, f'{side}_arm/joint_trajectory',
                                        partial(on, side), 50)
        publishers[side] = graph.robot.create_publisher(
            JointState, f'{side}_arm/joint_states', 5)

    def feed():
        for side, publisher in publishers.items():
            message = JointState(name=['x'], position=[places[side]], effort=[0.5])
            message.header.stamp = graph.robot.stamp()
            publisher.publish(message)

    try:
        graph.robot.create_timer(0.01, feed)
        graph.start()
        arm(graph)
        graph.instruct('swing')
        graph.wait(lambda: min(map(len, told.values())) > 50)
        np.testing.assert_allclose(list(places.values()), graph.node.session.pilot.told(
            np.array([graph.node.session.now()]))[0], atol=0.05)
    finally:
        graph.close()


def test_one_controller_that_goes_stops_all(make):
    graph = make('positions')
    arm(graph)
    graph.instruct('swing')
    graph.wait(lambda: len(graph.arm) > 30)
    hand = next(one for one in graph.robot.subscriptions if one.topic_name == '/hand/commands')
    graph.robot.destroy_subscription(hand)
    said = graph.status('disarmed', "no longer follows '/hand/commands' (b)")
    assert 'start it, then arm again' in said


def test_velocities_are_zero_after_a_hole_and_after_a_failure(make):
    graph = make('velocities')
    session = graph.node.session
    arm(graph)
    graph.instruct('swing')
    graph.wait(lambda: len(graph.hand.heard) > 40 and abs(graph.hand.speed) > 1e-3)
    heard = len(graph.hand.heard)
    session.guard.tick = lambda now_ns: 1 / 0
    graph.wait(lambda: len(graph.hand.heard) > heard and graph.hand.speed == 0.0)
    assert session.guard.fault.reason == 'control_failed'


def test_without_control_msgs_a_gripper_command_is_refused_by_name(monkeypatch, make):
    monkeypatch.setattr(gripper, 'actions', None)
    graph = make('gripper_command', start=False)
    assert graph.node.trigger_configure().name == 'FAILURE'


class Gripper:
    """A gripper action server that does what ``how`` says with every goal."""

    def __init__(self, graph, how='goes', kind='GripperCommand'):
        from rclpy.action import ActionServer, CancelResponse, GoalResponse
        self.graph, self.how, self.goals, self.efforts = graph, how, [], []
        self.kind = getattr(gripper.actions, kind)
        self.server = ActionServer(
            graph.robot, self.kind, 'hand/gripper_cmd', self._run,
            goal_callback=lambda goal: (GoalResponse.REJECT if self.how == 'rejects' else
                                        GoalResponse.ACCEPT),
            cancel_callback=lambda goal: CancelResponse.ACCEPT)

    def _run(self, handle):
        command = handle.request.command
        if self.kind is gripper.actions.GripperCommand:
            self.goals.append(command.position)
            self.efforts.append(command.max_effort)
        else:
            assert list(command.name) == ['b']
            self.goals.append(command.position[0])
            self.efforts.append(command.effort[0])
        self.graph.robot.position[1] = self.goals[-1]
        result = self.kind.Result()
        if self.how == 'goes':
            handle.succeed()
            result.reached_goal = True
        else:
            handle.abort()
            result.stalled = self.how == 'holds'
        return result


needs_control_msgs = pytest.mark.skipif(gripper.actions is None, reason='needs control_msgs')


@pytest.fixture
def gripping(make):
    def build(how='goes', kind='GripperCommand', **parameters):
        graph = make('gripper_command', start=False, **{
            'gripper_joints': ['b'], 'hand.max_effort': 12.5, **parameters})
        graph.hand = Gripper(graph, how, kind)
        return graph.start()
    return build


@needs_control_msgs
@pytest.mark.parametrize('kind', gripper.KINDS)
def test_a_gripper_gets_goals_when_the_wanted_width_changes(gripping, kind):
    graph = gripping(kind=kind, **{'hand.dead_band': 0.01})
    assert '/hand/gripper_cmd' in arm(graph)
    graph.instruct('swing')
    graph.wait(lambda: len(graph.arm) > 100)
    goals = np.array(graph.hand.goals)
    assert 3 < len(goals) < 100 and (np.abs(np.diff(goals)) > 0.01).all()
    assert set(graph.hand.efforts) == {12.5} and graph.node.session.pilot.enabled
    graph.enable(False)
    graph.quiet()
    assert abs(graph.hand.goals[-1] - graph.node.session.pilot.plan.rest[1]) <= 0.01


@needs_control_msgs
def test_a_thing_in_the_hand_is_no_failure(gripping):
    graph = gripping('holds')
    arm(graph)
    graph.instruct('swing')
    graph.wait(lambda: len(graph.hand.goals) > 3)
    assert graph.node.session.pilot.enabled


@needs_control_msgs
@pytest.mark.parametrize('how, words', [
    ('rejects', "the gripper '/hand/gripper_cmd' (b) refused to go to"),
    ('fails', "the gripper '/hand/gripper_cmd' (b) gave up")])
def test_a_gripper_that_refuses_or_fails_stops_the_arm_until_armed_again(gripping, how, words):
    graph = gripping(how)
    arm(graph)
    graph.instruct('swing')
    graph.status('disarmed', words)
    graph.quiet()
    graph.hand.how = 'goes'
    arm(graph)
    graph.wait(lambda: len(graph.hand.goals) > 3 and graph.node.session.pilot.enabled)


@needs_control_msgs
def test_a_gripper_that_goes_away_stops_the_arm(gripping):
    graph = gripping()
    arm(graph)
    graph.instruct('swing')
    graph.wait(lambda: len(graph.hand.goals) > 3)
    graph.hand.server.destroy()
    graph.status('disarmed', "/hand/gripper_cmd no longer follows '/hand/gripper_cmd' (b)")
    refused = graph.enable()
    assert not refused.success
    assert "no gripper action '/hand/gripper_cmd' of type GripperCommand or" in refused.message


@needs_control_msgs
def test_a_gripper_that_never_answers_stops_the_arm(gripping, monkeypatch):
    monkeypatch.setattr(gripper, 'ANSWER_S', 0.3)
    graph = gripping()
    arm(graph)
    client = next(iter(each for each in graph.node.session.commands if each.group.name == 'hand'))
    monkeypatch.setattr(client._client, 'send_goal_async', lambda goal: rclpy.task.Future())
    graph.instruct('swing')
    graph.status('disarmed', 'does not answer')
