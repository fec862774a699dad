# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Who may connect to a replica: each who names a token that was given out, once."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode

COMES_S = 5.0     # for which a guest that was told where to go may stay away
ANSWER_S = 60.0   # for which a guest that shall leave may wait for the answer it asked for
TOKEN = 'lease'
ELSEWHERE = CloseCode.SERVICE_RESTART  # ask again: another replica answers


@dataclass
class _Guest:
    connection: ServerConnection | None = None
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    idle: asyncio.Event = field(default_factory=asyncio.Event)


class Guests:
    """The guests of one server. Used from one event loop."""

    def __init__(self) -> None:
        """Begin with nobody."""
        self._guests: dict[str, _Guest] = {}
        self._leaving: set[asyncio.Task] = set()
        self.closed = ''  # why nobody may stay

    def expects(self, path: str) -> bool:
        """Return whether whoever asks for ``path`` may come in."""
        guest = self._guests.get(_token(path))
        return guest is not None and guest.connection is None

    @contextmanager
    def came(self, connection: ServerConnection) -> Iterator[asyncio.Event]:
        """Let a guest be here; yield an event to be cleared while it waits for an answer."""
        guest = self._guests.get(_token(connection.request.path), _Guest())
        guest.connection = connection
        guest.idle.set()
        try:
            yield guest.idle
        finally:
            guest.idle.set()
            guest.gone.set()

    async def host(self, token: str, every_s: float) -> AsyncIterator[None]:
        """
        Let whoever names ``token`` come; yield now and then, until it has gone.

        Closing the iterator sends it elsewhere, after the answer that it waits for.

        :raises RuntimeError: nobody may come any more.
        """
        if self.closed:
            raise RuntimeError(self.closed)
        guest = self._guests[token] = _Guest()
        began = asyncio.get_running_loop().time()
        try:
            yield
            while not guest.gone.is_set() and not self.closed:
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(guest.gone.wait(), every_s)
                late = asyncio.get_running_loop().time() > began + COMES_S
                if guest.connection is None and late:
                    return
                yield
        finally:
            del self._guests[token]
            if guest.connection and not guest.gone.is_set():
                await self._leave(guest, not self.closed)

    def close(self, why: str) -> None:
        """Send all elsewhere at once."""
        self.closed = why
        for guest in self._guests.values():
            guest.gone.set()
            if guest.connection:
                self._leave(guest, False)

    def _leave(self, guest: _Guest, politely: bool) -> asyncio.Future:
        """Let it go; who waits for that may be cancelled."""
        task = asyncio.get_running_loop().create_task(_leave(guest, politely))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)
        return asyncio.shield(task)


async def _leave(guest: _Guest, politely: bool) -> None:
    if politely:
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(guest.idle.wait(), ANSWER_S)
    with suppress(ConnectionClosed):
        await guest.connection.close(ELSEWHERE, 'another replica answers')


def _token(path: str) -> str:
    return parse_qs(urlsplit(path).query).get(TOKEN, [''])[0]
