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
import pytest

DT_NS = 50_000_000
RANGES, STILL = np.array([2.0, 0.1]), np.array([False, False])
GRIPPER = np.array([False, True])
CLOSES_S = 3.0


def path(times_s, closing_s=0.05):
    """Return what was done: an arm that swings, a gripper that closes at 3 s."""
    times_s = np.asarray(times_s, float)
    return np.stack([np.sin(times_s), 0.1 - 0.08 * np.clip(
        (times_s - CLOSES_S) / closing_s, 0, 1)], axis=-1)


def records(length, every, error=lambda times: 0.0, shift_s=0.0, until_s=6.0, closing_s=0.05,
            **more):
    """Return a bag's records of chunks of ``length`` steps, decided every so many steps."""
    out = []
    for number in range(int(until_s / 0.05) // every):
        t_ns = number * every * DT_NS
        due = (t_ns + DT_NS * np.arange(length)) / 1e9
        told = path(due - shift_s, closing_s)
        told[:, 0] += error(due)
        out.append({'bag': 0, 'moment': number, 'now_ns': t_ns, 'bag_ns': t_ns + 10**9,
                    'instruction': 'go', 'skipped': '', 't_obs_ns': t_ns, 'dt_ns': DT_NS,
                    'action_offset': 0, 'predicted': [told.tolist()], 'executed': None,
                    'done': path(due, closing_s).tolist(),
                    'state': path(due[0], closing_s).tolist(), 'refused': '', **more})
    return out


def judged(told, labels=None, delay_s=0.0, grippers=GRIPPER):
    """Return the critical error of records, and of how many steps."""
    found = critical.episode_sums(told, delay_s, grippers, RANGES, STILL, labels,
                                  [('bag', 10**9)])
    total, steps = (sum(part[which] for part in found.values()) for which in (0, 1))
    return (math.sqrt(total / steps) if steps else None), steps


def critical_error(*given, labels=None, delay_s=0.0, **more):
    return judged(records(*given, **more), labels, delay_s)


def around_the_grasp(times):
    return np.where(np.abs(times - CLOSES_S) < 0.7, 0.1, 0.0)


def far_from_it(times):
    return np.where(np.abs(times - CLOSES_S) > 0.8, 0.1, 0.0)


def test_only_what_is_near_a_grasp_counts():
    assert critical_error(20, 6, far_from_it)[0] < 1e-9
    error, steps = critical_error(20, 6, around_the_grasp)
    assert 0.01 < error <= 0.1 / 2 and 18 <= steps <= 24


@pytest.mark.parametrize('closing_s', [0.05, 0.5, 2.5, 5.0])
def test_a_gripper_that_closes_slowly_is_critical_too(closing_s):
    _, steps = critical_error(20, 6, closing_s=closing_s, until_s=12.0)
    assert steps >= max(0.9, closing_s) / 0.05


@pytest.mark.parametrize('delay_s', [0.0, 0.2])
@pytest.mark.parametrize('every', [6, 10])
def test_the_length_of_chunks_makes_no_difference(delay_s, every):
    """Also where they are as short as the time between moments: the grasp is in every one."""
    errors = [critical_error(length, every, around_the_grasp, delay_s=delay_s)
              for length in (15, 20, 50)]
    assert len({steps for _, steps in errors}) == 1
    assert np.ptp([error for error, _ in errors]) < 1e-9


def test_what_comes_after_a_short_chunk_is_a_stand():
    long, steps = critical_error(20, 10)
    short, as_many = critical_error(7, 10)  # 0.35 s of every 0.5 s
    assert steps == pytest.approx(as_many, abs=2) and short > 0.01 > 100 * long


def test_each_time_is_executed_once():
    steps = [critical_error(20, every, around_the_grasp)[1] for every in (1, 20)]
    assert steps[0] == steps[1] > 0


def test_nothing_is_executed_before_the_first_chunk_comes():
    (way, _), = critical.ways(records(20, 6), 0.3, STILL)
    assert way.times_ns[0] == 300_000_000


def test_a_policy_that_is_a_little_late_is_not_wrong():
    late, _ = critical_error(20, 6, shift_s=0.1)
    later, _ = critical_error(20, 6, shift_s=0.4)
    assert late < 0.03 < 3 * 0.03 < later


def test_somebody_may_say_where_it_matters():
    labels = {'bag': [(4.0, 5.0)]}
    assert critical_error(20, 6, around_the_grasp, labels=labels)[0] < 1e-9
    error, steps = critical_error(20, 6, far_from_it, labels=labels)
    # The swing is aligned, so that not all of the 0.1 of 2.0 is left.
    assert steps == 21 and 0.0 < error <= 0.05
    assert critical_error(20, 6, labels={'other': [(0, 9)]}) == (None, 0)
    with pytest.raises(ValueError, match="names the bag 'other', expected one of bag"):
        critical.require_bags({'other': []}, ['bag'])


def test_a_policy_that_is_refused_at_the_grasp_is_worse_than_one_that_is_not():
    """The robot stands then, which is not what was done."""
    good = records(20, 6, around_the_grasp)
    refused = records(20, 6)
    for one in refused:
        if 2.0 < one['t_obs_ns'] / 1e9 < 4.0:
            one['refused'] = 'chunk_jump'
    (error, steps), (other, as_many) = judged(good), judged(refused)
    assert steps == as_many and other > 2 * error
    always = records(20, 6, refused='chunk_jump')
    assert judged(always)[1] == steps and judged(always)[0] > other


def test_without_a_gripper_nothing_is_found():
    assert judged(records(20, 6), grippers=STILL) == (None, 0)


def test_what_nobody_did_is_not_compared():
    told = records(20, 6)
    for one in told:
        one['done'] = np.full((20, 2), np.nan).tolist()
    assert judged(told) == (None, 0)


def test_what_is_done_for_another_instruction_is_not_compared():
    """The old chunk would still be executed then; the robot that was recorded did other things."""
    told = records(20, 6)
    for one in told:
        due = critical.due_ns(one) / 1e9
        one['instruction'] = 'go' if one['t_obs_ns'] < 3.1e9 else 'on'
        if one['instruction'] == 'on':  # from here on everything is elsewhere
            for name in ('done', 'predicted'):
                one[name] = (np.asarray(one[name], float) + [1.0, 0.0]).tolist()
        else:
            done = np.array(one['done'])
            done[due >= 3.1] = np.nan
            one['done'] = done.tolist()
    error, steps = judged(told)
    assert steps > 15 and error < 1e-9
    assert {way.episode[1] for way, _ in critical.ways(told, 0.0, STILL)} == {'go', 'on'}


def test_moments_that_could_not_be_observed_part_the_way():
    told = records(20, 6)
    told[8] |= {'skipped': 'camera_silent'}
    found = [way for way, _ in critical.ways(told, 0.0, STILL)]
    assert len(found) == 2 and {way.episode for way in found} == {(0, 'go', 1)}
    assert found[0].times_ns[-1] < told[8]['now_ns'] + 20 * DT_NS
    assert found[1].times_ns[0] == told[9]['t_obs_ns']


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=40), st.integers(0, 10**6))
def test_aligning_makes_no_error_larger_and_none_of_equals(values, seed):
    told = np.array(values)[:, None]
    done = told + np.random.default_rng(seed).normal(0, 0.1, told.shape)
    times = np.arange(len(told)) * DT_NS
    one, none = np.ones(1), np.zeros(1, bool)
    plain = ((told - done)**2).mean(1)
    way = Way((0, '', 1), times, told, done, 0.05)
    assert critical.aligned(way, one, none).sum() <= plain.sum() + 1e-9
    same = Way((0, '', 1), times, told, told, 0.05)
    assert not critical.aligned(same, one, none).any()


