# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Every strategy of handing over from chunk to chunk, on a synthetic clock."""

from dataclasses import replace
import math

import numpy as np
from pi0_ros.control.pilot import ClockJump, Pilot, Timing
from pi0_ros.engine.guidance import weights
from pi0_ros.motion.handover import make_handover, STRATEGIES
from pi0_ros.motion.limits import unlimited
from pi0_ros.motion.plan import Plan
from pi0_ros.observation.observation import Observation
import pytest
from rig import Rig
from support import chunk, MS, Planner

TICK = 20 * MS
SPEED = 1.5  # of the sine, radians a second


def planner(strategy):
    return Planner(strategy, fade_ms=100, brake_ns=200 * MS)


def test_an_unknown_strategy_is_named():
    with pytest.raises(ValueError, match="hand-over 'jump' is unknown, expected one of synchr"):
        make_handover('jump', 0)


@pytest.mark.parametrize('strategy', STRATEGIES)
def test_a_robot_that_stands_is_not_made_to_jump(strategy):
    it = planner(strategy)
    it.take(chunk([1.0] * 50), 0)
    np.testing.assert_allclose(it.at(0, 20, 50, 100, 500), [0, 0.2, 0.5, 1, 1])


def test_switch_takes_the_new_chunk_at_once():
    it = planner('switch')
    it.take(chunk([1.0] * 50), 0)
    it.take(chunk([2.0] * 50, t_obs_ns=200 * MS), 300 * MS)
    np.testing.assert_allclose(it.at(300, 320, 400), [1, 2, 2])


def test_ensemble_averages_what_all_chunks_say_with_the_weights_of_act():
    it = planner('ensemble')
    for number, value in enumerate((1.0, 2.0, 4.0)):
        it.take(chunk([value] * 50, t_obs_ns=200 * number * MS), 200 * number * MS)
    weights = np.exp(-0.01 * np.arange(3))
    expected = weights @ [1, 2, 4] / weights.sum()
    np.testing.assert_allclose(it.at(500), expected)
    last = weights[:2] @ [2, 4] / weights[:2].sum()  # the first chunk ended at 1.0 s
    np.testing.assert_allclose(it.at(1100), last)


@pytest.mark.parametrize('forget', ['stop', 'stand', 'instruction'])
def test_ensemble_forgets_what_no_longer_holds(forget):
    it = planner('ensemble')
    it.take(chunk([1.0] * 50), 0)
    if forget == 'stop':
        it.plan = it.plan.stopped(300 * MS, it.rules.limits, 200 * MS)
    elif forget == 'stand':
        it.plan = Plan.standing(np.array([1.0]), 300 * MS)
    other = 'go back' if forget == 'instruction' else 'go'
    it.take(chunk([2.0] * 50, t_obs_ns=300 * MS, instruction=other), 300 * MS)
    np.testing.assert_allclose(it.at(420, 900), [2, 2])
    assert it.at(320)[0] < 1.3  # faded in


def test_synchronous_plays_a_chunk_whole_before_it_asks_again():
    it = pilot('synchronous')
    assert it.wants_chunk(TICK)
    it.accept(chunk([0.1] * 50, t_obs_ns=TICK), 200 * MS, it.epoch)
    asked = [now for now in range(200 * MS, 2000 * MS, TICK) if it.wants_chunk(now)]
    assert asked[0] == pytest.approx(1300 * MS, abs=TICK)  # 1 s of chunk, and its stop
    np.testing.assert_allclose(it.plan.sample(np.array([1100 * MS])), 0.1)


def pilot(strategy):
    out = Pilot(('a',), unlimited(1), Timing.at_rate(50.0, 0.3, strategy))
    out.enable(np.zeros(1), 0)
    return out


def seen_at(t_obs_ns, text):
    return Observation(t_obs_ns, np.zeros(1), {}, {}, text)


def sine(t_obs_ns, number, leftover=None):
    """Return a chunk of a sine; after a leftover as a policy that continues it would."""
    due = t_obs_ns + TICK * np.arange(1, 51)
    values = np.sin(SPEED * due / 1e9)
    if leftover is None:
        return chunk(values, t_obs_ns=t_obs_ns, number=number)
    share = weights(50, len(leftover.positions), leftover.delay)[:len(leftover.positions)]
    values[:len(share)] += share * (leftover.positions[:, 0] - values[:len(share)])
    given = min(leftover.delay, len(share))
    return replace(chunk(values, t_obs_ns=t_obs_ns, number=number), given=given)


