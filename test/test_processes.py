# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Processes that are started end with whoever started them."""

import os
from pathlib import Path
import signal
import subprocess
import sys
import threading
import time

from pi0_ros.launching import PROFILES
from pi0_ros.ros.demo.processes import Children, private_environment
import pytest

ROOT = Path(__file__).parents[1]
SLEEP = [sys.executable, '-c', 'import time; time.sleep(600)']


def gone(pid, timeout_s=10):
    """Wait until a process has ended (a zombie has)."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        try:
            state = Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == 'Z':
            return True
    return False


def test_ros_stays_on_this_host_in_a_domain_of_its_own():
    environment = private_environment()
    assert environment['ROS_AUTOMATIC_DISCOVERY_RANGE'] == 'LOCALHOST'
    assert 1 <= int(environment['ROS_DOMAIN_ID']) <= 100
    found = [environment[name] for name in PROFILES if name in environment]
    assert found and all(Path(path).exists() for path in found)


def test_end_ends_also_a_child_that_ignores_signals(tmp_path):
    children = Children(dict(os.environ), tmp_path)
    stubborn = children.start('stubborn', [
        sys.executable, '-c', 'import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN);'
        'signal.signal(signal.SIGTERM, signal.SIG_IGN); print("deaf", flush=True); '
        'time.sleep(600)'])
    while 'deaf' not in (tmp_path / 'stubborn.log').read_text():
        assert stubborn.poll() is None
    children.end()
    assert stubborn.returncode == -signal.SIGKILL


def test_a_child_that_ended_is_told_with_its_last_words(tmp_path):
    children = Children(dict(os.environ), tmp_path)
    children.start('short', [sys.executable, '-c', 'raise SystemExit("no camera")']).wait()
    assert children.ended() == 'short ended with code 1:\nno camera\n'


def test_children_die_with_a_parent_that_is_killed(tmp_path):
    parent = subprocess.Popen(
        [sys.executable, '-c', 'import sys, time; from pathlib import Path;'
         'from pi0_ros.ros.demo.processes import Children; import os;'
         f'child = Children(dict(os.environ), Path({str(tmp_path)!r})).start("c", {SLEEP!r});'
         'print(child.pid, flush=True); time.sleep(600)'],
        stdout=subprocess.PIPE, text=True, cwd=ROOT)
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    assert gone(child)


@pytest.mark.parametrize(('verb', 'imported', 'status'), [
    ('node', 'rclpy', 0), ('node', 'pi0_ros.ros.node', 0), ('sim', 'pi0_ros.ros.demo.sim_node', 0),
    ('evaluate', 'numpy', 130), ('infer', 'pi0_ros.verbs.infer', 130)])
def test_ctrl_c_while_it_still_imports_is_a_quiet_end(verb, imported, status):
    done = subprocess.run([sys.executable, '-c', (
        'import os, signal, sys\n'
        'class Finder:\n'
        '    def find_spec(self, name, path=None, target=None):\n'
        f'        if name == {imported!r}:\n'
        '            os.kill(os.getpid(), signal.SIGINT)\n'
        'sys.meta_path.insert(0, Finder())\n'
        'from pi0_ros.cli import run\n'
        f'status = run({verb!r}, [])\n'
        'print("it went on")\n')], cwd=ROOT, env=dict(os.environ) | private_environment(),
        capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (status, '', '')


def test_a_signal_while_something_is_finalised_is_not_lost():
    """Python drops what is raised in __del__: the node would load on to its end."""
    from pi0_ros.ros.interrupt import ENDING, Interrupt

    class Dying:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGTERM)
            time.monotonic()  # the handler runs here

    before, dropped = [signal.getsignal(number) for number in ENDING], []
    hook, sys.unraisablehook = sys.unraisablehook, dropped.append
    interrupt = Interrupt()
    try:
        interrupt.listen()
        with pytest.raises(KeyboardInterrupt):
            one = Dying()
            del one
            assert interrupt.told.is_set()
            threading.Event().wait(10)
        with interrupt.raising(True):  # a second one is for those who wait for the end
            os.kill(os.getpid(), signal.SIGTERM)
            time.monotonic()
    finally:
        sys.unraisablehook = hook
        for number, handler in zip(ENDING, before):
            signal.signal(number, handler)
    assert not dropped
