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
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
import copy
import logging
import os
import re
import signal
import ssl
from typing import Any

from pi0_ros.jobs import cluster, RAY
from pi0_ros.policy.factory import checkpoint_folder
from pi0_ros.remote import metadata
from pi0_ros.remote.gate import Gate, HERE, NoReplica
from pi0_ros.remote.link import gist
from pi0_ros.verbs.replica import Replica, substance
from pi0_ros.verbs.served import until_told
from pi0_ros.weights.files import CheckpointError

log = logging.getLogger(__name__)
BALANCE_S = 5.0     # between looks at who has too many robots
HEALTH_S = 1.0      # between checks
STANDS_S = 5.0      # for which a check may go unanswered; the third in a row tells
START_S = 0.2       # between looks at whether all are ready
LEAVE_S = 30.0      # for robots to leave a checkpoint that is replaced
CPUS = 0.01         # of each: what Ray counts is a place in the cluster, not what it takes
ROBOTS = 256        # of one replica, at most
CHOOSE_S = 2.0      # for which Ray may look for a replica that takes a robot


class Application:
    """One checkpoint's replicas."""

    def __init__(self, name: str, made_of: str, handle: Any, described: Mapping[str, Any]
                 ) -> None:
        """Begin with no robots."""
        self.name, self.made_of, self.handle, self.described = name, made_of, handle, described
        self.leases: dict[str, tuple[str, Any]] = {}  # replica and request, by token


class Replicas:
    """All replicas of a server. Used from one event loop; see ``gate.Fleet``."""

    def __init__(self, args: argparse.Namespace) -> None:
        """Prepare; ``start`` starts."""
        self._args, self._now, self._names = args, None, []
        self.relayed: Callable[[], int] = lambda: 0  # robots that the gate speaks for
        self._replaced: list[str] = []
        self._reports: dict[str, dict[str, tuple[str, float]]] = {}
        self._tasks: set[asyncio.Task] = set()
        self._changing = asyncio.Lock()
        self._starter = ThreadPoolExecutor(1)
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
        args.checkpoint = str(folder)
        made_of = substance(args)
        self._names.append(f'pi0_ros_{os.getpid()}_{id(self):x}_{len(self._names)}')
        name = self._names[-1]
        handle = await loop.run_in_executor(self._starter, self._run, name, args, made_of)
        try:
            await self._until_running(name, args.checkpoint)
        except CheckpointError:
            await self._delete(name)
            raise
        return Application(name, made_of, handle, await handle.describe.remote())

    async def _until_running(self, name: str, checkpoint: str) -> None:
        """
        Wait until all replicas are ready.

        :raises CheckpointError: they do not start.
        """
        from ray import serve
        while True:
            told = (await asyncio.get_running_loop().run_in_executor(
                None, serve.status)).applications.get(name)
            if told and told.status == 'RUNNING':
                return
            if told and told.status in ('DEPLOY_FAILED', 'UNHEALTHY'):
                why = next((one.message for one in told.deployments.values()), told.message)
                where = re.search(r'\bip=([^\s,)]+)', why)
                raise CheckpointError(
                    f"the replicas of '{checkpoint}' do not start: {gist(why)}"
                    + (f' (on machine {where[1]})' if where else '')
                    + ('; what the package needs must be installed there, too'
                       if 'ModuleNotFoundError' in gist(why) else ''))
            await asyncio.sleep(START_S)

    async def _delete(self, *names: str) -> None:
        """End applications, those that are there."""
        from ray import serve

        def end() -> None:
            for name in set(names) & set(serve.status().applications):
                serve.delete(name)

        await asyncio.get_running_loop().run_in_executor(None, end)

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
        needed, free = gpus * args.replicas, ray.available_resources().get('GPU', 0.0)
        if needed > free:
            raise CheckpointError(
                f'{args.replicas} replicas with {gpus:g} GPUs each need {needed:g}, free are '
                f'{free:g}: fewer --replicas, or a smaller --replica-gpus, so that the next '
                'checkpoint has room beside this one')
        alone = args.ray == 'local' and (args.relay or bool(args.certificate) or args.host in (
            HERE, 'localhost'))
        deployment = serve.deployment(Replica).options(
            num_replicas=args.replicas, max_ongoing_requests=ROBOTS,
            ray_actor_options={'num_cpus': CPUS, 'num_gpus': gpus},
            health_check_period_s=HEALTH_S, health_check_timeout_s=STANDS_S,
            max_constructor_retry_count=args.replicas,
            graceful_shutdown_wait_loop_s=0.2, graceful_shutdown_timeout_s=LEAVE_S)
        # Who waited in here could not be told to end.
        return serve.run_many([serve.RunTarget(deployment.bind(
            args, alone, made_of, tuple(self._replaced)), name, None)],
            wait_for_applications_running=False)[0]

    async def lease(self, token: str) -> tuple[str, int]:
        """Let the replica that Ray chooses expect ``token``; see ``gate.Fleet``."""
        from ray import util
        application = self._now
        if application is None:
            raise NoReplica('the replicas are starting')
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
            raise NoReplica('another checkpoint takes over')
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
        has = Counter(who for who, _ in self._now.leases.values()) if self._now else {}
        return {who: {**report, 'connections': ('gauge', has.get(who, 0))}
                for who, report in self._reports.items()}

    def figures(self) -> Mapping[str, tuple[str, float]]:
        """Return those of them all."""
        return {'checkpoint_changes_total': ('counter', self._changes),
                'checkpoint_changes_refused_total': ('counter', self._refused)}

    async def change(self) -> None:
        """Put the checkpoint that is named by now in the place of the one that is served."""
        if self._now is None:
            return
        async with self._changing:
            before = self._now
            known = before.described['fingerprint']
            try:
                folder = checkpoint_folder(self._args.checkpoint)
                if substance(self._args) == before.made_of:
                    log.info(f"'{folder}' is the checkpoint that is served")
                    return
                log.info(f"another checkpoint, '{folder.resolve().name}', is loaded beside "
                         f"'{before.described['checkpoint']}'")
                self._replaced.append(known)
                after = await self._deploy()
                said = metadata.contract(after.described)
                other = [name for name, value in metadata.contract(before.described).items()
                         if said[name] != value]
                if after.made_of.partition('+')[2] != before.made_of.partition('+')[2]:
                    other.append('parameters')
                there = max(self.robots, self.relayed())
                if other and there:
                    await self._end(after)
                    raise ValueError(f"'{after.described['checkpoint']}' has other "
                                     f"{', '.join(other)}, and {there} robots are there: end "
                                     'them, or serve it elsewhere')
            except Exception as error:  # also of Ray's many: whatever it is, the old one goes on
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
        for _, stream in list(application.leases.values()):
            stream.cancel()
        # Ray Serve waits for replicas that still let robots go.
        await self._delete(application.name)

    async def balance(self) -> None:
        """Send a robot elsewhere where a replica has two more than another, again and again."""
        while True:
            await asyncio.sleep(BALANCE_S)
            try:
                replicas, leases = await self.running(), dict(self._now.leases)
            except Exception as error:  # of Ray's many; it is asked again
                log.debug(f'Ray Serve does not answer: {error}')
                continue
            has = Counter(who for who, _ in leases.values())
            if has and max(has.values()) - (
                    0 if replicas > len(has) else min(has.values())) > 1:
                most = max(has, key=has.get)
                next(stream for who, stream in leases.values() if who == most).cancel()

    async def close(self) -> None:
        """End all."""
        for _, stream in list(self._now.leases.values()) if self._now else ():
            stream.cancel()
        for task in self._tasks:
            task.cancel()
        if self._names:
            # What is being started cannot be called back, and would connect to Ray anew.
            await asyncio.get_running_loop().run_in_executor(None, self._starter.shutdown)
            await self._delete(*self._names)


