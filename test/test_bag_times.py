# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Times in bags: clocks that were set, recorders that stalled, cameras with their own clock."""

from types import SimpleNamespace

from bags import messages, MS, ordinary, Tape
import numpy as np
from pi0_ros.bags.actions import ActionPath
from pi0_ros.bags.file_order import BACK_NS, Connection, in_order, one_after_another
from pi0_ros.bags.playback import counts_table
from pi0_ros.verbs import export
import pyarrow.parquet
import pytest
from test_bag import observations, playback
import yaml

TURNS = np.array([0.5, 0.0])  # rad/s of joint a


def swinging(path, received, storage='mcap', camera_stamp=lambda at_ms: at_ms):
    """Write joint a at a constant pace for 3 s, with times of receipt of their own."""
    tape = Tape(path, storage)
    tape.say(received(0), 'go')
    for at_ms in range(0, 3000, 10):
        tape.joints(received(at_ms), TURNS * at_ms / 1e3, at_ms)
        if at_ms % 40 == 0:
            tape.image(received(at_ms), at_ms // 40, camera_stamp(at_ms))
    return tape.close()


def states(folder):
    """Return the first state of every frame of each episode of an export."""
    out = {}
    for path in sorted(folder.glob('data/*/*.parquet')):
        for row in pyarrow.parquet.read_table(path).to_pylist():
            out.setdefault(row['episode_index'], []).append(row['observation.state'][0])
    return list(out.values())


def exported(bag, folder, *more):
    return export.main([str(bag), '--dataset', str(folder), '--fps', '25', *more])


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_a_recorders_clock_that_was_set_back_ends_an_episode(tmp_path, storage, capsys):
    """Time of receipt and stamps go back by half a second: two times, and none is mixed."""
    def set_back(at_ms):
        return at_ms if at_ms < 1500 else at_ms - 500

    tape = Tape(tmp_path / 'bag', storage)
    tape.say(0, 'go')
    for at_ms in range(0, 3000, 10):
        tape.joints(set_back(at_ms), TURNS * at_ms / 1e3)
        if at_ms % 40 == 0:
            tape.image(set_back(at_ms))
    assert exported(tape.close(), tmp_path / 'out') == 0
    found = states(tmp_path / 'out')
    assert len(found) == 2
    for episode in found:  # at the same pace, without a frame of the other time
        np.testing.assert_allclose(np.diff(episode), 0.5 / 25, atol=0.006)
    assert found[0][-1] < 0.76 and found[1][0] > 0.74
    assert "the recorder's clock was set back by 0.49 s" in (told := capsys.readouterr().out)
    assert 'two publishers' not in told


def test_a_clock_that_was_set_back_between_two_files(tmp_path):
    first, second = Tape(tmp_path / 'bag'), Tape(tmp_path / 'other')
    for tape, begin_ms, shift_ms in ((first, 0, 0), (second, 1500, -300)):
        tape.say(begin_ms + shift_ms, 'go')
        for at_ms in range(begin_ms, begin_ms + 1500, 10):
            tape.joints(at_ms + shift_ms, TURNS * at_ms / 1e3)
            if at_ms % 40 == 0:
                tape.image(at_ms + shift_ms)
    first, second = first.close(), second.close()
    next(second.glob('*.mcap')).rename(first / 'second.mcap')
    content = yaml.safe_load((first / 'metadata.yaml').read_text())
    content['rosbag2_bagfile_information']['relative_file_paths'].append('second.mcap')
    (first / 'metadata.yaml').write_text(yaml.safe_dump(content))
    assert exported(first, tmp_path / 'out') == 0
    found = states(tmp_path / 'out')
    assert len(found) == 2 and found[0][-1] < 0.76 and found[1][0] > 0.74


def test_topics_that_were_written_one_after_another_are_one_time(tmp_path):
    """As converters write: nothing was set back."""
    tape = Tape(tmp_path / 'bag')
    for at_ms in range(0, 2000, 10):
        tape.joints(at_ms, TURNS * at_ms / 1e3)
    for at_ms in range(0, 2000, 40):
        tape.image(at_ms)
    tape.say(0, 'go')
    play = playback(tape.close())
    assert all(isinstance(one, tuple) for one in observations(play)[1:])
    assert not play.bag.warnings and not play.health.jumps


def test_a_recorder_that_stalled_goes_by_stamps_where_asked(tmp_path, capsys):
    """It writes what came in a second all at once, at the end of it."""
    bag = swinging(tmp_path / 'bag', lambda at_ms: 2000 if 1000 <= at_ms < 2000 else at_ms)
    assert exported(bag, tmp_path / 'out', '--time', 'stamps') == 0
    (episode,) = states(tmp_path / 'out')
    assert len(episode) >= 70
    np.testing.assert_allclose(np.diff(episode), 0.5 / 25, atol=0.006)
    capsys.readouterr()
    assert exported(bag, tmp_path / 'other', '--min-seconds', '0.5') == 0  # as it was received
    assert len(states(tmp_path / 'other')) == 2


def test_stamps_of_another_clock_are_followed_too(tmp_path):
    """Everything is stamped an hour late: what is between the two clocks is taken off."""
    tape = Tape(tmp_path / 'bag')
    for at_ms in range(0, 3000, 10):
        received = 2000 if 1000 <= at_ms < 2000 else at_ms
        tape.joints(received, TURNS * at_ms / 1e3, at_ms + 3_600_000)
        if at_ms % 40 == 0:
            tape.image(received, 0, at_ms + 3_600_000)
    tape.say(0, 'go')
    assert exported(tape.close(), tmp_path / 'out', '--time', 'stamps') == 0
    (episode,) = states(tmp_path / 'out')
    np.testing.assert_allclose(np.diff(episode), 0.5 / 25, atol=0.006)


def test_a_camera_with_a_clock_of_its_own_is_told_and_its_receipt_taken_where_asked(
        tmp_path, capsys):
    bag = swinging(tmp_path / 'bag', lambda at_ms: at_ms, 'mcap',
                   lambda at_ms: at_ms - 1_000_000_000)
    assert exported(bag, tmp_path / 'out') == 1
    told = capsys.readouterr().err
    assert 'stamps are -1000000.0 s from the time of receipt, all of them' in told
    assert "with parameter 'ignore_stamps' the time of receipt counts" in told
    assert exported(bag, tmp_path / 'out', '--ignore-stamps', 'camera_1') == 0
    assert len(states(tmp_path / 'out')[0]) >= 70
    play = playback(bag, ignore_stamps=['camera_1'])
    assert all(isinstance(one, tuple) for one in observations(play)[1:])


def test_every_message_is_accounted_for(tmp_path, capsys):
    tape = Tape(tmp_path / 'bag')
    tape.say(0, 'go')
    tape.say(0, 'hello', topic='/chatter')
    for at_ms in range(0, 1500, 10):
        tape.joints(at_ms, [0, 0] if at_ms != 700 else [0, 0, 0])
        tape.image(at_ms)
        if at_ms % 20 == 0:
            tape.command(at_ms, [(20, [0, 0])] if at_ms != 600 else [])
    play = playback(tape.close())
    list(play.moments(100 * MS))
    counts = {one.topic: one for one in play.counts()}
    assert (counts['/joint_states'].read, counts['/joint_states'].used) == (150, 149)
    assert counts['/joint_states'].lost == {'joint state has 2 names but 3 positions': 1}
    assert (counts['/joint_trajectory'].used, counts['/joint_trajectory'].lost) == (
        74, {'a trajectory without points': 1})
    assert not counts['/chatter'].asked
    told = counts_table(play.counts())
    assert 'not asked for: /chatter (1)' in told and ' 150     150     149  1 joint' in told
    play.bag.topics['/camera_1/image_raw'] = type(play.bag.topics['/chatter'])('image', 170)
    assert '20 not found' in counts_table(play.counts())  # fewer than the file says it has
    assert exported(play.bag.path, tmp_path / 'out') == 0
    out = capsys.readouterr()
    assert f'messages of {play.bag.path}' in out.out and 'TqdmWarning' not in out.err


def test_a_trajectory_without_positions_is_one_message(tmp_path):
    tape = Tape(tmp_path / 'bag')
    tape.command(0, [(20, []), (40, [])])
    path = ActionPath(('a', 'b'))
    for _, at_ns, message in messages(tape.close(), ['/joint_trajectory'])[0]:
        path.put(message, at_ns)
    assert path.dropped == {'a trajectory without positions': 1}


def test_moments_of_an_evaluation_are_in_no_phase_with_the_sensors(tmp_path):
    """A camera every 40 ms, moments every 400: its images are 0 to 40 ms old, not always 0."""
    def ages(**more):
        play, out = playback(ordinary(tmp_path / f'bag{len(more)}', seconds=12.0)), []
        for moment in play.moments(400 * MS, **more):
            if play.streams.builder.check(moment.now_ns) is None:
                out.append((moment.now_ns - play.streams.cameras['front'].get().stamp_ns) / MS)
        return np.array(out)

    assert np.ptp(ages()) == 0
    spread = ages(spread_ns=100 * MS)
    assert len(spread) >= 28 and spread.min() < 6 and spread.max() > 34
    assert 15 < spread.mean() < 25


def topics(name):
    return Connection(ord(name), name, '', 0)


@pytest.mark.parametrize('given, wanted', [
    # After it was set back, gaps and topics that come seldom lose nothing.
    ('a99.8 a99.9 a100 a90 a90.05 a90.2 a90.25 a95 a99 a100.05 a100.2',
     'a99.8 a99.9 a100 a90 a90.05 a90.2 a90.25 a95 a99 a100.05 a100.2'),
    ('i50 i95 i92 i93 i94 i96', 'i50 i95 i92 i93 i94 i96'),
    # What another topic had from before is left out, and only that.
    ('a99.9 b99.9 a100 a90 b100 a90.1 b90.1 a90.2 b90.2',
     'a99.9 b99.9 a100 a90 a90.1 b90.1 a90.2 b90.2'),
    # A little out of order is no clock.
    ('a1.004 b1.0 a1.01 b1.006', 'b1.0 a1.004 b1.006 a1.01')])
def test_what_was_written_is_ordered_clock_by_clock(given, wanted):
    def messages():
        for word in given.split():
            yield topics(word[0]), round(float(word[1:]) * 1e9), word

    assert ' '.join(word for _, _, word in in_order(messages(), BACK_NS, True)) == wanted


def test_a_file_that_is_out_of_order_by_itself_is_sorted_and_loses_nothing():
    words = 'a1.0 a1.5 a1.2 a1.4 a1.6 a1.7'.split()
    found = in_order(((topics('a'), round(float(word[1:]) * 1e9), word) for word in words),
                     3 * 10**9, False)
    assert [word for _, _, word in found] == sorted(words)


@pytest.mark.parametrize('back_s, told, follow', [
    (0.05, True, False), (1, True, True), (40, True, True), (59, True, True),
    (1, False, True), (40, False, False)])
def test_files_that_metadata_puts_one_after_another_are_read_so(back_s, told, follow):
    def reader(begin_s, topic='a'):
        return SimpleNamespace(start_time=round(begin_s * 1e9),
                               end_time=round((begin_s + 60) * 1e9), connections=[topics(topic)])

    assert one_after_another([reader(0), reader(60 - back_s)], told) == follow
    assert not one_after_another([reader(0), reader(60 - back_s, 'b')], told)


def test_joint_states_whose_stamps_do_not_count_shift_no_clock(tmp_path):
    """Stamps since boot, the camera's are right: as live, with ignore_stamps."""
    tape = Tape(tmp_path / 'bag')
    tape.say(0, 'go')
    for at_ms in range(0, 2000, 10):
        tape.joints(at_ms, TURNS * at_ms / 1e3, at_ms - 995_000)
        if at_ms % 40 == 0:
            tape.image(at_ms)
    bag = tape.close()
    play = playback(bag, ignore_stamps=['joint_states'])
    assert all(isinstance(one, tuple) for one in observations(play)[1:])
    assert exported(bag, tmp_path / 'out', '--ignore-stamps', 'joint_states', '--time',
                    'stamps') == 0
