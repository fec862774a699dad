# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
One server for several robots: what batches give, how late answers come, and a model of it.

    python benchmarks/fleet.py [--robots 1 2 4 8] [--seconds 10] [--only batches fleet replicas]

batches: the demo checkpoint in this process, so many questions at once. fleet: `serve` with and
without --max-batch in a process of its own, and robots that each ask ten times a second with
pictures of the simulator, or as soon as the last answer has come if that is later; then as many
robots that take the block they are told to, in the simulator, each as fast as it is answered. The
model is an event simulation of the server's queue with the service times that batches measured
here; it is printed beside what was measured, and then carried to larger fleets.
"""

import argparse
import asyncio
from concurrent.futures import ProcessPoolExecutor
from collections.abc import Callable
from contextlib import suppress
import importlib.util
import json
from pathlib import Path
import re
import subprocess
import sys
import time

from machine import machine, percentiles
import numpy as np

ROOT = Path(__file__).parents[1]
PERIOD_S, JITTER = 0.1, 0.05  # of a robot that asks ten times a second, and of that, a share
BATCHES = (1, 2, 4, 8)
ROUNDS = 4  # of servers in turn
COLOURS = ('red', 'green', 'blue')
# A chunk of PI0 on one NVIDIA H200, three cameras, bfloat16, ms, for 1, 2, 4 and 8 questions at
# once: docs/benchmarks/engine.md. Fewer are padded to these sizes, or go one after another.
GPU_MS = {1: 20.9, 2: 62.5, 4: 82.2, 8: 120.2}


def observations(count: int) -> list:
    """Return what so many robots see."""
    from pi0_ros.observation.observation import Observation
    from pi0_ros.sim.robot import SimulatedRobot
    out = []
    for number in range(count):
        robot = SimulatedRobot(number)
        out.append(Observation(0, robot.joints.copy(), {
            name: robot.image(name) for name in ('overhead', 'wrist')}, {},
            f'pick up the {COLOURS[number % 3]} block' + ' please' * (number % 2)))
    return out


def batches(rounds: int = 20) -> dict:
    """Time one pass over several questions, in turn with one after another."""
    from pi0_ros.policy.factory import DEMO
    from pi0_ros.policy.pi0 import Pi0Policy
    policy = Pi0Policy(DEMO, device='cpu', threads=1)
    policy.load()
    policy.warm_up()
    seen, dice = observations(max(BATCHES)), np.random.default_rng(0)
    noise = [dice.standard_normal(policy.noise_shape) for _ in seen]
    times: dict[int, list[float]] = {count: [] for count in BATCHES}
    away = dict.fromkeys(BATCHES, 0.0)
    alone = [policy.infer(*one).positions for one in zip(seen, noise)]
    for _ in range(rounds):
        for count in BATCHES:
            started = time.perf_counter()
            chunks = policy.infer_together([policy.begin(*one, keep=True) for one in zip(
                seen[:count], noise)])
            times[count].append(time.perf_counter() - started)
            away[count] = max(away[count], *(
                float(np.abs(chunk.positions - one).max() / np.abs(one).max())
                for chunk, one in zip(chunks, alone)))
    out = {}
    print(f'{"at once":>8}{"ms":>9}{"a second":>10}{"differs":>10}')
    for count, of in times.items():
        median = float(np.median(of))
        out[count] = {'s': median, 'each_s': count / median, 'difference': away[count]}
        print(f'{count:8}{1e3 * median:9.1f}{count / median:10.1f}{away[count]:10.0e}')
    return out


class Served:
    """``serve`` in a process."""

    def __init__(self, *words: str) -> None:
        """Start it; ``address`` is where."""
        self._process = subprocess.Popen(
            [sys.executable, '-m', 'pi0_ros', 'serve', '--checkpoint', 'demo', '--port', '0',
             *words], cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for line in self._process.stderr:
            if found := re.search(r'ws://[\d.:]+', line):
                self.address = found.group()
                return
        raise RuntimeError('serve did not start')

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.communicate()


async def asking(address: str, robots: int, seconds: float) -> list[float]:
    """Let robots ask ten times a second; return how long answers took, s."""
    from pi0_ros.remote.link import MOVES
    from pi0_ros.remote.wire import pack
    from websockets.asyncio.client import connect
    from websockets.exceptions import ConnectionClosed
    seen = observations(robots)
    began = time.perf_counter() + 0.5
    out: list[float] = []

    async def robot(number: int) -> None:
        one = seen[number]
        question = pack({'state': one.state, 'images': dict(one.images),
                         'prompt': one.instruction})
        due = began + PERIOD_S * number / robots
        while due < began + seconds:  # it comes again when it is sent to another replica
            with suppress(ConnectionClosed):
                async with connect(address, compression=None, max_size=None,
                                   additional_headers={MOVES: 'yes'}) as there:
                    await there.recv()
                    while due < began + seconds:
                        await asyncio.sleep(max(0.0, due - time.perf_counter()))
                        asked = time.perf_counter()
                        await there.send(question)
                        answer = await there.recv()
                        if isinstance(answer, str):
                            raise RuntimeError(answer)
                        out.append(time.perf_counter() - asked)
                        due = max(due + PERIOD_S, time.perf_counter())

    await asyncio.gather(*(robot(number) for number in range(robots)))
    return out


def taken(job: tuple[str, int]) -> bool:
    """Let a robot in the simulator be told by a server; return whether it took its block."""
    from pi0_ros.configuration.file import read_all_parameters
    from pi0_ros.remote.client import RemotePolicy
    from pi0_ros.sim import arm
    from pi0_ros.sim.episodes import run_episode
    address, seed = job
    config = read_all_parameters(None, policy='remote', server=address, server_schema='pi0_ros',
                                 joint_names=list(arm.JOINT_NAMES), cameras=['overhead', 'wrist'],
                                 server_deadline=5.0, max_inference_time=8.0)
    policy = RemotePolicy(config.policy, config.robot, '')
    policy.load()
    policy.warm_up()
    try:
        return run_episode(policy, seed).success
    finally:
        policy.close()


def simulate(robots: int, service: Callable[[int], float], most: int, seconds: float = 60.0,
             servers: int = 1, besides_s: float = 0.0) -> dict[str, float]:
    """
    Return how late answers come where robots ask as ``asking`` does, by an event simulation.

    :param service: seconds that a batch takes. :param besides_s: around each question.
    """
    free, dice = np.zeros(servers), np.random.default_rng(0)
    due = PERIOD_S * dice.random(robots)  # nobody's clock is another's
    late: list[float] = []
    while due.min() < seconds:
        server = int(free.argmin())
        begin = max(free[server], due.min())
        ready = np.flatnonzero(due <= begin)
        batch = ready[np.argsort(due[ready])][:most]
        end = begin + service(len(batch))
        free[server] = end
        late += (end - due[batch] + besides_s).tolist()
        due[batch] = np.maximum(due[batch] + PERIOD_S * dice.normal(1, JITTER, len(batch)),
                                end + besides_s)
    return percentiles(1e3 * np.array(late)) | {'each_s': len(late) / seconds / robots}


def fleet(robots: list[int], seconds: float, measured: dict) -> dict:
    """Measure a server, and say what the model says of it."""
    counts = np.array(list(measured), float)
    slope, start = np.polyfit(counts, [one['s'] for one in measured.values()], 1)
    out: dict = {}
    print(f'\n{"max-batch":>10}{"robots":>8}{"p50 ms":>9}{"p99 ms":>9}{"each a s":>10}'
          f'{"model p50":>11}{"p99":>8}{"blocks":>9}')
    for most in (1, 8):
        served, besides = Served('--max-batch', str(most)), None
        try:
            asyncio.run(asking(served.address, 1, 2.0))
            for count in robots:
                late = asyncio.run(asking(served.address, count, seconds))
                row = percentiles(1e3 * np.array(late))
                row['each_s'] = len(late) / seconds / count
                if besides is None:  # what the model does not know: the wire, packing
                    besides = max(0.0, row['p50'] / 1e3 - measured[1]['s'])
                model = simulate(count, lambda n: measured[1]['s'] if n == 1 else
                                 start + slope * n, most, seconds, besides_s=besides)
                with ProcessPoolExecutor(count) as pool:
                    blocks = sum(pool.map(taken, [(served.address, seed)
                                                  for seed in range(count)]))
                out[f'{most}/{count}'] = row | {'model': model, 'taken': blocks}
                print(f'{most:10}{count:8}{row["p50"]:9.1f}{row["p99"]:9.1f}'
                      f'{row["each_s"]:10.2f}{model["p50"]:11.1f}{model["p99"]:8.1f}'
                      f'{blocks:6} of {count}', flush=True)
        finally:
            served.close()
    return out


def replicas(robots: list[int], seconds: float) -> dict | str:
    """Measure what the gate costs, and what a second replica gives, in turn."""
    if importlib.util.find_spec('ray') is None:
        print('\nreplicas: not measured, Ray is not installed')
        return 'not measured'
    out: dict = {}
    servers = {}
    try:
        for label, words in (('serve', ()), ('1 replica', ('--replicas', '1')),
                             ('1 replica, --relay', ('--replicas', '1', '--relay')),
                             ('2 replicas', ('--replicas', '2'))):
            servers[label] = Served(*words)
            asyncio.run(asking(servers[label].address, 1, 2.0))
        print(f'\n{"":20}{"robots":>8}{"p50 ms":>9}{"p99 ms":>9}{"each a s":>10}')
        for count in robots:
            late: dict[str, list[float]] = {label: [] for label in servers}
            for _ in range(ROUNDS):  # in turn: the machine is not the same all the time
                for label, served in servers.items():
                    late[label] += asyncio.run(asking(served.address, count, seconds / ROUNDS))
            for label, of in late.items():
                row = percentiles(1e3 * np.array(of)) | {'each_s': len(of) / seconds / count}
                out[f'{label}/{count}'] = row
                print(f'{label:20}{count:8}{row["p50"]:9.1f}{row["p99"]:9.1f}'
                      f'{row["each_s"]:10.2f}', flush=True)
    finally:
        for served in servers.values():
            served.close()
    return out


def paper() -> dict:
    """Carry the model to a hundred robots, with the times of a GPU in place of this machine's."""
    def service(count: int) -> float:
        size = 1 << (count - 1).bit_length()
        return 1e-3 * min(GPU_MS[size], count * GPU_MS[1])

    out = {}
    print(f'\non paper: so many questions take {GPU_MS} ms on one GPU\n{"robots":>8}{"GPUs":>6}'
          f'{"max-batch":>11}{"p50 ms":>9}{"p99 ms":>9}{"each a s":>10}')
    for robots, servers in ((3, 1), (10, 1), (10, 2), (10, 4), (50, 8), (100, 8), (100, 16)):
        for most in (1, 8):
            row = simulate(robots, service, most, 20.0, servers)
            out[f'{robots}/{servers}/{most}'] = row
            print(f'{robots:8}{servers:6}{most:11}{row["p50"]:9.1f}{row["p99"]:9.1f}'
                  f'{row["each_s"]:10.2f}')
    return out


def main() -> None:
    """Run the parts, print the tables, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--robots', type=int, nargs='+', default=[1, 2, 4, 8])
    parser.add_argument('--seconds', type=float, default=10.0)
    parts = ('batches', 'fleet', 'replicas', 'paper')
    parser.add_argument('--only', nargs='+', choices=parts, default=parts)
    parser.add_argument('--out', type=Path, default=Path('out/fleet.json'))
    args = parser.parse_args()
    print(machine())
    results: dict = {'machine': machine()}
    if {'batches', 'fleet'} & set(args.only):
        results['batches'] = batches()
    if 'fleet' in args.only:
        results['fleet'] = fleet(args.robots, args.seconds, results['batches'])
    if 'replicas' in args.only:
        results['replicas'] = replicas(args.robots, args.seconds)
    if 'paper' in args.only:
        results['paper'] = paper()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(results, indent=1) + '\n')


if __name__ == '__main__':
    main()
