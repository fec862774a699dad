# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Bags of robots whose controllers have topics of their own, for joint states and for commands."""

from bags import MS, Tape
import numpy as np
from pi0_ros.bags.actions import ActionPath, ActionPaths
from pi0_ros.bags.bag import BagError
from pi0_ros.dataset.episodes import frames
from pi0_ros.sim.demonstration import START_NS
import pytest
from test_bag import observations, playback

TWO = {'joint_names': ['left/x', 'right/x'], 'commands': ['l', 'r'], **{
    f'{group}.{what}': value for group, side in (('l', 'left'), ('r', 'right'))
    for what, value in (('joints', [f'{side}/x']), ('prefix', f'{side}/'),
                        ('joint_states', f'{group}/joint_states'))}}
ONE = {'joint_names': ['left/x', 'right/x']}
SPACE = '/robot'


def left(ms):
    return np.sin(ms / 300)


def right(ms):
    return 2 + np.cos(ms / 200)


def record(path, apart, space='', commands=('l', 'r'), seconds=2.0):
    """Write two arms that are led ahead of where they are, on topics apart or together."""
    tape = Tape(path)
    tape.say(0, 'go')
    for ms in range(0, round(1000 * seconds), 10):
        if apart:
            tape.joints(ms, [left(ms)], names=['x'], topic=f'{space}/l/joint_states')
            tape.joints(ms, [right(ms)], names=['x'], topic=f'{space}/r/joint_states')
        else:
            tape.joints(ms, [left(ms), right(ms)], names=['left/x', 'right/x'])
        if ms % 40 == 0:
            tape.image(ms, ms // 40)
        if ms % 20 == 0:
            windows = [[(at, [place(ms + 50 + at)]) for at in (0, 20, 100)]
                       for place in (left, right)]
            if apart:
                for group, window in zip('lr', windows):
                    if group in commands:
                        tape.command(ms, window, names=['x'],
                                     topic=f'{space}/{group}/joint_trajectory')
            elif commands:
                tape.command(ms, [(one[0], one[1] + two[1]) for one, two in zip(*windows)],
                             names=['left/x', 'right/x'])
    return tape.close()


def acted(play, at_ms):
    """Return what the robot did at times, once the whole bag was played."""
    for _ in play.moments(50 * MS):
        pass
    return play.path.sample(START_NS + np.asarray(at_ms) * MS)


@pytest.mark.parametrize('space', ['', SPACE])
def test_joint_states_of_several_topics_are_as_of_one(tmp_path, space):
    one = observations(playback(record(tmp_path / 'one', False), **ONE))
    two = observations(playback(record(tmp_path / 'two', True, space), **TWO))
    assert one == two and sum(not isinstance(seen, str) for seen in one) > 15


def test_commands_of_several_controllers_are_as_of_one(tmp_path):
    times = np.arange(300, 1800, 7)
    one = acted(playback(record(tmp_path / 'one', False), **ONE), times)
    play = playback(record(tmp_path / 'two', True), **TWO)
    two = acted(play, times)
    np.testing.assert_allclose(one, two, atol=1e-9)
    np.testing.assert_allclose(two, np.stack([left(times + 50), right(times + 50)], 1), atol=0.01)
    assert play.routes.roles['actions'] == '/l/joint_trajectory, /r/joint_trajectory'
    assert not play.dropped()


def test_who_is_commanded_by_no_topic_did_what_was_measured(tmp_path):
    """A gripper behind an action, whose goals no bag has."""
    play = playback(record(tmp_path / 'bag', True, commands=('l',)), **TWO)
    times = np.arange(300, 1800, 20)
    got = acted(play, times)
    np.testing.assert_allclose(got[:, 0], left(times + 50), atol=0.01)
    np.testing.assert_allclose(got[:, 1], right(times), atol=0.02)
    assert play.dropped() == ['actions: nobody commands right/x: what was measured is taken']


@pytest.mark.parametrize('chosen', ['', 'joint_states'])
def test_without_commands_it_is_what_the_joints_did(tmp_path, chosen):
    commands = () if not chosen else ('l', 'r')
    play = playback(record(tmp_path / 'bag', True, commands=commands), chosen=chosen, **TWO)
    times = np.arange(300, 1800, 7)
    got = acted(play, times)
    np.testing.assert_allclose(got, np.stack([left(times), right(times)], 1), atol=1e-3)
    assert not play.dropped()


def test_two_arms_with_the_same_names_do_not_contradict_each_other(tmp_path):
    play = playback(record(tmp_path / 'bag', True), **TWO)
    for _ in play.moments(50 * MS):
        pass
    assert not play.health.doubled


def test_frames_of_a_data_set_have_both_arms(tmp_path):
    one, two = (list(frames(playback(record(
        tmp_path / name, apart), **robot), 25)) for name, apart, robot in (
            ('one', False, ONE), ('two', True, TWO)))
    assert len(one) == len(two) > 30
    for first, second in zip(one, two):
        np.testing.assert_allclose(first.state, second.state)
        np.testing.assert_allclose(first.action, second.action, atol=1e-9)


def test_a_topic_that_the_bag_lacks_is_named(tmp_path):
    tape = Tape(tmp_path / 'bag')
    tape.joints(0, [0.0], names=['x'], topic='/l/joint_states')
    tape.image(0)
    with pytest.raises(BagError, match='no joint states on r/joint_states, as .commands. has'):
        playback(tape.close(), instruction='go', **TWO)


def test_counts_say_what_became_of_every_topic(tmp_path):
    play = playback(record(tmp_path / 'bag', True), **TWO)
    acted(play, [500])
    used = {one.topic: (one.there, one.used) for one in play.counts() if one.asked}
    for topic in ('/l/joint_states', '/r/joint_states'):
        assert used[topic] == (200, 200)
    for topic in ('/l/joint_trajectory', '/r/joint_trajectory'):
        assert used[topic] == (100, 100)


def test_a_path_of_several_forgets_and_knows_as_one():
    paths = ActionPaths(('a', 'b', 'c'), {'/one': ('a', 'b'), '/two': ('c',)})
    assert isinstance(paths._all[0], ActionPath) and len(paths._all) == 2
    paths.known_ns = 7
    assert paths.known_ns == 7 and all(path.known_ns == 7 for path in paths._all)
    paths.measured = np.array([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(paths.measured, [1, 2, 3])
    assert np.isnan(paths.sample(np.array([1, 2]))).all()
