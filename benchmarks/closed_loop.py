# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Hand-over strategies against inference delay: closed loop with the simulated robot, without ROS.

    python benchmarks/closed_loop.py [--task peg --checkpoint FOLDER] [--episodes 200]

Task blocks is the demo checkpoint's. Task peg, pass a peg on the left or on the right, is where
averaging fails; its checkpoint is made by

    python -m pi0_ros.training --task peg --start-from demo --trained-delay 20 --work out/peg

Accelerations and jerks are those of the commanded joints, the largest of all joints at each tick,
95th percentile over ticks: at chunk borders (from the tick before a chunk's first step takes over
until two ticks after the 0.1 s in which chunks are faded) and inside chunks. A pause is a stretch
of at least three ticks without motion after the first motion. Accelerations are not limited, which
would make all borders alike, unless --limits is given.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from itertools import product
import json
from pathlib import Path

from machine import machine
import numpy as np
from pi0_ros.motion.handover import rtc_kind
from pi0_ros.policy.factory import checkpoint_folder
from pi0_ros.sim.description import RULES, UNLIMITED_RULES
from pi0_ros.sim.episodes import FIRST_UNSEEN_SEED, run_episode, TICK_NS
from pi0_ros.sim.world import TASKS
from tqdm import tqdm

STRATEGIES = ('synchronous', 'switch', 'blend', 'ensemble', 'rtc identity', 'rtc full',
              'rtc_trained')
DELAYS_S = (0.0, 0.1, 0.2, 0.3)
BEFORE_NS, AFTER_NS = TICK_NS, 140_000_000  # of a border
PAUSE_TICKS = 3
STILL = 2e-4  # radians or metres a tick
_policies: dict = {}
_folder = Path()


def _begin(folder: Path) -> None:
    global _folder
    _folder = folder


def _policy(kind: str) -> object:
    """Return the policy that continues plans in this way, loaded once a process."""
    from pi0_ros.policy.pi0 import Pi0Policy
    if kind not in _policies:
        policy = Pi0Policy(_folder, device='cpu', rtc=kind)
        policy.load()
        policy.warm_up()
        _policies[kind] = policy
    return _policies[kind]


def _run(cell: tuple[str, str, float, int, float, bool]) -> dict:
    """Run one episode; return what happened and how it moved."""
    task, strategy, delay_s, seed, replan_s, limited = cell
    path: list[np.ndarray] = []
    times: list[int] = []
    borders: list[int] = []

    def watch(now_ns: int, commanded: np.ndarray | None, begins_ns: int | None) -> None:
        if commanded is None:
            commanded = path[-1] if path else None
        if begins_ns is not None:
            borders.append(begins_ns)
        if commanded is not None:
            path.append(commanded)
            times.append(now_ns)

    handover, _, jacobian = strategy.partition(' ')
    policy = _policy(rtc_kind(handover, jacobian))
    policy.seed, policy.number = seed, 0
    end = run_episode(policy, seed, delay_s, replan_s, handover=handover, watch=watch, task=task,
                      rules=RULES if limited else UNLIMITED_RULES)
    rate, moves = 1e9 / TICK_NS, np.array(path)
    acceleration = np.abs(np.diff(moves, 2, axis=0)).max(1) * rate**2
    jerk = np.abs(np.diff(moves, 3, axis=0)).max(1) * rate**3
    at, border = np.array(times), np.zeros(len(moves), bool)
    for begin in borders[1:]:  # the first is the start from a stand
        border |= (at >= begin - BEFORE_NS) & (at <= begin + AFTER_NS)
    still = np.abs(np.diff(moves, axis=0)).max(1) < STILL
    first = np.flatnonzero(~still)[0] if (~still).any() else len(still)
    runs = np.split(still[first:], np.flatnonzero(np.diff(still[first:])) + 1)
    moving = ~still[1:]
    return {'strategy': strategy, 'delay': delay_s, 'success': end.success, 'wrong': end.wrong,
            'hit': end.hit, 'seconds': end.seconds, 'starved': end.starved,
            'pauses': sum(bool(run[0]) and len(run) >= PAUSE_TICKS
                          for run in runs[:-1] if len(run)),
            'border': acceleration[border[1:-1] & moving].tolist(),
            'inside': acceleration[~border[1:-1] & moving].tolist(),
            'border_jerk': jerk[border[2:-1] & moving[1:]].tolist(),
            'inside_jerk': jerk[~border[2:-1] & moving[1:]].tolist()}


