"""Record a bag that the policy can be judged by, and be trained on.

    ros2 launch pi0_ros record.launch.py output:=bags/monday \
        camera_1:=/front/color/image_raw camera_2:=/wrist/color/image_raw

Ctrl-C ends it. With the node running, what it decides is recorded too.
"""

import tempfile

import yaml
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction
from launch.substitutions import LaunchConfiguration

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
# The recorder subscribes before anybody publishes: so it must be told how. Best effort matches
# every driver; transient local gets what was published before.
SENSOR = {'history': 'keep_last', 'depth': 100, 'reliability': 'best_effort',
          'durability': 'volatile'}
EVERY = {**SENSOR, 'reliability': 'reliable'}
LATCHED = {**EVERY, 'depth': 1, 'durability': 'transient_local'}
DECISIONS = ('inference', 'action_chunk', 'active_instruction', 'status')


def _record(context: LaunchContext) -> list[ExecuteProcess]:
    """Return the recorder, with a file of QoS for it."""
    value = {name: LaunchConfiguration(name).perform(context)
             for name in (*TOPICS, *CAMERAS, *OTHERS)}
    suffix = {'raw': '', 'compressed': '/compressed'}.get(value['transport'])
    if suffix is None:
        raise ValueError(f"transport is '{value['transport']}', expected raw or compressed")
    qos = {value['joint_states']: SENSOR, value['instruction']: EVERY,
           value['joint_trajectory']: EVERY, value['position_commands']: EVERY,
           value['robot_description']: LATCHED,
           **{value[name] + suffix: SENSOR for name in CAMERAS if value[name]},
           **{f"{value['node']}/{name}": LATCHED if name in ('active_instruction', 'status')
              else EVERY for name in DECISIONS}}
    qos = {topic: policies for topic, policies in qos.items() if topic}
    with tempfile.NamedTemporaryFile('w', suffix='.yaml', delete=False) as file:
        yaml.dump({topic: dict(policies) for topic, policies in qos.items()}, file,
                  default_flow_style=None)
    command = ['ros2', 'bag', 'record', '--storage', value['storage'],
               '--qos-profile-overrides-path', file.name,
               # What is said once is said before a recorder has found who says it.
               '--include-unpublished-topics']
    command += ['--output', value['output']] if value['output'] else []
    return [ExecuteProcess(cmd=[*command, '--topics', *qos, *value['topics'].split()],
                           output='screen', emulate_tty=True)]


def generate_launch_description() -> LaunchDescription:
    """Return arguments and recorder."""
    return LaunchDescription([
        *(DeclareLaunchArgument(name, default_value=default, description=text)
          for name, (default, text) in {**OTHERS, **CAMERAS, **TOPICS}.items()),
        OpaqueFunction(function=_record),
    ])
