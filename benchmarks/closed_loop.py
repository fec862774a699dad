"""Hand-over strategies against inference delay: the demo checkpoint, closed loop, without ROS.

    python benchmarks/closed_loop.py [--episodes 200] [--out out/closed_loop.json]

Accelerations and jerks are those of the commanded joints, the largest of all joints at each tick,
95th percentile over ticks: at chunk borders (the three ticks from a take-over on) and inside
chunks. A pause is a stretch of at least three ticks without motion after the first motion.
"""

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path

import numpy as np
from machine import machine
from tqdm import tqdm

from pi0_ros.control.handover import STRATEGIES
from pi0_ros.policy.factory import DEMO
from pi0_ros.sim.episodes import FIRST_UNSEEN_SEED, TICK_NS, run_episode

DELAYS_S = (0.0, 0.1, 0.2, 0.3)
BORDER_TICKS, PAUSE_TICKS = 3, 3
STILL = 2e-4  # radians or metres a tick
_policy = None


def _load() -> None:
    global _policy
    from pi0_ros.policy.pi0 import Pi0Policy
    _policy = Pi0Policy(DEMO, device='cpu')
    _policy.load()
    _policy.warm_up()


def _run(cell: tuple[str, float, int]) -> dict:
    """Run one episode; return what happened and how it moved."""
    strategy, delay_s, seed = cell
    path: list[np.ndarray] = []
    borders: list[int] = []

    def watch(commanded: np.ndarray | None, taken_over: bool) -> None:
        if commanded is None:
            commanded = path[-1] if path else None
        if commanded is not None:
            if taken_over:
                borders.append(len(path))
            path.append(commanded)

    _policy._noise = np.random.default_rng(seed)
    end = run_episode(_policy, seed, delay_s, handover=strategy, watch=watch)
    rate, moves = 1e9 / TICK_NS, np.array(path)
    acceleration = np.abs(np.diff(moves, 2, axis=0)).max(1) * rate**2
    jerk = np.abs(np.diff(moves, 3, axis=0)).max(1) * rate**3
    border = np.zeros(len(moves), bool)
    for at in borders[1:]:  # the first is the start from a stand
        border[at:at + BORDER_TICKS] = True
    still = np.abs(np.diff(moves, axis=0)).max(1) < STILL
    first = np.flatnonzero(~still)[0] if (~still).any() else len(still)
    runs = np.split(still[first:], np.flatnonzero(np.diff(still[first:])) + 1)
    moving = ~still[1:]
    return {'strategy': strategy, 'delay': delay_s, 'success': end.success, 'wrong': end.wrong,
            'seconds': end.seconds, 'pauses': sum(bool(run[0]) and len(run) >= PAUSE_TICKS
                                                  for run in runs[:-1] if len(run)),
            'border': acceleration[border[1:-1] & moving].tolist(),
            'inside': acceleration[~border[1:-1] & moving].tolist(),
            'border_jerk': jerk[border[2:-1] & moving[1:]].tolist(),
            'inside_jerk': jerk[~border[2:-1] & moving[1:]].tolist()}


def main() -> None:
    """Run all cells, print the table, write JSON and picture."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--episodes', type=int, default=200)
    parser.add_argument('--workers', type=int, default=2)
    parser.add_argument('--out', type=Path, default=Path('out/closed_loop.json'))
    args = parser.parse_args()
    cells = [(strategy, delay_s, FIRST_UNSEEN_SEED + 5000 + i) for strategy, delay_s, i
             in product(STRATEGIES, DELAYS_S, range(args.episodes))]
    with ProcessPoolExecutor(args.workers, initializer=_load) as pool:
        episodes = list(tqdm(pool.map(_run, cells, chunksize=4), total=len(cells),
                             unit='episode', mininterval=20))
    rows = []
    print(f'{args.episodes} episodes a cell; {machine()}\n{"":12}{"delay":>6}{"success":>9}'
          f'{"wrong":>7}{"seconds":>9}{"pauses":>8}{"accel border / inside":>24}'
          f'{"jerk border / inside":>24}')
    for strategy, delay_s in product(STRATEGIES, DELAYS_S):
        cell = [e for e in episodes if (e['strategy'], e['delay']) == (strategy, delay_s)]

        def p95(name: str) -> float:
            values = [value for e in cell for value in e[name]]
            return float(np.percentile(values, 95)) if values else float('nan')

        row = {'strategy': strategy, 'delay_s': delay_s,
               'success': float(np.mean([e['success'] for e in cell])),
               'wrong': int(sum(e['wrong'] for e in cell)),
               'median_s': float(np.median([e['seconds'] for e in cell])),
               'pauses': float(np.mean([e['pauses'] for e in cell])),
               **{name: p95(name) for name in ('border', 'inside', 'border_jerk', 'inside_jerk')}}
        rows.append(row)
        print(f'{strategy:12}{delay_s:6.1f}{row["success"]:9.1%}{row["wrong"]:7}'
              f'{row["median_s"]:9.2f}{row["pauses"]:8.2f}{row["border"]:11.1f} / '
              f'{row["inside"]:<5.1f}{row["border"] / row["inside"]:4.1f}x'
              f'{row["border_jerk"]:11.0f} / {row["inside_jerk"]:<6.0f}'
              f'{row["border_jerk"] / row["inside_jerk"]:4.1f}x')
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({'machine': machine(), 'episodes': args.episodes,
                                    'rows': rows}, indent=1) + '\n')


if __name__ == '__main__':
    main()