def random_delay(rng, number):
    return rng.uniform(0.0, 0.25)


DISTURBANCES = {
    'none': lambda rng, number: 0.0,
    'constant': lambda rng, number: 0.2,
    'random': random_delay,
    'spiking': lambda rng, number: 0.05 if number % 5 else 0.6,
    'lost': lambda rng, number: None if number % 4 == 3 else 0.05,
    'run dry': lambda rng, number: 0.05 if number < 6 or number > 9 else 1.6,
}


@pytest.mark.parametrize('strategy', STRATEGIES)
@pytest.mark.parametrize('disturbance', DISTURBANCES)
def test_the_plan_stays_whole_under_disturbances(strategy, disturbance):
    """No gap, no repeated time, nothing that is not finite, no jump but those of switch."""
    rng, it = np.random.default_rng(0), pilot(strategy)
    pending, number, positions = None, 0, []
    for now in range(TICK, 8_000 * MS, TICK):
        if pending is None and it.wants_chunk(now):
            delay = DISTURBANCES[disturbance](rng, number)
            seen = now - int(rng.integers(TICK))  # joint states come at times of their own
            leftover = it.leftover(seen_at(seen, 'go'))
            assert leftover is None or it.handover.continues
            pending = (sine(seen, number, leftover), it.epoch,
                       now + round(1e9 * (delay or 0.1)) + int(rng.integers(TICK)), delay)
            number += 1
        if pending and now >= pending[2]:
            if pending[3] is not None:
                it.accept(pending[0], pending[2], pending[1])
            pending = None
        window = it.tick(now)
        times = it.plan.times
        assert (np.diff(times) > 0).all()
        if window is not None:
            assert np.isfinite(window.positions).all() and (np.diff(window.times_ns) > 0).all()
            assert window.velocities[-1] == 0
        positions += it.plan.sample(np.arange(now, now + TICK, MS))[:, 0].tolist()
    speed = np.abs(np.diff(positions)) * 1e3
    assert number > 4 and np.ptp(positions) > 1.5
    # What has to be caught up with (a start, a plan that ran dry, what was seen early and played
    # late) is faded over 0.1 s; a cubic between its steps is half as fast again.
    catches_up = disturbance in ('run dry', 'spiking') or strategy == 'synchronous'
    assert speed[2000:].max() < (1.5 * 2 / 0.1 if catches_up else SPEED * 1.3)
    if strategy not in ('switch', 'ensemble'):  # which jump
        assert speed.max() < 1.5 * 2 / 0.1


@pytest.mark.parametrize('strategy', STRATEGIES)
@pytest.mark.parametrize('rates', [(50, 10), (10, 50), (100, 30)])
def test_a_change_of_rates_leaves_no_gap(strategy, rates):
    """Commands and actions of different rates, and actions that change theirs."""
    it, step = pilot(strategy), round(1e9 / rates[0])
    it.use(Timing.at_rate(rates[0], 0.3, strategy))
    positions = []
    for now in range(step, 6 * 10**9, step):
        if it.wants_chunk(now):
            rate = rates[0] if now < 3 * 10**9 else rates[1]
            due = now + round(1e9 / rate) * np.arange(1, 51)
            it.accept(chunk(np.sin(SPEED * due / 1e9), now, round(1e9 / rate)), now,
                      it.epoch)
        if it.tick(now) is not None:
            positions.append(it.plan.sample(np.arange(now, now + step, MS))[:, 0])
    speed = np.abs(np.diff(np.concatenate(positions))) * 1e3
    assert speed[1000:].max() < (SPEED * 1.25 if strategy != 'synchronous' else 25)


