# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The launch files, started as ``ros2 launch`` starts them: armed, instructed, interrupted.

Run by pytest where launch_testing's plugin is installed, as in ``colcon test``.
"""

import os
from pathlib import Path
import shutil
import tempfile
import unittest

import pytest

launch_testing = pytest.importorskip('launch_testing', reason='needs launch_testing, which comes '
                                     'with a ROS installation')
packages = pytest.importorskip('ament_index_python.packages', reason='needs ROS 2')
try:
    SHARE = Path(packages.get_package_share_directory('pi0_ros'))
except LookupError:
    pytest.skip('pi0_ros is not installed: colcon build, and source install/setup.bash',
                allow_module_level=True)

from diagnostic_msgs.msg import DiagnosticStatus  # noqa: E402, I100
from graph import spin_until  # noqa: E402
from launch import LaunchDescription  # noqa: E402
from launch.actions import ExecuteProcess, IncludeLaunchDescription  # noqa: E402
from launch.launch_description_sources import PythonLaunchDescriptionSource  # noqa: E402
from launch_ros.actions import Node  # noqa: E402
import launch_testing.actions  # noqa: E402
import launch_testing.asserts  # noqa: E402
import launch_testing.markers  # noqa: E402
from lifecycle_msgs.srv import GetState  # noqa: E402
from pi0_ros.bags.bag import Bag  # noqa: E402
from pi0_ros.policy.record import InferenceRecord  # noqa: E402
from pi0_ros.ros.links import qos  # noqa: E402
from pi0_ros.sim import demonstration  # noqa: E402
import rclpy  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from std_msgs.msg import String  # noqa: E402
from std_srvs.srv import SetBool  # noqa: E402

READY_S = 120.0  # importing torch, and loading and checking the policy, on a busy machine
MOVE_S = 60.0
PARAMETERS = """/**/pi0:
  ros__parameters:
    checkpoint: demo
    joint_names: [shoulder_pan, shoulder_lift, elbow_flex, wrist_flex, gripper]
    cameras: [overhead, wrist]
    gripper_joints: [gripper]
