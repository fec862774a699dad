# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Verb evaluate: what it measures, that it is deterministic, resumes, and reports."""

from datetime import datetime
import errno
import importlib.util
from importlib import metadata
import json
from pathlib import Path
import re

from bags import MS, STRING, Tape, write_demonstration
import cv2
import numpy as np
from pi0_ros.bags.bag import _store, Bag
from pi0_ros.bags.playback import Playback
from pi0_ros.bags.routes import resolve, Wanted
from pi0_ros.configuration.file import read_all_parameters
from pi0_ros.evaluation import measures, moments
from pi0_ros.evaluation.judge import decided_by, Run
from pi0_ros.policy.provenance import configuration_hash, fingerprint
from pi0_ros.policy.record import InferenceRecord
from pi0_ros.sim.demonstration import BagWriter, make
from pi0_ros.verbs import evaluate
from pi0_ros.workers.factory import make_local_policy
import pyarrow.parquet
import pytest
from support import killed_after

ROOT = Path(__file__).parents[1]
SIM = ROOT / 'config' / 'sim.yaml'
SAME = ('evaluation.json', 'demo/moments.parquet')  # in every run with the same seed


@pytest.fixture(scope='module')
def bag(tmp_path_factory):
    return write_demonstration(tmp_path_factory.mktemp('bags') / 'demonstration', seed=3)


@pytest.fixture
def plain(monkeypatch):
    """Leave out the pictures: they take longer than all else."""
    monkeypatch.setattr('pi0_ros.evaluation.report.write_report', lambda *given: None)


def arguments(bag, out, *more):
    return [str(bag), '--checkpoint', 'demo', '--params-file', str(SIM), '--out', str(out),
            '--threads', '1', *more]


@pytest.fixture(scope='module')
def done(bag, tmp_path_factory):
    out = tmp_path_factory.mktemp('evaluation')
    assert evaluate.main(arguments(bag, out, '--every', '0.4', '--samples', '2',
                                   '--shuffle-instructions')) == 0
    return out


def test_the_demo_checkpoint_beats_both_baselines_and_needs_its_instructions(done):
    result = json.loads((done / 'evaluation.json').read_text())
    right, wrong = (result['runs'][name] for name in ('demo', 'demo, wrong instructions'))
    assert right['compared'] >= 10 and right['samples'] == 2
    share = right['error_share']
    assert share['policy'] < 0.3 * min(share['hold_still'], share['last_velocity'])
    assert right['better_than']['hold_still'] > 0.7
    assert wrong['error_share']['policy'] > 2 * share['policy']
    assert wrong['better_than']['last_velocity'] < right['better_than']['last_velocity']
    agree = [one['direction']['agree'] for one in right['joints'].values()]
    assert min(value for value in agree if value is not None) > 0.9
    assert right['safety']['refused'] == {} and right['smoothness']['joined'] > 5
    assert set(result['range_from'].values()) == {'limits'}


def test_the_report_shows_it_and_needs_nothing_else(done):
    text = (done / 'report.html').read_text()
    assert 'wrong instructions' in text and '% less than <i>hold still</i>' in text
    assert not re.search(r'(src|href)\s*=\s*"(?!data:)', text) and 'http' not in text
    assert text.count('data:image/jpeg;base64,') == 20  # two cameras at ten moments
    assert text.count('data:image/png;base64,') >= 14  # each of these with a figure
    picture = cv2.imread(str(done / 'report.png'))
    assert picture.shape[1] > 1000 and picture.std() > 10


def test_what_is_left_for_programs(done):
    table = pyarrow.parquet.read_table(done / 'demo' / 'moments.parquet').to_pylist()
    used = [row for row in table if not row['skipped']]
    assert np.shape(used[0]['predicted']) == (2, 50, 5) and np.shape(used[0]['done']) == (50, 5)
    assert used[0]['asked'] == 'pick up the red block'
    times = pyarrow.parquet.read_table(done / 'demo' / 'latency.parquet').to_pylist()
    assert len(times) == len(table) and min(times[0]['latency_ms']) > 0
    # After the last instruction change nothing is compared that was done for another one.
    before = [row for row in used if row['instruction'] == 'pick up the red block'][-1]
    assert np.isnan(before['done'][-1]).all() and np.isfinite(before['done'][0]).all()


