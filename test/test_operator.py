# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What the operator says and sees, on a real graph: arming, stops, faults, dry runs, shutdown."""

from dataclasses import replace
import gc
import os
from pathlib import Path
import re
import threading
from types import SimpleNamespace

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')

from graph import Graph, STALLED_NS  # noqa: E402, I100
from lifecycle_msgs.msg import Transition  # noqa: E402
from lifecycle_msgs.srv import ChangeState  # noqa: E402
import numpy as np  # noqa: E402
from pi0_ros.control.states import State  # noqa: E402
from pi0_ros.ros.links.descriptions import publishers  # noqa: E402
import rclpy  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from rclpy.qos import QoSProfile, ReliabilityPolicy  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from std_msgs.msg import Bool, Float64, String  # noqa: E402
from std_srvs.srv import SetBool  # noqa: E402
from support import robot_urdf  # noqa: E402
from test_node import at_rest, late_ticks, make, moving  # noqa: E402, F401
from trajectory_msgs.msg import JointTrajectory  # noqa: E402

DOCS = Path(__file__).parents[1] / 'docs'


def told(graph, part):
    """Wait for diagnostics of a part of the node; return level, message and values."""
    name = f'pi0: {part}'
    graph.robot.diagnostics.pop(name, None)
    graph.wait(lambda: name in graph.robot.diagnostics)
    status = graph.robot.diagnostics[name]
    return status.level, status.message, {pair.key: pair.value for pair in status.values}


def press(graph, pressed):
    publisher = graph.robot.create_publisher(Bool, 'pi0/stop', 1)
    graph.wait(publisher.get_subscription_count)
    publisher.publish(Bool(data=pressed))
    graph.wait(lambda: graph.node.operator.asked.stop == pressed)


def test_stop_latches_until_it_is_released_and_reset(make):  # noqa: F811
    graph = make()
    graph.enable()
    graph.instruct('swing')
    moving(graph, 20)
    late = late_ticks(graph)
    press(graph, True)
    assert graph.status('faulted', 'stopped') == 'stopped by the operator'
    graph.quiet()
    assert at_rest(graph, late)
    assert 'stopped by the operator' in graph.enable().message
    answer = graph.reset()
    assert not answer.success and 'still pressed' in answer.message
    press(graph, False)
    assert graph.status('faulted')
    assert graph.reset().success and graph.enable().success
    moving(graph)


def test_arming_says_how_far_each_joint_is_from_the_first_action(make):  # noqa: F811
    graph = make(policy='mock_scripted', mock_script=[1.0, 0.3])
    graph.node.session.policy._start = 0, np.array([0.9, 0.2])
    graph.instruct('go')
    answer = graph.enable()
    assert not answer.success
    assert 'the first action is too far away: a ' in answer.message and ', b ' in answer.message
    assert graph.quiet() == 0


def test_an_inference_that_hangs_latches_and_names_the_time(make):  # noqa: F811
    graph = make(max_inference_time=0.3, replan_period=0.1)
    graph.enable()
    graph.instruct('swing')
    moving(graph)
    policy, hold = graph.node.session.policy, threading.Event()
    infer, policy.infer = policy.infer, lambda *given, **more: hold.wait(20) and None
    try:
        assert graph.status('faulted', 'has not come back for')
        graph.quiet()
        assert 'has not come back' in graph.reset().message
    finally:
        policy.infer = infer
        hold.set()
    graph.wait(lambda: graph.reset().success)


def test_a_robot_that_stands_where_its_unit_is_another_is_not_armed(make):  # noqa: F811
    graph = make()
    graph.robot.position = [45.0, 20.0]
    joints = graph.node.session.inputs.joints
    graph.wait(lambda: joints.get().value[0] == 45.0)
    graph.wait(lambda: 'outside its limits' in graph.enable().message)


def test_a_robot_that_does_not_follow_is_disarmed(make):  # noqa: F811
    graph = make()
    graph.enable()
    graph.instruct('swing')
    moving(graph)
    graph.robot.follows, graph.robot.position = False, [0.6, 0.2]
    assert re.search("joint 'a' is 0.[45]", graph.status('faulted', "joint 'a' is"))
    graph.quiet()


