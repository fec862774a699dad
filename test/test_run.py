# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Programs instruct the robot by goals of ~/run, on a real graph."""

import math
from types import SimpleNamespace

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')
try:  # the folder of its sources can be imported too, and is empty
    from pi0_interfaces.action import RunPolicy
except ImportError:
    pytest.skip('needs the package pi0_interfaces, built by colcon', allow_module_level=True)

from action_msgs.msg import GoalStatus  # noqa: E402, I100
from pi0_ros.ros.links.run_server import _Run  # noqa: E402
from rclpy.action import ActionClient  # noqa: E402
from std_msgs.msg import String  # noqa: E402
from std_srvs.srv import SetBool  # noqa: E402
from test_episode import results  # noqa: E402
from test_node import make, moving  # noqa: E402, F401
from test_operator import press  # noqa: E402

SUCCEEDED, CANCELED, ABORTED = (GoalStatus.STATUS_SUCCEEDED, GoalStatus.STATUS_CANCELED,
                                GoalStatus.STATUS_ABORTED)


class Client:
    """A program that asks for runs."""

    def __init__(self, graph):
        self.graph, self.feedback = graph, []
        self.client = ActionClient(graph.robot, RunPolicy, 'pi0/run')
        self.judge = graph.robot.create_client(SetBool, 'pi0/outcome')
        graph.wait(self.client.server_is_ready)
        graph.wait(self.judge.service_is_ready)

    def start(self, prompt, limit_s=0.0):
        """Send a goal; return its handle and the future of its result."""
        sent = self.client.send_goal_async(
            RunPolicy.Goal(prompt=prompt, max_duration_s=limit_s),
            feedback_callback=lambda message: self.feedback.append(message.feedback))
        self.graph.wait(sent.done)
        handle = sent.result()
        assert handle.accepted
        return handle, handle.get_result_async()

    def end(self, future):
        """Wait for the end; return status, reason and the whole result."""
        self.graph.wait(future.done)
        answer = future.result()
        return answer.status, answer.result.termination_reason, answer.result


@pytest.fixture
def ready(make):  # noqa: F811
    graph = make()
    client = Client(graph)
    assert graph.enable().success
    return graph, client


def test_a_run_lasts_for_its_time_and_then_holds(ready):
    graph, client = ready
    _, future = client.start('swing', 0.8)
    moving(graph, 10)
    assert graph.robot.active[-1] == 'swing'
    status, reason, result = client.end(future)
    assert (status, reason, result.outcome) == (SUCCEEDED, 'time_limit', 0)
    assert 0.8 <= result.duration_s < 5 and result.chunks >= 1
    graph.wait(lambda: graph.robot.active[-1] == '')
    graph.status('standing', 'waiting for an instruction')
    assert client.feedback and client.feedback[-1].state == 'moving'
    assert client.feedback[-1].chunks >= 1 and client.feedback[-1].queue_s > 0


@pytest.mark.parametrize('success', [True, False])
def test_who_judges_ends_the_run(ready, success):
    graph, client = ready
    assert not graph.call(client.judge, SetBool.Request(data=True)).success  # no run yet
    _, future = client.start('swing')
    moving(graph, 5)
    assert graph.call(client.judge, SetBool.Request(data=success)).success
    status, reason, result = client.end(future)
    assert (status, reason) == (SUCCEEDED if success else ABORTED, 'judged')
    assert result.outcome == (result.OUTCOME_SUCCESS if success else result.OUTCOME_FAILURE)
    graph.status('standing')


def test_a_canceled_run_stops_smoothly(ready):
    graph, client = ready
    handle, future = client.start('swing')
    moving(graph, 5)
    handle.cancel_goal_async()
    assert client.end(future)[:2] == (CANCELED, 'canceled')
    graph.status('standing', 'waiting for an instruction')
    assert graph.node.session.pilot.enabled and graph.node.session.guard.fault is None


