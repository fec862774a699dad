# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Start the node pi0 on a robot.

ros2 launch pi0_ros pi0.launch.py --show-args tells what can be set here; everything else is in
the parameter file.
"""

import os
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from pi0_ros.launching import camera_remappings, parameter_files, profile, transport

SHARE = get_package_share_directory('pi0_ros')
ARGUMENTS = {
    'robot': ('', 'Profile of a robot in config/robots, such as ur5e_2f85, or none; '
              'docs/robots.md.'),
    'checkpoint': ('', 'Folder of the checkpoint, or demo; empty: as the parameter file says.'),
    'params_file': ('', 'Parameter file, on top of the profile; config/pi0.yaml has every '
                    'parameter with its default.'),
    'namespace': ('', 'Namespace of the node and all its topics, for a second robot.'),
    'camera_1': ('camera_1/image_raw', 'Image topic of the first camera slot; one '
                 'that ends with /compressed sets image_transport; none for no camera.'),
    'camera_2': ('camera_2/image_raw', 'Image topic of the second camera slot.'),
    'camera_3': ('camera_3/image_raw', 'Image topic of the third camera slot.'),
    'joint_states': ('joint_states', 'Topic with the joint states.'),
    'joint_trajectory': ('joint_trajectory', 'Topic of the controller, for example '
                         '/joint_trajectory_controller/joint_trajectory.'),
    'position_commands': ('position_commands', 'The same with command_interface: positions, for '
                          'example /forward_position_controller/commands.'),
    'robot_description': ('robot_description', 'Topic with the URDF, for example '
                          '/robot_description for a node in a namespace.'),
    'instruction': ('instruction', 'Topic with the text of what to do.'),
    'use_sim_time': ('', 'true: follow /clock instead of the system clock; empty: as the '
                     'parameter file says.'),
    'log_level': ('info', 'Level of the log: debug, info, warn, error.'),
    'rviz': ('false', 'true: also start RViz with config/pi0.rviz, which shows cameras, robot and '
             'what it will do.'),
    'fastdds_profile': ('true', 'Use config/fastdds.xml, which lets raw images through, unless '
                        'another profile is exported. Start the camera drivers with it too.'),
}


TOPICS = ('joint_states', 'joint_trajectory', 'position_commands', 'robot_description',
          'instruction')
CAMERAS = ('camera_1', 'camera_2', 'camera_3')


def _start(context: LaunchContext) -> list[object]:
    """Return the transport profile and the node."""
    value = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    cameras = {slot: value[slot] for slot in CAMERAS}
    remappings = [(name, value[name]) for name in TOPICS]
    for slot, topic in cameras.items():
        remappings += camera_remappings(slot, topic)
    # What is said here goes before the file; what is not said does not.
    said = dict(transport(cameras))
    if value['checkpoint']:
        said['checkpoint'] = value['checkpoint']
    if value['use_sim_time']:
        said['use_sim_time'] = value['use_sim_time'].lower() == 'true'
    files = parameter_files(Path(SHARE) / 'config', value['robot'], value['params_file'])
    wanted = value['fastdds_profile'].lower() == 'true'
    settings = profile(context.environment, os.path.join(SHARE, 'config', 'fastdds.xml'))
    rviz = [Node(package='rviz2', executable='rviz2', name='rviz', namespace=value['namespace'],
                 arguments=['-d', os.path.join(SHARE, 'config', 'pi0.rviz')],
                 parameters=[{'use_sim_time': said.get('use_sim_time', False)}],
                 remappings=remappings, output='log')]
    return [*(SetEnvironmentVariable(*one) for one in settings.items() if wanted),
            *(rviz if value['rviz'].lower() == 'true' else []),
            Node(package='pi0_ros', executable='node', name='pi0', namespace=value['namespace'],
                 parameters=[*files, *([said] if said else [])],
                 remappings=remappings, output='screen', emulate_tty=True,
                 arguments=['--ros-args', '--log-level', value['log_level']])]


def generate_launch_description() -> LaunchDescription:
    """Return arguments, the transport profile and the node."""
    return LaunchDescription([
        *(DeclareLaunchArgument(name, default_value=default, description=text)
          for name, (default, text) in ARGUMENTS.items()),
        OpaqueFunction(function=_start)])