def test_disarmed_when_the_controller_goes(make):  # noqa: F811
    graph = make()
    graph.enable()
    graph.instruct('swing')
    moving(graph)
    graph.robot.destroy_subscription(graph.robot.commands_in)
    assert graph.status('disarmed', 'robot no longer follows')
    assert not graph.node.session.pilot.enabled
    assert 'no controller subscribes' in graph.enable().message


def test_two_commanders_disarm_and_are_not_armed(make):  # noqa: F811
    graph = make()
    graph.enable()
    graph.instruct('swing')
    moving(graph)
    other = graph.robot.create_publisher(JointTrajectory, 'joint_trajectory', 1)
    assert graph.status('disarmed', 'two nodes command one robot')
    assert '/robot also publishes' in graph.enable().message
    assert '/robot commands this robot too' in told(graph, 'control')[1]
    graph.robot.destroy_publisher(other)
    graph.wait(lambda: graph.enable().success)


def test_a_controller_that_saws_is_told_of(make):  # noqa: F811
    graph = make()
    graph.robot.declare_parameter('interpolate_from_desired_state', False)
    graph.robot.declare_parameter('allow_trajectory_replacement', True)
    graph.robot.declare_parameter('update_rate', 50)
    session = graph.node.session
    graph.wait(lambda: len(session.link.warnings(session.pilot.limits)) == 2)
    level, message, _ = told(graph, 'control')
    assert level == b'\x01' and 'interpolate_from_desired_state false' in message
    assert "controller '/robot' has allow_trajectory_replacement true" in message
    graph.wait(lambda: session.pilot.timing.lead_ns == 35_000_000)  # a period more
    answer = graph.enable()
    assert not answer.success and 'param set /robot allow_trajectory_repl' in answer.message
    graph.robot.set_parameters([Parameter('allow_trajectory_replacement', value=False)])
    graph.wait(lambda: graph.enable().success)


def test_dry_run_does_everything_but_command(make):  # noqa: F811
    graph = Graph(dry_run=True)
    try:
        shadow = []
        graph.robot.create_subscription(JointTrajectory, 'pi0/dry_run/joint_trajectory',
                                        shadow.append, 50)
        graph.robot.destroy_subscription(graph.robot.commands_in)  # no controller is needed
        graph.start()
        assert graph.enable().success
        graph.instruct('swing')
        graph.wait(lambda: len(shadow) > 20 and graph.robot.chunks)
        assert not graph.robot.commands and 'dry run' in told(graph, 'control')[1]
    finally:
        graph.close()


def test_parameters_that_tighten_and_those_that_are_wrong():
    graph = Graph(**{'joint_limits.a.upper': 0.15, 'joint_limits.a.velocity': 0.2})
    try:
        graph.start()
        np.testing.assert_allclose(graph.node.session.pilot.limits.upper, [0.1, 1.95])
        assert graph.enable().success
        graph.instruct('swing')
        moving(graph, 60)
        assert max(message.points[0].positions[0] for message in graph.robot.commands) <= 0.1
    finally:
        graph.close()
    for wrong in ({'joint_limits.c.upper': 1.0}, {'gripper_joints': ['hand']}):
        graph = Graph(**wrong)
        try:
            assert graph.node.trigger_configure().name == 'FAILURE'
        finally:
            graph.close()


def test_another_description_while_armed_waits_until_the_robot_is_armed_again(make):  # noqa: F811
    graph = make()
    graph.enable()
    text = robot_urdf(**dict.fromkeys(('a', 'b'), 'revolute -1 1 1'))
    graph.robot.description.publish(String(data=text))
    graph.wait(lambda: graph.node.operator._description == text)
    assert graph.node.session.pilot.limits.upper[0] == 1.95
    graph.enable(False)
    graph.wait(lambda: graph.enable().success)
    assert graph.node.session.pilot.limits.upper[0] == 0.95


def test_a_description_that_cannot_be_used_is_no_leave_to_move(make):  # noqa: F811
    graph = make(allow_missing_limits=True,
                 **{f'joint_limits.{name}.{end}': value for name in ('a', 'b')
                    for end, value in (('lower', -1.0), ('upper', 1.0))})
    graph.robot.description.publish(String(data=robot_urdf(a='revolute -1 1 1')))
    graph.wait(lambda: graph.node.session.pilot.limits.refused)
    assert "has no joint 'b'" in graph.enable().message


