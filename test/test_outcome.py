# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What became of episodes: as somebody says it, as it is recorded, and as a data set has it."""

from bags import MS, START_NS, Tape
from hypothesis import given
from hypothesis import strategies as st
import numpy as np
from pi0_ros.dataset import outcome
from pi0_ros.dataset.episodes import ALL, Frame, judged, SUCCESSES
from pi0_ros.dataset.outcome import DISCARD, FAILURE, Outcome, SUCCESS, WORDS
from pi0_ros.dataset.part import Part
from pi0_ros.observation.decoding import SECOND_NS as SECOND
from pi0_ros.policy.factory import checkpoint_folder
from pi0_ros.policy.provenance import fingerprint
from pi0_ros.verbs import evaluate, export
import pyarrow.parquet
import pytest


def of(word, begin_ms, end_ms, takeovers=0, checkpoint=''):
    return Outcome('go', word, '', START_NS + begin_ms * MS, START_NS + end_ms * MS, takeovers,
                   checkpoint)


def tape(path, *outcomes, topic='/pi0/episode_result'):
    """Write five seconds in which joint a does what time does, under one instruction."""
    out = Tape(path)
    out.say(0, 'go')
    for at_ms in range(0, 5000, 10):
        for one in outcomes:
            if one.end_ns == START_NS + at_ms * MS:
                out.say(at_ms, one.to_json(), topic)
        out.joints(at_ms, [at_ms / 1e4, 0.5])
        out.command(at_ms, [(0, [at_ms / 1e4, 0.5])])
        if at_ms % 40 == 0:
            out.image(at_ms)
    return out.close()


def exported(tmp_path, path, *more):
    """Export; return what is told of each episode: from when to when, s, and success."""
    folder = tmp_path / 'set'
    assert export.main([str(path), '--dataset', str(folder), '--fps', '20', *more]) == 0
    table, = (pyarrow.parquet.read_table(file) for file in sorted(
        (folder / 'meta' / 'episodes').rglob('*.parquet')))
    success = table['success'].to_pylist() if 'success' in table.column_names else None
    times = 10 * np.array(table['stats/action/min'].to_pylist())[:, 0], \
        10 * np.array(table['stats/action/max'].to_pylist())[:, 0]
    return list(zip(*(each.round(1) for each in times))), success


@pytest.mark.parametrize('text, expected', [
    ('success', (SUCCESS, '')), (' Failure : slipped: twice ', (FAILURE, 'slipped: twice')),
    ('discard', (DISCARD, ''))])
def test_words_and_notes(text, expected):
    assert outcome.parse(text) == expected


@pytest.mark.parametrize('text', ['', 'done', 'true', ': note', 'successful'])
def test_what_ends_no_episode_is_told(text):
    with pytest.raises(ValueError, match='ends no episode, expected success, failure or discard'):
        outcome.parse(text)


@given(st.builds(Outcome, st.text(), st.sampled_from(WORDS), st.text(), st.integers(0, 2**62),
                 st.integers(0, 2**62), st.integers(0, 9), st.text()))
def test_what_is_recorded_is_read(one):
    assert Outcome.from_json(one.to_json()) == one


@pytest.mark.parametrize('text', ['', '[]', '{}', '{"instruction": "a"}', 'null', Outcome(
    'a', 'perhaps', '', 0, 1, 0, '').to_json(), of(SUCCESS, 0, 1).to_json().replace(
        str(START_NS), 'Infinity')])
def test_what_is_no_outcome_is_refused(text):
    with pytest.raises(ValueError, match='no outcome of an episode'):
        Outcome.from_json(text)


THREE = of(SUCCESS, 0, 1500), of(DISCARD, 1800, 2700), of(FAILURE, 3000, 4500)


