# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Our engine behind openpi's protocol, for openpi's own clients and for nodes of this package.

Inference is off the event loop, in one thread: health checks and other clients are answered
meanwhile. Questions are decided in the order in which they came, or by their deadlines, one at a
time or several at once (``turns``); a client has at most one open, so that robots take turns.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
import hmac
import http
import logging
import math
import re
import ssl
import time
from typing import Any

import numpy as np
from pi0_ros.observation.observation import Observation
from pi0_ros.policy.policy import Leftover
from pi0_ros.remote import metadata
from pi0_ros.remote.guests import ELSEWHERE, Guests
from pi0_ros.remote.schemas import Schema
from pi0_ros.remote.turns import Busy, Turns
from pi0_ros.remote.wire import MOST, pack, unpack, WireError
from websockets.asyncio.server import serve, Server, ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.protocol import State

log = logging.getLogger(__name__)
MOST_TEXT = 1000  # characters, as the node accepts
HEALTH, METRICS = '/healthz', '/metrics'
PATH = re.compile(r"""(?:(?<![\w.:/])(?:[A-Za-z]:\\|~?/)|(?<=file:)/)[^\s'",:;()]+""")
Asked = tuple[Observation, 'np.ndarray | None', 'Leftover | None']
Decide = Callable[[Sequence[Asked]], Sequence[Any]]  # a chunk, or an exception, for each


class NotFinite(ValueError):
    """A policy decided what no robot can do."""