@pytest.mark.parametrize('strategy', ['rtc', 'rtc_trained'])
def test_what_is_executed_meanwhile_is_what_was_planned(strategy):
    """The first d actions are unchanged, whether the chunk comes early or late."""
    it, rng = pilot(strategy), np.random.default_rng(0)
    it.accept(sine(TICK, 0), TICK, it.epoch)
    for number in range(1, 30):
        asked = TICK + number * 300 * MS
        leftover = it.leftover(seen_at(asked, 'go'))
        chunk_ = sine(asked, number, leftover)
        chunk_.positions[:] += 0.05  # a network that continues only roughly
        now = asked + TICK * int(rng.integers(0, 8))
        due = asked + TICK * np.arange(1, chunk_.given + 1)
        planned = it.plan.sample(due)
        assert it.accept(chunk_, now, it.epoch) is None
        np.testing.assert_allclose(it.plan.sample(due[due > now]), planned[due > now], atol=1e-9)
    assert it.delay == 7 and chunk_.given == 7


def test_of_a_plan_for_another_instruction_only_what_will_be_executed_is_left():
    it = pilot('rtc')
    assert it.leftover(seen_at(TICK, 'go')) is None
    it.accept(sine(TICK, 0), TICK, it.epoch)
    it.accept(sine(2 * TICK, 1), 7 * TICK, it.epoch)
    same, other = (it.leftover(seen_at(10 * TICK, text)) for text in ('go', 'go back'))
    assert same.delay == other.delay == 5
    assert len(same.positions) > 30 and len(other.positions) == 5


def test_an_inference_starts_early_enough_for_its_measured_delay():
    it = pilot('blend')
    it.use(Timing.at_rate(50.0, 5.0))
    it.accept(sine(TICK, 0), TICK, it.epoch)
    it.accept(sine(2 * TICK, 1), 2 * TICK + 400 * MS, it.epoch)  # that took long
    asked = next(now for now in range(20 * TICK, 100 * TICK, TICK) if it.wants_chunk(now))
    left = it.plan.before_stop_ns(asked)
    assert 400 * MS < left <= 650 * MS


@pytest.mark.parametrize('strategy', STRATEGIES)
def test_two_chunks_at_once_a_pause_and_a_clock_that_jumps(strategy):
    it = pilot(strategy)
    it.accept(sine(0, 0), TICK, it.epoch)
    it.tick(TICK)
    it.accept(sine(TICK, 1), 2 * TICK, it.epoch)
    it.accept(sine(TICK, 2), 2 * TICK, it.epoch)
    assert it.counters.merged + it.counters.dropped == 3 and it.counters.dropped >= 1
    it.tick(2 * TICK)
    it.stop()
    for step in range(3, 40):
        it.tick(step * TICK)
    rest = it.plan.sample(np.array([40 * TICK]))
    it.accept(sine(40 * TICK, 3), 41 * TICK, it.epoch)
    it.tick(41 * TICK)
    assert abs(it.plan.sample(np.array([41 * TICK])) - rest) < 0.05
    with pytest.raises(ClockJump):
        it.tick(41 * TICK - 5_000 * MS)
    assert not it.enabled and math.isfinite(it.plan.sample(np.array([0]))[0, 0])


class Led(Rig):
    """Its policy has learnt a leader: step k is what that did k + offset periods after it saw."""

    offset = 0

    @staticmethod
    def leader(at_ms):
        return np.stack([0.3 * np.sin(at_ms / 700), 0.2 * np.sin(at_ms / 500)], axis=-1)

    def decide(self, seen):
        at_ms = seen.t_obs_ns / MS + 20 * (self.offset + np.arange(50))
        values = self.leader(at_ms)
        away = seen.state - self.leader(seen.t_obs_ns / MS)
        back = np.exp(-(at_ms - seen.t_obs_ns / MS) / 300)[:, None]
        return chunk(values + back * away, t_obs_ns=seen.t_obs_ns, offset=self.offset)


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('infer_ms', [30, 150])
@pytest.mark.parametrize('strategy', ['blend', 'switch', 'ensemble', 'rtc'])
def test_the_robot_does_what_the_leader_did_when_he_did_it(strategy, infer_ms, offset):
    rig = Led(strategy=strategy, infer_ms=infer_ms)
    rig.offset = offset
    rig.run(100)
    while rig.arm() is not None:
        rig.run(10)
    rig.run(6000)
    at_ms = rig.now - np.arange(2000)[::-1]
    apart = np.abs(np.array(rig.path[-2000:]) - rig.leader(at_ms)).max()
    assert apart < 0.45 * 0.020  # rad: a control period at the leader's fastest