def test_safety_parameters_are_fixed_while_the_node_runs(make):  # noqa: F811
    graph = make()
    graph.enable()
    fixed, loose = graph.node.set_parameters([Parameter('max_jump', value=3.0),
                                              Parameter('max_chunk_age', value=1.0)])
    assert not fixed.successful and loose.successful
    graph.wait(lambda: graph.node.session.guard.rules.chunk_age_ns == 10**9)


@pytest.mark.parametrize('text', ['\x01\x02\x03', 'x' * 100_000, 'go\u202e'])
def test_instructions_that_are_no_text_are_refused(make, text):  # noqa: F811
    graph = make()
    graph.enable()
    graph.instruct(text)
    assert graph.quiet() == 0 and graph.robot.active[-1] == ''
    assert graph.status('standing', 'is refused')
    graph.instruct('swing')
    moving(graph)


def documented(part):
    """Return the keys that docs/interface.md gives a part of the diagnostics."""
    text = ' '.join((DOCS / 'interface.md').read_text().split())
    sentence = re.search(rf'Keys of {part}: (.*?\.) (?:Keys|Levels)', text).group(1)
    return set(re.findall(r'`(\w+)`', re.sub(r'\([^)]*\)', '', sentence)))


def test_diagnostics_have_the_documented_keys_and_no_others(make):  # noqa: F811
    graph = make()
    graph.enable()
    graph.instruct('swing')
    moving(graph)
    for part, name in (('policy', '`policy`'), ('control', '`control`'),
                       ('joint_states', 'joint states'), ('camera front', 'cameras')):
        level, message, values = told(graph, part)
        assert level == b'\x00' and message
        assert set(values) == documented(name), part
    assert told(graph, 'control')[2]['stop_reason'] == ''
    assert told(graph, 'camera front')[2]['encoding'] == 'rgb8'
    assert float(told(graph, 'policy')[2]['rate_hz']) > 0
    assert told(graph, 'policy')[2]['instruction'] == 'swing'


def test_levels_say_whose_fault_it_is(make):  # noqa: F811
    graph = make(policy='mock_faulty')
    graph.enable()
    graph.instruct('go')
    graph.status('faulted')
    assert told(graph, 'policy')[0] == told(graph, 'control')[0] == b'\x02'


def test_an_image_that_cannot_be_read_is_the_cameras_fault(make):  # noqa: F811
    graph = make()
    graph.enable()
    graph.instruct('swing')
    moving(graph)
    graph.robot.image.update(encoding='16SC1')
    assert graph.status('standing', 'not supported')
    level, message, _ = told(graph, 'camera front')
    graph.robot.image.update(encoding='rgb8')
    assert level == b'\x01' and 'not supported' in message


def test_an_armed_robot_that_waits_says_that_it_is_armed(make):  # noqa: F811
    graph = make(max_image_age=0.2)
    graph.enable()
    graph.instruct('swing')
    moving(graph)
    graph.robot.feeds.discard('images')
    graph.status('standing', "camera 'front' is silent")
    answer = graph.enable()
    assert answer.success and 'armed, but waiting: camera' in answer.message
    graph.enable(False)
    assert graph.status('disarmed', "camera 'front' is silent")
    values = {pair.key: pair.value for pair in graph.robot.statuses[-1].values}
    assert values['armed'] == 'False' and values['reason'] == 'camera_silent'
    graph.robot.feeds.add('images')
    graph.wait(lambda: 'enable' in graph.robot.statuses[-1].message)
    assert graph.quiet() == len(graph.robot.commands)


def test_status_is_told_when_it_changes_and_not_when_time_passes(make):  # noqa: F811
    graph = make(max_image_age=0.2)
    graph.robot.feeds.discard('images')
    graph.wait(lambda: graph.robot.statuses
               and "camera 'front' is silent" in graph.robot.statuses[-1].message)
    count, watched = len(graph.robot.statuses), []
    graph.node.create_timer(0.1, lambda: watched.append(1))
    graph.wait(lambda: len(watched) > 15)
    assert len(graph.robot.statuses) == count


