# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Package metadata, configuration, command line, and what is documented."""

import json
from pathlib import Path
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

from pi0_ros import __version__, cli
from pi0_ros.configuration import parameters
from pi0_ros.sim.arm import JOINT_NAMES
import pytest
import yaml

ROOT = Path(__file__).parents[1]
OPTIONAL = {'pi0_interfaces', 'moveit_msgs'}  # used where they are found


def test_package_xml_and_setup_agree():
    root = ElementTree.parse(ROOT / 'package.xml').getroot()
    assert root.get('format') == '3'
    assert root.findtext('license') == 'Apache-2.0' and 'Apache License' in (
        ROOT / 'LICENSE').read_text()
    setup = (ROOT / 'setup.py').read_text()
    assert root.findtext('version') == __version__ and f"version='{__version__}'" in setup
    assert __version__ in (ROOT / 'CHANGELOG.rst').read_text()
    for verb in cli.VERBS:
        assert f"'{verb}'" in setup and callable(getattr(cli, verb))


def test_every_imported_ros_package_is_a_dependency():
    elements = ElementTree.parse(ROOT / 'package.xml').iter('exec_depend')
    declared = {element.text for element in elements}
    files = [*(ROOT / 'pi0_ros').rglob('*.py'), *(ROOT / 'launch').glob('*.py')]
    text = '\n'.join(path.read_text() for path in files)
    used = set(re.findall(
        r'^\s*(?:from|import) (rclpy|launch|launch_ros|cv_bridge|ament_index_python|\w+_msgs'
        r'|\w+_interfaces|std_srvs)\b', text, re.MULTILINE))
    assert used and used - OPTIONAL <= declared


def test_parameter_file_is_the_table():
    text = (ROOT / 'config' / 'pi0.yaml').read_text()
    assert text == parameters.as_yaml(), (
        'write it anew: python -c "from pi0_ros.configuration import parameters; '
        'print(parameters.as_yaml(), end=\'\')" > config/pi0.yaml')
    values = yaml.safe_load(text)['/**']['ros__parameters']
    assert values == {entry.name: entry.default for entry in parameters.TABLE
                      if entry.nested is None}


def test_demo_configuration_fits_table_and_robot():
    config = yaml.safe_load((ROOT / 'config' / 'sim.yaml').read_text())
    node = config['/**/pi0']['ros__parameters']
    assert not [problem for name, value in node.items()
                if (problem := parameters.check(parameters.BY_NAME[name], value))]
    assert node['joint_names'] == list(JOINT_NAMES)


@pytest.mark.parametrize('verb', cli.VERBS)
def test_help_of_every_verb(verb):
    shown = subprocess.run([sys.executable, '-m', 'pi0_ros', verb, '--help'], cwd=ROOT,
                           capture_output=True, text=True)
    assert shown.returncode == 0 and len(shown.stdout.splitlines()) > 5, shown.stderr
    assert f'pi0_ros {verb}' in shown.stdout


def test_unknown_verb_lists_the_verbs():
    shown = subprocess.run([sys.executable, '-m', 'pi0_ros', 'fly'], cwd=ROOT,
                           capture_output=True, text=True)
    assert shown.returncode == 2 and 'node' in shown.stderr and 'inspect' in shown.stderr


def test_launch_files_describe_every_argument():
    pytest.importorskip('launch_ros', reason='launch is on no registry: needs a ROS installation')
    import importlib.util

    from launch.actions import DeclareLaunchArgument
    for path in (ROOT / 'launch').glob('*.launch.py'):
        spec = importlib.util.spec_from_file_location('launch_file', path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        arguments = [entity for entity in module.generate_launch_description().entities
                     if isinstance(entity, DeclareLaunchArgument)]
        assert arguments and all(argument.description for argument in arguments)


def test_readme_names_every_topic_service_and_parameter():
    text = (ROOT / 'README.md').read_text() + (ROOT / 'docs' / 'interface.md').read_text()
    names = [entry.name for entry in parameters.TABLE]
    names += ['camera_1/image_raw', 'joint_states', 'joint_trajectory', 'instruction',
              'robot_description', '~/enable', '~/reset', '~/stop', '~/status', '~/action_chunk',
              '~/active_instruction', '~/inference', '~/run', '~/outcome', '~/preview',
              '~/preview_trajectory', '~/episode', '~/episode_result', '~/led', '~/takeover',
              '~/takeover_trajectory', '~/takeover_enable', '/diagnostics']
    assert not [name for name in names if f'`{name}`' not in text]


def test_every_row_of_the_fault_table_names_a_test_that_exists():
    table = [line for line in (ROOT / 'docs' / 'safety.md').read_text().splitlines()
             if line.startswith('|') and '`test' in line]
    assert len(table) >= 30
    for line in table:
        names = re.findall(r'`((?:test_\w+\.py::)?test_\w+(?:\[\w+\])?)`', line)
        assert names, line
        for name in names:
            file, _, function = name.rpartition('::')
            function, _, parameter = function.rstrip(']').partition('[')
            text = (ROOT / 'test' / (file or 'test_faults.py')).read_text()
            assert f'def {function}(' in text and f"'{parameter}'" in text + "''", name


def test_every_reason_is_documented():
    text = (ROOT / 'docs' / 'safety.md').read_text()
    code = ''.join(path.read_text() for path in (ROOT / 'pi0_ros').rglob('*.py'))
    reasons = set(re.findall(r"Finding\(\s*'(\w+)'", code))
    reasons |= {'chunk_start', 'chunk_jump', 'chunk_limits'}
    unsaid = {'dropped'}  # of a chunk that is of no use any more: nothing stops for it
    assert len(reasons) > 20
    assert not {name for name in reasons - unsaid if f'`{name}`' not in text}


TOPICS = {'robot_description', 'pi0/preview', *(f'camera_{slot}/image_raw' for slot in (1, 2, 3))}


def test_rviz_looks_at_the_nodes_topics():
    shown = yaml.safe_load((ROOT / 'config' / 'pi0.rviz').read_text())
    displays = shown['Visualization Manager']['Displays']
    topics = {topic['Value'] for display in displays
              for topic in [display.get('Topic') or display.get('Description Topic')] if topic}
    assert topics == TOPICS  # relative: they move with the namespace
    assert {display['Class'].partition('/')[0] for display in displays} == {'rviz_default_plugins'}


def test_foxglove_looks_at_the_nodes_topics_and_calls_its_services():
    def named(value):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(inner, (dict, list)):
                if key == 'topics':
                    yield from inner
                yield from named(inner)
            elif key in ('imageTopic', 'serviceName', 'topicName', 'topicPath', 'topicToRender'):
                yield inner
            elif key == 'value' and inner.startswith('/'):
                yield inner.partition('.')[0]

    layout = json.loads((ROOT / 'config' / 'foxglove.json').read_text())
    assert set(named(layout)) == {f'/{topic}' for topic in TOPICS} | {
        '/joint_states', '/joint_trajectory', '/diagnostics', '/instruction', '/pi0/status',
        '/pi0/enable', '/pi0/stop', '/pi0/reset'}
