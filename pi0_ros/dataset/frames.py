# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Frames of the videos of a data set, in any order, with a bounded memory of decoded ones."""

from collections import OrderedDict
from pathlib import Path
import threading
from typing import Any

import av
import numpy as np

OPEN = 16            # videos at a time
TOLERANCE_S = 1e-4   # of a frame's time, LeRobot's
AHEAD = 64           # frames that are decoded to reach one, before it is looked for anew


class Videos:
    """
    Decodes what is asked for, and keeps what it passes on the way.

    A codec has to begin at a key frame; what lies between that and the frame is kept as long as
    there is room, the oldest goes first. Safe to be called from several threads.
    """

    def __init__(self, folder: Path, info: dict[str, Any], episodes: dict[int, dict[str, Any]],
                 limit: int) -> None:
        """
        Look at no file yet.

        :param episodes: rows of meta/episodes by number. :param limit: bytes that are kept.
        """
        self._folder, self._info, self._episodes, self._limit = folder, info, episodes, limit
        self._kept: OrderedDict[tuple[Path, int], np.ndarray] = OrderedDict()
        self._open: OrderedDict[Path, _Video] = OrderedDict()
        self._bytes, self._lock = 0, threading.Lock()

    def frame(self, key: str, episode: int, time_s: float) -> np.ndarray:
        """
        Return [H, W, 3] uint8 RGB of a camera, ``time_s`` after its episode began.

        :raises ValueError: there is none, or the file is damaged.
        """
        row = self._episodes[episode]
        try:
            path = self._folder / self._info['video_path'].format(
                video_key=key, chunk_index=row[f'videos/{key}/chunk_index'],
                file_index=row[f'videos/{key}/file_index'])
            at_s = row[f'videos/{key}/from_timestamp'] + time_s
        except KeyError as error:
            raise ValueError(f"data set '{self._folder}' does not tell where the video of '{key}' "
                             f'of episode {episode} is: {error}') from error
        number = round(at_s * self._info['fps'])
        with self._lock:
            found = self._kept.get((path, number))
            if found is not None:
                self._kept.move_to_end((path, number))
                return found
        try:
            with self._lock:
                video = self._opened(path)
            with video.lock:
                return self._decode(path, video, at_s)
        except (av.FFmpegError, OSError) as error:
            raise ValueError(f"video '{path}' cannot be read at {at_s:.3f} s: {error}") from error

    def _opened(self, path: Path) -> '_Video':
        video = self._open.pop(path, None) or _Video(path)
        self._open[path] = video
        while len(self._open) > OPEN:
            self._open.popitem(last=False)  # closed when nobody decodes it any more
        return video

    def _decode(self, path: Path, video: '_Video', at_s: float) -> np.ndarray:
        for shown_s, image in video.frames_to(at_s, 1 / self._info['fps']):
            with self._lock:
                self._keep((path, round(shown_s * self._info['fps'])), image)
            if abs(shown_s - at_s) <= max(TOLERANCE_S, 0.25 / self._info['fps']):
                return image
        raise ValueError(f"video '{path}' has no frame at {at_s:.4f} s, {self._info['fps']} are "
                         'expected in a second')

    def _keep(self, key: tuple[Path, int], image: np.ndarray) -> None:
        if key in self._kept:
            return
        self._kept[key] = image
        self._bytes += image.nbytes
        while self._bytes > self._limit and len(self._kept) > 1:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes


class _Video:
    """An open file, and where it is."""

    def __init__(self, path: Path) -> None:
        self.lock = threading.Lock()
        self._container = av.open(str(path))
        self._stream = self._container.streams.video[0]
        self._stream.thread_type = 'AUTO'
        self._frames, self._at_s = None, float('-inf')

    def frames_to(self, at_s: float, period_s: float) -> Any:
        """Yield times and images until ``at_s``: from where it is, if that is near before it."""
        if self._frames is None or not 0 < at_s - self._at_s < AHEAD * period_s:
            self._container.seek(max(0, int((at_s - period_s / 2) / self._stream.time_base)),
                                 stream=self._stream, backward=True)
            self._frames = self._container.decode(self._stream)
        for frame in self._frames:
            self._at_s = float(frame.pts * self._stream.time_base)
            yield self._at_s, frame.to_ndarray(format='rgb24')
            if self._at_s > at_s + period_s:
                break
