# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What the robot will do, as pictures for RViz and Foxglove, while someone looks."""

from collections.abc import Sequence
import logging

from builtin_interfaces.msg import Duration
from geometry_msgs.msg import Point
import numpy as np
from pi0_ros.control.pilot import Pilot
from pi0_ros.kinematics.arm import Arm
from pi0_ros.kinematics.tools import chains
from pi0_ros.kinematics.urdf import parse, UrdfError
from pi0_ros.motion.trajectory import Trajectory
from pi0_ros.observation.buffers import Stamped
from pi0_ros.policy.policy import ActionChunk
from pi0_ros.ros.links import qos
from pi0_ros.ros.links.conversions import trajectory_message
from rclpy.lifecycle import LifecycleNode
from rclpy.time import Time
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

try:  # it comes with MoveIt
    from moveit_msgs.msg import DisplayTrajectory, RobotTrajectory
except ImportError:
    DisplayTrajectory = None

log = logging.getLogger(__name__)
APART_NS = 20_000_000     # between points of a path
KEPT_NS = 10_000_000_000  # for which a decision that was not taken is shown
SHOWN_S = 1               # that a marker outlives the node that told it
NOW, LATER = np.array([0.1, 0.9, 0.3]), np.array([0.1, 0.3, 1.0])
GREY, RED = (0.6, 0.6, 0.6), (1.0, 0.1, 0.1)
THICK, TEXT_HEIGHT = 0.004, 0.03  # metres


