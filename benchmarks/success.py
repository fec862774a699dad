# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
How often the demo checkpoint takes the named block, closed loop, without ROS.

    python benchmarks/success.py [--episodes 200] [--delay 0.0] [--missed] [--out out/success.json]

It prints the rate and writes what every episode came to.
"""

import argparse
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
import json
from pathlib import Path

from machine import machine
import numpy as np
from pi0_ros.motion.handover import rtc_kind, STRATEGIES
from pi0_ros.policy.factory import checkpoint_folder
from pi0_ros.sim.episodes import Episode, FIRST_UNSEEN_SEED, run_episode
from pi0_ros.sim.world import COLOURS
from tqdm import tqdm

_policy = None


def _load(checkpoint: str, handover: str) -> None:
    global _policy
    from pi0_ros.policy.pi0 import Pi0Policy
    _policy = Pi0Policy(checkpoint_folder(checkpoint), rtc=rtc_kind(handover, 'identity'))
    _policy.load()
    _policy.warm_up()


def _run(job: tuple[int, float, float, str, bool]) -> Episode:
    seed, delay_s, replan_s, handover, missed = job
    return run_episode(_policy, seed, delay_s, replan_s, handover=handover, missed=missed)


def main() -> None:
    """Run the episodes, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--checkpoint', default='demo')
    parser.add_argument('--episodes', type=int, default=200)
    parser.add_argument('--delay', type=float, default=0.0, help='added inference delay, s')
    parser.add_argument('--replan', type=float, default=0.3, help='replan period, s')
    parser.add_argument('--handover', choices=STRATEGIES, default='blend', help='default: blend')
    parser.add_argument('--missed', action='store_true',
                        help='begin with a hand that is closed on nothing above the block')
    parser.add_argument('--workers', type=int, default=2)
    parser.add_argument('--out', type=Path, default=Path('out/success.json'))
    args = parser.parse_args()
    jobs = [(FIRST_UNSEEN_SEED + number, args.delay, args.replan, args.handover, args.missed)
            for number in range(args.episodes)]
    with ProcessPoolExecutor(args.workers, initializer=_load,
                             initargs=(args.checkpoint, args.handover)) as pool:
        episodes = list(tqdm(pool.map(_run, jobs), total=len(jobs), unit='episode'))
    print(f'{"named":8}{"episodes":>9}{"success":>9}{"wrong":>7}{"nothing":>9}{"median s":>10}')
    for name in (*COLOURS, 'all'):
        some = [episode for episode in episodes if name in ('all', episode.named)]
        count = Counter(success=sum(e.success for e in some), wrong=sum(e.wrong for e in some),
                        nothing=sum(not e.grasped for e in some))
        taken = [e.seconds for e in some if e.success]
        print(f'{name:8}{len(some):9}{count["success"]:9}{count["wrong"]:7}{count["nothing"]:9}'
              f'{np.median(taken) if taken else float("nan"):10.2f}')
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({
        'machine': machine(), 'delay_s': args.delay, 'replan_s': args.replan,
        'handover': args.handover, 'missed': args.missed,
        'success': sum(e.success for e in episodes) / len(episodes),
        'wrong': sum(e.wrong for e in episodes) / len(episodes),
        'episodes': [asdict(e) for e in episodes]}, indent=1) + '\n')
    print(f'{machine()}; {args.out}')


if __name__ == '__main__':
    main()
