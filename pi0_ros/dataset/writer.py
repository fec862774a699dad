# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Makes a LeRobotDataset v3 of the parts that bags were made into, in the order of the bags.

Every episode has a data file of its own, and at first videos; these are joined in the end, because
training keeps every video open. Until all is written and read back, the data set is a folder with
another name. The layout is that of LeRobot 0.4 and newer (``lerobot/datasets/utils.py``).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
import json
import os
from pathlib import Path
import shutil
import tempfile
from typing import Any

import numpy as np
from pi0_ros.dataset import sums
from pi0_ros.dataset.manifest import Manifest, only_one
from pi0_ros.dataset.part import ACTION, LED, Part, STATE
from pi0_ros.dataset.video import frame_times, join, video_info
import pyarrow
import pyarrow.parquet

VERSION, CHUNK = 'v3.0', 1000  # files in a folder
DATA = 'data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet'
VIDEO = 'videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4'
PARTS = 'parts'      # folder with what single bags were made into
VIDEO_BYTES = 200 * 2**20  # of a joined video, as info.json says
IMAGES = 'observation.images.'
IN_MEMORY = 2**25    # numbers, 256 MiB
TOLERANCE_S = 1e-4   # of a frame's time, LeRobot's
NUMBERS = ('timestamp', 'frame_index', 'episode_index', 'index', 'task_index')