def test_every_episode_says_what_became_of_it(tmp_path, capsys):
    spans, success = exported(tmp_path, tape(tmp_path / 'bag', *THREE), '--min-seconds', '0.1')
    assert success == [True, False, None]
    assert '1 of 2 episodes that somebody judged are successes' in capsys.readouterr().out
    (first, end), (begin, last), _ = spans
    assert (first, end) == pytest.approx((0.1, 1.65), abs=0.15)
    assert (begin, last) == pytest.approx((2.85, 4.65), abs=0.15)


def test_only_successes(tmp_path):
    spans, success = exported(tmp_path, tape(tmp_path / 'bag', *THREE), '--only', 'successes',
                              '--min-seconds', '0.1')
    assert success == [True] and len(spans) == 1 and spans[0][1] < 1.8


def test_what_nobody_judged_has_no_word(tmp_path, capsys):
    path = tape(tmp_path / 'bag', of(SUCCESS, 0, 2000))
    assert exported(tmp_path, path)[1] == [True, None]
    path = tape(tmp_path / 'other')
    assert export.main([str(path), '--dataset', str(tmp_path / 'no'), '--fps', '20', '--only',
                        'successes']) == 1
    assert 'no bag tells what became of its episodes' in capsys.readouterr().err


@given(st.lists(st.booleans(), max_size=50), st.sampled_from([ALL, SUCCESSES]),
       st.lists(st.tuples(st.sampled_from(WORDS), st.integers(0, 50), st.integers(0, 50)),
                max_size=5))
