# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Buffers and the rules for taking an observation."""

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
from pi0_ros.observation.buffers import Arrivals, JointBuffer, LatestBuffer
from pi0_ros.observation.observation import Freshness, NotReady, ObservationBuilder
from pi0_ros.observation.streams import Streams
import pytest
from support import MS

NAMES = ('pan', 'lift', 'grip')


def builder(decode=lambda value: value, cameras=('top', 'wrist')):
    return ObservationBuilder(JointBuffer(NAMES), {name: LatestBuffer() for name in cameras},
                              decode, Freshness(100 * MS, 200 * MS, 150 * MS))


def fill(it, now_ns):
    it.joints.put(list(NAMES), [1.0, 2.0, 3.0], now_ns, now_ns)
    for name, buffer in it.cameras.items():
        buffer.put(name, now_ns, now_ns)


def test_newest_value_wins_and_zero_stamp_means_receive_time():
    buffer = LatestBuffer()
    assert buffer.get() is None
    buffer.put('old', 5, 6)
    buffer.put('new', 0, 9)
    assert (buffer.get().value, buffer.get().stamp_ns, buffer.arrivals.count) == ('new', 9, 2)


@given(st.permutations(NAMES), st.lists(st.text(min_size=5), max_size=3, unique=True))
def test_joints_are_matched_by_name(order, strangers):
    values = dict(zip(NAMES, (1.0, 2.0, 3.0)))
    names = [*strangers, *order]
    joints = JointBuffer(NAMES)
    joints.put(names, [values.get(name, 99.0) for name in names], 7, 8)
    assert joints.get().value.tolist() == [1.0, 2.0, 3.0] and joints.get().stamp_ns == 7


def test_partial_publishers_are_merged_and_the_oldest_joint_counts():
    joints = JointBuffer(NAMES)
    joints.put(['pan', 'lift'], [1.0, 2.0], 10, 10)
    assert joints.get() is None and joints.missing() == ['grip']
    joints.put(['grip'], [3.0], 20, 20)
    assert joints.get().value.tolist() == [1.0, 2.0, 3.0] and joints.get().stamp_ns == 10


@pytest.mark.parametrize('names, positions, words', [
    (['pan', 'lift', 'grip'], [1.0, 2.0], '3 names but 2 positions'),
    (['pan', 'pan', 'grip'], [1.0, 2.0, 3.0], "'pan' occurs twice"),
    (['pan', 'lift', 'grip'], [1.0, float('nan'), 3.0], "'lift' has a position that is not fin"),
    (['pan', 'lift', 'grip'], [1.0, 2.0, float('inf')], "'grip' has a position that is not fin")])
def test_bad_joint_states_are_dropped_whole(names, positions, words):
    joints = JointBuffer(NAMES)
    joints.put(list(NAMES), [4.0, 5.0, 6.0], 1, 1)
    with pytest.raises(ValueError, match=words):
        joints.put(names, positions, 2, 2)
    assert joints.get().value.tolist() == [4.0, 5.0, 6.0] and joints.get().stamp_ns == 1


def test_a_joint_state_of_efforts_alone_is_skipped_and_one_without_a_prefix_gets_it():
    from types import SimpleNamespace as Message

    from pi0_ros.observation.streams import Streams
    streams = Streams(('left/pan', 'left/lift'), ('top',), Freshness(100, 100, 100))
    header = Message(stamp=Message(sec=0, nanosec=10))
    efforts = Message(header=header, name=['pan'], position=[], effort=[1.0])
    streams.put_joints(efforts, 10, 'left/')
    assert streams.joint_error is None and streams.joints.missing() == ['left/pan', 'left/lift']
    nan = float('nan')
    streams.put_joints(Message(header=header, name=['lift', 'pan'], position=[2.0, 1.0],
                               velocity=[nan, nan], effort=[nan, nan]), 11, 'left/')
    assert streams.joints.get().value.tolist() == [1.0, 2.0]


