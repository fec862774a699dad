# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Encodes the images of a camera as video, in a thread of its own."""

from collections.abc import Sequence
from pathlib import Path
import queue
import threading
from typing import Any

import av
import cv2
import numpy as np
from pi0_ros.observation.decoding import message_to_rgb

CODECS = {'h264': ('libx264', {'preset': 'ultrafast', 'crf': '22'}),  # a third of veryfast's time
          'av1': ('libsvtav1', {'preset': '10', 'crf': '30'})}
GROUP = '2'           # of pictures: training reads frames in any order
WAITING = 16          # images that may wait for the encoder
SAMPLES_A_SECOND = 10  # for statistics
SHRINK = 4            # every so many pixels, too

av.logging.set_level(av.logging.ERROR)


class CameraVideo:
    """One video file of one episode."""

    def __init__(self, path: Path, fps: int, codec: str) -> None:
        """Begin. :param codec: one of CODECS."""
        self.counts = np.zeros((3, 256), np.int64)  # of values in sampled frames, by channel
        self.sampled = 0
        self.shape: tuple[int, int] | None = None   # height, width
        self._path, self._fps, self._codec = path, fps, codec
        self._queue: queue.Queue = queue.Queue(WAITING)
        self._error: BaseException | None = None
        self._ended = False
        self._thread = threading.Thread(target=self._run, name='video', daemon=True)
        self._thread.start()

    def add(self, message: Any) -> None:
        """
        Encode one more image; waits while too many are waiting.

        :raises Exception: what went wrong with one before.
        """
        if self._error:
            raise self._error
        self._queue.put(message)

    def close(self) -> None:
        """
        End the file.

        :raises ValueError: an image cannot be read, or changed its size.
        :raises OSError: the file cannot be written.
        """
        self._queue.put(None)
        self._thread.join()
        if self._error:
            raise self._error

    def _run(self) -> None:
        try:
            self._encode()
        except BaseException as error:
            # Of a full disk, for example: one kind of error for all files.
            self._error = OSError(error.errno, error.strerror, str(self._path)) \
                if isinstance(error, av.FFmpegError) else error
            while not self._ended and self._queue.get() is not None:
                pass  # else who adds would wait for ever

    def _encode(self) -> None:
        name, options = CODECS[self._codec]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(self._path), 'w', format='mp4') as out:
            stream, last, planes = None, None, None
            number = 0
            while (message := self._queue.get()) is not None:
                if message is not last:  # a camera may be slower than the grid
                    image = message_to_rgb(message)
                    height, width = (size // 2 * 2 for size in image.shape[:2])
                    if not (height and width):
                        raise ValueError(f'an image is {image.shape[1]} x {image.shape[0]}, which '
                                         'is too small for a video')
                    image = np.ascontiguousarray(image[:height, :width])
                    if self.shape not in (None, (height, width)):
                        raise ValueError(f'an image is {width} x {height}, the ones before were '
                                         f'{self.shape[1]} x {self.shape[0]}')
                    self.shape = height, width
                    planes = cv2.cvtColor(image, cv2.COLOR_RGB2YUV_I420)
                    last = message
                if stream is None:
                    stream = out.add_stream(name, self._fps, options={**options, 'g': GROUP})
                    stream.width, stream.height, stream.pix_fmt = width, height, 'yuv420p'
                    stream.codec_context.thread_count = 1
                if number % max(1, self._fps // SAMPLES_A_SECOND) == 0:
                    self._count(image[::SHRINK, ::SHRINK])
                frame = av.VideoFrame.from_ndarray(planes, format='yuv420p')
                frame.pts, number = number, number + 1
                out.mux(stream.encode(frame))
            self._ended = True  # nobody adds any more
            if stream is not None:
                out.mux(stream.encode())

    def _count(self, image: np.ndarray) -> None:
        self.sampled += 1
        for channel in range(3):
            self.counts[channel] += np.bincount(image[:, :, channel].ravel(), minlength=256)


def video_info(path: Path) -> dict[str, Any]:
    """Return what info.json says of a video, as LeRobot 0.6 does; 0.4 said video.is_depth_map."""
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        return {'video.height': stream.height, 'video.width': stream.width,
                'video.codec': stream.codec.canonical_name, 'video.pix_fmt': stream.pix_fmt,
                'is_depth_map': False, 'video.fps': int(stream.average_rate),
                'video.channels': 3, 'has_audio': False}


def join(pieces: Sequence[Path], path: Path, fps: int) -> None:
    """
    Write videos one after another into one file, without encoding them again.

    :raises OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), 'w', format='mp4') as out:
        stream, first = None, 0
        for piece in pieces:
            with av.open(str(piece)) as file:
                source = file.streams.video[0]
                stream = stream or out.add_stream_from_template(source)
                shift = round(first / fps / source.time_base)
                for packet in file.demux(source):
                    if packet.pts is not None:
                        first += 1
                        packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                        packet.stream = stream
                        out.mux(packet)


def frame_times(path: Path) -> np.ndarray:
    """Return when the frames of a video are shown, seconds, without decoding them."""
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        return np.sort([float(packet.pts * packet.time_base) for packet in file.demux(stream)
                        if packet.pts is not None])
