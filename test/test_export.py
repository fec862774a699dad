"""Verb export: what is in the data set, that it resumes, and that nothing half-written is left."""

import errno
import json
import signal
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pyarrow.parquet
import pytest

from bags import Tape, write_demonstration
from pi0_ros.observation.decoding import message_to_rgb
from pi0_ros.offline import dataset, export
from pi0_ros.offline.bag import Bag

ROOT = Path(__file__).parents[1]
SIM = str(ROOT / 'config' / 'sim.yaml')


@pytest.fixture(scope='module')
def bag(tmp_path_factory):
    return write_demonstration(tmp_path_factory.mktemp('bags') / 'demonstration', seed=5)


@pytest.fixture(scope='module')
def made(bag, tmp_path_factory):
    folder = tmp_path_factory.mktemp('datasets') / 'blocks'
    assert export.main([str(bag), '--dataset', str(folder), '--fps', '25', '--params-file', SIM,
                        '--robot-type', 'sim']) == 0
    return folder


def table(folder, name):
    return pyarrow.parquet.read_table(folder / name).to_pylist()


def info(folder):
    return json.loads((folder / 'meta/info.json').read_text())


def test_the_layout_is_that_of_lerobot(made):
    told = info(made)
    assert told['codebase_version'] == 'v3.0' and told['fps'] == 25
    assert told['total_episodes'] == 2 and told['robot_type'] == 'sim'
    joints = ['shoulder_pan', 'shoulder_lift', 'elbow_flex', 'wrist_flex', 'gripper']
    assert told['features']['action'] == {'dtype': 'float32', 'shape': [5], 'names': joints}
    camera = told['features']['observation.images.wrist']
    assert camera['shape'] == [480, 640, 3] and camera['info']['video.codec'] == 'h264'
    episodes = table(made, 'meta/episodes/chunk-000/file-000.parquet')
    assert [one['tasks'] for one in episodes] == [['pick up the red block'],
                                                  ['pick up the green block']]
    assert episodes[1]['dataset_from_index'] == episodes[0]['length']
    assert episodes[1]['dataset_to_index'] == told['total_frames']
    tasks = pyarrow.parquet.read_table(made / 'meta/tasks.parquet')
    meta = json.loads(tasks.schema.metadata[b'pandas'])
    assert meta['index_columns'] == ['task']  # LeRobot reads the texts from pandas' index
    assert tasks['task'].to_pylist()[1] == 'pick up the green block'
    assert not list(made.parent.glob('*.partial')) and not list(made.rglob('*.jsonl'))


def test_rows_are_what_the_bag_says_at_these_times(bag, made):
    rows = table(made, 'data/chunk-000/file-001.parquet')
    assert [row['frame_index'] for row in rows] == list(range(len(rows)))
    np.testing.assert_allclose([row['timestamp'] for row in rows], np.arange(len(rows)) / 25,
                               atol=1e-5)
    assert {row['task_index'] for row in rows} == {1} == {row['episode_index'] for row in rows}
    # The action of a row is what was commanded for one period later: the state follows it,
    # as well as the arm can.
    states = np.array([row['observation.state'] for row in rows])[:, :4]
    actions = np.array([row['action'] for row in rows])[:, :4]
    one_later = np.abs(actions[:-1] - states[1:]).max()
    assert one_later < 0.5 * np.abs(actions[:-1] - states[:-1]).max()
    with Bag(bag) as source:
        told = [message for _, _, message in source.messages(['/joint_states'])]
    known = {tuple(np.float32(message.position)) for message in told}
    assert all(tuple(np.float32(row['observation.state'])) in known for row in rows)


