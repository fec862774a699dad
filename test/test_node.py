# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The node on a real graph, with a mock policy and a robot that a test controls."""

from dataclasses import replace
import math
import os
import re
import signal
import threading

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')

import cv2  # noqa: E402, I100
from graph import Graph  # noqa: E402
import numpy as np  # noqa: E402
from sensor_msgs.msg import CompressedImage, JointState  # noqa: E402
from support import command_problem  # noqa: E402


@pytest.fixture
def make():
    graphs = []

    def made(**parameters):
        graphs.append(Graph(**parameters))
        return graphs[-1].start()

    yield made
    for graph in graphs:
        graph.close()


def moving(graph, count=10):
    before = len(graph.robot.commands)
    graph.wait(lambda: len(graph.robot.commands) >= before + count)


def late_ticks(graph):
    """Return how often a busy machine let the robot come to rest in silence."""
    return graph.node.session.pilot.counters.late_ticks


def at_rest(graph, late):
    """Return whether the last command ends a stop, or there were more than ``late`` such ticks."""
    return late_ticks(graph) > late or np.abs(
        graph.robot.commands[-1].points[0].velocities).max() < 0.05


def test_armed_and_instructed_robot_moves_and_every_command_keeps_the_rules(make):
    graph = make()
    assert graph.enable().success
    graph.instruct('swing')
    moving(graph, 60)
    assert not [p for p in map(command_problem, graph.robot.commands) if p]
    assert graph.robot.commands[0].joint_names == ['a', 'b']
    assert np.ptp(graph.robot.starts()) > 0.01
    assert graph.robot.jumps().max() < 0.02
    assert graph.robot.chunks and graph.robot.active[-1] == 'swing'
    assert graph.status('moving', 'swing') == 'swing'


def test_disarmed_robot_never_moves(make):
    graph = make()
    graph.instruct('swing')
    assert graph.quiet() == 0
    assert graph.status('disarmed', '/pi0/enable')


def test_disable_stops_and_silences(make):
    graph = make()
    graph.enable()
    graph.instruct('swing')
    moving(graph)
    late = late_ticks(graph)
    assert graph.enable(False).message == 'disarmed'
    count = graph.quiet()
    graph.instruct('swing again')
    assert graph.quiet() == count
    assert at_rest(graph, late)


@pytest.mark.parametrize('text', ['', 'juggle'])
def test_instruction_that_stops_discards_the_inference_under_way(make, text):
    graph = make(policy='mock_sine', known_instructions=['swing*'])
    graph.enable()
    graph.instruct('')
    policy, begun, end = graph.node.session.policy, [], threading.Event()
    infer = policy.infer
    policy.infer = lambda *given, **more: (begun.append(1), infer(*given, **more),
                                           end.wait(20))[1]
    graph.instruct('swing')
    graph.wait(lambda: begun)
    graph.instruct(text)
    end.set()
    graph.wait(lambda: graph.node.session.latency.count)
    assert graph.quiet() == 0


def test_new_instruction_during_an_inference_is_asked_for_at_once(make):
    graph = make(policy='mock_hold', added_delay=0.2, replan_period=0.5)
    graph.enable()
    graph.instruct('one')
    moving(graph)
    asked = graph.node.session.latency.count
    graph.instruct('two')
    graph.wait(lambda: graph.node.session.latency.count > asked + 1)
    graph.wait(lambda: graph.robot.chunks)


def test_nothing_that_is_not_finite_leaves_the_process(make):
    graph = make(policy='mock_faulty')  # conftest looks at every message
    graph.enable()
    graph.instruct('go')
    graph.status('faulted')
    assert all(np.isfinite(point.positions).all()
               for message in graph.robot.chunks for point in message.points)


def test_reactivation_after_a_while_is_no_clock_jump(make):
    graph = make()
    graph.node.trigger_deactivate()
    graph.node.session.pilot._last_tick_ns = 1
    graph.node.trigger_activate()
    assert graph.enable().success
    graph.instruct('swing')
    moving(graph)