def test_whole_turns_are_no_error():
    told = np.full((5, 1), 3.1)
    way = Way((0, '', 1), np.arange(5) * DT_NS, told, told - 2 * np.pi, 0.05)
    assert critical.aligned(way, np.ones(1), np.ones(1, bool)).max() < 1e-20


@pytest.mark.parametrize('text', ['[1, 2]', 'bag: 3', 'bag: [[2, 1]]', 'bag: [[1]]',
                                  'bag: [[-1, 2]]', 'bag: [[a, b]]', 'bag: [[1, 2]'])
def test_intervals_that_are_none(tmp_path, text):
    (tmp_path / 'critical.yaml').write_text(text)
    with pytest.raises(ValueError, match=r'expected .*\[from, to\]'):
        critical.read_intervals(tmp_path / 'critical.yaml')


def test_episodes_are_stretches_under_one_instruction():
    told = [{'bag': bag, 'instruction': text} for bag, text in (
        (0, 'a'), (0, 'a'), (0, 'b'), (0, 'a'), (1, 'a'))]
    assert critical.episodes(told) == [(0, 'a', 1), (0, 'a', 1), (0, 'b', 1), (0, 'a', 2),
                                       (1, 'a', 1)]


def errors_of(sums, counts=1):
    return {number: (float(one), counts) for number, one in enumerate(sums)}


def test_a_clear_order_is_sure_and_a_close_one_is_not():
    dice = np.random.default_rng(1)
    hard = dice.uniform(1, 3, 30)
    found = ranking.rank({'worse': errors_of(hard + 0.5 + dice.normal(0, 0.05, 30)),
                          'one': errors_of(hard + dice.normal(0, 0.05, 30)),
                          'other': errors_of(hard + dice.normal(0, 0.05, 30))})
    assert found['episodes'] == 30 and found['order'][-1]['name'] == 'worse'
    first, second, last = found['order']
    assert second['better_than_next'] == 1.0 and last['better_than_next'] is None
    assert 0.5 < first['better_than_next'] < 0.999 and last['best'] == 0.0
    assert first['low'] <= first['value'] <= first['high']
    assert math.isclose(sum(one['best'] for one in found['order']), 1.0)


def test_episodes_that_one_of_them_lacks_do_not_count_and_are_told():
    found = ranking.rank({'a': {0: (1.0, 1), 1: (9.0, 1), 2: (1.0, 1)},
                          'b': {0: (2.0, 1), 2: (2.0, 1)}})
    assert (found['episodes'], found['dropped']) == (2, 1)
    assert [one['value'] for one in found['order']] == [1.0, 2.0]
    assert ranking.rank({'a': {0: (1.0, 1)}, 'b': {}}) == {'episodes': 0, 'dropped': 1,
                                                           'order': []}


@pytest.mark.parametrize('text', [
    'checkpoint,success,note\nold,true,\nold,0,slipped\nnew,success,\n',
    '\ufeffcheckpoint;success\nold;true\nold;0\nnew;yes\n',
    json.dumps([{'checkpoint': 'old', 'success': True}, {'checkpoint': 'old', 'success': 0},
                {'checkpoint': 'new', 'success': 1.0}])])
def test_outcomes_are_read_from_tables_and_json(tmp_path, text):
    (tmp_path / 'runs').write_text(text)
    assert ranking.read_outcomes(tmp_path / 'runs') == {'old': [1.0, 0.0], 'new': [1.0]}


@pytest.mark.parametrize('text, words', [
    ('checkpoint,result\na,1\n', 'row 1 .* has checkpoint, result, expected'),
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
