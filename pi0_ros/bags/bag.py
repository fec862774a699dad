# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Bags of rosbag2, read without ROS: sqlite3 and MCAP, split, compressed by file or message."""

from collections import Counter
from collections.abc import Iterable, Iterator
import contextlib
from contextlib import ExitStack
from dataclasses import dataclass
import errno
import heapq
import itertools
from pathlib import Path
import shutil
import sqlite3
from tempfile import TemporaryDirectory
from typing import Any

from pi0_ros.bags.file_order import one_after_another, set_back_ns, WrittenSqlite
from pi0_ros.bags.plain_mcap import is_plain, PlainMcap
from rosbags.rosbag2 import Reader
from rosbags.serde import SerdeError
from rosbags.typesys import get_typestore, Stores
import yaml

try:
    from compression import zstd
except ImportError:  # Python before 3.14; rosbags brings it
    from backports import zstd

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # says nothing of what is read
GROWS = 'it is being recorded or copied. End that first'
SUFFIXES = ('.mcap', '.db3')
_store = get_typestore(Stores.ROS2_JAZZY)  # whatever we read is of standard types

ZSTD = b'\x28\xb5\x2f\xfd'  # how what it compressed begins; CDR begins with a 0
LFS = b'version https://git-lfs'
OTHERS = 'decompress files that end with .zstd; rosbags-convert converts bags of ROS 1'
SET_BACK = "the recorder's clock was set back"
OWN_TIME = 'what came after that is a time of its own'
REPAIR = ('If it is being recorded, end that first; if it is damaged, repair it: `mcap recover '
          'IN.mcap -o OUT.mcap` for MCAP, `sqlite3 IN.db3 .recover` for sqlite3, then `ros2 bag '
          'reindex FOLDER`')


class BagError(ValueError):
    """A bag cannot be used; the text says what was found, what is expected, and what to do."""


@dataclass(frozen=True)
class Topic:
    """What a bag has of one topic."""

    kind: str  # such as sensor_msgs/msg/Image; several, where a topic changed its type
    count: int