@pytest.mark.usefixtures('plain')
def test_the_same_seed_gives_the_same_bytes(bag, done, tmp_path):
    def bytes_of(folder, *more):
        assert evaluate.main(arguments(bag, folder, '--every', '0.8', *more)) == 0
        return [(folder / name).read_bytes() for name in SAME]

    first = bytes_of(tmp_path / 'one')
    assert bytes_of(tmp_path / 'two') == first
    assert bytes_of(tmp_path / 'one') == first  # from what is there
    assert bytes_of(tmp_path / 'three', '--seed', '1')[1] != first[1]


@pytest.mark.usefixtures('plain')
def test_killed_in_the_middle_it_goes_on_where_it_was(bag, tmp_path):
    more = ('--every', '0.4', '--samples', '2')
    assert evaluate.main(arguments(bag, tmp_path / 'whole', *more)) == 0
    out = tmp_path / 'killed'
    killed_after('pi0_ros.evaluation.store.Store._write', 4, 'evaluate',
                 *arguments(bag, out, *more))
    assert not (out / 'evaluation.json').exists()
    written = out / 'demo' / 'moments.jsonl'
    kept = written.read_bytes().count(b'\n') - 1
    assert kept == 3
    written.write_bytes(written.read_bytes() + b'{"bag": 0, "mom')  # half a line
    inferred = []
    decide = moments._decide
    moments._decide = lambda *given: (inferred.append(1), decide(*given))[1]
    try:
        assert evaluate.main(arguments(bag, out, *more)) == 0
    finally:
        moments._decide = decide
    total = json.loads((out / 'evaluation.json').read_text())['runs']['demo']['moments']
    assert len(inferred) == total - kept
    for name in SAME:
        assert (out / name).read_bytes() == (tmp_path / 'whole' / name).read_bytes()


@pytest.mark.usefixtures('plain')
def test_a_full_disk_loses_nothing(bag, tmp_path, monkeypatch, capsys):
    from pi0_ros.evaluation.store import Store
    write, count = Store._write, [0]

    def full(self, value):
        count[0] += 1
        if count[0] == 4:
            raise OSError(errno.ENOSPC, 'No space left on device')
        write(self, value)

    monkeypatch.setattr(Store, '_write', full)
    assert evaluate.main(arguments(bag, tmp_path, '--every', '1', '--samples', '1')) == 1
    assert 'No space left' in (told := capsys.readouterr().err) and 'goes on from there' in told
    assert evaluate.main(arguments(bag, tmp_path, '--every', '1', '--samples', '1')) == 0
    assert not list(tmp_path.rglob('*.partial'))


def test_another_evaluation_is_not_mixed_in(bag, done, capsys):
    assert evaluate.main(arguments(bag, done, '--every', '0.9')) == 1
    assert 'holds another evaluation, which differs in every' in capsys.readouterr().err


def test_a_camera_that_is_routed_elsewhere_is_another_evaluation(bag, done, capsys):
    swapped = ['--remap', 'camera_1:=/wrist/image_raw', '--remap', 'camera_2:=/overhead/image_raw']
    assert evaluate.main(arguments(bag, done, '--every', '0.4', '--samples', '2', *swapped)) == 1
    assert 'differs in routes' in capsys.readouterr().err


