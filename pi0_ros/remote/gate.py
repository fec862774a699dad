# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The address of several replicas: it sends robots to one of them, or speaks for them.

Nodes of this package say that they can go elsewhere, and get the address of a replica: their
images go there and nowhere else. For other clients the gate passes messages on; a replica that
goes meanwhile is replaced by another, which is asked again, and they notice nothing.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
import http
import logging
import secrets
import ssl
from typing import Protocol
from urllib.parse import urlsplit

from pi0_ros.remote.guests import ELSEWHERE, TOKEN
from pi0_ros.remote.link import MOVES
from pi0_ros.remote.server import allowed, HEALTH, METRICS
from pi0_ros.remote.wire import MOST
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import serve, Server, ServerConnection
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.http11 import Request, Response

log = logging.getLogger(__name__)
PATIENCE_S = 5.0  # for which a robot that comes waits for a replica
PAUSE_S = 0.1     # between tries
TRIES = 3         # replicas that are asked one question, where each is gone before it answers
HERE = '127.0.0.1'


class NoReplica(Exception):
    """Nobody is there who could answer."""


class Fleet(Protocol):
    """The replicas, and who of them is next."""

    robots: int  # that are sent to one of them

    async def lease(self, token: str) -> tuple[str, int]:
        """
        Let one of them expect ``token``; return its host, '' for this machine, and port.

        :raises NoReplica: there is none.
        """

    async def running(self) -> int:
        """Return how many answer."""

    def reports(self) -> Mapping[str, Mapping[str, tuple[str, float]]]:
        """Return kind and value of the newest figures by name, of each replica."""

    def figures(self) -> Mapping[str, tuple[str, float]]:
        """Return the same of them all."""


class Gate:
    """Lets robots in."""

    def __init__(self, fleet: Fleet, key: str = '', redirects: bool = True) -> None:
        """
        Prepare; ``listen`` listens.

        :param key: that a client must know, '' for none.
        :param redirects: whether robots may reach the replicas themselves.
        """
        self._fleet, self._key, self._redirects = fleet, key, redirects
        self.relayed = 0

    async def listen(self, host: str, port: int, context: ssl.SSLContext | None = None) -> Server:
        """Listen; return the server, which is closed by whoever asked."""
        return await serve(self._relay, host, port, ssl=context, compression=None, max_size=MOST,
                           max_queue=1, origins=[None], process_request=self._admit,
                           ping_interval=20, ping_timeout=60)

    async def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        path = request.path.split('?')[0]
        if path == HEALTH:
            count = await self._fleet.running()
            status = http.HTTPStatus.OK if count else http.HTTPStatus.SERVICE_UNAVAILABLE
            return connection.respond(status, f"{'OK' if count else 'no replica answers'}\n")
        refused = allowed(connection, request, self._key)
        if refused:
            return refused
        if path == METRICS:
            return connection.respond(http.HTTPStatus.OK, await self._metrics())
        if not (self._redirects and MOVES in request.headers):
            return None
        try:
            host, port, token = await self._lease()
        except NoReplica as error:
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, f'{error}\n')
        # On this machine it is where the robot has found us.
        host = host or urlsplit(f"//{request.headers.get('Host', HERE)}").hostname or HERE
        host = f'[{host}]' if ':' in host else host
        moved = connection.respond(http.HTTPStatus.TEMPORARY_REDIRECT, 'a replica answers\n')
        moved.headers['Location'] = f'ws://{host}:{port}/?{TOKEN}={token}'
        return moved

    async def _lease(self) -> tuple[str, int, str]:
        loop = asyncio.get_running_loop()
        end, token = loop.time() + PATIENCE_S, secrets.token_urlsafe(16)
        while True:
            try:
                return *await self._fleet.lease(token), token
            except NoReplica:
                if loop.time() > end:
                    raise
            await asyncio.sleep(PAUSE_S)

    async def _attach(self) -> tuple[ClientConnection, bytes | str]:
        """Return a connection to a replica, and what it says of itself."""
        for _ in range(TRIES):
            host, port, token = await self._lease()
            address = f"ws://{f'[{host}]' if ':' in host else host or HERE}:{port}"
            there = None
            try:
                there = await connect(f'{address}/?{TOKEN}={token}', compression=None,
                                      max_size=MOST, open_timeout=PATIENCE_S, proxy=None)
                return there, await asyncio.wait_for(there.recv(), PATIENCE_S)
            except (OSError, asyncio.TimeoutError, ConnectionClosed, InvalidHandshake) as error:
                log.warning(f'a replica lets nobody in: {type(error).__name__}: {error}')
                if there:
                    await there.close()
        raise NoReplica('no replica lets anybody in')

    async def _relay(self, connection: ServerConnection) -> None:
        there: ClientConnection | None = None
        loop = asyncio.get_running_loop()
        self.relayed += 1
        try:
            there, greeting = await self._attach()
            await connection.send(greeting)
            async for question in connection:
                late = loop.time() + PATIENCE_S
                for _ in range(TRIES):
                    try:
                        await there.send(question)
                        answer = await there.recv()
                        break
                    except ConnectionClosed:
                        # It may be another checkpoint; and nobody wants a late answer.
                        if MOVES in connection.request.headers or loop.time() > late:
                            await connection.close(ELSEWHERE, 'another replica answers')
                            return
                        there, _ = await self._attach()
                else:
                    raise NoReplica(f'{TRIES} replicas have gone before they answered')
                await connection.send(answer)
                if isinstance(answer, str):
                    await there.wait_closed()
                    await connection.close(there.close_code or 1011, there.close_reason or '')
        except ConnectionClosed:
            pass
        except NoReplica as error:
            log.warning(f'{error}')
            with suppress(ConnectionClosed):
                await connection.send(f'Busy: {error}')
                await connection.close(1013, 'ask again later')
        finally:
            self.relayed -= 1
            if there is not None:
                await there.close()

    async def _metrics(self) -> str:
        figures = dict(self._fleet.figures()) | {
            'replicas': ('gauge', await self._fleet.running()),
            'robots': ('gauge', self._fleet.robots), 'relayed': ('gauge', self.relayed)}
        lines = [f'# TYPE pi0_ros_{name} {kind}\npi0_ros_{name} {value:g}\n'
                 for name, (kind, value) in figures.items()]
        reports = self._fleet.reports()
        for name in dict.fromkeys(name for report in reports.values() for name in report):
            of = {who: report[name] for who, report in sorted(reports.items()) if name in report}
            lines += [f'# TYPE pi0_ros_{name} {next(iter(of.values()))[0]}\n',
                      *(f'pi0_ros_{name}{{replica="{who}"}} {value:g}\n'
                        for who, (_, value) in of.items())]
        return ''.join(lines)