class Bag:
    """
    One recording, as a context. Messages are read as a stream, in the order of receipt.

    ``warnings`` tells what is odd; ``damage``, once messages were read, where they ended because
    the rest cannot be read.
    """

    def __init__(self, path: Path) -> None:
        """Prepare; entering the context opens the files."""
        self.path = path
        self.topics: dict[str, Topic] = {}
        self.begin_ns = self.end_ns = 0
        self.warnings: list[str] = []
        self.damage = ''
        self.unread: Counter[str] = Counter()  # messages that could not be read, by topic
        self._readers: list[Reader | PlainMcap | WrittenSqlite] = []
        self._follow = False   # metadata.yaml says that the files follow each other
        self._in_turn = False  # files are read one after the other, not merged by time
        self._told: dict[str, int] = {}  # by metadata.yaml: how many messages a topic has
        self._stack = ExitStack()
        self._state: dict[str, tuple[int, int]] = {}  # of its files, when they were opened

    @property
    def name(self) -> str:
        """Return the name of the folder or file."""
        return self.path.absolute().name

    @property
    def seconds(self) -> float:
        """Return how long the recording is."""
        return (self.end_ns - self.begin_ns) / 1e9

    @property
    def sizes(self) -> dict[str, int]:
        """Return the bytes of every file that holds messages, as they were when it was opened."""
        return {name: size for name, (size, _) in sorted(self._state.items())}

    def __enter__(self) -> 'Bag':
        """
        Open the files.

        :raises BagError: there are none, they are damaged, or of a format that cannot be read.
        :raises OSError: the disk is full, of a bag that has to be copied.
        """
        bad, last = [], None
        self._state = _state(self.path)
        for path in self._files():
            try:
                self._readers.append(self._stack.enter_context(self._reader(path)))
            except BagError:
                self._stack.close()
                raise
            except Exception as error:  # whatever a damaged file makes a library raise
                if getattr(error, 'errno', None) in NO_ROOM:
                    self._stack.close()
                    raise
                last = error
                bad.append(f"'{path}' cannot be opened: {_text(error)}")
        if not self._readers:
            raise BagError('; '.join(f'bag {text}' for text in bad) + f'. {REPAIR}') from last
        self.warnings += [f'{text}: it is left out. {REPAIR}' for text in bad]
        connections = [one for reader in self._readers for one in reader.connections]
        for one in connections:
            before = self.topics.get(one.topic, Topic(one.msgtype, 0))
            kind = before.kind if one.msgtype in before.kind.split(', ') else (
                f'{before.kind}, {one.msgtype}')
            self.topics[one.topic] = Topic(kind, before.count + one.msgcount)
        self.warnings += [
            f"metadata.yaml counts {count} messages on '{topic}', the files have "
            f'{self.topics[topic].count if topic in self.topics else 0}'
            for topic, count in self._told.items()
            if count > (self.topics[topic].count if topic in self.topics else 0)]
        full = [reader for reader in self._readers if reader.message_count]
        if not full:
            self._stack.close()
            raise BagError(f"bag '{self.path}' holds no message: nothing was recorded, or the "
                           'recorder was killed before it wrote')
        if one_after_another(full, self._follow):
            self._in_turn = True
            self.warnings.append(f'{SET_BACK} between two files of the bag: {OWN_TIME}')
        self.begin_ns = min(reader.start_time for reader in full)
        self.end_ns = max(reader.end_time for reader in full)
        return self

    def __exit__(self, *_: object) -> None:
        """Close the files."""
        self._stack.close()

    def _files(self) -> list[Path]:
        """Return what to read: the folder with its metadata, or files."""
        if not self.path.exists():
            raise BagError(f"bag '{self.path}' does not exist")
        if self.path.is_file():
            if self.path.suffix not in SUFFIXES:
                raise BagError(f"bag '{self.path}' is neither a folder nor one of "
                               f"{', '.join(SUFFIXES)}: {OTHERS}")
            return [self.path]
        if (self.path / 'metadata.yaml').exists():
            return self._files_of_metadata()
        files = sorted(path for path in self.path.iterdir() if path.suffix in SUFFIXES)
        if not files:
            raise BagError(f"bag '{self.path}' has neither metadata.yaml nor a file of "
                           f"{', '.join(SUFFIXES)}: {OTHERS}")
        self.warnings.append(f"'{self.path.name}' has no metadata.yaml, as after a recorder that "
                             'was killed: its files are read as they are')
        return files

    def _files_of_metadata(self) -> list[Path]:
        """
        Return the files that metadata.yaml names, or the folder where they are compressed.

        The files say themselves what they hold; metadata that says otherwise (other QoS, for
        example) makes no message disappear.
        """
        told = _metadata(self.path / 'metadata.yaml')
        if told is None or str(told.get('compression_mode') or 'NONE').upper() != 'NONE':
            return [self.path]
        names = [Path(str(name)).name for name in told.get('relative_file_paths') or ()]
        files = [self.path / name for name in names if (self.path / name).is_file()]
        if not files:
            return [self.path]
        self._follow = True
        lost = sorted(set(names) - {path.name for path in files})
        if lost:
            self.warnings.append(f"'{self.path.name}' lacks {', '.join(lost)}, which its "
                                 'metadata.yaml names: it is left out')
        self._told = {} if lost else {
            one['topic_metadata']['name']: one['message_count']
            for one in told.get('topics_with_message_count') or ()}
        return files

    def _reader(self, path: Path) -> Reader | PlainMcap | WrittenSqlite:
        path = self._whole(path)
        back_ns = set_back_ns(path) if path.is_file() else 0
        if back_ns:
            self._in_turn = True
            self.warnings.append(f'{SET_BACK} by {back_ns / 1e9:.2f} s: {OWN_TIME}')
        if back_ns and path.suffix == '.db3':
            return WrittenSqlite(path)
        if not back_ns and not is_plain(path):
            return Reader(path)
        reader = PlainMcap(path, bool(back_ns))
        if reader.others:
            self.warnings.append(f"'{path.name}' has topics of another encoding than ROS 2's, "
                                 f"left out: {', '.join(reader.others)}")
        return reader

    def _whole(self, path: Path) -> Path:
        """
        Return a file as it is, or a copy with its write-ahead log in it.

        :raises BagError: it is no bag but stands for one.
        """
        if path.is_file():
            with path.open('rb') as file:
                if file.read(len(LFS)) == LFS:
                    raise BagError(f"'{path}' is a Git LFS pointer, the bag itself is not here: "
                                   'git lfs pull')
        log = path.with_name(f'{path.name}-wal')
        if path.suffix != '.db3' or not log.is_file() or not log.stat().st_size:
            return path
        copy = Path(self._stack.enter_context(TemporaryDirectory(prefix='pi0_ros_'))) / path.name
        shutil.copyfile(path, copy)
        shutil.copyfile(log, copy.with_name(log.name))
        with contextlib.closing(sqlite3.connect(copy)) as database:
            database.execute('PRAGMA wal_checkpoint(TRUNCATE)')
            database.execute('PRAGMA journal_mode=DELETE')
        self.warnings.append(f"'{log.name}' is the write-ahead log of a recorder that was killed: "
                             'a copy of both is read')
        return copy

    def messages(self, topics: Iterable[str], begin_ns: int | None = None,
                 end_ns: int | None = None) -> Iterator[tuple[str, int, Any]]:
        """
        Yield topic, time of receipt in nanoseconds, and message, in the order of receipt.

        Where the recorder's clock was set back, that time goes back once and then on.

        Where the bag is damaged the messages end, and ``damage`` says why. A single message that
        cannot be read is left out, and counted in ``warnings``.

        :param begin_ns: time of receipt to begin at. :param end_ns: to end before.
        :raises BagError: it was written to meanwhile.
        """
        wanted, unread, said = set(topics), Counter(), ''
        streams = []
        for reader in self._readers:
            connections = [one for one in reader.connections if one.topic in wanted]
            if connections:
                streams.append(reader.messages(connections, begin_ns, end_ns))
        merged = itertools.chain(*streams) if self._in_turn else heapq.merge(
            *streams, key=lambda m: m[1])
        while True:
            try:
                connection, received_ns, raw = next(merged)
            except StopIteration:
                self._require_still()
                break
            except Exception as error:  # checksums, truncated records, a broken compression
                self._require_still()
                self.damage = f"bag '{self.path}' is damaged: {_text(error)}"
                break
            try:
                if bytes(raw[:len(ZSTD)]) == ZSTD:  # compressed, with no metadata.yaml to say so
                    raw = zstd.decompress(bytes(raw))
                message = _store.deserialize_cdr(raw, connection.msgtype)
            except (SerdeError, zstd.ZstdError, KeyError, ValueError, UnicodeError,
                    IndexError) as error:
                said = said or f"on '{connection.topic}' ({_text(error)})"
                unread[connection.topic] += 1
                continue
            yield connection.topic, received_ns, message
        self.unread |= unread
        if unread:
            self.warnings.append(f"{unread.total()} messages of '{self.name}' cannot be read, "
                                 f'the first {said}')

    def _require_still(self) -> None:
        now = _state(self.path)  # who has a file open that is deleted goes on reading
        if any(now.get(name, before) != before for name, before in self._state.items()):
            raise BagError(f"bag '{self.path}' was written to while it was read: {GROWS}")

    def knows(self, topic: str) -> bool:
        """Return whether messages of a topic can be read."""
        return self.topics[topic].kind in _store.types

    def table(self) -> str:
        """Return the topics with their types and how many messages they have."""
        width = max(len(name) for name in self.topics)
        return '\n'.join(f'  {name:{width}}  {topic.kind}  {topic.count}'
                         for name, topic in sorted(self.topics.items()))


def _state(path: Path) -> dict[str, tuple[int, int]]:
    """Return size and time of change of every file that holds messages."""
    files = path.iterdir() if path.is_dir() else [path, path.with_name(f'{path.name}-wal')]
    return {one.name: (one.stat().st_size, one.stat().st_mtime_ns) for one in files
            if one.suffix in (*SUFFIXES, '.db3-wal') and one.is_file()}


def _metadata(path: Path) -> dict | None:
    """Return what metadata.yaml says of the bag, None where it says nothing that is known."""
    try:
        return yaml.safe_load(path.read_text())['rosbag2_bagfile_information']
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return None


def _text(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0].rstrip('.')