def test_a_recorder_is_no_controller(make):  # noqa: F811
    graph = make()
    recorder = graph.robot.context and rclpy.create_node('recorder', context=graph.context)
    recorder.create_subscription(JointTrajectory, 'joint_trajectory', lambda message: None, 1)
    graph.wait(lambda: len(graph.node.session.commands.followers()) == 2)
    try:
        assert '/recorder' in graph.enable().message
        graph.instruct('swing')
        moving(graph)
        graph.robot.destroy_subscription(graph.robot.commands_in)
        assert graph.status('disarmed', '/robot no longer follows')
    finally:
        recorder.destroy_node()


def test_a_pressed_stop_outlives_a_cleanup(make):  # noqa: F811
    graph = make()
    press(graph, True)
    graph.node.trigger_deactivate()
    graph.node.trigger_cleanup()
    graph.start()
    assert 'stopped by the operator' in graph.enable().message
    assert 'still pressed' in graph.reset().message
    press(graph, False)
    assert graph.reset().success and graph.enable().success


def holding(graph):
    """Make every inference wait for an event; return that, and what was asked."""
    policy, hold, asked = graph.node.session.policy, threading.Event(), []
    infer = policy.infer

    def held(observation, **more):
        asked.append(observation.instruction)
        hold.wait(20)
        return infer(observation, **more)

    policy.infer = held
    return hold, asked


def pending(graph):
    """Call ~/enable; return its future once the policy has been asked."""
    graph.wait(graph.robot.enable_client.service_is_ready)
    answer = graph.robot.enable_client.call_async(SetBool.Request(data=True))
    graph.wait(lambda: graph.node.operator._preview is not None)
    return answer


def test_arming_looks_at_the_instruction_that_will_be_followed(make):  # noqa: F811
    graph = make()
    graph.instruct('swing')
    hold, asked = holding(graph)
    answer = pending(graph)
    graph.wait(lambda: asked)
    graph.instruct('swing more')  # the executor is not blocked
    assert not answer.done()
    hold.set()
    graph.wait(answer.done)
    assert answer.result().success and asked[:2] == ['swing', 'swing more']


def test_disarming_ends_an_arming_that_is_under_way(make):  # noqa: F811
    graph = make()
    graph.instruct('swing')
    hold, asked = holding(graph)
    answer = pending(graph)
    graph.wait(lambda: asked)
    assert 'under way' in graph.enable().message
    assert graph.enable(False).message == 'disarmed'
    graph.wait(answer.done)
    assert not answer.result().success and 'disarmed by the operator' in answer.result().message
    hold.set()
    assert graph.quiet() == 0


@pytest.mark.parametrize('end', ['trigger_deactivate', 'trigger_shutdown'])
def test_a_transition_answers_an_arming_that_is_under_way(make, end):  # noqa: F811
    graph = make()
    graph.instruct('swing')
    hold, asked = holding(graph)
    answer = pending(graph)
    graph.wait(lambda: asked)
    threading.Timer(0.5, hold.set).start()
    getattr(graph.node, end)()
    graph.wait(answer.done)
    assert not answer.result().success and 'deactivated' in answer.result().message
    assert graph.robot.commands == []


def test_a_repeated_instruction_changes_nothing(make):  # noqa: F811
    graph = make(handover='synchronous')
    graph.enable()
    graph.instruct('swing')
    moving(graph)
    asked, session = [], graph.node.session
    session.pilot.want_chunk = lambda: asked.append(1)
    session.guard.hold = asked.append
    for _ in range(5):
        graph.instruct('swing')
    assert not asked
    graph.instruct('swing on')
    assert asked


def test_without_a_clock_the_node_says_so():
    graph = Graph(use_sim_time=True)
    try:
        graph.node.trigger_configure()
        graph.node.trigger_activate()
        graph.wait(lambda: graph.robot.statuses
                   and 'there is no /clock yet' in graph.robot.statuses[-1].message)
        assert 'there is no /clock yet' in graph.enable().message
        assert told(graph, 'control')[1] == 'disarmed'
    finally:
        graph.close()