def test_two_bags_with_odd_names_and_words(tmp_path):
    """One with limits and commands, one with neither; markup and formulas are only text."""
    bags = []
    for number, (name, text) in enumerate((('a & b', 'pick <b>up</b> $_$ the red block'),
                                           ('plain', 'pick "up" $x the red block'))):
        source = write_demonstration(tmp_path / f'source{number}', seed=number, colours=('red',))
        out = BagWriter(tmp_path / name)
        with Bag(source) as read:
            for topic, at_ns, message in read.messages(read.topics):
                if number and topic in ('/joint_trajectory', '/robot_description'):
                    continue
                if topic == '/instruction':
                    message = make(STRING, data=text)
                out.write_raw(topic, message.__msgtype__, at_ns,
                              _store.serialize_cdr(message, message.__msgtype__))
        out.close()
        bags.append(str(tmp_path / name))
    out = tmp_path / 'out'
    given = arguments(bags[0], out, '--every', '0.5', '--samples', '1')
    given[given.index('demo')] = '_<i>one</i>=demo'
    assert evaluate.main([bags[1], *given]) == 0  # the one without limits first
    result = json.loads((out / 'evaluation.json').read_text())
    run = result['runs']['_<i>one</i>']
    assert [one['topics']['actions'] for one in run['bags']] == ['', '/joint_trajectory']
    assert 'joint limits are unknown' in ' '.join(run['bags'][0]['warnings'])
    assert not any('unknown' in text for text in run['bags'][1]['warnings'])
    assert set(result['range_from'].values()) == {'limits'}
    assert all(0 < one['error_share'] < 0.1 for one in run['bags'])
    text = (out / 'report.html').read_text()
    assert '<b>up</b>' not in text and '&lt;b&gt;up&lt;/b&gt; $_$' in text
    assert '<i>one' not in text and 'a &amp; b' in text
    assert all(one['spread']['std'] is None for one in run['joints'].values())


def test_what_was_kept_of_a_damaged_bag_is_evaluated(bag, tmp_path, capsys):
    folder = tmp_path / 'killed'
    folder.mkdir()
    (folder / 'killed_0.mcap').write_bytes(next(Path(bag).glob('*.mcap')).read_bytes())
    (folder / 'killed_1.mcap').write_bytes(b'')
    assert evaluate.main(arguments(folder, tmp_path / 'out', '--every', '1')) == 0
    told = json.loads((tmp_path / 'out/evaluation.json').read_text())['runs']['demo']['bags'][0]
    assert any('killed_1.mcap' in text for text in told['warnings'])
    assert 'killed_1.mcap' in (tmp_path / 'out/report.html').read_text()


@pytest.mark.usefixtures('plain')
def test_a_late_chunk_is_refused_as_by_the_live_node(bag, tmp_path):
    assert evaluate.main(arguments(bag, tmp_path, '--every', '1', '--samples', '1', '--delay',
                                   '0.6')) == 0
    run = json.loads((tmp_path / 'evaluation.json').read_text())['runs']['demo']
    assert run['safety']['refused'] == {'chunk_late': run['compared']}


@pytest.mark.parametrize('option, value', [('--every', 'nan'), ('--every', '1e-10'),
                                           ('--seed', '-1'), ('--samples', '0')])
def test_numbers_that_make_no_sense(bag, tmp_path, capsys, option, value):
    assert evaluate.main(arguments(bag, tmp_path, option, value)) == 2
    assert 'must be' in capsys.readouterr().err


def test_without_a_parameter_file_it_says_what_to_give(bag, tmp_path, capsys):
    assert evaluate.main([str(bag), '--checkpoint', 'demo', '--out', str(tmp_path)]) == 1
    assert 'give --params-file' in capsys.readouterr().err


def test_checkpoints_side_by_side(bag, tmp_path):
    given = arguments(bag, tmp_path, '--every', '1', '--samples', '1', '--delay', '0.2')
    given[given.index('demo')] = 'one=demo'
    other = tmp_path / 'other.yaml'
    other.write_text(SIM.read_text() + '    action_offset: 0\n    velocity_scale: 0.2\n')
    runs = tmp_path / 'runs.csv'
    runs.write_text('checkpoint,success\none,true\none,true\ntwo,false\nthree,true\n')
    assert evaluate.main([*given, '--checkpoint', 'two=demo', '--params-file', str(other),
                          '--outcomes', str(runs)]) == 0
    result = json.loads((tmp_path / 'evaluation.json').read_text())
    assert list(result['runs']) == ['one', 'two']
    one, two = (result['runs'][name] for name in ('one', 'two'))
    # A period too early it is worse.
    assert (one['action_offset'], two['action_offset']) == (1, 0)
    assert one['error_share']['policy'] < two['error_share']['policy']
    assert 'trained by two conventions' in result['note']
    assert [one['bags'][0]['error_share']] == [one['error_share']['policy']]  # one mean
    assert 0 < one['critical']['error_share'] and one['critical']['steps'] > 10
    first, second = result['ranking']['order']
    assert (result['ranking']['by'], result['ranking']['episodes']) == ('critical error', 2)
    assert first['value'] == pytest.approx(result['runs'][first['name']]['critical'][
        'error_share'], rel=1e-4) and first['low'] <= first['value'] <= second['value']
    assert result['outcomes']['runs']['one']['success'] == 1
    assert result['outcomes']['unknown'] == ['three']
    assert two['safety']['changed_share'] >= one['safety']['changed_share'] > 0
    slowed = two['safety']['slowed']
    assert slowed['chunks'] and 'shoulder_lift' in slowed['joints']
    report = (tmp_path / 'report.html').read_text()
    assert report.count('class="card"') == 2
    torch = f"torch {metadata.version('torch')}"
    for text in (one['fingerprint'], 'other.yaml', 'sim.yaml', torch,
                 f'{datetime.now():%Y}', 'shoulder_lift', 'messages of', 'Which one is better',
                 'On the robot', 'where it decides'):
        assert text in report


