# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
What the arm does in four faults, on a synthetic clock: the picture of docs/goes_wrong.md.

    python benchmarks/goes_wrong.py --figure docs/goes_wrong.png
"""

import argparse
from pathlib import Path
import sys

import matplotlib
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / 'test'))
matplotlib.use('Agg')
from matplotlib import pyplot as plt  # noqa: E402, I100
from rig import Rig  # noqa: E402

BEFORE_MS, FAULT_MS, AFTER_MS = 1500, 1000, 2000


class Filmed:
    """A robot that is watched every 10 ms."""

    def __init__(self, **given: object) -> None:
        """Start it, armed and moving."""
        self.rig = Rig(**given)
        self.rig.start()
        self.times, self.commanded, self.measured, self.stopped = [], [], [], []

    def run(self, milliseconds: int) -> None:
        """Let time pass."""
        for _ in range(milliseconds // 10):
            self.rig.run(10)
            self.times.append(self.times[-1] + 0.01 if self.times else 0.0)
            self.commanded.append(self.rig.path[-1][0])
            self.measured.append(self.rig.measured()[0])
            state = self.rig.pilot.state.value
            self.stopped.append(state in ('stopping', 'disarmed', 'faulted', 'standing'))


def camera(film: Filmed) -> str:
    """Let the camera be silent for a second."""
    film.rig.feeds = {'joints'}
    film.run(FAULT_MS)
    film.rig.feeds = {'joints', 'images'}
    return 'a camera is silent for 1 s'


def slow(film: Filmed) -> str:
    """Let one inference take longer than a plan lasts."""
    usual, film.rig.infer_ms = film.rig.infer_ms, 1600
    film.run(FAULT_MS)
    film.rig.infer_ms = usual
    return 'an inference takes 1.6 s'


def blocked(film: Filmed) -> str:
    """Hold the arm."""
    film.rig.blocked = film.rig.measured().copy()
    film.run(FAULT_MS)
    return 'something is in the way'


def stop(film: Filmed) -> str:
    """Press the stop."""
    film.rig.guard.press_stop(True)
    film.run(FAULT_MS)
    return '~/stop is pressed'


def main() -> None:
    """Draw them."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--figure', type=Path, default=Path('out/goes_wrong.png'))
    args = parser.parse_args()
    figure, axes = plt.subplots(2, 2, figsize=(11, 5.6), sharex=True, sharey=True)
    for axis, fault in zip(axes.flat, (camera, slow, blocked, stop)):
        film = Filmed()
        film.run(BEFORE_MS)
        title = fault(film)
        film.run(AFTER_MS)
        times, stopped = np.array(film.times), np.array(film.stopped)
        axis.fill_between(times, -2, 2, where=stopped, color='#d9541e', alpha=0.18, lw=0)
        axis.axvline(BEFORE_MS / 1e3, color='#b3261e', lw=1)
        axis.plot(times, film.commanded, color='#1f6fb4', lw=2, label='commanded')
        axis.plot(times, film.measured, color='#20242a', lw=1.2, ls='--', label='measured')
        reason = film.rig.guard.fault or film.rig.guard.stopped_by
        axis.set_title(f"{title}{f': {reason.reason}' if reason else ''}", fontsize=10)
        print(f'{title}: {film.rig.pilot.state.value}, {reason}')
        axis.set_ylim(-0.4, 0.4)
    for axis in axes[1]:
        axis.set_xlabel('s')
    for axis in axes[:, 0]:
        axis.set_ylabel('rad')
    axes[0, 0].legend(fontsize=8, loc='lower left')
    figure.tight_layout()
    args.figure.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.figure, dpi=80)
    print(args.figure)


if __name__ == '__main__':
    main()
