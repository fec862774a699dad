# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
``serve --replicas``: several processes that decide, kept alive and chosen from by Ray Serve.

Each connection of a robot is an open request of Ray Serve's to one replica: so Ray knows how many
each has, sends the next robot to the one with fewest, and ends nothing that is in use. Another
checkpoint is another application: robots are sent to it when all its replicas are warm.
"""

import argparse
import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
import copy
import logging
import os
import signal
import ssl
import time
from typing import Any

from pi0_ros.jobs import cluster
from pi0_ros.policy.factory import checkpoint_folder
from pi0_ros.policy.provenance import fingerprint
from pi0_ros.remote import metadata
from pi0_ros.remote.gate import Gate, NoReplica
from pi0_ros.verbs.served import make, until_told
from pi0_ros.weights.files import CheckpointError

log = logging.getLogger(__name__)
REPORT_S = 1.0
BALANCE_S = 5.0     # between looks at who has too many robots
HEALTH_S = 1.0      # between checks
HUNG_S = 120.0      # after which a batch that has not ended never will
LEAVE_S = 30.0      # for robots to leave a checkpoint that is replaced
CPUS = 0.01         # of each: what Ray counts is a place in the cluster, not what it takes
ROBOTS = 256        # of one replica, at most
CHOOSE_S = 2.0      # for which Ray may look for a replica that takes a robot


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
        folder = checkpoint_folder(args.checkpoint)
        if fingerprint(folder) != made_of:
            raise ValueError(f"'{folder}' has changed since it was served: put every checkpoint "
                             'in a folder of its own')
        self._thread = ThreadPoolExecutor(1, 'inference')
        self._policy, self._server = await asyncio.get_running_loop().run_in_executor(
            self._thread, make, args, '', self._thread, True)
        self._server.described[metadata.KEY] |= {
            metadata.REPLICAS: args.replicas, metadata.REPLACES: list(replaces)}
        listening = await self._server.listen('127.0.0.1' if alone else '0.0.0.0', 0)
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
        who = serve.get_replica_context().replica_id.unique_id
        async for _ in self._server.guests.host(token, REPORT_S):
            yield {'who': who, 'host': util.get_node_ip_address(), 'port': self._port,
                   'report': self._server.report()}

    def check_health(self) -> None:
        """Raise an exception if it has to be replaced; Ray Serve asks now and then."""
        if self._server.guests.closed:
            raise RuntimeError(self._server.guests.closed)
        since = self._server.turns.deciding_since
        if since is not None and time.monotonic() - since > HUNG_S:
            raise RuntimeError(f'an inference has not ended for {HUNG_S:.0f} s')


class Application:
    """One checkpoint's replicas."""

    def __init__(self, name: str, handle: Any, described: Mapping[str, Any]) -> None:
        """Begin with no robots."""
        self.name, self.handle, self.described = name, handle, described
        self.leases: dict[str, tuple[str, Any]] = {}  # replica and request, by token


