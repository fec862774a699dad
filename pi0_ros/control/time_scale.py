# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Time as the controller lets it pass: slower than the clock where its speed is scaled."""

from collections import deque

import numpy as np

KEPT = 200  # changes, of ticks


class TimeScale:
    """
    Maps times of the clock to those of the plan.

    A controller whose speed is scaled by s goes through its trajectory s times as fast (a UR's
    speed slider; ros2_controllers, doc/speed_scaling.rst). The plan's time passes as slowly, so
    that the plan is where the controller is.
    """

    def __init__(self) -> None:
        """Begin at full speed."""
        self.factor = 1.0
        self._behind_ns = 0
        self._last_ns: int | None = None
        self._past: deque[tuple[int, int]] = deque(maxlen=KEPT)  # since when, so far behind

    def use(self, factor: float) -> None:
        """Let time pass so fast from now on, 0 to 1."""
        self.factor = factor

    def advance(self, now_ns: int) -> int:
        """Let time pass until ``now_ns``; return what the plan calls it."""
        if self._last_ns is not None and self.factor != 1.0:
            if not self._past or self._past[-1][0] < self._last_ns:  # it was as fast as the clock
                self._past.append((self._last_ns, self._behind_ns))
            self._behind_ns += round((1.0 - self.factor) * max(0, now_ns - self._last_ns))
            self._past.append((now_ns, self._behind_ns))
        self._last_ns = now_ns
        return now_ns - self._behind_ns

    def shift(self, by_ns: int) -> None:
        """Keep the plan's time where the clock is set by ``by_ns``."""
        self._behind_ns += by_ns
        self._last_ns = None
        self._past.clear()

    def at(self, time_ns: int) -> int:
        """Return what the plan calls a time of the clock, now or in the past."""
        past = self._past.copy()
        if not past or time_ns >= past[-1][0]:
            return time_ns - self._behind_ns
        times, behind = zip(*past)
        return time_ns - round(float(np.interp(time_ns, times, behind)))

    def of(self, times_ns: np.ndarray) -> np.ndarray:
        """Return what the plan calls times [N]."""
        if not self._past:
            return np.asarray(times_ns) - self._behind_ns
        return np.array([self.at(int(time_ns)) for time_ns in np.asarray(times_ns)], np.int64)
