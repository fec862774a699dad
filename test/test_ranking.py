# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Which checkpoint is better: the error where it decides, and how sure an order is."""

import json
import math

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
from pi0_ros.evaluation import critical, ranking
from pi0_ros.evaluation.critical import Way
from pi0_ros.evaluation.measures import Rows
import pytest

DT_NS = 50_000_000
RANGES, STILL = np.array([2.0, 0.1]), np.array([False, False])
GRIPPER = np.array([False, True])


def path(times_s):
    """Return what was done: an arm that swings, a gripper that closes at 3 s."""
    times_s = np.asarray(times_s, float)
    return np.stack([np.sin(times_s), np.where(times_s < 3.0, 0.1, 0.02)], axis=-1)


def records(length, every, error=lambda times: 0.0, shift_s=0.0, until_s=6.0, **more):
    """Return a bag's records of chunks of ``length`` steps, decided every so many steps."""
    out = []
    for number in range(int(until_s / 0.05) // every):
        t_ns = number * every * DT_NS
        due = (t_ns + DT_NS * np.arange(length)) / 1e9
        told = path(due - shift_s)
        told[:, 0] += error(due)
        out.append({'bag': 0, 'moment': number, 'now_ns': t_ns, 'bag_ns': t_ns + 10**9,
                    'instruction': 'go', 'skipped': '', 't_obs_ns': t_ns, 'dt_ns': DT_NS,
                    'action_offset': 0, 'predicted': [told.tolist()], 'executed': None,
                    'done': path(due).tolist(), 'state': path(due[0]).tolist(),
                    'velocity': [0.0, 0.0], 'refused': '', **more})
    return out


def critical_error(*given, labels=None, delay_s=0.0, **more):
    rows = Rows(records(*given, **more), STILL)
    sums, counts = critical.moment_sums(rows, critical.ways(rows, delay_s, [10**9]), GRIPPER,
                                        RANGES, labels, ['bag'])
    return (math.sqrt(sums.sum() / counts.sum()) if counts.any() else None), int(counts.sum())


def around_the_grasp(times):
    return np.where(np.abs(times - 3.0) < 0.5, 0.1, 0.0)


def far_from_it(times):
    return np.where(np.abs(times - 3.0) > 0.8, 0.1, 0.0)


def test_only_what_is_near_a_grasp_counts():
    assert critical_error(20, 6, far_from_it)[0] == 0.0
    error, steps = critical_error(20, 6, around_the_grasp)
    assert 0.01 < error <= 0.1 / 2 and 18 <= steps <= 26


@pytest.mark.parametrize('delay_s', [0.0, 0.2])
def test_the_length_of_chunks_makes_no_difference(delay_s):
    errors = {critical_error(length, 6, around_the_grasp, delay_s=delay_s)
              for length in (10, 20, 50)}
    assert len(errors) == 1


def test_chunks_that_are_executed_to_the_end_are_not_counted_twice():
    # Decided every step or every second: each time is executed once.
    steps = [critical_error(20, every, around_the_grasp)[1] for every in (1, 20)]
    assert steps[0] == steps[1] > 0


def test_a_policy_that_is_a_little_late_is_not_wrong():
    late, _ = critical_error(20, 6, shift_s=0.1)
    later, _ = critical_error(20, 6, shift_s=0.4)
    assert late < 0.02 < 5 * 0.02 < later


def test_somebody_may_say_where_it_matters():
    labels = {'bag': [(4.0, 5.0)]}
    assert critical_error(20, 6, around_the_grasp, labels=labels)[0] == 0.0
    error, steps = critical_error(20, 6, far_from_it, labels=labels)
    # The swing is aligned, so that not all of the 0.1 of 2.0 is left.
    assert steps == 21 and 0.0 < error <= 0.05
    assert critical_error(20, 6, labels={'other': [(0, 9)]}) == (None, 0)


def test_a_refused_chunk_is_not_executed():
    assert critical_error(20, 6, around_the_grasp, refused='chunk_jump') == (None, 0)


def test_what_nobody_did_is_not_compared():
    rows = Rows(records(20, 6), STILL)
    for one in rows.records:
        one['done'] = np.full((20, 2), np.nan).tolist()
    (way,) = critical.ways(rows, 0.0, [10**9]) or [None]
    assert way is None or not len(way.told)


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=40), st.integers(0, 10**6))
def test_aligning_makes_no_error_larger_and_none_of_equals(values, seed):
    told = np.array(values)[:, None]
    done = told + np.random.default_rng(seed).normal(0, 0.1, told.shape)
    way = Way(np.zeros(len(told), int), np.arange(len(told)) * 0.05, told, done, 0.05)
    one, none = np.ones(1), np.zeros(1, bool)
    plain = ((told - done)**2).mean(1)
    assert critical.aligned(way, one, none).sum() <= plain.sum() + 1e-9
    same = Way(way.moments, way.bag_s, told, told, 0.05)
    assert not critical.aligned(same, one, none).any()


def test_whole_turns_are_no_error():
    told = np.full((5, 1), 3.1)
    way = Way(np.zeros(5, int), np.arange(5.0), told, told - 2 * np.pi, 0.05)
    assert critical.aligned(way, np.ones(1), np.ones(1, bool)).max() < 1e-20


