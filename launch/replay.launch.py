# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Play a bag to the node in a dry run, and record what it would have done.

    ros2 launch pi0_ros replay.launch.py bag:=bags/monday params_file:=my_robot.yaml \
        camera_1:=/front/color/image_raw/compressed \
        camera_2:=/wrist/color/image_raw/compressed record:=predictions

Nothing is commanded: what would be goes to /pi0/dry_run/joint_trajectory. The bag is played when
the node is ready, and everything ends with it.
"""

import os

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import (DeclareLaunchArgument, EmitEvent, ExecuteProcess, OpaqueFunction,
                            RegisterEventHandler, SetEnvironmentVariable)
from launch.event_handlers import OnProcessExit, OnProcessIO
from launch.events import Shutdown
from launch.events.process import ProcessIO
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from pi0_ros.launching import camera_remappings, profile, record_topics, transport

SHARE = get_package_share_directory('pi0_ros')
READY = 'in a dry run, disarmed'  # what the node says when it is active, and commands nothing
OWN = '/pi0/active_instruction'
TOPICS = {
    'camera_1': ('/camera_1/image_raw', 'Image topic of the first camera slot; one that ends '
                 'with /compressed sets image_transport.'),
    'camera_2': ('/camera_2/image_raw', 'Image topic of the second camera slot.'),
    'camera_3': ('/camera_3/image_raw', 'Image topic of the third camera slot.'),
    'joint_states': ('/joint_states', 'Topic with the joint states.'),
    'instruction': ('/instruction', 'Topic with the text of what to do, or '
                    '/pi0/active_instruction of that day.'),
    'robot_description': ('/robot_description', 'Topic with the URDF, for the limits.'),
}
OTHERS = {
    'bag': ('', 'Bag to play; required.'),
    'params_file': (os.path.join(SHARE, 'config', 'pi0.yaml'), 'Parameter file of the node.'),
    'record': ('', 'Folder to record predictions into; empty: nothing is recorded.'),
    'rate': ('1.0', 'How fast the bag is played.'),
    'clock': ('200', 'Hz of /clock. It must be faster than control_rate.'),
    'loop': ('false', 'Play again and again.'),
    'storage': ('mcap', 'Format of what is recorded: mcap or sqlite3.'),
}
PREDICTIONS = ('inference', 'action_chunk', 'status', 'active_instruction',
               'dry_run/joint_trajectory', 'dry_run/position_commands')


def _replay(context: LaunchContext) -> list[object]:
    """Return node, player and recorder."""
    value = {name: LaunchConfiguration(name).perform(context) for name in (*TOPICS, *OTHERS)}
    if not os.path.exists(value['bag']):
        raise FileNotFoundError(f"bag '{value['bag']}' does not exist: say bag:=FOLDER")
    own = value['instruction'] == OWN  # the node must not hear itself
    heard = {**value, 'instruction': '/instruction'} if own else value
    remappings = []
    for name in TOPICS:
        remappings += camera_remappings(name, heard[name]) if name.startswith('camera_') else [
            (name, heard[name])]
    # With a namespace, launch says that its parameters are of this node: they go before what a
    # file says of all nodes.
    node = Node(package='pi0_ros', executable='node', name='pi0', namespace='/',
                output='screen', emulate_tty=True, remappings=remappings,
                parameters=[value['params_file'], {
                    'use_sim_time': True, 'dry_run': True, 'auto_enable': True,
                    'allow_missing_limits': True, 'autostart': True,
                    **transport({name: value[name] for name in TOPICS})}])
    play = ExecuteProcess(
        cmd=['ros2', 'bag', 'play', value['bag'], '--clock', value['clock'], '--rate',
             value['rate'], '--delay', '3',  # in which its publishers are found
             *(['--loop'] if value['loop'].lower() == 'true' else []),
             *(['--remap', f'{OWN}:=/instruction'] if own else []),
             # Commands and decisions of that day are not played: the node makes its own.
             '--topics', *_played(value)],
        output='screen', emulate_tty=True)
    out: list[object] = [node]
    ends = [(play, 'the bag has ended'), (node, 'the node has ended')]
    if value['record']:
        recorder = ExecuteProcess(
            cmd=['ros2', 'bag', 'record', '--storage', value['storage'],
                 '--output', value['record'], *record_topics(
                     context.environment, [f'/pi0/{name}' for name in PREDICTIONS])],
            output='screen', emulate_tty=True)
        out.append(recorder)
        ends.append((recorder, 'the recorder has ended'))
    started = []

    def when_ready(event: ProcessIO) -> list[object] | None:
        if started or READY not in event.text.decode(errors='replace'):
            return None
        started.append(True)
        return [play]

    out.append(RegisterEventHandler(OnProcessIO(target_action=node, on_stdout=when_ready,
                                                on_stderr=when_ready)))
    for process, reason in ends:
        out.append(RegisterEventHandler(OnProcessExit(
            target_action=process, on_exit=[EmitEvent(event=Shutdown(reason=reason))])))
    return out


def _played(value: dict[str, str]) -> list[str]:
    """Return the topics of the bag that are inputs."""
    out = []
    for name in TOPICS:
        out += [topic for _, topic in camera_remappings(name, value[name])] if (
            name.startswith('camera_')) else [value[name]]
    return out


def generate_launch_description() -> LaunchDescription:
    """Return arguments, the transport profile, and what is started."""
    return LaunchDescription([
        *(DeclareLaunchArgument(name, default_value=default, description=text)
          for name, (default, text) in {**OTHERS, **TOPICS}.items()),
        *(SetEnvironmentVariable(*one) for one in profile(
            os.environ, os.path.join(SHARE, 'config', 'fastdds.xml')).items()),
        OpaqueFunction(function=_replay),
    ])
