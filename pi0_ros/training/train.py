# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Make the small demo checkpoint from scratch: ``python -m pi0_ros.training``.

Demonstrations of an expert in the simulated robot, then flow matching on transformers' own PI0
classes. Ending the process loses at most a hundred steps: the same command goes on.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
import json
from multiprocessing import get_context
import os
from pathlib import Path
import time

import numpy as np
from pi0_ros.checkpoint.spec import NETWORKS
from pi0_ros.policy.factory import checkpoint_folder
from pi0_ros.policy.pi0 import Pi0Policy
from pi0_ros.sim.episodes import FIRST_UNSEEN_SEED, run_episode
from pi0_ros.sim.world import TASKS
from pi0_ros.training import demonstrations, learning
from pi0_ros.training.export import export
from pi0_ros.training.instructions import build_tokenizer
from pi0_ros.training.model import IMAGE_SIZE, new_model, PATCH, start_from, VOCABULARY
from pi0_ros.weights.loading import load_model
import torch
from tqdm import tqdm

SAVE_EVERY = 100
LOG_EVERY = 10
WATCHED_SEED = 2 * FIRST_UNSEEN_SEED  # of the episodes that are watched during training


class Training:
    """One run: its folder, data and learner."""

    def __init__(self, args: argparse.Namespace) -> None:
        """Make what is missing in ``args.work`` and take up what is there."""
        self.args = args
        args.work.mkdir(parents=True, exist_ok=True)
        self._require_same(args)
        device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
        shards = make_demonstrations(args.work / 'demonstrations', args.shards, args.seed,
                                     args.workers, args.task)
        torch.set_num_threads(args.threads)
        self.tokenizer = build_tokenizer(VOCABULARY, args.network)
        image_tokens = len(demonstrations.CAMERAS) * (IMAGE_SIZE // PATCH) ** 2
        self.samples = learning.Samples(demonstrations.load(shards), self.tokenizer, image_tokens,
                                        args.seed, args.batch, args.network)
        model = new_model(args.seed, network=args.network)
        if args.start_from:
            start_from(model, load_model(checkpoint_folder(args.start_from), torch.float32,
                                         torch.device('cpu')))
        self.learner = learning.Learner(model, args.steps, args.rate, device, args.trained_delay)
        self.state, self.log = args.work / 'state.safetensors', args.work / 'log.jsonl'
        self.success = float('nan')
        if self.state.exists():
            self.learner.restore(self.state)

    @staticmethod
    def _require_same(args: argparse.Namespace) -> None:
        """
        Refuse to go on with what was begun in another way: its weights would be mislabelled.

        :raises SystemExit: the folder belongs to another run.
        """
        path = args.work / 'settings.json'
        settings = {name: getattr(args, name) for name in
                    ('task', 'network', 'trained_delay', 'start_from', 'seed')}
        if path.exists() and json.loads(path.read_text()) != settings:
            raise SystemExit(f"'{args.work}' was begun with {path.read_text().strip()}, this run "
                             f'has {json.dumps(settings)}: give another --work')
        path.write_text(json.dumps(settings) + '\n')

    def run(self) -> None:
        """Train to the last step, then write the checkpoint."""
        args, learner = self.args, self.learner
        started, first = time.monotonic(), learner.number
        bar = tqdm(total=args.steps, initial=first, desc='training', unit='step')
        while learner.number < args.steps:
            flow, auxiliary = learner.learn(self.samples.batch(learner.number), args.seed)
            number = learner.number
            bar.update()
            bar.set_postfix(loss=f'{flow:.4f}', success=f'{self.success:.0%}')
            if number % LOG_EVERY == 0:
                self._write(step=number, loss=flow, auxiliary=auxiliary,
                            seconds=round(time.monotonic() - started, 1))
            if number % SAVE_EVERY == 0 or number == args.steps:
                learner.save(self.state)
            if number % args.watch_every == 0 and number < args.steps:
                self.watch(args.work / 'watched')
        bar.close()
        self.watch(args.output)
        print(f'{args.output}: {self.success:.0%} of {args.episodes} watched episodes; learning '
              f'curve in {args.work / "learning.png"}')

    def watch(self, folder: Path) -> None:
        """Write the averaged weights to ``folder`` and see how often they take the named block."""
        export(folder, self.learner.average, self.samples, self.tokenizer,
               self.args.trained_delay)
        policy = Pi0Policy(folder, threads=self.args.threads)
        policy.load()
        policy.warm_up()
        episodes = [run_episode(policy, WATCHED_SEED + number, task=self.args.task)
                    for number in range(self.args.episodes)]
        self.success = float(np.mean([episode.success for episode in episodes]))
        self._write(step=self.learner.number, success=self.success,
                    wrong=float(np.mean([episode.wrong for episode in episodes])))
        plot_learning(self.log, self.args.work / 'learning.png')

    def _write(self, **values: float) -> None:
        with self.log.open('a') as lines:
            lines.write(json.dumps(values) + '\n')


def make_demonstrations(folder: Path, shards: int, seed: int, workers: int,
                        task: str = 'blocks') -> list[Path]:
    """Return the paths of ``shards`` shards, making those that are missing."""
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [(folder, seed * 100_000 + number, IMAGE_SIZE, task) for number in range(shards)]
    with ProcessPoolExecutor(workers, mp_context=get_context('spawn')) as pool:
        return list(tqdm(pool.map(demonstrations.write_shard, jobs), total=shards,
                         desc='demonstrations', unit='shard'))


def plot_learning(log: Path, path: Path) -> None:
    """Plot loss and closed-loop success over steps."""
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import pyplot as plt
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    losses = [(row['step'], row['loss']) for row in rows if 'loss' in row]
    watched = [(row['step'], row['success'], row['wrong']) for row in rows if 'success' in row]
    figure, left = plt.subplots(figsize=(8, 4.5))
    if losses:
        left.semilogy(*zip(*losses), color='tab:blue', linewidth=0.9)
    left.set_xlabel('step')
    left.set_ylabel('flow-matching loss', color='tab:blue')
    right = left.twinx()
    if watched:
        steps, success, wrong = zip(*watched)
        right.plot(steps, success, 'o-', color='tab:green', label='named block taken')
        right.plot(steps, wrong, 'x--', color='tab:red', label='another block grasped')
        right.legend(loc='center right')
    right.set_ylim(0, 1.02)
    right.set_ylabel('share of watched episodes')
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def parser() -> argparse.ArgumentParser:
    """Return the command line of this verb."""
    out = argparse.ArgumentParser(prog='python -m pi0_ros.training', description=__doc__,
                                  formatter_class=argparse.RawDescriptionHelpFormatter)
    out.add_argument('--work', type=Path, default=Path('out/train'),
                     help='folder for demonstrations, state and log (default: out/train)')
    out.add_argument('--output', type=Path, default=Path('out/train/checkpoint'),
                     help='folder for the finished checkpoint (default: out/train/checkpoint)')
    out.add_argument('--task', choices=TASKS, default='blocks',
                     help='peg: around a peg, left or right at random (default: blocks)')
    out.add_argument('--network', choices=tuple(NETWORKS), default='pi0',
                     help='pi0, or pi05 (default: pi0)')
    out.add_argument('--start-from', default='', metavar='FOLDER',
                     help="of a checkpoint of this size to go on from, 'demo' is the package's")
    out.add_argument('--trained-delay', type=int, default=0, metavar='N',
                     help='train for hand-over rtc_trained with delays of up to N actions')
    out.add_argument('--steps', type=int, default=4000, help='optimiser steps (default: 4000)')
    out.add_argument('--batch', type=int, default=64, help='observations a step (default: 64)')
    out.add_argument('--rate', type=float, default=1e-3, help='peak learning rate (default: 1e-3)')
    out.add_argument('--shards', type=int, default=128,
                     help=f'of {demonstrations.SHARD} demonstrated moments each (default: 128)')
    out.add_argument('--seed', type=int, default=0,
                     help='of demonstrations, weights and noise (default: 0)')
    out.add_argument('--threads', type=int, default=2, help='of torch (default: 2)')
    out.add_argument('--workers', type=int, default=os.cpu_count(),
                     help='processes that make demonstrations (default: all cores)')
    out.add_argument('--episodes', type=int, default=30,
                     help='episodes to watch each time (default: 30)')
    out.add_argument('--watch-every', type=int, default=1000,
                     help='steps between watching (default: 1000)')
    return out


def main(argv: list[str] | None = None) -> int:
    """Run the verb."""
    Training(parser().parse_args(argv)).run()
    return 0
