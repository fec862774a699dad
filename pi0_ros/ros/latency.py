# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""How long inferences take."""

from collections import deque

import numpy as np

RATE_OVER_NS = 10_000_000_000


class Latency:
    """Recent durations, milliseconds."""

    def __init__(self) -> None:
        """Start empty."""
        self._recent: deque[float] = deque(maxlen=600)
        self._ends: deque[int] = deque(maxlen=50)
        self.count = 0

    def add(self, seconds: float, steady_ns: int) -> None:
        """Remember one duration, and when it ended."""
        self._recent.append(seconds * 1e3)
        self._ends.append(steady_ns)
        self.count += 1

    def rate_hz(self, steady_ns: int) -> float:
        """Return how many ended a second, of the last fifty and up to ten seconds ago."""
        ends = [end for end in self._ends.copy() if end > steady_ns - RATE_OVER_NS]
        return 1e9 * (len(ends) - 1) / (ends[-1] - ends[0]) if len(ends) > 1 else 0.0

    def percentile(self, percent: float) -> float:
        """Return a percentile in milliseconds, 0 before the first duration."""
        recent = self._recent.copy()
        return float(np.percentile(np.array(recent), percent)) if recent else 0.0