class DatasetWriter:
    """A data set that is being written."""

    def __init__(self, folder: Path, fps: int, state_names: Sequence[str],
                 action_names: Sequence[str], cameras: Sequence[str], codec: str,
                 key: dict[str, Any], overwrite: bool = False, led: bool = False) -> None:
        """
        Begin, or take up what was begun with the same ``key``.

        :param led: whether frames are marked that a person led.
        :raises ValueError: the folder exists, or something else was begun there.
        """
        self.folder, self.fps, self.codec, self._led = folder, fps, codec, led
        self.partial = folder.with_name(folder.name + '.partial')
        self.names = {STATE: list(state_names), ACTION: list(action_names)}
        self.cameras = list(cameras)
        if folder.exists():
            raise ValueError(f"'{folder}' exists: name another folder with --dataset, or remove "
                             'it')
        self.partial.mkdir(parents=True, exist_ok=True)
        self._unlock = only_one(self.partial)
        self._made = self.partial / 'set'  # what gets the name at the end
        try:
            for path in self.partial.iterdir() if overwrite else ():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            self.manifest = Manifest(self.partial / 'bags.jsonl', key)
            shutil.rmtree(self._made, ignore_errors=True)
        except BaseException:
            self._unlock()
            raise
        self.episodes: list[dict[str, Any]] = []
        self._places: list[tuple[Part, int]] = []  # where videos of single episodes are

    @property
    def frames(self) -> int:
        """Return how many frames are written."""
        return sum(one['length'] for one in self.episodes)

    def part(self, number: int) -> Path:
        """Return the folder for what bag ``number`` has."""
        return self.partial / PARTS / f'{number:06d}'

    def take(self, number: int) -> list[str]:
        """
        Give the episodes of bag ``number`` their numbers; return what is to be told.

        :raises ValueError: they are not where they were written.
        """
        part, told = Part(self.part(number), self.fps, self.cameras, self.codec), []
        wanted = self.manifest.bags[number].get('episodes', len(part.episodes))
        if len(part.episodes) != wanted:
            raise ValueError(f"'{part.folder}' has {len(part.episodes)} episodes, {wanted} were "
                             'written: say --overwrite; on a cluster all machines must see the '
                             'same folders')
        for at, one in enumerate(part.episodes):
            first = self.episodes[0]['shapes'] if self.episodes else one['shapes']
            other = [name for name in first if one['shapes'][name] != first[name]]
            if other:
                told.append(
                    f"an episode is left out ('{one['task']}'): images of '{other[0]}' are "
                    f"{one['shapes'][other[0]]} high and wide, those of the first episode "
                    f'{first[other[0]]}')
                continue
            self._write_rows(part.rows(at), one)
            self.episodes.append(one)
            self._places.append((part, at))
        return told

    def _write_rows(self, path: Path, one: dict[str, Any]) -> None:
        """Write the data of an episode, with its number."""
        number, count, first = len(self.episodes), one['length'], self.frames
        known = list(dict.fromkeys([*(other['task'] for other in self.episodes), one['task']]))
        rows = pyarrow.parquet.read_table(path)
        numbers = {'timestamp': (np.arange(count) / self.fps).astype(np.float32),
                   'frame_index': np.arange(count), 'episode_index': np.full(count, number),
                   'index': first + np.arange(count),
                   'task_index': np.full(count, known.index(one['task']))}
        columns = {name: rows[name].combine_chunks()
                   for name in (*self.names, *((LED,) if self._led else ()))}
        columns |= {name: pyarrow.array(values) for name, values in numbers.items()}
        out = self._made / _at(DATA, number)
        out.parent.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(pyarrow.table(columns), out)

    def _video(self, camera: str, number: int) -> Path:
        part, at = self._places[number]
        return part.video(camera, at)

    def _join_videos(self) -> list[dict[str, Any]]:
        """Join the videos of episodes; return what tells of each episode where they are."""
        out: list[dict[str, Any]] = [{} for _ in self.episodes]
        for name in self.cameras:
            group: list[int] = []
            file = size = frames = 0
            for number, one in enumerate(self.episodes):
                piece = self._video(name, number).stat().st_size
                if group and size + piece > VIDEO_BYTES:
                    self._join(name, group, file)
                    group, file, size, frames = [], file + 1, 0, 0
                start = f'videos/{IMAGES}{name}/'
                out[number] |= {
                    start + 'chunk_index': file // CHUNK, start + 'file_index': file % CHUNK,
                    start + 'from_timestamp': frames / self.fps,
                    start + 'to_timestamp': (frames + one['length']) / self.fps}
                group, size, frames = [*group, number], size + piece, frames + one['length']
            self._join(name, group, file)
        return out

    def _join(self, camera: str, numbers: Sequence[int], file: int) -> None:
        join([self._video(camera, number) for number in numbers],
             self._made / _at(VIDEO, file, IMAGES + camera), self.fps)

    def finish(self, robot_type: str, action_offset: int = 0,
               bags: Sequence[dict[str, Any]] = ()) -> Path:
        """
        Write what tells of the data, read everything back, and give the folder its name.

        :param action_offset: periods after its frame, at which an action is due.
        :param bags: what became of each, to be kept in meta/pi0_ros.json.
        :raises ValueError: what was written is not what was meant to be.
        """
        if not self.episodes:
            raise ValueError('there is no episode to write: no moment of the bags had all inputs, '
                             'an instruction and an action')
        meta = self._made / 'meta'
        meta.mkdir(exist_ok=True)
        tasks = list(dict.fromkeys(one['task'] for one in self.episodes))
        _write_tasks(tasks, meta / 'tasks.parquet')
        by_episode = [self._statistics([number]) for number in range(len(self.episodes))]
        whole = self._statistics(range(len(self.episodes)))
        (meta / 'stats.json').write_text(json.dumps(whole, indent=4))
        self._write_episodes(by_episode, self._join_videos(),
                             meta / 'episodes/chunk-000/file-000.parquet')
        (meta / 'info.json').write_text(json.dumps(self._info(len(tasks), robot_type), indent=4))
        # Beside LeRobot's own files: what it does not record.
        (meta / 'pi0_ros.json').write_text(json.dumps({
            'action_offset': action_offset, **({'bags': list(bags)} if bags else {})}) + '\n')
        check(self._made)
        self._made.replace(self.folder)  # from here on it is there, whole
        shutil.rmtree(self.partial)
        self.close()
        return self.folder

    def close(self) -> None:
        """Let others write there."""
        self._unlock()

    def give_up(self) -> None:
        """Leave nothing, where nothing was written."""
        if not any(self.partial.glob(f'{PARTS}/*/rows/*')):
            shutil.rmtree(self.partial)

    def _statistics(self, numbers: Sequence[int]) -> dict[str, Any]:
        """Return statistics of some episodes; of a month of them not all rows fit into memory."""
        total, out = sum(self.episodes[number]['length'] for number in numbers), {}
        for name in (*self.names, *NUMBERS, *((LED,) if self._led else ())):
            width = len(self.names[name]) if name in self.names else 1
            with _columns(width, total, self.partial) as columns:
                at = 0
                for number in numbers:
                    column = pyarrow.parquet.read_table(
                        self._made / _at(DATA, number), columns=[name])[name].combine_chunks()
                    rows = (column.flatten() if name in self.names else column).to_numpy(
                        zero_copy_only=False).reshape(-1, width)
                    columns[:, at:at + len(rows)] = rows.T
                    at += len(rows)
                out[name] = sums.of_columns(columns)
        for name in self.cameras:
            told = [self.episodes[number]['counts'][name] for number in numbers]
            out[IMAGES + name] = sums.of_images(
                sum(np.array(one['values']) for one in told), sum(one['frames'] for one in told))
        return out

    def _write_episodes(self, by_episode: Sequence[dict[str, Any]],
                        videos: Sequence[dict[str, Any]], path: Path) -> None:
        rows, first = [], 0
        known = any(one['success'] is not None for one in self.episodes)
        for number, (one, told, video) in enumerate(zip(self.episodes, by_episode, videos)):
            at = {'chunk_index': number // CHUNK, 'file_index': number % CHUNK}
            row = {'episode_index': number, 'tasks': [one['task']], 'length': one['length'],
                   **{f'data/{name}': value for name, value in at.items()},
                   'dataset_from_index': first, 'dataset_to_index': first + one['length'],
                   'meta/episodes/chunk_index': 0, 'meta/episodes/file_index': 0, **video}
            row |= {f'stats/{feature}/{part}': value for feature, parts in told.items()
                    for part, value in parts.items()}
            row |= {'success': one['success']} if known else {}
            rows.append(row)
            first += one['length']
        path.parent.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)

    def _info(self, tasks: int, robot_type: str) -> dict[str, Any]:
        features: dict[str, Any] = {
            name: {'dtype': 'float32', 'shape': [len(names)], 'names': names}
            for name, names in self.names.items()}
        for name in self.cameras:
            height, width = self.episodes[0]['shapes'][name]
            features[IMAGES + name] = {
                'dtype': 'video', 'shape': [height, width, 3],
                'names': ['height', 'width', 'channels'], 'info': video_info(self._video(name, 0))}
        if self._led:
            features[LED] = {'dtype': 'bool', 'shape': [1], 'names': None}
        features |= {name: {'dtype': 'float32' if name == 'timestamp' else 'int64', 'shape': [1],
                            'names': None} for name in NUMBERS}
        return {'codebase_version': VERSION, 'robot_type': robot_type,
                'total_episodes': len(self.episodes), 'total_frames': self.frames,
                'total_tasks': tasks, 'chunks_size': CHUNK, 'data_files_size_in_mb': 100,
                'video_files_size_in_mb': VIDEO_BYTES // 2**20, 'fps': self.fps,
                'splits': {'train': f'0:{len(self.episodes)}'}, 'data_path': DATA,
                'video_path': VIDEO, 'features': features}