def test_namespace_moves_everything():
    graph = Graph(namespace='left')
    try:
        graph.start()
        assert graph.enable().success
        graph.instruct('swing')
        moving(graph)
        topics = dict(graph.node.get_topic_names_and_types())
        assert '/left/joint_trajectory' in topics and '/left/pi0/status' in topics
        own = {name for name, _ in graph.node.get_publisher_names_and_types_by_node(
            'pi0', '/left')}
        assert all(name.startswith('/left/') for name in own
                   - {'/diagnostics', '/rosout', '/parameter_events'})
    finally:
        graph.close()


def test_empty_instruction_holds_and_the_next_one_moves_again(make):
    graph = make()
    graph.enable()
    graph.instruct('swing')
    moving(graph)
    graph.instruct('  ')
    count = graph.quiet()
    assert graph.status('standing', 'waiting for an instruction')
    graph.instruct('swing')
    moving(graph)
    assert len(graph.robot.commands) > count


@pytest.mark.parametrize('text', ['juggle', 'x' * 2000])
def test_unknown_instruction_is_refused_and_holds(make, text):
    graph = make(known_instructions=['swing*', '*left*'])
    graph.enable()
    graph.instruct(text)
    assert graph.quiet() == 0 and graph.robot.active[-1] == ''
    graph.instruct('Swing LEFT')
    assert graph.robot.active[-1] == 'Swing LEFT'


def test_refused_instruction_says_what_is_known(make):
    graph = make(known_instructions=['swing*'])
    graph.enable()
    graph.instruct('juggle')
    graph.wait(lambda: graph.robot.statuses and 'juggle' in graph.robot.statuses[-1].message)
    assert graph.status('standing', "unknown instruction 'juggle', expected one that fits swing*")


@pytest.mark.parametrize('change, words', [
    ({'encoding': '16SC1'}, "camera 'front': image encoding '16SC1' is not supported"),
    ({'encoding': '16UC1'}, "camera 'front': '16UC1' is a depth image"),
    ({'data': bytes(20)}, "camera 'front': image is truncated: 20 bytes of 48"),
    ({'step': 5}, "camera 'front': a 4 x 4 rgb8 image needs rows")])
def test_unreadable_images_are_named_and_nothing_moves(make, change, words):
    graph = make()
    received = graph.node.session.inputs.cameras['front']
    graph.robot.image.update(change)
    count = received.arrivals.count
    graph.wait(lambda: received.arrivals.count > count + 3)
    answer = graph.enable()
    assert not answer.success and words in answer.message
    graph.robot.image.update(encoding='rgb8', step=12, data=bytes(48))
    graph.wait(lambda: graph.enable().success)
    graph.instruct('swing')
    moving(graph)
    graph.robot.image.update(change)
    assert graph.status('standing', words)
    graph.wait(lambda: not graph.node.session.pilot.speaking)
    graph.robot.image.update(encoding='rgb8', step=12, data=bytes(48))
    moving(graph)  # it recovers by itself while armed


def test_image_of_another_size_is_letterboxed(make):
    graph = make()
    graph.enable()
    graph.instruct('swing')
    moving(graph)
    graph.robot.image.update(height=2, width=9, step=27, data=bytes(54))
    moving(graph, 40)


def test_compressed_images_and_a_truncated_one():
    graph = Graph(image_transport='compressed')
    try:
        _, jpeg = cv2.imencode('.jpg', np.zeros((8, 8, 3), np.uint8))
        data = [jpeg.tobytes()]

        def feed():
            message = CompressedImage(format='jpeg', data=data[0])
            message.header.stamp = graph.robot.stamp()
            graph.robot.jpegs.publish(message)

        graph.robot.create_timer(0.02, feed)
        graph.start()
        assert graph.enable().success
        graph.instruct('swing')
        moving(graph)
        data[0] = jpeg.tobytes()[:-40]
        assert graph.status('standing', "camera 'front': compressed image is truncated")
    finally:
        graph.close()


@pytest.mark.parametrize('names, positions, words', [
    (['a'], [0.1], 'joint states of b are'),
    (['a', 'b', 'b'], [0.1, 0.2, 0.3], "joint 'b' occurs twice"),
    (['a', 'b'], [0.1, math.nan], "joint 'b' has a position that is not finite"),
    (['a', 'b'], [0.1], '2 names but 1 positions')])
