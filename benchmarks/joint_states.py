# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
How many joint states the node hears beside three cameras, at 100 to 1000 Hz.

    python benchmarks/joint_states.py [--seconds 20] [--out out/joint_states.json]

The arm's joints come in one message, the gripper's in another at 20 Hz, as drivers send them; the
node moves the robot meanwhile, and the demo checkpoint infers as often as it can.
"""

import argparse
import json
from pathlib import Path
import subprocess
import sys

from machine import machine

RATES_HZ = (100.0, 500.0, 1000.0)
GRIPPER_HZ = 20.0


def measure(hz: float, seconds: float, out: Path) -> dict:
    """Return what was heard of the arm and of the gripper, and what was missed of the ticks."""
    from live import Live
    from pi0_ros.observation.streams import Streams
    heard: dict[bool, list[int]] = {True: [], False: []}
    put = Streams.put_joints

    def counting(self: Streams, message: object, now_ns: int) -> None:
        heard[len(message.name) == 1].append(int(message.header.frame_id))
        put(self, message, now_ns)

    Streams.put_joints = counting
    live = Live(out, True, hz, GRIPPER_HZ)
    try:
        live.move('pick up the red block')
        live.run(2.0)
        live.measure_all()
        ticks = live.loop.ticks
        for numbers in heard.values():
            numbers.clear()
        live.run(seconds)
        return {'hz': hz, **{
            name: {'heard': len(numbers), 'lost': numbers[-1] - numbers[0] + 1 - len(numbers)}
            for name, numbers in (('arm', heard[False]), ('gripper', heard[True]))},
            'ticks': live.loop.ticks - ticks, 'missed_ticks': live.loop.missed}
    finally:
        live.close()


def main() -> None:
    """Measure every case in a process of its own; print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seconds', type=float, default=20.0)
    parser.add_argument('--out', type=Path, default=Path('out/joint_states.json'))
    parser.add_argument('--rate', type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.rate is not None:
        print(json.dumps(measure(args.rate, args.seconds, args.out.parent / 'live')))
        return
    rows = []
    print(f'{machine()}\n\n| joint states | arm: heard, lost | gripper: heard, lost '
          '| ticks, missed |\n|---|---|---|---|')
    for rate in RATES_HZ:
        child = subprocess.run([sys.executable, __file__, '--rate', str(rate), '--seconds',
                                str(args.seconds), '--out', str(args.out)], text=True,
                               stdout=subprocess.PIPE, check=True)
        row = json.loads(child.stdout.splitlines()[-1])
        rows.append(row)
        parts = (f"{row[part]['heard']}, {row[part]['lost']}" for part in ('arm', 'gripper'))
        print(f"| {row['hz']:g} Hz | {' | '.join(parts)} "
              f"| {row['ticks']}, {row['missed_ticks']} |", flush=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({'machine': machine(), 'rows': rows}, indent=1) + '\n')


if __name__ == '__main__':
    main()
