# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Record a bag that the policy can be judged by, and be trained on.

    ros2 launch pi0_ros record.launch.py output:=bags/monday \
        camera_1:=/front/color/image_raw camera_2:=/wrist/color/image_raw

Ctrl-C ends it. With the node running, what it decides is recorded too.
"""

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from pi0_ros.launching import is_none, record_topics

TOPICS = {
    'joint_states': ('/joint_states', 'Topic with the joint states.'),
    'joint_trajectory': ('/joint_trajectory', 'Commands, for example '
                         '/joint_trajectory_controller/joint_trajectory.'),
    'position_commands': ('/position_commands', 'The same for command_interface: positions.'),
    'instruction': ('/instruction', 'Topic with the text of what to do.'),
    'robot_description': ('/robot_description', 'Topic with the URDF: joint limits and ranges.'),
}
CAMERAS = {
    'camera_1': ('/camera_1/image_raw', 'Image topic of the first camera.'),
    'camera_2': ('/camera_2/image_raw', 'Image topic of the second camera; none for none.'),
    'camera_3': ('/camera_3/image_raw', 'Image topic of the third camera; none for none.'),
}
OTHERS = {
    'output': ('', 'Folder to write, which must not exist; empty: rosbag2 names one.'),
    'transport': ('compressed', 'Record image_raw/compressed, or raw, which is 27 MB a second for '
                  'each camera of 640x480 at 30 Hz.'),
    'storage': ('mcap', 'Format of the bag: mcap or sqlite3.'),
    'node': ('/pi0', 'Node whose decisions are recorded, where it runs.'),
    'topics': ('', 'More topics, with spaces between them.'),
    'use_sim_time': ('false', 'Record by /clock, and /clock too, as of a simulator.'),
}
DECISIONS = ('inference', 'action_chunk', 'active_instruction', 'status', 'led', 'episode',
             'episode_result')


def _record(context: LaunchContext) -> list[ExecuteProcess]:
    """Return the recorder. It takes the QoS that each topic's publishers offer."""
    value = {name: LaunchConfiguration(name).perform(context)
             for name in (*TOPICS, *CAMERAS, *OTHERS)}
    suffix = {'raw': '', 'compressed': '/compressed'}.get(value['transport'])
    if suffix is None:
        raise ValueError(f"transport is '{value['transport']}', expected raw or compressed")
    topics = [value[name] for name in TOPICS if value[name]]
    topics += [value[name].removesuffix('/compressed') + suffix for name in CAMERAS
               if not is_none(value[name])]
    topics += [f"{value['node']}/{name}" for name in DECISIONS] + value['topics'].split()
    command = ['ros2', 'bag', 'record', '--storage', value['storage']]
    command += ['--output', value['output']] if value['output'] else []
    if value['use_sim_time'].lower() == 'true':
        command, topics = [*command, '--use-sim-time'], [*topics, '/clock']
    return [ExecuteProcess(cmd=[*command, *record_topics(context.environment, topics)],
                           output='screen', emulate_tty=True)]


def generate_launch_description() -> LaunchDescription:
    """Return arguments and recorder."""
    return LaunchDescription([
        *(DeclareLaunchArgument(name, default_value=default, description=text)
          for name, (default, text) in {**OTHERS, **CAMERAS, **TOPICS}.items()),
        OpaqueFunction(function=_record),
    ])
