# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
SIGINT, SIGTERM, SIGHUP: an exception where something long is waited for, else a flag.

An exception anywhere would cut a stop of the robot short.
"""

from collections.abc import Iterator
import contextlib
import os
import signal
import threading
import traceback
from types import FrameType

SOON_S = 0.02
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # the last when a terminal is closed


class Interrupt:
    """What a process was told by signals."""

    def __init__(self) -> None:
        """Nothing yet; the first signal raises."""
        self.told = threading.Event()
        self._raises, self._owed = True, False

    def listen(self) -> None:
        """Take the signals; the first raises KeyboardInterrupt, but within ``raising(False)``."""
        self.told.clear()
        self._raises, self._owed = True, False
        for number in ENDING:
            if signal.getsignal(number) is not signal.SIG_IGN or number == signal.SIGINT:
                signal.signal(number, self._handle)  # nohup ignores SIGHUP: that stays

    @staticmethod
    def ignore() -> None:
        """Let no second signal cut an ordered end short."""
        for number in ENDING:
            signal.signal(number, signal.SIG_IGN)

    @contextlib.contextmanager
    def raising(self, raises: bool) -> Iterator[None]:
        """Within this, a signal raises KeyboardInterrupt, or sets ``told`` and no more."""
        before, self._raises = self._raises, raises
        try:
            yield
        finally:
            self._raises = before

    def _handle(self, number: int, frame: object) -> None:
        first = not self.told.is_set()
        self.told.set()
        if self._raises and (first or self._owed):
            # A second one shall not cut short what the first began.
            self._owed = _finalises(frame)
            if not self._owed:
                raise KeyboardInterrupt
            threading.Timer(SOON_S, os.kill, (os.getpid(), number)).start()


def _finalises(frame: FrameType | None) -> bool:
    """Return whether an object is being finalised, where Python drops what is raised."""
    while frame is not None:
        if frame.f_code.co_name == '__del__':
            return True
        frame = frame.f_back
    return False


INTERRUPT = Interrupt()


def trace(error: BaseException) -> str:
    """Return where an error comes from, as Python prints it."""
    return ''.join(traceback.format_exception(error)).rstrip()
