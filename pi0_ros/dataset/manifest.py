# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What became of every bag of an export so far, in a file that survives a kill at any time."""

from collections.abc import Callable
import fcntl
import json
import os
from pathlib import Path
from typing import Any

DONE, FAILED, PENDING = STATES = 'done', 'failed', 'pending'


class Manifest:
    """A line for what is exported, then one for each bag that is done or failed."""

    def __init__(self, path: Path, key: dict[str, Any]) -> None:
        """
        Begin it, or take up what was begun.

        :param key: what the export follows from.
        :raises ValueError: something else was begun in the folder.
        """
        self.path, key = path, json.loads(json.dumps(key))
        half = path.with_suffix('.new')
        if not {one.name for one in path.parent.iterdir()} - {half.name}:
            half.write_text(json.dumps(key) + '\n')
            half.replace(path)
        text = path.read_text() if path.exists() else ''
        whole = [line for line in text.splitlines(True) if line.endswith('\n')]
        if not whole or json.loads(whole[0]) != key:
            raise ValueError(f"'{path.parent}' is the beginning of another data set: say "
                             '--overwrite, or name another folder with --dataset')
        if len(text) > sum(map(len, whole)):  # a line that was being written
            os.truncate(path, len(''.join(whole).encode()))
        self.bags: dict[int, dict[str, Any]] = {}  # the last word on each
        for line in whole[1:]:
            self._take(json.loads(line))

    def _take(self, row: dict[str, Any]) -> None:
        self.bags[row['number']] = row

    def done(self, number: int) -> dict[str, Any] | None:
        """Return what was told of a bag that is done, None if it is not."""
        row = self.bags.get(number)
        return row if row and row['state'] == DONE else None

    def tell(self, number: int, state: str, **more: Any) -> dict[str, Any]:
        """Keep what became of a bag; return that."""
        row = {'number': number, 'state': state, **more}
        with self.path.open('a') as file:
            file.write(json.dumps(row) + '\n')
        self._take(row)
        return row


def only_one(folder: Path) -> Callable[[], None]:
    """
    Keep other processes from writing into ``folder``; return what ends that.

    :raises ValueError: one does already.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise ValueError(f"another export is writing '{folder}': wait for it, or name another "
                         'folder with --dataset') from None
    except OSError:  # a network folder that has no locks
        pass

    def unlock() -> None:
        nonlocal handle
        if handle >= 0:
            os.close(handle)
            handle = -1

    return unlock
