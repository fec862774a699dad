# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Plans, and how chunks become part of them, on a synthetic clock."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
from pi0_ros.control.pilot import Pilot, Timing
from pi0_ros.motion.limits import unlimited
from pi0_ros.motion.plan import Plan
from pi0_ros.motion.spline import cubic, knot_velocities
import pytest
from support import chunk, MS, Planner

DT = 20 * MS


def test_step_k_is_due_at_observation_plus_k_plus_one_periods():
    it = Planner()
    assert it.take(chunk([1, 2, 3], t_obs_ns=0), 0) is None
    assert it.at(0, 20, 30, 40, 60, 100) == [0, 1, 1.5, 2, 3, 3]


def test_late_chunk_starts_further_into_itself():
    it = Planner()
    it.take(chunk([0.0] * 20), 0)
    it.take(chunk([1, 2, 3, 4], t_obs_ns=20 * MS), 70 * MS)
    assert it.plan.late_steps == 2 and it.at(70, 80, 100) == [0, 3, 4]


def test_who_stood_since_the_observation_begins_with_the_first_step():
    it = Planner(brake_ns=100 * MS)
    it.take(chunk(np.arange(1, 21), t_obs_ns=10 * MS), 50 * MS)
    assert it.plan.late_steps == 0 and it.at(50, 70, 90) == [0, 1, 2]
    it.take(chunk([20.0] * 30, t_obs_ns=300 * MS), 800 * MS)
    assert it.plan.late_steps == 25  # it still moved then
    assert 'too late' in it.take(chunk([9] * 4, t_obs_ns=850 * MS), 940 * MS)


def test_who_stands_begins_with_the_first_step_of_a_chunk_shorter_than_its_inference():
    it = Planner()
    assert it.take(chunk([1, 2, 3, 4]), 500 * MS) is None
    assert it.plan.late_steps == 0 and it.at(500, 520, 580, 700) == [0, 1, 4, 4]


def test_chunk_that_is_wholly_late_is_dropped():
    it = Planner(at=5.0)
    it.take(chunk([5] * 50), 0)
    assert 'too late: its last action was due 0.040 s ago' in it.take(
        chunk([1, 2, 3], t_obs_ns=MS), 101 * MS)
    assert it.at(100) == [5]


def test_early_chunk_waits_and_the_plan_goes_on_until_then():
    it = Planner()
    it.take(chunk(range(1, 11)), 0)
    it.take(chunk([50] * 10, t_obs_ns=100 * MS), 0)
    assert it.at(60, 100, 120, 200) == [3, 5, 50, 50]


def test_gap_is_bridged_from_where_the_plan_ended():
    it = Planner()
    it.take(chunk([1, 2]), 0)
    it.take(chunk([4] * 5, t_obs_ns=180 * MS), 100 * MS)
    assert it.at(100, 150, 200) == [2, 3, 4]


def test_overlap_switches_by_time_with_a_cross_fade():
    it = Planner(fade_ms=100)
    it.take(chunk([0] * 50), 0)
    it.take(chunk([10] * 50, t_obs_ns=20 * MS), 20 * MS)
    assert it.at(20, 40, 60, 120, 500) == pytest.approx([0, 2, 4, 10, 10])


def test_chunks_out_of_order_are_dropped():
    it = Planner()
    assert it.take(chunk([1] * 9, t_obs_ns=40 * MS), 40 * MS) is None
    assert 'older than the one in use' in it.take(chunk([2] * 9, 20 * MS), 40 * MS)


def test_chunk_from_the_future_is_dropped():
    it = Planner()
    assert 'lies in the future' in it.take(chunk([1] * 5, t_obs_ns=10**12), 0)


@pytest.mark.parametrize('values, words', [
    (np.full((5, 1), np.nan), 'not finite at step 0, joint 0'),
    (np.zeros((5, 2)), r'shape \(5, 2\), expected \(steps, 1\)'),
    (np.zeros((0, 1)), 'shape'), (np.zeros((2, 2, 2)), 'shape')])