def test_videos_hold_the_images_frame_by_frame(bag, made):
    rows = table(made, 'data/chunk-000/file-000.parquet')
    with Bag(bag) as source:
        images = [message_to_rgb(message) for _, _, message
                  in source.messages(['/wrist/image_raw/compressed'])][:2 * len(rows)]
    path = made / 'videos/observation.images.wrist/chunk-000/file-000.mp4'
    with av.open(str(path)) as file:
        frames = [frame.to_ndarray(format='rgb24') for frame in file.decode(video=0)]
    assert len(frames) == len(rows)
    for number in (0, len(rows) // 2, len(rows) - 1):
        apart = [np.abs(frames[number].astype(int) - image).mean() for image in images]
        nearest = int(np.argmin(apart))
        assert apart[nearest] < 4 and abs(nearest / 30 - number / 25) < 0.09
    np.testing.assert_allclose(dataset.frame_times(path), np.arange(len(rows)) / 25, atol=1e-4)


def test_statistics_are_those_of_the_rows(made):
    told = json.loads((made / 'meta/stats.json').read_text())
    rows = [row for name in ('file-000', 'file-001')
            for row in table(made, f'data/chunk-000/{name}.parquet')]
    actions = np.array([row['action'] for row in rows])
    for name, value in (('mean', actions.mean(0)), ('std', actions.std(0)),
                        ('max', actions.max(0)), ('q99', np.quantile(actions, 0.99, axis=0))):
        np.testing.assert_allclose(told['action'][name], value, rtol=1e-5, atol=1e-6)
    assert told['action']['count'] == [len(rows)]
    image = told['observation.images.overhead']
    assert np.shape(image['mean']) == (3, 1, 1) and 0.5 < image['mean'][0][0][0] < 0.95
    assert 10 < image['count'][0] <= len(rows)


def test_interrupted_it_goes_on_and_ends_the_same(bag, made, tmp_path):
    folder = tmp_path / 'blocks'
    command = [str(bag), '--dataset', str(folder), '--fps', '25', '--params-file', SIM]
    process = subprocess.Popen([sys.executable, '-m', 'pi0_ros', 'export', *command], cwd=ROOT,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    manifest = tmp_path / 'blocks.partial' / 'episodes.jsonl'
    while process.poll() is None:
        if manifest.exists() and manifest.read_bytes().count(b'\n') >= 2:
            process.send_signal(signal.SIGKILL)
            process.wait()
    assert process.returncode == -signal.SIGKILL and not folder.exists()
    first = tmp_path / 'blocks.partial/data/chunk-000/file-000.parquet'
    written = first.stat().st_mtime_ns
    assert export.main(command) == 0
    assert (folder / 'data/chunk-000/file-000.parquet').stat().st_mtime_ns == written
    for name in ('data/chunk-000/file-000.parquet', 'data/chunk-000/file-001.parquet',
                 'meta/stats.json', 'meta/tasks.parquet'):
        assert (folder / name).read_bytes() == (made / name).read_bytes(), name


def test_a_full_disk_leaves_nothing_under_the_name(bag, tmp_path, monkeypatch, capsys):
    def full(*given):
        raise OSError(errno.ENOSPC, 'No space left on device')

    command = [str(bag), '--dataset', str(tmp_path / 'd'), '--fps', '10', '--params-file', SIM]
    with monkeypatch.context() as patched:
        patched.setattr(dataset.pyarrow.parquet, 'write_table', full)
        assert export.main(command) == 1
    assert 'No space left' in capsys.readouterr().err and not (tmp_path / 'd').exists()
    assert export.main(command) == 0
    assert export.main(command) == 1
    assert 'exists: name another folder' in capsys.readouterr().err


def test_a_partial_export_of_something_else_is_kept(bag, tmp_path, capsys):
    (tmp_path / 'd.partial').mkdir()
    (tmp_path / 'd.partial/episodes.jsonl').write_text('{"version": 0}\n')
    command = [str(bag), '--dataset', str(tmp_path / 'd'), '--fps', '10', '--params-file', SIM]
    assert export.main(command) == 1
    assert 'the beginning of another data set' in capsys.readouterr().err
    assert export.main([*command, '--overwrite']) == 0


def tape(path, **more):
    """Return a tape of ten seconds with two instructions, and what a test changes of it."""
    out = Tape(path)
    out.say(0, 'one')
    gap = more.get('gap', range(0))
    for at_ms in range(0, 10_000, 20):
        if at_ms == 5000:
            out.say(at_ms, 'two')
        if more.get('flags') and at_ms in more['flags']:
            out.flag(at_ms, more['flags'][at_ms])
        out.joints(at_ms, [np.sin(at_ms / 300), 0.5])
        if at_ms not in gap:
            out.image(at_ms, at_ms // 40 if not more.get('bad') == at_ms else 0,
                      encoding='32FC7' if more.get('bad') == at_ms else 'rgb8')
    return out.close()


def lengths(folder):
    return [row['length'] for row in table(folder, 'meta/episodes/chunk-000/file-000.parquet')]


def test_without_a_parameter_file_the_bag_names_everything(tmp_path):
    path = tape(tmp_path / 'bag')
    folder = tmp_path / 'd'
    assert export.main([str(path), '--dataset', str(folder), '--fps', '50']) == 0
    told = info(folder)
    assert told['features']['action']['names'] == ['a', 'b']
    assert 'observation.images.camera_1' in told['features']
    rows = table(folder, 'data/chunk-000/file-000.parquet')
    # Nothing was commanded: the action is what is measured a period later; frame 0 is at 20 ms,
    # and what comes at that moment is not there yet.
    later_s = (40 + 20 * np.arange(len(rows))) / 300
    np.testing.assert_allclose([row['action'][0] for row in rows], np.sin(later_s), atol=1e-6)
    np.testing.assert_allclose([row['observation.state'][0] for row in rows],
                               np.sin(later_s - 40 / 300), atol=1e-6)
    assert len(lengths(folder)) == 2


def test_a_gap_ends_an_episode(tmp_path, capsys):
    path = tape(tmp_path / 'bag', gap=range(2000, 3000))
    assert export.main([str(path), '--dataset', str(tmp_path / 'd'), '--fps', '20']) == 0
    found = lengths(tmp_path / 'd')
    assert len(found) == 3 and 40 <= found[0] <= 45 and 36 <= found[1] <= 41
    assert 'left out: camera_silent' in (told := capsys.readouterr().out)
    assert 'silent for 1.0 s' in told


def test_episodes_from_a_topic(tmp_path):
    path = tape(tmp_path / 'bag', flags={1000: True, 2500: False, 6000: True, 7400: True,
                                         9000: False})
    assert export.main([str(path), '--dataset', str(tmp_path / 'd'), '--fps', '20',
                        '--episodes', 'episode']) == 0
    assert [round(found / 20, 1) for found in lengths(tmp_path / 'd')] == [1.5, 1.4, 1.6]
    tasks = [row['tasks'] for row in table(tmp_path / 'd',
                                           'meta/episodes/chunk-000/file-000.parquet')]
    assert tasks == [['one'], ['two'], ['two']]


def test_an_image_that_cannot_be_read_costs_its_episode_only(tmp_path, capsys):
    path = tape(tmp_path / 'bag', bad=1000)
    assert export.main([str(path), '--dataset', str(tmp_path / 'd'), '--fps', '50']) == 0
    assert len(lengths(tmp_path / 'd')) == 1
    assert "an episode is left out ('one'): image encoding '32FC7'" in capsys.readouterr().out


def test_too_short_and_nothing_at_all(tmp_path, capsys):
    path = tape(tmp_path / 'bag')
    command = [str(path), '--dataset', str(tmp_path / 'd'), '--fps', '20']
    assert export.main([*command, '--min-seconds', '20']) == 1
    assert 'no episode' in (told := capsys.readouterr()).err and not (tmp_path / 'd').exists()
    assert export.main([*command, '--episodes', '/nothing']) == 1
    assert 'which --episodes names' in capsys.readouterr().err
    assert told.out


def test_several_bags_are_one_data_set(tmp_path):
    bags = [str(tape(tmp_path / name)) for name in ('first', 'second')]
    assert export.main([*bags, '--dataset', str(tmp_path / 'd'), '--fps', '10', '--instruction',
                        'swing']) == 0
    found = lengths(tmp_path / 'd')
    assert len(found) == 2 and info(tmp_path / 'd')['total_tasks'] == 1
    assert table(tmp_path / 'd', 'data/chunk-000/file-001.parquet')[0]['index'] == found[0]


def test_a_wrong_video_is_found_when_it_is_read_back(made, tmp_path):
    import shutil
    folder = tmp_path / 'copy'
    shutil.copytree(made, folder)
    dataset.check(folder)
    videos = folder / 'videos/observation.images.wrist/chunk-000'
    (videos / 'file-000.mp4').write_bytes((videos / 'file-001.mp4').read_bytes())
    with pytest.raises(ValueError, match='frames, expected'):
        dataset.check(folder)
