# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Files whose recorder's clock was set back: what they hold in the order in which it was written.

Readers sort by time of receipt, which mixes two times of such a file. A clock that was set shows
where the times of one topic go back from one message to the next.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
import heapq
from pathlib import Path
import sqlite3
from typing import Any

from mcap.data_stream import ReadDataStream
from mcap.reader import make_reader
from mcap.records import MessageIndex
import numpy as np

BACK_NS = 100_000_000  # less is a recorder that writes a little out of order


@dataclass(frozen=True)
class Connection:
    """A topic of a file."""

    id: int  # noqa: A003
    topic: str
    msgtype: str
    msgcount: int


def set_back_ns(path: Path) -> int:
    """Return by how much the clock was set back in a file, 0 where it was not."""
    try:
        times = _mcap_times(path) if path.suffix == '.mcap' else _sqlite_times(path)
    except Exception:  # it is damaged, or no bag: whoever reads it says so
        return 0
    back_ns = -int(np.diff(times).min(initial=0))
    return back_ns if back_ns > BACK_NS else 0


def _mcap_times(path: Path) -> np.ndarray:
    """Return times of receipt of the busiest topic, in the order of the file."""
    with path.open('rb') as file:
        summary = make_reader(file).get_summary()
        counts = summary.statistics.channel_message_counts
        busiest, out = max(counts, key=counts.get), []
        for chunk in sorted(summary.chunk_indexes, key=lambda one: one.chunk_start_offset):
            if busiest in chunk.message_index_offsets:
                file.seek(chunk.message_index_offsets[busiest])
                stream = ReadDataStream(file)
                stream.read1(), stream.read8()  # kind and length of the record
                index = MessageIndex.read(stream)
                out += [at for at, _ in sorted(index.records, key=lambda one: one[1])]
    return np.array(out, np.int64)


def _sqlite_times(path: Path) -> np.ndarray:
    """
    Return times of receipt of the busiest topic, in the order of the file.

    Told by the index on times where that is enough.
    """
    with closing(_open(path)) as database:
        rows = np.array(database.execute(
            'SELECT id, timestamp FROM messages ORDER BY timestamp').fetchall(), np.int64)
        times = rows[np.argsort(rows[:, 0], kind='stable'), 1] if len(rows) else rows.ravel()
        if (np.maximum.accumulate(times) - times <= BACK_NS).all():
            return times[:0]
        return np.array(database.execute(
            'SELECT timestamp FROM messages WHERE topic_id = (SELECT topic_id FROM messages GROUP '
            'BY topic_id ORDER BY count(*) DESC LIMIT 1) ORDER BY id').fetchall(),
            np.int64).ravel()


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f'{path.absolute().as_uri()}?immutable=1', uri=True)


def one_after_another(readers: Sequence[Any], told: bool) -> bool:
    """
    Return whether the clock was set back between files of one recording, in their order.

    Each then begins before the end of the one before. Files that were recorded side by side share
    no topic, or most of their time.

    :param told: whether metadata.yaml says that they follow each other.
    """
    for one, other in zip(readers[:-1], readers[1:]):
        shared = {part.topic for part in one.connections} & {
            part.topic for part in other.connections}
        both_ns = one.end_time - other.start_time
        shorter_ns = min(one.end_time - one.start_time, other.end_time - other.start_time)
        if shared and both_ns > BACK_NS and (told or (
                one.start_time < other.start_time and both_ns < shorter_ns / 2)):
            return True
    return False


class WrittenSqlite:
    """A .db3 file in the order in which it was written, with what Bag asks of a reader."""

    def __init__(self, path: Path) -> None:
        """Read what is in the file."""
        self.path = path
        with closing(_open(path)) as database:
            self.connections = [Connection(*row) for row in database.execute(
                'SELECT topics.id, name, type, count(messages.id) FROM topics LEFT JOIN messages '
                'ON topic_id = topics.id GROUP BY topics.id')]
            self.start_time, self.end_time = database.execute(
                'SELECT min(timestamp), max(timestamp) + 1 FROM messages').fetchone()
        self.message_count = sum(one.msgcount for one in self.connections)

    def __enter__(self) -> 'WrittenSqlite':
        """Return it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing: each reading opens the file anew."""

    def messages(self, connections: Sequence[Connection], start: int | None = None,
                 stop: int | None = None) -> Iterator[tuple[Connection, int, Any]]:
        """Yield connection, time of receipt and bytes; where that goes back, the clock was set."""
        wanted = {one.id: one for one in connections}
        marks = ', '.join('?' * len(wanted))
        with closing(_open(self.path)) as database:
            rows = database.execute(
                f'SELECT topic_id, timestamp, data FROM messages WHERE topic_id IN ({marks}) AND '
                'timestamp >= ? AND timestamp < ? ORDER BY id',
                (*wanted, start or 0, 2**63 - 1 if stop is None else stop))
            yield from in_order(((wanted[topic], at_ns, data) for topic, at_ns, data in rows),
                                BACK_NS, True)


def in_order(messages: Iterator[tuple[Connection, int, Any]], window_ns: int, set_back: bool
             ) -> Iterator[tuple[Connection, int, Any]]:
    """
    Yield messages sorted by time; those of one clock after those of the clock before.

    :param messages: in the order in which they were written, out of order by ``window_ns``.
    :param set_back: whether the clock was: where times of one topic go back, another begins.
    """
    waiting: list[tuple[int, int, Connection, Any]] = []
    newest: dict[int, int] = {}  # of each topic, since the clock was set
    before_ns = 0                # the newest of all when it was set
    for number, (one, at_ns, data) in enumerate(messages):
        if set_back and newest.get(one.id, at_ns) - at_ns > BACK_NS:
            before_ns, newest = max(newest.values()), {}
            while waiting:
                yield _popped(waiting)
        elif one.id not in newest and newest and (
                max(newest.values()) + BACK_NS < at_ns <= before_ns + BACK_NS):
            continue  # written late, of the time before
        newest[one.id] = max(at_ns, newest.get(one.id, at_ns))
        heapq.heappush(waiting, (at_ns, number, one, data))
        while waiting[0][0] < at_ns - window_ns:
            yield _popped(waiting)
    while waiting:
        yield _popped(waiting)


def _popped(waiting: list) -> tuple[Connection, int, Any]:
    at_ns, _, one, data = heapq.heappop(waiting)
    return one, at_ns, data
