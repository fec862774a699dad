# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Reading bags: formats, damage, and what is odd about recordings."""

import errno
import shutil
import sqlite3

from bags import messages, MS, ordinary, PACKED, STRING, Tape, write_demonstration
import numpy as np
from pi0_ros.bags import bag as bag_module
from pi0_ros.bags.actions import ActionPath
from pi0_ros.bags.bag import Bag, BagError
from pi0_ros.bags.playback import Moment, Playback
from pi0_ros.bags.routes import parse_remaps, resolve, Wanted
from pi0_ros.configuration.file import read_all_parameters
from pi0_ros.observation.decoding import to_ns
from pi0_ros.sim.demonstration import BagWriter, make, START_NS, trajectory
import pytest
import yaml


def parameters(**values):
    return read_all_parameters(None, **{'policy': 'mock_hold', 'joint_names': ['a', 'b'],
                                        'cameras': ['front'], **values})


def playback(path, remaps=(), chosen='', instruction='', **values):
    bag = Bag(path)
    bag.__enter__()
    found = parameters(**values)
    wanted = Wanted.of(found)
    routes = resolve(bag, wanted, parse_remaps(remaps), chosen, not instruction)
    return Playback(bag, routes, wanted, instruction)


def observations(play, every_ms=100):
    """Return stamp, first state, first pixel and instruction of every moment, or why not."""
    out = []
    for moment in play.moments(every_ms * MS):
        finding = play.streams.builder.check(moment.now_ns)
        if finding:
            out.append(finding.reason)
            continue
        seen = play.streams.builder.build(moment.now_ns, play.instruction)
        out.append(((seen.t_obs_ns - START_NS) // MS, seen.state[0], seen.images['front'][0, 0, 0],
                    seen.instruction))
    return out


@pytest.mark.parametrize('storage, compression', [
    ('sqlite3', 'none'), ('sqlite3', 'file'), ('sqlite3', 'message'), ('mcap', 'none'),
    ('mcap', 'storage')])
def test_every_format_holds_the_same_messages(tmp_path, storage, compression):
    plain = write_demonstration(tmp_path / 'plain', colours=('red',))
    other = write_demonstration(tmp_path / 'other', colours=('red',), storage=storage,
                                compression=compression)
    topics = ['/joint_states', '/wrist/image_raw/compressed', '/instruction']
    one, _, _ = messages(plain, topics)
    two, warnings, damage = messages(other, topics)
    assert len(one) == len(two) > 200 and not warnings and not damage
    for (topic, at, a), (topic2, at2, b) in zip(one, two):
        assert (topic, at) == (topic2, at2)
        if hasattr(a, 'header'):
            assert to_ns(a.header.stamp) == to_ns(b.header.stamp)
        if hasattr(a, 'format'):
            assert (a.data == b.data).all()


