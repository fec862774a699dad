# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""One plan, several controllers: arm and gripper, or left and right, on their own."""

from dataclasses import replace
from functools import partial
import re
import time
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')

from graph import Graph  # noqa: E402, I100
from pi0_ros.checkpoint.config import RobotConfig  # noqa: E402
from pi0_ros.configuration.configuration import Configuration  # noqa: E402
from pi0_ros.control.config import ControlConfig, GroupConfig  # noqa: E402
from pi0_ros.ros.demo import gripper_server  # noqa: E402
from pi0_ros.ros.links import gripper, managers  # noqa: E402
import rclpy  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from sensor_msgs.msg import JointState  # noqa: E402
from std_msgs.msg import Float64MultiArray  # noqa: E402
from trajectory_msgs.msg import JointTrajectory  # noqa: E402

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
        self.speed, self.turned_s = 0.0, time.monotonic()

    def _on(self, message):
        self.heard.append(message)
        if self.interface == 'joint_trajectory':
            assert message.joint_names == ['b']
            self.graph.robot.follow(message)
        elif self.interface == 'joint_state_command':
            self.graph.robot.position[1] = dict(zip(message.name, message.position))['b']
        elif self.interface == 'positions':
            self.graph.robot.position[1], = message.data
        else:
            self.speed, = message.data

    def _turn(self):
        since_s, self.turned_s = self.turned_s, time.monotonic()
        self.graph.robot.position[1] += (self.turned_s - since_s) * self.speed


def on_arm(graph, arm):
    """Let joint a follow, as a controller that refuses joints it does not have."""
    def follow(message):
        arm.append(message)
        assert message.joint_names == ['a'], 'foreign joints are refused'
        graph.robot.follow(message)

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
    session = graph.node.session  # what is told now is heard a moment later

    def as_told():
        told = session.pilot.told(np.array([session.now()]))[0, 1]
        return abs(told - 0.2) > 0.05 and abs(graph.robot.position[1] - told) < 0.02

    graph.wait(as_told)
    assert session.pilot.enabled
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
    home, told = [0.1, -0.2], {'left': [], 'right': []}
    graph.robot.names, graph.robot.position = ['left/x', 'right/x'], list(home)

    def on(side, message):
        assert message.joint_names == ['x']
        told[side].append(message)
        message.joint_names = [f'{side}/x']
        graph.robot.follow(message)

    publishers = {}
    for side in told:
        graph.robot.create_subscription(JointTrajectory, f'{side}_arm/joint_trajectory',
                                        partial(on, side), 50)
        publishers[side] = graph.robot.create_publisher(
            JointState, f'{side}_arm/joint_states', 5)

    def feed():
        for publisher, place in zip(publishers.values(), graph.robot.position):
            message = JointState(name=['x'], position=[place], effort=[0.5])
            message.header.stamp = graph.robot.stamp()
            publisher.publish(message)

    try:
        graph.robot.create_timer(0.01, feed)
        graph.start()
        arm(graph)
        graph.instruct('swing')
        graph.wait(lambda: min(map(len, told.values())) > 50)
        session = graph.node.session

        def as_told():
            told = session.pilot.told(np.array([session.now()]))[0]
            return (np.abs(told - home).min() > 0.05
                    and np.abs(told - graph.robot.position).max() < 0.02)

        graph.wait(as_told)
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


def test_velocities_are_zero_after_deactivation_whatever_became_of_the_stop(make):
    graph = make('velocities')
    session = graph.node.session
    arm(graph)
    graph.instruct('swing')
    graph.wait(lambda: len(graph.hand.heard) > 40 and abs(graph.hand.speed) > 1e-3)
    session.guard.disarm = lambda finding: None  # the plan does not come to rest
    graph.node.trigger_deactivate()
    graph.wait(lambda: graph.hand.speed == 0.0)


