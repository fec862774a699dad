# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Verb export: what is in the data set, that it resumes, and that nothing half-written is left."""

import errno
import json
import os
from pathlib import Path

import av
from bags import MS, Tape, write_demonstration
import numpy as np
from pi0_ros.bags.actions import ActionPath
from pi0_ros.bags.bag import Bag
from pi0_ros.dataset import sums
from pi0_ros.dataset import writer as dataset
from pi0_ros.observation.decoding import message_to_rgb
from pi0_ros.sim import arm
from pi0_ros.verbs import export
import pyarrow.parquet
import pytest
from support import killed_after

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
    # The action of a row is what was commanded then.
    actions = np.array([row['action'] for row in rows])
    with Bag(bag) as source:
        path = ActionPath(tuple(arm.JOINT_NAMES))
        for _, received_ns, message in source.messages(['/joint_trajectory']):
            path.put(message, received_ns)
        path.known_ns = source.end_ns
        states = [(received_ns, np.float32(message.position)) for _, received_ns, message
                  in source.messages(['/joint_states'])]
    for row in (5, 20, 40):
        shown = np.float32(rows[row]['observation.state'])
        seen_ns, = [at for at, positions in states if (positions == shown).all()]
        apart = [np.abs(path.sample(np.array([seen_ns + after_ms * MS]))[0] - actions[row]).max()
                 for after_ms in range(0, 61)]
        assert min(apart) < 1e-3 and np.argmin(apart) <= 10  # a frame's state is that old
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
    assert len(frames) == info(made)['total_frames']  # both episodes
    for number in (0, len(rows) // 2, len(rows) - 1):
        apart = [np.abs(frames[number].astype(int) - image).mean() for image in images]
        nearest = int(np.argmin(apart))
        assert apart[nearest] < 4 and abs(nearest / 30 - number / 25) < 0.09
    np.testing.assert_allclose(dataset.frame_times(path), np.arange(len(frames)) / 25, atol=1e-4)
    second = table(made, 'meta/episodes/chunk-000/file-000.parquet')[1]
    start = 'videos/observation.images.wrist/'
    assert second[start + 'from_timestamp'] == len(rows) / 25
    assert second[start + 'to_timestamp'] == len(frames) / 25
    assert not (made / 'pieces').exists()


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
    killed_after('pi0_ros.dataset.part.Part.finish_episode', 1, 'export', *command)
    part = tmp_path / 'blocks.partial/parts/000000'
    assert (part / 'episodes.jsonl').read_bytes().count(b'\n') == 1 and not folder.exists()
    kept = part / 'rows/000000.parquet'
    os.link(kept, tmp_path / 'kept')
    written = kept.stat().st_mtime_ns
    assert export.main(command) == 0
    assert (tmp_path / 'kept').stat().st_mtime_ns == written
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
    (tmp_path / 'd.partial/bags.jsonl').write_text('{"version": 0}\n')
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
            out.image(at_ms, at_ms // 20 % 100 * 2 + 20, size=more.get('size', 4),
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


def test_an_action_is_the_command_of_its_frame_as_lerobot_records_it(tmp_path):
    """A leader at 50 Hz whose values are its times of issue, as world/bags/16 has it."""
    tape = Tape(tmp_path / 'bag')
    tape.say(0, 'go')
    for at_ms in range(0, 3000, 5):
        tape.joints(at_ms, [at_ms / 1000, 0.0])
        if at_ms % 20 == 0:
            tape.joints(at_ms + 3, [(at_ms + 3) / 1000, 0.0], topic='/leader/joint_states')
            tape.image(at_ms)
    folder = tmp_path / 'd'
    given = [str(tape.close()), '--dataset', str(folder), '--fps', '30']
    assert export.main([*given, '--actions', '/leader/joint_states']) == 0
    rows = table(folder, 'data/chunk-000/file-000.parquet')
    apart = np.array([row['action'][0] - row['observation.state'][0] for row in rows])
    assert len(apart) > 80 and apart.min() >= -1e-4 and apart.max() <= 0.020
    assert json.loads((folder / 'meta/pi0_ros.json').read_text()) == {'action_offset': 0}


def test_without_commands_an_action_is_the_next_state_and_the_data_set_says_so(tmp_path, capsys):
    first, folder = tape(tmp_path / 'first'), tmp_path / 'd'
    assert export.main([str(first), '--dataset', str(folder), '--fps', '25']) == 0
    rows = table(folder, 'data/chunk-000/file-000.parquet')
    actions = np.array([row['action'][0] for row in rows])
    states = np.array([row['observation.state'][0] for row in rows])  # 20 ms old, see above
    at_ms = 40 * (1 + np.arange(len(rows)))
    np.testing.assert_allclose(actions, np.sin((at_ms + 40) / 300), atol=1e-3)
    np.testing.assert_allclose(states, np.sin((at_ms - 20) / 300), atol=1e-6)
    assert json.loads((folder / 'meta/pi0_ros.json').read_text()) == {'action_offset': 1}
    assert "parameter 'action_offset' 1" in capsys.readouterr().out
    other = Tape(tmp_path / 'other')
    other.say(0, 'go')
    for at_ms in range(0, 1000, 20):
        other.joints(at_ms, [0.0, 0.0])
        other.image(at_ms)
        other.command(at_ms, [(0, [0.0, 0.0]), (100, [0.0, 0.0])])
    assert export.main([str(first), str(other.close()), '--dataset', str(tmp_path / 'both'),
                        '--fps', '25']) == 1
    assert 'some bags have commands and some have none' in capsys.readouterr().err


def test_every_frame_shows_what_was_newest_then(tmp_path):
    """The grey of an image tells its number: what came at 20 ms is seen from 40 ms on."""
    folder = tmp_path / 'd'
    assert export.main([str(tape(tmp_path / 'bag', size=32)), '--dataset', str(folder), '--fps',
                        '25']) == 0
    path = folder / 'videos/observation.images.camera_1/chunk-000/file-000.mp4'
    with av.open(str(path)) as file:
        greys = [frame.to_ndarray(format='rgb24').mean() for frame in file.decode(video=0)]
    at_ms = 40 * (1 + np.arange(len(greys)))
    np.testing.assert_allclose(greys, (at_ms - 20) // 20 % 100 * 2 + 20, atol=1.5)
    told = json.loads((folder / 'meta/stats.json').read_text())['observation.images.camera_1']
    assert 0.05 < told['std'][0][0][0] < 0.35 and told['min'][0][0][0] < 0.12


def test_image_statistics_are_those_of_each_channel():
    counts = np.zeros((3, 256), int)
    counts[0, 0], counts[0, 255] = 50, 50
    counts[1, 51], counts[2, 102] = 100, 100
    told = sums.of_images(counts, 7)
    np.testing.assert_allclose(np.ravel(told['mean']), [0.5, 0.2, 0.4])
    np.testing.assert_allclose(np.ravel(told['std']), [0.5, 0, 0], atol=1e-7)
    assert np.ravel(told['q90']).tolist() == [1.0, 0.2, 0.4] and told['count'] == [7]


def test_cameras_of_another_size_are_not_mixed_in(tmp_path, capsys):
    bags = [str(tape(tmp_path / str(size), size=size)) for size in (4, 8)]
    assert export.main([*bags, '--dataset', str(tmp_path / 'd'), '--fps', '10']) == 0
    assert len(lengths(tmp_path / 'd')) == 2
    assert "images of 'camera_1' are [8, 8] high and wide" in capsys.readouterr().out


def test_a_clock_that_jumps_ends_an_episode(tmp_path):
    out = Tape(tmp_path / 'bag')
    out.say(0, 'one')
    for at_ms in range(0, 8000, 10):
        sim_ms = 50_000 + at_ms % 4000
        stamp_ms = sim_ms - 1_700_000_000_000
        out.clock(at_ms, sim_ms)
        out.joints(at_ms, [sim_ms / 1e5, 0], stamp_ms)
        out.image(at_ms, stamp_ms=stamp_ms)
        out.command(at_ms, [(10, [sim_ms / 1e5, 0])], stamp_ms)
    assert export.main([str(out.close()), '--dataset', str(tmp_path / 'd'), '--fps', '10']) == 0
    assert len(lengths(tmp_path / 'd')) == 2


def test_states_in_an_order_of_their_own(tmp_path):
    params = tmp_path / 'params.yaml'
    params.write_text('/**:\n  ros__parameters:\n    joint_names: [b, "-", a]\n'
                      '    state_names: [a, "-", b]\n    cameras: [front]\n')
    folder = tmp_path / 'd'
    assert export.main([str(tape(tmp_path / 'bag')), '--dataset', str(folder), '--fps', '20',
                        '--params-file', str(params)]) == 0
    told = info(folder)['features']
    assert told['action']['names'] == ['b', 'a']
    assert told['observation.state']['names'] == ['a', 'b']
    row = table(folder, 'data/chunk-000/file-000.parquet')[0]
    assert row['action'][0] == row['observation.state'][1] == 0.5


def test_positions_without_names_need_a_parameter_file(tmp_path, capsys):
    out = Tape(tmp_path / 'bag')
    out.say(0, 'one')
    for at_ms in range(0, 3000, 20):
        out.joints(at_ms, [0, 0.5])
        out.image(at_ms)
        out.array(at_ms, [0.5, 0.0])
    assert export.main([str(out.close()), '--dataset', str(tmp_path / 'd'), '--fps', '20']) == 1
    assert 'positions without names' in capsys.readouterr().err


def test_a_slow_input_is_told(tmp_path, capsys):
    assert export.main([str(tape(tmp_path / 'bag')), '--dataset', str(tmp_path / 'd'), '--fps',
                        '100']) == 0
    assert 'joint_states: 50.0 Hz is less than --fps 100' in capsys.readouterr().out


def test_joints_of_several_publishers_are_found(tmp_path):
    out = Tape(tmp_path / 'bag')
    out.say(0, 'one')
    for at_ms in range(0, 3000, 20):
        out.joints(at_ms, [0.1], names=['gripper'])
        out.joints(at_ms, [0.2, 0.3], names=['a', 'b'])
        out.image(at_ms)
    assert export.main([str(out.close()), '--dataset', str(tmp_path / 'd'), '--fps', '20']) == 0
    assert info(tmp_path / 'd')['features']['action']['names'] == ['gripper', 'a', 'b']


def test_half_a_line_and_strangers_are_not_taken_for_episodes(bag, tmp_path, capsys):
    command = [str(bag), '--dataset', str(tmp_path / 'd'), '--fps', '10', '--params-file', SIM]
    assert export.main([*command, '--min-seconds', '100']) == 1  # nothing long enough
    assert 'shorter than --min-seconds' in capsys.readouterr().err
    assert not (tmp_path / 'd.partial').exists()
    partial = tmp_path / 'd.partial'
    partial.mkdir()
    (partial / 'something').write_text('of somebody')
    assert export.main(command) == 1
    assert 'the beginning of another data set' in capsys.readouterr().err
    assert (partial / 'something').exists()
    (partial / 'something').unlink()
    assert export.main(command) == 0
    (tmp_path / 'd/data/chunk-000/file-999.parquet').write_bytes(b'x')
    with pytest.raises(ValueError, match='has 3 data files, expected 2'):
        dataset.check(tmp_path / 'd')


def test_videos_are_joined_up_to_a_size(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, 'VIDEO_BYTES', 1)  # one for each
    folder = tmp_path / 'd'
    assert export.main([str(tape(tmp_path / 'bag')), '--dataset', str(folder), '--fps', '20']) == 0
    rows = table(folder, 'meta/episodes/chunk-000/file-000.parquet')
    start = 'videos/observation.images.camera_1/'
    assert [row[start + 'file_index'] for row in rows] == [0, 1]
    assert [row[start + 'from_timestamp'] for row in rows] == [0, 0]


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


def test_every_instruction_can_begin_an_episode(tmp_path, capsys):
    out = Tape(tmp_path / 'bag')
    for at_ms in range(0, 6000, 20):
        if at_ms % 2000 == 0:
            out.say(at_ms, 'the same again')
        out.joints(at_ms, [0, 0.5])
        out.image(at_ms)
    connection = out._out._writer.add_connection(
        '/strange', 'acme_msgs/msg/Unheard', msgdef='int32 x\n', rihs01='RIHS01_' + '0' * 64)
    out._out._writer.write(connection, 1_700_000_001 * 10**9, b'\0\1\0\0\1\0\0\0')
    command = [str(out.close()), '--dataset', str(tmp_path / 'd'), '--fps', '20']
    assert export.main([*command, '--episodes', '/strange']) == 1
    assert 'acme_msgs/msg/Unheard, expected a standard type' in capsys.readouterr().err
    assert export.main([*command, '--episodes', '/instruction']) == 0
    assert len(lengths(tmp_path / 'd')) == 3


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
    video = folder / 'videos/observation.images.wrist/chunk-000/file-000.mp4'
    shutil.copy(video, tmp_path / 'whole.mp4')
    dataset.join([tmp_path / 'whole.mp4'], video, 30)
    dataset.check(folder)  # joining alone changes nothing
    with av.open(str(video), 'w') as out:
        stream = out.add_stream('libx264', 25)
        stream.width, stream.height, stream.pix_fmt = 640, 480, 'yuv420p'
        for number in range(10):
            frame = av.VideoFrame(640, 480, 'yuv420p')
            frame.pts = number
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    with pytest.raises(ValueError, match='frames, expected'):
        dataset.check(folder)


def test_a_depth_image_beside_the_colour_image_is_left_out_and_told(tmp_path, capsys):
    tape = Tape(tmp_path / 'bag')
    tape.say(0, 'go')
    for at_ms in range(0, 2000, 20):
        tape.joints(at_ms, [np.sin(at_ms / 300), 0.5])
        tape.image(at_ms)
        tape.image(at_ms, topic='/camera_1/depth/image_raw', encoding='16UC1')
    folder = tmp_path / 'd'
    assert export.main([str(tape.close()), '--dataset', str(folder), '--fps', '25']) == 0
    assert "'/camera_1/depth/image_raw' holds depth images" in capsys.readouterr().out
    assert list(info(folder)['features'])[-1] != 'observation.images.camera_1_depth'


def test_what_is_left_out_is_told_with_what_was_found(tmp_path, capsys):
    """A camera whose stamps count from boot."""
    tape = Tape(tmp_path / 'bag')
    tape.say(0, 'go')
    for at_ms in range(0, 2000, 20):
        tape.joints(at_ms, [0.0, 0.5])
        tape.image(at_ms, stamp_ms=at_ms - 10_000_000)
    assert export.main([str(tape.close()), '--dataset', str(tmp_path / 'd'), '--fps', '25']) == 1
    told = capsys.readouterr().err
    assert "left out: camera_silent (camera 'camera_1'" in told and 'allowed are' in told