def test_a_gripper_that_is_told_seldom_neither_dates_the_arm_nor_stops_it():
    joints = JointBuffer(NAMES, {'grip': 100})
    joints.put(['grip'], [3.0], 1000, 1000)
    joints.put(['pan', 'lift'], [1.0, 2.0], 1080, 1080)
    assert joints.get().stamp_ns == 1080 and not joints.late(1080)
    joints.put(['pan', 'lift'], [1.0, 2.0], 1150, 1150)
    assert joints.get().stamp_ns == 1100 and joints.late(1120) == ['grip']
    alone = JointBuffer(('grip',), {'grip': 100})
    alone.put(['grip'], [3.0], 1000, 1000)
    assert alone.get().stamp_ns == 1000, 'no later than it was'


def test_observation_carries_stamps_and_instruction():
    it = builder()
    fill(it, 1000 * MS)
    seen = it.build(1050 * MS, 'go')
    assert (seen.t_obs_ns, seen.instruction) == (1000 * MS, 'go')
    assert dict(seen.images) == {'top': 'top', 'wrist': 'wrist'}
    assert dict(seen.image_stamps_ns) == {'top': 1000 * MS, 'wrist': 1000 * MS}


def test_every_problem_names_its_input():
    it = builder()
    with pytest.raises(NotReady, match='no joint state yet for pan, lift, grip'):
        it.build(1, 'go')
    it.joints.put(list(NAMES), [1.0, 2.0, 3.0], 1, 1)
    with pytest.raises(NotReady, match="camera 'top' has not published"):
        it.build(1, 'go')
    fill(it, 1000 * MS)
    it.cameras['top'].put('x', 1250 * MS, 1250 * MS)
    it.joints.put(list(NAMES), [1.0, 2.0, 3.0], 1250 * MS, 1250 * MS)
    with pytest.raises(NotReady, match="camera 'wrist' is silent.* 0.25 s old, allowed are 0.20"):
        it.build(1250 * MS, 'go')
    fill(it, 2000 * MS)
    with pytest.raises(NotReady, match='of pan, lift, grip are 0.12 s old, allowed are 0.10 s'):
        it.build(2120 * MS, 'go')
    it.joints.put(list(NAMES), [1.0, 2.0, 3.0], 2180 * MS, 2180 * MS)
    with pytest.raises(NotReady, match="camera 'top' is silent.* 0.18 s old and 0.18 s behind"):
        it.build(2180 * MS, 'go')
    it.cameras['top'].put('x', 2000 * MS, 2180 * MS)
    with pytest.raises(NotReady, match="camera 'top' and the joint states are 0.18 s apart"):
        it.build(2180 * MS, 'go')


def test_unreadable_image_is_named():
    def decode(value):
        raise ValueError('image is truncated')

    it = builder(decode)
    fill(it, 5 * MS)
    with pytest.raises(NotReady, match="camera 'top': image is truncated"):
        it.build(6 * MS, 'go')


def test_no_camera_is_an_error():
    with pytest.raises(ValueError, match='at least one camera'):
        builder(cameras=())


def test_stamps_in_the_future_do_not_hide_silence():
    it = builder()
    ahead = 90 * MS
    it.joints.put(list(NAMES), [1.0, 2.0, 3.0], 1000 * MS + ahead, 1000 * MS)
    for buffer in it.cameras.values():
        buffer.put('x', 1000 * MS + ahead, 1000 * MS)
    assert it.check(1050 * MS) is None
    assert 'joint states of pan, lift, grip are 0.15 s old' in str(it.check(1150 * MS))
    it.joints.put(list(NAMES), [1.0, 2.0, 3.0], 1250 * MS + ahead, 1250 * MS)
    assert "camera 'top' is silent" in str(it.check(1250 * MS))


def test_stamps_too_far_in_the_future_are_named():
    it = builder()
    fill(it, 5000 * MS)
    it.joints.put(list(NAMES), [1.0, 2.0, 3.0], 9000 * MS, 5000 * MS)
    assert str(it.check(5000 * MS)) == (
        'joint states of pan, lift, grip are stamped 4.00 s in the future: check the clocks')