def test_a_new_run_replaces_the_old_one_and_the_robot_goes_on(ready):
    graph, client = ready
    _, first = client.start('swing')
    moving(graph, 5)
    _, second = client.start('swing again', 0.5)
    status, reason, result = client.end(first)
    assert (status, reason) == (ABORTED, 'replaced') and 'swing again' in result.message
    assert graph.robot.active[-1] == 'swing again'
    assert client.end(second)[:2] == (SUCCEEDED, 'time_limit')


@pytest.mark.parametrize('said, reason', [('other', 'replaced'), ('', 'no_instruction')])
def test_a_person_who_instructs_ends_the_run(ready, said, reason):
    graph, client = ready
    _, future = client.start('swing')
    moving(graph, 5)
    graph.instruct(said)
    assert client.end(future)[:2] == (ABORTED, reason)
    assert graph.node.operator.asked.instruction == said  # which is not taken back


def test_disarming_and_the_stop_end_the_run_and_say_why(ready):
    graph, client = ready
    _, future = client.start('swing')
    moving(graph, 5)
    graph.enable(False)
    status, reason, result = client.end(future)
    assert (status, reason) == (ABORTED, 'operator') and 'disarmed by the operator' in (
        result.message)
    graph.wait(lambda: not graph.node.operator.asked.instruction)  # nobody asks for it any more
    graph.wait(lambda: graph.enable().success)  # once it stands
    _, future = client.start('swing')
    moving(graph, 5)
    press(graph, True)
    assert client.end(future)[:2] == (ABORTED, 'operator_stop')


@pytest.mark.parametrize('prompt, limit_s, words', [
    ('', 0.0, 'prompt is empty'), ('  ', 0.0, 'prompt is empty'),
    ('swing', -1.0, 'max_duration_s is -1.0'), ('swing', math.nan, 'max_duration_s is nan'),
    ('swing', math.inf, 'max_duration_s is inf')])
def test_a_goal_that_makes_no_sense_moves_nothing(ready, prompt, limit_s, words):
    graph, client = ready
    status, reason, result = client.end(client.start(prompt, limit_s)[1])
    assert (status, reason) == (ABORTED, 'invalid_goal') and words in result.message
    assert not graph.node.operator.asked.instruction


def test_a_robot_that_is_not_armed_runs_nothing(make):  # noqa: F811
    graph = make()
    status, reason, result = Client(graph).end(Client(graph).start('swing')[1])
    assert status == ABORTED and reason == 'not_armed' and 'pi0/enable' in result.message
    assert not graph.node.operator.asked.instruction and graph.quiet() == 0


def test_a_goal_that_is_refused_leaves_the_other_programs_run_alone(make):  # noqa: F811
    graph = make(known_instructions=['swing*'])
    client = Client(graph)
    assert graph.enable().success
    _, first = client.start('swing')
    moving(graph, 5)
    for prompt in ('dance', ''):
        assert client.end(client.start(prompt)[1])[0] == ABORTED
    moving(graph, 10)
    assert not first.done() and graph.node.operator.asked.instruction == 'swing'


def test_a_goal_that_is_canceled_before_it_begins_is_not_followed(ready):
    graph, client = ready
    _, first = client.start('swing')
    moving(graph, 5)
    goal = client.client.send_goal_async(RunPolicy.Goal(prompt='other'))
    graph.wait(goal.done)
    runs = graph.node.operator._runs
    # What arrives in one pass of the executor: the goal is taken, and canceled before it begins.
    handle = SimpleNamespace(request=RunPolicy.Goal(prompt='third'), is_cancel_requested=True)
    assert runs._refusal(_Run(handle, 0, None), runs._look())[0] == 'canceled'
    assert client.end(first)[:2] == (ABORTED, 'replaced')
    goal.result().cancel_goal_async()
    assert client.end(goal.result().get_result_async())[:2] == (CANCELED, 'canceled')
    graph.status('standing')


def test_a_robot_that_is_disarmed_and_armed_at_once_does_not_go_on(ready):
    graph, client = ready
    _, future = client.start('swing')
    moving(graph, 5)
    graph.node.session.armings += 1  # as between two looks at it
    status, reason, result = client.end(future)
    assert (status, reason) == (ABORTED, 'not_armed') and 'armed again' in result.message
    graph.status('standing')


