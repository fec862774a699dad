# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
How well robots in physics follow, with their profiles: SO-101 and two ViperX in MuJoCo.

    python benchmarks/robots.py [--robots so101 aloha] [--out out/robots.json]

Needs requirements/mujoco.txt. Per robot: mock_sine and a scripted grasp through the node, then
mock_sine again, in the midst of which the node is killed. Commands are the plan at the stamp of
each message; times are the robot's.
"""

import argparse
import json
from pathlib import Path
import time

from machine import machine
import numpy as np
from pi0_ros.physics.models import Model, MODELS
from pi0_ros.physics.robot import PhysicsRobot
from pi0_ros.ros.demo.trial import MOVES_S, trial

LAGS_S = np.arange(0.0, 0.3, 0.005)
BORDER_S = 0.1    # about a chunk
STANDS = 0.02     # rad/s
KILL_S = 4.0


def following(recording: object, names: tuple[str, ...]) -> dict[str, float]:
    """
    Return how the measured joints follow the commanded ones; of joints that turn.

    lag: that shift by which they differ least, the median of the joints that moved. error: what
    is left at that shift, less what it is on average, which is the arm's weight; overshoot: how
    much further than commanded a joint went. acceleration: of the commands, at chunk borders and
    elsewhere, 99th percentile.
    """
    turns = [i for i, name in enumerate(names) if 'finger' not in name and name != 'gripper']
    times = np.array([at for at, _ in recording.commands])
    told = np.array([row for _, row in recording.commands])[:, turns]
    times, last = np.unique(times[::-1], return_index=True)  # of one stamp the last
    told = told[::-1][last]
    known = ~np.isnan(told).any(axis=1)
    times, told = times[known], told[known]
    measured_at = np.array([at for at, _ in recording.measured])
    measured = np.array([row for _, row in recording.measured])[:, turns]
    its = (measured_at > times[0] + LAGS_S[-1]) & (measured_at < times[-1])
    at, place = measured_at[its], measured[its]
    moved = np.flatnonzero(np.ptp(told, axis=0) > 0.05)
    lags, errors, over = [], [], []
    for joint in moved:
        left = []
        for lag in LAGS_S:
            difference = place[:, joint] - np.interp(at - lag, times, told[:, joint])
            left.append(difference - difference.mean())
        best = int(np.argmin([np.square(row).mean() for row in left]))
        lags.append(LAGS_S[best])
        errors.append(np.abs(left[best]).max())
        sag = np.median(place[:, joint] - np.interp(at - lags[-1], times, told[:, joint]))
        over.append(max(0.0, (place[:, joint] - sag).max() - told[:, joint].max(),
                        told[:, joint].min() - (place[:, joint] - sag).min()))
    steps = np.diff(times)
    change = np.diff(told, axis=0) / steps[:, None]
    bends = np.abs(np.diff(change, axis=0)).max(axis=1) / ((steps[1:] + steps[:-1]) / 2)
    near = np.array([min((abs(t - c) for c in recording.chunks), default=np.inf) < BORDER_S
                     for t in times[1:-1]])
    return {'lag_ms': round(1e3 * float(np.median(lags)), 1),
            'error_mrad': round(1e3 * float(np.max(errors)), 1),
            'overshoot_mrad': round(1e3 * float(np.max(over)), 1),
            'acceleration_at_borders': round(float(np.percentile(bends[near], 99)), 2),
            'acceleration_elsewhere': round(float(np.percentile(bends[~near], 99)), 2)}


def killed(model: Model, out: Path) -> dict[str, float]:
    """Kill the node as the robot swings; return when it stood, and when its window ended."""
    kept: dict[str, float] = {}

    def kill(work: object) -> None:
        work.move(KILL_S)
        node = work.children.running.pop('node')
        node.kill()
        node.wait()
        kept['at'] = work.observer.elapsed()
        work.move(2.0)

    summary, recording = trial(model, 'mock_sine', 0, out, act=kill)
    rows = dict(recording.measured)  # of one stamp the last, which has both arms
    at, places = np.array(list(rows)), np.array(list(rows.values()))
    speed = np.abs(np.diff(places, axis=0)).max(axis=1) / np.diff(at)
    moving = at[1:][speed > STANDS]
    return {'window_ends_ms': round(1e3 * (summary['windows_end_s'] - kept['at'])),
            'stands_ms': round(1e3 * (float(moving.max()) - kept['at']))}


def drawing(model: Model) -> dict[str, float]:
    """Return how long an image takes, ms, the slowest camera; and a step of the physics."""
    out = {}
    for size in ((320, 240), (640, 480)):
        robot = PhysicsRobot(model, size=size)
        slowest = 0.0
        for camera in robot.cameras:
            robot.image(camera)
            began = time.perf_counter()
            for _ in range(10):
                robot.image(camera)
            slowest = max(slowest, (time.perf_counter() - began) / 10)
        out[f'image_{size[0]}_ms'] = round(1e3 * slowest, 1)
        robot.close()
    began = time.perf_counter()
    robot.advance(robot.now_ns + 10**9)
    out['second_of_physics_ms'] = round(1e3 * (time.perf_counter() - began))
    return out


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--robots', nargs='+', choices=tuple(MODELS), default=list(MODELS))
    parser.add_argument('--seeds', type=int, default=3, help='grasps of a robot (default: 3)')
    parser.add_argument('--out', type=Path, default=Path('out/robots.json'))
    args = parser.parse_args()
    rows = []
    for name in args.robots:
        model, folder = MODELS[name], args.out.parent / 'robots' / name
        drawn = drawing(model)
        for policy, seeds in (('mock_sine', 1), ('mock_scripted', args.seeds)):
            for seed in range(seeds):
                summary, recording = trial(model, policy, seed, folder / f'{policy}_{seed}')
                rows.append({'robot': name, 'policy': policy, 'seed': seed,
                             **{key: summary[key] for key in (
                                 'command_hz', 'missed_ticks', 'faults', 'taken', 'speed')},
                             'commands': summary['commands'],
                             **following(recording, model.names)})
                print(json.dumps(rows[-1]), flush=True)
        rows.append({'robot': name, 'policy': 'mock_sine, killed', **killed(
            model, folder / 'killed'), **drawn})
        print(json.dumps(rows[-1]), flush=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({'machine': machine(), 'moves_s': MOVES_S, 'rows': rows},
                                   indent=2) + '\n')
    print(f'\n{machine()}\nwritten to {args.out}')


if __name__ == '__main__':
    main()
