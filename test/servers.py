# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""A small stand-in for openpi's server, with every fault that one can have."""

import base64
from contextlib import contextmanager, suppress
import hashlib
import re
import socket
import threading

import numpy as np
from pi0_ros.configuration.file import read_all_parameters
from pi0_ros.remote.client import RemotePolicy
from pi0_ros.remote.wire import pack, unpack
from pi0_ros.sim import arm
from websockets.sync.server import serve

WIDTH = 3


def answer(question, steps=10, width=WIDTH):
    """Return a chunk that holds the state, with openpi's timings."""
    state = np.asarray(question.get('state', question.get('observation/state')), float)
    rows = np.tile(state[:width], (steps, 1))
    return {'actions': rows, 'policy_timing': {'infer_ms': 1.0},
            'server_timing': {'infer_ms': 1.5}}


def cut(connection):
    """End a connection without a word."""
    with suppress(OSError):
        connection.socket.shutdown(socket.SHUT_RDWR)


def greet(connection):
    """Answer a websocket's handshake on a bare socket, and send empty metadata."""
    asked = b''
    while b'\r\n\r\n' not in asked:
        asked += connection.recv(4096)
    key = re.search(rb'(?i)sec-websocket-key: *(\S+)', asked).group(1)
    digest = hashlib.sha1(key + b'258EAFA5-E914-47DA-95CA-C5AB0DC85B11').digest()
    connection.sendall(b'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n'
                       b'Connection: Upgrade\r\nSec-WebSocket-Accept: '
                       + base64.b64encode(digest) + b'\r\n\r\n\x82\x01\x80')


def node(address, **changes):
    """Return a RemotePolicy of the simulated arm, as a node of this package has it, warmed up."""
    config = read_all_parameters(None, **{
        'policy': 'remote', 'server': address, 'server_schema': 'pi0_ros',
        'joint_names': list(arm.JOINT_NAMES), 'cameras': ['overhead', 'wrist'],
        'max_inference_time': 30.0, **changes})
    policy = RemotePolicy(config.policy, config.robot, '')
    policy.load()
    policy.warm_up()
    return policy


class StandIn:
    """Behaves as it is told to: ``speaks`` gets a connection after the metadata was sent."""

    def __init__(self, metadata=None, answers=answer, speaks=None, **options):
        self.metadata = pack({} if metadata is None else metadata)
        self.answers, self.speaks, self.options = answers, speaks, options
        self.questions, self.connections, self.open = [], 0, []
        self.port = 0

    def start(self):
        self._server = serve(self._serve, '127.0.0.1', self.port, compression=None,
                             max_size=None, **self.options)
        self.port = self._server.socket.getsockname()[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    @property
    def address(self):
        return f"{'wss' if 'ssl' in self.options else 'ws'}://127.0.0.1:{self.port}"

    def _serve(self, connection):
        self.connections += 1
        self.open.append(connection)
        if self.speaks is not None:
            return self.speaks(connection)
        connection.send(self.metadata)
        for message in connection:
            question = unpack(message)
            self.questions.append(question)
            said = self.answers(question)
            for one in said if isinstance(said, list) else [said]:
                connection.send(one if isinstance(one, (str, bytes)) else pack(one))
            if isinstance(said, str):
                connection.close(1011)
        return None

    def stop(self):
        for connection in self.open:
            cut(connection)
        self._server.shutdown()
        self._thread.join()


@contextmanager
def standing_in(*given, **options):
    """Run a stand-in."""
    server = StandIn(*given, **options).start()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def raw(behave):
    """Run a server of something else: ``behave`` gets a socket."""
    listening = socket.create_server(('127.0.0.1', 0))
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    listening.settimeout(0.1)
    ended = threading.Event()

    def run():
        while not ended.is_set():
            try:
                connection, _ = listening.accept()
            except OSError:
                continue
            with connection:
                try:
                    behave(connection)
                except OSError:
                    pass

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield f'ws://127.0.0.1:{listening.getsockname()[1]}'
    finally:
        ended.set()
        thread.join()
        listening.close()
