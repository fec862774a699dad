# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Faults that only processes have, with the joints of the simulated robot themselves looked at."""

import resource
import signal

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')

from pi0_ros.ros.demo import demo  # noqa: E402, I100
from pi0_ros.sim import arm  # noqa: E402
from pi0_ros.sim.recording import Recording  # noqa: E402
from test_live import live  # noqa: E402, F401

pytestmark = [pytest.mark.live, pytest.mark.xdist_group('live')]


def positions(live):  # noqa: F811
    """Return the measured joints, and when, since the recording began."""
    times, values = zip(*live.observer.recording.measured)
    return np.array(times), np.array(values)


def move(live):  # noqa: F811
    """Arm and instruct; return when the arm has moved a good way."""
    observer = live.observer
    start = np.array(observer.joints)
    observer.instruct('take the red block')
    assert live.wait(lambda: len(observer.command_stamps_ns) > 5
                     and np.abs(np.array(observer.joints) - start).max() > 0.2, 30)


def rests(live):  # noqa: F811
    """Wait until the joints no longer move; return how far they went meanwhile."""
    observer = live.observer
    before = np.array(observer.joints)
    count = len(observer.recording.measured)

    def still():
        recent = [joints for _, joints in observer.recording.measured[count:]][-50:]
        return len(recent) == 50 and np.ptp(np.array(recent), axis=0).max() < 1e-3

    assert live.wait(still, 10)
    return np.abs(np.array(observer.joints) - before).max()


@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_node_that_is_ended_while_moving_leaves_the_robot_at_rest(live, number):  # noqa: F811
    live.start()
    move(live)
    node = live.children.running.pop('node')
    node.send_signal(number)
    assert node.wait(20) == (-signal.SIGKILL if number == signal.SIGKILL else 0)
    # A window is 0.2 s at up to 2 rad/s, a stop at 5 rad/s^2 is shorter than that.
    assert rests(live) < 0.5
    _, values = positions(live)
    assert (values <= arm.UPPER + 1e-4).all() and (values >= arm.LOWER - 1e-4).all()


def test_no_joint_is_faster_or_harder_than_allowed(live):  # noqa: F811
    live.start()
    live.attempt('red', 'pick up the {} block')
    commands = np.array([values for _, values in live.observer.recording.commands])
    stamps = np.array(live.observer.command_stamps_ns[-len(commands):]) / 1e9
    dt = np.diff(stamps)[:, None]
    speed = np.diff(commands, axis=0) / dt
    assert (np.abs(speed)[dt[:, 0] < 0.1] <= 0.5 * arm.MAX_VELOCITY * 1.01).all()
    turns = 5.0 * 0.010**2 / 8  # between two steps of the limiter, see there
    assert (commands <= arm.UPPER + turns).all() and (commands >= arm.LOWER - turns).all()


def test_a_recording_that_cannot_be_written_is_told(tmp_path, capsys):
    (tmp_path / 'summary.json').symlink_to('/dev/full')
    assert demo.report(tmp_path, {}, Recording(arm.JOINT_NAMES)) == 1
    told = capsys.readouterr().err
    assert 'No space left on device' in told and '--out' in told


def test_a_disk_that_is_full_stops_nobody(live):  # noqa: F811
    """From a moment on the node may write to no file: its log is lost, the robot moves."""
    live.start()
    log = live.children.logs / 'node.log'
    resource.prlimit(live.children.running['node'].pid, resource.RLIMIT_FSIZE, (0, 0))
    size = log.stat().st_size
    assert live.attempt('red', 'pick up the {} block')['taken'] in ('red', '')
    assert len(live.observer.command_stamps_ns) > 20 and log.stat().st_size == size
    assert not live.children.ended()
