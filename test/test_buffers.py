# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Buffers and images in numbers: rates, losses, ways, sizes."""

import cv2
import numpy as np
from pi0_ros.observation import decoding
from pi0_ros.observation.buffers import Arrivals, JointBuffer, LatestBuffer
from pi0_ros.observation.images import letterbox
from pi0_ros.observation.observation import Freshness, NotReady, ObservationBuilder
from pi0_ros.observation.streams import MOST_WAIT_NS, Streams
import pytest
from support import MS

SECOND = 10**9


def arrivals(times_ms, stamps_ms=None):
    out = Arrivals()
    for number, at in enumerate(times_ms):
        stamp = at if stamps_ms is None else stamps_ms[number]
        out.add(stamp * MS, at * MS)
    return out


def test_a_rate_is_that_of_the_last_hundred_and_of_three_seconds():
    found = arrivals(range(1000, 3000, 20))
    assert found.count == 100 and found.rate_hz(3000 * MS) == pytest.approx(50.0)
    assert arrivals([1000]).rate_hz(1000 * MS) == 0.0
    assert arrivals([1000, 1000]).rate_hz(1000 * MS) == 0.0
    assert arrivals([1000, 1100]).rate_hz(1100 * MS) == pytest.approx(10.0)
    # The first is more than three seconds old: what came after it counts alone.
    assert arrivals([1000, 3999, 4099]).rate_hz(4000 * MS) == pytest.approx(10.0)
    assert arrivals([1001, 3999, 4099]).rate_hz(4000 * MS) == pytest.approx(2 / 3.098)
    many = arrivals([*range(0, 1000, 10), *range(1000, 2000, 20)])
    assert many.rate_hz(2000 * MS) == pytest.approx(99 / 1.48)  # a hundred, from 500 ms on


def test_gaps_between_stamps_tell_what_was_lost_but_not_of_who_was_silent():
    stamps = [0, 100, 200, 500, 600, 700]
    assert arrivals(stamps, stamps).lost() == 2
    assert arrivals(range(0, 400, 100), range(0, 400, 100)).lost() == 0  # three gaps: too few
    assert arrivals([0, 1, 2, 3, 4], [0, 100, 200, 300, 600]).lost() == 2  # four are enough
    silent = [0, 100, 200, 300, 400, 3401]
    assert arrivals(silent, silent).lost() == 0
    assert arrivals(silent[:-1] + [3399], silent[:-1] + [3399]).lost() == 29
    back = [500, 400, 300, 200, 100, 0]
    assert arrivals(range(6), back).lost() == 0
    unstamped = [100, 200, 300, 600, 700]
    assert arrivals(unstamped, [0] * 5).lost() == 2  # without stamps receipt counts


def test_what_comes_as_long_after_its_stamp_has_a_clock():
    assert not arrivals([1000, 1033], [10, 43]).steady()  # two say nothing
    assert arrivals([1000, 1033, 1066], [10, 43, 76]).steady()
    assert not arrivals([1000, 1100, 1200], [10, 10, 10]).steady()
    assert arrivals([5000, *range(6000, 6330, 33)], [10, *range(10, 340, 33)]).steady()  # ten


def test_how_far_a_joint_has_moved_is_told_by_the_newest_that_is_old_enough():
    joints = JointBuffer(('a',))
    moved, seconds = joints.moved(100 * MS)
    assert (moved.tolist(), seconds) == ([0.0], 1.0)
    joints.put(['a'], np.array([1.0]), SECOND, SECOND)
    moved, seconds = joints.moved(100 * MS)
    assert (moved.tolist(), seconds) == ([0.0], 1.0)
    for number in range(1, 8):
        at = SECOND + number * 20 * MS
        joints.put(['a'], np.array([1.0 + 0.1 * number]), at, at)
    moved, seconds = joints.moved(100 * MS)
    assert (moved[0], seconds) == pytest.approx((0.5, 0.1))
    moved, seconds = joints.moved(90 * MS)  # no shorter than asked
    assert (moved[0], seconds) == pytest.approx((0.5, 0.1))
    moved, seconds = joints.moved(10 * SECOND)  # all that is known
    assert (moved[0], seconds) == pytest.approx((0.7, 0.14))
    for number in range(200):
        at = 2 * SECOND + number * MS
        joints.put(['a'], np.array([float(number)]), at, at)
    moved, seconds = joints.moved(10 * SECOND)  # the last hundred
    assert (moved[0], seconds) == pytest.approx((99.0, 0.099))