class Replicas:
    """All replicas of a server. Used from one event loop; see ``gate.Fleet``."""

    def __init__(self, args: argparse.Namespace) -> None:
        """Prepare; ``start`` starts."""
        self._args, self._now, self._number = args, None, 0
        self._replaced: list[str] = []
        self._reports: dict[str, dict[str, tuple[str, float]]] = {}
        self._tasks: set[asyncio.Task] = set()
        self._changing = asyncio.Lock()
        self._changes = self._refused = 0

    @property
    def robots(self) -> int:
        """Return how many are sent to a replica, or about to come."""
        return len(self._now.leases) if self._now else 0

    @property
    def described(self) -> Mapping[str, Any]:
        """Return what is said of the checkpoint that decides."""
        return self._now.described

    async def start(self) -> None:
        """
        Start the first ones.

        :raises CheckpointError, ValueError: they cannot.
        """
        self._now = await self._deploy()

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Let something go on beside, until ``close``."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _deploy(self) -> Application:
        loop = asyncio.get_running_loop()
        args = copy.copy(self._args)
        folder = checkpoint_folder(args.checkpoint).resolve()
        args.checkpoint, made_of = str(folder), fingerprint(folder)
        self._number += 1
        name = f'pi0_ros_{id(self):x}_{self._number}'
        handle = await loop.run_in_executor(None, self._run, name, args, made_of)
        described = await handle.describe.remote()
        return Application(name, handle, described)

    def _run(self, name: str, args: argparse.Namespace, made_of: str) -> Any:
        """Start an application; return what Ray Serve hands out for it."""
        import ray
        from ray import serve
        gpus = args.replica_gpus
        if gpus < 0:
            gpus = float(ray.cluster_resources().get('GPU', 0) > 0)
        logging.getLogger('ray.serve').setLevel(logging.CRITICAL)
        serve.start(proxy_location='Disabled', logging_config={'log_level': 'ERROR'})
        logging.getLogger('ray.serve').setLevel(logging.CRITICAL)
        alone = args.ray == 'local' and args.host in ('127.0.0.1', '::1', 'localhost')
        deployment = serve.deployment(Replica).options(
            num_replicas=args.replicas, max_ongoing_requests=ROBOTS,
            ray_actor_options={'num_cpus': CPUS, 'num_gpus': gpus},
            health_check_period_s=HEALTH_S, max_constructor_retry_count=args.replicas,
            graceful_shutdown_wait_loop_s=0.2, graceful_shutdown_timeout_s=LEAVE_S)
        try:
            return serve.run(deployment.bind(args, alone, made_of, tuple(self._replaced)),
                             name=name, route_prefix=None)
        except Exception as error:
            told = serve.status().applications.get(name)
            why = [one.message for one in told.deployments.values()] if told else []
            serve.delete(name)
            raise CheckpointError(f"the replicas of '{args.checkpoint}' do not start: "
                                  f'{_last_line(why[0] if why else str(error))}') from error

    async def lease(self, token: str) -> tuple[str, int]:
        """Let the replica that Ray chooses expect ``token``; see ``gate.Fleet``."""
        from ray import util
        application = self._now
        stream = application.handle.lease.options(stream=True).remote(token)
        try:
            first = await asyncio.wait_for(stream.__anext__(), CHOOSE_S)
        except Exception as error:  # of many kinds: it has died, is broken, or none is there
            stream.cancel()
            raise NoReplica(f'no replica answers: {type(error).__name__}') from error
        application.leases[token] = first['who'], stream
        self.begin(self._follow(application, token, stream))
        self._reports[first['who']] = first['report']
        if application is not self._now:  # it was replaced meanwhile
            stream.cancel()
        host = first['host']
        return '' if host == util.get_node_ip_address() else host, first['port']

    async def _follow(self, application: Application, token: str, stream: Any) -> None:
        """Read what comes of a lease, until it ends."""
        from ray import exceptions
        try:
            async for said in stream:
                self._reports[said['who']] = said['report']
        except asyncio.CancelledError:
            raise
        except exceptions.RayActorError:
            who, _ = application.leases[token]
            if self._reports.pop(who, None):
                log.warning(f"replica '{who}' has died; Ray Serve starts another")
        except Exception as error:
            log.debug(f'a robot has left: {type(error).__name__}')
        finally:
            application.leases.pop(token, None)

    async def running(self) -> int:
        """Return how many replicas answer."""
        from ray import serve
        status = await asyncio.get_running_loop().run_in_executor(None, serve.status)
        mine = status.applications.get(self._now.name) if self._now else None
        return sum(one.replica_states.get('RUNNING', 0)
                   for one in mine.deployments.values()) if mine else 0

    def reports(self) -> Mapping[str, Mapping[str, tuple[str, float]]]:
        """Return the newest figures of each replica."""
        has = Counter(who for who, _ in self._now.leases.values())
        return {who: {**report, 'connections': ('gauge', has[who])}
                for who, report in self._reports.items()}

    def figures(self) -> Mapping[str, tuple[str, float]]:
        """Return those of them all."""
        return {'checkpoint_changes_total': ('counter', self._changes),
                'checkpoint_changes_refused_total': ('counter', self._refused)}

    async def change(self) -> None:
        """Put the checkpoint that is named by now in the place of the one that is served."""
        async with self._changing:
            before = self._now
            known = before.described['fingerprint']
            try:
                folder = checkpoint_folder(self._args.checkpoint)
                if fingerprint(folder) == known:
                    log.info(f"'{folder}' is the checkpoint that is served")
                    return
                log.info(f"another checkpoint, '{folder.resolve().name}', is loaded beside "
                         f"'{before.described['checkpoint']}'")
                self._replaced.append(known)
                after = await self._deploy()
                said = metadata.contract(after.described)
                other = [name for name, value in metadata.contract(before.described).items()
                         if said[name] != value]
                if other and self.robots:
                    await self._end(after)
                    raise ValueError(f"'{after.described['checkpoint']}' has other "
                                     f"{', '.join(other)}, and {self.robots} robots are there: "
                                     'end them, or serve it elsewhere')
            except (CheckpointError, ValueError, OSError) as error:
                self._refused += 1
                if self._replaced and self._replaced[-1] == known:
                    self._replaced.pop()
                log.error(f"'{before.described['checkpoint']}' goes on: {error}")
                return
            self._now, self._reports = after, {}
            self._changes += 1
            log.info(f"'{after.described['checkpoint']}' decides in place of "
                     f"'{before.described['checkpoint']}'")
            await self._end(before)

    async def _end(self, application: Application) -> None:
        """Send its robots elsewhere, and end it."""
        from ray import serve
        for _, stream in list(application.leases.values()):
            stream.cancel()
        # Ray Serve waits for replicas that still let robots go.
        await asyncio.get_running_loop().run_in_executor(None, serve.delete, application.name)

    async def balance(self) -> None:
        """Send a robot elsewhere where a replica has two more than another, again and again."""
        while True:
            await asyncio.sleep(BALANCE_S)
            replicas, leases = await self.running(), dict(self._now.leases)
            has = Counter(who for who, _ in leases.values())
            if has and max(has.values()) - (
                    0 if replicas > len(has) else min(has.values())) > 1:
                most = max(has, key=has.get)
                next(stream for who, stream in leases.values() if who == most).cancel()

    async def close(self) -> None:
        """End all."""
        for task in self._tasks:
            task.cancel()
        if self._now:
            from ray import serve
            await asyncio.get_running_loop().run_in_executor(None, serve.delete, self._now.name)


