# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The same work on many inputs: here, in processes of this machine, or on a Ray cluster.

A worker that dies takes nothing with it: its job goes to another one, twice at most.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
import importlib.util
import logging
import multiprocessing
from multiprocessing.connection import Connection, wait
import os
from pathlib import Path
import re
import signal
import socket
from types import ModuleType
from typing import Any

log = logging.getLogger(__name__)
TRIES = 3
NICE = 15  # of workers: a robot that this machine drives comes first
LOOK_S = 5.0  # between looks at whether any machine is left
ANSWER_S = 5.0  # for which a cluster may take to answer
MEMORY = 2 * 2**30  # bytes that a worker may need
NODE = 'ray.io/node-id'  # Ray's label of a machine
RAY = 'pip install -r requirements/ray.txt'
Result = tuple[int, Any, Exception | None]  # number of a job, what came of it or why nothing


class JobError(ValueError):
    """A job could not be done anywhere."""


def usual_jobs() -> int:
    """Return how many workers this machine has room for: cores, bounded by free memory."""
    free = re.search(r'MemAvailable:\s*(\d+)', Path('/proc/meminfo').read_text())
    return max(1, min(len(os.sched_getaffinity(0)), int(free[1]) * 1024 // MEMORY if free else 1))


@dataclass(frozen=True)
class Runner:
    """Where jobs run."""

    jobs: int = 0   # processes; 0: what the machine has room for
    ray: str = ''   # address of a cluster, '' for none
    unit: str = 'B'  # of sizes
    gpus: float = 0.0  # of the cluster's, for each job; a fraction shares one

    def run(self, work: Callable[[Any], Any], jobs: Mapping[int, Any], sizes: Mapping[int, int],
            paths: Callable[[Any], Sequence[Path]] = lambda job: ()) -> Iterator[Result]:
        """
        Yield the result of every job as it comes, in any order.

        What ``work`` raises comes as an error; a KeyboardInterrupt ends all.

        :param work: a function of a module; it and its jobs are pickled.
        :param sizes: of each job, bytes, for the bar.
        :param paths: return what a machine of a cluster must see for a job.
        :raises JobError: there is no Ray, or no such cluster.
        """
        from tqdm import tqdm  # here, as a machine of a cluster may lack it
        count = min(self.jobs or usual_jobs(), len(jobs))
        if not self.ray and count <= 1:
            yield from _here(work, jobs)
            return
        made = (_on_ray(work, jobs, paths, self.ray, self.gpus) if self.ray else
                _in_processes(work, jobs, count))
        bar, failed = tqdm(total=sum(sizes.values()), unit=self.unit, unit_scale=True,
                           dynamic_ncols=True), 0
        try:
            for number, (key, out, error) in enumerate(made, 1):
                failed += error is not None
                bar.update(sizes[key])
                bar.set_postfix_str(f'{number} of {len(jobs)}'
                                    + (f', {failed} failed' if failed else ''))
                yield key, out, error
        finally:
            made.close()
            bar.close()


def _here(work: Callable[[Any], Any], jobs: Mapping[int, Any]) -> Iterator[Result]:
    for number, job in jobs.items():
        try:
            out = work(job)
        except Exception as error:
            yield number, None, error if isinstance(error, (ValueError, OSError)) else _plain(
                error)
        else:
            yield number, out, None


class _Worker:
    """A process that takes one job after another."""

    def __init__(self, work: Callable[[Any], Any]) -> None:
        context = multiprocessing.get_context('spawn')  # threads and a fork do not go together
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(work, theirs, os.getpid()),
                                       daemon=True)
        # Ctrl-C goes to all, also to one that is still importing: the parent ends it.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        theirs.close()
        self.number: int | None = None

    def give(self, number: int, job: Any) -> None:
        self.number = number
        try:
            self.pipe.send(job)
        except OSError:  # it is gone, which is seen when it is asked
            pass

    def take(self) -> tuple[Any, Exception | None]:
        """
        Return what came of its job.

        :raises EOFError: it died.
        """
        self.number = None
        return self.pipe.recv()

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _serve(work: Callable[[Any], Any], pipe: Connection, parent: int) -> None:
    """Do what comes through the pipe, until it is closed or the parent is gone."""
    os.nice(NICE)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    _die_with(parent)
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        try:
            out = work(job), None
        except Exception as error:
            out = None, _plain(error)
        pipe.send(out)


def _die_with(parent: int) -> None:
    """Let the kernel end this process when its parent ends, so that nobody writes unseen."""
    import ctypes
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)


