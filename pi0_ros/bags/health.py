# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""How well the inputs of a bag came: rates, gaps, and what is odd about them."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pi0_ros.bags.routes import Routes
from pi0_ros.bags.stamps import OTHER_CLOCK_NS
from pi0_ros.observation.decoding import to_ns

BINS_NS = np.concatenate([[0], np.geomspace(1e5, 1e11, 241)])  # of gaps, 6 % apart
BEGINS_NS = 10**9  # within which recorders find all topics
JUMPS = 0.05  # rad, between two joint states that may be of two publishers
FEW = 0.01  # of messages whose stamps go back, before two publishers are suspected


@dataclass
class Input:
    """Counts of one topic, in memory that does not grow."""

    count: int = 0
    unstamped: int = 0     # stamps of zero
    back: int = 0          # stamps older than the one before
    first_ns: int = 0
    last_ns: int = 0
    longest_gap_ns: int = 0
    early_ns: int = 2**63  # stamps from the time of receipt: the earliest
    late_ns: int = -2**63  # and the latest
    _stamp_ns: int = 0
    _gaps: np.ndarray = field(default_factory=lambda: np.zeros(len(BINS_NS) + 1, int))

    def add(self, stamp_ns: int, received_ns: int) -> None:
        """Count a message."""
        if self.count and received_ns >= self.last_ns:
            gap_ns = received_ns - self.last_ns
            self.longest_gap_ns = max(self.longest_gap_ns, gap_ns)
            self._gaps[np.searchsorted(BINS_NS, gap_ns)] += 1
        self.first_ns = self.first_ns or received_ns
        self.last_ns, self.count = received_ns, self.count + 1
        self.unstamped += not stamp_ns
        self.back += bool(stamp_ns) and stamp_ns < self._stamp_ns
        self._stamp_ns = stamp_ns
        if stamp_ns:
            self.early_ns = min(self.early_ns, stamp_ns - received_ns)
            self.late_ns = max(self.late_ns, stamp_ns - received_ns)

    def gap_ms(self, percent: float) -> float:
        """Return a percentile of the gaps between messages, to 6 %."""
        total = np.cumsum(self._gaps)
        if not total[-1]:
            return 0.0
        at = int(np.searchsorted(total, percent / 100 * total[-1]))
        return float(BINS_NS[min(at, len(BINS_NS) - 1)]) / 1e6

    def other_clock_ns(self) -> int:
        """
        Return how far stamps are from the time of receipt, if that is far and always the same.

        0 otherwise: then they are of the same clock, or of one that was set.
        """
        spread_ns, middle_ns = self.late_ns - self.early_ns, (self.late_ns + self.early_ns) // 2
        return middle_ns if 0 <= spread_ns < OTHER_CLOCK_NS < abs(middle_ns) else 0

    def rate_hz(self) -> float:
        """Return how many messages came a second, from the first to the last."""
        span_ns = self.last_ns - self.first_ns
        return 1e9 * (self.count - 1) / span_ns if span_ns > 0 else 0.0


class Health:
    """Counts of all inputs of a bag."""

    def __init__(self, routes: Routes) -> None:
        """Begin with nothing."""
        self.inputs = {name: Input() for name in ('joint_states', *routes.cameras)}
        self.jumps = 0  # of the clock
        self._kinds: set[tuple[str, ...]] = set()
        self._last: list[tuple[tuple, np.ndarray]] = []  # two, of one and the same joints
        self.doubled = 0  # joint states that contradict the one before

    def add(self, name: str, stamp_ns: int, received_ns: int) -> None:
        """Count a message of an input."""
        self.inputs[name].add(stamp_ns, received_ns)

    def add_joints(self, message: Any, received_ns: int, stamped: bool = True) -> None:
        """Count a joint state."""
        stamp_ns = to_ns(message.header.stamp) * stamped
        self.add('joint_states', stamp_ns, received_ns)
        if len(self._kinds) < 8:
            self._kinds.add(tuple(sorted(message.name)))
        names, now = tuple(message.name), np.array(message.position, float)
        if len(now) != len(names):
            return
        if self._last and self._last[0][0] != names:
            self._last = []
        if len(self._last) == 2:
            one, two = (np.abs(now - before).max(initial=0) for _, before in self._last)
            self.doubled += two > JUMPS and one < two / 10  # to and fro
        self._last = [*self._last[-1:], (names, now)]

    def warnings(self, begin_ns: int, end_ns: int, late_ns: int) -> list[str]:
        """
        Return what is odd, one sentence each.

        :param late_ns: silence that is worth a word; at begin and end at least a second.
        """
        times = 'once' if self.jumps == 1 else f'{self.jumps} times'
        out = [f'the clock jumped {times}'] if self.jumps else []
        for name, one in self.inputs.items():
            what = 'joint states' if name == 'joint_states' else f"camera '{name}'"
            if not one.count:
                out.append(f'{what}: not one message')
                continue
            if not self.jumps:
                for silent_ns, words in ((one.first_ns - begin_ns, 'begin {:.1f} s late'),
                                         (end_ns - one.last_ns, 'end {:.1f} s early')):
                    if silent_ns > max(late_ns, BEGINS_NS):
                        out.append(f'{what}: {words.format(silent_ns / 1e9)}')
            if one.other_clock_ns():
                out.append(f'{what}: stamps are {one.other_clock_ns() / 1e9:+.1f} s from the time '
                           "of receipt, all of them: a clock of its own; with 'ignore_stamps' the "
                           'time of receipt counts')
            if one.longest_gap_ns > late_ns:
                out.append(f'{what}: silent for {one.longest_gap_ns / 1e9:.1f} s at the longest')
            if one.unstamped:
                out.append(f'{what}: {one.unstamped} of {one.count} have no stamp: the time of '
                           'receipt counts')
            if one.back > max(self.jumps, FEW * one.count):
                out.append(f'{what}: {one.back} of {one.count} stamps are older than the one '
                           'before: two publishers on one topic, or a driver that reorders')
        overlapping = any(set(a) & set(b) for a in self._kinds for b in self._kinds if a != b)
        if overlapping or self.doubled > FEW * self.inputs['joint_states'].count:
            out.append('joint states: messages contradict each other, as of two publishers of the '
                       'same joints: record or remap only one of them')
        return out