@pytest.mark.usefixtures('plain')
@pytest.mark.parametrize('handover, joins', [('rtc', True), ('synchronous', False),
                                             ('ensemble', True)])
def test_chunks_are_joined_by_every_hand_over_that_joins(bag, tmp_path, handover, joins):
    params = tmp_path / 'params.yaml'
    params.write_text(SIM.read_text() + f'    handover: {handover}\n')
    given = arguments(bag, tmp_path / 'out', '--every', '0.5', '--samples', '1')
    given[given.index(str(SIM))] = str(params)
    assert evaluate.main(given) == 0
    run = json.loads((tmp_path / 'out/evaluation.json').read_text())['runs']['demo']
    assert (run['smoothness']['joined'] > 2) is joins
    if joins:  # the policy agrees with itself to a few hundredths
        assert 0 < run['smoothness']['jump']['elbow_flex']['mean'] < 0.2


@pytest.mark.parametrize('change, words', [
    (['--remap', 'camera_1:=/nothing'], r'slot +checkpoint camera(.|\n)*overhead +nothing'),
    (['--every', '100'], 'shorter than --every'),
    (['--checkpoint', '/nowhere'], 'nowhere'),
    (['--actions', '/told'], 'which --actions names'),
    (['--params-file', 'a', '--params-file', 'b'], '3 parameter files for 1 checkpoints'),
    (['--instruction', 'go', '--shuffle-instructions'], 'needs two instructions')])
def test_what_cannot_be_evaluated_is_told(bag, tmp_path, capsys, change, words):
    given = arguments(bag, tmp_path)
    if '--checkpoint' in change:
        given[given.index('demo')] = change.pop()
        change.clear()
    assert evaluate.main([*given, *change]) == 1
    assert re.search(words, capsys.readouterr().err)


def test_a_bag_without_what_the_policy_needs_says_why(tmp_path, capsys):
    tape = Tape(tmp_path / 'bag')
    tape.say(0, 'pick up the red block')
    for at_ms in range(0, 2000, 10):
        tape.joints(at_ms, np.zeros(5), names=[f'{name}' for name in (
            'shoulder_pan', 'shoulder_lift', 'elbow_flex', 'wrist_flex', 'gripper')])
        if at_ms < 300:
            tape.image(at_ms, topic='/overhead/image_raw')
    tape.image(1999, topic='/wrist/image_raw')
    assert evaluate.main(arguments(tape.close(), tmp_path / 'out')) == 1
    assert "no moment of 'demo' could be compared" in (told := capsys.readouterr().err)
    assert "camera 'overhead'" in told or "camera 'wrist'" in told


# ---- measures ----

def record(number, state, predicted, done, **more):
    return {'bag': 0, 'moment': number, 'skipped': '', 'dt_ns': 20 * MS, 'action_offset': 1,
            'state': state,
            'velocity': [1.0, 0.0], 'predicted': predicted, 'done': done, 'refused': '',
            'clamped': [], 'slowed': [], 'jump': None, 'border': None, 'inside': None,
            'joint_age_s': 0.01, 'image_age_s': {'front': 0.02}, 'skew_s': {'front': -0.01},
            'now_ns': number, 'instruction': 'go'} | more


