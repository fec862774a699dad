# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What launch files make of what people say."""

from pathlib import Path

from pi0_ros import launching
import pytest


@pytest.mark.parametrize('topic', ['/front/image_raw', '/front/image_raw/compressed'])
def test_a_camera_is_said_by_either_of_its_topics(topic):
    assert launching.camera_remappings('camera_1', topic) == [
        ('camera_1/image_raw', '/front/image_raw'),
        ('camera_1/image_raw/compressed', '/front/image_raw/compressed')]


@pytest.mark.parametrize('topic', ['', 'none', "''", ' none '])
def test_none_can_be_said_for_a_camera(topic):
    assert launching.is_none(topic) and launching.camera_remappings('camera_2', topic) == []
    assert not launching.is_none('/none/image_raw')


def test_compressed_topics_set_the_transport():
    assert launching.transport({'camera_1': '/a', 'camera_2': '/b/compressed'}) == {
        'image_transport': 'compressed'}
    assert launching.transport({'camera_1': '/a'}) == {}


@pytest.mark.parametrize('environment, names', [
    ({'ROS_DISTRO': 'humble'}, [launching.PROFILES[0]]),
    ({'ROS_DISTRO': 'jazzy'}, [launching.PROFILES[0]]),
    ({'ROS_DISTRO': 'kilted'}, [launching.PROFILES[1]]),
    ({}, list(launching.PROFILES)),
    ({'ROS_DISTRO': 'jazzy', launching.PROFILES[0]: '/mine.xml'}, []),
    ({'ROS_DISTRO': 'jazzy', launching.PROFILES[1]: '/mine.xml'}, [])])
def test_a_profile_is_set_by_the_name_that_this_fast_dds_reads_and_never_in_place_of_anothers(
        environment, names):
    assert launching.profile(environment, '/ours.xml') == dict.fromkeys(names, '/ours.xml')


def test_the_recorder_is_told_topics_as_it_takes_them():
    assert launching.record_topics({'ROS_DISTRO': 'humble'}, ['/a']) == ['/a']
    assert launching.record_topics({'ROS_DISTRO': 'jazzy'}, ['/a']) == ['--topics', '/a']
    assert launching.record_topics({}, ['/a']) == ['--topics', '/a']


def test_a_users_file_goes_on_top_of_a_robots_profile():
    folder = Path(__file__).parents[1] / 'config'
    profile = str(folder / 'robots' / 'so101.yaml')
    assert launching.parameter_files(folder, '', '') == [str(folder / 'pi0.yaml')]
    assert launching.parameter_files(folder, '', 'mine.yaml') == ['mine.yaml']
    assert launching.parameter_files(folder, 'so101', '') == [profile]
    assert launching.parameter_files(folder, 'so101', 'mine.yaml') == [profile, 'mine.yaml']
    with pytest.raises(ValueError, match="robot is 'ur5', expected one of aloha, fr3, openarm"):
        launching.parameter_files(folder, 'ur5', '')


@pytest.mark.parametrize('namespace', ['', 'cell'])
def test_rviz_is_started_with_the_topics_of_the_node(namespace):
    """Look at what rviz:=true would start: RViz needs a screen."""
    launch = pytest.importorskip('launch', reason='launch is on no registry: needs ROS')
    actions = pytest.importorskip('launch_ros.actions')
    sources = pytest.importorskip('launch.launch_description_sources')
    packages = pytest.importorskip('ament_index_python.packages')
    try:
        share = packages.get_package_share_directory('pi0_ros')
    except LookupError:
        pytest.skip('pi0_ros is not installed: colcon build')
    found = {}
    for wanted in ('false', 'true'):
        arguments = {'rviz': wanted, 'namespace': namespace, 'camera_1': '/front/image_raw',
                     'joint_states': '/arm/joint_states'}
        context = launch.LaunchContext()
        started, todo = [], [launch.actions.IncludeLaunchDescription(
            sources.PythonLaunchDescriptionSource(f'{share}/launch/pi0.launch.py'),
            launch_arguments=arguments.items())]
        while todo:
            entity = todo.pop(0)
            if isinstance(entity, actions.Node):
                started.append(entity)
            else:
                todo = [*(entity.visit(context) or ()), *todo]
        found[wanted] = {node.node_package: node for node in started}
    assert list(found['false']) == ['pi0_ros']
    assert sorted(found['true']) == ['pi0_ros', 'rviz2']
    told = []
    for node in found['true'].values():
        node._perform_substitutions(context)
        told.append((node.expanded_node_namespace, node.expanded_remapping_rules))
    assert told[0] == told[1] and ('joint_states', '/arm/joint_states') in told[0][1]