@pytest.mark.parametrize('said', [('swing',), ('', 'swing')])
def test_what_a_person_says_counts_even_if_it_is_the_same(ready, said):
    graph, client = ready
    _, future = client.start('swing', 2.0)
    moving(graph, 5)
    for text in said:
        graph.instruct(text)
    assert client.end(future)[:2] == (ABORTED, 'replaced')
    moving(graph, 120)  # longer than the run would have lasted
    assert graph.node.operator.asked.instruction == 'swing'


def test_a_persons_refused_text_says_so(make):  # noqa: F811
    graph = make(known_instructions=['swing'])
    client = Client(graph)
    assert graph.enable().success
    _, future = client.start('swing')
    moving(graph, 5)
    graph.instruct('dance')
    status, reason, result = client.end(future)
    assert (status, reason) == (ABORTED, 'refused') and "'dance'" in result.message


def test_who_judges_goes_before_who_cancels(ready):
    graph, client = ready
    handle, future = client.start('swing')
    moving(graph, 5)
    assert graph.node.operator._runs.judge(True)
    handle.cancel_goal_async()
    status, reason, result = client.end(future)
    assert (status, reason, result.outcome) == (SUCCEEDED, 'judged', result.OUTCOME_SUCCESS)


def test_a_node_that_is_shut_down_tells_its_client(ready):
    """What ``spin`` does after Ctrl-C: close, and let the last words go out."""
    graph, client = ready
    _, future = client.start('swing')
    moving(graph, 5)
    graph.node.close()
    assert graph.node.telling
    graph.wait(lambda: not graph.node.telling)
    assert client.end(future)[:2] == (ABORTED, 'inactive')


def test_an_instruction_that_is_refused_is_answered(make):  # noqa: F811
    graph = make(known_instructions=['swing'])
    client = Client(graph)
    assert graph.enable().success
    status, reason, result = client.end(client.start('dance')[1])
    assert (status, reason) == (ABORTED, 'refused')
    assert "unknown instruction 'dance'" in result.message


def test_a_node_that_is_deactivated_ends_the_run(ready):
    graph, client = ready
    _, future = client.start('swing')
    moving(graph, 5)
    graph.node.trigger_deactivate()
    status, reason, _ = client.end(future)
    assert (status, reason) == (ABORTED, 'inactive')
    assert client.end(client.start('swing')[1])[:2] == (ABORTED, 'inactive')


@pytest.mark.parametrize('word, outcome, reason', [
    ('success', 1, 'judged'), ('failure', 2, 'judged'), ('discard', 0, 'discarded')])
def test_an_episode_that_is_a_run_ends_the_run(ready, word, outcome, reason):
    graph, client = ready
    heard = results(graph)
    _, future = client.start('swing')
    moving(graph, 5)
    graph.episode.publish(String(data=word))
    status, why, result = client.end(future)
    assert (why, result.outcome) == (reason, outcome)
    graph.wait(lambda: heard)
    assert (heard[0].instruction, heard[0].outcome) == ('swing', word)


def test_a_run_of_the_same_prompt_is_another_episode(ready):
    graph, client = ready
    heard = results(graph)
    _, first = client.start('swing')
    moving(graph, 5)
    begin_ns = graph.node.operator._episode.begin_ns
    _, second = client.start('swing')
    assert client.end(first)[1] == 'replaced'
    graph.episode.publish(String(data='success'))
    assert client.end(second)[1] == 'judged'
    graph.wait(lambda: heard)
    assert heard[0].begin_ns > begin_ns


def test_a_word_after_a_persons_instruction_is_no_word_on_the_run(ready):
    graph, client = ready
    heard = results(graph)
    _, future = client.start('swing')
    moving(graph, 5)
    graph.node.operator._instruct('something else')
    assert 'something else' in graph.node.operator._judge('failure')
    assert client.end(future)[2].outcome == 0
    graph.wait(lambda: heard)
    assert heard[0].instruction == 'something else'
    graph.status('standing', 'waiting for an instruction')
