# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The node with a policy on another machine: moves, stands while nobody answers, goes on."""

import threading

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')

from graph import Graph, JOINTS  # noqa: E402, I100
from servers import cut, StandIn  # noqa: E402


def swing(question):
    """Return a slow motion from wherever the robot is."""
    state = np.asarray(question['state'], float)
    return {'actions': state + 0.004 * np.arange(25)[:, None] * [1.0, -1.0],
            'server_timing': {'infer_ms': 1.0}}


@pytest.fixture
def live():
    """Return a function that starts a node and a stand-in for its server."""
    things = []

    def start(server=None, **parameters):
        server = server or StandIn(answers=swing).start()
        graph = Graph(**{
            'policy': 'remote', 'server': server.address, 'server_schema': 'custom',
            'server_map.state': 'state', 'server_map.image': 'camera front, hwc, 8x8',
            'server_map.prompt': 'instruction', 'action_rate': 20.0, 'server_deadline': 0.4,
            **parameters})
        things.extend([graph.close, server.stop])
        return graph.start(), server

    yield start
    for end in things:
        end()


def moving(graph):
    before = len(graph.robot.commands)
    graph.wait(lambda: len(graph.robot.commands) > before + 10)


@pytest.mark.parametrize('worker', ['thread', 'process'])
def test_the_robot_moves_stands_while_nobody_answers_and_goes_on(live, worker):
    graph, server = live(worker=worker)
    graph.instruct('swing')
    graph.wait(lambda: graph.enable().success)
    moving(graph)
    assert server.questions[-1]['prompt'] == 'swing'
    server.stop()
    graph.status('standing', 'cannot be reached' if worker == 'thread' else 'server')
    graph.quiet()
    assert graph.node.session.guard.fault is None and graph.node.session.pilot.enabled
    server.start()
    moving(graph)
    graph.status('moving')


def test_a_late_answer_is_not_executed_and_the_robot_goes_on(live):
    hold, late = threading.Event(), threading.Event()

    def slow(question):
        if late.is_set():
            late.clear()
            hold.wait(10)
            return {'actions': np.full((25, 2), 1.9)}  # of which nothing must be seen
        return swing(question)

    graph, server = live(StandIn(answers=slow).start())
    graph.instruct('swing')
    graph.wait(lambda: graph.enable().success)
    moving(graph)
    unserved, reasons = graph.node.session.guard.unserved, []
    graph.node.session.guard.unserved = lambda finding, *given: (
        reasons.append(finding.reason), unserved(finding, *given))
    late.set()
    graph.wait(lambda: reasons)
    assert set(reasons) == {'server_late'}
    hold.set()
    moving(graph)
    assert max(point.positions[0] for message in graph.robot.commands
               for point in message.points) < 1.5


def test_a_server_that_answers_wrongly_three_times_is_a_fault(live):
    wrong = threading.Event()

    def answers(question):
        return {'actions': np.full((5, 2), np.nan)} if wrong.is_set() and question[
            'prompt'] == 'swing' else swing(question)

    graph, server = live(StandIn(answers=answers).start())
    graph.instruct('swing')
    graph.wait(lambda: graph.enable().success)
    moving(graph)
    wrong.set()
    graph.status('faulted', 'not finite')
    assert graph.node.session.guard.fault.reason == 'server_answer'
    graph.quiet()
    wrong.clear()
    graph.wait(lambda: graph.node.session.policy.loaded)
    assert graph.reset().success
    graph.wait(lambda: graph.enable().success)
    moving(graph)


def test_no_server_at_the_start_is_told_and_one_that_comes_is_used(live):
    server = StandIn(answers=swing).start()
    server.stop()
    graph, _ = live(server, **{'joint_names': list(JOINTS)})
    graph.instruct('swing')
    graph.status('disarmed', 'cannot be reached')
    answer = graph.enable()
    assert not answer.success and 'cannot be reached' in answer.message
    server.start()
    graph.wait(lambda: graph.node.session.policy.loaded)
    graph.wait(lambda: graph.enable().success)
    moving(graph)


def test_a_server_that_errs_says_why(live):
    turn = {'bad': False}
    graph, server = live(StandIn(answers=lambda question: 'Traceback\nKeyError: no wrist'
                                 if turn['bad'] else swing(question)).start())
    turn['bad'] = True
    graph.instruct('swing')
    said = []
    graph.wait(lambda: said.append(graph.enable()) or 'KeyError: no wrist' in said[-1].message)
    assert not any(answer.success for answer in said)
    cut(server.open[-1])


@pytest.mark.parametrize('worker', ['thread', 'process'])
def test_one_wrong_answer_is_no_fault(live, worker):
    turn = {'bad': 0}

    def answers(question):
        if turn['bad'] and question['prompt'] == 'swing':
            turn['bad'] -= 1
            return 'Traceback\nRuntimeError: out of memory'
        return swing(question)

    graph, server = live(StandIn(answers=answers).start(), worker=worker)
    graph.instruct('swing')
    graph.wait(lambda: graph.enable().success)
    moving(graph)
    turn['bad'] = 1
    graph.wait(lambda: not turn['bad'])
    moving(graph)
    moving(graph)
    assert graph.node.session.guard.fault is None


def test_with_a_process_too_a_server_is_looked_for_before_anybody_arms(live):
    server = StandIn(answers=swing).start()
    server.stop()
    graph, _ = live(server, worker='process')
    graph.status('disarmed', 'cannot be reached')
    server.start()
    graph.wait(lambda: graph.node.session.policy.loaded and not graph.node.session.unserved)
    graph.instruct('swing')
    graph.wait(lambda: graph.enable().success)
    moving(graph)