def test_bad_joint_states_stop_the_robot_and_are_named(make, names, positions, words):
    graph = make(max_joint_age=0.1)
    graph.enable()
    graph.instruct('swing')
    moving(graph)
    graph.robot.follows = False
    graph.robot.names, graph.robot.position = names, positions
    assert graph.status('standing', words)
    graph.wait(lambda: not graph.node.session.pilot.speaking)
    assert 'armed, but waiting' in graph.enable().message
    a, b = graph.robot.commands[-1].points[-1].positions
    graph.robot.names, graph.robot.position = ['x', 'b', 'a'], [9.0, b, a]
    graph.robot.follows = True
    moving(graph)  # extra joints and another order are fine


@pytest.mark.parametrize('feed, words', [
    ('images', "camera 'front' is silent"), ('joints', 'joint states of a, b are')])
def test_silent_input_is_named_and_recovers(make, feed, words):
    graph = make(patient=False)
    graph.enable()
    graph.instruct('swing')
    moving(graph)
    graph.robot.feeds.discard(feed)
    assert graph.status('standing', words)
    graph.wait(lambda: not graph.node.session.pilot.speaking)
    graph.robot.feeds.add(feed)
    moving(graph)


def test_enable_says_which_input_is_missing():
    graph = Graph()
    try:
        graph.robot.feeds = {'joints'}
        graph.node.trigger_configure()
        assert 'not active' in graph.enable().message
        graph.node.trigger_activate()
        graph.wait(lambda: not graph.node.session.pilot.limits.unknown
                   and graph.node.session.inputs.joints.get())
        answer = graph.enable()
        assert not answer.success
        assert answer.message.startswith("camera 'front' has not published an image on '/camera")
    finally:
        graph.close()


def test_enable_needs_limits_and_a_controller(make):
    graph = make()
    pilot = graph.node.session.pilot
    known, pilot.limits = pilot.limits, replace(pilot.limits, unknown=("position of 'a'",))
    assert "joint limits are unknown, position of 'a'" in graph.enable().message
    pilot.limits = known
    graph.robot.destroy_subscription(graph.robot.commands_in)
    graph.wait(graph.node.session.commands.missing)
    assert "no controller subscribes to '/joint_trajectory'" in graph.enable().message


def test_failing_policy_latches_a_fault_until_reset(make):
    graph = make(policy='mock_faulty')
    graph.enable()
    graph.instruct('go')
    assert graph.status('faulted', '3 inferences in a row failed')
    assert graph.quiet() == 0
    assert 'call /pi0/reset' in graph.enable().message
    assert 'cleared: 3 inferences' in graph.reset().message
    graph.node.session.policy.number = 0
    assert 'faulty mock policy failed' in graph.enable().message  # it looks ahead first
    graph.instruct('')
    assert graph.enable().success


def test_slow_policy_keeps_the_robot_moving_between_chunks(make):
    graph = make(policy='mock_hold', added_delay=0.3)
    graph.enable()
    graph.instruct('go')
    moving(graph, 60)
    assert graph.node.session.pilot.counters.late_steps > 10
    assert not [p for p in map(command_problem, graph.robot.commands) if p]


def test_plain_positions_follow_the_plan_and_end_at_rest(make):
    graph = make(command_interface='positions', control_rate=100.0)
    graph.enable()
    graph.instruct('swing')
    graph.wait(lambda: len(graph.robot.positions) > 100)
    graph.enable(False)
    graph.quiet()
    assert not graph.robot.commands
    values = np.array([message.data for message in graph.robot.positions])
    assert values.shape[1] == 2 and np.isfinite(values).all()
    np.testing.assert_allclose(values[0], [0.1, 0.2], atol=1e-3)
    steps = np.abs(np.diff(values[:, 0]))
    assert np.ptp(values[:, 0]) > 0.01 and steps.max() < 0.01 and steps[-3:].max() < 2e-3


def test_plain_positions_need_a_high_rate():
    graph = Graph(command_interface='positions', control_rate=10.0)
    try:
        assert graph.node.trigger_configure().name == 'FAILURE'
    finally:
        graph.close()


