# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The process of a ProcessPolicy: answers its requests until the pipe is closed."""

import ctypes
from dataclasses import replace
import logging
from multiprocessing.connection import Connection
import os
import signal
import sys

from pi0_ros.policy.policy import Unserved
from pi0_ros.workers.factory import make_inner
from pi0_ros.workers.process import SharedImages

PR_SET_PDEATHSIG = 1
NICE = 10  # the node, which must answer cameras and ticks, comes first


class _ToPipe(logging.Handler):

    def __init__(self, pipe: Connection) -> None:
        super().__init__(logging.INFO)
        self._pipe = pipe

    def emit(self, record: logging.LogRecord) -> None:
        self._pipe.send(('log', (record.levelno, record.getMessage())))


class Child:
    """One policy and the pipe that asks for it."""

    def __init__(self, pipe: Connection, images: SharedImages) -> None:
        """Make no policy yet."""
        self._pipe, self._images, self._policy = pipe, images, None

    def serve(self) -> None:
        """Answer until nobody can ask any more."""
        while True:
            try:
                what, given = self._pipe.recv()
            except EOFError:
                break
            try:
                answer = getattr(self, f'_{what}')(*given)
            except Exception as error:
                names = [kind.__name__ for kind in type(error).__mro__]
                told = self._policy.describe() if self._policy else {}
                served = isinstance(error, Unserved) and (error.finding, error.fresh)
                self._pipe.send(('error', (names, str(error), served, told)))
            else:
                self._pipe.send(('answer', (answer, self._policy.describe())))
        if self._policy:
            self._policy.close()

    def _load(self, *made_of: object) -> None:
        self._policy = make_inner(*made_of)
        self._policy.load()

    def _warm_up(self, number: int) -> None:
        self._policy.warm_up()
        self._policy.number = number  # of the next chunk: no number, no noise comes twice

    def _ensure_loaded(self) -> None:
        self._policy.ensure_loaded()

    def _infer(self, bare: object, places: dict, *given: object) -> object:
        return self._policy.infer(replace(bare, images=self._images.read(places)), *given)


def main() -> None:
    """Serve the pipe and the memory that the descriptors in the arguments name."""
    os.nice(NICE)
    # Also when it hangs it ends with the node.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the node, which then closes
    pipe = Connection(int(sys.argv[1]))
    core = logging.getLogger('pi0_ros')
    core.setLevel(logging.INFO)
    core.addHandler(_ToPipe(pipe))
    try:
        Child(pipe, SharedImages(int(sys.argv[2]))).serve()
    except OSError:  # the node is gone
        os._exit(1)
