"""Every strategy of handing over from chunk to chunk, on a synthetic clock."""

import math

import numpy as np
import pytest

from pi0_ros.control.handover import STRATEGIES, make_handover
from pi0_ros.control.limits import unlimited
from pi0_ros.control.pilot import ClockJump, Pilot, Timing
from pi0_ros.control.queue import ActionQueue
from support import MS, chunk

TICK = 20 * MS
SPEED = 1.5  # of the sine, radians a second


def queue(strategy, fade_ms=100):
    out = ActionQueue(1, make_handover(strategy, fade_ms * MS), 200 * MS)
    out.seed(np.array([0.0]), 0)
    return out


def at(it, *times_ms):
    return it.sample(np.array(times_ms) * MS)[:, 0]


def test_an_unknown_strategy_is_named():
    with pytest.raises(ValueError, match="hand-over 'jump' is unknown, expected one of synchr"):
        make_handover('jump', 0)


@pytest.mark.parametrize('strategy', STRATEGIES)
def test_a_robot_that_stands_is_not_made_to_jump(strategy):
    it = queue(strategy)
    it.merge(chunk([1.0] * 50), 0, it.epoch)
    np.testing.assert_allclose(at(it, 0, 20, 50, 100, 500), [0, 0.2, 0.5, 1, 1])


def test_switch_takes_the_new_chunk_at_once():
    it = queue('switch')
    it.merge(chunk([1.0] * 50), 0, it.epoch)
    it.merge(chunk([2.0] * 50, t_obs_ns=200 * MS), 300 * MS, it.epoch)
    np.testing.assert_allclose(at(it, 300, 320, 400), [1, 2, 2])


def test_ensemble_averages_what_all_chunks_say_with_the_weights_of_act():
    it = queue('ensemble')
    for number, value in enumerate((1.0, 2.0, 4.0)):
        it.merge(chunk([value] * 50, t_obs_ns=200 * number * MS), 200 * number * MS, it.epoch)
    weights = np.exp(-0.01 * np.arange(3))
    expected = weights @ [1, 2, 4] / weights.sum()
    np.testing.assert_allclose(at(it, 500), expected)
    last = weights[:2] @ [2, 4] / weights[:2].sum()  # the first chunk ended at 1.0 s
    np.testing.assert_allclose(at(it, 1100), last)


@pytest.mark.parametrize('forget', ['stop', 'seed', 'instruction'])
def test_ensemble_forgets_what_no_longer_holds(forget):
    it = queue('ensemble')
    it.merge(chunk([1.0] * 50), 0, it.epoch)
    if forget == 'stop':
        it.brake(300 * MS)
    elif forget == 'seed':
        it.seed(np.array([1.0]), 300 * MS)
    other = 'go back' if forget == 'instruction' else 'go'
    it.merge(chunk([2.0] * 50, t_obs_ns=300 * MS, instruction=other), 300 * MS, it.epoch)
    np.testing.assert_allclose(at(it, 420, 900), [2, 2])
    assert at(it, 320) < 1.3  # faded in


def test_synchronous_plays_a_chunk_whole_before_it_asks_again():
    it = pilot('synchronous')
    assert it.wants_chunk(TICK)
    it.accept(chunk([0.1] * 50, t_obs_ns=TICK), 200 * MS, it.queue.epoch)
    asked = [now for now in range(200 * MS, 2000 * MS, TICK) if it.wants_chunk(now)]
    assert asked[0] == pytest.approx(1300 * MS, abs=TICK)  # 1 s of chunk, and its stop
    np.testing.assert_allclose(it.queue.sample(np.array([1100 * MS])), 0.1)


def pilot(strategy):
    out = Pilot(('a',), unlimited(1), Timing.at_rate(50.0, 0.3, strategy))
    out.enable(np.zeros(1), 0)
    return out


def sine(t_obs_ns, number):
    due = t_obs_ns + TICK * np.arange(1, 51)
    return chunk(np.sin(SPEED * due / 1e9), t_obs_ns=t_obs_ns, number=number)


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
            pending = sine(now, number), it.queue.epoch, now + round(1e9 * (delay or 0.1)), delay
            number += 1
        if pending and now >= pending[2]:
            if pending[3] is not None:
                it.accept(pending[0], now, pending[1])
            pending = None
        window = it.tick(now)
        times = it.queue._plan[0]
        assert (np.diff(times) > 0).all()
        if window is not None:
            assert np.isfinite(window.positions).all() and (np.diff(window.times_ns) > 0).all()
            assert window.velocities[-1] == 0
        positions.append(float(it.queue.sample(np.array([now]))[0, 0]))
    speed = np.abs(np.diff(positions))[100:] * 50  # the start from a stand has to catch up
    assert number > 4 and np.ptp(positions) > 1.5
    # A plan that ran dry has to catch up within the fade.
    allowed = SPEED * 1.2 if disturbance not in ('run dry', 'spiking') else 2 / 0.1 * 1.2
    if strategy == 'synchronous':
        allowed = 2 / 0.1 * 1.2  # it plays late what was seen early, and starts from a stand
    assert speed.max() < allowed


@pytest.mark.parametrize('strategy', STRATEGIES)
def test_two_chunks_at_once_a_pause_and_a_clock_that_jumps(strategy):
    it = pilot(strategy)
    it.accept(sine(0, 0), TICK, it.queue.epoch)
    it.tick(TICK)
    it.accept(sine(TICK, 1), 2 * TICK, it.queue.epoch)
    it.accept(sine(TICK, 2), 2 * TICK, it.queue.epoch)
    assert it.queue.merged + it.queue.dropped == 3 and it.queue.dropped >= 1
    it.tick(2 * TICK)
    it.stop(3 * TICK)
    for step in range(3, 40):
        it.tick(step * TICK)
    rest = it.queue.sample(np.array([40 * TICK]))
    it.accept(sine(40 * TICK, 3), 41 * TICK, it.queue.epoch)
    it.tick(41 * TICK)
    assert abs(it.queue.sample(np.array([41 * TICK])) - rest) < 0.05
    with pytest.raises(ClockJump):
        it.tick(41 * TICK - 5_000 * MS)
    assert not it.enabled and math.isfinite(it.queue.sample(np.array([0]))[0, 0])