def test_velocities_are_as_slow_as_the_controllers_time(make):
    graph = make('velocities')
    arm(graph)
    graph.instruct('swing')
    graph.wait(lambda: len(graph.hand.heard) > 20)
    commands, sent = graph.node.session.commands, []
    hand = next(each for each in commands if each.group.interface == 'velocities')
    hand.publish = lambda trajectory, speed: sent.append(speed[0])
    pilot = graph.node.session.pilot
    told = pilot.newest
    fast = replace(told, speed=np.array([0.0, 0.4]))
    with pilot.lock:  # as whoever tells commands has it
        pilot.scale.factor, before = 0.25, pilot.scale.factor
        commands.publish(fast, pilot, None)
        pilot.scale.factor = before
    assert any(speed == pytest.approx(0.1) for speed in sent)


@pytest.mark.parametrize('how', [{'command_interface': 'gripper_command'}, {
    'commands': ('arm', 'hand'), 'blocks': {'arm': GroupConfig(joints=('a',)), 'hand': GroupConfig(
        'gripper_command', ('b', 'c'))}}])
def test_a_gripper_action_has_one_joint(how):
    blocks = how.pop('blocks', {})
    config = Configuration(robot=RobotConfig(('a', 'b', 'c'), cameras=('x',)),
                           control=ControlConfig(**how), blocks=blocks)
    assert any('a gripper_command has one joint' in text for text in config.problems())


def test_without_control_msgs_a_gripper_command_is_refused_and_leaves_nothing(monkeypatch, make):
    monkeypatch.setattr(gripper, 'actions', None)
    graph = make('gripper_command', start=False)
    assert graph.node.trigger_configure().name == 'FAILURE'
    assert not graph.node.count_publishers('/arm/joint_trajectory')
    refused = graph.node.set_parameters([Parameter('commands', value=['arm'])])[0]
    assert not refused.successful and 'say it where the node is started' in refused.reason


class Gripper:
    """A gripper action server that does what ``how`` says with every goal."""

    def __init__(self, graph, how='goes', kind='GripperCommand'):
        from rclpy.action import ActionServer, CancelResponse
        self.asked = 0
        self.graph, self.how, self.goals, self.efforts = graph, how, [], []
        self.kind = getattr(gripper.actions, kind)
        self.server = ActionServer(
            graph.robot, self.kind, 'hand/gripper_cmd', self._run,
            goal_callback=self._judge,
            cancel_callback=lambda goal: CancelResponse.ACCEPT)

    def _judge(self, goal):
        from rclpy.action import GoalResponse
        self.asked += 1
        return GoalResponse.REJECT if self.how == 'rejects' else GoalResponse.ACCEPT

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
    asked, graph.hand.how = graph.hand.asked, 'goes'
    ticks = graph.node.session.loop.ticks
    graph.wait(lambda: graph.node.session.loop.ticks > ticks + 50)
    assert graph.hand.asked == asked, 'goals while disarmed'
    arm(graph)
    graph.wait(lambda: graph.hand.asked > asked + 3 and graph.node.session.pilot.enabled)


@needs_control_msgs
def test_after_arming_a_gripper_is_told_again_where_to_be(gripping):
    """Somebody may have moved it meanwhile."""
    graph = gripping(policy='mock_hold')
    arm(graph)
    graph.instruct('stay')
    graph.wait(lambda: graph.hand.goals)
    graph.enable(False)
    graph.quiet()
    asked = graph.hand.asked
    arm(graph)
    graph.wait(lambda: graph.hand.asked > asked)


@needs_control_msgs
def test_a_server_that_takes_one_goal_at_a_time_gets_one_and_may_abort(gripping):
    graph = gripping('fails', **{'hand.sequential': True})
    client = next(each for each in graph.node.session.commands if each.group.name == 'hand')
    send, under_way = client._client.send_goal_async, []

    def watched(goal):
        under_way.append(client._running)
        return send(goal)

    client._client.send_goal_async = watched
    arm(graph)
    graph.instruct('swing')
    graph.wait(lambda: len(graph.hand.goals) > 3)
    assert graph.node.session.pilot.enabled and len(graph.hand.goals) <= len(under_way)