class PolicyServer:
    """Answers questions with a policy that is loaded."""

    def __init__(self, decide: Decide, described: Mapping[str, Any], schema: Schema,
                 cameras: Mapping[str, str], state_width: int, thread: ThreadPoolExecutor,
                 key: str = '', padded: bool = False, most: int = 1, wait_s: float = 0.0,
                 most_waiting: int = 64, check: Callable[[], None] | None = None,
                 tells: bool = True) -> None:
        """
        Prepare; ``listen`` listens.

        :param decide: decides several, each from an observation in the order of the schema's
            state; called in ``thread``, with at most ``most`` of them.
        :param described: what is known of the checkpoint, see ``metadata.describe``.
        :param tells: whether clients are told; those of openpi expect other things there.
        :param cameras: the checkpoint's camera for each of the schema's.
        :param wait_s: and ``most_waiting``, see ``Turns``.
        :param key: that a client must know, '' for none.
        :param padded: whether the state may be shorter, where statistics are padded.
        :param check: of a replica, raises an exception if the policy is broken; called in
            ``thread`` after an answer that cannot be. Then only guests may come.
        """
        self.described, self._schema = dict(described), schema
        self._told = self.described if tells else {}
        self._decide = decide
        self._waits = most, wait_s, most_waiting
        self.turns: Turns | None = None
        self._cameras, self._width, self._key = dict(cameras), state_width, key
        self._thread, self._padded, self._check = thread, padded, check
        self.guests = Guests() if check else None
        self.answered = self.connected = 0

    async def listen(self, host: str, port: int, context: ssl.SSLContext | None = None) -> Server:
        """Listen; return the server, which is closed by whoever asked."""
        self._loop = asyncio.get_running_loop()
        self.turns = Turns(self._decided, self._thread, *self._waits)
        # No page of a browser may ask: these say where they come from.
        return await serve(self._serve, host, port, ssl=context, compression=None, max_size=MOST,
                           max_queue=1, origins=[None], process_request=self._admit,
                           ping_interval=20, ping_timeout=60)

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        if request.path.split('?')[0] == HEALTH:
            return connection.respond(http.HTTPStatus.OK, 'OK\n')
        if self.guests is not None:
            return None if self.guests.expects(request.path) else connection.respond(
                http.HTTPStatus.UNAUTHORIZED, 'this is a replica: ask at the address of all\n')
        refused = allowed(connection, request, self._key)
        if refused is None and request.path.split('?')[0] == METRICS:
            return connection.respond(http.HTTPStatus.OK, ''.join(
                f'# TYPE pi0_ros_{name} {kind}\npi0_ros_{name} {value:g}\n'
                for name, (kind, value) in self.report().items()))
        return refused

    def report(self) -> dict[str, tuple[str, float]]:
        """Return how it goes: kind and value of figures, as Prometheus has them."""
        turns = self.turns
        return {'connections': ('gauge', self.connected), 'waiting': ('gauge', turns.waiting),
                'answers_total': ('counter', self.answered),
                'batches_total': ('counter', turns.batches),
                'busy_total': ('counter', turns.refused),
                'batch_seconds': ('gauge', turns.batch_s)}

    async def _serve(self, connection: ServerConnection) -> None:
        with self.guests.came(connection) if self.guests else nullcontext(
                asyncio.Event()) as idle:
            await self._talk(connection, idle)

    async def _talk(self, connection: ServerConnection, idle: asyncio.Event) -> None:
        """Answer questions; ``idle`` is set between them."""
        who, loop = _name(connection), asyncio.get_running_loop()
        log.info(f'{who} is there')
        self.connected += 1
        answering: asyncio.Task | None = None
        before: dict[str, float] = {}  # the time of the answer before
        try:
            await connection.send(pack(self._told))
            async for message in connection:
                if answering:  # who asks again has no use for the answer before
                    answering.cancel()
                idle.clear()
                began = time.monotonic()
                question = await loop.run_in_executor(None, unpack, message)
                answering = loop.create_task(
                    self._reply(connection, question, began, before, idle))
        except ConnectionClosed:
            pass
        except Exception as error:
            await self._complain(connection, error)
        finally:
            if answering:
                answering.cancel()
            self.connected -= 1
            log.info(f'{who} has gone')

    async def _reply(self, connection: ServerConnection, question: Mapping[str, Any],
                     began: float, before: dict[str, float], idle: asyncio.Event) -> None:
        """Answer a question that came at ``began``, or say why not and close the connection."""
        try:
            answer = await self._answer(question, connection)
            answer['server_timing'] |= before
            await connection.send(pack(answer))
            before['prev_total_ms'] = 1e3 * (time.monotonic() - began)
            self.answered += 1
            idle.set()
        except ConnectionClosed:
            pass
        except Exception as error:
            await self._complain(connection, error)

    async def _complain(self, connection: ServerConnection, error: Exception) -> None:
        """Say what is wrong, and close the connection."""
        busy = isinstance(error, Busy)
        log.warning(f'{_name(connection)}: {type(error).__name__}: {error}',
                    exc_info=not isinstance(error, (ValueError, Busy)))
        with suppress(ConnectionClosed):
            if self.guests and self.guests.closed:
                await connection.close(ELSEWHERE, 'another replica answers')
            await connection.send(f'Busy: {error}' if busy else
                                  f'{type(error).__name__}: {without_paths(error)}')
            await connection.close(*(1013, 'busy: ask again later') if busy else
                                   (1011, 'the reason is in the previous frame'))

    async def _answer(self, question: Mapping[str, Any], connection: ServerConnection
                      ) -> dict[str, Any]:
        asked, began = self._read(question), time.monotonic()
        chunk, taken_s = await self.turns.ask(
            asked, lambda: connection.state is State.OPEN, _deadline_s(question))
        ours = {metadata.GIVEN: chunk.given, metadata.ID: question[metadata.ID]} \
            if metadata.ID in question else {}
        return {'actions': chunk.positions, **ours, 'policy_timing': {'infer_ms': 1e3 * taken_s},
                'server_timing': {'infer_ms': 1e3 * (time.monotonic() - began)}}

    def _decided(self, asked: Sequence[Asked]) -> list[Any]:
        """Decide in the thread, whoever still waits; a policy that is broken has no guests."""
        try:
            out = [NotFinite('the policy decided values that are not finite')
                   if not isinstance(one, Exception) and not np.isfinite(one.positions).all()
                   else one for one in self._decide(asked)]
        except Exception as error:
            out = [error] * len(asked)
        for error in out:
            if isinstance(error, Exception) and (
                    isinstance(error, NotFinite) or not isinstance(error, ValueError)):
                self._doubt(error)
        return out

    def _doubt(self, error: Exception) -> None:
        """Find out whether it was the question or the policy."""
        if self._check is None or self.guests.closed:
            return
        try:
            self._check()
        except Exception as broken:
            log.error(f'the policy is broken: {broken}; at first: {error}')
            # Before whoever asked learns of it.
            self._loop.call_soon_threadsafe(
                self.guests.close, f'the policy is broken: {broken}')

    def _read(self, question: Mapping[str, Any]) -> Asked:
        """
        Return what a question asks.

        :raises ValueError: it does not fit the checkpoint.
        """
        state, images, text = self._schema.observation(question)
        if len(state) != self._width and not (self._padded and 0 < len(state) < self._width):
            raise ValueError(f'the state has {len(state)} numbers, expected {self._width}')
        if len(text) > MOST_TEXT or not text.replace('\n', ' ').isprintable():
            raise ValueError(f'the instruction has {len(text)} characters, or some that are no '
                             f'text; allowed are {MOST_TEXT}')
        images = {self._cameras[name]: image for name, image in images.items()
                  if name in self._cameras}
        if not images:
            raise ValueError(f"there is no image of {', '.join(self._cameras)}")
        said = self._told.get(metadata.KEY, {})
        noise = None
        if said and metadata.NOISE in question:
            noise = np.array(question[metadata.NOISE], float)
            if list(noise.shape) != said.get('noise') or not np.isfinite(noise).all():
                raise ValueError(f'the noise has shape {list(noise.shape)}, expected finite '
                                 f"numbers of {said.get('noise')}")
        elif said and metadata.SEED in question:
            seed = question[metadata.SEED]
            if not isinstance(seed, list) or not 1 <= len(seed) <= 4 or not all(
                    type(one) is int and 0 <= one < 2**63 for one in seed):
                raise ValueError(f'the seed is {seed!r:.80}, expected whole numbers')
            noise = np.random.default_rng(tuple(seed)).standard_normal(said['noise'])
        return (Observation(0, state, images, {}, text), noise, _leftover(
            question, said.get('action', {}).get('middle')))


