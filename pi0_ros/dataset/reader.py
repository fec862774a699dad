# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""A LeRobotDataset v3 on this disk, ours or LeRobot's, as training reads it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pi0_ros.checkpoint.dataset import flat_names
from pi0_ros.dataset.frames import Videos
import pyarrow
import pyarrow.parquet

STATE, ACTION, IMAGES = 'observation.state', 'action', 'observation.images.'
OURS = 'pi0_ros.json'  # beside LeRobot's own files: what they do not record


@dataclass(frozen=True)
class Item:
    """One frame, and what was done from it on."""

    images: Mapping[str, np.ndarray]  # [H, W, 3] uint8 RGB, by camera; decoded when it is asked
    state: np.ndarray              # [N]
    actions: np.ndarray            # [T, D], the last repeated behind the episode's end
    task: str
    index: int = -1                # of the frame in its data set, -1: in none


class DataError(ValueError):
    """A data set cannot be used."""


class Images(Mapping[str, np.ndarray]):
    """The images of a frame, each decoded when it is asked for."""

    def __init__(self, cameras: Sequence[str], decode: Callable[[str], np.ndarray]) -> None:
        """Decode by ``decode``."""
        self._cameras, self._decode = cameras, decode

    def __getitem__(self, camera: str) -> np.ndarray:
        """
        Return an image.

        :raises ValueError: it cannot be read.
        """
        if camera not in self._cameras:
            raise KeyError(camera)
        return self._decode(camera)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the cameras."""
        return iter(self._cameras)

    def __len__(self) -> int:
        """Return how many cameras there are."""
        return len(self._cameras)


class DataSet:
    """Frames by their index; images are decoded when they are asked for."""

    def __init__(self, folder: Path, cache_bytes: int = 2**28) -> None:
        """
        Read what lies in ``folder``, but for the images.

        :param cache_bytes: of decoded images that are kept.
        :raises DataError: it is no LeRobotDataset v3, or lacks something.
        """
        self.folder = folder
        try:
            self._read(cache_bytes)
        except (KeyError, TypeError, StopIteration, AttributeError) as error:
            raise DataError(f"data set '{folder}' is incomplete or damaged: "
                            f'{type(error).__name__}: {error}') from error

    def _read(self, cache_bytes: int) -> None:
        folder, info = self.folder, self._json('info.json')
        version = str(info.get('codebase_version', ''))
        if not version.startswith('v3'):
            raise DataError(f"data set '{folder}' is of version '{version}', expected v3.0: "
                            "LeRobot's convert_dataset_v21_to_v30 makes one of an older")
        self.fps = info['fps']
        self.features: dict[str, dict[str, Any]] = info['features']
        for name in (STATE, ACTION):
            if name not in self.features:
                raise DataError(f"data set '{folder}' has no '{name}', it has "
                                f"{', '.join(self.features)}")
        self.cameras = tuple(name.removeprefix(IMAGES) for name, of in self.features.items()
                             if name.startswith(IMAGES) and of['dtype'] in ('video', 'image')
                             and not _is_depth(of))
        if not self.cameras:
            raise DataError(f"data set '{folder}' has no camera ({IMAGES}NAME)")
        table = self._table('data')
        order = np.argsort(table['index'].to_numpy(), kind='stable')
        self.state, self.action = (self._rows(table, name)[order] for name in (STATE, ACTION))
        self._task_index = table['task_index'].to_numpy()[order]
        self._episode = table['episode_index'].to_numpy()[order]
        self._time = table['timestamp'].to_numpy()[order]
        self._order = order
        self._pictures = {name: table[IMAGES + name] for name in self.cameras
                          if self.features[IMAGES + name]['dtype'] == 'image'}
        if not len(self.state):
            raise DataError(f"data set '{folder}' has no frame")
        bounds = np.flatnonzero(np.diff(self._episode)) + 1
        self._begin = np.concatenate([[0], bounds])
        self._end = np.concatenate([bounds, [len(self._episode)]])
        self._tasks = self._read_tasks()
        rows = self._table('meta/episodes').to_pylist()
        told = {row['episode_index']: row for row in rows}
        self.episodes = [int(self._episode[at]) for at in self._begin]
        missing = [number for number in self.episodes if number not in told]
        if missing:
            raise DataError(f"data set '{folder}' tells nothing of episode {missing[0]} in "
                            'meta/episodes')
        self.success = [told[number].get('success') for number in self.episodes]
        self._videos = Videos(folder, info, told, cache_bytes)
        self.action_offset = self._json(OURS).get('action_offset', 0) if (
            folder / 'meta' / OURS).exists() else 0

    def __len__(self) -> int:
        """Return how many frames it has."""
        return len(self.state)

    def names(self, feature: str) -> tuple[str, ...]:
        """Return the names of the numbers of a vector, () where it has none."""
        names = flat_names(self.features[feature].get('names'))
        width = (self.state if feature == STATE else self.action).shape[1]
        return names if len(names) == width else ()

    def frames_of(self, episodes: Sequence[int]) -> np.ndarray:
        """Return the indices of all frames of ``episodes``, positions in ``self.episodes``."""
        return np.concatenate([np.arange(self._begin[one], self._end[one]) for one in episodes]
                              or [np.zeros(0, int)])

    def item(self, index: int, length: int) -> Item:
        """Return a frame with ``length`` actions."""
        which = int(np.searchsorted(self._end, index, side='right'))
        end, number = self._end[which], int(self._episode[index])
        at = np.minimum(np.arange(index, index + length), end - 1)
        images = Images(self.cameras, lambda name: self._image(name, index, number))
        return Item(images, self.state[index], self.action[at],
                    self._tasks[int(self._task_index[index])], index)

    def remaining(self, index: int) -> int:
        """Return how many frames there are from one on in its episode."""
        return int(self._end[np.searchsorted(self._end, index, side='right')]) - index

    def since(self, index: int) -> tuple[int, float]:
        """Return the position of a frame's episode, and how long after its beginning it is, s."""
        which = int(np.searchsorted(self._end, index, side='right'))
        return which, float(self._time[index] - self._time[self._begin[which]])

    def statistics(self) -> dict[str, np.ndarray]:
        """Return meta/stats.json of state and action, such as ``action.mean`` [D]."""
        told = self._json('stats.json')
        return {f'{feature}.{name}': np.array(value, np.float32).ravel()
                for feature in (STATE, ACTION) for name, value in told.get(feature, {}).items()}

    def chunk_starts(self, length: int) -> np.ndarray:
        """Return the first frame of every chunk that lies in one episode."""
        return np.concatenate([np.arange(begin, end - length + 1, dtype=int)
                               for begin, end in zip(self._begin, self._end)])

    def _image(self, camera: str, index: int, episode: int) -> np.ndarray:
        if camera not in self._pictures:
            return self._videos.frame(IMAGES + camera, episode, float(self._time[index]))
        stored = self._pictures[camera][int(self._order[index])].as_py()
        data = stored.get('bytes')
        if data is None:
            data = (self.folder / stored['path']).read_bytes()
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        if image is None:
            raise DataError(f"an image of '{camera}' in data set '{self.folder}', frame {index}, "
                            'cannot be decoded')
        return np.ascontiguousarray(image[:, :, ::-1])

    def _json(self, name: str) -> dict[str, Any]:
        path = self.folder / 'meta' / name
        try:
            return json.loads(path.read_text())
        except FileNotFoundError:
            raise DataError(f"'{self.folder}' is no LeRobotDataset: it has no meta/{name}; "
                            'expected the folder that holds meta, data and videos') from None
        except (OSError, ValueError) as error:
            raise DataError(f"'{path}' cannot be read: {error}") from error

    def _table(self, below: str) -> pyarrow.Table:
        files = sorted((self.folder / below).rglob('*.parquet'))
        if not files:
            raise DataError(f"data set '{self.folder}' has no parquet file in {below}")
        try:
            return pyarrow.concat_tables([pyarrow.parquet.read_table(path) for path in files],
                                         promote_options='default')
        except (pyarrow.ArrowInvalid, OSError) as error:
            raise DataError(f"data set '{self.folder}' has a damaged file in {below}: {error}") \
                from error

    def _rows(self, table: pyarrow.Table, name: str) -> np.ndarray:
        column = table[name].combine_chunks()
        if not pyarrow.types.is_nested(column.type):  # of one number
            return self._finite(np.asarray(column.to_numpy(zero_copy_only=False),
                                           np.float32)[:, None], name)
        if column.null_count:
            raise DataError(f"'{name}' of data set '{self.folder}' has frames without a value")
        rows = np.asarray(column.flatten().to_numpy(zero_copy_only=False), np.float32)
        return self._finite(rows.reshape(len(column), -1), name)

    def _finite(self, rows: np.ndarray, name: str) -> np.ndarray:
        if not np.isfinite(rows).all():
            at = int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
            raise DataError(f"'{name}' of data set '{self.folder}' is not finite in frame {at}")
        return rows

    def _read_tasks(self) -> dict[int, str]:
        table = pyarrow.parquet.read_table(self.folder / 'meta' / 'tasks.parquet')
        text = next(name for name in ('task', '__index_level_0__') if name in table.column_names)
        return dict(zip(table['task_index'].to_pylist(), table[text].to_pylist()))


def _is_depth(feature: Mapping[str, Any]) -> bool:
    """Return whether a camera feature is of depth images, which are no colour images."""
    info = feature.get('info') or {}
    return bool(info.get('is_depth_map') or info.get('video.is_depth_map')) or (
        1 in (feature['shape'][0], feature['shape'][-1]))
