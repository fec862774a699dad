# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What is wrong with a terminal is said before an import says it worse."""

import os
from pathlib import Path
import subprocess
import sys

from pi0_ros import cli, environment
from pi0_ros.environment import missing, ros_problem
import pytest

ROOT = Path(__file__).parents[1]
HUMBLE, JAZZY = '/opt/ros/humble', '/opt/ros/jazzy'
PACKAGES = f'{JAZZY}/lib/python3.12/site-packages'


def problem(sourced=(), paths=(), version=(3, 12), wheels=(), there=True):
    return ros_problem({'AMENT_PREFIX_PATH': os.pathsep.join(sourced),
                        'PYTHONPATH': os.pathsep.join(paths)}, version, '/venv', lambda: wheels,
                       lambda path: there)


def test_one_ros_of_this_python_is_right():
    assert problem() is None
    assert problem([JAZZY], [PACKAGES]) is None
    assert problem(['/ws/install/pi0_ros', JAZZY], [PACKAGES]) is None
    assert problem(['/venv'], wheels=['ros-jazzy-rclpy']) is None  # of a workspace beside them


def test_two_installations_are_named():
    text = problem([HUMBLE, JAZZY])
    assert 'two ROS 2 installations' in text and HUMBLE in text and JAZZY in text
    assert problem([HUMBLE, JAZZY], there=False) is None  # no rclpy in either


def test_a_ros_of_another_python_says_which_and_what_to_do():
    text = problem([JAZZY], [PACKAGES], (3, 11))
    assert 'of Python 3.12' in text and 'this is Python 3.11 (/venv)' in text
    assert 'python3.12 -m venv' in text
    assert problem([JAZZY], [PACKAGES], (3, 11), there=False) is None
    assert problem([], ['/home/me/python3.9-things/lib'], (3, 11)) is None


def test_ros_is_not_mixed_with_wheels():
    text = problem([JAZZY], [PACKAGES], wheels=['ros-jazzy-rclpy'])
    assert JAZZY in text and 'ros-jazzy-rclpy' in text


@pytest.mark.parametrize('name, told', [('torch', True), ('transformers.models.pi0', True),
                                        ('somebody.elses', False), (None, False)])
def test_a_module_that_is_not_installed_says_where(name, told):
    text = missing(ModuleNotFoundError(name=name))
    assert bool(text) == told
    if told:
        assert sys.executable in text and 'activate the environment' in text


def test_a_verb_says_what_is_wrong_and_starts_nothing(monkeypatch, capsys):
    monkeypatch.setattr(environment, 'problem', lambda: 'two ROS 2 installations')
    assert cli.run('node', []) == 1
    assert capsys.readouterr().err == 'pi0_ros node: two ROS 2 installations\n'


def test_ros2_run_without_the_environment(tmp_path):
    """A Python that has nothing of ours, as that of a new terminal."""
    shown = subprocess.run([sys.executable, '-S', '-m', 'pi0_ros', 'infer', '--help'], cwd=ROOT,
                           env={'PATH': os.environ['PATH'], 'PYTHONPATH': str(ROOT)},
                           capture_output=True, text=True)
    assert shown.returncode == 1 and 'Traceback' not in shown.stderr
    assert "pi0_ros infer: the module 'numpy' is not installed" in shown.stderr


def test_a_node_without_the_environment_says_so_instead_of_a_traceback(tmp_path):
    pytest.importorskip('rclpy', reason='needs ROS 2')
    (tmp_path / 'torch').mkdir()
    (tmp_path / 'torch' / '__init__.py').write_text(
        "raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')\n")
    shown = subprocess.run(
        [sys.executable, '-m', 'pi0_ros', 'node', '--ros-args', '--params-file',
         str(ROOT / 'config' / 'sim.yaml')], cwd=ROOT, capture_output=True, text=True, timeout=60,
        env={**os.environ, 'PYTHONPATH': f'{tmp_path}{os.pathsep}{ROOT}'})
    assert shown.returncode and 'Traceback' not in shown.stderr + shown.stdout
    assert "the module 'torch' is not installed" in shown.stderr