def test_a_joint_state_a_little_older_is_late_and_one_much_older_is_another_clock():
    joints = JointBuffer(('a',))
    joints.put(['a'], np.array([1.0]), 10 * SECOND, SECOND)
    joints.put(['a'], np.array([2.0]), 9 * SECOND + 1, SECOND + 1)
    assert joints.get().value[0] == 1.0
    joints.put(['a'], np.array([3.0]), 9 * SECOND, SECOND + 2)
    assert joints.get().value[0] == 3.0 and joints.get().stamp_ns == 9 * SECOND


def frames(rate_hz, count=20):
    """Return streams whose camera brought frames at a rate, and when the last came."""
    streams = Streams(('a',), ('front',), Freshness(SECOND, SECOND, SECOND))
    for number in range(count):
        at = SECOND + round(number * SECOND / rate_hz)
        streams.cameras['front'].put(0, at, at)
    return streams, at


def test_a_decision_waits_for_a_frame_that_comes_within_half_a_period_and_25_ms():
    streams, last = frames(50.0)
    assert streams.next_frame(last + 9 * MS) is None  # 11 ms more than half of 20
    camera, newest, due = streams.next_frame(last + 11 * MS)
    assert due == pytest.approx(9 * MS, abs=2) and newest.received_ns == last
    assert camera is streams.cameras['front'] and streams.next_frame(last + 20 * MS + 2) is None
    slow, last = frames(10.0)
    assert slow.next_frame(last + 100 * MS - MOST_WAIT_NS - 1000) is None
    assert slow.next_frame(last + 100 * MS - MOST_WAIT_NS + 1000) is not None
    assert frames(10.0, count=1)[0].next_frame(SECOND) is None  # no rate is known
    none = Streams(('a',), ('front',), Freshness(SECOND, SECOND, SECOND))
    assert none.next_frame(SECOND) is None and not MOST_WAIT_NS - 25 * MS


def test_why_joint_states_are_not_used_is_told_beside_that_there_are_none():
    streams = Streams(('a',), ('front',), Freshness(SECOND, SECOND, SECOND))
    streams.joints.put(['a'], np.zeros(1), SECOND, SECOND)
    streams.cameras['front'].put(0, SECOND, SECOND)
    streams.joint_error = 'names and positions differ'
    assert streams.problem(SECOND) is None
    assert streams.problem(4 * SECOND).text.endswith('(names and positions differ)')


def test_inputs_that_are_cleared_while_they_are_read_are_no_observation():
    camera, joints = LatestBuffer(), JointBuffer(('a',))
    builder = ObservationBuilder(joints, {'front': camera}, lambda image: image,
                                 Freshness(SECOND, SECOND, SECOND))
    joints.put(['a'], np.zeros(1), SECOND, SECOND)
    camera.put(0, SECOND, SECOND)
    builder.check = lambda now_ns: None
    for buffer in (camera, joints):
        kept = buffer.get()
        buffer.clear()
        with pytest.raises(NotReady, match='the inputs were cleared'):
            builder.build(SECOND, 'go')
        (camera.put(0, SECOND, SECOND) if buffer is camera else
         joints.put(['a'], kept.value, SECOND, SECOND))


@pytest.mark.parametrize('height, width, step, length, fits', [
    (2, 3, 9, 18, True), (2, 3, 12, 24, True), (2, 3, 12, 21, True),  # the last row's padding
    (2, 3, 12, 20, False), (2, 3, 8, 18, False), (0, 3, 9, 18, False), (2, 0, 9, 18, False)])
def test_how_many_bytes_an_image_needs(height, width, step, length, fits):
    data = np.arange(length, dtype=np.uint8)
    if not fits:
        with pytest.raises(ValueError, match='truncated|rows of at least'):
            decoding.raw_to_rgb(data, encoding='rgb8', height=height, width=width, step=step)
        return
    out = decoding.raw_to_rgb(data, encoding='rgb8', height=height, width=width, step=step)
    assert out[1, 2, 2] == step + 8 and out.flags['C_CONTIGUOUS']


def test_what_is_no_picture_is_told_by_its_first_four_bytes():
    with pytest.raises(ValueError, match=r"starts with b'abcd', which is neither"):
        decoding.compressed_to_rgb(np.frombuffer(b'abcdefgh', np.uint8))