@needs_control_msgs
def test_a_gripper_that_goes_away_stops_the_arm(gripping):
    """As rclpy tells it: within one process a server that has goals outlives its destruction."""
    graph = gripping()
    arm(graph)
    graph.instruct('swing')
    graph.wait(lambda: len(graph.hand.goals) > 3)
    client = next(each for each in graph.node.session.commands if each.group.name == 'hand')
    client._client.server_is_ready = lambda: False
    graph.status('disarmed', "'/hand/gripper_cmd' (b)")
    graph.wait(lambda: "no gripper action '/hand/gripper_cmd' of type GripperCommand or" in (
        graph.enable().message))


@needs_control_msgs
def test_a_gripper_that_never_answers_stops_the_arm(gripping, monkeypatch):
    monkeypatch.setattr(gripper, 'ANSWER_S', 0.3)
    graph = gripping()
    arm(graph)
    client = next(iter(each for each in graph.node.session.commands if each.group.name == 'hand'))
    monkeypatch.setattr(client._client, 'send_goal_async', lambda goal: rclpy.task.Future())
    graph.instruct('swing')
    graph.status('disarmed', 'does not answer')
    graph.quiet()
    monkeypatch.undo()
    arm(graph)
    graph.wait(lambda: len(graph.hand.goals) > 3 and graph.node.session.pilot.enabled)


# ---- the demo's gripper ----

class Held:
    """A robot whose gripper comes as far as it is let."""

    def __init__(self):
        self.joint_names, self.now_ns, self.held = ('a', 'b'), 0, []
        self.joints, self.velocity = np.array([0.0, 0.05]), np.zeros(2)
        self.controllers = [None, SimpleNamespace(
            joint_names=('b',), hold=lambda place: self.held.append(float(place[0])))]


@pytest.fixture
def served(monkeypatch):
    class Command:
        Result = SimpleNamespace

    monkeypatch.setattr(gripper_server, 'ActionServer', lambda *given, **named: None)
    monkeypatch.setattr(gripper_server, 'GripperCommand', Command)
    robot = Held()
    server, ended = gripper_server.Gripper(None, robot, 1, 0.002), []

    def ask(place):
        handle = SimpleNamespace(request=SimpleNamespace(command=SimpleNamespace(position=place)))
        for how in ('succeed', 'abort', 'canceled'):
            setattr(handle, how, lambda how=how: ended.append(how))
        work = server._run(handle)
        work.send(None)
        return handle, work

    def step(seconds, place=None, speed=0.0):
        robot.now_ns += int(seconds * 1e9)
        robot.joints[1] = robot.joints[1] if place is None else place
        robot.velocity[1] = speed
        server.look()

    def result(work):
        try:
            work.send(None)
        except StopIteration as stop:
            return stop.value

    return SimpleNamespace(robot=robot, server=server, ended=ended, ask=ask, step=step,
                           result=result)


def test_a_gripper_is_there_within_its_tolerance(served):
    _, work = served.ask(0.01)
    assert served.robot.held == [0.01]
    served.step(0.1, 0.0121, 0.1)
    assert served.result(work) is None and not served.ended
    served.step(0.1, 0.0119, 0.1)
    said = served.result(work)
    assert served.ended == ['succeed'] and said.reached_goal and not said.stalled


def test_a_gripper_that_stands_for_a_second_has_stalled(served):
    """As GripperActionController with allow_stalling false."""
    _, work = served.ask(0.0)
    served.step(0.9, 0.03, 0.1)
    served.step(1.0)
    assert served.result(work) is None
    served.step(0.01)
    said = served.result(work)
    assert served.ended == ['abort'] and said.stalled and not said.reached_goal