def test_the_last_status_is_that_nothing_moves(make):  # noqa: F811
    graph = make()
    graph.enable()
    graph.instruct('swing')
    moving(graph)
    graph.node.trigger_deactivate()
    graph.node.trigger_cleanup()
    assert graph.status('inactive') == 'not configured'
    graph.wait(lambda: graph.robot.active[-1] == '')


def test_the_order_of_a_shutdown(make, monkeypatch):  # noqa: F811
    """Stop moving, then stop publishing, then the threads, then the policy and its GPU."""
    graph = make()
    graph.enable()
    graph.instruct('swing')
    moving(graph)
    session, order, last = graph.node.session, [], []

    def noted(owner, name, what):
        call = getattr(owner, name)

        def told(*given, **more):
            order.append(what)
            if what == 'command':
                last[:] = given
            return call(*given, **more)
        monkeypatch.setattr(owner, name, told)

    noted(session.guard, 'disarm', 'disarm')
    noted(session.commands, 'publish', 'command')
    noted(session.loop, 'stop', 'control thread')
    noted(session._worker, 'close', 'policy thread')
    noted(session.policy, 'close', 'policy')
    noted(session.node, 'destroy_lifecycle_publisher', 'topic')
    before = late_ticks(graph)
    graph.node.close()
    order = order[order.index('disarm'):]
    kept = [what for number, what in enumerate(order) if order.index(what) == number]
    late = session.pilot.counters.late_ticks > before  # a busy machine: it rests in silence
    assert kept == ['disarm', 'command', 'control thread', 'policy thread', 'policy', 'topic'] or (
        late and kept == ['disarm', 'control thread', 'policy thread', 'policy', 'topic'])
    assert 'command' not in order[order.index('control thread'):]
    assert not session.pilot.speaking
    assert late or np.abs(last[0].velocities).max() < 0.05


def test_the_stop_is_published_also_when_simulated_time_stands():
    graph = Graph(use_sim_time=True)
    robot = graph.robot

    def tick():
        robot.now_ns = (robot.now_ns or 10**12) + 10_000_000
        robot.clock_publisher.publish(Clock(clock=robot.stamp()))

    clock = robot.create_timer(0.01, tick)
    try:
        graph.start()
        assert graph.enable().success
        graph.instruct('swing')
        moving(graph, 20)
        late = late_ticks(graph)
        graph.node.trigger_deactivate()  # on the thread that would hear the clock
        assert not graph.node.session.pilot.speaking
        graph.wait(lambda: late_ticks(graph) > late or np.abs(
            [p.velocities for p in robot.commands[-1].points]).max() < 0.05)
    finally:
        clock.cancel()
        graph.close()


def test_ten_lives_leave_nothing_behind(make):  # noqa: F811
    graph = make()

    def count():
        gc.collect()
        node = graph.node
        return (threading.active_count(), len(os.listdir('/proc/self/fd')),
                len(node._managed_entities), *(len(list(of)) for of in (
                    node.publishers, node.subscriptions, node.services, node.clients,
                    node.timers, node.guards)))

    def live():
        graph.wait(lambda: graph.enable().success)  # once the robot stands
        graph.instruct('swing')
        moving(graph, 5)
        assert graph.node.trigger_deactivate().name == 'SUCCESS'
        assert graph.node.trigger_cleanup().name == 'SUCCESS'
        return count()

    lives = [live()]
    for _ in range(9):
        graph.start()
        lives.append(live())
    assert lives[-1] == lives[1], lives
    assert graph.node.trigger_configure().name == 'SUCCESS'
    assert graph.node.trigger_shutdown().name == 'SUCCESS'


@pytest.mark.parametrize('where, error', [
    ('deactivate', RuntimeError('x')), ('disarm', RuntimeError('x')), ('disarm', ValueError('x'))])
