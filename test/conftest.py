# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Every test runs in a ROS domain of its own that stays on this host."""

from functools import cache
import os
from pathlib import Path
import signal

from hypothesis import settings
import numpy as np
from pi0_ros.ros.demo.processes import private_environment
import pytest

os.environ.update(private_environment())
WORKER, NICE = os.environ.get('PYTEST_XDIST_WORKER'), 15
# Whoever starts the tests in the background, or with nohup, lets them ignore these.
USUAL = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
for number, usual in USUAL.items():
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)
settings.register_profile('default', deadline=None, print_blob=True, database=None)
settings.load_profile('default')


def pytest_collection_modifyitems(items):
    """
    Begin with what runs in real time, whole programs first, which need a worker for themselves.

    It would be disturbed by what computes, which comes last, the longest first.
    """
    def rank(item):
        if item.get_closest_marker('live'):
            return 0
        return 1 if real_time(item.fspath) else 2 if 'as_they_are_typed' in item.name else 3

    items.sort(key=rank)


@cache
def real_time(path):
    """Return whether a module's tests have nodes."""
    return 'rclpy' in Path(path).read_text()


def pytest_runtest_setup(item):
    """Let a worker that has come to what computes leave the processor to those in real time."""
    if (WORKER and not item.get_closest_marker('live') and not real_time(item.fspath)
            and not os.getpriority(os.PRIO_PROCESS, 0)):
        os.nice(NICE)


@pytest.fixture(autouse=True)
def published_commands(monkeypatch):
    """Check every trajectory that any test in this process publishes."""
    try:
        from pi0_ros.ros.links import conversions
    except ImportError:
        yield
        return
    from support import command_problem
    problems = []
    convert, convert_chunk = conversions.trajectory_message, conversions.chunk_message

    def checked(trajectory, *names):
        message = convert(trajectory, *names)
        problem = command_problem(message)
        if problem:
            problems.append(problem)
        return message

    def checked_chunk(chunk, joint_names):
        if not np.isfinite(chunk.positions).all():
            problems.append('a chunk that is not finite')
        return convert_chunk(chunk, joint_names)

    monkeypatch.setattr(conversions, 'trajectory_message', checked)
    monkeypatch.setattr(conversions, 'chunk_message', checked_chunk)
    yield
    assert not problems, problems[:3]