def test_files_without_metadata_are_read_in_order_of_time(tmp_path):
    for part in (0, 1):
        tape = Tape(tmp_path / f'part{part}')
        for at_ms in range(0, 100, 10):
            tape.joints(at_ms + 5 * part, [at_ms, 0])
        tape.close()
    split = tmp_path / 'split'
    split.mkdir()
    for part in (0, 1):
        (tmp_path / f'part{part}/part{part}.mcap').rename(split / f'split_{part}.mcap')
    found, warnings, damage = messages(split, ['/joint_states'])
    times = [at for _, at, _ in found]
    assert times == sorted(times) and len(times) == 20 and not damage
    assert 'no metadata.yaml' in warnings[0]
    assert len(messages(split / 'split_0.mcap', ['/joint_states'])[0]) == 10


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_a_truncated_bag_says_how_to_repair_it(tmp_path, storage):
    path = ordinary(tmp_path / 'bag', storage=storage)
    file = next(path.glob('bag.*'))
    file.write_bytes(file.read_bytes()[:file.stat().st_size // 2])
    try:
        found, _, damage = messages(path, ['/joint_states'])
    except BagError as error:
        assert 'cannot be opened' in str(error) and 'reindex' in str(error)
    else:  # sqlite3 may open; then what can be read is
        assert damage and 0 < len(found) < 300


def test_a_wrong_checksum_ends_the_bag_where_it_is(tmp_path):
    path = write_demonstration(tmp_path / 'bag', colours=('red',))
    file = path / 'bag.mcap'
    data = bytearray(file.read_bytes())
    # The second chunk gets a checksum that its data does not have.
    first = data.index(b'\x06', 9 + 30)
    found, _, _ = messages(path, ['/joint_states'])
    size = int.from_bytes(data[first + 1:first + 9], 'little')
    at = first + 9 + size
    while data[at] != 6:
        at += 9 + int.from_bytes(data[at + 1:at + 9], 'little')
    crc = at + 9 + 24
    assert data[crc:crc + 4] == b'\0\0\0\0'  # of writers that compute none
    data[crc:crc + 4] = b'\1\2\3\4'
    file.write_bytes(data)
    some, _, damage = messages(path, ['/joint_states'])
    assert 0 < len(some) < len(found)
    assert 'damaged' in damage and 'checksum' in damage


@pytest.mark.parametrize('make_it, words', [
    (lambda path: None, 'does not exist'),
    (lambda path: path.mkdir(), 'neither metadata.yaml nor a file'),
    (lambda path: path.write_text('x'), 'neither a folder nor one of'),
    (lambda path: Tape(path).close(), 'holds no message'),
    (lambda path: (path.mkdir(), (path / 'metadata.yaml').write_text('nothing: here')),
     'cannot be opened')])
def test_what_is_no_bag(tmp_path, make_it, words):
    make_it(tmp_path / 'bag')
    with pytest.raises(BagError, match=words):
        with Bag(tmp_path / 'bag'):
            pass


def test_types_that_nobody_needs_do_no_harm(tmp_path):
    path = ordinary(tmp_path / 'bag', seconds=0.5)
    with Bag(path) as bag:
        assert bag.topics['/joint_states'].count == 50
    out = BagWriter(tmp_path / 'other')
    out.write('/instruction', STRING, START_NS, data='go')
    connection = out._writer.add_connection(
        '/strange', 'acme_msgs/msg/Unheard', msgdef='int32 x\n', rihs01='RIHS01_' + '0' * 64)
    out._writer.write(connection, START_NS + 1, b'\0\1\0\0\1\0\0\0')
    out.close()
    found, _, _ = messages(tmp_path / 'other', ['/instruction'])
    assert len(found) == 1
    found, warnings, _ = messages(tmp_path / 'other', ['/strange'])
    assert not found and '1 messages' in warnings[0] and '/strange' in warnings[0]


def test_a_topic_that_is_not_there_is_told_with_those_that_are(tmp_path):
    path = ordinary(tmp_path / 'bag', instruction='')
    with pytest.raises(BagError, match=r'instruction.*--instruction TEXT(.|\n)*/joint_states'):
        playback(path)
    with pytest.raises(BagError, match=r"'/arm/states'(.|\n)*/camera_1/image_raw"):
        playback(path, ['joint_states:=/arm/states'], instruction='go')
    with pytest.raises(BagError, match='is sensor_msgs/msg/Image, expected'):
        playback(path, ['joint_states:=/camera_1/image_raw'], instruction='go')
    with pytest.raises(BagError, match=r'slot .*checkpoint camera(.|\n)*camera_2 +wrist +nothing'):
        playback(path, instruction='go', cameras=['front', 'wrist'])
    with pytest.raises(ValueError, match='not INPUT:=TOPIC'):
        parse_remaps(['camera_9:=/x'])
    with pytest.raises(BagError, match='feeds two cameras'):
        playback(path, ['camera_2:=/camera_1/image_raw'], instruction='go',
                 cameras=['front', 'wrist'])


def test_inputs_are_found_where_they_leave_no_doubt(tmp_path):
    tape = Tape(tmp_path / 'bag')
    for at_ms in range(0, 400, 20):
        tape.joints(at_ms, [0, 0], topic='/arm/joint_states')
        tape.image(at_ms, topic='/front/color/image_raw')
    tape.say(0, '', topic='/instruction')
    tape.say(10, 'go', topic='/pi0/active_instruction')
    play = playback(tape.close())
    assert play.routes.joints == '/arm/joint_states'
    assert play.routes.cameras == {'front': '/front/color/image_raw'}
    assert play.routes.instruction == '/pi0/active_instruction'  # all that was said, and more
    assert len(play.routes.notes) == 3
    tape = Tape(tmp_path / 'two')  # the instruction came before the recorder listened
    tape.joints(0, [0, 0])
    tape.image(0)
    tape.say(10, 'go', topic='/pi0/active_instruction')
    assert playback(tape.close()).routes.instruction == '/pi0/active_instruction'


def test_moments_see_what_had_come_and_nothing_else(tmp_path):
    play = playback(ordinary(tmp_path / 'bag', seconds=1.0))
    found = observations(play)
    assert found[0] == (90, np.sin(90 / 500), 2, 'go')  # what came at 100 ms is not yet there
    assert [row[0] for row in found] == [90, 190, 290, 390, 490, 590, 690, 790, 890]


def test_a_stamp_of_zero_means_receipt(tmp_path):
    tape = Tape(tmp_path / 'bag')
    tape.say(0, 'go')
    for at_ms in range(0, 500, 10):
        tape.joints(at_ms, [at_ms, 0], 'zero')
        tape.image(at_ms, stamp_ms='zero')
    play = playback(tape.close())
    assert observations(play)[0][:2] == (90, 90)
    told = play.health.warnings(play.bag.begin_ns, play.bag.end_ns, 10**9)
    assert len(told) == 2 and '50 of 50 have no stamp' in told[0]


def test_late_missing_and_stopping_cameras_are_named(tmp_path):
    tape = Tape(tmp_path / 'bag')
    tape.say(0, 'go')
    for at_ms in range(0, 3000, 10):
        tape.joints(at_ms, [0, 0])
        if 1020 <= at_ms < 1980 and at_ms % 30 == 0:
            tape.image(at_ms)
    play = playback(tape.close())
    found = observations(play)
    assert found[:9] == ['camera_missing'] * 9 and found[-5:] == ['camera_silent'] * 5
    assert len([one for one in found if isinstance(one, tuple)]) >= 10
    told = play.health.warnings(play.bag.begin_ns, play.bag.end_ns, 200 * MS)
    assert any("camera 'front': begin 1.0 s late" in one for one in told)
    assert any("camera 'front': end 1.0 s early" in one for one in told)


def test_two_publishers_of_joint_states_are_noticed(tmp_path):
    tape = Tape(tmp_path / 'bag')
    tape.say(0, 'go')
    for at_ms in range(0, 1000, 10):
        tape.joints(at_ms, [0.1, 0.2])
        tape.joints(at_ms, [0.7, 0.8], stamp_ms=at_ms - 3)
        tape.image(at_ms)
    play = playback(tape.close())
    observations(play)
    told = play.health.warnings(play.bag.begin_ns, play.bag.end_ns, 10**9)
    assert any('two publishers' in one for one in told)
    tape = Tape(tmp_path / 'parts')  # of different joints they may well be two
    tape.say(0, 'go')
    for at_ms in range(0, 1000, 10):
        tape.joints(at_ms, [0.1], names=['a'])
        tape.joints(at_ms, [0.2], names=['b'])
        tape.image(at_ms)
    play = playback(tape.close())
    assert observations(play)[0][:2] == (90, 0.1)
    assert not play.health.warnings(play.bag.begin_ns, play.bag.end_ns, 10**9)


def test_stamps_out_of_order_are_told_and_taken_as_live(tmp_path):
    tape = Tape(tmp_path / 'bag')
    tape.say(0, 'go')
    for at_ms in range(0, 1000, 10):
        tape.joints(at_ms, [at_ms, 0], stamp_ms=at_ms - 15 * (at_ms % 40 == 0))
        tape.image(at_ms)
    play = playback(tape.close())
    found = observations(play, 40)
    assert found[2][0] == 110 and play.path.dropped.total() > 20
    told = play.health.warnings(play.bag.begin_ns, play.bag.end_ns, 10**9)
    assert any('of 100 stamps are older than the one before' in one for one in told)


def test_a_clock_that_jumps_starts_everything_again(tmp_path):
    tape = Tape(tmp_path / 'bag')
    tape.say(0, 'go')
    for at_ms in range(0, 4000, 10):
        sim_ms = 50_000 + at_ms % 2000  # a simulator that is restarted
        tape.clock(at_ms, sim_ms)
        stamp_ms = sim_ms - START_NS // MS
        tape.joints(at_ms, [sim_ms, 0], stamp_ms)
        tape.image(at_ms, stamp_ms=stamp_ms)
    play = playback(tape.close())
    found = [moment.now_ns // MS for moment in play.moments(500 * MS)]
    assert found == [50_500, 51_000, 51_500, 50_500, 51_000, 51_500]
    assert play.health.jumps == 1


def test_stamps_of_another_clock_count_instead_of_receipt(tmp_path):
    tape = Tape(tmp_path / 'bag')
    tape.say(0, 'go')
    for at_ms in range(0, 1000, 10):
        tape.joints(at_ms, [at_ms, 0], at_ms - 3_600_000)
        tape.image(at_ms, stamp_ms=at_ms - 3_600_000)
    play = playback(tape.close())
    found = observations(play)
    assert len([one for one in found if isinstance(one, tuple)]) >= 8
    assert any('-3600.0 s from the time of recording' in one for one in play.bag.warnings)


# ---- what was done ----

def state(at_ms, row, names=('a', 'b')):
    stamp = make('builtin_interfaces/msg/Time', sec=0, nanosec=at_ms * MS)
    header = make('std_msgs/msg/Header', stamp=stamp, frame_id='')
    none = np.zeros(0)
    return make('sensor_msgs/msg/JointState', header=header, name=list(names),
                position=np.array(row, float), velocity=none, effort=none)


def command(at_ms, points, names=('a', 'b')):
    stamp = make('builtin_interfaces/msg/Time', sec=0, nanosec=at_ms * MS)
    header = make('std_msgs/msg/Header', stamp=stamp, frame_id='')
    return make('trajectory_msgs/msg/JointTrajectory', header=header, joint_names=list(names),
                points=trajectory([(ms * MS, row) for ms, row in points]))


def at(path, *times_ms):
    return path.sample(np.array(times_ms) * MS)


def test_a_new_trajectory_replaces_what_an_old_one_said_of_later(tmp_path):
    path = ActionPath(('a', 'b'))
    path.put(command(10, [(10, [.1, 0]), (20, [.2, 0]), (30, [.3, 0])]), 0)
    path.put(command(30, [(10, [.7, 1]), (20, [.8, 2])]), 0)
    path.known_ns = 60 * MS
    np.testing.assert_allclose(at(path, 20, 25, 30, 35, 40, 50, 60)[:, 0],
                               [.1, .15, .2, .45, .7, .8, .8])
    assert np.isnan(at(path, 9)).all() and np.isnan(at(path, 61)).all()
    path.put(command(60, [(0, [0, 0])]), 0)  # a step
    path.known_ns = 70 * MS
    np.testing.assert_allclose(at(path, 59, 60, 65)[:, 0], [.8, 0, 0])
    path.forget(55 * MS)
    np.testing.assert_allclose(at(path, 59, 60)[:, 0], [.8, 0])


def test_joint_states_are_what_was_done_where_nothing_was_commanded():
    path = ActionPath(('a', 'b'), gap_ns=100 * MS)
    path.put(state(0, [5.0], ['a']), 0)
    path.put(state(0, [1.0], ['b']), 0)
    path.put(state(50, [7.0, 3.0]), 0)
    path.put(state(300, [9.0, 9.0]), 0)
    path.known_ns = 400 * MS
    np.testing.assert_allclose(at(path, 0, 25, 50), [[5, 1], [6, 2], [7, 3]])
    assert np.isnan(at(path, 200)).all() and np.isnan(at(path, 350)).all()
    path.put(state(200, [0, 0]), 0)
    path.put(state(210, [0, 0, 0]), 0)
    assert path.dropped == {'2 names but 3 positions': 1, 'stamps that go back': 1}


@pytest.mark.parametrize('kind', ['trajectory', 'array', 'joint_state', 'none'])
def test_whatever_was_recorded_is_compared_with(tmp_path, kind):
    tape = Tape(tmp_path / 'bag')
    tape.say(0, 'go')
    for at_ms in range(0, 1000, 10):
        tape.joints(at_ms, [at_ms / 1000, 0])
        tape.image(at_ms)
        if kind == 'trajectory':
            tape.command(at_ms, [(10, [at_ms / 1000 + 0.51, 0])])
        elif kind == 'array':
            tape.array(at_ms, [at_ms / 1000 + 0.5, 0])
        elif kind == 'joint_state':
            tape.joints(at_ms, [at_ms / 1000 + 0.5, 0], topic='/leader/joint_states')
    play = playback(tape.close(), chosen={'joint_state': '/leader/joint_states'}.get(kind, ''))
    for moment in play.moments(800 * MS):
        found = play.path.sample(np.array([START_NS + 400 * MS, START_NS + 500 * MS]))
    np.testing.assert_allclose(found[:, 0], np.array([0.4, 0.5]) + (kind != 'none') * 0.5,
                               atol=1e-9)


def test_only_images_that_are_used_are_decoded(tmp_path, monkeypatch):
    from pi0_ros.observation import decoding
    path, decoded = write_demonstration(tmp_path / 'bag', colours=('red',)), []
    monkeypatch.setattr(decoding.cv2, 'imdecode', lambda data, how: (
        decoded.append(len(data)), np.zeros((480, 640, 3), np.uint8))[1])
    play = playback(path, joint_names=['gripper', 'elbow_flex'], cameras=['wrist'])
    moments = 0
    for moment in play.moments(500 * MS):
        assert isinstance(moment, Moment)
        moments += 1
        play.streams.builder.build(moment.now_ns, 'go')
    with Bag(path) as bag:
        assert bag.topics['/wrist/image_raw/compressed'].count > 4 * moments
        assert bag.topics['/wrist/image_raw/compressed'].kind == PACKED
    assert len(decoded) == moments > 2


def test_a_flawless_bag_of_a_simulator_has_no_warnings(tmp_path):
    tape = Tape(tmp_path / 'bag')
    tape.say(0, 'go')
    for at_ms in range(0, 4000, 10):
        stamp_ms = 50_000 + at_ms - START_NS // MS
        tape.clock(at_ms, 50_000 + at_ms)
        tape.joints(at_ms, [0.1, 0.2], stamp_ms)
        tape.image(at_ms, stamp_ms=stamp_ms)
    play = playback(tape.close())
    assert len(observations(play)) == 39
    assert not play.health.warnings(play.begin_ns, play.now_ns, 10**9)


def test_two_drivers_with_right_stamps_are_noticed(tmp_path):
    tape = Tape(tmp_path / 'bag')
    tape.say(0, 'go')
    for at_ms in range(0, 2000, 10):
        tape.joints(at_ms, [0.7, 0.8])
        tape.joints(at_ms + 5, [0.0, 0.0])  # a joint_state_publisher that nobody stopped
        tape.image(at_ms)
    play = playback(tape.close())
    observations(play)
    told = play.health.warnings(play.begin_ns, play.now_ns, 10**9)
    assert any('contradict each other' in one for one in told)


def test_a_clock_that_was_set_does_not_make_a_day_of_moments(tmp_path):
    tape = Tape(tmp_path / 'bag')
    tape.say(0, 'go')
    for at_ms in (*range(0, 1000, 10), *range(86_400_000, 86_401_000, 10)):
        tape.joints(at_ms, [0, 0])
        tape.image(at_ms)
    found = observations(playback(tape.close()))
    assert len(found) < 25 and len([one for one in found if isinstance(one, tuple)]) > 15


def test_a_clock_topic_without_messages_is_none(tmp_path):
    tape = Tape(tmp_path / 'bag')
    tape.say(0, 'go')
    for at_ms in range(0, 300, 10):
        tape.joints(at_ms, [0, 0])
        tape.image(at_ms)
    writer, store = tape._out._writer, bag_module._store
    writer.add_connection('/clock', 'rosgraph_msgs/msg/Clock', typestore=store)
    play = playback(tape.close())
    assert '/clock' in play.bag.topics and not play.routes.clock


def test_what_nobody_commands_is_what_was_measured(tmp_path):
    tape = Tape(tmp_path / 'bag')
    tape.say(0, 'go')
    for at_ms in range(0, 1000, 10):
        tape.joints(at_ms, [0.1, 0.4])
        tape.command(at_ms, [(10, [0.3])], names=['a'])
        tape.image(at_ms)
    play = playback(tape.close())
    observations(play)
    np.testing.assert_allclose(play.path.sample(np.array([START_NS + 900 * MS])), [[0.3, 0.4]])
    assert any('nobody commands b' in one for one in play.dropped())


def test_commands_that_come_seldom_are_steps():
    path = ActionPath(('a', 'b'))
    path.put(state(0, [0.0, 0.0]), 0)
    path.put(state(500, [1.0, 0.0]), 0)
    path.put(state(520, [2.0, 0.0]), 0)
    path.known_ns = 600 * MS
    np.testing.assert_allclose(at(path, 0, 250, 499, 500, 510, 520, 600)[:, 0],
                               [0, 0, 0, 1, 1.5, 2, 2])


def test_a_joint_that_turns_goes_the_short_way():
    path = ActionPath(('a',), gap_ns=100 * MS)
    path.put(state(0, [3.1], ['a']), 0)
    path.put(state(10, [-3.1], ['a']), 0)
    path.known_ns = 10 * MS
    assert at(path, 5)[0, 0] == pytest.approx(3.1 + (2 * np.pi - 6.2) / 2)
    assert at(path, 10)[0, 0] == -3.1


def test_splits_that_cannot_be_opened_are_named(tmp_path):
    folder = tmp_path / 'killed'
    folder.mkdir()
    path = ordinary(tmp_path / 'bag', seconds=1.0)
    (path / 'bag.mcap').rename(folder / 'killed_0.mcap')
    (folder / 'killed_1.mcap').write_bytes(b'')
    found, warnings, _ = messages(folder, ['/joint_states'])
    assert len(found) == 100 and any('killed_1.mcap' in one for one in warnings)


@pytest.mark.parametrize('said, chosen', [
    (('a', 'b'), '/pi0/active_instruction'), (('a', 'b', 'c'), '/instruction')])
def test_the_node_repeats_instructions(tmp_path, said, chosen):
    tape = Tape(tmp_path / 'bag')
    for at_ms in range(0, 300, 10):
        tape.joints(at_ms, [0, 0])
        tape.image(at_ms)
    for text in said:
        tape.say(10, text)
    for text in ('a', 'b', ''):
        tape.say(20, text, topic='/pi0/active_instruction')
    assert playback(tape.close()).routes.instruction == chosen


# ---- bags as they are: shared/world/bags ----

def count(path, topic='/joint_states'):
    found, warnings, _ = messages(path, [topic])
    return len(found), warnings


@pytest.mark.parametrize('distribution, version', [('humble', 5), ('jazzy', 9), ('lyrical', 11)])
@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_a_bag_of_another_distribution_is_read(tmp_path, distribution, version, storage):
    path = ordinary(tmp_path / 'bag', storage=storage)
    before = count(path)
    told = path / 'metadata.yaml'
    content = yaml.safe_load(told.read_text())
    content['rosbag2_bagfile_information'] |= {'ros_distro': distribution, 'version': version}
    told.write_text(yaml.safe_dump(content))
    assert count(path) == before and before[0] == 300


def test_metadata_of_another_qos_makes_no_message_disappear(tmp_path):
    path = ordinary(tmp_path / 'bag')
    before, _ = count(path)
    told = path / 'metadata.yaml'
    content = yaml.safe_load(told.read_text())
    for one in content['rosbag2_bagfile_information']['topics_with_message_count']:
        one['topic_metadata']['offered_qos_profiles'] = [
            {'history': 'keep_last', 'depth': 7, 'reliability': 'best_effort',
             'durability': 'volatile', 'deadline': {'sec': 1, 'nsec': 0},
             'lifespan': {'sec': 1, 'nsec': 0}, 'liveliness': 'automatic',
             'liveliness_lease_duration': {'sec': 1, 'nsec': 0},
             'avoid_ros_namespace_conventions': False}]
    told.write_text(yaml.safe_dump(content))
    assert count(path) == (before, []) and before == 300
    content['rosbag2_bagfile_information']['topics_with_message_count'][-1]['message_count'] = 999
    name = content['rosbag2_bagfile_information']['topics_with_message_count'][-1][
        'topic_metadata']['name']
    told.write_text(yaml.safe_dump(content))
    _, warnings = count(path)
    assert f"metadata.yaml counts 999 messages on '{name}', the files have" in warnings[0]


def test_a_split_bag_is_read_without_the_file_that_is_missing(tmp_path):
    path = ordinary(tmp_path / 'bag')
    told = path / 'metadata.yaml'
    content = yaml.safe_load(told.read_text())
    content['rosbag2_bagfile_information']['relative_file_paths'].append('bag_1.mcap')
    told.write_text(yaml.safe_dump(content))
    found, warnings = count(path)
    assert found == 300 and 'lacks bag_1.mcap, which its metadata.yaml names' in warnings[0]


def test_the_log_of_a_recorder_that_was_killed_is_read_too(tmp_path):
    path = ordinary(tmp_path / 'bag', storage='sqlite3')
    file, killed = next(path.glob('*.db3')), tmp_path / 'killed'
    killed.mkdir()
    database = sqlite3.connect(file)
    database.execute('PRAGMA journal_mode=WAL')
    database.execute('PRAGMA wal_autocheckpoint=0')
    database.execute('INSERT INTO messages SELECT id + 10000, topic_id, timestamp + 3000000000, '
                     'data FROM messages')
    database.commit()
    for one in (file, file.with_name(f'{file.name}-wal')):
        shutil.copyfile(one, killed / one.name)
    database.close()
    found, warnings = count(killed)
    assert found == 600 and any('write-ahead log' in text for text in warnings)
    assert sorted(one.suffix for one in killed.iterdir()) == ['.db3', '.db3-wal']  # as they were


@pytest.mark.parametrize('log', ['WAL', 'DELETE'])
def test_a_bag_that_is_written_to_meanwhile_is_refused(tmp_path, log):
    recorded = ordinary(tmp_path / 'bag', storage='sqlite3')
    (recorded / 'metadata.yaml').unlink()
    file, = recorded.glob('*.db3')
    database = sqlite3.connect(file, isolation_level=None)
    database.execute(f'PRAGMA journal_mode={log}')
    database.execute('INSERT INTO messages (topic_id, timestamp, data) SELECT topic_id, '
                     'timestamp + 10000000000, data FROM messages')
    with Bag(recorded) as bag:
        assert len(list(bag.messages(['/joint_states']))) == 600
        found = bag.messages(['/joint_states'])
        next(found)
        database.execute('INSERT INTO messages (topic_id, timestamp, data) SELECT topic_id, '
                         'timestamp + 20000000000, data FROM messages LIMIT 100')
        with pytest.raises(BagError, match="bag' was written to while it was read: it is being"):
            list(found)
    database.close()


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_a_bag_that_is_removed_meanwhile_is_read_to_its_end(tmp_path, storage):
    recorded = ordinary(tmp_path / 'bag', storage=storage)
    with Bag(recorded) as bag:
        found = bag.messages(['/joint_states'])
        next(found)
        shutil.rmtree(recorded)
        assert len(list(found)) == 299 and not bag.damage


def test_a_disk_that_is_full_says_nothing_of_the_bag(tmp_path, monkeypatch):
    recorded = ordinary(tmp_path / 'bag')

    def full(self, path):
        raise OSError(errno.ENOSPC, 'No space left on device', str(path))

    monkeypatch.setattr(Bag, '_whole', full)
    bag, closed = Bag(recorded), []
    bag._stack.callback(closed.append, 1)
    with pytest.raises(OSError, match='No space left'), bag:
        pass
    assert closed  # a copy that was begun is not left behind


def test_a_file_that_a_broken_disk_does_not_give_fails_alone(tmp_path, monkeypatch):
    recorded = ordinary(tmp_path / 'bag')

    def broken(self, path):
        raise OSError(errno.EIO, 'Input/output error', str(path))

    monkeypatch.setattr(Bag, '_whole', broken)
    with pytest.raises(BagError, match='cannot be opened: .*Input/output error'), Bag(recorded):
        pass


def test_commands_under_their_controllers_name_are_found_and_told(tmp_path):
    tape = Tape(tmp_path / 'bag')
    tape.say(0, 'go')
    for at_ms in range(0, 1000, 20):
        tape.joints(at_ms, [0.0, 0.0])
        tape.image(at_ms)
        for name in ('arm_controller/joint_trajectory', 'pi0/action_chunk'):
            tape.command(at_ms, [(0, [0.5, 0.0])], topic=f'/{name}')
    with Bag(tape.close()) as bag:
        routes = resolve(bag, Wanted.of(parameters()), {})
    assert routes.actions == '/arm_controller/joint_trajectory'
    assert 'actions are /arm_controller/joint_trajectory' in ' '.join(routes.notes)


def test_the_first_trajectory_begins_where_the_joints_were_measured():
    path = ActionPath(('a', 'b'))
    path.measured = np.array([0.2, 0.1])
    path.put(make('trajectory_msgs/msg/JointTrajectory',
                  header=make('std_msgs/msg/Header', stamp=make(
                      'builtin_interfaces/msg/Time', sec=10, nanosec=0), frame_id=''),
                  joint_names=['a', 'b'], points=trajectory([(2000 * MS, [2.2, 0.1])])), 0)
    path.known_ns = 20 * 10**9
    np.testing.assert_allclose(path.sample(10**9 * np.array([10, 11, 12, 15])),
                               [[0.2, 0.1], [1.2, 0.1], [2.2, 0.1], [2.2, 0.1]], atol=1e-6)


def test_a_git_lfs_pointer_is_called_that(tmp_path):
    path = tmp_path / 'bag.mcap'
    path.write_text('version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n')
    with pytest.raises(BagError, match='is a Git LFS pointer, the bag itself is not here'):
        with Bag(path):
            pass


def test_messages_that_were_compressed_one_by_one_need_no_metadata(tmp_path):
    path = write_demonstration(tmp_path / 'bag', colours=('red',), storage='sqlite3',
                               compression='message')
    before, _ = count(path)
    (path / 'metadata.yaml').unlink()
    found, warnings = count(path)
    assert found == before > 200 and not [text for text in warnings if 'cannot be read' in text]


def plain_mcap(path, profile, chunks, order=lambda rows: rows, json=False):
    """Write the messages of an ordinary bag as another tool would."""
    from mcap.writer import Writer
    source = ordinary(path.with_name('ordinary'))
    with Bag(source) as bag:
        reader, = bag._readers
        rows = [(one.topic, one.msgtype, at, bytes(raw)) for one, at, raw in reader.messages()]
    path.mkdir()
    with (path / 'bag.mcap').open('wb') as file:
        out, channels = Writer(file, use_chunking=chunks), {}
        out.start(profile=profile)
        for topic, kind in sorted({(topic, kind) for topic, kind, _, _ in rows}):
            schema = out.register_schema(kind, 'ros2msg', b'')
            channels[topic] = out.register_channel(topic, 'cdr', schema)
        if json:
            odd = out.register_channel('/log', 'json', 0)
            out.add_message(odd, rows[0][2], b'{}', rows[0][2])
        for topic, _, at, raw in order(rows):
            out.add_message(channels[topic], at, raw, at)
        out.finish()
    return path


def test_an_mcap_file_without_profile_or_with_other_encodings_is_read(tmp_path):
    found, warnings = count(plain_mcap(tmp_path / 'bag', '', True, json=True))
    assert found == 300 and any('left out: /log' in text for text in warnings)


def test_an_mcap_file_without_chunks_is_read_in_the_order_of_its_times(tmp_path):
    def shaken(rows):  # neighbours change places
        return [rows[i ^ 1] if i ^ 1 < len(rows) else rows[i] for i in range(len(rows))]

    path = plain_mcap(tmp_path / 'bag', 'ros2', False, shaken)
    found, _, damage = messages(path, ['/joint_states', '/camera_1/image_raw'])
    times = [at for _, at, _ in found]
    assert len(found) == 375 and times == sorted(times) and not damage