def test_a_transition_that_raises_stops_the_robot_and_ends_as_an_error(
        make, monkeypatch, where, error):  # noqa: F811
    graph, said = make(), []
    graph.enable()
    graph.instruct('swing')
    moving(graph, 20)
    logger = type('Log', (), {'error': lambda self, text, **more: said.append(text),
                              'info': lambda self, text, **more: None})()
    monkeypatch.setattr(graph.node, 'get_logger', lambda: logger)
    session, once = graph.node.session, [error]
    owner = session if where == 'deactivate' else session.guard
    call = getattr(owner, where)

    def raises(*given):
        if once:
            raise once.pop()
        return call(*given)

    monkeypatch.setattr(owner, where, raises)
    graph.node.trigger_deactivate()
    assert any(type(error).__name__ in text and 'Traceback' in text for text in said), said
    assert graph.node.session is None
    assert 'control' not in {thread.name for thread in threading.enumerate()}
    count = len(graph.robot.commands)
    assert 'not active' in graph.enable().message
    assert len(graph.robot.commands) <= count + 20  # what was on its way


def test_a_control_thread_that_raises_latches(make):  # noqa: F811
    graph = make()
    graph.enable()
    graph.instruct('swing')
    moving(graph)
    graph.node.session.commands.publish = lambda *told: 1 / 0
    assert graph.status('faulted', 'ZeroDivisionError')
    assert not graph.node.session.pilot.enabled


# ---- what must be heard, and what must not wait ----

def test_enable_has_a_deadline_and_what_comes_late_is_dropped(make, monkeypatch):  # noqa: F811
    monkeypatch.setattr('pi0_ros.control.rules.ARMING_NS', 1_500_000_000)
    graph = make()
    graph.instruct('swing')
    hold, asked = holding(graph)
    answer = pending(graph)
    assert graph.status('arming', 'asking the policy what it would do first')
    graph.wait(answer.done)
    assert not answer.result().success and 'has not answered within' in answer.result().message
    assert graph.status('disarmed', 'has not answered')
    hold.set()
    assert graph.quiet() == 0 and not graph.node.session.pilot.enabled
    assert graph.enable().success
    moving(graph)


def test_a_stop_is_heard_from_a_best_effort_publisher(make):  # noqa: F811
    graph = make()
    graph.enable()
    graph.instruct('swing')
    moving(graph)
    joystick = graph.robot.create_publisher(Bool, 'pi0/stop', QoSProfile(
        depth=1, reliability=ReliabilityPolicy.BEST_EFFORT))
    graph.wait(joystick.get_subscription_count)
    joystick.publish(Bool(data=True))
    assert graph.status('faulted', 'stopped') == 'stopped by the operator'
    assert not graph.node.session.pilot.enabled


def test_another_subscription_of_the_controllers_node_changes_nothing(make):  # noqa: F811
    graph = make()
    graph.enable()
    graph.instruct('swing')
    moving(graph)
    session = graph.node.session
    for _ in range(2):
        graph.robot.create_subscription(JointTrajectory, 'joint_trajectory', lambda message: None,
                                        1)
    graph.wait(lambda: len(next(iter(session.commands)).followers()['/robot']) == 3)
    ticks = session.loop.ticks
    graph.wait(lambda: session.loop.ticks > ticks + 20)
    assert session.pilot.enabled and session.guard.stopped_by is None


@pytest.mark.parametrize('how', ['hangs', 'ends'])
def test_a_control_thread_that_hangs_is_told_and_can_be_ended(make, how):  # noqa: F811
    graph = make(hangs_ns=STALLED_NS)
    graph.enable()
    graph.instruct('swing')
    moving(graph)
    session, hold = graph.node.session, threading.Event()
    if how == 'hangs':
        session.commands.publish = lambda *told: hold.wait(20)
    else:
        session.loop._wait = lambda deadline_ns: (_ for _ in ()).throw(SystemExit)
    words = 'has not come back for' if how == 'hangs' else 'SystemExit'
    assert words in graph.status('faulted', words)
    assert words in graph.enable().message and not session.pilot.enabled
    assert told(graph, 'control')[0] == b'\x02'
    try:
        assert graph.node.trigger_deactivate().name == 'SUCCESS'
        assert session.loop is None
    finally:
        hold.set()


def test_deactivated_while_the_control_thread_hangs_is_told(make, capfd):  # noqa: F811
    graph = make(hangs_ns=STALLED_NS)
    graph.enable()
    graph.instruct('swing')
    moving(graph)
    hold = threading.Event()
    graph.node.session.commands.publish = lambda *told: hold.wait(20)
    graph.wait(lambda: graph.node.session.pilot.state is State.MOVING)
    try:
        assert graph.node.trigger_deactivate().name == 'SUCCESS'
    finally:
        hold.set()
    assert 'deactivated while it moved: the control thread has not' in capfd.readouterr().err