async def run(args: argparse.Namespace, key: str, context: ssl.SSLContext | None) -> int:
    """Serve with replicas until a signal comes."""
    if args.ray.startswith('ray://'):
        raise ValueError("--ray: Ray's own protocol (ray://) cannot serve: give HOST:6379 of the "
                         'cluster, from a machine that belongs to it')
    # A choice by what a replica had seconds ago would send all robots to one.
    os.environ.setdefault('RAY_SERVE_QUEUE_LENGTH_CACHE_TIMEOUT_S', '0')
    with cluster(args.ray):
        # Before there is anything to change it would end the process.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        fleet = Replicas(args)
        gate = Gate(fleet, key, not (args.relay or context))
        await fleet.start()
        listening = await gate.listen(args.host, args.port, context)
        port = next(iter(listening.sockets)).getsockname()[1]
        said = fleet.described
        log.info(f"{args.replicas} replicas of '{said['checkpoint']}' on "
                 f"{'wss' if context else 'ws'}://{args.host}:{port}, schema {args.schema}, "
                 f"real-time chunking {said['rtc'] or 'none'}")
        fleet.begin(fleet.balance())
        try:
            await until_told({signal.SIGHUP: lambda: fleet.begin(fleet.change())})
        finally:
            listening.close()
            await fleet.close()
    return 0


def _last_line(text: str) -> str:
    """Return what a traceback that Ray passes on amounts to."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return (lines[-1] if lines else 'without a word')[:500]
