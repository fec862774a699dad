"""Start the node pi0 on a robot.

ros2 launch pi0_ros pi0.launch.py --show-args tells what can be set here; everything else is in
the parameter file.
"""

import os

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, SetEnvironmentVariable
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

SHARE = get_package_share_directory('pi0_ros')
ARGUMENTS = {
    'params_file': (os.path.join(SHARE, 'config', 'pi0.yaml'),
                    'Parameter file; config/pi0.yaml has every parameter with its default.'),
    'namespace': ('', 'Namespace of the node and all its topics, for a second robot.'),
    'camera_1': ('camera_1/image_raw', 'Image topic of the first camera slot.'),
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
    'use_sim_time': ('false', 'Follow /clock instead of the system clock.'),
    'log_level': ('info', 'Level of the log: debug, info, warn, error.'),
    'fastdds_profile': ('true', 'Use config/fastdds.xml, which lets raw images through. Start the '
                        'camera drivers with it too.'),
}


def generate_launch_description() -> LaunchDescription:
    """Return arguments, the transport profile and the node."""
    value = {name: LaunchConfiguration(name) for name in ARGUMENTS}
    remappings = [(name, value[name]) for name in (
        'joint_states', 'joint_trajectory', 'position_commands', 'robot_description',
        'instruction')]
    for slot in (1, 2, 3):
        topic = value[f'camera_{slot}']
        remappings += [(f'camera_{slot}/image_raw', topic),
                       (f'camera_{slot}/image_raw/compressed', [topic, '/compressed'])]
    return LaunchDescription([
        *(DeclareLaunchArgument(name, default_value=default, description=text)
          for name, (default, text) in ARGUMENTS.items()),
        SetEnvironmentVariable('FASTRTPS_DEFAULT_PROFILES_FILE',
                               os.path.join(SHARE, 'config', 'fastdds.xml'),
                               condition=IfCondition(value['fastdds_profile'])),
        Node(package='pi0_ros', executable='node', name='pi0', namespace=value['namespace'],
             parameters=[value['params_file'], {'use_sim_time': value['use_sim_time']}],
             remappings=remappings, output='screen', emulate_tty=True,
             arguments=['--ros-args', '--log-level', value['log_level']]),
    ])
