# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
One connection to a server: a question, its answer, and a deadline for both.

The protocol numbers nothing. So whatever comes late, twice or unasked ends the connection: it
would be taken for the answer to the next question.
"""

from collections.abc import Mapping
import contextlib
import logging
from pathlib import Path
import socket
import ssl
import threading
import time
from typing import Any

from pi0_ros.observation.finding import Finding
from pi0_ros.policy.policy import Unserved
from pi0_ros.remote.wire import MOST, pack, unpack, WireError
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

AGAIN_S = 1.0, 3.0  # until a server has been reached again and has spoken, at least, at most
MOST_ANSWER = 2**20  # bytes; a thousand steps of 32 numbers are a quarter of it
FIRST_LINE = 300  # characters
MOVES = 'Pi0-Ros-Moves'  # header of those who can be sent to another address
QUIET = logging.getLogger('pi0_ros.websockets')  # what goes wrong is told by the link
QUIET.setLevel(logging.CRITICAL + 1)


class ServerError(Unserved):
    """A server does not do what it should."""

    def __init__(self, reason: str, text: str) -> None:
        """Keep both."""
        super().__init__(Finding(reason, text, 'server'))


class ServerLeft(ServerError):
    """A connection was closed before an answer came."""


class Link:
    """A connection. One thread calls all methods but ``abort``."""

    def __init__(self, address: str, key: str = '', authority: str = '') -> None:
        """
        Prepare.

        :param address: ws:// or wss://. :param key: that the server asks for, '' for none.
        :param authority: file with the certificate that signed the server's, '' for the system's.
        """
        self.address, self._key, self._authority = address, key, authority
        self._open = contextlib.ExitStack()
        self._socket: ClientConnection | None = None
        self._aborted = False
        self.sent_bytes, self.send_s = 0, 0.0  # of the last question
        self.again_s = AGAIN_S[0]  # how long it may take to connect again

    @property
    def up(self) -> bool:
        """Return whether there is a connection; from any thread."""
        return self._socket is not None

    def connect(self, patience_s: float) -> dict[Any, Any]:
        """
        Connect; return what the server says of itself, a map that may be empty.

        :raises ServerError: there is no such server.
        """
        self.close()
        began = time.monotonic()
        try:
            context = None
            if self.address.startswith('wss:'):
                context = ssl.create_default_context(cafile=self._authority or None)
            # From behind a certificate nobody is sent elsewhere.
            headers = ({} if context else {MOVES: 'yes'}) | (
                {'Authorization': f'Api-Key {self._key}'} if self._key else {})
            try:
                self._socket = self._connected(self.address, context, patience_s, headers)
            except InvalidStatus as error:  # websockets 15 does not follow by itself
                there = error.response.headers.get('Location', '')
                if error.response.status_code != 307 or not there.startswith('ws:') or context:
                    raise
                self._socket = self._connected(there, None, patience_s, {})
            with contextlib.suppress(OSError):  # it has closed: what it said first still tells why
                _tend(self._socket.socket)
            if self._aborted:
                raise OSError('closing')
            said = self._receive(patience_s)
            # Over a slow network it takes about as long the next time.
            self.again_s = min(AGAIN_S[1], max(AGAIN_S[0], 3 * (time.monotonic() - began)))
            return said
        except ServerError:
            self.close()
            raise
        except InvalidStatus as error:
            self.close()
            status = error.response.status_code
            why = {401: 'it refuses the key', 403: 'it refuses the key',
                   503: 'none of its replicas answers'}.get(status, 'it is another kind of server')
            raise ServerError('server_unreachable', f"server '{self.address}' answers HTTP "
                              f'{status}: {why}') from error
        except Exception as error:  # of the system, of websockets, and assertions of its own
            self.close()
            raise ServerError('server_unreachable', f"server '{self.address}' cannot be reached: "
                              f'{_first_line(error)}') from error

    def _connected(self, address: str, context: ssl.SSLContext | None, patience_s: float,
                   headers: Mapping[str, str]) -> ClientConnection:
        return self._open.enter_context(connect(
            address, ssl=context, compression=None, proxy=None, max_size=MOST_ANSWER,
            max_queue=1, open_timeout=patience_s, close_timeout=0.1, ping_interval=None,
            logger=QUIET, additional_headers=headers))

    def ask(self, question: Mapping[str, Any], patience_s: float) -> dict[Any, Any]:
        """
        Return the answer to a question.

        :raises ServerError: it does not come within the deadline, or is none; the connection is
            closed then.
        :raises WireError: the question cannot be sent; the connection stays.
        """
        message, began = pack(question), time.monotonic()
        if len(message) > MOST:
            raise WireError(f'the question has {len(message)} bytes, allowed are {MOST}: let '
                            'images be fitted')
        try:
            self._refuse_unasked()
            # A network that stalls takes no more bytes: the send has the same deadline.
            cut = threading.Timer(patience_s, _cut, (self._socket,))
            cut.daemon = True
            cut.start()
            try:
                self._socket.send(message)
            finally:
                cut.cancel()
            self.sent_bytes, self.send_s = len(message), time.monotonic() - began
            return self._receive(max(0.0, patience_s - self.send_s))
        except ServerError as error:
            self.close()
            if isinstance(error, ServerLeft) and time.monotonic() - began >= patience_s:
                raise self._late() from error  # nobody left: the deadline cut it
            raise
        except Exception as error:
            self.close()
            late = time.monotonic() - began >= patience_s
            raise (ServerError if late else ServerLeft)(
                'server_late' if late else 'server_unreachable',
                f"server '{self.address}' " + (
                    f'took no question within {patience_s:.2f} s: the network stalls' if late else
                    f'is gone: {_first_line(error)}')) from error

    def _refuse_unasked(self) -> None:
        try:
            self._socket.recv(timeout=0)
        except TimeoutError:
            return
        raise ServerError('server_answer', f"server '{self.address}' says something that it was "
                          'not asked')

    def _late(self) -> ServerError:
        return ServerError('server_late', f"server '{self.address}' has not answered within the "
                           'deadline: a late answer is not used')

    def _receive(self, patience_s: float) -> dict[Any, Any]:
        try:
            message = self._socket.recv(timeout=patience_s)
        except TimeoutError as error:
            raise self._late() from error
        except ConnectionClosed as error:
            raise ServerLeft('server_unreachable', f"server '{self.address}' closed the "
                             f'connection: {_first_line(error)}') from error
        if isinstance(message, str):
            raise ServerError('server_error', f"server '{self.address}' failed: {gist(message)}")
        try:
            return unpack(message)
        except WireError as error:
            raise ServerError('server_answer', f"server '{self.address}' sent a message that is "
                              f"none of openpi's protocol: {error}") from error

    def abort(self) -> None:
        """Make a call that is under way fail; from any thread."""
        self._aborted = True
        _cut(self._socket)

    def close(self) -> None:
        """Close the connection, if there is one."""
        link, self._socket = self._socket, None
        _cut(link)  # no farewell that a stalled network would hold up
        with contextlib.suppress(Exception):
            self._open.close()
        self._open = contextlib.ExitStack()


def _cut(link: ClientConnection | None) -> None:
    if link is not None:
        with contextlib.suppress(OSError):
            link.socket.shutdown(socket.SHUT_RDWR)


def _tend(raw: socket.socket) -> None:
    """
    Let the system notice within some seconds that a peer is no more, whatever it was doing.

    Pings of websockets would not do: openpi's server answers none while it infers or compiles.
    """
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (('TCP_KEEPIDLE', 2), ('TCP_KEEPINTVL', 2), ('TCP_KEEPCNT', 3),
                        ('TCP_USER_TIMEOUT', 8000)):
        if hasattr(socket, name):
            raw.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def read_key(path: str) -> str:
    """
    Return the key in a file, '' for no file.

    :raises ValueError: it cannot be read, or has no key.
    """
    if not path:
        return ''
    try:
        key = Path(path).expanduser().read_text().strip()
    except (OSError, ValueError) as error:
        raise ValueError(f"'{path}' cannot be read, expected a file with the server's key: "
                         f'{error}') from error
    if not key or not key.isprintable() or not key.isascii() or len(key) > 1000:
        raise ValueError(f"'{path}' holds no key: expected one line of printable ASCII")
    return key


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:FIRST_LINE]


def gist(traceback: str) -> str:
    """Return what a traceback amounts to: its last line, which names the exception."""
    lines = [line.strip() for line in traceback.strip().splitlines() if line.strip()]
    return (lines[-1] if lines else 'without a word')[:FIRST_LINE]
