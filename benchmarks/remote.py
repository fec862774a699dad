# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
A policy on another machine: what the wire costs, and what a network does to the demo's task.

    python benchmarks/remote.py [--seconds 20] [--seeds 4] [--out out/remote.json]

First, on loopback: the node in this process with three raw cameras of 640x480 at 30 Hz, a stand-in
for openpi's server in another process that answers at once. What is told is everything but the
server's inference: fitting the images, packing, sending, waiting, unpacking.

Then the demo with `pi0_ros serve --checkpoint demo` behind a shaped connection, in turn with the
same delay added locally: success, chunks that came too late to join the plan (starved), pauses of
the commands, late answers (which are never used). The shaper is a proxy in this process: it delays
each way by half the round trip, passes so many bits a second, and holds back what follows a lost
packet of 1,448 bytes by a round trip, or by 200 ms where it is among the last three, as Linux'
TCP repeats them. It is a model, no network.
"""

import argparse
import asyncio
from dataclasses import dataclass
import json
from pathlib import Path
import random
import subprocess
import sys
import threading
import time

from machine import machine, percentiles
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / 'test'))

PACKET, REPEATED_S = 1448, 0.2
CHUNK = 16_384
JOINTS = 'shoulder_pan shoulder_lift elbow_flex wrist_flex gripper'.split()
SCHEMAS = {
    'openpi letterbox, 224x224 (aloha, droid, libero)': ', 224x224', 'raw 640x480': ''}


@dataclass(frozen=True)
class Network:
    """What a connection goes through."""

    name: str
    round_trip_s: float = 0.0
    bits_per_s: float = 0.0   # 0: any
    loss: float = 0.0         # of packets
    stall_s: float = 0.0      # once, 4 s after the first byte


NETWORKS = (Network('loopback'), Network('20 ms', 0.02), Network('80 ms', 0.08),
            Network('80 ms, 100 Mb/s, 1 % loss', 0.08, 100e6, 0.01),
            Network('20 ms, stalls for 2 s', 0.02, 0.0, 0.0, 2.0))


class Shaper:
    """A proxy to a port of this machine, in a thread of its own."""

    def __init__(self, port: int, network: Network) -> None:
        """Listen; ``port`` is then where."""
        self._target, self._network, self._random = port, network, random.Random(0)
        self._began: float | None = None
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run(ready)), daemon=True)
        self._thread.start()
        ready.wait()

    async def _run(self, ready: threading.Event) -> None:
        server = await asyncio.start_server(self._serve, '127.0.0.1', 0)
        self.port = server.sockets[0].getsockname()[1]
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        ready.set()
        await self._ended.wait()
        server.close()

    def close(self) -> None:
        """End."""
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_connection('127.0.0.1', self._target)
        await asyncio.gather(self._pass(reader, forth), self._pass(back, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass one way on, late."""
        queue: asyncio.Queue = asyncio.Queue()

        async def deliver() -> None:
            while True:
                data, due = await queue.get()
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                if not data:
                    writer.close()
                    return
                writer.write(data)

        work = asyncio.create_task(deliver())
        free = last = 0.0
        while True:
            try:
                data = await reader.read(CHUNK)
            except OSError:
                data = b''
            now = time.monotonic()
            if self._began is None:
                self._began = now
            net = self._network
            free = max(now, free) + (8 * len(data) / net.bits_per_s if net.bits_per_s else 0.0)
            due = free + net.round_trip_s / 2
            packets = -(-len(data) // PACKET)
            lost = sum(self._random.random() < net.loss for _ in range(packets))
            if lost:
                due += REPEATED_S if len(data) < 3 * PACKET else net.round_trip_s
            stalls = self._began + 4.0
            if net.stall_s and stalls <= due < stalls + net.stall_s:
                due = stalls + net.stall_s
            last = max(last, due)  # TCP keeps the order
            queue.put_nowait((data, last))
            if not data:
                break
        try:
            await work
        except OSError:
            pass


def stand_in() -> None:
    """Answer at once, for ever; run in a process of its own."""
    from servers import StandIn

    def answers(question: dict) -> dict:
        began = time.monotonic()
        rows = np.tile(np.asarray(question['state'], float), (50, 1))
        return {'actions': rows, 'server_timing': {'infer_ms': 1e3 * (time.monotonic() - began)}}

    server = StandIn(answers=answers).start()
    print(server.port, flush=True)
    sys.stdin.read()


def overhead(name: str, words: str, seconds: float, out: Path) -> dict[str, object]:
    """Return milliseconds of all but the server's inference, in a live node."""
    from live import CAMERAS, Live
    child = subprocess.Popen([sys.executable, __file__, '--stand-in'], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, text=True)
    port = int(child.stdout.readline())
    live = Live(out, policy='remote', server=f'ws://127.0.0.1:{port}', server_schema='custom',
                action_rate=50.0, **{'server_map.state': 'state',
                                     'server_map.prompt': 'instruction',
                                     **{f'server_map.images.{camera}': f'camera {camera}{words}'
                                        for camera in CAMERAS}})
    try:
        policy = live.session.policy
        live.move('go')
        for taken in policy._took.values():
            taken.clear()
        parts = {part: [] for part in policy._took}
        infer = policy.infer

        def timed(*given: object, **more: object) -> object:
            began = time.perf_counter()
            chunk = infer(*given, **more)
            took = 1e3 * (time.perf_counter() - began)
            for part, values in policy._took.items():
                parts[part].append(values[-1])
            whole.append(took - policy._took['infer'][-1])
            return chunk

        whole: list[float] = []
        policy.infer = timed
        live.run(seconds)
        return {'name': name, 'chunks': len(whole), 'ms': percentiles(whole),
                'parts_ms_p50': {part: round(float(np.median(values)), 2)
                                 for part, values in parts.items()},
                'bytes': policy._link.sent_bytes}
    finally:
        live.close()
        child.stdin.close()
        child.wait()


def demo(seeds: range, out: Path, *words: str) -> dict[str, object]:
    """Run the demo for every seed; return what came of it."""
    total = dict.fromkeys(('attempts', 'taken', 'starved', 'pauses', 'failed inferences'), 0)
    inference = []
    for seed in seeds:
        folder = out / f'demo_{seed}'
        subprocess.run([sys.executable, '-m', 'pi0_ros', 'demo', '--seed', str(seed), '--out',
                        str(folder), *words], capture_output=True, text=True, check=False)
        summary = json.loads((folder / 'summary.json').read_text())
        total['attempts'] += summary['episodes']
        total['taken'] += summary['successes']
        total['starved'] += int(summary['control'].get('starved', 0))
        total['failed inferences'] += int(summary['control'].get('inferences_failed', 0))
        total['pauses'] += summary['command_pauses']
        inference.append(summary['inference_ms']['p50'])
    return total | {'inference_p50_ms': round(float(np.mean(inference)), 1)}


def serving(port: int) -> subprocess.Popen:
    """Start our server of the demo checkpoint."""
    child = subprocess.Popen([sys.executable, '-m', 'pi0_ros', 'serve', '--checkpoint', 'demo',
                              '--port', str(port)], stderr=subprocess.PIPE, text=True)
    for line in child.stderr:
        if ' on ws://' in line:
            break
    threading.Thread(target=child.stderr.read, daemon=True).start()
    return child


def main() -> None:
    """Measure, print the tables, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seconds', type=float, default=20.0)
    parser.add_argument('--seeds', type=int, default=4)
    parser.add_argument('--only', choices=('overhead', 'demo'))
    parser.add_argument('--stand-in', action='store_true', help=argparse.SUPPRESS)
    parser.add_argument('--out', type=Path, default=Path('out/remote.json'))
    args = parser.parse_args()
    if args.stand_in:
        return stand_in()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    result: dict[str, object] = {'machine': machine(), 'overhead': [], 'demo': {}}
    print(result['machine'])
    if args.only != 'demo':
        print('\n| images | p50 ms | p99 ms | fitting | sending | network and server | bytes |\n'
              '|---|---|---|---|---|---|---|')
        for name, words in SCHEMAS.items():
            one = overhead(name, words, args.seconds, args.out.parent / 'remote')
            result['overhead'].append(one)
            part = one['parts_ms_p50']
            print(f"| {name} | {one['ms']['p50']:.1f} | {one['ms']['p99']:.1f} | "
                  f"{part['resize']} | {part['send']} | {part['network']} | {one['bytes']} |",
                  flush=True)
    if args.only != 'overhead':
        port = 8431
        seeds, folder = range(7, 7 + args.seeds), args.out.parent / 'remote'
        print('\n| network | taken | inference p50 ms | starved | pauses | failed |\n'
              '|---|---|---|---|---|---|')

        def show(name: str, one: dict[str, object]) -> None:
            result['demo'][name] = one
            print(f"| {name} | {one['taken']} of {one['attempts']} | {one['inference_p50_ms']} | "
                  f"{one['starved']} | {one['pauses']} | {one['failed inferences']} |", flush=True)

        for delay_s in sorted({net.round_trip_s for net in NETWORKS}):
            show(f'none; {1e3 * delay_s:.0f} ms added locally',
                 demo(seeds, folder, '--delay', str(delay_s)))
        child = serving(port)
        try:
            for network in NETWORKS:
                shaper = Shaper(port, network)
                show(network.name, demo(seeds, folder, '--server',
                                        f'ws://127.0.0.1:{shaper.port}'))
                shaper.close()
        finally:
            child.terminate()
            child.wait()
    args.out.write_text(json.dumps(result, indent=2) + '\n')
    return None


if __name__ == '__main__':
    main()
