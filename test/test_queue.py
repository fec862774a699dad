"""The action queue on a synthetic clock."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi0_ros.control.handover import make_handover
from pi0_ros.control.queue import ActionQueue
from support import MS, chunk

DT = 20 * MS


def queue(fade_ms=0, at=0.0, brake_ns=1):
    out = ActionQueue(1, make_handover('blend', fade_ms * MS), brake_ns)
    out.seed(np.array([at]), 0)
    return out


def at(it, *times_ms):
    return it.sample(np.array(times_ms) * MS)[:, 0].tolist()


def test_step_k_is_due_at_observation_plus_k_plus_one_periods():
    it = queue()
    assert it.merge(chunk([1, 2, 3], t_obs_ns=0), 0, it.epoch) is None
    assert at(it, 0, 20, 30, 40, 60, 100) == [0, 1, 1.5, 2, 3, 3]


def test_late_chunk_starts_further_into_itself():
    it = queue()
    it.merge(chunk([1, 2, 3, 4]), 50 * MS, it.epoch)
    assert it.late_steps == 2 and at(it, 50, 60, 80) == [0, 3, 4]


def test_chunk_that_is_wholly_late_is_dropped():
    it = queue(at=5.0)
    assert 'too late: its last action was due 0.040 s ago' in it.merge(chunk([1, 2, 3]), 100 * MS,
                                                                       it.epoch)
    assert at(it, 100) == [5] and it.dropped == 1


def test_early_chunk_waits_and_the_plan_goes_on_until_then():
    it = queue()
    it.merge(chunk(range(1, 11)), 0, it.epoch)
    it.merge(chunk([50] * 10, t_obs_ns=100 * MS), 0, it.epoch)
    assert at(it, 60, 100, 120, 200) == [3, 5, 50, 50]


def test_gap_is_bridged_from_where_the_plan_ended():
    it = queue()
    it.merge(chunk([1, 2]), 0, it.epoch)
    it.merge(chunk([4] * 5, t_obs_ns=180 * MS), 100 * MS, it.epoch)
    assert at(it, 100, 150, 200) == [2, 3, 4]


def test_overlap_switches_by_time_with_a_cross_fade():
    it = queue(fade_ms=100)
    it.merge(chunk([0] * 50), 0, it.epoch)
    it.merge(chunk([10] * 50, t_obs_ns=20 * MS), 20 * MS, it.epoch)
    assert at(it, 20, 40, 60, 120, 500) == pytest.approx([0, 2, 4, 10, 10])


def test_chunks_out_of_order_and_from_before_a_reset_are_dropped():
    it = queue()
    asked = it.epoch
    assert it.merge(chunk([1] * 9, t_obs_ns=40 * MS), 40 * MS, asked) is None
    assert 'older than the one in use' in it.merge(chunk([2] * 9, 20 * MS), 40 * MS, asked)
    it.seed(np.array([7.0]), 50 * MS)
    assert 'before a reset' in it.merge(chunk([1] * 9, 60 * MS), 60 * MS, asked)
    assert at(it, 60) == [7]


def test_chunk_from_the_future_is_dropped():
    it = queue()
    assert 'lies in the future' in it.merge(chunk([1] * 5, t_obs_ns=10**12), 0, it.epoch)


@pytest.mark.parametrize('values, words', [
    (np.full((5, 1), np.nan), 'not finite at step 0, joint 0'),
    (np.zeros((5, 2)), r'shape \(5, 2\), expected \(steps, 1\)'),
    (np.zeros((0, 1)), 'shape'), (np.zeros((2, 2, 2)), 'shape')])
def test_malformed_chunk_changes_nothing(values, words):
    it = queue()
    it.merge(chunk([1, 2, 3]), 0, it.epoch)
    with pytest.raises(ValueError, match=words):
        it.merge(chunk(values, t_obs_ns=1), 0, it.epoch)
    assert at(it, 20, 40) == [1, 2]


def test_brake_follows_the_path_and_comes_to_rest():
    it = queue(brake_ns=200 * MS)
    it.merge(chunk(np.arange(1, 51)), 0, it.epoch)
    it.brake(100 * MS)
    moved = np.array(at(it, *range(100, 500, 10)))
    speed = np.diff(moved)
    assert moved[0] == 5 and moved[-1] == pytest.approx(10, abs=0.01)  # half of 10 steps
    assert (np.diff(speed) < 1e-9).all() and speed[-1] == 0
    assert it.remaining_ns(400 * MS) == 0


def test_every_plan_ends_in_a_smooth_stop_at_its_last_action():
    it = queue(brake_ns=200 * MS)
    it.merge(chunk(np.arange(1, 51)), 0, it.epoch)
    speed = np.diff(at(it, *range(500, 1500, 10)))
    assert speed[0] == pytest.approx(0.5) and speed[-1] == 0
    assert (np.diff(speed) < 1e-9).all()
    assert at(it, 900, 1100) == [pytest.approx(45), pytest.approx(50)]
    assert it.remaining_ns(0) == 1100 * MS


def test_chunk_from_a_clock_ahead_is_faded_in_too():
    it = queue(fade_ms=100)
    it.merge(chunk([1] * 50, t_obs_ns=130 * MS), 0, it.epoch)
    assert at(it, 150, 190, 230) == pytest.approx([0.2, 0.6, 1.0])


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 40),
                          st.lists(st.floats(-3, 3), min_size=1, max_size=30)),
                max_size=8), st.integers(0, 10))
def test_plan_is_continuous_at_every_splice(merges, fade_steps):
    """Whatever arrives whenever: no jump at a splice, no repeated due time, finite values."""
    it = queue(fade_ms=20 * fade_steps, brake_ns=200 * MS)
    now = 0
    for wait, delay, values in merges:
        now += wait * 10 * MS
        before = it.sample(np.array([now]))
        it.merge(chunk(values, t_obs_ns=max(0, now - delay * 10 * MS)), now, it.epoch)
        np.testing.assert_allclose(it.sample(np.array([now])), before, atol=1e-9)
        times, positions = it._plan
        assert (np.diff(times) > 0).all() and np.isfinite(positions).all()
        assert len(times) == len(positions)
