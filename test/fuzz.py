"""Random lives of a pilot: whatever is decided and whenever it ticks, what it publishes is safe.

    python test/fuzz.py [--ticks 10000000] [--seed 0]
"""

import argparse
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'test')]

from pi0_ros.control.limits import unlimited  # noqa: E402
from pi0_ros.control.pilot import ClockJump, Pilot, Timing  # noqa: E402
from pi0_ros.sim.controller import TrajectoryController, TrajectoryMessage  # noqa: E402
from support import MS, chunk  # noqa: E402

STRATEGIES = ('blend', 'switch', 'ensemble', 'synchronous', 'rtc')
DUE_MS = (10, 20, 33, 100)
EVENTS = {'chunk': 0.09, 'stop': 0.006, 'disable': 0.004, 'want': 0.004, 'late': 0.003,
          'very_late': 0.002}
LIFE_TICKS = 400
FOLLOWED = 4          # every such life, a controller follows what is published
STEP_NS = 2 * MS      # of that controller
OVER = 1.2            # of the velocity limit that its splines between two windows may reach
BATCH = 20


class Life:
    """One random life; ``live`` raises AssertionError where it is not safe."""

    def __init__(self, seed: int, order: np.ndarray | None = None) -> None:
        """Draw everything from ``seed``; ``order`` permutes the joints."""
        self.rng = rng = np.random.default_rng(seed)
        self.count = count = int(rng.integers(1, 4))
        self.order = np.arange(count) if order is None else order
        lower, upper, velocity, acceleration = (part[self.order] for part in (
            rng.uniform(-2, -0.1, count), rng.uniform(0.1, 2, count),
            rng.uniform(0.1, 3, count), rng.uniform(1, 20, count)))
        self.limits = replace(unlimited(count), lower=lower, upper=upper, velocity=velocity,
                              acceleration=acceleration, stopping=acceleration)
        rate = float(rng.choice([20.0, 50.0, 100.0]))
        self.pilot = Pilot(tuple('abc'[:count]), self.limits,
                           Timing.at_rate(rate, 0.3, str(rng.choice(STRATEGIES))))
        self.now = 10**12
        self.path: list[tuple[int, np.ndarray]] = []  # since the last time that proves nothing
        self.stands = self._inside(0.5)
        self.windows: list = []
        self.controller = (TrajectoryController(self.pilot.joint_names, self.stands)
                           if seed % FOLLOWED == 0 else None)
        self.followed_ns, self.at = self.now, self.stands

    def _inside(self, share: float) -> np.ndarray:
        middle = (self.limits.upper + self.limits.lower) / 2
        half = (self.limits.upper - self.limits.lower) / 2
        return middle + share * half * self.rng.uniform(-1, 1, self.count)[self.order]

    def live(self, ticks: int = LIFE_TICKS) -> int:
        """Live for so many ticks; return how many there were."""
        self.pilot.enable(self.stands, self.now)
        for number in range(ticks):
            self.act()
        self.pilot.disable(self.now)
        self.windows = []
        for number in range(1000):
            if not self.tick():
                break
        if self.windows:
            window = self.windows[-1]
            assert not window.velocities.any() and np.ptp(window.positions, axis=0).max() < 1e-9
        for _ in range(5):
            assert not self.tick(), 'a disarmed robot is commanded'
        return ticks + number + 6

    def act(self) -> None:
        """Let one control period pass, with what may happen in it."""
        rng, pilot = self.rng, self.pilot
        period = pilot.timing.period_ns
        names, odds = zip(*EVENTS.items())
        what = rng.choice(['nothing', *names], p=[1 - sum(odds), *odds])
        between = int(rng.integers(0, period))
        if what == 'chunk':
            self.offer(self.now + between)
        elif what == 'stop':
            pilot.stop(self.now + between)
        elif what == 'disable':
            pilot.disable(self.now + between)
        elif what == 'want':
            pilot.want_chunk(self.now + between)
        self.tick({'late': 2 * period, 'very_late': int(rng.integers(5, 40)) * 20 * MS}.get(
            what, 0))
        if not pilot.enabled and not pilot.speaking:
            self.path = []
            if self.windows:
                self.stands = self.windows[-1].positions[-1]
            pilot.enable(self.stands, self.now)

    def offer(self, at: int) -> None:
        """Hand over a chunk: near or far, smooth or wild, early or late."""
        rng, steps = self.rng, int(self.rng.integers(1, 51))
        size = float(rng.choice([0.0, 0.02, 0.3, 5.0]))
        wild = rng.normal(0, size, (steps, self.count))[:, self.order]
        begins = self.path[-1][1] if self.path else self.stands
        values = begins + (np.cumsum(wild, axis=0) if rng.random() < 0.5 else wild)
        made = chunk(values, at - int(rng.integers(0, 400)) * MS, int(rng.choice(DUE_MS)) * MS,
                     str(rng.choice(['one', 'two'])))
        self.pilot.accept(made, at, self.pilot.queue.epoch)

    def tick(self, late_ns: int = 0) -> bool:
        """Tick at about the next period; return whether something was published."""
        period = self.pilot.timing.period_ns
        jitter = int(self.rng.choice([0, self.rng.integers(0, 8 * MS)], p=[0.7, 0.3]))
        self.now += period + late_ns + jitter
        gap = period + late_ns + jitter
        if self.controller:
            self.follow()
        try:
            window = self.pilot.tick(self.now)
        except ClockJump:
            window = None
        if gap > self.pilot.timing.window_ns // 2:
            self.path = []  # the robot does what its last window says
        if window is None:
            return False
        self.check(window)
        if self.controller:
            self.controller.accept(TrajectoryMessage(
                window.stamp_ns, list(window.joint_names), window.times_ns.tolist(),
                window.positions.tolist(), window.velocities.tolist()), self.now)
        self.windows = [*self.windows[-1:], window]
        return True

    def follow(self) -> None:
        """Look at where a controller takes the joints until now."""
        while self.followed_ns + STEP_NS <= self.now:
            self.followed_ns += STEP_NS
            before, self.at = self.at, self.controller.sample(
                self.followed_ns, self.stands, np.zeros(self.count)).copy()
            speed = np.abs(self.at - before) / (STEP_NS / 1e9)
            assert (speed <= OVER * self.limits.velocity + 1e-6).all(), (
                speed / self.limits.velocity)
            assert (self.at <= self.limits.upper + 1e-3).all()
            assert (self.at >= self.limits.lower - 1e-3).all()

    def check(self, window: object) -> None:
        """Look at a window and at the last three commands."""
        assert np.isfinite(window.positions).all() and np.isfinite(window.velocities).all()
        assert (window.positions <= self.limits.upper + 1e-9).all()
        assert (window.positions >= self.limits.lower - 1e-9).all()
        assert not window.velocities[-1].any()
        self.path = [*self.path[-2:], (self.now, window.start)]
        if len(self.path) < 3:
            return
        times, places = zip(*self.path)
        dt = np.diff(times)[:, None] / 1e9
        speeds = np.diff(places, axis=0) / dt
        # To stop at a limit within a step, the plan turns and is clipped: a h^2 / 8, see limiter.
        clip = self.limits.acceleration * 0.01**2 / 8
        assert (np.abs(speeds[1]) <= self.limits.velocity + 1e-6 + clip / dt[1]).all(), speeds
        change = np.abs(speeds[1] - speeds[0])
        assert (change <= self.limits.acceleration * dt.mean() * (1 + 1e-3) + 1e-6
                + 2 * clip / dt.min()).all(), (change / dt.mean(), self.limits.acceleration)