def test_frames_are_those_of_their_episodes(begins, only, told):
    outcomes = [Outcome('go', word, '', min(a, b) * 10**9, max(a, b) * 10**9, 0, '')
                for word, a, b in told]
    rows = [Frame(number * 10**9, np.zeros(1), np.zeros(1), {}, begin or not number, 'go')
            for number, begin in enumerate(begins)]
    met = set()
    kept = list(judged(iter(rows), outcomes, only, met))
    assert {frame.outcome for frame in kept} - {None} <= met <= set(outcomes)
    numbers = [frame.at_ns // 10**9 for frame in kept]
    words = [next((one.outcome for slack in (0, 2 * 10**8) for one in outcomes if frame.at_ns in
                   range(one.begin_ns - slack, one.end_ns + slack)), '') for frame in rows]
    assert numbers == [n for n, word in enumerate(words)
                       if word != DISCARD and (only == ALL or word == SUCCESS)]
    for before, frame in zip([None, *kept], kept):
        assert frame.begins or (before.outcome is frame.outcome
                                and before.at_ns == frame.at_ns - 10**9)


def test_two_nodes_in_a_bag_are_refused(tmp_path, capsys):
    out = Tape(tmp_path / 'bag')
    out.say(0, 'go')
    out.joints(0, [0, 0.5])
    out.image(0)
    for name in ('left', 'right'):
        out.say(1, of(SUCCESS, 0, 1).to_json(), f'/{name}/episode_result')
    assert export.main([str(out.close()), '--dataset', str(tmp_path / 'set'), '--fps', '20']) == 1
    assert '/left/episode_result, /right/episode_result, expected one' in capsys.readouterr().err


def test_a_bag_tells_evaluate_how_often_a_checkpoint_succeeded(tmp_path):
    demo = fingerprint(checkpoint_folder('demo'))
    path = tape(tmp_path / 'bag', of(SUCCESS, 0, 1000, checkpoint=demo),
                of(DISCARD, 1000, 1100, checkpoint=demo), of(FAILURE, 1100, 2000, checkpoint=demo),
                of(SUCCESS, 2000, 3000, checkpoint='other'),
                of(SUCCESS, 3000, 4000, checkpoint='other', takeovers=1))
    config = evaluate.read_values(evaluate.parser().parse_args(
        [str(path), '--checkpoint', 'new=demo', '--params-file', 'config/sim.yaml']))
    assert evaluate._outcomes(path, config) == {'new': [1.0, 0.0], 'other': [1.0, 0.0]}
    with pytest.raises(ValueError, match='are the same checkpoint'):
        evaluate._outcomes(path, [*config, ('again', config[0][1])])
    with pytest.raises(ValueError, match='does not tell what became of its episodes'):
        evaluate._outcomes(tape(tmp_path / 'none'), config)


def test_an_episode_does_not_reach_into_what_was_done_before_it():
    red = Outcome('red', SUCCESS, '', 10 * SECOND, 20 * SECOND, 0, '')
    near = SECOND // 10
    for at_ns, instruction, found in (
            (10 * SECOND - near, 'green', None), (10 * SECOND - near, ' red ', red),
            (20 * SECOND + near, 'red', red), (20 * SECOND + near, 'blue', None),
            (9 * SECOND, 'red', None), (21 * SECOND, 'red', None),
            (15 * SECOND, 'green', None), (15 * SECOND, '', red)):
        assert outcome.find([red], at_ns, instruction) is found


def test_what_meets_no_frame_is_told(tmp_path, capsys):
    exported(tmp_path, tape(tmp_path / 'bag', of(SUCCESS, 0, 1000), Outcome(
        'go', DISCARD, '', 0, START_NS + 2000 * MS, 0, ''), of(FAILURE, -9000, 3000)))
    assert 'no frame is of the episode' not in capsys.readouterr().out
    path = tape(tmp_path / 'other', Outcome('stay', DISCARD, '', 0, START_NS + 2000 * MS, 0, ''))
    assert export.main([str(path), '--dataset', str(tmp_path / 'no'), '--fps', '20']) == 0
    assert "no frame is of the episode 'stay'" in capsys.readouterr().out


def test_an_export_goes_on_where_it_was_unless_outcomes_are_others(tmp_path, monkeypatch):
    path = tape(tmp_path / 'bag', *THREE)
    finish, count = Part.finish_episode, []

    def once(self, *given):
        count.append(given)
        if len(count) == 2:
            raise KeyboardInterrupt
        return finish(self, *given)

    monkeypatch.setattr(Part, 'finish_episode', once)
    given = [str(path), '--dataset', str(tmp_path / 'set'), '--fps', '20', '--min-seconds', '0.1']
    assert export.main(given) == 130
    assert exported(tmp_path, path, '--min-seconds', '0.1')[1] == [True, False, None]
    assert len(count) == 4  # the first of three was not written again


def test_a_table_grows_and_evaluate_reads_it(tmp_path):
    of_demo = fingerprint(checkpoint_folder('demo'))
    path = tmp_path / 'success.json'
    told = [of(SUCCESS, 0, 1000, 0, of_demo), of(SUCCESS, 0, 1000, 1, of_demo),
            of(DISCARD, 0, 1000, 0, of_demo), of(FAILURE, 0, 2000, 0, 'other')]
    for number, one in enumerate(told, 1):
        outcome.add_to_table(path, one)
        assert len(outcome.read_table(path)) == number
    assert outcome.read_table(path)[3]['duration_s'] == 2.0
    outcome.add_to_table(path, told[3])  # said twice, it is one
    assert len(outcome.read_table(path)) == 4
    assert {each.name for each in tmp_path.iterdir()} == {'success.json', '.success.json.lock'}
    config = evaluate.read_values(evaluate.parser().parse_args(
        [str(path), '--checkpoint', 'new=demo', '--params-file', 'config/sim.yaml']))
    assert evaluate._outcomes(path, config) == {'new': [1.0, 0.0], 'other': [0.0]}


@pytest.mark.parametrize('text', ['{', '{}', '"a"'])
def test_what_is_no_table_stays_as_it_is(tmp_path, text):
    path = tmp_path / 'success.json'
    path.write_text(text)
    with pytest.raises(ValueError, match='success.json'):
        outcome.add_to_table(path, of(SUCCESS, 0, 1000))
    assert path.read_text() == text
