# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Whose question is next: several at once where they wait, the most urgent first, nobody twice.

What would come too late anyway is told so at once. Time comes from the event loop's clock.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, field
import math
import time
from typing import Any

LEARNS = 0.2  # of the measured time, how much a new measurement counts
HANGS_S = 20.0  # that a batch may take, if the others do not take a twentieth of it
PATIENCE_S = 2.0  # after which a question is as urgent as one can be that says no deadline


class Busy(Exception):
    """An answer would come too late; the text says how many wait."""


@dataclass
class _Waiting:
    asked: Any
    alive: Callable[[], bool]
    arrived: float
    due: float
    answer: asyncio.Future = field(repr=False)


class Turns:
    """
    Lets questions wait for the one thread that decides. Used from one event loop.

    A connection has at most one question here, the last that it asked, so that a robot that asks
    often cannot keep another from its turn.
    """

    def __init__(self, decide: Callable[[Sequence[Any]], Sequence[Any]], thread: Executor,
                 most: int = 1, wait_s: float = 0.0, most_waiting: int = 64) -> None:
        """
        Begin with nobody.

        :param decide: returns an answer, or an exception, for each of several questions; called
            in ``thread``. :param most: of them at once.
        :param wait_s: for which the first of a batch waits for others, while nothing is decided.
        :param most_waiting: questions; whoever comes then is told that it is busy.
        """
        self._decide, self._thread, self._most = decide, thread, most
        self._wait_s, self._most_waiting = wait_s, most_waiting
        self._waiting: list[_Waiting] = []
        self._came = asyncio.Event()
        self._running: asyncio.Task | None = None
        self.deciding_since: float | None = None  # as time.monotonic has it
        self.batch_s = 0.0  # that a batch takes, a moving mean
        self.batches = self.refused = 0

    @property
    def waiting(self) -> int:
        """Return how many wait for their turn."""
        return len(self._waiting)

    @property
    def hangs(self) -> bool:
        """Return whether a batch takes so long that it will never end."""
        since = self.deciding_since
        return since is not None and time.monotonic() - since > max(HANGS_S, 20 * self.batch_s)

    async def ask(self, asked: Any, alive: Callable[[], bool], deadline_s: float = math.inf
                  ) -> tuple[Any, float]:
        """
        Return the answer, and how long it was computed for, s.

        :param alive: whether the one who asks is still there when its turn comes.
        :param deadline_s: after which the answer is of no use.
        :raises Busy: it would come too late. :raises Exception: what was decided instead.
        """
        now = asyncio.get_running_loop().time()
        # Without a bound of its own a question would be last for as long as others have one.
        due = now + min(deadline_s, PATIENCE_S)
        before = sum(one.due <= due and one.alive() and not one.answer.done()
                     for one in self._waiting)
        deciding = self.deciding_since is not None
        ahead = before // self._most + 1 + deciding
        # Who finds nobody there is always answered: what the last batch took may be over.
        late = ahead * self.batch_s > deadline_s and (before or deciding)
        if late or len(self._waiting) >= self._most_waiting:
            self.refused += 1
            raise Busy(f'{len(self._waiting)} questions wait, an answer would come in about '
                       f'{ahead * self.batch_s:.1f} s: ask again later, or add a server')
        one = _Waiting(asked, alive, now, due, asyncio.get_running_loop().create_future())
        self._waiting.append(one)
        self._came.set()
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run())
        try:
            return await one.answer
        except asyncio.CancelledError:  # it was replaced, or who asked has gone
            with suppress(ValueError):
                self._waiting.remove(one)
            raise

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            if self._most > 1:
                await self._gather(loop)
            # Python's sort keeps the order of arrival among equals.
            self._waiting.sort(key=lambda one: one.due)
            batch, self._waiting = self._waiting[:self._most], self._waiting[self._most:]
            gone = [one for one in batch if not one.alive()]
            for one in gone:
                _settle(one, ValueError('who asked has gone'))
            batch = [one for one in batch if one not in gone]
            if batch:
                await self._answer(batch, loop)

    async def _gather(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let others come while the first waits."""
        end = self._waiting[0].arrived + self._wait_s
        while len(self._waiting) < self._most and (left := end - loop.time()) > 0:
            self._came.clear()
            try:
                await asyncio.wait_for(self._came.wait(), left)
            except asyncio.TimeoutError:
                return

    async def _answer(self, batch: list[_Waiting], loop: asyncio.AbstractEventLoop) -> None:
        began, self.deciding_since = loop.time(), time.monotonic()
        try:
            answers = await loop.run_in_executor(
                self._thread, self._decide, [one.asked for one in batch])
        except Exception as error:
            answers = [error] * len(batch)
        finally:
            self.deciding_since = None
        taken = loop.time() - began
        self.batches += 1
        self.batch_s += (taken - self.batch_s) * (LEARNS if self.batch_s else 1.0)
        for one, answer in zip(batch, answers):
            _settle(one, answer if isinstance(answer, Exception) else (answer, taken))


def _settle(one: _Waiting, answer: Any) -> None:
    if one.answer.done():  # who asked was cancelled
        return
    if isinstance(answer, Exception):
        one.answer.set_exception(answer)
    else:
        one.answer.set_result(answer)