def test_malformed_chunk_changes_nothing(values, words):
    it = Planner()
    it.take(chunk([1, 2, 3]), 0)
    with pytest.raises(ValueError, match=words):
        it.take(chunk(values, t_obs_ns=1), 0)
    assert it.at(20, 40) == [1, 2]


def test_a_stop_goes_straight_on_and_comes_to_rest():
    it = Planner(brake_ns=200 * MS)
    it.take(chunk(np.arange(1, 51)), 0)
    stopped = it.plan.stopped(100 * MS, it.rules.limits, 200 * MS)
    moved = stopped.sample(np.arange(100, 500, 10) * MS)[:, 0]
    speed = np.diff(moved)
    assert moved[0] == 5 and moved[-1] == pytest.approx(10, abs=0.01)  # half of 10 steps
    assert (np.diff(speed) < 1e-9).all() and speed[-1] == 0
    assert stopped.remaining_ns(400 * MS) == 0 and stopped.remaining_ns(299 * MS) == MS
    assert stopped.instruction is None and stopped.source(200 * MS) is None


def test_every_plan_ends_in_a_smooth_stop_at_its_last_action():
    it = Planner(brake_ns=200 * MS)
    it.take(chunk(np.arange(1, 51)), 0)
    speed = np.diff(it.at(*range(500, 1500, 10)))
    assert speed[0] == pytest.approx(0.5) and speed[-1] == 0
    assert (np.diff(speed) < 1e-6).all()
    assert it.at(900, 1100) == [pytest.approx(45), pytest.approx(50)]
    assert it.plan.remaining_ns(0) == 1100 * MS


def test_chunk_from_a_clock_ahead_is_faded_in_too():
    it = Planner(fade_ms=100)
    it.take(chunk([1] * 50, t_obs_ns=130 * MS), 0)
    assert it.at(150, 190, 230) == pytest.approx([0.2, 0.6, 1.0])


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 40),
                          st.lists(st.floats(-3, 3), min_size=1, max_size=30)),
                max_size=8), st.integers(0, 10))
def test_plan_is_continuous_at_every_splice(merges, fade_steps):
    """Whatever arrives whenever: no jump at a splice, no repeated due time, finite values."""
    it = Planner(fade_ms=20 * fade_steps, brake_ns=200 * MS)
    now = 0
    for wait, delay, values in merges:
        now += wait * 10 * MS
        before = it.plan.sample(np.array([now]))
        it.take(chunk(values, t_obs_ns=max(0, now - delay * 10 * MS)), now)
        np.testing.assert_allclose(it.plan.sample(np.array([now])), before, atol=1e-9)
        times, positions, velocities = it.plan.knots
        assert (np.diff(times) > 0).all() and np.isfinite(positions).all()
        assert len(times) == len(positions) == len(velocities) and np.isfinite(velocities).all()


@given(st.lists(st.tuples(st.integers(1, 50), st.floats(-3, 3)), min_size=1, max_size=20),
       st.floats(-5, 5))
def test_velocity_has_no_steps_and_nothing_overshoots(knots, first):
    times = np.cumsum([0] + [wait * 10 * MS for wait, _ in knots])
    values = np.array([0.0] + [value for _, value in knots])[:, None]
    speeds = knot_velocities(times, values, np.array([first]))
    for at in times[1:-1]:
        before, after = cubic(times, values, speeds, np.array([at - 1, at]))[1][:, 0]
        largest = np.abs(np.diff(values[:, 0]) / np.diff(times) * 1e9).max()
        assert abs(before - after) < 1e-5 * (largest + abs(first) + 1)
    slope = (values[1, 0] - values[0, 0]) / times[1] * 1e9
    inside = cubic(times, values, speeds, np.linspace(0, times[1], 23))[0]
    over = 4 / 27 * abs(first) * times[1] / 1e9  # a velocity that is given takes way to lose
    if first * slope < 0 or abs(first) > 3 * abs(slope):
        assert inside.max() <= max(values[:2]) + over + 1e-9
        assert inside.min() >= min(values[:2]) - over - 1e-9
    else:
        assert inside.max() <= max(values[:2]) + 1e-9 and inside.min() >= min(values[:2]) - 1e-9
    for begin, end, low, high in zip(times[1:], times[2:], values[1:, 0], values[2:, 0]):
        inside = cubic(times, values, speeds, np.linspace(begin, end, 23))[0]
        assert min(low, high) - 1e-9 <= inside.min() and inside.max() <= max(low, high) + 1e-9


