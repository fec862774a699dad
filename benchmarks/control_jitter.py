# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Jitter of the control loop in a live graph, with the policy in a thread and in a process.

    python benchmarks/control_jitter.py [--seconds 600] [--workers thread process]

Three raw cameras of 640x480 at 30 Hz and joint states at 100 Hz come from a process of their own;
the node infers without a break. Lateness is that of a tick behind the ideal grid. What receiving
costs is the difference between two runs of a disarmed node, with cameras and without. Beside the
node runs an idle process of the same real-time priority that only sleeps until the next tick: how
late it is is what the machine itself does, below which no node can be.
"""

import argparse
import json
from pathlib import Path
import subprocess
import sys
import time

import idle
from live import CAMERAS, Live, process_seconds, thread_seconds
from machine import machine, percentiles
import numpy as np

IDLE_S = 20.0


def timed(live: Live) -> dict[str, list[float]]:
    """Return a list for each camera that fills with the milliseconds of its callback."""
    out: dict[str, list[float]] = {}
    for subscription in live.session.inputs._subscriptions:
        if 'camera' not in subscription.topic_name:
            continue
        took = out.setdefault(subscription.topic_name, [])

        def call(message: object, callback=subscription.callback, took=took) -> None:
            began = time.perf_counter()
            callback(message)
            took.append(1e3 * (time.perf_counter() - began))

        subscription.callback = call
    return out


def disarmed(out: Path, cameras: bool) -> dict:
    """Return what the disarmed node computes a second, by thread."""
    live = Live(out, cameras, policy='mock_hold')
    try:
        live.run(3.0)
        before = thread_seconds()
        live.run(IDLE_S)
        return {name: (seconds - before.get(name, 0.0)) / IDLE_S
                for name, seconds in thread_seconds().items()}
    finally:
        live.close()


def busy(out: Path, worker: str, seconds: float, realtime: bool) -> dict:
    """Return what happened while the node moved the robot for ``seconds``."""
    live = Live(out, worker=worker, **({} if realtime else {'realtime_priority': 0}))
    try:
        live.move('pick up the red block')
        live.run(3.0)
        callbacks = timed(live)
        live.measure_all()
        session, children = live.session, live.children.running
        processes = {'node': 'self', 'inputs': children['inputs'].pid}
        if worker == 'process':
            processes['policy'] = int(session.policy.describe()['process'])
        begun = {name: process_seconds(pid) for name, pid in processes.items()}
        received = {name: session.inputs.cameras[name].arrivals.count for name in CAMERAS}
        chunks, ticks, start = session.latency.count, live.loop.ticks, time.monotonic()
        beside = idle.start(seconds - 2, idle.PRIORITY if realtime else 0)
        live.run(seconds)
        took = time.monotonic() - start
        return {
            'machine': idle.found(beside),
            'worker': worker, 'seconds': round(took, 1), 'ticks': live.loop.ticks - ticks,
            'missed': live.loop.missed, 'realtime_priority': live.loop.realtime,
            'interval_ms': percentiles(np.array(live.loop._intervals_ns) / 1e6),
            'lateness_ms': percentiles(np.array(live.loop._lateness_ns) / 1e6),
            'images_per_s': {name: round((session.inputs.cameras[name].arrivals.count
                                          - received[name]) / took, 2) for name in CAMERAS},
            'callback_ms': {name: percentiles(values) for name, values in callbacks.items()},
            'cpu_of_a_core': {name: round((process_seconds(pid) - begun[name]) / took, 3)
                              for name, pid in processes.items()},
            'chunks_per_s': round((session.latency.count - chunks) / took, 2),
            'inference_ms': {'p50': session.latency.percentile(50),
                             'p95': session.latency.percentile(95)},
            'enabled_at_the_end': session.pilot.enabled,
            'starved': session.pilot.counters.starved}
    finally:
        live.close()


def main() -> None:
    """Run every part in a process of its own, print the table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seconds', type=float, default=600.0)
    parser.add_argument('--workers', nargs='+', choices=('thread', 'process'),
                        default=('thread', 'process'))
    parser.add_argument('--no-realtime', action='store_true',
                        help='ask for no real-time priority of the control thread')
    parser.add_argument('--out', type=Path, default=Path('out/control_jitter.json'))
    parser.add_argument('--part', help=argparse.SUPPRESS)
    args = parser.parse_args()
    folder = args.out.parent / 'control_jitter'
    if args.part:
        if args.part in ('cameras', 'none'):
            result = disarmed(folder, args.part == 'cameras')
        else:
            result = busy(folder, args.part, args.seconds, not args.no_realtime)
        (folder / f'{args.part}.json').write_text(json.dumps(result))
        return
    results = {}
    for part in ('none', 'cameras', *args.workers):
        subprocess.run([sys.executable, __file__, '--part', part, '--seconds', str(args.seconds),
                        '--out', str(args.out), *(['--no-realtime'] * args.no_realtime)],
                       check=True, stderr=subprocess.DEVNULL)
        results[part] = json.loads((folder / f'{part}.json').read_text())
    receiving = {name: results['cameras'].get(name, 0.0) - results['none'].get(name, 0.0)
                 for name in results['cameras']}
    print(f'{machine()}\nreceiving three cameras: {sum(receiving.values()):.1%} of a core, '
          f'{receiving.get("MainThread", 0.0):.1%} of it in the executor')
    for part in args.workers:
        row = results[part]
        print(f'\nworker {part}: {row["ticks"]} ticks in {row["seconds"]} s, {row["missed"]} '
              f'missed; real-time priority {row["realtime_priority"]}\n'
              f'{row["chunks_per_s"]} chunks a second, inference '
              f'{row["inference_ms"]["p50"]:.0f} ms; images a second '
              f'{list(row["images_per_s"].values())}; cores {row["cpu_of_a_core"]}')
        print(f'{"ms":28}{"p50":>9}{"p99":>9}{"p99.9":>9}{"max":>9}')
        for name, values in (('lateness', row['lateness_ms']),
                             ('lateness, machine alone', row['machine']['lateness_ms']),
                             ('interval', row['interval_ms']),
                             *(('callback ' + name, values)
                               for name, values in row['callback_ms'].items())):
            print(f'{name:28}' + ''.join(f'{value:9.3f}' for value in values.values()))
    args.out.write_text(json.dumps({'machine': machine(), 'receiving_of_a_core': receiving,
                                    **results}, indent=1) + '\n')
    print(f'{args.out}')


if __name__ == '__main__':
    main()
