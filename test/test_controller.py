# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The simulated controller against what joint_trajectory_controller does, case by case."""

import json

import numpy as np
from pi0_ros.sim.controller import (Settings, TrajectoryController, TrajectoryMessage,
                                    TrajectoryRejected)
import pytest
from support import DATA, MS

JOINTS = ('a', 'b')
NOW = 10_000 * MS


def stream(path):
    """Return a stream of data/jtc, and a controller with its settings."""
    given = json.loads(path.read_text())
    kind = given.get('kind') or given['controller'].split('branch ')[1].split()[0]
    settings = Settings(
        kind, given['option'].endswith('true'), 1e9 / given['update_period_ns'],
        given.get('replacement', True), given.get('path_tolerance') or 0.0,
        given.get('goal_tolerance') or 0.0, given.get('goal_time') or 0.0,
        given.get('set_last_command_interface_value_as_state_on_activation', True),
        given.get('allow_nonzero_velocity_at_trajectory_end', True))
    names = tuple(f'j{index}' for index in range(len(given['holds'])))
    return given, TrajectoryController(names, np.array(given['holds']), settings,
                                       held='kind' in given)


def play(given, it):
    """Return what the controller commands at every update: positions, velocities, refused."""
    mail, refused, last, out = list(given['messages']), 0, None, []
    measured, velocity = np.array(given['holds'], float), np.zeros(len(given['holds']))
    for number in range(len(given['commanded_positions'])):
        now = (given['update_times_ns'][number] if given.get('update_times_ns') else
               given['first_update_ns'] + number * given['update_period_ns'])
        if given.get('measured'):
            measured = np.array(given['measured'][number])
            velocity = (np.zeros(len(measured)) if last is None else
                        (measured - last) / given['update_period_ns'] * 1e9)
            last = measured
        while mail and mail[0]['arrives_ns'] <= now:
            part = mail.pop(0)
            try:
                it.accept(TrajectoryMessage(
                    part['stamp_ns'], list(it.joint_names), part['times_from_start_ns'],
                    part['positions'], part.get('velocities') or [],
                    part.get('accelerations') or []), part['arrives_ns'])
            except TrajectoryRejected:
                refused += 1
        for event in given.get('events') or ():
            if event['update'] == number and event['what'] == 'deactivate':
                it.deactivate()
            elif event['update'] == number:
                it.commanded = np.array(event.get('command') or it.commanded, float)
                it.activate(measured)
        it.speed_scaling = given['scaling'][number] if given.get('scaling') else 1.0
        it.update(now, measured, velocity)
        out.append((it.commanded, it.commanded_velocity))
        if not given.get('measured'):
            measured, velocity = it.commanded, it.commanded_velocity
    return np.array([row[0] for row in out]), np.array([row[1] for row in out]), refused


@pytest.mark.parametrize('path', sorted((DATA / 'jtc').glob('*.json')), ids=lambda path: path.stem)
def test_it_commands_what_the_real_one_commands(path):
    given, it = stream(path)
    positions, velocities, refused = play(given, it)
    np.testing.assert_allclose(positions, given['commanded_positions'], atol=1e-9, rtol=0)
    np.testing.assert_allclose(velocities, given['commanded_velocities'], atol=1e-9, rtol=0)
    assert refused == given.get('refused', 0)
    assert np.ptp(positions, axis=0).min() > 0.01


# ---- one message ----

def message(stamp_ms=0, names=JOINTS, times_ms=(100, 200), positions=((1, 2), (2, 4)),
            velocities=((), ()), **others):
    return TrajectoryMessage(stamp_ms * MS, list(names), [t * MS for t in times_ms],
                             [list(map(float, row)) for row in positions],
                             [list(map(float, row)) for row in velocities], **others)


def follow(it, *after_ms):
    return [it.update(NOW + ms * MS, np.zeros(2), np.zeros(2)).tolist() for ms in after_ms]


def controller(from_desired=True):
    return TrajectoryController(JOINTS, np.zeros(2), Settings('humble', from_desired,
                                                              update_rate=1000.0))


def test_stamp_0_starts_on_receipt():
    it = controller()
    it.accept(message(), NOW)
    assert follow(it, 0, 50, 100, 150) == [[0, 0], [0.5, 1], [1, 2], [1.5, 3]]


def test_stamp_in_the_past_skips_passed_points_and_jumps_to_where_it_should_be():
    it = controller()
    it.accept(message(stamp_ms=10_000 - 150), NOW)
    assert follow(it, 0, 50) == [[1.5, 3], [2, 4]]


def test_last_point_in_the_past_is_rejected():
    with pytest.raises(TrajectoryRejected, match='ended 0.300 s in the past'):
        controller().accept(message(stamp_ms=10_000 - 500), NOW)


def test_stamp_in_the_future_moves_to_the_first_point_until_then():
    it = controller()
    it.accept(message(stamp_ms=10_300), NOW)
    assert follow(it, 0, 200, 400, 450) == [[0, 0], [0.5, 1], [1, 2], [1.5, 3]]


