# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
What a data set takes from one bag: its episodes, before they have numbers.

A part is written in one process, and can be taken up again after any episode. Which part comes
first, and what it is called, does not matter to what is in it.
"""

from collections.abc import Sequence
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from pi0_ros.dataset.episodes import Frame
from pi0_ros.dataset.video import CameraVideo
import pyarrow
import pyarrow.parquet

STATE, ACTION = 'observation.state', 'action'
LED = 'intervention'  # as LeRobot's DAgger rollouts mark what a person did


class Part:
    """A folder with the episodes of one bag."""

    def __init__(self, folder: Path, fps: int, cameras: Sequence[str], codec: str) -> None:
        """Begin it, or take up what was begun there."""
        self.folder, self.fps, self.codec, self.cameras = folder, fps, codec, list(cameras)
        folder.mkdir(parents=True, exist_ok=True)
        self._manifest = folder / 'episodes.jsonl'
        text = self._manifest.read_text() if self._manifest.exists() else ''
        whole = [line for line in text.splitlines(True) if line.endswith('\n')]
        if len(text) > sum(map(len, whole)):  # a line that was being written
            os.truncate(self._manifest, len(''.join(whole).encode()))
        self.episodes: list[dict[str, Any]] = [json.loads(line) for line in whole]
        self._rows: list[tuple[np.ndarray, np.ndarray, bool]] = []
        self._videos: dict[str, CameraVideo] = {}

    def add(self, frame: Frame, state: np.ndarray) -> None:
        """Add a frame to the episode under way. :param state: in the order of its names."""
        if not self._rows:
            for name in self.cameras:
                self._videos[name] = CameraVideo(
                    self.video(name, len(self.episodes)), self.fps, self.codec)
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
            self.video(name, number).unlink(missing_ok=True)

    def finish_episode(self, source: dict[str, Any], task: str, success: bool | None = None
                       ) -> None:
        """
        End the episode under way.

        :param source: where it is from, to find it again.
        :param success: as somebody judged it, None if nobody did.
        :raises ValueError: an image cannot be read. :raises OSError: the disk is full.
        """
        shapes, counts = {}, {}
        for name, video in self._videos.items():
            video.close()
            shapes[name] = list(video.shape)
            counts[name] = {'frames': video.sampled, 'values': video.counts.tolist()}
        states, actions, led = zip(*self._rows)
        columns = {name: pyarrow.FixedSizeListArray.from_arrays(
            pyarrow.array(values.ravel()), values.shape[1]) for name, values in (
                (STATE, np.array(states, np.float32)), (ACTION, np.array(actions, np.float32)))}
        path = self.rows(len(self.episodes))
        path.parent.mkdir(exist_ok=True)
        pyarrow.parquet.write_table(
            pyarrow.table(columns | {LED: pyarrow.array(led, pyarrow.bool_())}), path)
        row = {'source': source, 'task': task, 'length': len(self._rows), 'shapes': shapes,
               'counts': counts, 'led': sum(led), 'success': success}
        self._rows, self._videos = [], {}  # from here on it is written
        with self._manifest.open('a') as file:
            file.write(json.dumps(row) + '\n')
        self.episodes.append(row)

    def rows(self, number: int) -> Path:
        """Return the file with state, action and who led, of each frame of an episode."""
        return self.folder / 'rows' / f'{number:06d}.parquet'

    def video(self, camera: str, number: int) -> Path:
        """Return the video of an episode."""
        return self.folder / camera / f'{number:06d}.mp4'