class Preview:
    """Publishes ``~/preview``, and ``~/preview_trajectory`` where MoveIt's messages are there."""

    def __init__(self, node: LifecycleNode, pilot: Pilot, tools: Sequence[str]) -> None:
        """Create the publishers. :param tools: links, none to find them, see ``chains``."""
        self._node, self._pilot, self._tools = node, pilot, tools
        self._markers = node.create_publisher(MarkerArray, '~/preview', 1,
                                              event_callbacks=qos.SAID)
        self._moveit = None
        if DisplayTrajectory:
            try:
                self._moveit = node.create_publisher(
                    DisplayTrajectory, '~/preview_trajectory', 1, event_callbacks=qos.SAID)
            except Exception as error:  # a package that is half there
                log.warning(f'~/preview_trajectory is not offered: {error!r}')
        self._urdf: str | None = None
        self._arms: list[tuple[str, Arm, np.ndarray]] = []  # frame, and columns of its joints
        self._model, self._merged, self._told_error = '', -1, ''

    def tell(self, now_ns: int, urdf: str | None, decided: ActionChunk | None,
             joints: Stamped | None) -> None:
        """
        Publish what is in force and what was decided last, if someone listens.

        A picture is no reason to stop: what fails is told once.

        :param urdf: the robot's description; None: nothing is shown but joints.
        :param joints: what is measured, in the observed order, commanded joints first.
        """
        try:
            self._tell(now_ns, urdf, decided, joints)
        except Exception as error:
            if repr(error) != self._told_error:
                self._told_error = repr(error)
                log.warning(f'~/preview cannot be shown: {error!r}')

    def _tell(self, now_ns: int, urdf: str | None, decided: ActionChunk | None,
              joints: Stamped | None) -> None:
        if self._markers.get_subscription_count():
            self._take(urdf)
            self._markers.publish(MarkerArray(markers=self._show(now_ns, decided)))
        merged = self._pilot.counters.merged
        if self._moveit and merged != self._merged and self._moveit.get_subscription_count():
            self._merged = merged
            self._take(urdf)
            self._publish_trajectory(now_ns, joints)

    def close(self) -> None:
        """Forget the publishers."""
        for publisher in filter(None, (self._markers, self._moveit)):
            self._node.destroy_publisher(publisher)

    def _take(self, urdf: str | None) -> None:
        """Find the tools of another description; say why where that cannot be done."""
        if urdf == self._urdf:
            return
        self._urdf, self._arms, names = urdf, [], self._pilot.joint_names
        if urdf is None:
            return
        grippers = [name for name, alone in zip(names, self._pilot.limits.alone) if alone]
        try:
            self._model = parse(urdf).get('name', '')
            for chain in chains(urdf, names, grippers, self._tools):
                arm = Arm(urdf, chain.joints, chain.frame, chain.tool)
                self._arms.append((chain.frame, arm, np.array([names.index(name)
                                                               for name in chain.joints])))
            log.info('~/preview shows ' + ', '.join(f"'{arm.tool}' in '{frame}'"
                                                    for frame, arm, _ in self._arms))
        except UrdfError as error:
            log.warning(f'no tool is shown on ~/preview: {error}')

    def _coming(self, now_ns: int) -> np.ndarray:
        """Return times of the plan from now on, [N], one if it stands."""
        at_ns, plan = self._pilot.scale.at(now_ns), self._pilot.plan
        left = plan.remaining_ns(at_ns)
        return at_ns + np.append(np.arange(0, left, APART_NS), left)

    def _show(self, now_ns: int, decided: ActionChunk | None) -> list[Marker]:
        pilot = self._pilot
        plan, limits, times = pilot.plan, pilot.limits, self._coming(now_ns)
        moving = pilot.speaking and len(times) > 1
        stale = decided is None or now_ns > decided.end_ns + KEPT_NS
        self._stamp = Time(nanoseconds=now_ns).to_msg()
        out: list[Marker] = []
        for number, (frame, arm, columns) in enumerate(self._arms):
            if not stale:
                path = _path(arm, decided.positions[:, columns])
                beyond = ((decided.positions < limits.lower) | (decided.positions > limits.upper))
                out.append(self._marker('decided', number, frame, Marker.LINE_STRIP, path, GREY))
                out.append(self._marker('limits', number, frame, Marker.SPHERE_LIST,
                                        path[beyond[:, columns].any(1)], RED, 3 * THICK))
            if moving:
                path = _path(arm, plan.sample(times)[:, columns])
                share = np.linspace(0, 1, len(path))[:, None]
                colours = (1 - share) * NOW + share * LATER
                out.append(self._marker('plan', number, frame, Marker.LINE_STRIP, path, colours,
                                        2 * THICK))
                text = _told(pilot)
                if text and not number:
                    above = path[:1] + [0, 0, 2 * TEXT_HEIGHT]
                    out.append(self._marker('clamped', 0, frame, Marker.TEXT_VIEW_FACING, above,
                                            RED, TEXT_HEIGHT, text))
        return [marker for marker in out if marker.points or marker.text]

    def _marker(self, space: str, number: int, frame: str, kind: int, path: np.ndarray,
                colours: Sequence[float] | np.ndarray, size: float = THICK, text: str = ''
                ) -> Marker:
        out = Marker(ns=space, id=number, type=kind, text=text, lifetime=Duration(sec=SHOWN_S))
        out.header.frame_id, out.header.stamp = frame, self._stamp
        out.pose.orientation.w = 1.0
        out.scale.x = out.scale.y = out.scale.z = size
        points = [Point(x=x, y=y, z=z) for x, y, z in path.tolist()]
        if kind == Marker.TEXT_VIEW_FACING:
            out.pose.position = points[0]
        else:
            out.points = points
        rows = np.broadcast_to(colours, (len(path), 3)).tolist()
        out.colors = [ColorRGBA(r=r, g=g, b=b, a=1.0) for r, g, b in rows] if kind in (
            Marker.LINE_STRIP, Marker.SPHERE_LIST) else []
        out.color = ColorRGBA(**dict(zip('rgb', map(float, np.atleast_2d(colours)[0]))), a=1.0)
        return out

    def _publish_trajectory(self, now_ns: int, joints: Stamped | None) -> None:
        times, names = self._coming(now_ns), self._pilot.joint_names
        positions, velocities = self._pilot.plan.motion(times)
        window = Trajectory(now_ns, tuple(names), times - times[0], positions, velocities,
                            positions[0], velocities[0])
        out = DisplayTrajectory(model_id=self._model, trajectory=[
            RobotTrajectory(joint_trajectory=trajectory_message(window))])
        state = out.trajectory_start.joint_state
        state.name = list(names)
        state.position = (positions[0] if joints is None else
                          np.asarray(joints.value)[:len(names)]).tolist()
        self._moveit.publish(out)


def _path(arm: Arm, positions: np.ndarray) -> np.ndarray:
    """Return where the tool is, [N, 3] metres, at positions [N, n] of its joints."""
    return np.array([arm.pose(row)[0] for row in positions]).reshape(-1, 3)


def _told(pilot: Pilot) -> str:
    """Return what limits do to the plan in force, '' for nothing."""
    clamped = pilot.plan.clamped
    parts = [f'{name} clamped by {far:.3f}' for name, far in zip(pilot.joint_names, clamped)
             if far > 1e-4] if clamped is not None else []
    return ', '.join(parts + ['slowed by limits'] * pilot.plan.slowed)