"""
WRONG = PARAMETERS + '    velocity_skale: 0.5\n'


def included(name: str, **arguments: str) -> IncludeLaunchDescription:
    """Return a launch file of the package, as it is installed."""
    return IncludeLaunchDescription(PythonLaunchDescriptionSource(
        str(SHARE / 'launch' / name)), launch_arguments=arguments.items())


def written(name: str, text: str) -> str:
    """Return the path of a parameter file."""
    path = Path(os.environ.get('TMPDIR', '/tmp')) / f'pi0_ros_{os.getpid()}_{name}.yaml'
    path.write_text(text)
    return str(path)


def demonstrated(path: Path) -> Path:
    """Return a bag in which a block is taken."""
    shutil.rmtree(path, ignore_errors=True)
    assert demonstration.main([str(path), '--blocks', 'red', 'green', 'blue']) == 0
    return path


def simulated_robot(namespace: str) -> Node:
    """Return the simulated robot alone."""
    return Node(package='pi0_ros', executable='sim', name='sim', namespace=namespace,
                parameters=[str(SHARE / 'config' / 'sim.yaml')], output='screen')


# What is started, and in which namespace the node then is.
CASES = {
    'demo': lambda: ('', [included('demo.launch.py')]),
    'demo_in_a_namespace': lambda: ('left', [included('demo.launch.py', namespace='left')]),
    'wrong_parameter': lambda: ('', [included('pi0.launch.py',
                                              params_file=written('wrong', WRONG))]),
    'no_such_robot': lambda: ('', [ExecuteProcess(
        cmd=['ros2', 'launch', 'pi0_ros', 'pi0.launch.py', 'robot:=r2d2'], output='screen')]),
    'robot': lambda: ('cell', [simulated_robot('cell'), included(
        'pi0.launch.py', namespace='cell', params_file=written('robot', PARAMETERS),
        camera_1='overhead/image_raw', camera_2='wrist/image_raw/compressed')]),
    # Every topic is another: the robot is in one namespace, the node in another.
    'remapped': lambda: ('brain', [simulated_robot('arm'), included(
        'pi0.launch.py', namespace='brain', params_file=written('remapped', PARAMETERS),
        camera_1='/arm/overhead/image_raw', camera_2='/arm/wrist/image_raw/compressed',
        joint_states='/arm/joint_states', joint_trajectory='/arm/joint_trajectory',
        robot_description='/arm/robot_description', instruction='/say')]),
}
# Where the robot is, and where instructions are said, if not in the namespace of the node.
ROBOTS, SAID = {'remapped': 'arm/'}, {'remapped': '/say'}
# With rosbag2: what is recorded while a block is taken, and what is decided of a bag.
BAGS = Path(tempfile.gettempdir()) / f'pi0_ros_{os.getpid()}_bags'
CAMERAS = {'camera_1': '/overhead/image_raw', 'camera_2': '/wrist/image_raw'}
try:
    packages.get_package_share_directory('ros2bag')
    HAS_BAGS = True
except LookupError:
    HAS_BAGS = False
if HAS_BAGS:
    CASES['recorded'] = lambda: ('', [included('demo.launch.py'), included(
        'record.launch.py', output=str(BAGS / 'recorded'), camera_3='none', **CAMERAS)])
    CASES['replayed'] = lambda: ('', [included(
        'replay.launch.py', bag=str(demonstrated(BAGS / 'played')), record=str(BAGS / 'predicted'),
        params_file=written('replayed', PARAMETERS),
        **{slot: f'{topic}/compressed' for slot, topic in CAMERAS.items()})])


# What is told, and where.
ERRORS = {'wrong_parameter': ("parameter 'velocity_skale' is unknown, did you mean "
                              "'velocity_scale'", 'stderr'),
          'no_such_robot': ("robot is 'r2d2', expected one of aloha", 'stdout')}


@pytest.mark.launch_test
@launch_testing.parametrize('case', CASES)
@launch_testing.markers.keep_alive
def generate_test_description(case):
    """Start a case."""
    namespace, started = CASES[case]()
    return (LaunchDescription([*started, launch_testing.actions.ReadyToTest()]),
            {'namespace': namespace, 'case': case})


class TestWhileItRuns(unittest.TestCase):
    """What a person does with a launched node."""

    def setUp(self):
        """Join the graph."""
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node('person', context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)

    def tearDown(self):
        """Leave it."""
        self.executor.shutdown()
        self.node.destroy_node()
        self.context.try_shutdown()

    def wait(self, done, timeout_s=MOVE_S):
        """Let callbacks run until ``done``."""
        spin_until(self.executor, done, timeout_s)

    def ask(self, client, request, timeout_s=MOVE_S):
        """Call a service; return its answer."""
        self.wait(client.service_is_ready, timeout_s)
        future = client.call_async(request)
        self.wait(future.done, timeout_s)
        return future.result()

    def state(self, name):
        """Return the lifecycle state of a node, as ``ros2 lifecycle get`` tells it."""
        client = self.node.create_client(GetState, f'{name}/get_state')
        return self.ask(client, GetState.Request(), READY_S).current_state.label

    def test_what_a_person_does(self, namespace, case, proc_info, proc_output):
        """Arm, instruct, see a block taken; or read what is wrong."""
        pi0 = f'{namespace}/pi0' if namespace else 'pi0'
        if case in ERRORS:
            text, stream = ERRORS[case]
            proc_output.assertWaitFor(text, timeout=READY_S, stream=stream)
            (process,) = proc_info.process_names()
            proc_info.assertWaitForShutdown(process, timeout=READY_S)
            return
        if case == 'replayed':  # which arms itself; everything ends with the bag
            decided = []
            self.node.create_subscription(String, 'pi0/inference', decided.append, qos.RECORD)
            self.wait(lambda: len(decided) >= 3, READY_S)
            return
        self.wait(lambda: self.state(pi0) == 'active', READY_S)
        statuses, taken = [], []
        root = ROBOTS.get(case, f'{namespace}/' if namespace else '')
        self.node.create_subscription(DiagnosticStatus, f'{pi0}/status', statuses.append,
                                      qos.LATCHED)
        self.node.create_subscription(String, f'{root}sim/taken',
                                      lambda message: taken.append(message.data), qos.LATCHED)
        enable = self.node.create_client(SetBool, f'{pi0}/enable')
        self.wait(lambda: self.ask(enable, SetBool.Request(data=True)).success)
        instruct = self.node.create_publisher(String, SAID.get(case, f'{root}instruction'), 10)
        self.wait(instruct.get_subscription_count)
        instruct.publish(String(data='pick up the red block'))
        self.wait(lambda: taken and 'red' in taken[-1])
        assert 'moving' in [pair.value for status in statuses for pair in status.values
                            if pair.key == 'state']


@launch_testing.post_shutdown_test()
class TestAfterSigint(unittest.TestCase):
    """What is left when the launch is interrupted."""

    def test_every_process_ends_as_it_should(self, proc_info, case):
        """Return 0 after SIGINT; a node that cannot be configured says so by its code."""
        launch_testing.asserts.assertExitCodes(
            proc_info, allowable_exit_codes=[1] if case in ERRORS else [0])

    def test_what_was_recorded(self, case):
        """Find in a bag what happened, and what was decided."""
        if case == 'recorded':
            with Bag(BAGS / 'recorded') as bag:
                counts = {topic: of.count for topic, of in bag.topics.items()}
                said = [message.data for _, _, message in bag.messages(
                    ['/pi0/active_instruction'])]
            for topic in ('/joint_states', '/joint_trajectory', '/overhead/image_raw/compressed',
                          '/wrist/image_raw/compressed', '/pi0/status', '/pi0/inference'):
                assert counts.get(topic, 0) > 0, (topic, counts)
            assert 'pick up the red block' in said
        if case == 'replayed':
            with Bag(BAGS / 'predicted') as bag:
                records = [InferenceRecord.from_json(message.data)
                           for _, _, message in bag.messages(['/pi0/inference'])]
            assert records
            assert 'pick up the red block' in {record.instruction for record in records}
