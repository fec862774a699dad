# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What a robot did: the path of commands or of joint states that a bag holds."""

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from pi0_ros.observation.decoding import to_ns

TRAJECTORY, ARRAY, STATE = ('trajectory_msgs/msg/JointTrajectory',
                            'std_msgs/msg/Float64MultiArray', 'sensor_msgs/msg/JointState')
KINDS = (TRAJECTORY, STATE, ARRAY)
OTHERS = 'of other joints'
HELD_NS = 50_000_000  # a command that is not followed by another for so long is held till then


class ActionPath:
    """
    Positions of D joints over time.

    A trajectory replaces what an older one said of the time after its start; the first begins
    where the joints were measured. Commands that come seldom are steps, each held until the next;
    those that stream are joined by lines. A joint that moves by more than half a turn from one to
    the next went the other way round. Between measurements that are further apart than ``gap_ns``
    nothing is known. What nobody commands is where it was measured when the others were commanded.
    """

    def __init__(self, joint_names: tuple[str, ...], gap_ns: int | None = None) -> None:
        """Begin empty. :param gap_ns: None: whatever comes last is held."""
        self.joint_names, self._gap_ns = joint_names, gap_ns
        self._row = {name: row for row, name in enumerate(joint_names)}
        self.dropped: Counter[str] = Counter()  # messages, by what was wrong with them
        self.known_ns = 0  # until when everything came that there is; nothing is told of later
        self.changes: list[tuple[int, str]] = []  # when which instruction came
        self.uncommanded: set[str] = set()
        self.measured = np.full(len(joint_names), np.nan)
        self._times: deque[int] = deque()
        self._values: deque[np.ndarray] = deque()
        self._partial = np.full(len(self.joint_names), np.nan)

    def put(self, message: Any, received_ns: int, stamped: bool = True, topic: str = '') -> None:
        """
        Take a command or joint state; one that cannot be used is dropped and counted.

        A Float64MultiArray has the order of ``joint_names``. :param stamped: whether stamps count.
        :param topic: of no interest to a single path.
        """
        kind = message.__msgtype__
        stamp_ns = received_ns if kind == ARRAY or not stamped else (
            to_ns(message.header.stamp) or received_ns)
        if kind == TRAJECTORY:
            self._put_trajectory(message, stamp_ns)
        elif kind == STATE:
            if len(message.name) != len(message.position):
                return self._drop(_unequal(len(message.name), len(message.position)))
            self._take(stamp_ns, self._row_of(message.name, message.position))
        elif len(message.data) != len(self.joint_names):
            self._drop(f'{len(message.data)} positions for {len(self.joint_names)} joints')
        else:
            self._take(stamp_ns, np.array(message.data, float))
        return None

    def _put_trajectory(self, message: Any, start_ns: int) -> None:
        if not message.points:
            return self._drop('a trajectory without points')
        counts = {len(point.positions) for point in message.points}
        if counts == {0}:
            return self._drop('a trajectory without positions')
        if counts != {len(message.joint_names)}:
            return self._drop(_unequal(len(message.joint_names), max(counts)))
        times = [start_ns + to_ns(point.time_from_start) for point in message.points]
        if np.any(np.diff(times) <= 0):
            return self._drop('a trajectory whose points do not follow each other')
        rows = [self._row_of(message.joint_names, point.positions) for point in message.points]
        if rows[0] is None:
            return self._drop(OTHERS)
        if self._times:
            after_ns, after = self._times[-1], self._values[-1]
            while self._times and self._times[-1] >= start_ns:
                after_ns, after = self._times.pop(), self._values.pop()
            here = after
            if self._times:
                here = _between(self._times[-1], self._values[-1], after_ns, after,
                                np.array([start_ns]))[0]
            self._append(start_ns - (times[0] <= start_ns), here)
        elif times[0] > start_ns:  # from where the robot is, as a controller does
            here = self.measured
            self._append(start_ns, here if np.isfinite(here).all() else rows[0])
        for at_ns, row in zip(times, rows):
            self._append(at_ns, row)
        return None

    def _row_of(self, names: list[str], positions: np.ndarray) -> np.ndarray | None:
        """Return positions of all joints, those that the message lacks as they were; or None."""
        found = [(self._row[name], index) for index, name in enumerate(names)
                 if name in self._row]
        if not found:
            return None  # of other joints
        for row, index in found:
            self._partial[row] = positions[index]
        out = self._partial.copy()
        alone = ~np.isfinite(out) & np.isfinite(self.measured)
        if self._gap_ns is None and alone.any():
            self.uncommanded |= {self.joint_names[row] for row in np.flatnonzero(alone)}
            out[alone] = self.measured[alone]
        return out

    def _take(self, at_ns: int, row: np.ndarray | None) -> None:
        if row is None or not np.isfinite(row).all():
            return
        if self._times and at_ns <= self._times[-1]:
            if at_ns == self._times[-1]:
                self._values[-1] = row  # the rest of a partial state
            else:
                self._drop('stamps that go back')
            return
        if self._gap_ns is None and self._times and at_ns > self._times[-1] + HELD_NS:
            self._append(at_ns - 1, self._values[-1])
        self._append(at_ns, row)

    def _append(self, at_ns: int, row: np.ndarray) -> None:
        if np.isfinite(row).all():
            self._times.append(at_ns)
            self._values.append(row)

    def _drop(self, problem: str) -> None:
        self.dropped[problem] += 1

    def put_measured(self, at_ns: int) -> None:
        """Take where the joints are measured for what is commanded."""
        self._take(at_ns, self.measured)

    def sample(self, times_ns: np.ndarray) -> np.ndarray:
        """Return positions [N, D] at ``times_ns`` [N], NaN where nothing is known."""
        times_ns = np.asarray(times_ns)
        if not self._times:
            return np.full((len(times_ns), len(self.joint_names)), np.nan)
        knots, values = np.array(self._times), np.array(self._values)
        after = np.searchsorted(knots, times_ns, 'left')
        high, low = np.minimum(after, len(knots) - 1), np.maximum(after - 1, 0)
        low = np.where(knots[high] == times_ns, high, low)
        out = _between(knots[low], values[low], knots[high], values[high], times_ns)
        unknown = (times_ns < knots[0]) | (times_ns > self.known_ns)
        if self._gap_ns is not None:
            unknown |= (times_ns > knots[-1]) | (knots[high] - knots[low] > self._gap_ns)
        out[unknown] = np.nan
        return out

    def forget(self, before_ns: int) -> None:
        """Forget what is not needed for times from ``before_ns`` on."""
        while len(self._times) > 1 and self._times[1] <= before_ns:
            self._times.popleft()
            self._values.popleft()


