# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
What it costs to take a chunk into the plan, limits included; beside it ruckig, if installed.

    python benchmarks/handing_over.py [--chunks 60] [--out out/handing_over.json]

Chunks of 6 and 14 joints: smooth ones, which break a limit only where they take over, and random
walks, which break them everywhere. ruckig (pip install ruckig) is asked for the same limits, every
10 ms for the state that the plan has then; told is how far it is behind a smooth plan.
"""

import argparse
import json
from pathlib import Path
import time

from machine import machine
import numpy as np
from pi0_ros.control.pilot import Pilot, Timing
from pi0_ros.motion.limiter import limit
from pi0_ros.motion.limits import RobotLimits, Rules
from pi0_ros.motion.spline import cubic, knot_velocities
from pi0_ros.policy.policy import ActionChunk

MS = 1_000_000
VELOCITY, ACCELERATION = 1.5, 5.0


def _limits(joints: int) -> RobotLimits:
    names = tuple(f'j{number}' for number in range(joints))
    tighter = {name: {'lower': -2.0, 'upper': 2.0, 'velocity': VELOCITY} for name in names}
    return RobotLimits(names, Rules(velocity_scale=1.0, acceleration=ACCELERATION, margin=0.0,
                                    tighter=tighter))


def handing_over(joints: int, steps: int, dt_ms: int, smooth: bool, chunks: int) -> dict:
    """Hand chunks over every 0.2 s; return milliseconds of Pilot.accept."""
    robot, rng, took = _limits(joints), np.random.default_rng(0), []
    pilot = Pilot(tuple(f'j{number}' for number in range(joints)), robot.now,
                  Timing.at_rate(50.0, 0.3))
    pilot.enable(np.zeros(joints), 0)
    now = 0
    for _ in range(chunks):
        for _ in range(11):
            now += 20
            pilot.tick(now * MS)
        due = (now + dt_ms * np.arange(1, steps + 1))[:, None] / 1e3
        values = (0.3 * np.sin(due + np.arange(joints)) if smooth else
                  np.cumsum(rng.normal(0, 0.05, (steps, joints)), axis=0))
        chunk = ActionChunk((now - 60) * MS, dt_ms * MS, values, 'go')
        began = time.perf_counter()
        pilot.accept(chunk, now * MS, pilot.epoch)
        took.append(1e3 * (time.perf_counter() - began))
    return {'p50_ms': float(np.percentile(took[5:], 50)),
            'p99_ms': float(np.percentile(took[5:], 99))}


def rivals(joints: int, smooth: bool, plans: int = 30) -> dict:
    """Limit plans of a second, by our limiter and by ruckig; return ms and rms error of each."""
    from ruckig import InputParameter, OutputParameter, Ruckig
    robot, rng = _limits(joints), np.random.default_rng(1)
    times = np.arange(51) * 20 * MS
    out = {name: {'ms': [], 'rms': []} for name in ('ours', 'ruckig')}
    for _ in range(plans):
        at = times[:, None] / 1e9
        places = (0.3 * np.sin(2 * at + np.arange(joints)) if smooth else
                  np.cumsum(rng.normal(0, 0.05, (51, joints)), axis=0))
        places = places - places[0]
        speeds = knot_velocities(times, places, np.zeros(joints))
        speeds[-1] = 0
        grid = 10 * MS * np.arange(1, 100)
        wanted, paces = cubic(times, places, speeds, grid)
        began = time.perf_counter()
        made, _, _ = limit((times, places, speeds), 0, robot.now)
        out['ours']['ms'].append(1e3 * (time.perf_counter() - began))
        out['ours']['rms'].append(np.sqrt(np.mean((cubic(*made, grid)[0] - wanted)**2)))
        began = time.perf_counter()
        it, asked, told = Ruckig(joints, 0.01), InputParameter(joints), OutputParameter(joints)
        asked.current_position = asked.current_velocity = [0.0] * joints
        asked.current_acceleration = [0.0] * joints
        asked.max_velocity, asked.max_acceleration = [VELOCITY] * joints, [ACCELERATION] * joints
        asked.max_jerk, path = [500.0] * joints, []
        for place, pace in zip(np.clip(wanted, -2, 2).tolist(),
                               np.clip(paces, -VELOCITY, VELOCITY).tolist()):
            asked.target_position, asked.target_velocity = place, pace
            it.update(asked, told)
            path.append(told.new_position)
            told.pass_to_input(asked)
        out['ruckig']['ms'].append(1e3 * (time.perf_counter() - began))
        out['ruckig']['rms'].append(np.sqrt(np.mean((np.array(path) - wanted)**2)))
    return {name: {key: float(np.median(values)) for key, values in one.items()}
            for name, one in out.items()}


def main() -> None:
    """Measure, print the tables, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--chunks', type=int, default=60)
    parser.add_argument('--out', type=Path, default=Path('out/handing_over.json'))
    args = parser.parse_args()
    rows = []
    print(f'{machine()}\n{"joints":>7}{"steps":>7}{"dt, ms":>8}{"":>10}{"p50, ms":>9}{"p99":>8}')
    for joints in (6, 14):
        for steps, dt_ms in ((50, 20), (500, 20)):
            for smooth in (True, False):
                found = handing_over(joints, steps, dt_ms, smooth, args.chunks)
                kind = 'smooth' if smooth else 'random'
                rows.append({'joints': joints, 'steps': steps, 'dt_ms': dt_ms, 'kind': kind,
                             **found})
                print(f'{joints:7}{steps:7}{dt_ms:8}{kind:>10}{found["p50_ms"]:9.2f}'
                      f'{found["p99_ms"]:8.2f}')
    try:
        import ruckig  # noqa: F401
    except ImportError:
        print('ruckig is not installed')
    else:
        for joints in (6, 14):
            for smooth in (True, False):
                found = rivals(joints, smooth)
                kind = 'smooth' if smooth else 'random'
                rows.append({'joints': joints, 'kind': kind, **found})
                print(f'{joints:7} joints, {kind}: ' + '; '.join(
                    f'{name} {one["ms"]:.2f} ms, {one["rms"]:.4f} rad behind'
                    for name, one in found.items()))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({'machine': machine(), 'rows': rows}, indent=1) + '\n')


if __name__ == '__main__':
    main()