def test_last_velocity_must_be_0():
    with pytest.raises(TrajectoryRejected, match="last point of joint 'b' is 0.1, but must be 0"):
        controller().accept(message(velocities=((1, 1), (0, 0.1))), NOW)


@pytest.mark.parametrize('change, words', [
    ({'names': ('a',)}, "'b' is missing: partial trajectories"),
    ({'names': ('a', 'b', 'c')}, "'c' is not one of a, b"),
    ({'names': ('a', 'a', 'b')}, "'a' is named twice"),
    ({'times_ms': (100, 100)}, 'between points 0 and 1 is not strictly increasing, it is 0.1 and'),
    ({'times_ms': (-10, 100)}, 'point 0 has the negative time'),
    ({'positions': ((1, 2), (2,))}, 'point 1 has 1 positions for 2 joints'),
    ({'velocities': ((0,), (0, 0))}, 'point 0 has 1 velocities'),
    ({'positions': ((1, 2), (2, float('nan')))}, 'point 1 has a position that is not finite'),
    ({'accelerations': [[0.0]]}, 'point 0 has 1 accelerations for 2 joints'),
    ({'effort': [[0.0] * 3]}, 'point 0 has 3 effort for 2 joints'),
    ({'times_ms': (), 'positions': (), 'velocities': ()}, 'no points')])
def test_broken_rules_are_quoted_and_the_old_trajectory_goes_on(change, words):
    it = controller()
    it.accept(message(), NOW)
    follow(it, 0)
    with pytest.raises(TrajectoryRejected, match=words):
        it.accept(message(**change), NOW)
    assert follow(it, 100) == [[1, 2]]


def test_permuted_names_are_accepted():
    it = controller()
    it.accept(message(names=('b', 'a')), NOW)
    assert follow(it, 0, 100)[1] == [2, 1]


def test_new_message_replaces_the_whole_old_trajectory_at_once():
    it = controller()
    it.accept(message(), NOW)
    follow(it, 0, 50)
    it.accept(message(times_ms=(100,), positions=((0, 0),), velocities=((),)), NOW + 50 * MS)
    assert follow(it, 50, 100, 150, 400) == [[0.5, 1], [0.25, 0.5], [0, 0], [0, 0]]


def test_last_point_is_held():
    it = controller()
    it.accept(message(), NOW)
    assert follow(it, 0, 200, 9000)[1:] == [[2, 4], [2, 4]]


def test_velocities_make_cubics_that_meet_them():
    it = controller()
    it.accept(message(times_ms=(100, 200), positions=((1, 0), (2, 0)),
                      velocities=((10, 0), (0, 0))), NOW)
    path = np.array(follow(it, *range(0, 201)))[:, 0]
    speed = np.diff(path) * 1000
    assert path[0] == 0 and path[100] == 1 and path[200] == 2
    assert speed[99] == pytest.approx(10, abs=0.3) and speed[-1] == pytest.approx(0, abs=0.5)
    assert np.abs(np.diff(speed)).max() < 1


def test_without_interpolate_from_desired_state_it_restarts_from_the_measured_state():
    measured = np.array([0.3, 0.3])
    for from_desired, expected in ((True, [0.5, 1]), (False, [0.3, 0.3])):
        it = controller(from_desired)
        it.accept(message(), NOW)
        it.update(NOW, np.zeros(2), np.zeros(2))
        it.update(NOW + 50 * MS, measured, np.zeros(2))
        it.accept(message(), NOW + 50 * MS)
        assert it.update(NOW + 50 * MS, measured, np.zeros(2)).tolist() == expected


@pytest.mark.parametrize('kind', ['humble', 'jazzy', 'master'])
@pytest.mark.parametrize('scaling', [1.0, 0.3, 0.0])
@pytest.mark.parametrize('seed', range(4))
def test_many_updates_at_once_are_the_same_updates(kind, scaling, seed):
    rng = np.random.default_rng(seed)
    both = [TrajectoryController(JOINTS, np.zeros(2), Settings(
        kind, update_rate=200.0, allow_trajectory_replacement=False)) for _ in range(2)]
    now = NOW
    for step in range(40):
        count, times = int(rng.integers(1, 60)), 0
        if rng.random() < 0.8:
            points = int(rng.integers(1, 8))
            at, speeds = rng.normal(size=(2, points, 2))
            speeds[-1] = 0
            message = TrajectoryMessage(
                now - int(rng.integers(-20, 20)) * MS, list(JOINTS),
                (np.cumsum(rng.integers(10, 40, points)) * MS).tolist(), at.tolist(),
                speeds.tolist() if rng.random() < 0.8 else [])
            for it in both:
                it.speed_scaling = scaling if step % 3 else 1.0
                it.accept(message, now)
        if step % 11 == 10:
            for it in both:
                it.activate(at[0])
        times = now + 5 * MS * np.arange(1, count + 1)
        now = int(times[-1])
        together = both[0].run(times, np.zeros(2))
        single = [both[1].update(int(time), np.zeros(2), np.zeros(2)).copy() for time in times]
        np.testing.assert_allclose(together, single, rtol=0, atol=1e-12)
        np.testing.assert_allclose(both[0].reference, both[1].reference, rtol=0, atol=1e-12)
