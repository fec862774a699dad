# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Random lives of an arm, a node and a controller: whatever happens, what is commanded is safe.

    python test/fuzz.py [--ticks 10000000] [--seed 0]

Judged is what the controller commands at every one of its updates, not what the node meant.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
import os
from pathlib import Path
import sys

import numpy as np
from tqdm import tqdm

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'test')]

from pi0_ros.control.config import MODES, RELATIVE  # noqa: E402, I100
from pi0_ros.control.controllers import Group, Report  # noqa: E402
from pi0_ros.control.guard import Guard  # noqa: E402
from pi0_ros.control.leading import Leading  # noqa: E402
from pi0_ros.control.pilot import ClockJump, Pilot, Timing  # noqa: E402
from pi0_ros.control.rules import GuardRules  # noqa: E402
from pi0_ros.control.states import State  # noqa: E402
from pi0_ros.motion.limits import unlimited  # noqa: E402
from pi0_ros.observation.buffers import JointBuffer, LatestBuffer  # noqa: E402
from pi0_ros.observation.finding import Finding  # noqa: E402
from pi0_ros.observation.observation import (Freshness, Observation,  # noqa: E402
                                             ObservationBuilder)
from pi0_ros.sim.controller import (Settings, TrajectoryController,  # noqa: E402
                                    TrajectoryMessage, TrajectoryRejected)
from support import chunk, MS  # noqa: E402

STRATEGIES = ('blend', 'switch', 'ensemble', 'synchronous', 'rtc')
RATES = (1.0, 2.0, 5.0, 10.0, 14.0, 20.0, 50.0, 50.0, 50.0, 100.0)
UPDATES = (100.0, 125.0, 250.0, 500.0)
KINDS = ('humble', 'jazzy', 'master')
DUE_MS = (10, 20, 33, 100)
EVENTS = {'chunk': 0.09, 'stop': 0.006, 'disable': 0.004, 'want': 0.004, 'late': 0.003,
          'very_late': 0.002, 'fault': 0.002, 'back': 0.002, 'off': 0.002}
LIFE_TICKS, LIFE_S = 400, 40.0  # the fewer of both
TRACKING = 0.3
OVER = 1.02           # of the limits of velocity and acceleration, that may be commanded
SCALED_JUMP_S = 0.05  # of motion, that a controller whose speed was just scaled may be put right
SEEN_S = 0.5          # of motion, in which a controller that is off and tells nothing is noticed,
#                       by ticks: after a late one a window is told to its end before
BATCH = 20


class Pair:
    """Two controllers that have a robot's joints between them, as if they were one."""

    def __init__(self, names: tuple[str, ...], positions: np.ndarray, settings: Settings,
                 count: int) -> None:
        """Let the first have ``count`` joints."""
        self.settings, self.parts = settings, (slice(0, count), slice(count, None))
        self.both = [TrajectoryController(names[part], positions[part], settings)
                     for part in self.parts]

    def accept(self, messages: list[TrajectoryMessage], now_ns: int) -> None:
        """Take a message each."""
        for controller, message in zip(self.both, messages):
            controller.accept(message, now_ns)

    def run(self, times_ns: np.ndarray, measured: np.ndarray) -> np.ndarray:
        """Return what both command, [N, D]."""
        return np.hstack([controller.run(times_ns, measured[part])
                          for controller, part in zip(self.both, self.parts)])

    def activate(self, measured: np.ndarray) -> None:
        """Switch both on."""
        for controller, part in zip(self.both, self.parts):
            controller.activate(measured[part])

    def deactivate(self) -> None:
        """Switch both off."""
        for controller in self.both:
            controller.deactivate()

    @property
    def active(self) -> bool:
        """Return whether they are on."""
        return self.both[0].active

    def __getattr__(self, name: str) -> object:
        """Return what both have in common."""
        return getattr(self.both[0], name)

    def __setattr__(self, name: str, value: object) -> None:
        """Set what both have in common."""
        if name in ('settings', 'parts', 'both'):
            return super().__setattr__(name, value)
        for controller in self.both:
            setattr(controller, name, value)