def test_errors_are_what_they_are_called():
    done = [[0.2, 0.0], [0.4, 0.0]]
    told = [record(0, [0.0, 0.0], [[[0.1, 0.0], [0.3, 0.0]], [[0.3, 0.0], [0.5, 0.0]]], done),
            record(1, [0.0, 0.0], [[[0.2, 1.0], [0.0, 0.0]]] * 2, [done[0], [np.nan, np.nan]],
                   refused='chunk_jump', jump=[0.1, 0.2], border=[4.0, 3.0], inside=[2.0, 3.0]),
            record(2, [0.0, 0.0], [], [], skipped='camera_silent')]
    rows = measures.Rows(told, np.array([False, False]))
    out = measures.summarise(told, rows, ['a', 'b'], np.array([2.0, 4.0]))
    joint = out['joints']['a']
    assert joint['policy']['mean'] == pytest.approx((0.1 + 0.1 + 0.0) / 3, rel=1e-4)
    assert joint['policy']['max'] == pytest.approx(0.1)
    assert joint['hold_still']['by_step']['mean'] == pytest.approx([0.2, 0.4])
    assert joint['hold_still']['by_step']['max'] == pytest.approx([0.2, 0.4])
    assert joint['last_velocity']['mean'] == pytest.approx((0.18 + 0.36 + 0.18) / 3)
    assert joint['policy']['mean_share'] == pytest.approx(joint['policy']['mean'] / 2, rel=1e-4)
    assert joint['direction'] == {'moments': 2, 'agree': 1.0}
    assert joint['spread']['std'] == pytest.approx(0.05) and joint['spread']['done_inside'] == 1
    assert out['joints']['b']['direction'] == {'moments': 0, 'agree': None}
    assert out['moments'] == 3 and out['skipped'] == {'camera_silent': 1}
    assert out['safety']['refused'] == {'chunk_jump': 1}
    assert out['smoothness']['acceleration']['a'] == {'border': 4.0, 'inside': 2.0}
    assert out['inputs']['front']['skew_ms']['max'] == pytest.approx(10)
    assert out['error_share']['hold_still'] == pytest.approx(np.mean([.1, .2, .1, 0, 0, 0]))


def test_whole_turns_are_no_error():
    told = [record(0, [3.1, 0.0], [[[-3.1, 0.0]]], [[3.1, 0.0]])]
    rows = measures.Rows(told, np.array([True, False]))
    assert rows.errors['policy'][0, 0, 0] == pytest.approx(2 * np.pi - 6.2)


# ---- made again ----

def record_inferences(bag, path, count=3):
    """Copy a bag and add what a live node would have recorded; return its folder."""
    config = read_all_parameters(SIM, checkpoint='demo')
    policy = make_local_policy(config.policy, config.robot)
    policy.load()
    policy.warm_up()
    records = []
    with Bag(bag) as source:
        play = Playback(source, resolve(source, Wanted.of(config), {}), Wanted.of(config))
        for moment in play.moments(700 * MS):
            if len(records) == count:
                break
            seen = play.streams.builder.build(moment.now_ns, play.instruction)
            chunk = policy.infer(seen)
            records.append((moment.now_ns, InferenceRecord.of(
                seen, None, chunk, config.control.handover, 'fast', decided_by(config),
                configuration_hash(decided_by(config)))))
        policy.close()
        out = BagWriter(path)
        for topic, at_ns, message in source.messages(source.topics):
            while records and records[0][0] < at_ns:
                out.write('/pi0/inference', STRING, records[0][0],
                          data=records.pop(0)[1].to_json())
            out.write_raw(topic, message.__msgtype__, at_ns,
                          _store.serialize_cdr(message, message.__msgtype__))
        out.close()
    return path


