# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Golden traces: what guard and pilot do in some lives, tick by tick, as it was when written.

Whoever changes what is told on purpose writes them anew, and says so in the commit:

    python test/test_traces.py
"""

from pathlib import Path
import sys

import numpy as np
import pytest

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

from fuzz import chunk, Life  # noqa: E402, I100
from pi0_ros.observation.observation import Observation  # noqa: E402
from support import DATA, MS  # noqa: E402

FILE = DATA / 'traces.npz'
TICKS = 110
GROUPS, EACH = 16, 3  # of lives
NOTHING = -1.0


class Traced(Life):
    """A life that writes down what can be seen of it; now and then the arm is held or pushed."""

    def __init__(self, seed, holds):
        self.rows, self.words, self._seen = [], [], None
        self.holds, self._held, self._held_until_ns, self._pushed = holds, None, 0, 0.0
        self.lag, self.were = 0, []  # measured is what was commanded so many ticks ago
        super().__init__(seed)
        self.start_ns = self.now
        if holds:
            self.lag = int(self.rng.integers(0, 1 + 250 * MS // self.pilot.timing.period_ns))
        elif self.controller.settings.kind != 'humble':
            self.scales = bool(self.rng.random() < 0.5)

    def measure(self):
        if self.holds and self.rng.random() < 0.015:
            self._held, self._held_until_ns = self.path[-1] - self.sag, (
                self.now + int(self.rng.integers(1, 40)) * 100 * MS)
        if self.holds and self.rng.random() < 0.005:
            self._pushed = float(self.rng.choice([0.02, 0.08, 0.25]))
        super().measure()
        self.were = [*self.were, self.path[-1] - self.sag][-1 - self.lag:]
        if self.lag:
            self.joints.put(list(self.names), self.were[0], self.now, self.now)
        if self.now < self._held_until_ns:
            self.joints.put(list(self.names), self._held + self._pushed, self.now, self.now)
        else:
            self._pushed = 0.0

    def judge(self, places):
        self.path = list(np.vstack([self.path[-2:], places])[-3:])

    def offer(self, at):
        super().offer(at)
        if self.rng.random() < 0.2:  # one that is not good
            begins = self.pilot.told(np.array([at]))[0]
            bad = np.repeat(begins[None], 5, axis=0)
            bad[2:] += self.rng.choice([np.nan, 1e7, 0.1])
            made = chunk(bad, at - int(self.rng.integers(0, 12000)) * MS,
                         int(self.rng.choice([0, 20])) * MS, 'one')
            seen = Observation(made.t_obs_ns, self.path[-1] - self.sag, {}, {}, 'one')
            finding = self.guard.accept(made, seen, at, self.pilot.epoch)
            self.words.append(finding.text if finding else 'taken')

    def tick(self, late_ns=0):
        told = super().tick(late_ns)
        self.write(told)
        return told

    def write(self, told):
        """Write a row: numbers, and words."""
        guard, pilot, now = self.guard, self.pilot, self.now
        counters = pilot.counters
        row = [now - self.start_ns, told, pilot.enabled, pilot.speaking, pilot.epoch, pilot.delay,
               pilot.waits(now), pilot.turned, pilot.wants_chunk(now), guard.wants_chunk(now),
               pilot.lasts(now, 60 * MS), pilot.remaining_ns(now), guard.rejections,
               counters.merged, counters.dropped, counters.late_steps, counters.starved,
               counters.clamped, counters.slowed, counters.late_ticks, counters.late_plans]
        row += [*pilot.told(np.array([now - 30 * MS, now, now + 200 * MS])).ravel()]
        newest = pilot.newest
        if newest is None:
            row += [NOTHING] * (3 + 4 * self.count)
        else:
            row += [newest.stamp_ns - self.start_ns, len(newest.times_ns), newest.times_ns[-1],
                    *newest.start, *newest.positions[-1], *newest.velocities[0],
                    *newest.positions[len(newest.positions) // 2]]
        left = pilot.leftover(Observation(now, self.path[-1], {}, {}, 'one'))
        row += [NOTHING] * 2 if left is None else [left.positions.sum(), left.delay]
        self.rows.append([float(value) for value in row])
        refused = guard.why_not(now, None)
        self.words.append(' '.join((pilot.state.name, *(
            finding.reason if finding else '-' for finding in (
                guard.fault, guard.stopped_by, refused)))))

    def lived(self):
        """Live; return the rows [T, N] and the words."""
        self.tick()
        self.arm()
        for number in range(TICKS):
            if number % 37 == 36:
                self.guard.failed('the policy failed', self.now)
            if number % 61 == 60:
                self.pilot.forget_time()
            self.act()
            if number == 70 and self.guard.fault:
                self.guard.reset(self.now)
        self.controller.speed_scaling = 1.0
        self.pilot.disable()
        for _ in range(30):
            self.tick()
        return np.array(self.rows), self.words


def live(group):
    """Return rows and words of the lives of a group."""
    found = [Traced(7000 + EACH * group + number, holds=bool(group % 2)).lived()
             for number in range(EACH)]
    return [rows for rows, _ in found], [words for _, words in found]


@pytest.mark.parametrize('group', range(GROUPS))
def test_what_is_told_is_what_was_told_before(group):
    """Positions to a micrometre, times to 0.1 ms; states, reasons and counts exactly."""
    with np.load(FILE) as golden:
        for number, (rows, words) in enumerate(zip(*live(group))):
            key = f'{group}_{number}'
            assert words == golden[f'words_{key}'].tolist()
            np.testing.assert_allclose(rows, golden[f'rows_{key}'], rtol=1e-9, atol=1e-6)


def main():
    """Write the traces anew."""
    out = {}
    for group in range(GROUPS):
        for number, (rows, words) in enumerate(zip(*live(group))):
            out |= {f'rows_{group}_{number}': rows, f'words_{group}_{number}': np.array(words)}
    np.savez_compressed(FILE, **out)
    print(f'{FILE}: {FILE.stat().st_size / 1e3:.0f} kB, {len(out) // 2} lives')


if __name__ == '__main__':
    main()