def _plain(error: Exception) -> Exception:
    """Return an error that can be pickled, and says the same."""
    if isinstance(error, OSError) and error.errno is not None:
        return OSError(error.errno, error.strerror or str(error), error.filename)
    return JobError(str(error) if isinstance(error, (ValueError, ImportError, OSError))
                    else f'{type(error).__name__}: {error}')


def _in_processes(work: Callable[[Any], Any], jobs: Mapping[int, Any], count: int
                  ) -> Iterator[Result]:
    waiting = [(number, 1) for number in reversed(jobs)]  # and which try it is
    tries: dict[int, int] = {}
    workers = [_Worker(work) for _ in range(count)]
    try:
        while waiting or any(one.number is not None for one in workers):
            for one in workers:
                if one.number is None and waiting:
                    number, tries_of = waiting.pop()
                    tries[number] = tries_of
                    one.give(number, jobs[number])
            busy = {one.pipe: one for one in workers if one.number is not None}
            for pipe in wait(list(busy)):
                one, number = busy[pipe], busy[pipe].number
                try:
                    yield number, *one.take()
                except (EOFError, OSError):
                    code = _ended(one)
                    workers[workers.index(one)] = _Worker(work)
                    if tries[number] < TRIES:
                        waiting.append((number, tries[number] + 1))
                        continue
                    yield number, None, JobError(
                        f'its worker died {TRIES} times, the last time by {code}' + (
                            ': out of memory, most likely; fewer --jobs leave more to each'
                            if code == 'SIGKILL' else ''))
    finally:
        for one in workers:
            one.end()


def _ended(worker: _Worker) -> str:
    """Return how a worker ended."""
    worker.process.join()
    code = worker.process.exitcode or 0
    worker.end()
    return signal.Signals(-code).name if code < 0 else f'exit code {code}'


def _on_ray(work: Callable[[Any], Any], jobs: Mapping[int, Any],
            paths: Callable[[Any], Sequence[Path]], address: str, gpus: float) -> Iterator[Result]:
    """
    Run jobs on a Ray cluster, whose machines see the same folders.

    The package travels with them; what it needs must be installed there. What a machine cannot do
    because it lacks something, or cannot read or write, is done by another, and that one gets no
    more: but one that nobody can do says nothing of machines.
    """
    with cluster(address) as ray:
        from ray import exceptions
        # A worker stays for the next job, also one with a GPU: what it has loaded, it keeps.
        task = ray.remote(max_retries=0, max_calls=0, num_cpus=1, num_gpus=gpus,
                          memory=MEMORY)(_there)
        unfit: set[str] = set()
        failed: dict[int, dict[str, Exception]] = {number: {} for number in jobs}  # by machine
        died = dict.fromkeys(jobs, 0)
        waiting: dict[Any, tuple[int, set[str]]] = {}  # job, and machines that may not do it

        def begin(number: int) -> bool:
            avoided = unfit | set(failed[number])
            if avoided and not _able(ray.nodes(), gpus) - avoided:
                return False
            begun = task.options(label_selector={NODE: f"!in({','.join(sorted(avoided))})"}
                                 if avoided else None)
            waiting[begun.remote([str(path) for path in paths(jobs[number])],
                                 ray.cloudpickle.dumps((work, jobs[number])))] = number, avoided
            return True

        for number in jobs:
            begin(number)
        while waiting:
            done, others = ray.wait(list(waiting), timeout=LOOK_S)
            if not done:
                able = _able(ray.nodes(), gpus)
                # Whoever could do them is gone; one that any machine may do is not given up.
                done = [one for one in others if waiting[one][1] and not able - waiting[one][1]]
                for one in done:
                    ray.cancel(one, force=True)
            for ready in done:
                (number, _), out = waiting.pop(ready), None
                try:
                    node, out, error = ray.get(ready)
                except exceptions.RayError as gone:  # a machine, a worker or the memory
                    died[number] += 1
                    if died[number] < TRIES and begin(number):
                        continue
                    error = JobError(f'no machine could do it, {died[number]} tries: '
                                     f'{str(gone).strip().splitlines()[0]}')
                else:
                    if isinstance(error, (ImportError, OSError)):
                        failed[number][node] = error
                        if begin(number):
                            continue
                    elif failed[number] and not error:
                        for one in set(failed[number]) - unfit:
                            log.warning(f'{failed[number][one]}: another could, and this one gets '
                                        'no more')
                        unfit |= set(failed[number])
                yield number, out, _plain(error) if error else None


