# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The control thread by itself, on a clock that a test sets."""

import os
import threading

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')

from pi0_ros.ros.control_loop import ControlLoop  # noqa: E402, I100
from rclpy.clock import Clock  # noqa: E402
from rclpy.time import Time  # noqa: E402

PERIOD = 20_000_000


class SetClock:
    """A clock that jumps where a list says, then runs by itself."""

    def __init__(self, *times_ns):
        self.times, self.real = list(times_ns), Clock()
        self.last, self.since = 0, None

    def now(self):
        if self.times:
            self.last = self.times.pop(0)
            self.since = self.real.now().nanoseconds
            return Time(nanoseconds=self.last)
        return Time(nanoseconds=self.last + self.real.now().nanoseconds - self.since)


def run(loop, count, ticked):
    loop.start()
    for _ in range(count):
        assert ticked.acquire(timeout=10)
    assert loop.stop(10.0)


@pytest.mark.parametrize('granted', [True, False])
def test_the_thread_asks_for_its_priority_and_goes_on_without(monkeypatch, granted):
    asked = []

    def schedule(process, policy, parameter):
        asked.append((threading.current_thread().name, policy, parameter.sched_priority))
        if not granted:
            raise PermissionError

    monkeypatch.setattr(os, 'sched_setscheduler', schedule)
    ticked = threading.Semaphore(0)
    loop = ControlLoop(Clock(), PERIOD, lambda now: ticked.release(), lambda error: None, 10)
    run(loop, 3, ticked)
    assert asked == [('control', os.SCHED_FIFO, 10)] and loop.realtime == granted


def test_no_priority_is_asked_for_where_none_is_wanted(monkeypatch):
    monkeypatch.setattr(os, 'sched_setscheduler', lambda *given: pytest.fail('asked'))
    ticked = threading.Semaphore(0)
    run(ControlLoop(Clock(), PERIOD, lambda now: ticked.release(), lambda error: None), 2, ticked)


def test_an_overrun_is_counted_and_not_made_up_for():
    ticked, ticks = threading.Semaphore(0), []

    def tick(now_ns):
        ticks.append(now_ns)
        if len(ticks) == 3:
            threading.Event().wait(5.5 * PERIOD / 1e9)
        ticked.release()

    loop = ControlLoop(Clock(), PERIOD, tick, lambda error: None)
    run(loop, 8, ticked)
    assert loop.missed >= 5
    # Six periods to the next of the grid, then one after another.
    assert ticks[7] - ticks[2] > 9.4 * PERIOD


def test_an_error_in_a_tick_is_told_and_the_loop_goes_on():
    ticked, errors = threading.Semaphore(0), []

    def tick(now_ns):
        ticked.release()
        raise ValueError('on purpose')

    run(ControlLoop(Clock(), PERIOD, tick, errors.append), 3, ticked)
    assert len(errors) >= 3 and isinstance(errors[0], ValueError)


def test_a_clock_that_goes_back_is_followed():
    ticked, ticks = threading.Semaphore(0), []

    def tick(now_ns):
        ticks.append(now_ns)
        ticked.release()

    loop = ControlLoop(SetClock(50 * 10**9, 50 * 10**9 + PERIOD, 10**9), PERIOD, tick,
                       lambda error: None)
    run(loop, 4, ticked)
    assert ticks[-1] < 40 * 10**9


def test_a_simulated_clock_that_begins_has_missed_nothing():
    ticked = threading.Semaphore(0)
    loop = ControlLoop(SetClock(0, 0, 900_000_000), PERIOD, lambda now: ticked.release(),
                       lambda error: None)
    run(loop, 4, ticked)
    assert loop.missed < 40 and loop.intervals_ms()['max'] < 900  # else 45