def _at(pattern: str, number: int, key: str = '') -> str:
    return pattern.format(chunk_index=number // CHUNK, file_index=number % CHUNK, video_key=key)


@contextmanager
def _columns(width: int, count: int, folder: Path) -> Iterator[np.ndarray]:
    """
    Yield room for [width, count] numbers, in a file without a name where that is much.

    :raises OSError: the disk is full.
    """
    if width * count <= IN_MEMORY:
        yield np.empty((width, count))
        return
    with tempfile.TemporaryFile(dir=folder) as file:
        os.posix_fallocate(file.fileno(), 0, 8 * width * count)  # else writing would be a SIGBUS
        yield np.memmap(file, float, 'r+', shape=(width, count))


def _write_tasks(tasks: Sequence[str], path: Path) -> None:
    """Write the table of tasks as pandas does, whose index is the text: LeRobot reads that."""
    table = pyarrow.table({'task_index': pyarrow.array(range(len(tasks)), pyarrow.int64()),
                           'task': pyarrow.array(tasks, pyarrow.string())})
    pandas = {'index_columns': ['task'], 'column_indexes': [], 'pandas_version': '2.0.0',
              'columns': [{'name': name, 'field_name': name, 'pandas_type': kind,
                           'numpy_type': numpy, 'metadata': None} for name, kind, numpy in (
                  ('task_index', 'int64', 'int64'), ('task', 'unicode', 'object'))]}
    pyarrow.parquet.write_table(
        table.replace_schema_metadata({'pandas': json.dumps(pandas)}), path)


def check(folder: Path) -> None:
    """
    Read a data set back.

    :raises ValueError: rows, videos and what is told of them do not agree.
    """
    info = json.loads((folder / 'meta/info.json').read_text())
    episodes = pyarrow.parquet.read_table(
        folder / 'meta/episodes/chunk-000/file-000.parquet').to_pylist()
    found = len(list((folder / 'data').rglob('*.parquet')))
    if found != len(episodes):
        raise ValueError(f"'{folder}' has {found} data files, expected {len(episodes)}")
    keys = [name for name, of in info['features'].items() if of['dtype'] == 'video']
    total, shown = 0, {}
    for number, row in enumerate(episodes):
        table = pyarrow.parquet.read_table(folder / _at(DATA, number))
        if table.num_rows != row['length'] or table['index'][0].as_py() != total:
            raise ValueError(f"episode {number} of '{folder}' has {table.num_rows} rows, expected "
                             f"{row['length']}")
        total += table.num_rows
        for key in keys:
            due = row[f'videos/{key}/from_timestamp'] + np.arange(row['length']) / info['fps']
            path = folder / VIDEO.format(video_key=key, **{part: row[f'videos/{key}/{part}']
                                                           for part in ('chunk_index',
                                                                        'file_index')})
            if path not in shown:
                shown[path] = frame_times(path)
            times = shown[path][(shown[path] > due[0] - 0.5 / info['fps'])
                                & (shown[path] < due[-1] + 0.5 / info['fps'])]
            if len(times) != len(due) or np.abs(times - due).max() > TOLERANCE_S:
                raise ValueError(f"video '{key}' of episode {number} has {len(times)} frames, "
                                 f'expected {len(due)}, {info["fps"]} a second')
    if total != info['total_frames']:
        raise ValueError(f"'{folder}' has {total} frames, expected {info['total_frames']}")
