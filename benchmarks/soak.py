"""An hour of the live node: what grows, what is missed, and is every message as documented?

    python benchmarks/soak.py [--minutes 60] [--out out/soak.json]

The simulated robot and the node as processes, a new instruction every twenty seconds. Every ten
seconds resident memory, threads and open files of the node are read; every diagnostic message is
looked at: its parts, their keys, and that their values parse.
"""

import argparse
import json
import os
import re
import sys
import time
from pathlib import Path

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from machine import machine
from tqdm import tqdm

from pi0_ros.ros import demo
from pi0_ros.ros.processes import Children, private_environment
from pi0_ros.sim.world import COLOURS

SETTLED_S = 600.0  # of filling buffers and allocators, or half of a shorter run
READ_S, INSTRUCT_S = 10.0, 20.0
DOCUMENT = (Path(__file__).parents[1] / 'docs' / 'interface.md').read_text()
PARTS = {'policy', 'control', 'joint_states', 'camera overhead', 'camera wrist'}
WORDS = {'checkpoint', 'engine', 'engine_reason', 'device', 'dtype', 'instruction', 'handover',
         'stop_reason', 'realtime', 'armed', 'encoding', 'self_check', 'process'}


def of_process(process_id: int) -> dict[str, int]:
    """Return memory in kB, threads and open files of a process.

    Memory that is its own; beside it, what it has touched of files and of memory that the
    publishers share with it, which is theirs and bounded by their profile.
    """
    text = Path(f'/proc/{process_id}/status').read_text()
    return {**{name: int(re.search(rf'{of}:\s*(\d+)', text)[1]) for name, of in (
        ('memory_kb', 'RssAnon'), ('shared_kb', 'RssShmem'), ('mapped_kb', 'RssFile'))},
            'threads': int(re.search(r'Threads:\s*(\d+)', text)[1]),
            'files': len(os.listdir(f'/proc/{process_id}/fd'))}


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
    """Run, print the table, write JSON; return 0 if nothing grew, was missed or was wrong."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--minutes', type=float, default=60.0)
    parser.add_argument('--out', type=Path, default=Path('out/soak.json'))
    args = parser.parse_args()
    if args.out.is_dir():
        args.out /= 'soak.json'
    environment = private_environment()
    os.environ.update(environment)
    children = Children(environment, args.out.parent / 'soak')
    rclpy.init()
    observer = demo.Observer()
    observer.say = lambda text: None
    observer.records = False
    run = demo.Demo(argparse.Namespace(seed=7, delay=0.0), children, observer)
    problems: list[str] = []
    messages = [0]

    def look(message: DiagnosticArray) -> None:
        messages[0] += 1
        problems.extend(wrong(message))

    observer.create_subscription(DiagnosticArray, '/diagnostics', look, 10)
    readings: list[dict] = []
    try:
        run.start()
        node, begun, number = children.running['node'].pid, time.monotonic(), 0
        run.wait(lambda: False, 1.5)
        missed_before = int(observer.figures['control']['missed_ticks'])
        problems.clear()
        bar = tqdm(total=round(args.minutes * 60), unit='s')
        while time.monotonic() - begun < args.minutes * 60:
            if number % round(INSTRUCT_S / READ_S) == 0:
                colour = COLOURS[number // 2 % len(COLOURS)]
                observer.instruct(f'pick up the {colour} block')
            run.wait(lambda: False, READ_S)
            at = time.monotonic() - begun
            readings.append({'s': round(at, 1), **of_process(node)})
            number += 1
            bar.update(round(at) - bar.n)
        bar.close()
        figures = {name: dict(values) for name, values in observer.figures.items()}
    finally:
        children.end()
        observer.destroy_node()
        rclpy.try_shutdown()
    return report(args, readings, figures, missed_before, messages[0], problems)


def report(args: argparse.Namespace, readings: list[dict], figures: dict, missed_before: int,
           messages: int, problems: list[str]) -> int:
    """Print and write the results; return the exit code."""
    later = [row for row in readings if row['s'] >= min(SETTLED_S, readings[-1]['s'] / 2)]
    first, last = later[0], later[-1]
    growth = last['memory_kb'] / first['memory_kb'] - 1
    missed = int(figures['control']['missed_ticks']) - missed_before
    print(f'{machine()}\n{last["s"]:.0f} s, {figures["policy"]["chunks"]} chunks, '
          f'{figures["control"]["ticks"]} ticks, {missed} missed\n{messages} diagnostic messages, '
          f'{len(problems)} findings: {problems[:3]}')
    print(f'{"":12}{"settled":>12}{"at the end":>12}{"most":>12}')
    for name in ('memory_kb', 'shared_kb', 'mapped_kb', 'threads', 'files'):
        print(f'{name:12}{first[name]:12}{last[name]:12}{max(row[name] for row in later):12}')
    print(f'memory growth {growth:+.2%}')
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({
        'machine': machine(), 'seconds': last['s'], 'growth': growth, 'missed': missed,
        'messages': messages, 'problems': problems, 'figures': figures, 'readings': readings},
        indent=1) + '\n')
    print(args.out)
    grew = growth > 0.01 or last['threads'] > first['threads'] or last['files'] > first['files']
    return int(bool(grew or missed or problems))


if __name__ == '__main__':
    sys.exit(main())