def _summary(strategy: str, delay_s: float, cell: list[dict]) -> dict:
    """Return one row of the table."""
    def p95(name: str) -> float:
        values = [value for episode in cell for value in episode[name]]
        return float(np.percentile(values, 95)) if values else float('nan')

    taken = [episode['seconds'] for episode in cell if episode['success']]
    return {'strategy': strategy, 'delay_s': delay_s,
            'success': float(np.mean([e['success'] for e in cell])),
            'hit': int(sum(e['hit'] for e in cell)), 'wrong': int(sum(e['wrong'] for e in cell)),
            'median_s': float(np.median(taken)) if taken else float('nan'),
            'pauses': float(np.mean([e['pauses'] for e in cell])),
            'starved': float(np.mean([e['starved'] for e in cell])),
            **{name: p95(name) for name in ('border', 'inside', 'border_jerk', 'inside_jerk')}}


def _line(row: dict) -> str:
    return (f'{row["strategy"]:13}{row["delay_s"]:6.1f}{row["success"]:9.1%}{row["hit"]:5}'
            f'{row["wrong"]:6}{row["median_s"]:9.2f}{row["pauses"]:8.2f}{row["starved"]:9.2f}'
            f'{row["border"]:11.1f} / {row["inside"]:<5.1f}{row["border"] / row["inside"]:4.1f}x'
            f'{row["border_jerk"]:11.0f} / {row["inside_jerk"]:<6.0f}'
            f'{row["border_jerk"] / row["inside_jerk"]:4.1f}x')


def plot(rows: list[dict], title: str, path: Path) -> None:
    """Draw success, time, and roughness of borders over the delay."""
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import pyplot as plt
    figure, axes = plt.subplots(1, 3, figsize=(13, 4.2))
    kinds = ((axes[0], 'success, %', lambda row: 100 * row['success']),
             (axes[1], 'median time of successes, s', lambda row: row['median_s']),
             (axes[2], 'acceleration, borders / inside',
              lambda row: row['border'] / row['inside']))
    for strategy in dict.fromkeys(row['strategy'] for row in rows):
        mine = [row for row in rows if row['strategy'] == strategy]
        for axis, _, value in kinds:
            axis.plot([1e3 * row['delay_s'] for row in mine], [value(row) for row in mine], 'o-',
                      label=strategy, linewidth=2.5 if 'rtc' in strategy else 1.2)
    for axis, label, _ in kinds:
        axis.set_xlabel('added inference delay, ms')
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
    axes[2].set_yscale('log')
    axes[0].legend(fontsize=8)
    figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main() -> None:
    """Run all cells, print the table, write JSON and picture."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--task', choices=TASKS, default='blocks')
    parser.add_argument('--checkpoint', default='demo', help='default: demo')
    parser.add_argument('--episodes', type=int, default=200)
    parser.add_argument('--replan', type=float, default=0.3, help='replan period, s')
    parser.add_argument('--strategies', nargs='+', choices=STRATEGIES, metavar='NAME',
                        help=f"default: all that the checkpoint can: {', '.join(STRATEGIES)}")
    parser.add_argument('--delays', nargs='+', type=float, default=DELAYS_S, metavar='S')
    parser.add_argument('--limits', action='store_true', help='with the joint limits of the demo')
    parser.add_argument('--workers', type=int, default=2)
    parser.add_argument('--out', type=Path, default=Path('out/closed_loop.json'))
    args = parser.parse_args()
    folder = checkpoint_folder(args.checkpoint)
    trained = json.loads((folder / 'config.json').read_text()).get('trained_delay')
    strategies = args.strategies or [name for name in STRATEGIES
                                     if trained or name != 'rtc_trained']
    cells = [(args.task, strategy, delay_s, FIRST_UNSEEN_SEED + 5000 + i, args.replan,
              args.limits)
             for strategy, delay_s, i in product(strategies, args.delays, range(args.episodes))]
    with ProcessPoolExecutor(args.workers, initializer=_begin, initargs=(folder,)) as pool:
        episodes = list(tqdm(pool.map(_run, cells, chunksize=4), total=len(cells),
                             unit='episode', mininterval=20))
    print(f'task {args.task}, {args.episodes} episodes a cell; {machine()}\n{"":13}{"delay":>6}'
          f'{"success":>9}{"hit":>5}{"wrong":>6}{"seconds":>9}{"pauses":>8}{"starved":>9}'
          f'{"accel border / inside":>24}{"jerk border / inside":>24}')
    rows = []
    for strategy, delay_s in product(strategies, args.delays):
        rows.append(_summary(strategy, delay_s, [
            e for e in episodes if (e['strategy'], e['delay']) == (strategy, delay_s)]))
        print(_line(rows[-1]))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({'machine': machine(), 'task': args.task,
                                    'episodes': args.episodes, 'replan_s': args.replan,
                                    'limits': args.limits,
                                    'rows': rows}, indent=1) + '\n')
    plot(rows, f'task {args.task}, {args.episodes} episodes a point', args.out.with_suffix('.png'))
    print(f'{args.out} and {args.out.with_suffix(".png")}')


if __name__ == '__main__':
    main()
