# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What an evaluation has done so far, and what it leaves."""

from collections.abc import Sequence
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet

ARRAYS = ('predicted', 'executed', 'done')  # kept as such: lists take four times the memory
ROWS = 200  # written at a time
TIMES = ('latency_ms',)  # what is another in every run
_list = pyarrow.list_
_COLUMNS = {
    'bag': pyarrow.int32(), 'moment': pyarrow.int32(), 'now_ns': pyarrow.int64(),
    'bag_ns': pyarrow.int64(),
    't_obs_ns': pyarrow.int64(), 'dt_ns': pyarrow.int64(), 'instruction': pyarrow.string(),
    'asked': pyarrow.string(), 'skipped': pyarrow.string(), 'why': pyarrow.string(),
    'state': _list(pyarrow.float64()), 'velocity': _list(pyarrow.float64()),
    'predicted': _list(_list(_list(pyarrow.float64()))),
    'executed': _list(_list(pyarrow.float64())), 'done': _list(_list(pyarrow.float64())),
    'joint_age_s': pyarrow.float64(),
    **{name: pyarrow.map_(pyarrow.string(), kind) for name, kind in (
        ('image_stamps_ns', pyarrow.int64()), ('image_age_s', pyarrow.float64()),
        ('skew_s', pyarrow.float64()))},
    'problem': pyarrow.string(), 'refused': pyarrow.string(), 'clamped': _list(pyarrow.string()),
    'slowed': _list(pyarrow.string()),
    'jump': _list(pyarrow.float64()), 'border': _list(pyarrow.float64()),
    'inside': _list(pyarrow.float64())}
SCHEMA = pyarrow.schema(list(_COLUMNS.items()))


class Store:
    """Records of one run, each on the disk as soon as it is made."""

    def __init__(self, folder: Path, key: dict[str, Any], overwrite: bool) -> None:
        """
        Take up what is in ``folder``.

        :param key: what the records follow from.
        :raises ValueError: the folder holds records of something else.
        """
        self.folder, self.key, self._path = folder, key, folder / 'moments.jsonl'
        self.records: dict[int, dict[int, dict]] = {}  # by bag and moment
        folder.mkdir(parents=True, exist_ok=True)
        if overwrite:
            self._path.unlink(missing_ok=True)
        length = self._load(key) if self._path.exists() else 0
        self._file = self._path.open('ab')
        self._file.truncate(length)
        if not length:
            self._write(key)

    def _load(self, key: dict[str, Any]) -> int:
        """Read whole lines; return where they end."""
        length = 0
        with self._path.open('rb') as file:
            for line in file:
                try:
                    value = json.loads(line)
                except ValueError:
                    break  # it was being written when the run ended
                if not line.endswith(b'\n'):
                    break
                if not length and value != key:
                    other = ', '.join(name for name in key if value.get(name) != key[name])
                    raise ValueError(f"'{self.folder}' holds another evaluation, which differs in "
                                     f'{other or "more"}: name another folder with --out, or say '
                                     '--overwrite')
                if length:
                    self.records.setdefault(value['bag'], {})[value['moment']] = _compact(value)
                length += len(line)
        return length

    def known(self, bag: int) -> dict[int, dict]:
        """Return the records of a bag by the number of their moment."""
        return self.records.get(bag, {})

    def add(self, record: dict[str, Any]) -> None:
        """
        Keep a record.

        :raises OSError: the disk is full, for example; what was written before stays.
        """
        by_moment = self.records.setdefault(record['bag'], {})
        if record['moment'] not in by_moment:
            self._write(record)
            by_moment[record['moment']] = _compact(record)

    def _write(self, value: dict[str, Any]) -> None:
        self._file.write(json.dumps(value).encode() + b'\n')
        self._file.flush()

    def all(self) -> list[dict]:  # noqa: A003
        """Return all records in order."""
        return [self.records[bag][moment] for bag in sorted(self.records)
                for moment in sorted(self.records[bag])]

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def finish(self) -> None:
        """Write the Parquet files: what is the same in every run, and times apart from it."""
        records = self.all()
        write_parquet(records, self.folder / 'moments.parquet')
        times = pyarrow.table({name: [record.get(name) for record in records] for name in (
            'bag', 'moment', *TIMES)})
        pyarrow.parquet.write_table(times, self.folder / 'latency.parquet')


def write_whole(path: Path, data: bytes) -> None:
    """Write a file, in place of what is there only when it is written whole."""
    partial = path.with_name(path.name + '.partial')
    partial.write_bytes(data)
    partial.replace(path)


def write_parquet(records: Sequence[dict[str, Any]], path: Path) -> None:
    """Write records, in place of what is there only when they are written whole."""
    partial = path.with_name(path.name + '.partial')
    with pyarrow.parquet.ParquetWriter(partial, SCHEMA) as file:
        for begin in range(0, len(records), ROWS):
            rows = records[begin:begin + ROWS]
            file.write_table(pyarrow.table([_column(rows, field) for field in SCHEMA],
                                           schema=SCHEMA))
    partial.replace(path)


def _column(rows: Sequence[dict[str, Any]], field: pyarrow.Field) -> pyarrow.Array:
    values = [row.get(field.name) for row in rows]
    if field.name in ARRAYS:
        values = [None if value is None else value.tolist() for value in values]
    elif pyarrow.types.is_map(field.type):
        values = [None if value is None else sorted(value.items()) for value in values]
    return pyarrow.array(values, field.type)


def _compact(record: dict[str, Any]) -> dict[str, Any]:
    return record | {name: np.array(record[name], float) for name in ARRAYS
                     if record.get(name) is not None}
