"""SIGINT and SIGTERM: an exception where something long is waited for, else a flag to look at.

An exception anywhere would cut a stop of the robot short.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator


class Interrupt:
    """What a process was told by signals."""

    def __init__(self) -> None:
        """Nothing yet; the first signal raises."""
        self.told = threading.Event()
        self._raises = True

    def listen(self) -> None:
        """Take the two signals; raise KeyboardInterrupt until ``flagged``."""
        self.told.clear()
        self._raises = True
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    @staticmethod
    def ignore() -> None:
        """Let no second signal cut an ordered end short."""
        for number in (signal.SIGINT, signal.SIGTERM):
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
        self.told.set()
        if self._raises:
            raise KeyboardInterrupt


INTERRUPT = Interrupt()