def test_another_goal_and_a_cancelled_one(served):
    _, first = served.ask(0.0)
    handle, second = served.ask(0.06)
    served.result(first)
    assert served.ended == ['abort'] and served.robot.held == [0.0, 0.06]
    served.step(0.1, 0.04, 0.1)
    served.server._cancel(handle)
    served.result(second)
    assert served.ended == ['abort', 'canceled'] and served.robot.held[-1] == 0.04


# ---- controller managers ----

def told(states, manager='/controller_manager', follower='/left/arm', interface='positions'):
    """Return what is said of a follower where a manager tells of these controllers."""
    follows = SimpleNamespace(followers=lambda: {follower: frozenset()},
                              group=SimpleNamespace(interface=interface))
    made = managers.ControllerManagers(None, [follows])
    made._clients[manager] = None
    answer = type('Answer', (), {'controller': [
        type('State', (), {'name': name, 'state': state})() for name, state in states.items()]})()
    made._hear(manager, type('Done', (), {'exception': lambda self: None,
                                          'result': lambda self: answer})())
    return made.problem()


@pytest.mark.parametrize('manager, states, words', [
    ('/left/controller_manager', {'arm': 'inactive'}, "'/left/arm' is inactive .* --activate arm "
     '-c /left/controller_manager, then arm'),
    ('/controller_manager', {'left/arm': 'unconfigured'}, "'/left/arm' is unconfigured"),
    ('/left/controller_manager', {'arm': 'active', 'other': 'inactive'}, None),
    ('/right/controller_manager', {'arm': 'inactive'}, None),
    ('/left/controller_manager', {}, None)])
def test_of_which_controller_a_manager_speaks(manager, states, words):
    found = told(states, manager)
    assert (found is None) if words is None else re.search(words, found.text)


def test_a_gripper_is_its_actions_controller():
    found = told({'hand': 'inactive'}, '/left/controller_manager', '/left/hand/gripper_cmd',
                 'gripper_command')
    assert found.subject == '/left/hand' and '--activate hand -c' in found.text


class NeverAnswers:
    """A client whose requests stay open."""

    def __init__(self):
        self.open, self.asked = [], 0

    def service_is_ready(self):
        return True

    def call_async(self, request):
        self.asked += 1
        self.open.append(SimpleNamespace(done=lambda: False, add_done_callback=lambda call: None))
        return self.open[-1]

    def remove_pending_request(self, asked):
        self.open.remove(asked)


def test_a_manager_that_never_answers_is_asked_again_and_nothing_is_kept(monkeypatch):
    client = NeverAnswers()
    monkeypatch.setattr(managers, 'ListControllers', SimpleNamespace(Request=lambda: None))
    node = SimpleNamespace(
        create_client=lambda kind, name: client, destroy_client=lambda client: None,
        get_service_names_and_types=lambda: [('/m/list_controllers', [managers.KIND])])
    made = managers.ControllerManagers(node, [])
    for _ in range(100):
        made.ask()
    assert 10 < client.asked < 20 and len(client.open) == 1 and made.problem() is None


@pytest.mark.skipif(managers.ListControllers is None, reason='needs controller_manager_msgs')
def test_a_controller_that_is_inactive_is_not_armed_and_stops_the_robot(make):
    graph = make('positions', start=False)
    name = graph.robot.get_fully_qualified_name().lstrip('/')
    kind, states = managers.ListControllers, {name: 'inactive'}

    def answer(request, response):
        from controller_manager_msgs.msg import ControllerState
        response.controller = [ControllerState(name=key, state=value)
                               for key, value in states.items()]
        return response

    graph.robot.create_service(kind, '/controller_manager/list_controllers', answer)
    graph.start()
    said = []
    graph.wait(lambda: said.append(graph.enable()) or 'is inactive' in said[-1].message)
    assert not said[-1].success and f'--activate {name}' in said[-1].message
    states[name] = 'active'
    arm(graph)
    graph.instruct('swing')
    graph.status('moving')
    states[name] = 'inactive'
    graph.status('disarmed', 'is inactive and takes no command')
