# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What evaluate tells of takeovers: where the policy would have gone another way."""

import json
from pathlib import Path

from bags import MS, STRING, write_demonstration
import numpy as np
from pi0_ros.bags.bag import _store, Bag
from pi0_ros.bags.takeovers import spans
from pi0_ros.evaluation.measures import Rows
from pi0_ros.evaluation.takeovers import as_text, compare, Led
from pi0_ros.sim.demonstration import BagWriter, START_NS
from pi0_ros.verbs import evaluate
import pytest

SIM = Path(__file__).parents[1] / 'config' / 'sim.yaml'
BOOL = 'std_msgs/msg/Bool'


def take_over(bag, path, instruction, led):
    """Copy a bag; the node is told something, and a person leads it. :param led: ms, whether."""
    marks = [(START_NS + at_ms * MS, value) for at_ms, value in led]
    out = BagWriter(path)
    with Bag(bag) as source:
        out.write('/pi0/status', STRING, source.begin_ns, data='')
        for topic, at_ns, message in source.messages(source.topics):
            while marks and marks[0][0] <= at_ns:
                mark_ns, value = marks.pop(0)
                out.write('/pi0/led', BOOL, mark_ns, data=value)
            if topic == '/instruction':
                message.data = instruction
            out.write_raw(topic, message.__msgtype__, at_ns,
                          _store.serialize_cdr(message, message.__msgtype__))
    out.close()
    return path


@pytest.fixture(scope='module')
def red(tmp_path_factory):
    """Return a bag in which the red block is taken, by a rule that stands for a person."""
    return write_demonstration(tmp_path_factory.mktemp('bags') / 'red', 3, ('red',))


def evaluated(path, out):
    assert evaluate.main([str(path), '--checkpoint', 'demo', '--params-file', str(SIM), '--out',
                          str(out), '--threads', '1', '--every', '0.3']) == 0
    result = json.loads((out / 'evaluation.json').read_text())
    return result['runs']['demo']['takeovers'], (out / 'report.html').read_text()


def test_a_person_who_takes_another_block_than_the_policy_would(red, tmp_path, capsys):
    path = take_over(red, tmp_path / 'other', 'pick up the green block',
                     [(200, True), (1400, False)])
    with Bag(path) as bag:
        assert spans(bag) == [(START_NS + 200 * MS, START_NS + 1400 * MS)]
    told, page = evaluated(path, tmp_path / 'out')
    assert told['takeovers'] == 1 and 2 <= told['moments'] <= 4
    (one,) = told['each']
    assert one['begin_s'] == pytest.approx(0.2, abs=0.02)
    assert one['duration_s'] == pytest.approx(1.2)
    assert told['disagrees'] >= 1 and one['first_s'] < 0.7
    assert one['first_joint'] not in (None, 'gripper')  # the way is another
    assert 'it disagrees first after' in capsys.readouterr().out
    assert 'Where a person took over' in page
    assert page.count('alt="camera overhead"') >= 2 * told['moments']  # both galleries


def test_a_person_who_does_what_the_policy_would(red, tmp_path, capsys):
    told, _ = evaluated(take_over(red, tmp_path / 'same', 'pick up the red block',
                                  [(200, True), (1200, False)]), tmp_path / 'out')
    assert told['disagrees'] == 0 and told['each'][0]['first_s'] is None
    assert told['error_share'] < told['still_share'] / 2
    assert 'it disagrees nowhere' in capsys.readouterr().out


def test_a_bag_without_takeovers_tells_nothing(red, tmp_path, capsys):
    told, page = evaluated(red, tmp_path / 'out')
    assert told is None and 'Where a person took over' not in page
    assert 'a person led' not in capsys.readouterr().out


# ---- the arithmetic ----

STEP_NS = 100 * MS


def moment(at_ms, predicted, done, bag=0):
    """Return a record of one joint; its chunk begins with the observation."""
    return {'skipped': '', 'bag': bag, 'now_ns': at_ms * MS, 'bag_ns': at_ms * MS + 7,
            't_obs_ns': at_ms * MS, 'dt_ns': STEP_NS, 'action_offset': 0, 'state': [0.0],
            'velocity': [0.0], 'predicted': [[[one] for one in predicted]],
            'done': [[one] for one in done]}


def told(records, *of):
    rows = Rows(records, np.array([False]))
    led = Led(rows, np.array([2.0]), of)
    return led, compare(rows, led, [('a', 0), ('b', 0)], ['joint'])


def test_only_what_a_person_did_counts():
    records = [moment(0, [0.0, 0.2, 0.4], [0.0, 0.2, 0.4]),
               moment(100, [0.0, 0.2, 0.4], [0.0, -0.2, 0.4]),    # led until 250 ms
               moment(300, [0.0, 0.2, 0.4], [0.0, 0.2, 0.4])]
    led, out = told(records, [(50 * MS, 250 * MS)])
    assert led.of.tolist() == [-1, 0, -1]
    assert out['error_share'] == pytest.approx(0.1)     # (0 + 0.4) / 2 steps, of a range of 2
    assert out['still_share'] == pytest.approx(0.05)
    assert out['disagrees'] == 1 and out['alone_share'] == 0
    (one,) = out['each']
    assert one['first_s'] == pytest.approx(0.05) and one['first_joint'] == 'joint'


def test_a_policy_that_goes_on_where_the_person_holds_disagrees():
    _, out = told([moment(100, [0.0, 0.4], [0.0, 0.0])], [(0, 900 * MS)])
    assert out['disagrees'] == 1 and out['each'][0]['first_s'] == pytest.approx(0.1)
    _, out = told([moment(100, [0.0, 0.03], [0.0, 0.0])], [(0, 900 * MS)])  # by next to nothing
    assert out['disagrees'] == 0 and out['error_share'] > out['still_share']


def test_what_a_person_did_is_in_no_error_elsewhere():
    led, out = told([moment(0, [0.0, 0.0], [0.0, 2.0]), moment(100, [0.0, 0.0], [2.0, 2.0])],
                    [(100 * MS, 900 * MS)])
    assert out['alone_share'] == 0 and out['error_share'] == pytest.approx(1.0)


def test_takeovers_too_short_for_a_moment_and_of_other_bags_are_told_apart():
    _, out = told([moment(100, [0.0, 0.2], [0.0, -0.2]),
                   moment(100, [0.0, 0.2], [0.0, 0.2], bag=1)],
                  [(50 * MS, 150 * MS), (500 * MS, 510 * MS)], [(0, 900 * MS)])
    assert [(one['bag'], one['moments']) for one in out['each']] == [
        ('a', 1), ('a', 0), ('b', 1)]
    assert out['takeovers'] == 3 and out['moments'] == 2
    assert len(as_text(out)) == 3
    led, out = told([moment(100, [0.0], [0.0])], [(500 * MS, 510 * MS)])
    assert out['moments'] == 0 and out['error_share'] is None
    assert 'smaller --every' in as_text(out)[0]
    assert told([moment(100, [0.0], [0.0])], [])[1] is None
