# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Newest-value buffers between the callbacks that receive and the thread that infers."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

T = TypeVar('T')
KEPT_ARRIVALS = 100
KEPT_NAMES = 20
OUT_OF_ORDER_NS = 1_000_000_000  # that a message may come late and be older than another
STEADY_NS = 200_000_000
SILENCE_NS = 3_000_000_000


@dataclass(frozen=True)
class Stamped(Generic[T]):
    """A value, when it was measured and when it arrived, both in nanoseconds."""

    value: T
    stamp_ns: int
    received_ns: int


class Arrivals:
    """When the last values of a stream came."""

    def __init__(self) -> None:
        """Start empty."""
        self.count = 0
        self._times: deque[tuple[int, int]] = deque(maxlen=KEPT_ARRIVALS)

    def add(self, stamp_ns: int, received_ns: int) -> None:
        """Remember one."""
        self.count += 1
        self._times.append((stamp_ns or received_ns, received_ns))

    def rate_hz(self, now_ns: int) -> float:
        """Return how many came a second, of the last hundred and up to three seconds ago."""
        recent = [received for _, received in self._times.copy()
                  if received > now_ns - SILENCE_NS]
        if len(recent) < 2 or recent[-1] <= recent[0]:
            return 0.0
        return 1e9 * (len(recent) - 1) / (recent[-1] - recent[0])

    def lost(self) -> int:
        """Return how many of the last hundred never came, told by gaps between their stamps."""
        gaps = np.diff([stamp for stamp, _ in self._times.copy()])
        if len(gaps) < 4 or np.median(gaps) <= 0:
            return 0
        missing = np.maximum(np.round(gaps / np.median(gaps)) - 1, 0)
        return int(missing[gaps < SILENCE_NS].sum())  # whoever was silent lost nothing

    def steady(self) -> bool:
        """Return whether the last ten came as long after their stamps, but for a little."""
        ages = [received - stamp for stamp, received in list(self._times.copy())[-10:]]
        return len(ages) > 2 and max(ages) - min(ages) < STEADY_NS

    def clear(self) -> None:
        """Forget when they came, for example after the clock jumped; the count stays."""
        self._times.clear()


