# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
A live graph to measure in: the node in this process, its inputs from another.

Three raw cameras of 640x480 at 30 Hz and joint states, at 100 Hz if nothing else is said; the
demo checkpoint, told that it was trained on three cameras, infers continuously.
"""

import argparse
from collections import deque
from collections.abc import Callable
from functools import partial
import json
import os
from pathlib import Path
import shutil
import sys
import threading
import time

import numpy as np
from pi0_ros.policy.factory import DEMO
from pi0_ros.ros.demo.processes import Children, private_environment
from pi0_ros.ros.links import qos
from pi0_ros.ros.main import start
from pi0_ros.ros.node import Pi0Node
from pi0_ros.sim import arm
from pi0_ros.sim.description import urdf
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

CAMERAS = ('overhead', 'wrist', 'side')
WIDTH, HEIGHT = 640, 480
TICKS_PER_SECOND = os.sysconf('SC_CLK_TCK')


class Robot(Node):
    """Publishes inputs and listens to commands."""

    def __init__(self, cameras: bool, rate_hz: float = 100.0, gripper_hz: float = 0.0) -> None:
        """
        Publish joint states, and images if ``cameras``.

        :param gripper_hz: of a message of its own for the gripper; 0: it comes with the others.
        """
        super().__init__('inputs')
        noise = np.random.default_rng(0).integers(0, 256, (4, HEIGHT, WIDTH, 3), np.uint8)
        self._images = [Image(height=HEIGHT, width=WIDTH, encoding='rgb8', step=3 * WIDTH,
                              data=frame.tobytes()) for frame in noise]
        self._cameras = [self.create_publisher(Image, f'camera_{slot}/image_raw', qos.NEWEST)
                         for slot in (1, 2, 3)]
        self._joints = self.create_publisher(JointState, 'joint_states', qos.NEWEST)
        self._description = self.create_publisher(String, 'robot_description', qos.LATCHED)
        self._description.publish(String(data=urdf()))
        self.create_subscription(JointTrajectory, 'joint_trajectory', lambda message: None, 10)
        self._numbers: dict[tuple[str, ...], int] = {}
        names = arm.JOINT_NAMES
        parts = {names: rate_hz} if not gripper_hz else {names[:-1]: rate_hz,
                                                         names[-1:]: gripper_hz}
        for part, hz in parts.items():
            self.create_timer(1 / hz, partial(self._show_joints, part))
        if cameras:
            self.create_timer(1 / 30, self._show_images)
        self._frame = 0

    def _show_joints(self, names: tuple[str, ...]) -> None:
        places = dict(zip(arm.JOINT_NAMES, arm.home().tolist()))
        message = JointState(name=list(names), position=[places[name] for name in names])
        message.header.stamp = self.get_clock().now().to_msg()
        self._numbers[names] = self._numbers.get(names, 0) + 1
        message.header.frame_id = str(self._numbers[names])  # for those who count what is lost
        self._joints.publish(message)

    def _show_images(self) -> None:
        self._frame += 1
        image = self._images[self._frame % len(self._images)]
        for publisher in self._cameras:
            image.header.stamp = self.get_clock().now().to_msg()
            publisher.publish(image)


def three_camera_checkpoint(folder: Path) -> Path:
    """Return the demo checkpoint, told of a third camera: the size of its work, not its skill."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(DEMO, folder)
    for name in ('config.json', 'policy_preprocessor.json'):
        text = json.loads((folder / name).read_text())
        features = text.get('input_features') or next(
            step['config']['features'] for step in text['steps'] if 'features' in step['config'])
        features['observation.images.side'] = features['observation.images.wrist']
        (folder / name).write_text(json.dumps(text))
    return folder


class Live:
    """The node in this process, brought to where it is told to move."""

    def __init__(self, out: Path, cameras: bool = True, rate_hz: float = 100.0,
                 gripper_hz: float = 0.0, **parameters: object) -> None:
        """Start inputs and node; ``parameters`` are the node's, the others those of Robot."""
        out.mkdir(parents=True, exist_ok=True)
        os.environ.update(private_environment())
        self.children = Children(dict(os.environ), out)
        self.children.start('inputs', [sys.executable, __file__, '--publish', '--rate',
                                       str(rate_hz), '--gripper', str(gripper_hz),
                                       *(['--no-cameras'] * (not cameras))])
        start([])
        values = {'checkpoint': str(three_camera_checkpoint(out / 'checkpoint')),
                  'joint_names': list(arm.JOINT_NAMES), 'cameras': list(CAMERAS),
                  'replan_period': 0.0, 'max_skew': 0.3, 'max_image_age': 1.0,
                  # These inputs stand still, whatever is commanded.
                  'max_tracking_error': 10.0, 'max_jump': 10.0, 'max_chunk_age': 5.0,
                  'gripper_joints': ['gripper'], **parameters}
        self.node = Pi0Node(parameter_overrides=[Parameter(name, value=value)
                                                 for name, value in values.items()])
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.node.trigger_configure()
        self.node.trigger_activate()
        self.session, self.loop = self.node.session, self.node.session.loop

    def wait(self, done: Callable[[], object], timeout_s: float = 30.0) -> None:
        """
        Let callbacks run until ``done``.

        :raises RuntimeError: the time is over.
        """
        end = time.monotonic() + timeout_s
        while not done():
            if time.monotonic() > end:
                raise RuntimeError(f'waited {timeout_s} s in vain: '
                                   f'{self.session.inputs.problem(self.session.now())}')
            self.executor.spin_once(timeout_sec=0.05)

    def run(self, seconds: float) -> None:
        """Let callbacks run for so long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.executor.spin_once(timeout_sec=0.2)

    def move(self, instruction: str) -> None:
        """Arm the robot and instruct it; return when it is moved."""
        session = self.session
        self.wait(lambda: not session.commands.missing() and not session.guard.why_not(
            session.now(), session.inputs.problem(session.now())))
        session.guard.arm(session.now())
        self.node.operator._on_instruction(String(data=instruction))
        self.wait(lambda: session.pilot.speaking)

    def measure_all(self) -> None:
        """Forget what was measured of ticks, and forget nothing from now on."""
        self.loop._lateness_ns, self.loop._intervals_ns = deque(), deque()
        self.loop.missed = 0

    def close(self) -> None:
        """End node and inputs."""
        self.node.destroy_node()
        self.children.end()
        rclpy.try_shutdown()


def process_seconds(process_id: int | str = 'self') -> float:
    """Return how long all threads of a process have computed."""
    fields = Path(f'/proc/{process_id}/stat').read_text().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def thread_seconds() -> dict[str, float]:
    """Return how long each thread of this process has computed; those of DDS as one."""
    names = {thread.native_id: thread.name for thread in threading.enumerate()}
    out: dict[str, float] = {}
    for task in Path('/proc/self/task').iterdir():
        fields = (task / 'stat').read_text().rpartition(')')[2].split()
        name = names.get(int(task.name), 'middleware and others')
        out[name] = out.get(name, 0.0) + (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND
    return out


def main() -> None:
    """Be the process that publishes the inputs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--publish', action='store_true', required=True)
    parser.add_argument('--no-cameras', action='store_true')
    parser.add_argument('--rate', type=float, default=100.0)
    parser.add_argument('--gripper', type=float, default=0.0)
    args = parser.parse_args()
    rclpy.init()
    robot = Robot(not args.no_cameras, args.rate, args.gripper)
    executor = SingleThreadedExecutor()
    executor.add_node(robot)
    try:
        executor.spin()
    except KeyboardInterrupt:
        pass


if __name__ == '__main__':
    main()