def test_a_joint_that_is_not_published_any_more_is_named():
    it = builder()
    fill(it, 1000 * MS)
    it.joints.put(['pan', 'lift'], [1.0, 2.0], 1150 * MS, 1150 * MS)
    assert str(it.check_joints(1150 * MS)).startswith('joint states of grip are 0.15 s old')


def test_arrivals_know_rate_and_losses():
    arrivals = Arrivals()
    assert arrivals.rate_hz(0) == 0 and arrivals.lost() == 0
    for frame in range(1, 61):
        if frame not in (20, 40, 41):
            arrivals.add(frame * 33 * MS, frame * 33 * MS + 5 * MS)
    assert arrivals.count == 57 and arrivals.lost() == 3
    assert arrivals.rate_hz(2000 * MS) == pytest.approx(30.3 * 56 / 59, rel=0.01)
    assert arrivals.rate_hz(10_000 * MS) == 0  # silent for long
    without = Arrivals()
    for frame in range(1, 10):
        without.add(0, frame * 100 * MS)  # no stamps: receive time counts
    assert without.rate_hz(1000 * MS) == pytest.approx(10) and without.lost() == 0


def test_stamps_ahead_of_one_of_two_publishers_name_its_joints():
    joints, camera = JointBuffer(('a', 'b')), LatestBuffer()
    builder = ObservationBuilder(joints, {'c': camera}, lambda image: image,
                                 Freshness(10**8, 10**8, 10**8))
    now = 10**12
    camera.put(0, now, now)
    joints.put(['a'], np.zeros(1), now, now)
    joints.put(['b'], np.zeros(1), now + 5 * 10**9, now)
    found = builder.check(now)
    assert found.reason == 'future_stamp' and found.subject == 'b'
    assert 'joint states of b are stamped 5.00 s in the future' in found.text


def test_a_joint_state_that_comes_out_of_order_does_not_replace_a_newer_one():
    joints, now = JointBuffer(('a', 'b')), 10**12
    joints.put(['a', 'b'], np.array([0.1, 0.1]), now, now)
    joints.put(['a', 'b'], np.array([0.0, 0.0]), now - 90 * 10**6, now + 1)
    assert joints.get().value.tolist() == [0.1, 0.1] and joints.get().stamp_ns == now
    joints.put(['a', 'b'], np.array([0.2, 0.2]), now - 10**8, now - 10**8)  # the clock was set
    assert joints.get().value.tolist() == [0.2, 0.2]
    joints.put(['a', 'b'], np.array([0.3, 0.3]), now - 5 * 10**9, now + 2)
    assert joints.get().value.tolist() == [0.3, 0.3]


@pytest.mark.parametrize('after_ms, waits_ms', [(10, None), (16, None), (18, 15), (30, 3),
                                                (34, None), (200, None)])
def test_a_decision_waits_for_a_frame_that_comes_within_half_its_period(after_ms, waits_ms):
    it = Streams(NAMES, ('top', '', 'wrist'), Freshness(1, 1, 1))
    assert it.next_frame(0) is None
    for number in range(30):
        for ahead_ms, camera in enumerate(('wrist', 'top')):
            at = (1000 + 33 * number + 5 * ahead_ms) * MS
            it.cameras[camera].put(camera, at, at)
    found = it.next_frame((1000 + 33 * 29 + after_ms) * MS)
    if waits_ms is None:
        assert found is None
    else:
        assert found[0] is it.cameras['wrist'] and found[2] == waits_ms * MS


def test_a_slow_camera_keeps_no_decision_waiting():
    it = Streams(NAMES, ('top',), Freshness(1, 1, 1))
    for number in range(30):
        it.cameras['top'].put(0, (1000 + 200 * number) * MS, (1000 + 200 * number) * MS)
    assert it.next_frame((1000 + 200 * 29 + 120) * MS) is None
    assert it.next_frame((1000 + 200 * 29 + 190) * MS)[2] == 10 * MS