def test_recorded_inferences_are_made_again_bit_for_bit(bag, tmp_path, capsys):
    path = record_inferences(bag, tmp_path / 'recorded')
    out = tmp_path / 'out'
    assert evaluate.main(arguments(path, out, '--reproduce')) == 0
    assert '3 of 3 came out the same, bit for bit' in capsys.readouterr().out
    told = json.loads((out / 'reproduced.json').read_text())['inferences']
    assert [row['same'] for row in told] == [True] * 3

    params = tmp_path / 'other.yaml'
    params.write_text(SIM.read_text() + '    denoising_steps: 5\n')
    given = arguments(path, out, '--reproduce')
    given[given.index(str(SIM))] = str(params)
    assert evaluate.main(given) == 1
    told = capsys.readouterr()
    assert '3 differ' in told.out and 'denoising_steps 0, here 5' in told.err


def test_what_cannot_be_made_again_says_why(bag, tmp_path, capsys):
    assert evaluate.main(arguments(bag, tmp_path, '--reproduce')) == 1
    assert 'no records of inferences' in capsys.readouterr().err
    path = record_inferences(bag, tmp_path / 'recorded', 2)
    with Bag(path) as source:
        records = [InferenceRecord.from_json(message.data)
                   for _, _, message in source.messages(['/pi0/inference'])]
    assert InferenceRecord.from_json(records[0].to_json()) == records[0]
    with pytest.raises(ValueError, match='has version 9, expected 1'):
        InferenceRecord.from_json(records[0].to_json().replace('"version": 1', '"version": 9'))
    with pytest.raises(ValueError, match='no record'):
        InferenceRecord.from_json('hello')


def test_a_fingerprint_tells_checkpoints_apart(tmp_path):
    folder = tmp_path / 'checkpoint'
    folder.mkdir()
    data = bytearray(np.random.default_rng(0).bytes(5_000_000))
    (folder / 'model.safetensors').write_bytes(data)
    (folder / 'config.json').write_text('{}')
    first = fingerprint(folder)
    assert fingerprint(folder) == first
    (folder / 'model.safetensors').write_bytes(bytes(255 - byte for byte in data))
    assert fingerprint(folder) != first
    (folder / 'model.safetensors').write_bytes(data)
    (folder / 'config.json').write_text('{"a": 1}')
    assert fingerprint(folder) != first
    (folder / 'trainer_state.json').symlink_to(folder / 'nothing')  # whatever loading says of it
    (folder / 'evaluation').mkdir()
    before = fingerprint(folder)
    (folder / 'evaluation/evaluation.json').write_text('{}')  # our own
    assert fingerprint(folder) == before


def test_a_checkpoint_is_found_from_whatever_folder(tmp_path, monkeypatch):
    (tmp_path / 'mine').mkdir()
    monkeypatch.chdir(tmp_path)
    configuration = read_all_parameters(SIM, checkpoint='mine')
    run = Run('mine', configuration, {}).findable()
    assert run.config.policy.checkpoint == str(tmp_path / 'mine')
    monkeypatch.chdir(ROOT)
    assert run.findable() == run
    for name in ('demo', 'lerobot/pi0_base'):  # every machine finds these by itself
        named = Run('named', configuration.with_policy(checkpoint=name), {})
        assert named.findable() == named


@pytest.mark.usefixtures('plain')
def test_several_at_a_time_find_the_same(bag, tmp_path):
    second = write_demonstration(tmp_path / 'second', seed=5)

    def evaluation(folder, *more):
        assert evaluate.main([str(second), *arguments(
            bag, folder, '--every', '2', '--samples', '1', '--checkpoint', 'other=demo',
            *more)]) == 0
        return {name: (folder / name).read_bytes() for name in (
            'evaluation.json', 'demo/moments.parquet', 'other/moments.parquet')}

    one = evaluation(tmp_path / 'one')
    assert evaluation(tmp_path / 'two', '--jobs', '2') == one
    # What was begun one way goes on in the other, and is not decided again.
    for name in ('demo', 'other'):
        log = tmp_path / 'two' / name / 'moments.jsonl'
        lines = log.read_bytes().splitlines(keepends=True)
        log.write_bytes(b''.join(lines[:-3]))
    assert evaluation(tmp_path / 'two', '--jobs', '3') == one
    if importlib.util.find_spec('ray'):
        assert evaluation(tmp_path / 'ray', '--ray', 'local') == one