def test_a_policy_process_that_dies_disarms_until_a_person_goes_on(make):
    graph = make(worker='process', replan_period=0.1)
    graph.enable()
    graph.instruct('swing')
    moving(graph, 30)
    graph.wait(lambda: 'pi0: policy' in graph.robot.diagnostics)
    told = {pair.key: pair.value for pair in graph.robot.diagnostics['pi0: policy'].values}
    os.kill(int(told['process']), signal.SIGKILL)
    assert re.search(r'policy process \d+ ended \(exit code -9\)', graph.status('faulted'))
    graph.wait(lambda: not graph.node.session.pilot.speaking)
    assert 'fault' in graph.enable().message
    graph.reset()
    graph.wait(lambda: graph.enable().success)  # once another process has loaded it
    moving(graph, 30)  # with another process
    assert not [p for p in map(command_problem, graph.robot.commands) if p]


def test_the_measured_delay_is_told(make):
    # A machine that is busy otherwise delivers late, too.
    graph = make(handover='rtc', added_delay=0.15, replan_period=0.2)
    graph.enable()
    graph.instruct('swing')
    pilot = graph.node.session.pilot
    graph.wait(lambda: len(pilot._delays._recent) > 3)
    assert 7 <= pilot.delay <= 50  # steps of 20 ms; a busy machine takes longer

    def told():
        part = graph.robot.diagnostics.get('pi0: control')
        return {pair.key: pair.value for pair in part.values} if part else {}

    graph.wait(lambda: int(told().get('delay_steps', 0)) >= 7)
    assert told()['handover'] == 'rtc' and 'starved' in told()
    graph.wait(lambda: (found := pilot.plan.source(graph.node.session.now()))
               and found.instruction == 'swing')  # none after a late tick


def test_lifecycle_can_be_repeated(make, capfd):
    graph = make()
    for _ in range(3):
        assert graph.node.trigger_deactivate().name == 'SUCCESS'
        assert graph.node.trigger_cleanup().name == 'SUCCESS'
        assert graph.node.session is None
        graph.start()
    graph.enable()
    graph.instruct('swing')
    moving(graph)
    graph.node.trigger_deactivate()
    counters = graph.node.session.pilot.counters  # after a late tick it rests in silence
    if 'deactivated while it moved' in capfd.readouterr().err or counters.late_ticks:
        return  # a busy machine let the thread sleep: the robot follows its last window
    graph.wait(lambda: not np.any([p.velocities for p in graph.robot.commands[-1].points]))


@pytest.mark.parametrize('values, words', [
    ({'control_rate': 500.0}, "parameter 'control_rate' is 500.0, expected 1.0 to 100.0 Hz"),
    ({'control_rate': 0.0}, "parameter 'control_rate' is 0.0, expected 1.0 to 100.0 Hz"),
    ({'control_rat': 50.0}, "'control_rat' is unknown, did you mean 'control_rate'?"),
    ({'device': 'tpu'}, "'device' is 'tpu', expected one of auto, cpu, cuda"),
    ({'seed': 'x'}, "'seed' is 'x', expected a whole number"),
    ({'joint_names': ['']}, "'joint_names' is empty"),
    ({'joint_names': ['a', 'a']}, "'joint_names' names 'a' twice"),
    ({'cameras': ['']}, "'cameras' is empty"),
    ({'cameras': ['a', 'b', 'c', 'd']}, "'cameras' has 4 entries, expected at most 3"),
    ({'policy': 'pi0'}, "'checkpoint' is empty"),
    ({'policy': 'pi0', 'checkpoint': '/nowhere'}, "checkpoint folder '/nowhere' does not exist"),
    ({'policy': 'pi0', 'checkpoint': 'demo'}, "'joint_names' has 2 joints, the checkpoint has 5"),
    ({'policy': 'mock_scripted', 'mock_script': [1.0, 2.0, 3.0]}, "'mock_script' has 3 values")])
def test_wrong_parameters_fail_configuration_with_a_sentence(monkeypatch, values, words):
    graph = Graph(**values)
    said = []
    monkeypatch.setattr(graph.node.get_logger(), 'error', said.append)
    monkeypatch.setattr(graph.node, 'get_logger', lambda: type('Log', (), {
        'error': lambda self, text: said.append(text), 'info': lambda self, text: None})())
    try:
        assert graph.node.trigger_configure().name == 'FAILURE'
        assert any(words in text for text in said), said
    finally:
        graph.close()


def test_whole_numbers_are_fine_for_rates(make):
    assert make(control_rate=25).node.session.pilot.timing.period_ns == 40_000_000


