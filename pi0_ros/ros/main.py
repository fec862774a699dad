# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Entry points of the ROS nodes."""

import argparse
from collections.abc import Callable
from functools import partial
import re
import sys
import time

from pi0_ros.configuration.file import parameter_files
from pi0_ros.ros.interrupt import INTERRUPT
import rclpy
from rclpy._rclpy_pybind11 import RCLError
from rclpy.exceptions import InvalidParameterValueException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node

LAST_WORDS_S = 0.5
SWITCH_INTERVAL_S = 1e-4  # lets the control thread in when another thread computes in Python


def spin(node: Node) -> None:
    """Run callbacks until the node is told to stop."""
    executor = SingleThreadedExecutor()
    for one in (node, *getattr(node, 'beside', ())):
        executor.add_node(one)
    try:
        with INTERRUPT.raising(False):
            while rclpy.ok() and not INTERRUPT.told.is_set():
                # Python runs signal handlers between calls: one without end hears no Ctrl-C.
                executor.spin_once(timeout_sec=0.2)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass  # from a policy that was being loaded
    INTERRUPT.ignore()
    close = getattr(node, 'close', None)
    if close is not None and rclpy.ok():
        close()
        end = time.monotonic() + LAST_WORDS_S
        # Programs wait to hear how a run ended.
        while getattr(node, 'telling', False) and time.monotonic() < end:
            executor.spin_once(timeout_sec=0.05)


def start(argv: list[str]) -> None:
    """Start ROS so that SIGINT and SIGTERM end ``spin`` while the node can still publish."""
    rclpy.init(args=[sys.argv[0], *argv], signal_handler_options=rclpy.SignalHandlerOptions.NO)
    sys.setswitchinterval(SWITCH_INTERVAL_S)

    INTERRUPT.listen()


def _show_help(verb: str, text: str, argv: list[str]) -> None:
    """End with a help text if it is asked for; everything else is ROS's."""
    _parser(verb, text).parse_known_args([word for word in argv if word in ('-h', '--help')])


def _parser(verb: str, text: str, more: str = '') -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog=f'pi0_ros {verb}', usage=f'pi0_ros {verb} {more}[--ros-args ...]', description=text,
        formatter_class=argparse.RawDescriptionHelpFormatter)


NODE_HELP = """\
Run PI0 on a robot. Cameras, joint states and a text instruction come in, a joint
trajectory goes out. The robot stays disarmed until the service ~/enable is called.

  pi0_ros node --ros-args --params-file YOUR.yaml \\
      -r camera_1/image_raw:=/wrist/color/image_raw \\
      -r joint_trajectory:=/joint_trajectory_controller/joint_trajectory

parameters (config/pi0.yaml explains them):
"""
SIM_HELP = """\
Run the simulated robot: an arm with a gripper, three coloured blocks, an overhead and
a wrist camera (640x480, 30 Hz, raw and JPEG), joint states at 100 Hz. It obeys
joint_trajectory by the rules of joint_trajectory_controller. The service ~/reset sets
the table for the parameter seed; the topic ~/taken tells which block is held.

  pi0_ros sim --ros-args -p seed:=3 -p third_camera:=true

With --robot it is one of MuJoCo's (requirements/mujoco.txt), with weight and contact, on
the controllers and joints of its profile in config/robots, and on a time of its own:

  pi0_ros sim --robot so101 --ros-args -p width:=640 -p speed:=0.5

It has no ~/reset: start it with another seed.
"""


def node_main(argv: list[str]) -> int:
    """Run the node pi0."""
    from pi0_ros.configuration.table import TABLE
    from pi0_ros.ros.node import Pi0Node
    names = ''.join(f'  {entry.name:21} default {entry.default!r}\n' for entry in TABLE)
    _show_help('node', NODE_HELP + names, argv)

    def configured(node: Node) -> bool:
        return not node.get_parameter('autostart').value or (
            node.trigger_configure() == TransitionCallbackReturn.SUCCESS
            and node.trigger_activate() == TransitionCallbackReturn.SUCCESS)

    return _run(argv, Pi0Node, configured)


def sim_main(argv: list[str]) -> int:
    """Run the simulated robot, or one of MuJoCo's."""
    parser = _parser('sim', SIM_HELP, '[--robot NAME] ')
    parser.add_argument('--robot', metavar='NAME', help='so101 or aloha')
    own = argv.index('--ros-args') if '--ros-args' in argv else len(argv)
    robot = parser.parse_args(argv[:own]).robot
    if robot is None:
        from pi0_ros.ros.demo.sim_node import SimNode
        return _run(argv, SimNode, lambda node: True)
    try:
        from pi0_ros.physics.models import MODELS
        if robot not in MODELS:
            parser.error(f"argument --robot: unknown robot '{robot}', expected one of "
                         f"{', '.join(MODELS)}")
        from pi0_ros.ros.demo.physics_node import PhysicsNode
        return _run(argv[own:], partial(PhysicsNode, MODELS[robot]), lambda node: True)
    except ImportError as error:
        if type(error).__name__ != 'NotInstalled':
            raise
        print(f'pi0_ros sim: {error}', file=sys.stderr)
        return 1


def _sentence(error: Exception) -> str:
    """Return what ROS says of arguments that it does not take, without where in its code."""
    text = ' '.join(str(error).split())
    return re.sub(r', at /\S+?:\d+', '', text)


def _run(argv: list[str], make: Callable[[], Node], ready: Callable[[Node], bool]) -> int:
    """Make a node and let it work until a signal comes; return the exit status."""
    node, failed = None, False
    try:
        try:
            start(argv)
        except RCLError as error:
            lost = [f"parameter file '{path}' does not exist" for path in parameter_files(argv)
                    if not path.is_file()]
            print(f"pi0_ros: {'; '.join(lost) or _sentence(error)}", file=sys.stderr)
            return 2
        try:
            node = make()
        except InvalidParameterValueException as error:
            print(f'pi0_ros: {_sentence(error)}', file=sys.stderr)
            return 2
        failed = not ready(node)
        if not failed:
            spin(node)
    except KeyboardInterrupt:
        pass  # wherever it comes, also while the node is being made
    finally:
        INTERRUPT.ignore()
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()
    return 1 if failed else 0