class LatestBuffer(Generic[T]):
    """
    Keeps only the newest value of a stream.

    One thread may put while another gets: replacing a reference is atomic.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._newest: Stamped[T] | None = None
        self.arrivals = Arrivals()

    def put(self, value: T, stamp_ns: int, received_ns: int) -> None:
        """Keep ``value``. A stamp of zero means that the sender set none: receive time counts."""
        self._newest = Stamped(value, stamp_ns or received_ns, received_ns)
        self.arrivals.add(stamp_ns, received_ns)

    def get(self) -> Stamped[T] | None:
        """Return the newest value, or None before the first."""
        return self._newest

    def clear(self) -> None:
        """Forget the value, for example after the clock jumped back."""
        self._newest = None
        self.arrivals.clear()


class JointBuffer:
    """Merges joint state messages, whole or partial, into one vector in a fixed joint order."""

    def __init__(self, joint_names: tuple[str, ...], lags_ns: Mapping[str, int] | None = None
                 ) -> None:
        """
        Collect positions of ``joint_names``; joints of other names are ignored.

        :param lags_ns: by how much joints that are told seldom may be behind the others.
        """
        self.joint_names = joint_names
        self._lags = np.array([(lags_ns or {}).get(name, 0) for name in joint_names], np.int64)
        self._row = {name: row for row, name in enumerate(joint_names)}
        self._message_names: tuple[str, ...] | None = None
        self.heard: dict[str, None] = {}  # names that came, wanted or not, some of them
        self._past: deque[tuple[int, np.ndarray]] = deque(maxlen=KEPT_ARRIVALS)
        self._sources = self._targets = np.zeros(0, int)
        self.clear()

    def put(self, names: list[str], positions: np.ndarray, stamp_ns: int,
            received_ns: int) -> None:
        """
        Merge one message.

        :raises ValueError: names and positions differ in length, a name occurs twice, or a
            position is not finite; the message is dropped whole.
        """
        if len(names) != len(positions):
            raise ValueError(f'joint state has {len(names)} names but {len(positions)} positions')
        if self._message_names != tuple(names):
            self._index(tuple(names))
        values = np.asarray(positions, float)[self._sources]
        if not np.isfinite(values).all():
            bad = self.joint_names[self._targets[np.flatnonzero(~np.isfinite(values))[0]]]
            raise ValueError(f"joint '{bad}' has a position that is not finite")
        position, stamps, received = (part.copy() for part in self._snapshot[:3])
        measured_ns = stamp_ns or received_ns
        # What came out of order is older than what is known; a clock that was set is not.
        late = (stamps[self._targets] - OUT_OF_ORDER_NS < measured_ns) & (
            measured_ns < stamps[self._targets]) & (received_ns >= received[self._targets])
        targets = self._targets[~late]
        position[targets] = values[~late]
        stamps[targets] = measured_ns
        received[targets] = received_ns
        self._keep(position, stamps, received)
        self._past.append((received_ns, position))

    def _index(self, names: tuple[str, ...]) -> None:
        if len(self.heard) < KEPT_NAMES:
            self.heard |= dict.fromkeys(names)
        twice = {name for name in names if names.count(name) > 1 and name in self._row}
        if twice:
            raise ValueError(f"joint '{sorted(twice)[0]}' occurs twice in one joint state")
        known = [(source, self._row[name]) for source, name in enumerate(names)
                 if name in self._row]
        self._sources = np.array([source for source, _ in known], int)
        self._targets = np.array([target for _, target in known], int)
        self._message_names = names

    def _keep(self, position: np.ndarray, stamps: np.ndarray, received: np.ndarray) -> None:
        newest = None  # it is asked for far more often than it changes
        if stamps.all():
            newest = Stamped(position, *(int(min((times + self._lags).min(), times.max()))
                                         for times in (stamps, received)))
        self._snapshot = position, stamps, received, newest

    def get(self) -> Stamped[np.ndarray] | None:
        """
        Return positions [D] and the stamp of the oldest joint, or None while one is missing.

        A joint that may be behind counts as that much newer, but no newer than the newest.
        """
        return self._snapshot[3]

    def missing(self) -> list[str]:
        """Return the names of joints that no message has carried yet."""
        return [name for name, stamp in zip(self.joint_names, self._snapshot[1]) if not stamp]

    def late(self, before_ns: int) -> list[str]:
        """Return the names of joints that were measured or received before ``before_ns``."""
        _, stamps, received, _ = self._snapshot
        oldest = np.minimum(stamps, received) + self._lags
        return [name for name, when in zip(self.joint_names, oldest) if when < before_ns]

    def ahead(self, after_ns: int) -> tuple[list[str], int]:
        """Return the joints that are stamped after ``after_ns``, and the newest of all stamps."""
        stamps = self._snapshot[1]
        return ([name for name, stamp in zip(self.joint_names, stamps) if stamp > after_ns],
                int(stamps.max()))

    def moved(self, over_ns: int) -> tuple[np.ndarray, float]:
        """
        Return how far each joint [D] has moved since ``over_ns`` ago, and in how many seconds.

        Told by positions: not every driver sends velocities. 0 where nothing is known.
        """
        past = self._lately()
        newest_ns, newest = past[-1] if past else (0, self._snapshot[0])
        older = [row for row in past if newest_ns - row[0] >= over_ns] or past[:1]
        if not older or older[-1][0] >= newest_ns:
            return np.zeros(len(self.joint_names)), 1.0
        since_ns, before = older[-1]
        return np.nan_to_num(newest - before), (newest_ns - since_ns) / 1e9

    def pace(self, over_ns: int) -> tuple[np.ndarray, float]:
        """
        Return how far each joint [D] has moved, and in how many seconds, whatever its noise.

        Between the means of the two halves of what came in the last ``over_ns``.
        """
        past = self._lately()
        recent = [row for row in past if past[-1][0] - row[0] <= over_ns]
        past = recent if len(recent) > 1 else past[-2:]  # of who tells seldom, the last two
        half = len(past) // 2
        if not half or past[0][0] >= past[-1][0]:
            return np.zeros(len(self.joint_names)), 1.0
        times = np.array([when - past[0][0] for when, _ in past]) / 1e9
        places = np.unwrap([where for _, where in past], axis=0)  # of joints that turn
        return np.nan_to_num(places[-half:].mean(axis=0) - places[:half].mean(axis=0)), float(
            times[-half:].mean() - times[:half].mean())

    def _lately(self) -> list[tuple[int, np.ndarray]]:
        """Return what came, oldest first, since the clock was last set back (twice or more)."""
        past = list(self._past.copy())
        for row in range(len(past) - 1, 0, -1):
            if past[row][0] < past[row - 1][0]:
                if len(past) - row > 1:
                    return past[row:]
                past.pop()  # too young to tell; what came before does
        return past

    def clear(self) -> None:
        """Forget all positions."""
        self._past.clear()
        count = len(self.joint_names)
        self._keep(np.full(count, np.nan), *np.zeros((2, count), np.int64))
