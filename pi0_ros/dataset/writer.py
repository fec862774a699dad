# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Writes a LeRobotDataset v3, an episode at a time, so that it can be taken up again.

Every episode has a data file of its own, and at first videos; these are joined in the end, because
training keeps every video open. Until all is written and read back, the data set is a folder with
another name. The layout is that of LeRobot 0.4 and newer (``lerobot/datasets/utils.py``).
"""

from collections.abc import Sequence
import json
import os
from pathlib import Path
import shutil
from typing import Any

import numpy as np
from pi0_ros.dataset import sums
from pi0_ros.dataset.episodes import Frame
from pi0_ros.dataset.video import CameraVideo, frame_times, join, video_info
import pyarrow
import pyarrow.parquet

VERSION, CHUNK = 'v3.0', 1000  # files in a folder
DATA = 'data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet'
VIDEO = 'videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4'
PIECES = 'pieces'    # folder with videos of single episodes
VIDEO_BYTES = 200 * 2**20  # of a joined video, as info.json says
STATE, ACTION, IMAGES = 'observation.state', 'action', 'observation.images.'
TOLERANCE_S = 1e-4   # of a frame's time, LeRobot's
NUMBERS = ('timestamp', 'frame_index', 'episode_index', 'index', 'task_index')
LED = 'intervention'  # as LeRobot's DAgger rollouts mark what a person did


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
        if overwrite and self.partial.exists():
            shutil.rmtree(self.partial)
        self.partial.mkdir(parents=True, exist_ok=True)
        self._manifest = self.partial / 'episodes.jsonl'
        self.episodes: list[dict[str, Any]] = []
        self._load(json.loads(json.dumps(key)))
        self._rows: list[tuple[np.ndarray, np.ndarray, bool]] = []
        self._videos: dict[str, CameraVideo] = {}

    def _load(self, key: dict[str, Any]) -> None:
        if not any(self.partial.iterdir()):
            self._manifest.write_text(json.dumps(key) + '\n')
        text = self._manifest.read_text() if self._manifest.exists() else ''
        whole = [line for line in text.splitlines(True) if line.endswith('\n')]
        if not whole or json.loads(whole[0]) != key:
            raise ValueError(f"'{self.partial}' is the beginning of another data set: say "
                             '--overwrite, or name another folder with --dataset')
        if len(text) > sum(map(len, whole)):  # a line that was being written
            os.truncate(self._manifest, len(''.join(whole).encode()))
        self.episodes = [json.loads(line) for line in whole[1:]]

    @property
    def frames(self) -> int:
        """Return how many frames are written."""
        return sum(one['length'] for one in self.episodes)

    def add(self, frame: Frame, state: np.ndarray) -> None:
        """Add a frame to the episode under way. :param state: in the order of its names."""
        if not self._rows:
            for name in self.cameras:
                self._videos[name] = CameraVideo(
                    self._video(name, len(self.episodes)), self.fps, self.codec)
        for name, video in self._videos.items():
            video.add(frame.images[name])
        self._rows.append((state, frame.action, frame.led))

    def drop(self) -> None:
        """Forget the episode under way."""
        number = len(self.episodes)
        videos, self._videos, self._rows = self._videos, {}, []
        for name, video in videos.items():
            try:
                video.close()
            except Exception:  # that is why it is dropped
                pass
            self._video(name, number).unlink(missing_ok=True)

    def finish_episode(self, source: dict[str, Any], task: str, success: bool | None = None
                       ) -> None:
        """
        End the episode under way.

        :param source: where it is from, to find it again.
        :param success: as somebody judged it, None if nobody did.
        :raises ValueError: an image cannot be read. :raises OSError: the disk is full.
        """
        number, count, first = len(self.episodes), len(self._rows), self.frames
        shapes, counts = {}, {}
        for name, video in self._videos.items():
            video.close()
            shapes[name] = list(video.shape)
            counts[name] = {'frames': video.sampled, 'values': video.counts.tolist()}
        before = self.episodes[0]['shapes'] if self.episodes else shapes
        other = [name for name in shapes if shapes[name] != before[name]]
        if other:
            raise ValueError(f"images of '{other[0]}' are {shapes[other[0]]} high and wide, those "
                             f'of the first episode {before[other[0]]}')
        tasks = [one['task'] for one in self.episodes]
        known = list(dict.fromkeys([*tasks, task]))
        states, actions, led = zip(*self._rows)
        vectors = {STATE: np.array(states, np.float32), ACTION: np.array(actions, np.float32)}
        numbers = {'timestamp': (np.arange(count) / self.fps).astype(np.float32),
                   'frame_index': np.arange(count), 'episode_index': np.full(count, number),
                   'index': first + np.arange(count),
                   'task_index': np.full(count, known.index(task))}
        columns = {name: pyarrow.FixedSizeListArray.from_arrays(
            pyarrow.array(values.ravel()), values.shape[1]) for name, values in vectors.items()}
        columns |= {LED: pyarrow.array(led, pyarrow.bool_())} if self._led else {}
        columns |= {name: pyarrow.array(values) for name, values in numbers.items()}
        path = self.partial / _at(DATA, number)
        path.parent.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
        self._rows, self._videos = [], {}  # from here on it is written
        row = {'source': source, 'task': task, 'length': count, 'shapes': shapes,
               'counts': counts, 'led': sum(led), 'success': success}
        with self._manifest.open('a') as file:
            file.write(json.dumps(row) + '\n')
        self.episodes.append(row)

    def _video(self, camera: str, number: int) -> Path:
        return self.partial / PIECES / camera / f'{number:06d}.mp4'

    def _join_videos(self) -> list[dict[str, Any]]:
        """Join the videos of episodes; return what tells of each episode where they are."""
        shutil.rmtree(self.partial / 'videos', ignore_errors=True)
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
             self.partial / _at(VIDEO, file, IMAGES + camera), self.fps)

    def finish(self, robot_type: str, action_offset: int = 0) -> Path:
        """
        Write what tells of the data, read everything back, and give the folder its name.

        :param action_offset: periods after its frame, at which an action is due.
        :raises ValueError: what was written is not what was meant to be.
        """
        if not self.episodes:
            raise ValueError('there is no episode to write: no moment of the bags had all inputs, '
                             'an instruction and an action')
        meta = self.partial / 'meta'
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
        (meta / 'pi0_ros.json').write_text(json.dumps({'action_offset': action_offset}) + '\n')
        check(self.partial)
        self.partial.replace(self.folder)
        (self.folder / self._manifest.name).unlink()
        shutil.rmtree(self.folder / PIECES)
        return self.folder

    def give_up(self) -> None:
        """Leave nothing, where nothing was written."""
        if not self.episodes:
            shutil.rmtree(self.partial)

    def _statistics(self, numbers: Sequence[int]) -> dict[str, Any]:
        tables = [pyarrow.parquet.read_table(self.partial / _at(DATA, number))
                  for number in numbers]
        out = {}
        for name in (*self.names, *NUMBERS, *((LED,) if self._led else ())):
            columns = [table[name].combine_chunks() for table in tables]
            arrays = [(column.flatten() if name in self.names else column).to_numpy(
                zero_copy_only=False) for column in columns]
            width = len(self.names[name]) if name in self.names else 1
            out[name] = sums.of_rows(np.concatenate(arrays).reshape(-1, width))
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