def same_in_any_order(seed: int) -> None:
    """Assert that joints in another order are commanded alike."""
    first = Life(seed)
    order = np.random.default_rng(seed + 1).permutation(first.count)
    second = Life(seed, order)
    for life in (first, second):
        life.live(60)
    for one, other in zip(first.windows, second.windows, strict=True):
        np.testing.assert_allclose(one.positions[:, order], other.positions, atol=1e-9)


def batch(seed: int) -> int:
    """Live ``BATCH`` lives; return their ticks."""
    ticks = 0
    for number in range(seed * BATCH, (seed + 1) * BATCH):
        try:
            ticks += Life(number).live()
        except AssertionError as error:
            raise AssertionError(f'life {number}: {error}') from error
    return ticks


def main() -> None:
    """Live until there were enough ticks."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--ticks', type=int, default=10_000_000)
    parser.add_argument('--seed', type=int, default=0, help='of the first batch')
    args = parser.parse_args()
    done, workers = 0, os.cpu_count() or 1
    bar = tqdm(total=args.ticks, unit='tick', unit_scale=True)
    with ProcessPoolExecutor(workers) as pool:
        seed = args.seed
        while done < args.ticks:
            for ticks in pool.map(batch, range(seed, seed + 4 * workers)):
                done += ticks
                bar.update(ticks)
            seed += 4 * workers
    bar.close()
    print(f'{done} ticks in {(seed - args.seed) * BATCH} lives: every command safe')


if __name__ == '__main__':
    main()
