# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
MCAP files that rosbags does not read: without ROS 2's profile, or without chunks.

``ros2 bag record --storage-preset-profile fastwrite`` writes no chunks, and what it received a
little out of order; files that other tools wrote or merged name no profile. The library mcap
reads them.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mcap.reader import make_reader, NonSeekingReader
from pi0_ros.bags.file_order import Connection, in_order

WINDOW_NS = 3_000_000_000  # by which messages may be out of order
ENCODING = 'cdr'


def is_plain(path: Path) -> bool:
    """Return whether a file is one of these."""
    if path.suffix != '.mcap' or not path.is_file():
        return False
    try:
        with path.open('rb') as file:
            reader = make_reader(file)
            summary = reader.get_summary()
            return bool(summary and summary.statistics) and (
                reader.get_header().profile != 'ros2'
                or bool(summary.statistics.message_count and not summary.statistics.chunk_count))
    except Exception:  # it is damaged: whoever reads it says how
        return False


class PlainMcap:
    """One of these files, as a context, with what Bag asks of rosbags' Reader."""

    def __init__(self, path: Path, as_written: bool = False) -> None:
        """Read what is in the file. :param as_written: yield messages in its order."""
        self.path = path
        with path.open('rb') as file:
            summary = make_reader(file).get_summary()
        counts = summary.statistics.channel_message_counts
        self.connections = [
            Connection(number, one.topic, summary.schemas[one.schema_id].name,
                       counts.get(number, 0))
            for number, one in summary.channels.items() if one.message_encoding == ENCODING]
        self.others = sorted(one.topic for one in summary.channels.values()
                             if one.message_encoding != ENCODING)
        self._set_back = as_written
        self._as_written = as_written or not summary.chunk_indexes
        self.message_count = sum(one.msgcount for one in self.connections)
        self.start_time = summary.statistics.message_start_time
        self.end_time = summary.statistics.message_end_time + 1

    def __enter__(self) -> 'PlainMcap':
        """Return it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing: each reading opens the file anew."""

    def messages(self, connections: Sequence[Connection], start: int | None = None,
                 stop: int | None = None) -> Iterator[tuple[Connection, int, Any]]:
        """Yield connection, time of receipt and bytes, sorted by time, see ``in_order``."""
        wanted = {one.id: one for one in connections}
        with self.path.open('rb') as file:
            found = NonSeekingReader(file).iter_messages(log_time_order=False) if (
                self._as_written) else make_reader(file).iter_messages()
            yield from in_order(((wanted[channel.id], message.log_time, message.data)
                                 for _, channel, message in found if channel.id in wanted
                                 and (start or 0) <= message.log_time
                                 and (stop is None or message.log_time < stop)), WINDOW_NS,
                                self._set_back)
