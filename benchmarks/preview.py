# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The picture of docs/see.md: what ~/preview shows while the demo's node takes a block.

    python benchmarks/preview.py --figure docs/preview.png

Records the messages of a node and of a simulated robot in processes of their own; draws one of
a robot with its own limits, and one of a robot that may not bend its shoulder that far.
"""

import argparse
import os
from pathlib import Path
import sys
import time

import matplotlib
import numpy as np
from pi0_ros.kinematics.arm import Arm
from pi0_ros.kinematics.tools import chains
from pi0_ros.ros.demo.processes import Children, private_environment
from pi0_ros.sim import arm as facts
from pi0_ros.sim.description import urdf
import rclpy
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from std_srvs.srv import SetBool
from visualization_msgs.msg import MarkerArray

matplotlib.use('Agg')
from matplotlib import pyplot as plt  # noqa: E402, I100

LINKS = ('upper_arm', 'forearm', 'hand', 'finger')
WATCHED_S = 3.0
NARROW = ('joint_limits.shoulder_lift.lower:=1.2',)


def record(out: Path, *parameters: str) -> list[tuple[list, dict[str, float]]]:
    """Return pictures, and where the joints were, while a node with ``parameters`` moves."""
    os.environ.update(private_environment())
    children = Children(dict(os.environ), out)
    config = ['--ros-args', '--params-file', 'config/sim.yaml']
    children.start('sim', [sys.executable, '-m', 'pi0_ros', 'sim', *config, '-p', 'seed:=7'])
    children.start('node', [sys.executable, '-m', 'pi0_ros', 'node', *config,
                            '-r', 'camera_1/image_raw:=overhead/image_raw',
                            '-r', 'camera_2/image_raw:=wrist/image_raw',
                            *(word for one in parameters for word in ('-p', one))])
    rclpy.init()
    node = rclpy.create_node('viewer')
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    joints: dict[str, float] = {}
    shown: list[tuple[list, dict[str, float]]] = []
    node.create_subscription(JointState, 'joint_states', lambda message: joints.update(
        zip(message.name, message.position)), 10)
    node.create_subscription(MarkerArray, 'pi0/preview', lambda message: shown.append(
        (message.markers, dict(joints))), 10)
    enable = node.create_client(SetBool, 'pi0/enable')
    instruct = node.create_publisher(String, 'instruction', 10)
    try:
        end = time.monotonic() + 120
        armed = False
        while not armed and time.monotonic() < end:
            if enable.wait_for_service(1.0):
                answer = enable.call_async(SetBool.Request(data=True))
                executor.spin_until_future_complete(answer, 10.0)
                armed = answer.done() and answer.result().success
        if not armed:
            raise RuntimeError('the node was not armed')
        instruct.publish(String(data='pick up the red block'))
        end = time.monotonic() + WATCHED_S
        while time.monotonic() < end:
            executor.spin_once(timeout_sec=0.05)
    finally:
        children.end()
        rclpy.try_shutdown()
    return shown


def main() -> None:
    """Record, choose a picture where plan and decision differ, draw it."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--figure', type=Path, default=Path('out/preview.png'))
    args = parser.parse_args()
    out = Path('out/preview')
    out.mkdir(parents=True, exist_ok=True)
    figure = plt.figure(figsize=(11, 4.6))
    for column, (title, measure, parameters) in enumerate((
            ('a plan, and what was decided next', apart, ()),
            ('the decision leads out of the limits', beyond, NARROW)), 1):
        shown = record(out, *parameters)
        parts = [({marker.ns: marker for marker in markers}, joints) for markers, joints in shown]
        parts = [one for one in parts if {'plan', 'decided'} <= set(one[0])]
        print(f'{len(shown)} pictures, {len(parts)} with a plan')
        axis = figure.add_subplot(1, 2, column, projection='3d', title=title)
        draw(axis, *max(parts, key=lambda one: measure(one[0])))
    figure.tight_layout()
    figure.savefig(args.figure, dpi=80)
    print(args.figure)


def path(marker: object) -> np.ndarray:
    """Return the points [N, 3] of a marker, m."""
    return np.array([(point.x, point.y, point.z) for point in marker.points]).reshape(-1, 3)


def apart(markers: dict) -> float:
    """Return how far the newest decision is from the plan, m."""
    decided, plan = path(markers['decided']), path(markers['plan'])
    way = np.linalg.norm(np.diff(plan, axis=0), axis=1).sum()
    return min(way, np.linalg.norm(decided[:, None] - plan, axis=2).min(axis=1).max())


def beyond(markers: dict) -> float:
    """Return how many steps of the decision are out of the limits, and seen."""
    return len(path(markers['limits'])) + 10 * apart(markers) if 'limits' in markers else 0


def draw(axis: object, markers: dict, joints: dict[str, float]) -> None:
    """Draw the arm and what the markers are."""
    way = [np.zeros(3), np.array([0, 0, facts.BASE_HEIGHT])]
    for link in LINKS[1:]:
        (chain,) = chains(urdf(), facts.JOINT_NAMES, (), (link,))
        moved = Arm(urdf(), chain.joints, chain.frame, chain.tool)
        way.append(moved.pose(np.array([joints[name] for name in chain.joints]))[0])
    axis.plot(*np.array(way).T, color='#30343a', lw=7, solid_capstyle='round', alpha=0.75)
    for name, size in (('decided', 2), ('plan', 3.5)):
        points = path(markers[name])
        for one, other, colour in zip(points, points[1:], markers[name].colors):
            axis.plot(*np.array([one, other]).T, color=(colour.r, colour.g, colour.b), lw=size)
    if 'limits' in markers:
        axis.scatter(*path(markers['limits']).T, color='red', s=14)
    if 'clamped' in markers:
        axis.text2D(0.5, 0.93, markers['clamped'].text, color='red', fontsize=9, ha='center',
                    transform=axis.transAxes)
    axis.set_box_aspect((1, 1, 0.6), zoom=1.15)
    axis.set_xlim(0.02, 0.32)
    axis.set_ylim(-0.15, 0.15)
    axis.set_zlim(0, 0.25)
    axis.set_xlabel('x, m')
    axis.set_ylabel('y, m', labelpad=10)
    axis.set_zlabel('z, m')
    axis.view_init(28, -60)


if __name__ == '__main__':
    main()
