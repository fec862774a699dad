# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What the robot will do, as pictures, on a real graph."""

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')
pytest.importorskip('pinocchio', reason='needs Pinocchio: requirements/tools.txt')

from pi0_ros.ros.links import preview  # noqa: E402, I100
from rclpy.qos import QoSProfile  # noqa: E402
from test_node import make, moving  # noqa: E402, F401
from visualization_msgs.msg import Marker, MarkerArray  # noqa: E402

# a swings in the x-y plane half a metre from the base, b is a gripper at its end.
ARM = """<robot name="r">
  <joint name="a" type="revolute"><parent link="base"/><child link="arm"/><axis xyz="0 0 1"/>
    <limit lower="{low}" upper="{high}" velocity="4" effort="1"/></joint>
  <joint name="tip" type="fixed"><parent link="arm"/><child link="hand"/><origin xyz="0.5 0 0"/>
    </joint>
  <joint name="b" type="prismatic"><parent link="hand"/><child link="finger"/>
    <axis xyz="0 1 0"/><limit lower="-1" upper="1" velocity="4" effort="1"/></joint>
</robot>"""


class Viewer:
    """Looks at the pictures."""

    def __init__(self, graph):
        self.graph, self.shown = graph, []
        self.subscription = graph.robot.create_subscription(
            MarkerArray, 'pi0/preview', lambda message: self.shown.append(message.markers),
            QoSProfile(depth=10))

    def see(self, *spaces, points=0):
        """Wait for a picture with these parts, of so many points; return them by name."""
        self.shown.clear()
        found = []

        def seen():
            found[:] = [{marker.ns: marker for marker in markers} for markers in self.shown]
            found[:] = [parts for parts in found if set(spaces) <= set(parts)
                        and min(len(parts[name].points) for name in spaces) >= points]
            return found

        self.graph.wait(seen)
        return found[-1]


def described(low=-2.0, high=2.0):
    return ARM.format(low=low, high=high)


def points(marker):
    return np.array([(point.x, point.y, point.z) for point in marker.points])


def test_the_plan_is_shown_as_the_way_of_the_tool_from_now_to_later(make):  # noqa: F811
    graph = make(urdf=described(), gripper_joints=['b'])
    viewer = Viewer(graph)
    graph.enable()
    graph.instruct('swing')
    moving(graph, 5)
    parts = viewer.see('plan', 'decided', points=6)  # not of a stop
    for name in ('plan', 'decided'):
        marker = parts[name]
        assert marker.type == Marker.LINE_STRIP and marker.header.frame_id == 'base'
        assert len(marker.colors) == len(marker.points)
        assert np.allclose(np.linalg.norm(points(marker), axis=1), 0.5)
    first, last = parts['plan'].colors[0], parts['plan'].colors[-1]
    assert first.g > first.b and last.b > last.g
    grey = parts['decided'].colors[3]
    assert grey.r == grey.g == grey.b


def test_what_limits_change_is_marked(make):  # noqa: F811
    graph = make(urdf=described(-0.2, 0.2), gripper_joints=['b'], position_margin=0.0,
                 max_jump=3.0, policy='mock_scripted', mock_script=[0.1, 0.0, 1.5, 0.0])
    viewer = Viewer(graph)
    graph.enable()
    graph.instruct('go')
    parts = viewer.see('limits', 'plan')
    marked = points(parts['limits'])
    assert parts['limits'].type == Marker.SPHERE_LIST and len(marked)
    assert (np.abs(np.arctan2(marked[:, 1], marked[:, 0])) > 0.2).all()
    text = viewer.see('clamped')['clamped']
    assert text.type == Marker.TEXT_VIEW_FACING and 'a clamped by' in text.text
    assert text.pose.position.z > 0


def test_a_refused_arming_is_shown_too(make):  # noqa: F811
    graph = make(urdf=described(), policy='mock_scripted', mock_script=[1.0, 0.3],
                 gripper_joints=['b'])
    graph.node.session.policy._start = 0, np.array([0.9, 0.2])
    viewer = Viewer(graph)
    graph.instruct('go')
    assert not graph.enable().success
    shown = viewer.see('decided')
    assert 'plan' not in shown
    assert np.allclose(points(shown['decided'])[0], [0.5 * np.cos(0.9), 0.5 * np.sin(0.9), 0],
                       atol=0.06)


def test_nobody_looks_and_nothing_is_drawn(make, monkeypatch):  # noqa: F811
    drawn = []
    monkeypatch.setattr(preview.Preview, '_show', lambda *given: drawn.append(given) or [])
    graph = make(urdf=described(), gripper_joints=['b'])
    graph.enable()
    graph.instruct('swing')
    moving(graph, 20)
    assert not drawn
    viewer = Viewer(graph)
    graph.wait(lambda: viewer.shown)
    assert drawn


def test_a_tool_that_is_not_there_is_told_once_and_nothing_stops(make, caplog):  # noqa: F811
    graph = make(urdf=described(), tool_link=['nose'])
    viewer = Viewer(graph)
    graph.enable()
    graph.instruct('swing')
    moving(graph, 20)
    graph.wait(lambda: len(viewer.shown) > 3)
    assert not any(viewer.shown)
    told = [record for record in caplog.records if "link 'nose'" in record.message]
    assert len(told) == 1


def test_a_picture_that_fails_stops_nothing(make, monkeypatch, caplog):  # noqa: F811
    monkeypatch.setattr(preview, '_path', lambda *given: 1 / 0)
    graph = make(urdf=described(), gripper_joints=['b'])
    viewer = Viewer(graph)
    graph.enable()
    graph.instruct('swing')
    moving(graph, 40)
    assert viewer is not None
    graph.wait(lambda: [r for r in caplog.records if 'cannot be shown' in r.message])
    moving(graph, len(graph.robot.commands) + 10)


def test_moveit_shows_every_new_plan(make):  # noqa: F811
    messages = pytest.importorskip('moveit_msgs.msg', reason='needs moveit_msgs')
    graph = make(urdf=described(), gripper_joints=['b'])
    shown = []
    subscription = graph.robot.create_subscription(
        messages.DisplayTrajectory, 'pi0/preview_trajectory', shown.append, 10)
    graph.enable()
    graph.instruct('swing')
    graph.wait(lambda: len(shown) > 1)
    assert subscription is not None and shown[0].model_id == 'r'
    assert shown[0].trajectory_start.joint_state.name == ['a', 'b']
    (trajectory,) = shown[-1].trajectory
    assert trajectory.joint_trajectory.joint_names == ['a', 'b']
    times = [point.time_from_start.sec + point.time_from_start.nanosec / 1e9
             for point in trajectory.joint_trajectory.points]
    assert times[0] == 0 and (np.diff(times) > 0).all() and len(times) > 5
    assert not any(trajectory.joint_trajectory.points[-1].velocities)
