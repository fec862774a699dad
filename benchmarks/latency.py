# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
From camera stamp to command, and from instruction to command, stage by stage, in a live graph.

    python benchmarks/latency.py [--seconds 60] [--instructions 60]

Three raw cameras of 640x480 at 30 Hz from a process of their own; the node infers continuously in
a thread. Work is what the package does with a frame; a wait is for the policy to be free, or for
the next tick. The instruction comes over its topic.
"""

import argparse
import json
from pathlib import Path
import time

from live import CAMERAS, Live
from machine import machine, percentiles
import numpy as np
from pi0_ros.ros.links import qos
from std_msgs.msg import String

WORK = ('transport', 'decode', 'prepare', 'restore', 'hand over', 'publish')
ORDER = ('transport', 'wait for the policy', 'decode', 'prepare', 'model', 'restore', 'hand over',
         'wait for the tick', 'publish')


class Stages:
    """Wraps what a frame passes through, and collects milliseconds."""

    def __init__(self, live: Live) -> None:
        """Begin to watch ``live``."""
        self.rows: list[dict[str, float]] = []
        self.instructed: list[tuple[int, str]] = []  # when a command first served an instruction
        self._now: dict[str, float] = {}
        self._pending: tuple[dict[str, float], int] | None = None
        self._tick_ns, self._served = 0, ''
        self.session = session = live.session
        policy, builder = session.policy, session.inputs.builder
        self._build = builder.build
        builder.build = self._on_build
        policy.prepare = self._timed('prepare', policy.prepare)
        policy._compute = self._timed('model', policy._compute)
        policy.infer = self._timed('infer', policy.infer)
        self._accept, session.pilot.accept = session.pilot.accept, self._on_accept
        self._tick, live.loop._tick = live.loop._tick, self._on_tick
        self._publish, session.commands.publish = session.commands.publish, self._on_publish

    def _timed(self, name: str, call):
        def timed(*given, **more):
            began = time.perf_counter()
            out = call(*given, **more)
            self._now[name] = 1e3 * (time.perf_counter() - began)
            return out
        return timed

    def _on_build(self, now_ns: int, instruction: str) -> object:
        """Take an observation; its frames are the ones that lie ready now, or come meanwhile."""
        start_ns, began = self.session.now(), time.perf_counter()
        before = [self.session.inputs.cameras[name].get() for name in CAMERAS]
        seen = self._build(now_ns, instruction)
        self._now['decode'] = 1e3 * (time.perf_counter() - began)
        used = [stamped for stamped in before
                if stamped.stamp_ns in seen.image_stamps_ns.values()]
        if len(used) == len(CAMERAS):  # else one came while the others were decoded
            last_ns = max(stamped.received_ns for stamped in used)
            self._now['transport'] = max((s.received_ns - s.stamp_ns) / 1e6 for s in used)
            self._now['wait for the policy'] = (start_ns - last_ns) / 1e6
            self._now['stamp'] = min(s.stamp_ns for s in used)
        return seen

    def _on_accept(self, chunk, now_ns, epoch, stance=None):
        began = time.perf_counter()
        problem = self._accept(chunk, now_ns, epoch, stance)
        if problem is None:
            row, self._now = self._now, {}
            row['hand over'] = 1e3 * (time.perf_counter() - began)
            if {'stamp', 'infer'} <= set(row):  # not of the chunk under way when this began
                row['restore'] = row['infer'] - row['prepare'] - row['model']
                self._pending = row, self.session.now()
        return problem

    def _on_tick(self, now_ns: int) -> None:
        self._tick_ns = self.session.now()
        self._tick(now_ns)

    def _on_publish(self, *told) -> None:
        pending = self._pending
        self._publish(*told)
        end_ns = self.session.now()
        if pending is not None and pending[1] <= self._tick_ns:  # else the window is older
            row, accepted_ns = pending
            self._pending = None
            row['wait for the tick'] = (self._tick_ns - accepted_ns) / 1e6
            row['publish'] = (end_ns - self._tick_ns) / 1e6
            row['frame to command'] = (end_ns - row.pop('stamp')) / 1e6
            row['work'] = sum(row[name] for name in WORK)
            self.rows.append(row)
        pilot = self.session.pilot
        source = pilot.plan.source(pilot.scale.at(self._tick_ns) + pilot.timing.lead_ns)
        if source and source.instruction != self._served:
            self._served = source.instruction
            self.instructed.append((end_ns, self._served))


def main() -> None:
    """Measure, print the table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seconds', type=float, default=60.0)
    parser.add_argument('--instructions', type=int, default=60)
    parser.add_argument('--out', type=Path, default=Path('out/latency.json'))
    args = parser.parse_args()
    live = Live(args.out.parent / 'latency')
    asked: list[tuple[int, str]] = []
    try:
        publisher = live.node.create_publisher(String, 'instruction', qos.INSTRUCTION)
        live.wait(publisher.get_subscription_count)
        live.move('pick up the red block')
        live.run(3.0)
        stages = Stages(live)
        live.run(args.seconds)
        rows, dice = list(stages.rows), np.random.default_rng(0)
        for number in range(args.instructions):
            text = f'take the {("red", "green", "blue")[number % 3]} block'
            asked.append((live.session.now(), text))
            publisher.publish(String(data=text))
            live.run(dice.uniform(0.6, 0.8))
        served = stages.instructed
    finally:
        live.close()
    reaction = []
    for when, text in asked:
        after = [at - when for at, other in served if other == text and at > when]
        reaction.append(min(after) / 1e6 if after else float('nan'))
    table = {name: percentiles([row[name] for row in rows])
             for name in (*ORDER, 'work', 'frame to command')}
    table['instruction to command'] = percentiles([x for x in reaction if np.isfinite(x)])
    print(f'{machine()}; {len(rows)} frames, {len(asked)} instructions, '
          f'{sum(not np.isfinite(x) for x in reaction)} without an answer\n'
          f'{"ms":26}{"p50":>9}{"p99":>9}{"p99.9":>9}{"max":>9}')
    for name, values in table.items():
        print(f'{name:26}' + ''.join(f'{value:9.2f}' for value in values.values()))
    args.out.write_text(json.dumps({'machine': machine(), 'frames': len(rows),
                                    'instructions': len(asked), 'ms': table}, indent=1) + '\n')
    print(args.out)


if __name__ == '__main__':
    main()
