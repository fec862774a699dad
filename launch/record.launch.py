"""Record a bag that the policy can be judged by, and be trained on.

    ros2 launch pi0_ros record.launch.py output:=bags/monday \
        camera_1:=/front/color/image_raw camera_2:=/wrist/color/image_raw

Ctrl-C ends it. With the node running, what it decides is recorded too.
"""

import os

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction
from launch.substitutions import LaunchConfiguration

SHARE = get_package_share_directory('pi0_ros')
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
    'camera_2': ('/camera_2/image_raw', "Image topic of the second camera; '' for none."),
    'camera_3': ('/camera_3/image_raw', "Image topic of the third camera; '' for none."),
}
OTHERS = {
    'output': ('', 'Folder to write, which must not exist; empty: rosbag2 names one.'),
    'transport': ('compressed', 'Record image_raw/compressed, or raw, which is 27 MB a second for '
                  'each camera of 640x480 at 30 Hz.'),
    'storage': ('mcap', 'Format of the bag: mcap or sqlite3.'),
    'node': ('/pi0', 'Node whose decisions are recorded, where it runs.'),
    'topics': ('', 'More topics, with spaces between them.'),
}
DECISIONS = ('inference', 'action_chunk', 'active_instruction', 'status')


def _record(context: LaunchContext) -> list[ExecuteProcess]:
    """Return the recorder."""
    value = {name: LaunchConfiguration(name).perform(context)
             for name in (*TOPICS, *CAMERAS, *OTHERS)}
    suffix = {'raw': '', 'compressed': '/compressed'}.get(value['transport'])
    if suffix is None:
        raise ValueError(f"transport is '{value['transport']}', expected raw or compressed")
    topics = [value[name] for name in TOPICS if value[name]]
    topics += [value[name] + suffix for name in CAMERAS if value[name]]
    topics += [f"{value['node']}/{name}" for name in DECISIONS]
    command = ['ros2', 'bag', 'record', '--storage', value['storage'],
               '--qos-profile-overrides-path', os.path.join(SHARE, 'config', 'record_qos.yaml'),
               # What is said once is said before a recorder has found who says it.
               '--include-unpublished-topics']
    command += ['--output', value['output']] if value['output'] else []
    return [ExecuteProcess(cmd=[*command, '--topics', *topics, *value['topics'].split()],
                           output='screen', emulate_tty=True)]


def generate_launch_description() -> LaunchDescription:
    """Return arguments and recorder."""
    return LaunchDescription([
        *(DeclareLaunchArgument(name, default_value=default, description=text)
          for name, (default, text) in {**OTHERS, **CAMERAS, **TOPICS}.items()),
        OpaqueFunction(function=_record),
    ])
