# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
A policy in a process of its own: its Python code never makes the control thread wait.

Images travel through shared memory, everything else through a pipe. The other end is
``workers/child.py``.
"""

from collections import deque
from collections.abc import Mapping
import logging
import math
import mmap
from multiprocessing.connection import Connection, Pipe
import os
import subprocess
import sys

import numpy as np
from pi0_ros.checkpoint.config import RobotConfig
from pi0_ros.observation.observation import Observation
from pi0_ros.policy.config import PolicyConfig
from pi0_ros.policy.policy import ActionChunk, Leftover, PolicyGone, Unserved
from pi0_ros.weights.files import CheckpointError

log = logging.getLogger(__name__)
POLL_S = 0.2         # wakes up for signals
LOAD_PATIENCE = 3000  # polls without a word while loading and compiling: ten minutes
FIRST_PATIENCE = 300  # polls, for the first inferences: a compiler may still be at work
PATIENCE_FACTOR = 5  # of the longest of the last inferences
FIRST, KEPT = 3, 100  # inferences
# Not -m: the working directory must not hide what is installed.
CHILD = ('import sys; sys.path[:1] = [path for path in sys.path[:1] if path]; '
         'from pi0_ros.workers.child import main; main()')
END_S = 2.0               # between asking a process to end and killing it
ERRORS = {error.__name__: error for error in (CheckpointError, ValueError)}


class SharedImages:
    """Memory that two processes see, for the images of one observation."""

    def __init__(self, descriptor: int | None = None) -> None:
        """Make it, or open what ``descriptor`` names."""
        self.descriptor = os.memfd_create('pi0_ros_images') if descriptor is None else descriptor
        self._memory: mmap.mmap | None = None

    def _of_size(self, size: int) -> mmap.mmap:
        if self._memory is None or len(self._memory) < size:
            if os.fstat(self.descriptor).st_size < size:
                os.ftruncate(self.descriptor, size)
            self._memory = mmap.mmap(self.descriptor, size)
        return self._memory

    def write(self, images: Mapping[str, np.ndarray]) -> dict[str, tuple[int, tuple[int, ...]]]:
        """Put [H, W, 3] uint8 images there; return where each lies, and its shape."""
        memory = self._of_size(max(1, sum(image.nbytes for image in images.values())))
        places, at = {}, 0
        for name, image in images.items():
            np.frombuffer(memory, np.uint8, image.nbytes, at).reshape(image.shape)[:] = image
            places[name] = at, image.shape
            at += image.nbytes
        return places

    def read(self, places: Mapping[str, tuple[int, tuple[int, ...]]]) -> dict[str, np.ndarray]:
        """Return the images at ``places``; they are gone when the next are written."""
        size = max(at + int(np.prod(shape)) for at, shape in places.values())
        memory = self._of_size(size)
        return {name: np.frombuffer(memory, np.uint8, int(np.prod(shape)), at).reshape(shape)
                for name, (at, shape) in places.items()}

    def close(self) -> None:
        """Give the descriptor back; the memory goes with the last array that looks at it."""
        os.close(self.descriptor)


class ProcessPolicy:
    """
    Stands for a policy in another process. One thread calls all methods but the constructor.

    A process that ends or hangs is killed, and the next call starts another.
    """

    def __init__(self, config: PolicyConfig, robot: RobotConfig, rtc: str = '',
                 hang_s: float = 2.0) -> None:
        """Prepare; ``load`` starts the process. See ``factory.make_policy``."""
        self._made_of = config, robot, rtc
        self._patience = math.ceil(hang_s / POLL_S)
        self._process: subprocess.Popen | None = None
        self._pipe: Connection | None = None
        self._images: SharedImages | None = None
        self._told = {'engine': 'none', 'engine_reason': 'not loaded'}
        self._waited: deque[int] = deque(maxlen=KEPT)  # polls, of the last inferences
        self._count = self._number = 0
        self._aborted = False

    @property
    def process_id(self) -> int | None:
        """Return the id of the process, None while there is none."""
        process = self._process  # the policy thread may end it meanwhile
        return process.pid if process else None

    def load(self) -> None:
        """
        Start the process and load the policy there.

        :raises CheckpointError, ValueError: what loading there raised.
        :raises PolicyGone: the process ended.
        """
        self._end()
        here, there = Pipe()
        self._images = SharedImages()
        passed = there.fileno(), self._images.descriptor
        self._process = subprocess.Popen(
            [sys.executable, '-c', CHILD, *map(str, passed)], pass_fds=passed,
            env={**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, sys.path))})
        there.close()
        if self._aborted:
            self._process.kill()
        self._pipe, self._count = here, 0
        self._waited.clear()
        try:
            self._ask('load', *self._made_of, patience=LOAD_PATIENCE)
        except Exception:
            self._end()
            raise

    def warm_up(self) -> None:
        """Choose the path and infer once, there."""
        try:
            self._ask('warm_up', self._number, patience=LOAD_PATIENCE)
        except Exception:
            self._end()
            raise

    @property
    def loaded(self) -> bool:
        """Return whether there is a process, and whether it has its server, if it needs one."""
        return self._process is not None and self._told.get('connected') != 'no'

    def ensure_loaded(self) -> None:
        """Start another process where the last one ended; raises what ``load`` does."""
        if self._process is None:
            log.warning('starting another policy process')
            self.load()
            self.warm_up()
        elif self._made_of[0].policy == 'remote':  # whose server may have gone
            self._ask('ensure_loaded', patience=LOAD_PATIENCE)

    def infer(self, observation: Observation, noise: np.ndarray | None = None,
              leftover: Leftover | None = None) -> ActionChunk:
        """
        Decide a chunk there.

        :raises PolicyGone: the process ended or hung. The next call starts another.
        """
        if self._process is None:
            self.ensure_loaded()
        places = self._images.write(observation.images)
        bare = Observation(observation.t_obs_ns, observation.state, {},
                           observation.image_stamps_ns, observation.instruction)
        patience = FIRST_PATIENCE if self._count < FIRST else max(
            self._patience, PATIENCE_FACTOR * max(self._waited, default=0))
        chunk = self._ask('infer', bare, places, noise, leftover, patience=patience)
        self._count, self._number = self._count + 1, chunk.number + 1
        return chunk

    def describe(self) -> dict[str, str]:
        """Return what the policy told of itself last."""
        return {**self._told, 'process': str(self.process_id or 'none')}

    def abort(self) -> None:
        """Kill the process: a call that waits for it fails."""
        self._aborted = True
        process = self._process
        if process:
            process.kill()

    def close(self) -> None:
        """End the process."""
        self._end()

    def _ask(self, what: str, *given: object, patience: int) -> object:
        """Return the answer to one request; log what the process logs meanwhile."""
        try:
            self._pipe.send((what, given))
            waited = total = 0
            while True:
                if not self._pipe.poll(POLL_S):
                    waited, total = waited + 1, total + 1
                    if waited == patience:
                        self._process.kill()
                        self._gone(f'did not answer within {waited * POLL_S:.0f} s: killed it')
                    continue
                kind, answer = self._pipe.recv()
                if kind == 'log':
                    log.log(*answer)
                    waited = 0  # it lives
                    continue
                if kind == 'error':
                    names, text, unserved, told = answer
                    self._told = told or self._told
                    if unserved:
                        raise Unserved(*unserved)
                    known = next((ERRORS[name] for name in names if name in ERRORS), None)
                    raise known(text) if known else RuntimeError(f'{names[0]}: {text}')
                if what == 'infer':
                    self._waited.append(total)
                answer, self._told = answer
                return answer
        except (EOFError, OSError):
            self._gone('ended')

    def _gone(self, how: str) -> None:
        process = self._process
        try:
            code = process.wait(END_S)
        except subprocess.TimeoutExpired:
            code = 'none yet'
        self._end()
        self._told = {'engine': 'none', 'engine_reason': f'the policy process {how}'}
        raise PolicyGone(f'the policy process {process.pid} {how} (exit code {code})')

    def _end(self) -> None:
        """End the process and give back what connects to it."""
        process, self._process = self._process, None
        if process is None:
            return
        self._pipe.close()  # it ends by itself when nobody can ask any more
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._images.close()
        self._pipe = self._images = None