class Life:
    """One random life; ``live`` raises AssertionError where it is not safe."""

    def __init__(self, seed: int, order: np.ndarray | None = None, calm: bool = False,
                 split: bool = False, led: bool = False) -> None:
        """
        Draw everything from ``seed``; ``order`` permutes the joints.

        :param calm: without what depends on where the joints are measured.
        :param split: two controllers have the joints, if there are two; one may tell its state and
            the other not.
        :param led: a person takes over now and then; by dice of its own, so that the rest is the
            same.
        """
        self.rng = rng = np.random.default_rng(seed)
        self.count = count = int(rng.integers(1, 4))
        self.order = np.arange(count) if order is None else order
        lower, upper, velocity, acceleration, sag = (part[self.order] for part in (
            rng.uniform(-2, -0.1, count), rng.uniform(0.1, 2, count),
            rng.uniform(0.1, 3, count), rng.uniform(1, 20, count),
            rng.choice([0.0, 1.0]) * rng.uniform(0.01, 0.12, count)))
        everything = np.full(count, 1e3)
        self.limits = replace(unlimited(count), lower=lower, upper=upper, velocity=velocity,
                              acceleration=acceleration, stopping=acceleration,
                              jump=everything, tracking=np.full(count, TRACKING))
        rate, update = float(rng.choice(RATES)), float(rng.choice(UPDATES))
        settings = Settings(str(rng.choice(KINDS)), True, update,
                            allow_trajectory_replacement=False)
        self.names = tuple('abc'[:count])
        self.pilot = Pilot(self.names, self.limits, Timing.at_rate(
            rate, 0.3, str(rng.choice(STRATEGIES)), update_rate_hz=update))
        self.joints, self.camera = JointBuffer(self.names), LatestBuffer()
        builder = ObservationBuilder(self.joints, {'c': self.camera}, lambda image: image,
                                     Freshness(10**10, 10**10, 10**10))
        split = split and count > 1
        groups = [Group('arm', joints=self.names[:1]), Group('hand', joints=self.names[1:])]
        groups = groups if split else []
        self.guard = Guard(self.pilot, builder, GuardRules(
            chunk_age_ns=10**10, rejections=10**6, tracks=not calm), groups)
        self.person = np.random.default_rng(seed + 10**9) if led else None
        self.leading = Leading(self.guard, str(self.person.choice(MODES)) if led else RELATIVE)
        self.leader, self.pressed = np.zeros(count), False
        self.tells, self.scales = rng.random() < 0.5, rng.random() < 0.2 and not calm
        self.sag = np.zeros(count) if calm else sag
        self.scales = self.scales and settings.kind != 'humble'  # which knows nothing of it
        self.update_ns = settings.period_ns
        self.now = 10**12
        self.stands = self._inside(0.5)
        self.controller = (Pair(self.names, self.stands, settings, 1) if split else
                           TrajectoryController(self.names, self.stands, settings))
        # Of one or two controllers, which tell their state.
        self.tellers = [self.tells, self.tells and bool(seed % 3)][:1 + split]
        self.followed_ns, self.path = self.now, [self.stands] * 3
        self.resumes = self.held_outside = False
        self.period_s = self.pilot.timing.period_ns / 1e9
        self.off_until_ns, self.forgives, self.clip = 0, 0, acceleration * 0.051**2 / 8
        self.mail: list[tuple[int, TrajectoryMessage | list[TrajectoryMessage]]] = []
        self.windows: list = []
        self.measure()

    @property
    def both(self) -> list[TrajectoryController]:
        """Return the controllers."""
        return self.controller.both if isinstance(self.controller, Pair) else [self.controller]

    def _inside(self, share: float) -> np.ndarray:
        middle = (self.limits.upper + self.limits.lower) / 2
        half = (self.limits.upper - self.limits.lower) / 2
        return middle + share * half * self.rng.uniform(-1, 1, self.count)[self.order]

    def measure(self) -> None:
        """Let the node hear where the joints are, and what the controller holds."""
        self.hear(self.now)
        self.joints.put(list(self.names), self.path[-1] - self.sag, self.now, self.now)
        self.camera.put(0, self.now, self.now)

    def hear(self, now: int) -> None:
        """Let the node hear what the controller tells of itself."""
        if self.tells and self.controller.active:
            for ago in range(7, -1, -1):  # it tells its state 50 times a second
                when = now - 20 * MS * ago
                for (heard, its), controller, tells in zip(
                        self.guard.controllers, self.both, self.tellers):
                    if tells:
                        heard.hear(Report(when, when, heard.joint_names, controller.reference,
                                          controller.speed_scaling))
        elif self.scales and not self.tells:
            self.guard.controllers.each[0].hear_scaling(self.controller.speed_scaling, now)

    def live(self, ticks: int | None = None) -> int:
        """Live for so many ticks; return how many there were."""
        ticks = ticks or min(LIFE_TICKS, round(LIFE_S / self.period_s))
        self.tick()  # nobody can arm it before it ticks
        self.arm()
        for number in range(ticks):
            self.act()
        self.controller.speed_scaling = 1.0  # at 0 it would rest where it is, and never end
        self.pilot.disable()
        self.windows = []
        for number in range(2000):
            self.tick()
            if self.pilot.state in (State.DISARMED, State.FAULTED):
                break
        assert not self.pilot.speaking, 'it never came to rest'
        if self.windows:
            last = self.windows[-1]
            assert not last.velocities[-1].any()
        for _ in range(5):
            assert not self.tick(), 'a disarmed robot is commanded'
        return ticks + number + 6

    def arm(self) -> None:
        """Arm; the node refuses what it must."""
        now_ns = self.now
        if self.guard.fault:
            self.guard.reset(now_ns)
        if not self.pilot.speaking and not self.pilot.enabled and not self.guard.why_not(
                now_ns, self.guard.builder.check(now_ns)):
            self.guard.arm(now_ns)

    def act(self) -> None:
        """Let one control period pass, with what may happen in it."""
        rng, pilot = self.rng, self.pilot
        period = pilot.timing.period_ns
        names, odds = zip(*EVENTS.items())
        what = rng.choice(['nothing', *names], p=[1 - sum(odds), *odds])
        between = int(rng.integers(0, period))
        late = {'late': 2 * period, 'very_late': int(rng.integers(5, 40)) * 20 * MS,
                'back': -period - int(rng.integers(1, 900)) * MS}.get(what, 0)
        if what == 'chunk' or (rng.random() < 0.1 and pilot.state is State.STANDING):
            self.offer(self.now + between)
        elif what == 'stop':
            pilot.stop()
        elif what == 'disable':
            pilot.disable()
        elif what == 'want':
            pilot.want_chunk()
        elif what == 'fault' and self.guard.rules.tracks:
            self.guard._follower.doubt()
            self.guard.latch(Finding('tracking', 'somebody is in the way'),
                             self.path[-1] - self.sag)
        elif what == 'off' and self.guard.rules.tracks and not self.off_until_ns:
            self.controller.deactivate()
            self.forgives = 3  # the drives stop where they are
            self.off_until_ns = self.now + int(rng.integers(2, 8)) * 10**9
        if self.scales and rng.random() < 0.02:
            self.controller.speed_scaling = float(rng.choice([0.0, 0.1, 0.5, 1.0]))
            self.forgives = 3
        if self.person is not None:
            self.lead(self.now + between)
        self.tick(late)
        if not pilot.enabled and not pilot.speaking:
            self.arm()

    def lead(self, at: int) -> None:
        """Press the switch or let it go, and lead: smoothly, wildly, by one joint, or nowhere."""
        dice = self.person
        if dice.random() < 0.03:
            self.pressed = not self.pressed
            self.leading.press(self.pressed, at, at)
        elif self.pressed and dice.random() < 0.9:  # else it is forgotten for once
            self.leading.press(True, at, at)
        self.leading.watch(at)
        if dice.random() < 0.02:
            self.leader = dice.normal(0, 2, self.count)
        self.leader = self.leader + dice.normal(0, dice.choice([0.0, 0.01, 0.1]), self.count)
        names, places = self.names, self.leader.copy()
        what = dice.integers(20)
        if what == 0:
            names, places = names[:1], places[:1]
        elif what == 1:
            places[0] = np.nan
        elif what == 2:
            return
        self.hear(at)
        self.leading.lead(names, places, at, at, leaders=1 + (what == 3))

    def offer(self, at: int) -> None:
        """Hand over a chunk: near or far, smooth or wild, early or late."""
        rng, steps = self.rng, int(self.rng.integers(1, 51))
        size = float(rng.choice([0.0, 0.02, 0.3, 5.0]))
        wild = rng.normal(0, size, (steps, self.count))[:, self.order]
        begins = self.pilot.told(np.array([at]))[0]
        values = begins + (np.cumsum(wild, axis=0) if rng.random() < 0.5 else wild)
        made = chunk(np.clip(values, -900, 900), at - int(rng.integers(0, 400)) * MS,
                     int(rng.choice(DUE_MS)) * MS, str(rng.choice(['one', 'two'])),
                     offset=int(rng.integers(0, 2)))
        seen = Observation(made.t_obs_ns, self.path[-1] - self.sag, {}, {}, made.instruction)
        self.hear(at)
        self.guard.accept(made, seen, at, self.pilot.epoch)

    def tick(self, late_ns: int = 0) -> bool:
        """Tick at about the next period; return whether something was published."""
        period = self.pilot.timing.period_ns
        jitter = int(self.rng.choice([0, self.rng.integers(0, 8 * MS)], p=[0.7, 0.3]))
        gap = period + late_ns + jitter
        if gap < 0:  # the clock is set, while no message is on its way
            passed = max(period, 40 * MS)
            self.follow(self.now + passed)
            self.set_clock(gap - passed)
            self.now += gap
        else:
            self.follow(self.now + gap)
            self.now += gap
        self.measure()
        try:
            told, _ = self.guard.tick(self.now)
        except ClockJump:
            told = None
        if told is None:
            return False
        assert told.finite
        delay = int(self.rng.integers(0, 15 * MS))
        at = max(self.now + delay, self.mail[-1][0] if self.mail else 0)
        parts = [TrajectoryMessage.of(told.of(its)) for _, its in self.guard.controllers]
        self.mail.append((at, parts if len(parts) > 1 else parts[0]))
        self.windows = [*self.windows[-1:], told]
        return True

    def set_clock(self, by_ns: int) -> None:
        """Set the clock that node and controller share."""
        self.followed_ns += by_ns
        self.off_until_ns += by_ns if self.off_until_ns else 0
        self.mail = [(at + by_ns, message) for at, message in self.mail]
        if self.controller.settings.kind == 'humble':
            # Its trajectory follows the clock: what that does is no command of the node's.
            self.forgives = 4 * 10**9 // self.update_ns
        if self.controller._update_ns:
            self.controller._update_ns += by_ns

    def follow(self, until_ns: int) -> None:
        """Let the controller update until then, and look at what it commands."""
        times = self.followed_ns + self.update_ns * np.arange(
            1, (until_ns - self.followed_ns) // self.update_ns + 1)
        while len(times):
            now = int(times[0])
            while self.mail and self.mail[0][0] <= now:
                if self.resumes and self.controller.active:
                    self.resumes, self.forgives = False, 3
                try:
                    self.controller.accept(self.mail.pop(0)[1], now)
                except TrajectoryRejected:
                    assert self.controller.settings.kind == 'humble'
            if self.off_until_ns and now >= self.off_until_ns:
                self.off_until_ns, self.forgives = 0, 3  # where it holds is its own affair
                self.controller.activate(self.path[-1] - self.sag)
                self.resumes, self.held_outside = not all(self.tellers), True
            news = [self.mail[0][0]] if self.mail else []
            news += [self.off_until_ns] if self.off_until_ns else []
            alone = int(np.searchsorted(times, min(news))) if news else len(times)
            places = self.controller.run(times[:alone], self.path[-1] - self.sag)
            self.followed_ns, times = int(times[alone - 1]), times[alone:]
            self.judge(places)

    def judge(self, places: np.ndarray) -> None:
        """Look at commands [N, D] and at the two before."""
        path = np.vstack([self.path[-2:], places])
        self.path = list(path[-3:])
        forgiven, rest = places[:self.forgives], places[self.forgives:]
        self.forgives -= len(forgiven)
        seconds = self.update_ns / 1e9
        way = np.diff(path, axis=0)[1:]
        speed, change = way / seconds, np.diff(path, 2, axis=0) / seconds**2
        limits, clip = self.limits, self.clip
        over = clip + 1e-6 + (5 * self.sag if self.held_outside else 0.0)
        # What it holds when it is switched on is its own affair.
        assert (rest <= limits.upper + over).all(), rest.max(axis=0) - limits.upper
        assert (rest >= limits.lower - over).all(), limits.lower - rest.min(axis=0)
        if len(forgiven):
            jump = np.abs(way[:len(forgiven)])
            unseen_s = SEEN_S + 2 * self.period_s + self.pilot.timing.follow_ns / 1e9
            allowed = (TRACKING + unseen_s * limits.velocity
                       + limits.velocity**2 / (2 * limits.acceleration))  # and it has to stop
            assert (jump <= allowed).all(), jump.max(axis=0)
        way, speed, change = (part[len(forgiven):] for part in (way, speed, change))
        if self.scales:  # every message puts the controller's time right, by what it was late
            allowed = OVER * limits.velocity * (seconds + SCALED_JUMP_S + self.period_s)
            assert (np.abs(way) <= allowed).all()
            return
        fast, hard = np.abs(speed), np.abs(change)
        assert (fast <= OVER * limits.velocity + 1e-6).all(), fast.max(axis=0) / limits.velocity
        assert (hard <= OVER * limits.acceleration + 1e-4).all(), (
            hard.max(axis=0) / limits.acceleration)


def same_in_any_order(seed: int) -> None:
    """Assert that joints in another order are commanded alike."""
    first = Life(seed, calm=True)
    order = np.random.default_rng(seed + 1).permutation(first.count)
    second = Life(seed, order, calm=True)
    for life in (first, second):
        life.live(60)
    for one, other in zip(first.windows, second.windows, strict=True):
        np.testing.assert_allclose(one.positions[:, order], other.positions, atol=1e-9)


def batch(seed: int) -> int:
    """Live ``BATCH`` lives; return their ticks."""
    ticks = 0
    for number in range(seed * BATCH, (seed + 1) * BATCH):
        try:
            ticks += Life(number, split=number % 2 == 1, led=number % 4 > 1).live()
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
