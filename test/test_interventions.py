# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Bags in which a person took over, as data: which frames were led, and which are kept."""

import json

from bags import MS, Tape
from hypothesis import given
from hypothesis import strategies as st
import numpy as np
from pi0_ros.dataset.episodes import ALL, chosen, Frame, INTERVENTIONS
from pi0_ros.verbs import export
import pyarrow.parquet
import pytest

LED = ((1000, True), (2500, False), (4000, True), (4600, False))  # milliseconds


def tape(path, led=LED, topic='/pi0/led', milliseconds=6000):
    """Write a bag in which joint a does what time does, so that a frame tells when it was."""
    out = Tape(path)
    out.say(0, 'go')
    out.say(0, '', '/pi0/status')
    out.flag(0, True, '/gripper/led')  # a lamp
    marks = dict(led)
    for at_ms in range(0, milliseconds, 10):
        if at_ms in marks:
            out.flag(at_ms, marks[at_ms], topic)
        out.joints(at_ms, [at_ms / 1e4, 0.5])
        out.command(at_ms, [(0, [at_ms / 1e4, 0.5])])
        if at_ms % 40 == 0:
            out.image(at_ms)
    return out.close()


def exported(tmp_path, path, *more):
    """Export at 20 frames a second; return for each episode the times, s, and what is marked."""
    folder = tmp_path / 'set'
    assert export.main([str(path), '--dataset', str(folder), '--fps', '20', *more]) == 0
    out = []
    for file in sorted((folder / 'data').rglob('*.parquet')):
        columns = pyarrow.parquet.read_table(file)
        times = 10 * np.array([row[0] for row in columns['action'].to_pylist()])
        out.append((times, np.array(columns['intervention'].to_pylist())))
    return folder, out


def truth(times):
    return np.array([(1.0 <= at < 2.5) or (4.0 <= at < 4.6) for at in times])


def test_every_frame_says_whether_a_person_led(tmp_path):
    folder, ((times, led),) = exported(tmp_path, tape(tmp_path / 'bag'))
    sure = np.abs(times[:, None] - np.array([1.0, 2.5, 4.0, 4.6])).min(1) > 0.011
    assert (led == truth(times))[sure].all() and 40 <= led.sum() <= 44
    info = json.loads((folder / 'meta' / 'info.json').read_text())
    assert info['features']['intervention'] == {'dtype': 'bool', 'shape': [1], 'names': None}
    stats = json.loads((folder / 'meta' / 'stats.json').read_text())
    assert stats['intervention']['mean'] == [pytest.approx(led.mean())]


def test_only_what_a_person_did(tmp_path, capsys):
    _, found = exported(tmp_path, tape(tmp_path / 'bag'), '--only', 'interventions',
                        '--min-seconds', '0.2')
    assert [len(times) for times, _ in found] == [30, 12]
    assert all(led.all() for _, led in found)
    assert '42 frames are marked as led by a person' in capsys.readouterr().out


def test_what_led_to_a_takeover_is_left_out(tmp_path):
    _, found = exported(tmp_path, tape(tmp_path / 'bag'), '--drop-before-takeover', '0.5',
                        '--min-seconds', '0.2')
    spans = [(times[0].round(2), times[-1].round(2)) for times, _ in found]
    assert len(spans) == 3
    for (begin, end), (first, last) in zip(spans, ((0.0, 0.45), (1.0, 3.45), (4.0, 5.9))):
        assert begin == pytest.approx(first, abs=0.06) and end == pytest.approx(last, abs=0.06)


def test_a_bag_without_takeovers_is_exported_as_before(tmp_path, capsys):
    path = tape(tmp_path / 'bag', led=())
    folder = tmp_path / 'set'
    assert export.main([str(path), '--dataset', str(folder), '--fps', '20']) == 0
    assert 'intervention' not in json.loads((folder / 'meta' / 'info.json').read_text())[
        'features']
    assert export.main([str(path), '--dataset', str(tmp_path / 'other'), '--fps', '20', '--only',
                        'interventions']) == 1
    assert 'no bag tells when a person led' in capsys.readouterr().err


def test_two_robots_in_a_bag_are_refused(tmp_path, capsys):
    out = Tape(tmp_path / 'bag')
    out.say(0, 'go')
    for at_ms in range(0, 2000, 20):
        out.joints(at_ms, [0, 0.5])
        out.image(at_ms)
    out.say(0, '', '/left/pi0/status')
    out.say(0, '', '/right/pi0/status')
    out.flag(500, True, '/left/pi0/led')
    out.flag(600, True, '/right/pi0/led')
    assert export.main([str(out.close()), '--dataset', str(tmp_path / 'set'), '--fps', '20']) == 1
    assert 'has /left/pi0/led, /right/pi0/led, expected one' in capsys.readouterr().err


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=60),
       st.sampled_from([ALL, INTERVENTIONS]), st.integers(0, 5))
def test_whatever_is_chosen_is_in_order_and_gaps_begin_episodes(told, only, drop):
    rows = [Frame(number * MS, np.zeros(1), np.zeros(1), {}, number == 0 or die == 0, '', led)
            for number, (led, die) in enumerate(told)]
    kept = list(chosen(iter(rows), only, drop))
    numbers = [frame.at_ns // MS for frame in kept]
    assert numbers == sorted(set(numbers))
    assert {n for n, (led, _) in enumerate(told) if led} <= set(numbers)
    for before, frame in zip([None, *kept], kept):
        number = frame.at_ns // MS
        follows = before is not None and before.at_ns // MS == number - 1
        assert frame.begins == (rows[number].begins or not follows)
    if only == INTERVENTIONS:
        assert all(frame.led for frame in kept)
    elif not drop:
        assert numbers == list(range(len(told)))
    else:  # a frame of the policy is left out only if a person takes over soon after it
        for number in set(range(len(told))) - set(numbers):
            after = rows[number + 1:number + drop + 1]
            assert any(frame.led for frame in after)
