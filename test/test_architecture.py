# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The rules of the house."""

import ast
from pathlib import Path
import re
import subprocess
import sys

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / 'pi0_ros'
FILES = sorted(PACKAGE.rglob('*.py'))
ROS = {'rclpy', 'launch', 'launch_ros', 'cv_bridge', 'ament_index_python', 'rcl_interfaces',
       'builtin_interfaces', 'rosgraph_msgs', 'lifecycle_msgs', 'sensor_msgs', 'std_msgs',
       'std_srvs', 'trajectory_msgs', 'diagnostic_msgs', 'control_msgs', 'geometry_msgs',
       'visualization_msgs', 'moveit_msgs', 'action_msgs', 'pi0_interfaces'}
CORE = ('observation', 'checkpoint', 'kinematics', 'engine', 'policy', 'motion', 'control')
CLOCKS = {'time', 'time_ns', 'monotonic', 'monotonic_ns', 'perf_counter', 'perf_counter_ns', 'now',
          'utcnow', 'today', 'sleep'}
DRAWING = (ROOT / 'docs' / 'architecture.md').read_text()
MOST_FILES = 12  # in a room
HEADER = '# Copyright 2026 pi0_ros maintainers\n# SPDX-License-Identifier: Apache-2.0\n'


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f'{node.module}.{name.name}' for name in node.names)


def folder(path):
    return path.relative_to(PACKAGE).parts[0]


@pytest.mark.parametrize('path', FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_the_shell_imports_ros(path):
    if folder(path) != 'ros':
        assert not {name.split('.')[0] for name in imports(path)} & ROS


def through_others(uses):
    """Return what every room uses, itself and through others."""
    while True:
        more = {room: found.union(*(uses[other] for other in found))
                for room, found in uses.items()}
        if more == uses:
            return uses
        uses = more


def test_rooms_and_arrows_are_those_of_the_drawing():
    rooms = {folder(path) for path in FILES if path.parent != PACKAGE}
    uses = {room: set() for room in rooms}
    for path in FILES:
        if folder(path) in rooms:
            uses[folder(path)] |= {name.split('.')[1] for name in imports(path)
                                   if name.startswith('pi0_ros.')} & rooms - {folder(path)}
    drawn = {room: set() for room in rooms}
    for begin, end in re.findall(r'^ {2}(\w+) --> (\w+)$', DRAWING, re.M):
        drawn[begin].add(end)
    found = through_others(uses)
    assert found == through_others(drawn)
    assert not [room for room, used in found.items() if room in used], 'a circle'
    assert set(re.findall(r'^\| `(\w+)` \|', DRAWING, re.M)) == rooms


def test_no_two_files_of_a_room_import_each_other_in_a_circle():
    names = {str(path.relative_to(PACKAGE.parent).with_suffix('')).replace('/', '.'): path
             for path in FILES}
    uses = {}
    for name, path in names.items():
        uses[name] = {found for found in imports(path) if found in names} - {name}
    circles = [name for name, used in through_others(uses).items() if name in used]
    assert not circles, circles


def test_rooms_stay_small():
    for room in {path.parent for path in FILES} - {PACKAGE}:
        count = len([path for path in room.glob('*.py') if path.name != '__init__.py'])
        assert count <= MOST_FILES, f'{room} has {count} files'


def test_one_licence_for_all():
    """A short header, which setup.py tells ament_copyright of."""
    assert 'Apache License' in (ROOT / 'LICENSE').read_text()
    assert '<license>Apache-2.0</license>' in (ROOT / 'package.xml').read_text()
    others = [path for part in ('test', 'launch', 'benchmarks')
              for path in (ROOT / part).rglob('*.py')]
    for path in (*FILES, *others, ROOT / 'setup.py'):
        assert path.read_text().startswith(HEADER), path


@pytest.mark.parametrize('path', [p for p in FILES if folder(p) in CORE],
                         ids=lambda p: str(p.relative_to(PACKAGE)))
def test_core_reads_no_clock(path):
    names = set(imports(path))
    assert not {name.split('.')[0] for name in names} & {'time', 'datetime'}
    calls = {node.func.attr for node in ast.walk(ast.parse(path.read_text()))
             if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)}
    assert not calls & CLOCKS


@pytest.mark.parametrize('path', FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_stay_small(path):
    assert len(path.read_text().splitlines()) <= 360


def test_nothing_reads_pickles_or_remote_code():
    for path in FILES:
        text = path.read_text()
        for word in ('torch.load(', 'import pickle', 'allow_pickle=True', 'trust_remote_code=True',
                     'yaml.load('):
            assert word not in text, f'{path} uses {word}'


def test_style():
    checked = subprocess.run(
        [sys.executable, '-m', 'flake8', 'pi0_ros', 'launch', 'test', 'setup.py', 'benchmarks'],
        cwd=ROOT, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize('path', [p for p in FILES if folder(p) in CORE],
                         ids=lambda p: str(p.relative_to(PACKAGE)))
def test_rooms_know_no_parameter(path):
    """What to set is the front door's business: advice.py."""
    assert not re.search(r"(set|with) parameter|parameter '", path.read_text())


def test_the_plan_is_not_reached_through_from_outside():
    for path in FILES:
        if folder(path) != 'control':
            assert 'pilot._' not in path.read_text(), path


def test_reading_a_configuration_needs_no_torch():
    """It takes a second, which a simulator, a mock and every worker of an export would pay."""
    code = ('import sys, pi0_ros.configuration.configuration, pi0_ros.dataset.export; '
            'assert not {"torch", "transformers"} & set(sys.modules)')
    subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True)