class ActionPaths:
    """
    The same of a robot whose joints are told, or commanded, on several topics: a path each.

    What none of them commands is where it was measured when the others were commanded.
    """

    def __init__(self, joint_names: tuple[str, ...], topics: Mapping[str, Sequence[str]],
                 gap_ns: int | None = None) -> None:
        """Begin empty. :param topics: the joints of each. :param gap_ns: see ActionPath."""
        self.joint_names = joint_names
        known = {name for names in topics.values() for name in names}
        rest = tuple(name for name in joint_names if name not in known)
        self._rest = ActionPath(rest)
        self._paths = {topic: ActionPath(tuple(name for name in joint_names if name in names),
                                         gap_ns) for topic, names in topics.items()}
        self._all = [path for path in (*self._paths.values(), self._rest) if path.joint_names]
        self._columns = [[joint_names.index(name) for name in path.joint_names]
                         for path in self._all]
        self.changes: list[tuple[int, str]] = []
        self.uncommanded: set[str] = set() if gap_ns else set(rest)

    @property
    def dropped(self) -> Counter[str]:
        """Return messages by what was wrong with them."""
        return sum((path.dropped for path in self._all), Counter())

    @property
    def known_ns(self) -> int:
        """Return until when everything came that there is."""
        return self._all[0].known_ns

    @known_ns.setter
    def known_ns(self, value: int) -> None:
        for path in self._all:
            path.known_ns = value

    @property
    def measured(self) -> np.ndarray:
        """Return where the joints were measured last, [D]."""
        out = np.full(len(self.joint_names), np.nan)
        for path, columns in zip(self._all, self._columns):
            out[columns] = path.measured
        return out

    @measured.setter
    def measured(self, value: np.ndarray) -> None:
        for path, columns in zip(self._all, self._columns):
            path.measured = value[columns]

    def put(self, message: Any, received_ns: int, stamped: bool = True, topic: str = '') -> None:
        """Take a command or joint state of a topic."""
        self._paths[topic].put(message, received_ns, stamped)
        if self._rest.joint_names:
            self._rest.put_measured(received_ns)

    def sample(self, times_ns: np.ndarray) -> np.ndarray:
        """Return positions [N, D] at ``times_ns`` [N], NaN where nothing is known."""
        out = np.full((len(times_ns), len(self.joint_names)), np.nan)
        for path, columns in zip(self._all, self._columns):
            out[:, columns] = path.sample(times_ns)
        return out

    def forget(self, before_ns: int) -> None:
        """Forget what is not needed for times from ``before_ns`` on."""
        for path in self._all:
            path.forget(before_ns)


def named(message: Any, prefix: str) -> Any:
    """Return a JointState or JointTrajectory whose joints have a prefix."""
    if not prefix:
        return message
    of = 'joint_names' if hasattr(message, 'joint_names') else 'name'
    return SimpleNamespace(**{**{key: getattr(message, key) for key in (
        'header', 'points', 'position', '__msgtype__') if hasattr(message, key)},
        of: [prefix + name for name in getattr(message, of)]})


def _unequal(names: int, positions: int) -> str:
    return f'{names} names but {positions} positions'


def _between(low_ns: np.ndarray, low: np.ndarray, high_ns: np.ndarray, high: np.ndarray,
             times_ns: np.ndarray) -> np.ndarray:
    """Return positions [N, D] on the way from ``low`` to ``high``, the short way around a turn."""
    share = (times_ns - low_ns) / np.maximum(high_ns - low_ns, 1)
    share = np.clip(share, 0, 1)[:, None]
    change = high - low
    change = change - np.where(np.abs(change) > np.pi,
                               2 * np.pi * np.round(change / (2 * np.pi)), 0)
    return np.where(share == 1, high, low + share * change)
