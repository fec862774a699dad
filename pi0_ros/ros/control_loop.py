# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The control thread: absolute deadlines on the node's clock."""

from collections import deque
from collections.abc import Callable
import os
import threading
import time

import numpy as np
from pi0_ros.observation.finding import Finding
from rclpy.clock import Clock, ROSClock

SIMULATED_POLL_S = 0.002
CLOCK_JUMP_NS = 1_000_000_000
KEPT_STEPS = 50
BEGIN_S = 1.0
LONGEST_WAIT_S = 0.1
STALLED_NS = 500_000_000  # that the thread may be late
KEPT = 6000  # intervals kept for statistics: two minutes at 50 Hz


class ControlLoop:
    """
    Calls ``tick(now_ns)`` once a period.

    An overrun is counted and the grid goes on at the next period that is still to come: missed
    ticks are never made up for in a burst. Simulated time and clock jumps are followed.
    """

    def __init__(self, clock: Clock, period_ns: int, tick: Callable[[int], None],
                 failed: Callable[[BaseException], None], priority: int = 0) -> None:
        """
        Prepare; ``start`` starts. ``failed`` gets what ``tick`` raised; the loop goes on.

        :param priority: real-time priority (SCHED_FIFO) of the thread, where the system allows
            it; 0 asks for none.
        """
        self._priority, self.realtime = priority, False
        self._clock, self._period_ns = clock, period_ns
        self._tick, self._failed = tick, failed
        self._ending, self._woken = threading.Event(), threading.Event()
        self._begun = threading.Event()
        self.beat_ns = time.monotonic_ns()  # when the thread was last seen at work
        self._left: int | None = None  # the node's clock minus the steady one, once it is left
        self._thread = threading.Thread(target=self._run, name='control', daemon=True)
        self.ticks = self.missed = 0
        self._lateness_ns: deque[int] = deque(maxlen=KEPT)
        self._intervals_ns: deque[int] = deque(maxlen=KEPT)
        self._clock_steps_ns: deque[int] = deque(maxlen=KEPT_STEPS)
        self._clock_at_ns = 0

    def start(self) -> None:
        """Start the thread; ``realtime`` then says whether it has its priority."""
        self.beat_ns = time.monotonic_ns()
        self._thread.start()
        self._begun.wait(BEGIN_S)

    @property
    def alive(self) -> bool:
        """Return whether the thread runs."""
        return self._thread.is_alive()

    def wake(self) -> None:
        """Tick once at once, out of the grid: something must be told now."""
        self._woken.set()

    def stalled(self) -> Finding | None:
        """Return whether the thread has ended, or does not come back."""
        late_ns = time.monotonic_ns() - self.beat_ns - self._period_ns
        if late_ns <= STALLED_NS and self.alive:
            return None
        what = f'has not come back for {late_ns / 1e9:.1f} s' if self.alive else 'has ended'
        return Finding('control_stalled', f'the control thread {what}: the robot follows its last '
                       'window to rest; deactivate the node, and start it again if that fails',
                       'control', late_ns / 1e9, STALLED_NS / 1e9)

    def leave_clock(self) -> None:
        """Go on by a clock that nobody stops, from where the node's clock is now."""
        self._left = self._clock.now().nanoseconds - time.monotonic_ns()

    def _now(self) -> int:
        left = self._left
        return self._clock.now().nanoseconds if left is None else time.monotonic_ns() + left

    def stop(self, timeout_s: float) -> bool:
        """End the thread; return whether it has ended, and so does not tick again."""
        self._ending.set()
        self._woken.set()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(timeout_s)
            return not self._thread.is_alive()
        return True

    def intervals_ms(self) -> dict[str, float]:
        """Return the time between ticks: p50, p99 and max in milliseconds, rate in Hz."""
        values = np.array(self._intervals_ns.copy()) / 1e6
        if not len(values):
            return {'p50': 0.0, 'p99': 0.0, 'max': 0.0, 'rate': 0.0}
        return {'p50': float(np.percentile(values, 50)), 'p99': float(np.percentile(values, 99)),
                'max': float(values.max()), 'rate': float(1e3 / values.mean())}

    def lateness_p99_ms(self) -> float:
        """Return how late ticks begin after their deadline, 99th percentile."""
        values = self._lateness_ns.copy()
        return float(np.percentile(np.array(values), 99)) / 1e6 if values else 0.0

    def _wait(self, deadline_ns: int) -> int:
        """Wait for ``deadline_ns``, to be woken, or for a clock that went back; return now."""
        while True:
            self.beat_ns = time.monotonic_ns()
            simulated = (self._left is None and isinstance(self._clock, ROSClock)
                         and self._clock.ros_time_is_active)
            now_ns = self._now()
            left_ns = deadline_ns - now_ns
            if simulated:
                self._watch_clock(now_ns)
            if left_ns <= 0 or left_ns > 2 * self._period_ns or self._woken.is_set():
                return now_ns
            self._woken.wait(SIMULATED_POLL_S if simulated else min(left_ns / 1e9, LONGEST_WAIT_S))

    def _watch_clock(self, now_ns: int) -> None:
        step_ns, self._clock_at_ns = now_ns - self._clock_at_ns, now_ns
        if 0 < step_ns < CLOCK_JUMP_NS:
            self._clock_steps_ns.append(step_ns)

    def clock_step_ns(self) -> int:
        """Return how far a simulated clock goes at a time; 0 for one that nobody steps."""
        steps = sorted(self._clock_steps_ns.copy())
        return steps[len(steps) // 2] if len(steps) == KEPT_STEPS else 0

    def _prioritise(self) -> None:
        if self._priority:
            try:
                os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(self._priority))
                self.realtime = True
            except (OSError, AttributeError):
                pass  # no right to it, which limits.conf grants; or no such system
        self._begun.set()

    def _run(self) -> None:
        try:
            self._loop()
        except BaseException as error:  # a thread that ends without a word leaves the arm alone
            self._failed(error)

    def _loop(self) -> None:
        self._prioritise()
        last_ns = self._now()
        deadline_ns = last_ns + self._period_ns
        while True:
            now_ns = self._wait(deadline_ns)
            if self._ending.is_set():
                return
            self.beat_ns = time.monotonic_ns()
            if self._woken.is_set():
                self._woken.clear()
                if 0 < deadline_ns - now_ns <= 2 * self._period_ns:
                    self._tick_once(now_ns)
                    continue
            self.ticks += 1
            timed = last_ns > 0  # a simulated clock that nobody set stands at 0
            if timed:
                self._intervals_ns.append(now_ns - last_ns)
                self._lateness_ns.append(max(0, now_ns - deadline_ns))
            last_ns = now_ns
            self._tick_once(now_ns)
            if abs(now_ns - deadline_ns) > 2 * self._period_ns:
                if timed and 0 < now_ns - deadline_ns < CLOCK_JUMP_NS:
                    self.missed += (now_ns - deadline_ns) // self._period_ns
                deadline_ns = now_ns  # the machine slept, or the clock jumped
            deadline_ns += self._period_ns
            late_ns = self._now() - deadline_ns
            if late_ns >= 0:
                skipped = late_ns // self._period_ns + 1
                self.missed += skipped
                deadline_ns += skipped * self._period_ns

    def _tick_once(self, now_ns: int) -> None:
        try:
            self._tick(now_ns)
        except BaseException as error:
            self._failed(error)
