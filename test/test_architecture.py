"""The rules of the house."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / 'pi0_ros'
FILES = sorted(PACKAGE.rglob('*.py'))
ROS = {'rclpy', 'launch', 'launch_ros', 'cv_bridge', 'ament_index_python', 'rcl_interfaces',
       'builtin_interfaces', 'rosgraph_msgs', 'lifecycle_msgs', 'sensor_msgs', 'std_msgs',
       'std_srvs', 'trajectory_msgs', 'diagnostic_msgs', 'control_msgs', 'geometry_msgs'}
CORE = ('observation', 'checkpoint', 'engine', 'policy', 'motion', 'control')
CLOCKS = {'time', 'time_ns', 'monotonic', 'monotonic_ns', 'perf_counter', 'perf_counter_ns', 'now',
          'utcnow', 'today', 'sleep'}
# Each room may import from itself and from these.
ARROWS = {
    'observation': set(), 'checkpoint': set(), 'engine': {'checkpoint'},
    'policy': {'observation', 'checkpoint', 'engine'}, 'motion': {'policy', 'observation'},
    'control': {'motion', 'policy', 'observation'},
    'sim': {'observation', 'checkpoint', 'policy', 'motion', 'control'},
    'configuration': {'checkpoint', 'observation', 'policy', 'motion', 'control'},
    'bags': {'observation', 'checkpoint'},
    'dataset': {'observation', 'checkpoint', 'bags', 'evaluation'},
    'evaluation': {'observation', 'checkpoint', 'policy', 'motion', 'control', 'bags',
                   'configuration'},
    'training': {'observation', 'checkpoint', 'engine', 'policy', 'motion', 'control', 'sim',
                 'dataset'},
    'verbs': {'observation', 'checkpoint', 'policy', 'bags', 'dataset', 'evaluation',
              'configuration'}}
MOST_FILES = 12  # in a room


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


@pytest.mark.parametrize('path', [p for p in FILES if folder(p) in ARROWS],
                         ids=lambda p: str(p.relative_to(PACKAGE)))
def test_arrows_point_one_way(path):
    targets = {name.split('.')[1] for name in imports(path) if name.startswith('pi0_ros.')}
    assert targets - {folder(path), 'setting'} <= ARROWS[folder(path)]


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
    assert len(path.read_text().splitlines()) <= 350


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
