# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""One of the processes of ``serve --replicas``."""

import argparse
import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
import hashlib
import logging
from typing import Any

from pi0_ros.policy.factory import checkpoint_folder
from pi0_ros.policy.provenance import fingerprint
from pi0_ros.remote import metadata
from pi0_ros.remote.gate import HERE
from pi0_ros.verbs.served import make

log = logging.getLogger(__name__)
REPORT_S = 1.0


class Replica:
    """One process that decides, in Ray Serve's hands."""

    async def __init__(self, args: argparse.Namespace, alone: bool, made_of: str,
                       replaces: tuple[str, ...]) -> None:
        """
        Load, warm up and listen.

        :param args: of the verb. :param alone: whether only this machine may connect.
        :param made_of: the fingerprint that the checkpoint must have.
        :param replaces: those of the checkpoints before.
        :raises ValueError: the checkpoint is another one by now, or what loading raises.
        """
        logging.basicConfig(level=logging.INFO, format='pi0_ros replica: %(message)s')
        logging.getLogger('websockets').setLevel(logging.CRITICAL)
        if substance(args) != made_of:
            raise ValueError(f"'{args.checkpoint}' or the parameter file has changed since it was "
                             'served: put every checkpoint in a folder of its own, and let the '
                             'file be until the next start')
        self._thread = ThreadPoolExecutor(1, 'inference')
        self._policy, self._server = await asyncio.get_running_loop().run_in_executor(
            self._thread, make, args, '', self._thread, True)
        self._server.described[metadata.KEY] |= {
            metadata.REPLICAS: args.replicas, metadata.REPLACES: list(replaces)}
        listening = await self._server.listen(HERE if alone else '0.0.0.0', 0)
        self._port = next(iter(listening.sockets)).getsockname()[1]

    def describe(self) -> dict[str, Any]:
        """Return what it says of its checkpoint."""
        return self._server.described[metadata.KEY]

    async def lease(self, token: str) -> AsyncIterator[dict[str, Any]]:
        """
        Let a robot that names ``token`` come; yield where and how it goes until it has gone.

        :raises RuntimeError: the policy is broken.
        """
        from ray import serve, util
        await self.check_health()
        who = serve.get_replica_context().replica_id.unique_id
        async for _ in self._server.guests.host(token, REPORT_S):
            yield {'who': who, 'host': util.get_node_ip_address(), 'port': self._port,
                   'report': self._server.report()}

    async def check_health(self) -> None:
        """Raise an exception if it has to be replaced; Ray Serve asks now and then."""
        if self._server.guests.closed:
            raise RuntimeError(self._server.guests.closed)
        if self._server.turns.hangs:
            self._server.guests.close('an inference does not end')
            raise RuntimeError('an inference does not end')


def substance(args: argparse.Namespace) -> str:
    """Return what replicas must have alike: the checkpoint's fingerprint, and parameters."""
    parameters = args.params_file.read_bytes() if args.params_file else b''
    return (f'{fingerprint(checkpoint_folder(args.checkpoint))}+'
            f'{hashlib.sha256(parameters).hexdigest()[:16]}')