async def run(args: argparse.Namespace, key: str, context: ssl.SSLContext | None) -> int:
    """Serve with replicas until a signal comes."""
    if ':' in args.host:
        raise ValueError(f"--host '{args.host}': replicas listen on IPv4 addresses")
    if args.ray.startswith('ray://'):
        raise ValueError("--ray: Ray's own protocol (ray://) cannot serve: give HOST:6379 of the "
                         'cluster, from a machine that belongs to it')
    # A choice by what a replica had seconds ago would send all robots to one.
    os.environ.setdefault('RAY_SERVE_QUEUE_LENGTH_CACHE_TIMEOUT_S', '0')
    with cluster(args.ray):
        try:
            from ray import serve  # noqa: F401
        except ImportError as error:
            raise ValueError(f'Ray is there, but Ray Serve is not ({error.msg}): {RAY}') from error
        fleet = Replicas(args)
        gate = Gate(fleet, key, not (args.relay or context))
        fleet.relayed = lambda: gate.relayed
        listening = await gate.listen(args.host, args.port, context)
        port = next(iter(listening.sockets)).getsockname()[1]

        async def go() -> None:
            await fleet.start()
            said = fleet.described
            log.info(f"{args.replicas} replicas of '{said['checkpoint']}' on "
                     f"{'wss' if context else 'ws'}://{args.host}:{port}, schema {args.schema}, "
                     f"real-time chunking {said['rtc'] or 'none'}")
            await fleet.balance()

        told = asyncio.create_task(until_told({signal.SIGHUP: lambda: fleet.begin(
            fleet.change())}))
        going = asyncio.create_task(go())
        try:
            await asyncio.wait({told, going}, return_when=asyncio.FIRST_COMPLETED)
            if going.done():
                going.result()  # why they do not start
        finally:
            listening.close()
            told.cancel(), going.cancel()
            await fleet.close()
    return 0
