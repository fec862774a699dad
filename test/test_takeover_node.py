# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""A person takes over, on a real graph: topics, status, and who goes before whom."""

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')

import numpy as np  # noqa: E402, I100
from pi0_ros.ros.links import qos  # noqa: E402
from sensor_msgs.msg import JointState  # noqa: E402
from std_msgs.msg import Bool  # noqa: E402
from support import command_problem  # noqa: E402
from test_node import make, moving  # noqa: E402, F401
from test_operator import press, told  # noqa: E402
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint  # noqa: E402


class Person:
    """Holds a leader and presses the switch, as often as a driver does."""

    def __init__(self, graph, kind=JointState):
        topic = 'pi0/takeover' if kind is JointState else 'pi0/takeover_trajectory'
        self.graph, self.kind = graph, kind
        self.leader = graph.robot.create_publisher(kind, topic, qos.NEWEST)
        self.switch = graph.robot.create_publisher(Bool, 'pi0/takeover_enable', qos.NEWEST)
        self.pressed, self.position = None, [0.5, 0.5]
        self.timer = graph.robot.create_timer(0.02, self._work)
        graph.wait(lambda: self.leader.get_subscription_count()
                   and self.switch.get_subscription_count())

    def _work(self):
        if self.pressed is not None:
            self.switch.publish(Bool(data=self.pressed))
        if self.position is not None:
            stamp = self.graph.robot.stamp()
            if self.kind is JointState:
                message = JointState(name=['a', 'b'], position=self.position)
            else:
                message = JointTrajectory(joint_names=['a', 'b'], points=[
                    JointTrajectoryPoint(positions=[9.0, 9.0]),
                    JointTrajectoryPoint(positions=self.position)])
            message.header.stamp = stamp
            self.leader.publish(message)


@pytest.mark.parametrize('kind', [JointState, JointTrajectory])
def test_a_person_takes_over_leads_and_gives_back(make, kind):  # noqa: F811
    # The mock swings by its own clock, wherever the person left the robot.
    graph = make(max_jump=0.6, takeover_timeout=2.0)
    person = Person(graph, kind)
    assert graph.enable().success
    graph.instruct('swing')
    moving(graph, 20)
    person.pressed = True
    graph.status('takeover', 'a person leads')
    graph.wait(lambda: graph.node.session.leading.problem is None)
    begin = np.array(graph.robot.position)
    person.position = [0.6, 0.5]  # 0.1 further than it was taken over at
    graph.wait(lambda: abs(graph.robot.position[0] - begin[0] - 0.1) < 0.02)
    _, _, values = told(graph, 'control')
    assert values['leads'] == 'person' and float(values['led_for_s']) > 0
    person.pressed = False
    graph.wait(lambda: not graph.node.session.leading.engaged)
    person.pressed = person.position = None
    assert graph.status('moving', 'swing') == 'swing'
    moving(graph, 20)
    assert not [p for p in map(command_problem, graph.robot.commands) if p]
    # The mock swings about where its plan began: nothing jumped on the way.
    assert graph.robot.jumps().max() < 0.02


def test_two_leaders_and_silence_hold_and_are_told(make):  # noqa: F811
    graph = make()
    one = Person(graph)
    assert graph.enable().success
    one.pressed = True
    graph.wait(lambda: graph.node.session.leading.engaged)
    other = Person(graph)
    graph.status('takeover', 'two switches publish')
    graph.robot.destroy_publisher(other.switch)
    graph.status('takeover', 'two leaders publish')
    other.timer.cancel()
    graph.robot.destroy_publisher(other.leader)
    graph.status('takeover', 'a person leads')
    one.pressed = None
    graph.status('takeover', 'the switch of who leads is silent')
    assert graph.node.session.pilot.enabled and graph.node.session.guard.fault is None


def test_the_stop_goes_before_the_person(make):  # noqa: F811
    graph = make()
    person = Person(graph)
    assert graph.enable().success
    person.pressed = True
    graph.status('takeover', 'a person leads')
    press(graph, True)
    graph.status('faulted', 'stopped by the operator')
    graph.wait(lambda: not graph.node.session.leading.engaged)
    before = len(graph.robot.commands)
    graph.wait(lambda: not graph.node.session.pilot.speaking)
    assert len(graph.robot.commands) - before < 30


def test_a_node_that_is_deactivated_is_led_by_nobody(make):  # noqa: F811
    graph = make()
    person = Person(graph)
    assert graph.enable().success
    person.pressed = True
    graph.status('takeover', 'a person leads')
    leading = graph.node.session.leading
    assert leading.engaged
    graph.node.trigger_deactivate()
    assert not leading.engaged
    graph.node.trigger_cleanup()
    assert graph.node.session is None


def test_a_switch_held_while_arming_must_be_let_go_first(make):  # noqa: F811
    graph = make()
    person = Person(graph)
    person.pressed = True
    leading = graph.node.session.leading
    graph.wait(lambda: leading._pressed_before)
    assert graph.enable().success
    graph.instruct('swing')
    moving(graph, 20)
    assert not leading.engaged
    person.pressed = False
    graph.wait(lambda: not leading._pressed_before)
    person.pressed = True
    graph.status('takeover', 'a person leads')


def test_paused_the_policy_decides_nothing(make):  # noqa: F811
    graph = make(takeover_policy='pause')
    person = Person(graph)
    assert graph.enable().success
    graph.instruct('swing')
    moving(graph, 20)
    person.pressed = True
    graph.status('takeover', 'a person leads')
    count = graph.node.session.latency.count
    moving(graph, 30)
    assert graph.node.session.latency.count <= count + 1