def _able(nodes: Sequence[Mapping[str, Any]], gpus: float) -> set[str]:
    """Return which machines of a cluster have what a job takes."""
    return {one['NodeID'] for one in nodes if one['Alive'] and all(
        one['Resources'].get(name, 0) >= needed
        for name, needed in (('CPU', 1), ('GPU', gpus), ('memory', MEMORY)))}


def _there(paths: Sequence[str], packed: bytes) -> tuple[str, Any, Exception | None]:
    """Do a job on a machine of a cluster; return the machine's number, and what came."""
    import ray
    node, name = ray.get_runtime_context().get_node_id(), ray.util.get_node_ip_address()
    try:
        for path in paths:
            os.stat(path)
        work, job = ray.cloudpickle.loads(packed)  # here: what cannot be imported is told
        return node, work(job), None
    except ImportError as error:
        return node, None, ImportError(f'machine {name} of the cluster: {error}; what the package '
                                       'needs must be installed there, too')
    except Exception as error:
        if isinstance(error.__cause__, (ImportError, OSError)) and not isinstance(error, OSError):
            return node, None, OSError(f'{error} (on machine {name} of the cluster)')
        if not isinstance(error, OSError):
            return node, None, _plain(error)
        said = f'{error.strerror or error} (on machine {name} of the cluster)'
        return node, None, OSError(error.errno, said, error.filename) if error.errno else OSError(
            said)


def _refusal(address: str, error: Exception) -> str:
    """Return why a cluster cannot be used, and what to do."""
    said = ' '.join(str(error).split())
    if 'AuthenticationError' in f'{type(error)} {said} {error.__cause__}':
        return (f"the Ray cluster at '{address}' asks for its token: set RAY_AUTH_MODE=token, and "
                'copy ~/.ray/auth_token of its head here')
    if 'ersion mismatch' in said:
        return (f"the Ray cluster at '{address}' is of another version: {said[:300]}: install the "
                'same Ray and Python on all machines')
    return (f"no Ray cluster answers at '{address}': {said[:300]}; 'ray start --head' makes one, "
            "'auto' finds the one of this machine, 'local' starts one for this command")


@contextmanager
def cluster(address: str) -> Iterator[ModuleType]:
    """
    Yield Ray, connected to a cluster, whose machines get this package.

    :raises JobError: there is no Ray, no such cluster, or one of another version.
    """
    if importlib.util.find_spec('ray') is None:
        raise JobError(f'this needs Ray: {RAY}')
    os.environ.setdefault('RAY_USAGE_STATS_ENABLED', '0')  # Ray's maker is told nothing
    import ray
    try:
        host, colon, port = address.rpartition('://')[2].rpartition(':')
        if colon:  # Ray itself tries for minutes
            socket.create_connection((host, int(port)), ANSWER_S).close()
        # 'local' in so many words: without an address Ray takes any cluster that it knows of.
        ray.init(address=address, log_to_driver=False,
                 logging_level='error', configure_logging=True, include_dashboard=False
                 if address == 'local' else None,
                 runtime_env={'py_modules': [str(Path(__file__).parent)]})
    except Exception as error:  # of many kinds: no such host, another version of Ray or Python
        raise JobError(_refusal(address, error)) from error
    try:
        yield ray
    finally:
        ray.shutdown()
