# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Episodes end with a word, on a real graph."""

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')

from pi0_ros.dataset.outcome import Outcome  # noqa: E402, I100
from pi0_ros.ros.links import qos  # noqa: E402
from std_msgs.msg import Bool, String  # noqa: E402
from std_srvs.srv import SetBool  # noqa: E402
from test_node import make, moving  # noqa: E402, F401
from test_operator import press  # noqa: E402


def results(graph):
    """Return the list into which results of episodes come."""
    heard = []
    graph.robot.create_subscription(String, 'pi0/episode_result', lambda message: heard.append(
        Outcome.from_json(message.data)), qos.RECORD)
    graph.wait(lambda: graph.robot.count_publishers('pi0/episode_result'))
    graph.episode = graph.robot.create_publisher(String, 'pi0/episode', 10)
    graph.wait(graph.episode.get_subscription_count)
    return heard


def test_an_episode_ends_with_a_word_and_the_robot_holds(make):  # noqa: F811
    graph = make()
    assert graph.enable().success
    heard = results(graph)
    graph.instruct('swing')
    moving(graph, 20)
    graph.episode.publish(String(data='nonsense'))  # moves nothing, loses nothing
    graph.episode.publish(String(data='failure: slipped'))
    graph.wait(lambda: heard)
    assert (heard[0].instruction, heard[0].outcome, heard[0].note, heard[0].takeovers) == (
        'swing', 'failure', 'slipped', 0)
    assert 0.1 < heard[0].duration_s < 60
    graph.status('standing', 'waiting for an instruction')
    graph.instruct('swing')
    moving(graph, 5)
    graph.instruct('')  # who holds first may judge later
    graph.status('standing')
    graph.episode.publish(String(data='discard'))
    graph.wait(lambda: len(heard) == 2)
    assert heard[1].outcome == 'discard' and heard[1].begin_ns > heard[0].end_ns


def test_the_service_judges_episodes_and_takeovers_are_counted(make):  # noqa: F811
    graph = make()
    judge = graph.robot.create_client(SetBool, 'pi0/outcome')
    switch = graph.robot.create_publisher(Bool, 'pi0/takeover_enable', qos.NEWEST)
    graph.wait(switch.get_subscription_count)
    heard = results(graph)
    answer = graph.call(judge, SetBool.Request(data=True))
    assert not answer.success and 'no episode to end' in answer.message
    assert graph.enable().success
    graph.instruct('swing')
    moving(graph, 5)
    leading = graph.node.session.leading
    for pressed in (True, False, True, False):
        def done(pressed=pressed):
            switch.publish(Bool(data=pressed))
            return leading.engaged == pressed
        graph.wait(done)
    assert graph.call(judge, SetBool.Request(data=True)).success
    graph.wait(lambda: heard)
    assert (heard[0].outcome, heard[0].takeovers) == ('success', 2)


def test_another_instruction_begins_another_episode(make):  # noqa: F811
    graph = make()
    heard = results(graph)
    assert graph.enable().success
    graph.instruct('swing')
    graph.instruct('swing on')
    graph.episode.publish(String(data='success: well'))
    graph.wait(lambda: heard)
    assert (heard[0].instruction, heard[0].note) == ('swing on', 'well')


def test_a_robot_that_was_disarmed_begins_another_episode(make):  # noqa: F811
    graph = make()
    heard = results(graph)
    graph.instruct('swing')  # not armed: nothing begins
    assert graph.node.operator._episode is None
    assert not graph.node.operator._judge('success')  # and there is nothing to judge
    assert graph.node.operator.asked.instruction == 'swing'  # nor is it lost by that
    assert graph.enable().success
    graph.wait(lambda: graph.node.operator._episode)
    moving(graph, 5)
    assert graph.enable(False).success
    graph.wait(lambda: graph.node.operator._episode.end_ns > 0)
    graph.quiet()
    begin_ns = graph.node.session.now()
    assert graph.enable().success
    moving(graph, 5)
    graph.instruct('swing')  # once more, as `ros2 topic pub -r` does: the same one
    episode = graph.node.operator._episode
    assert episode.begin_ns >= begin_ns
    graph.episode.publish(String(data='success'))
    graph.wait(lambda: heard)
    assert heard[0].begin_ns == episode.begin_ns


def test_an_episode_that_a_fault_ended_is_judged_as_far_as_that(make):  # noqa: F811
    graph = make()
    heard = results(graph)
    assert graph.enable().success
    graph.instruct('swing')
    moving(graph, 5)
    press(graph, True)
    graph.status('faulted')
    graph.wait(lambda: graph.node.operator._episode.end_ns > 0)
    end_ns = graph.node.operator._episode.end_ns
    graph.episode.publish(String(data='failure'))
    graph.wait(lambda: heard)
    assert (heard[0].outcome, heard[0].end_ns) == ('failure', end_ns)
    graph.node.trigger_deactivate()
    graph.node.trigger_cleanup()
    graph.episode.publish(String(data='failure'))  # nobody is there: it is told, no more


def test_who_takes_over_after_the_end_took_no_part_in_it(make):  # noqa: F811
    graph = make()
    heard = results(graph)
    assert graph.enable().success
    graph.instruct('swing')
    moving(graph, 5)
    graph.instruct('')
    graph.node.session.leading.count += 1  # as the scene is put in order by a leader
    assert 'success' in graph.node.operator._judge('success')
    graph.wait(lambda: heard)
    assert heard[0].takeovers == 0
