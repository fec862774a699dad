# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
An hour of the live node: what grows, what is missed, whether messages are as documented.

    python benchmarks/soak.py [--minutes 60] [--worker process] [--out out/soak.json]

The simulated robot and the node as processes, a new instruction every twenty seconds. Every ten
seconds memory, threads and open files of the node (and of its policy process) are read; every
diagnostic message is looked at: its parts, their keys, and that their values parse. Beside it an
idle process tells which ticks the machine takes away from everybody: the rest are the node's.
"""

import argparse
import json
import os
from pathlib import Path
import re
import sys
import time

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
import idle
from machine import machine
import numpy as np
from pi0_ros.ros.demo import demo
from pi0_ros.ros.demo.processes import Children, private_environment
from pi0_ros.ros.demo.starting import start_verbs
from pi0_ros.sim.world import COLOURS
import rclpy
from tqdm import tqdm

SETTLED_S = 600.0  # of filling buffers and allocators, or half of a shorter run
READ_S, INSTRUCT_S = 10.0, 20.0
DOCUMENT = (Path(__file__).parents[1] / 'docs' / 'interface.md').read_text()
PARTS = {'policy', 'control', 'joint_states', 'camera overhead', 'camera wrist'}
WORDS = {'checkpoint', 'engine', 'engine_reason', 'device', 'dtype', 'instruction', 'handover',
         'stop_reason', 'realtime', 'armed', 'encoding', 'self_check', 'process'}


def of_processes(*process_ids: int) -> dict[str, int]:
    """
    Return memory in kB, threads and open files of processes together.

    Memory that is their own; beside it, what they have touched of files and of memory that the
    publishers share with them, which is theirs and bounded by their profile.
    """
    out = {'memory_kb': 0, 'shared_kb': 0, 'mapped_kb': 0, 'threads': 0, 'files': 0}
    for process_id in process_ids:
        text = Path(f'/proc/{process_id}/status').read_text()
        for name, of in zip(out, ('RssAnon', 'RssShmem', 'RssFile', 'Threads')):
            out[name] += int(re.search(rf'{of}:\s*(\d+)', text)[1])
        out['files'] += len(os.listdir(f'/proc/{process_id}/fd'))
    return out


def wrong(message: DiagnosticArray) -> list[str]:
    """Return what is not as docs/interface.md has it."""
    parts = {status.name.split(': ', 1)[-1] for status in message.status}
    out = [] if parts == PARTS else [f'parts {sorted(parts)}']
    for status in message.status:
        if not status.message or status.level not in (DiagnosticStatus.OK, DiagnosticStatus.WARN):
            out.append(f'{status.name}: level {status.level!r}, {status.message!r}')
        for pair in status.values:
            if f'`{pair.key}`' not in DOCUMENT:
                out.append(f'{status.name}: key {pair.key}')
            elif pair.key not in WORDS and pair.value and not np.isfinite(float(pair.value)):
                out.append(f'{status.name}: {pair.key} is {pair.value}')
    return out


def main() -> int:
    """Run, print the table, write JSON; return 0 if nothing grew, was wrong, or missed alone."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--minutes', type=float, default=60.0)
    parser.add_argument('--worker', choices=('thread', 'process'), default='thread')
    parser.add_argument('--out', type=Path, default=Path('out/soak.json'))
    args = parser.parse_args()
    if args.out.is_dir():
        args.out /= 'soak.json'
    environment = private_environment()
    os.environ.update(environment)
    children = Children(environment, args.out.parent / 'soak')
    rclpy.init()
    observer = demo.Observer(demo.BLOCKS)
    observer.say = lambda text: None
    observer.records = False
    run = demo.Demo(demo.parser().parse_args([]), children, observer)
    problems: list[str] = []
    counts: list[tuple[float, int]] = []  # when a message came, ticks missed until then

    def look(message: DiagnosticArray) -> None:
        problems.extend(wrong(message))
        for status in message.status:
            values = {pair.key: pair.value for pair in status.values}
            if 'missed_ticks' in values:
                counts.append((time.monotonic(), int(values['missed_ticks'])))

    observer.create_subscription(DiagnosticArray, '/diagnostics', look, 10)
    readings: list[dict] = []
    try:
        start_verbs(children, 7, 0.0, 'jazzy', '-p', f'worker:={args.worker}')
        run.arm()
        run.wait(lambda: False, 1.5)
        processes = [children.running['node'].pid]
        if args.worker == 'process':
            processes.append(int(observer.figures['policy']['process']))
        problems.clear()
        counts.clear()
        beside, begun, number = idle.start(60 * args.minutes), time.monotonic(), 0
        bar = tqdm(total=round(args.minutes * 60), unit='s')
        while time.monotonic() - begun < args.minutes * 60:
            if number % round(INSTRUCT_S / READ_S) == 0:
                colour = COLOURS[number // 2 % len(COLOURS)]
                observer.instruct(f'pick up the {colour} block')
            run.wait(lambda: False, READ_S)
            at = time.monotonic() - begun
            readings.append({'s': round(at, 1), **of_processes(*processes)})
            number += 1
            bar.update(round(at) - bar.n)
        bar.close()
        figures = {'machine': idle.found(beside), **observer.figures}
    finally:
        children.end()
        observer.destroy_node()
        rclpy.try_shutdown()
    return report(args, readings, figures, counts, problems)


def missed(counts: list[tuple[float, int]], machine_at: list[float]) -> tuple[int, int]:
    """
    Return how many ticks were missed, and how many of them the machine took from everybody.

    :param counts: times of diagnostic messages and ticks missed until then.
    :param machine_at: when the idle process missed a tick: one of the node counts as the machine's
        if that was in the same time between two messages, or next to it.
    """
    of_machine = 0
    for (since, before), (until, after) in zip(counts, counts[1:]):
        if any(since - 0.5 <= at <= until for at in machine_at):
            of_machine += after - before
    return counts[-1][1] - counts[0][1], of_machine


def report(args: argparse.Namespace, readings: list[dict], figures: dict,
           counts: list[tuple[float, int]], problems: list[str]) -> int:
    """Print and write the results; return the exit code."""
    later = [row for row in readings if row['s'] >= min(SETTLED_S, readings[-1]['s'] / 2)]
    first, last = later[0], later[-1]
    growth = last['memory_kb'] / first['memory_kb'] - 1
    alone = figures['machine']
    in_all, of_machine = missed(counts, alone['missed_at'])
    print(f'{machine()}\nworker {args.worker}, {last["s"]:.0f} s, '
          f'{figures["policy"]["chunks"]} chunks, {figures["control"]["ticks"]} ticks, '
          f'{in_all} missed, {of_machine} of them when the idle process missed some, too\n'
          f'idle process: {alone["ticks"]} ticks, {alone["missed"]} missed, late '
          f'{alone["lateness_ms"]} ms; {alone["stolen_s"]} s of the cores taken by the host\n'
          f'{len(counts)} diagnostic messages, {len(problems)} findings: '
          f'{problems[:3]}')
    print(f'{"":12}{"settled":>12}{"at the end":>12}{"most":>12}')
    for name in ('memory_kb', 'shared_kb', 'mapped_kb', 'threads', 'files'):
        print(f'{name:12}{first[name]:12}{last[name]:12}{max(row[name] for row in later):12}')
    print(f'memory growth {growth:+.2%}')
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({
        'machine': machine(), 'worker': args.worker, 'seconds': last['s'], 'growth': growth,
        'missed': in_all, 'missed_with_the_machine': of_machine, 'messages': len(counts),
        'problems': problems, 'figures': figures, 'readings': readings}, indent=1) + '\n')
    print(args.out)
    grew = growth > 0.01 or last['threads'] > first['threads'] or last['files'] > first['files']
    return int(bool(grew or in_all > of_machine or problems))


if __name__ == '__main__':
    sys.exit(main())