def test_a_jpeg_may_end_with_a_little_behind_its_mark():
    _, data = cv2.imencode('.jpg', np.zeros((8, 8, 3), np.uint8))
    more = np.concatenate([data.ravel(), np.full(29, 7, np.uint8)])
    assert decoding.compressed_to_rgb(more).shape == (8, 8, 3)
    with pytest.raises(ValueError, match='truncated'):
        decoding.compressed_to_rgb(np.concatenate([data.ravel(), np.full(32, 7, np.uint8)]))


@pytest.mark.parametrize('size', [(48, 64), (224, 200), (224, 224)])
def test_images_with_a_scaling_are_scaled_then_fitted_then_clipped(size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    shift, scale = np.array([0.5, 0.4, 0.3]), np.array([5.0, 4.0, 3.0])
    got = letterbox(image, 224, 224, scaling=(shift, scale))
    scaled = ((image / 255 - shift) * scale).astype(np.float32)
    ratio = max(size[0] / 224, size[1] / 224)
    height, width = int(size[0] / ratio), int(size[1] / ratio)
    wanted = cv2.resize(scaled, (width, height), interpolation=cv2.INTER_LINEAR)
    if size != (224, 224):  # LeRobot clips in its resize, which leaves such an image alone
        wanted = wanted.clip(0, 1)
    top, left = (224 - height) // 2, (224 - width) // 2
    np.testing.assert_allclose(got[:, top:top + height, left:left + width],
                               wanted.transpose(2, 0, 1) * 2 - 1, atol=1e-5)
    if top:
        assert (got[:, :top] == -1).all()


@pytest.mark.parametrize('seed', range(5))
def test_joints_with_noise_stand_and_joints_that_move_slowly_do_not(seed):
    """Six joints, 4 mrad, 100 Hz; what stands is slower than 0.1 rad/s."""
    dice = np.random.default_rng(seed)
    names = tuple('abcdef')
    for speed, still in ((0.0, True), (0.15, False)):
        joints = JointBuffer(names)
        for number in range(60):
            at = SECOND + number * 10 * MS
            joints.put(list(names), speed * number / 100 + dice.normal(0, 0.004, 6), at, at)
        moved, seconds = joints.pace(200 * MS)
        assert seconds == pytest.approx(0.1, abs=0.02)
        assert (np.abs(moved / seconds) < 0.1).all() == still


def test_a_pace_needs_two_states():
    joints = JointBuffer(('a',))
    assert joints.pace(300 * MS)[0].tolist() == [0.0]
    joints.put(['a'], np.array([1.0]), SECOND, SECOND)
    assert joints.pace(300 * MS)[0].tolist() == [0.0]
    joints.put(['a'], np.array([1.5]), SECOND + 100 * MS, SECOND + 100 * MS)
    moved, seconds = joints.pace(300 * MS)
    assert (moved[0], seconds) == pytest.approx((0.5, 0.1))


def test_the_pace_of_joint_states_that_come_seldom_is_that_of_the_last_two():
    joints = JointBuffer(('a',))
    for number in range(4):
        at = SECOND + number * 250 * MS
        joints.put(['a'], np.array([0.25 * number]), at, at)
    moved, seconds = joints.pace(200 * MS)
    assert (moved[0], seconds) == pytest.approx((0.25, 0.25))


def test_a_joint_that_stands_at_half_a_turn_stands():
    joints, dice = JointBuffer(('a',)), np.random.default_rng(0)
    for number in range(60):
        at = SECOND + number * 10 * MS
        place = (np.pi + dice.normal(0, 1e-4) + np.pi) % (2 * np.pi) - np.pi
        joints.put(['a'], np.array([place]), at, at)
        moved, seconds = joints.pace(200 * MS)
        assert abs(moved[0] / seconds) < 0.1


@pytest.mark.parametrize('back_ms', [5, 40, 150, 930, 5000])
@pytest.mark.parametrize('rows', [1, 2, 5, 40])
def test_a_joint_moves_also_after_the_clock_was_set_back(back_ms, rows):
    """Fuzz lives 50000690 and 50000939: a moving robot was armed 0.1 s after the clock's step."""
    joints = JointBuffer(('a',))
    for row in range(50 + rows):
        when = 10**12 + row * 10 * MS - (back_ms * MS if row >= 50 else 0)
        joints.put(['a'], [0.01 * row], when, when)
    for moved, seconds in (joints.pace(200 * MS), joints.moved(50 * MS)):
        assert moved[0] / seconds == pytest.approx(1.0, rel=0.15)  # 5 ms are lost in 10