def test_a_stop_does_not_wait_for_the_next_tick(make):  # noqa: F811
    graph = make(control_rate=1.0)
    graph.enable()
    graph.instruct('swing')
    graph.wait(lambda: len(graph.robot.commands) > 2)
    session, count = graph.node.session, len(graph.robot.commands)
    graph.wait(lambda: len(graph.robot.commands) > count)  # a tick has just been
    ticks = session.loop.ticks
    press(graph, True)
    graph.wait(lambda: len(graph.robot.commands) > count + 1)
    assert session.loop.ticks == ticks  # out of the grid


def test_a_transition_that_is_not_allowed_is_refused(make):  # noqa: F811
    graph = make()
    client = graph.robot.create_client(ChangeState, 'pi0/change_state')
    answer = graph.call(client, ChangeState.Request(transition=Transition(
        id=Transition.TRANSITION_CONFIGURE)))
    assert not answer.success
    assert graph.node.trigger_configure().name in ('FAILURE', 'ERROR')  # Jazzy, Kilted
    assert graph.enable().success


def test_a_controller_that_tells_its_state_is_listened_to(make):  # noqa: F811
    """With a stand-in of the message where control_msgs is not installed."""
    graph = make()
    (link,), controller = graph.node.session.link, graph.node.session.guard.controllers.each[0]
    point = SimpleNamespace(positions=[0.2, 0.1])
    message = SimpleNamespace(header=SimpleNamespace(stamp=graph.robot.stamp()),
                              joint_names=['b', 'a'], reference=point, speed_scaling_factor=0.5)
    link.on_state(message)
    report = controller.reference(graph.node.session.now())
    assert report.reference.tolist() == [0.1, 0.2] and report.speed_scaling == 0.5
    humble = SimpleNamespace(header=message.header, joint_names=['a', 'b'],
                             reference=SimpleNamespace(positions=[]), desired=point)
    link.on_state(humble)
    assert controller.newest.reference.tolist() == [0.2, 0.1]
    assert controller.newest.speed_scaling == 1.0


def test_the_speed_slider_of_a_ur_is_found_by_name(make):  # noqa: F811
    graph = make()
    slider = graph.robot.create_publisher(
        Float64, 'speed_scaling_state_broadcaster/speed_scaling', 1)
    ur = rclpy.create_node('scaled_joint_trajectory_controller', context=graph.context)
    ur.create_subscription(JointTrajectory, 'joint_trajectory', lambda message: None, 1)
    graph.wait(slider.get_subscription_count)
    graph.robot.create_timer(0.05, lambda: slider.publish(Float64(data=30.0)))
    session = graph.node.session
    graph.wait(lambda: session.pilot.scale.factor == pytest.approx(0.3))
    graph.wait(lambda: session.guard.controllers.each[0]._scaling[1] == pytest.approx(0.3))
    assert graph.enable().success
    ur.destroy_node()


def test_a_cameras_description_does_not_take_the_robots_limits(make):  # noqa: F811
    graph = make()
    limits = graph.node.session.limits
    before = limits.text
    graph.robot.description.publish(String(data=robot_urdf(oak_joint='revolute -1 1 1')))
    heard = []
    graph.node.operator._log.warning = heard.append
    graph.wait(lambda: len(heard) == 2)
    assert "it is not this robot's" in heard[0]
    assert "is not this robot's; on the topic publish robot: remap the other" in heard[1]
    assert limits.text == before and graph.enable().success


def test_who_publishes_the_description_volatile_is_named(make):  # noqa: F811
    graph = make()
    node, operator = graph.node, graph.node.operator
    assert publishers(node, 'robot_description') == (['robot'], [])
    graph.robot.create_publisher(String, 'robot_description', 10)
    graph.wait(lambda: publishers(node, 'robot_description')[1] == ['robot'])
    operator._description = None
    node.session.pilot.take_limits(replace(node.session.pilot.limits, unknown=("of 'a'",)))
    assert 'robot publishes robot_description with durability volatile' in operator._why_not()
