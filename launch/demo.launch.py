# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Start the simulated robot and the node with the small checkpoint.

Then arm it and tell it what to do:

    ros2 service call /pi0/enable std_srvs/srv/SetBool "{data: true}"
    ros2 topic pub --once /instruction std_msgs/msg/String "{data: 'pick up the red block'}"
"""

import os

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, SetEnvironmentVariable, Shutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from pi0_ros.launching import profile

SHARE = get_package_share_directory('pi0_ros')


def generate_launch_description() -> LaunchDescription:
    """Return robot and node; when one ends, so does the other."""
    config = os.path.join(SHARE, 'config', 'sim.yaml')
    namespace = LaunchConfiguration('namespace')
    return LaunchDescription([
        DeclareLaunchArgument('seed', default_value='7', description='Of the block places.'),
        DeclareLaunchArgument('added_delay', default_value='0.0',
                              description='Added to every inference, s.'),
        DeclareLaunchArgument('controller', default_value='jazzy',
                              description='Whose joint_trajectory_controller: humble, jazzy or '
                                          'master.'),
        DeclareLaunchArgument('namespace', default_value='',
                              description='Namespace of both nodes and all their topics.'),
        *(SetEnvironmentVariable(*one) for one in profile(
            os.environ, os.path.join(SHARE, 'config', 'fastdds.xml')).items()),
        Node(package='pi0_ros', executable='sim', name='sim', namespace=namespace,
             parameters=[config, {'seed': LaunchConfiguration('seed'),
                                  'controller': LaunchConfiguration('controller')}],
             output='screen', emulate_tty=True, on_exit=Shutdown()),
        Node(package='pi0_ros', executable='node', name='pi0', namespace=namespace,
             parameters=[config, {'added_delay': LaunchConfiguration('added_delay')}],
             output='screen', emulate_tty=True, on_exit=Shutdown(),
             remappings=[('camera_1/image_raw', 'overhead/image_raw'),
                         ('camera_2/image_raw', 'wrist/image_raw')]),
    ])