@pytest.mark.parametrize('humble', [False, True])
def test_parameters_change_while_running_and_wrong_values_are_refused(make, monkeypatch, humble):
    if humble:  # whose rclpy only asks before a change
        monkeypatch.delattr('rclpy.node.Node.add_post_set_parameters_callback')
    graph = make()
    from rclpy.parameter import Parameter
    good, bad, fixed = graph.node.set_parameters([
        Parameter('replan_period', value=0.5), Parameter('max_image_age', value=-1.0),
        Parameter('control_rate', value=10.0)])
    assert good.successful
    graph.wait(lambda: graph.node.session.pilot.timing.replan_ns == 500_000_000)
    assert not bad.successful and 'max_image_age' in bad.reason
    assert not fixed.successful and 'fixed while the node is configured: clean' in fixed.reason


def test_a_node_that_is_cleaned_up_takes_other_parameters():
    from rclpy.parameter import Parameter
    graph = Graph(policy='mock_hold', control_rate='wrong', autostart=False)
    try:
        node = graph.node
        assert node.trigger_configure().value != 0  # SUCCESS
        assert node.set_parameters([Parameter('control_rate', value=25.0)])[0].successful
        assert node.trigger_configure().name == 'SUCCESS'
        assert node.session.pilot.timing.period_ns == 40_000_000
        assert not node.set_parameters([Parameter('control_rate', value=10.0)])[0].successful
        assert node.trigger_cleanup().name == 'SUCCESS'
        assert node.set_parameters([Parameter('control_rate', value=20.0)])[0].successful
        assert node.trigger_configure().name == 'SUCCESS'
        assert node.session.pilot.timing.period_ns == 50_000_000
    finally:
        graph.close()


def test_simulated_time_drives_the_loop_and_a_jump_back_disarms():
    from rosgraph_msgs.msg import Clock
    graph = Graph(use_sim_time=True)
    robot = graph.robot

    def tick():
        robot.now_ns = (robot.now_ns or 10**12) + 10_000_000
        robot.clock_publisher.publish(Clock(clock=robot.stamp()))

    clock = robot.create_timer(0.005, tick)
    try:
        graph.start()
        assert graph.enable().success
        graph.instruct('swing')
        moving(graph, 20)
        stamps = [m.header.stamp.sec * 10**9 + m.header.stamp.nanosec for m in robot.commands]
        assert np.median(np.diff(stamps)) == 20_000_000
        robot.now_ns -= 50 * 10**9
        graph.wait(lambda: not graph.node.session.pilot.enabled)
        count = graph.quiet()
        graph.wait(lambda: graph.enable().success)
        graph.instruct('swing')
        moving(graph)
        assert len(robot.commands) > count
    finally:
        clock.cancel()
        graph.close()


def test_zero_stamps_mean_receive_time(make):
    graph = make()
    graph.robot.stamp = lambda: JointState().header.stamp
    joints = graph.node.session.inputs.joints
    graph.wait(lambda: joints.get().stamp_ns == joints.get().received_ns)
    assert graph.enable().success
    graph.instruct('swing')
    moving(graph)


def test_a_slow_gripper_beside_a_fast_arm_is_heard(make):
    """They come in messages of their own, and none pushes out another while callbacks wait."""
    graph = make()
    robot, inputs = graph.robot, graph.node.session.inputs
    robot.feeds.discard('joints')
    graph.wait(lambda: inputs.joint_arrivals.rate_hz(graph.node.session.now()) == 0)
    inputs.joints.clear()
    for names in (['b'], *[['a']] * 30):
        message = JointState(name=names, position=[0.1])
        message.header.stamp = robot.stamp()
        robot.joints.publish(message)
    graph.wait(lambda: inputs.joints.get() is not None)


def test_a_camera_that_comes_in_the_other_transport_is_named_with_both_topics():
    graph = Graph(image_transport='compressed')
    try:
        graph.robot.feeds.discard('images')
        assert graph.node.trigger_configure().name == 'SUCCESS'
        session = graph.node.session

        def said():
            found = session.inputs.problem(session.now())
            return found.text if found and found.reason == 'camera_missing' else ''

        graph.wait(said)
        assert ("camera 'front' has not published an image on '/camera_1/image_raw/compressed', "
                "but somebody publishes on '/camera_1/image_raw': set 'image_transport' to raw"
                ) == said()
    finally:
        graph.close()
