# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Starts the simulated robot and the node."""

from collections.abc import Sequence
import shutil

from pi0_ros.ros.demo.processes import Children, share_file
from pi0_ros.ros.links.gripper import actions
from pi0_ros.sim import arm
from pi0_ros.sim.controller import KINDS


def start_processes(children: Children, seed: int, delay_s: float = 0.0,
                    controller: str = KINDS[1]) -> None:
    """Start robot and node: with ros2 launch where it is installed, else one by one."""
    if shutil.which('ros2') and _launchable():
        children.start('launch', ['ros2', 'launch', 'pi0_ros', 'demo.launch.py', f'seed:={seed}',
                                  f'added_delay:={delay_s}', f'controller:={controller}'])
        return
    start_verbs(children, seed, delay_s, controller)


def start_verbs(children: Children, seed: int, delay_s: float = 0.0, controller: str = KINDS[1],
                *more: str, sim: Sequence[str] = ()) -> None:
    """Start robot and node one by one. :param more: for the node. :param sim: for the robot."""
    config = str(share_file('sim.yaml'))
    children.start_verb('sim', ['--ros-args', '--params-file', config, '-p', f'seed:={seed}',
                                '-p', f'controller:={controller}', *sim])
    children.start_verb('node', ['--ros-args', '--params-file', config,
                                 '-p', f'added_delay:={delay_s}',
                                 '-r', 'camera_1/image_raw:=overhead/image_raw',
                                 '-r', 'camera_2/image_raw:=wrist/image_raw', *more])


def grouped() -> list[str]:
    """Return the node's arguments for a robot whose arm and gripper have controllers each."""
    *joints, hand = arm.JOINT_NAMES
    interface = 'joint_trajectory' if actions is None else 'gripper_command'
    return [word for name, value in (
        ('commands', '[arm, gripper]'), ('arm.joints', f"[{', '.join(joints)}]"),
        ('gripper.joints', f'[{hand}]'), ('gripper.interface', interface))
        for word in ('-p', f'{name}:={value}')]


def _launchable() -> bool:
    try:
        from ament_index_python.packages import get_package_share_directory
        import launch  # noqa: F401
        import launch_ros  # noqa: F401
        return bool(get_package_share_directory('pi0_ros'))
    except (ImportError, LookupError):
        return False