@pytest.mark.parametrize('text', ['[1, 2]', 'bag: 3', 'bag: [[2, 1]]', 'bag: [[1]]',
                                  'bag: [[-1, 2]]', 'bag: [[a, b]]'])
def test_intervals_that_are_none(tmp_path, text):
    (tmp_path / 'critical.yaml').write_text(text)
    with pytest.raises(ValueError, match=r'expected .*\[from, to\]'):
        critical.read_intervals(tmp_path / 'critical.yaml')


def test_episodes_are_stretches_under_one_instruction():
    told = [{'bag': bag, 'moment': moment, 'instruction': text} for bag, moment, text in (
        (0, 0, 'a'), (0, 1, 'a'), (0, 2, 'b'), (0, 3, 'a'), (1, 0, 'a'))]
    assert list(ranking.episodes(told).values()) == [0, 0, 1, 2, 3]


def test_a_clear_order_is_sure_and_a_close_one_is_not():
    dice = np.random.default_rng(1)
    hard = dice.uniform(1, 3, 30)
    sums = np.stack([hard + 0.5 + dice.normal(0, 0.05, 30), hard + dice.normal(0, 0.05, 30),
                     hard + dice.normal(0, 0.05, 30)])
    found = ranking.rank(['worse', 'one', 'other'], sums, np.ones_like(sums))
    assert found['episodes'] == 30 and found['order'][-1]['name'] == 'worse'
    first, second, last = found['order']
    assert second['better_than_next'] == 1.0 and last['better_than_next'] is None
    assert 0.5 < first['better_than_next'] < 0.999 and last['best'] == 0.0
    assert first['low'] <= first['value'] <= first['high']
    assert math.isclose(sum(one['best'] for one in found['order']), 1.0)


def test_episodes_that_one_of_them_lacks_do_not_count():
    sums = np.array([[1.0, 9.0, 1.0], [2.0, 0.0, 2.0]])
    counts = np.array([[1, 1, 1], [1, 0, 1]])
    found = ranking.rank(['a', 'b'], sums, counts)
    assert found['episodes'] == 2 and found['order'][0] | {} == found['order'][0]
    assert [one['value'] for one in found['order']] == [1.0, 2.0]
    assert ranking.rank(['a', 'b'], sums, 0 * counts) == {'episodes': 0, 'order': []}


@pytest.mark.parametrize('text', [
    'checkpoint,success,note\nold,true,\nold,0,slipped\nnew,success,\n',
    json.dumps([{'checkpoint': 'old', 'success': True}, {'checkpoint': 'old', 'success': 0},
                {'checkpoint': 'new', 'success': 1.0}])])
def test_outcomes_are_read_from_tables_and_json(tmp_path, text):
    (tmp_path / 'runs').write_text(text)
    assert ranking.read_outcomes(tmp_path / 'runs') == {'old': [1.0, 0.0], 'new': [1.0]}


@pytest.mark.parametrize('text, words', [
    ('checkpoint,result\na,1\n', "row 1 .* has no 'checkpoint' and 'success'"),
    ('checkpoint,success\na,maybe\n', "row 1 .* has success 'maybe'"),
    ('checkpoint,success\na,2\n', "row 1 .* has success '2'"),
    ('[1]', 'row 1'), ('[{', 'cannot be read'), ('checkpoint,success\n', 'has no run')])
def test_outcomes_that_make_no_sense(tmp_path, text, words):
    (tmp_path / 'runs').write_text(text)
    with pytest.raises(ValueError, match=words):
        ranking.read_outcomes(tmp_path / 'runs')


def test_outcomes_tell_which_measure_orders_checkpoints():
    outcomes = {'a': [1, 1, 1, 1], 'b': [1, 1, 0, 0], 'c': [0, 0, 0, 0], 'd': [1]}
    measures = {name: {'right': right, 'wrong': 1 - right, 'flat': 1.0} for name, right in (
        ('a', 0.1), ('b', 0.2), ('c', 0.3))}
    found = ranking.judge(outcomes, measures)
    assert found['spearman'] == {'right': -1.0, 'wrong': 1.0, 'flat': None}
    assert found['unknown'] == ['d'] and found['runs']['b']['success'] == 0.5
    # Wilson's interval of 2 of 4, by hand.
    assert found['runs']['b']['low'] == pytest.approx(0.1500, abs=1e-4)
    assert found['runs']['a']['high'] == 1.0 and found['runs']['a']['low'] < 0.52
    with pytest.raises(ValueError, match='expected the names of the checkpoints: a, b, c'):
        ranking.judge({'x': [1]}, measures)
    assert not ranking.judge({'a': [1], 'b': [0]}, measures)['spearman']


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=3, max_size=20))
def test_rank_correlation_keeps_its_bounds_and_order(pairs):
    one, other = zip(*pairs)
    found = ranking.spearman(one, other)
    if found is not None:
        assert -1 - 1e-9 <= found <= 1 + 1e-9
        assert ranking.spearman(other, one) == pytest.approx(found)
        assert ranking.spearman([2 * x + 1 for x in one], other) == pytest.approx(found)