def allowed(connection: ServerConnection, request: Request, key: str) -> Response | None:
    """Return what refuses somebody who does not know the key, '' for none."""
    given = request.headers.get_all('Authorization')
    wanted = f'Api-Key {key}'.encode()
    if key and not (len(given) == 1 and hmac.compare_digest(
            given[0].encode(errors='replace'), wanted)):
        return connection.respond(http.HTTPStatus.UNAUTHORIZED,
                                  'this server needs the header Authorization: Api-Key KEY\n')
    return None


def _deadline_s(question: Mapping[str, Any]) -> float:
    """Return how long who asks waits for an answer."""
    said = question.get(metadata.DEADLINE, math.inf)
    if isinstance(said, bool) or not isinstance(said, (int, float)) or not said > 0:
        raise ValueError(f'the deadline is {said!r:.80}, expected seconds')
    return float(said)


def _leftover(question: Mapping[str, Any], width: np.ndarray | None) -> Leftover | None:
    if metadata.LEFTOVER not in question or width is None:
        return None
    given, delay = np.array(question[metadata.LEFTOVER], float), question.get(metadata.DELAY)
    if given.ndim != 2 or given.shape[1] != len(width) or len(given) > metadata.MOST_STEPS \
            or np.isinf(given).any() or type(delay) is not int or not 0 <= delay <= len(given):
        raise ValueError(f'the leftover has shape {list(given.shape)} and delay {delay!r}, '
                         f'expected [steps, {len(width)}] and at most so many steps')
    return Leftover(given, delay)


def without_paths(error: BaseException) -> str:
    """Return the first line of an error without paths of this machine."""
    if isinstance(error, (ValueError, WireError)):
        lines = str(error).splitlines() or ['']
        return PATH.sub(lambda path: '…/' + re.split(r'[\\/]', path.group().rstrip('\\/'))[-1],
                        lines[0])[:500]
    return "the inference failed; the server's log has why"


def _name(connection: ServerConnection) -> str:
    address = connection.remote_address
    return f'{address[0]}:{address[1]}' if address else 'a client'