@pytest.mark.parametrize('dt_ms', [20, 100])
def test_velocity_has_no_step_at_a_splice(dt_ms):
    """Also where actions are further apart than commands, and a chunk comes between two."""
    it = Planner(fade_ms=100, brake_ns=200 * MS)
    sine = np.sin(np.arange(1, 51) * dt_ms * 2e-3)
    it.take(chunk(sine, dt_ns=dt_ms * MS), 0)
    now, before = 333 * MS, it.plan.motion(np.array([333 * MS]))
    it.take(chunk(sine[300 // dt_ms:] + 0.2, 300 * MS, dt_ms * MS), now)
    after = it.plan.motion(np.array([now]))
    np.testing.assert_allclose(np.ravel(before), np.ravel(after), atol=1e-9)
    moved = np.diff(it.plan.sample(np.arange(335, 1000, 5) * MS)[:, 0]) / 0.005
    assert np.abs(np.diff(moved)).max() < 1.5  # 0.2 in 0.1 s, sped up within it


def test_steps_that_repeat_the_plan_are_left_as_planned():
    it = Planner(fade_ms=0, brake_ns=200 * MS)
    it.take(chunk(np.arange(1, 51) / 10), 0)
    planned = it.at(*range(300, 401, 10))
    new = replace(chunk(np.full(50, 9.0), t_obs_ns=300 * MS), given=6)
    it.take(new, 320 * MS)  # it came earlier than was thought
    assert it.at(*range(320, 401, 10)) == pytest.approx(planned[2:])
    assert it.at(440, 500) == [9, 9]
    it.take(replace(chunk([5.0] * 3, t_obs_ns=440 * MS), given=3), 440 * MS)
    assert it.at(700) == pytest.approx([5])  # one step is left to take


def test_delay_is_the_longest_of_the_last_ten_without_the_first():
    it = Pilot(('a',), unlimited(1), Timing.at_rate(50.0, 0.3))
    it.enable(np.zeros(1), 0)
    assert it.delay == 0
    it.accept(chunk([0.0] * 50), 600 * MS, it.epoch)
    assert it.delay == 30  # until something better is known
    now = 600 * MS
    for late in (3, 8, *[2] * 9):
        now += 200 * MS
        assert it.accept(chunk([0.0] * 50, t_obs_ns=now), now + late * DT, it.epoch) is None
        assert it.delay == (3 if late == 3 else 8)
    it.accept(chunk([0.0] * 50, t_obs_ns=now + DT), now + 3 * DT, it.epoch)
    assert it.delay == 2


def test_a_plan_at_its_end_is_counted_as_starved():
    it = Planner(brake_ns=200 * MS)
    it.take(chunk([0.1] * 50), 0)
    it.take(chunk([0.1] * 50, t_obs_ns=700 * MS), 800 * MS)
    assert not it.plan.starved and it.plan.before_stop_ns(800 * MS) == 800 * MS
    it.take(chunk([0.1] * 50, t_obs_ns=1550 * MS), 1650 * MS)
    assert it.plan.starved
    it.plan = it.plan.stopped(1700 * MS, it.rules.limits, 200 * MS)
    it.take(chunk([0.1] * 50, t_obs_ns=2550 * MS), 2600 * MS)
    assert not it.plan.starved  # a stop that was asked for


def test_leftover_is_what_is_planned_for_the_next_chunk():
    it = Planner(brake_ns=200 * MS)
    assert len(it.plan.leftover(DT, DT, 50)) == 0
    it.take(chunk(np.arange(1, 51)), 0)
    rest = it.plan.leftover(400 * MS + DT, DT, 50)[:, 0]
    np.testing.assert_allclose(rest, np.arange(21, 46))  # the stop begins at 0.9 s
    stopped = it.plan.stopped(500 * MS, it.rules.limits, 200 * MS)
    assert len(stopped.leftover(500 * MS + DT, DT, 50)) == 0


def test_every_action_knows_where_it_comes_from():
    it = Planner(brake_ns=200 * MS)
    assert it.plan.source(0) is None
    stamps = {'top': 10 * MS}
    for number, t_obs in enumerate((0, 300 * MS)):
        it.take(replace(chunk([1.0] * 50, t_obs, number=number, instruction=f'go {number}'),
                        image_stamps_ns=stamps, seed=7), t_obs + 50 * MS)
    assert it.plan.source(50 * MS) is None and it.plan.source(340 * MS).number == 0
    last = it.plan.source(360 * MS)
    assert (last.number, last.instruction, last.seed, last.t_obs_ns, last.image_stamps_ns) == (
        1, 'go 1', 7, 300 * MS, stamps)
    assert Plan.standing(np.zeros(1), 400 * MS).source(500 * MS) is None


@given(st.integers(0, 99), st.integers(0, 99), st.sampled_from([10, 20, 67, 100]),
       st.integers(0, 12), st.booleans())
def test_a_fade_is_as_slow_as_it_says_whatever_the_times(seen_ms, came_ms, dt_ms, given_, rtc):
    """Observations and chunks come at times that no grid knows; no step of a plan is 0.1 s."""
    it = Planner('rtc' if rtc else 'blend', 100, brake_ns=200 * MS)
    it.take(chunk([0.0] * 50, dt_ns=dt_ms * MS), 0)
    new = chunk([0.1] * 50, (100 + seen_ms) * MS, dt_ms * MS)
    now = (100 + seen_ms + came_ms) * MS
    assert it.take(replace(new, given=given_ * rtc), now) is None
    path = it.plan.sample(np.arange(now, now + 16 * 10**8, MS))[:, 0]
    speed = np.abs(np.diff(path)) * 1e3
    assert path[-1] == pytest.approx(0.1) and speed.max() < 1.6 * 0.1 / 0.1 + 1e-6


def test_a_plan_that_begins_later_leaves_what_comes_before_alone():
    it = Planner()
    it.take(chunk(0.01 * np.arange(1, 11)), 0)
    ends = int(it.plan.times[-1])
    it.take(chunk(0.09 - 0.01 * np.arange(10), t_obs_ns=ends), ends + 5 * MS)
    late = it.plan.later(7 * MS)
    before, after = np.arange(0, ends, MS), np.arange(ends + 5 * MS, int(it.plan.times[-1]), MS)
    np.testing.assert_array_equal(late.sample(before), it.plan.sample(before))
    np.testing.assert_allclose(late.sample(after + 7 * MS), it.plan.sample(after), atol=1e-12)
    assert late.begin_ns == it.plan.begin_ns + 7 * MS


@pytest.mark.parametrize('offset', [0, 1, 2])
def test_step_k_is_due_at_observation_plus_k_plus_offset_periods(offset):
    """0: an action is what was commanded with the observation; one more of them is late."""
    it = Planner()
    it.take(chunk([0.0] * 30), 0)
    made = chunk(np.arange(1, 31), t_obs_ns=100 * MS, offset=offset)
    assert made.due_ns[0] == (100 + 20 * offset) * MS and made.end_ns == made.due_ns[-1]
    it.take(made, 150 * MS)
    assert it.plan.late_steps == 3 - offset
    assert it.at(200, 300) == [6 - offset, 11 - offset]


@pytest.mark.parametrize('offset', [0, 1])
def test_who_stands_comes_to_the_first_step_in_a_period_whatever_it_is_due(offset):
    it = Planner()
    it.take(chunk([1, 2, 3, 4], t_obs_ns=0, offset=offset), 500 * MS)
    assert it.plan.late_steps == 0 and it.at(500, 520, 540) == [0, 1, 2]


def test_who_was_armed_after_the_observation_begins_with_the_first_step():
    it = Planner()
    it.plan = Plan.standing(np.zeros(1), 300 * MS)
    assert it.take(chunk(np.arange(1, 21), t_obs_ns=100 * MS), 400 * MS) is None
    assert it.plan.late_steps == 0 and it.at(400, 420, 440) == [0, 1, 2]
