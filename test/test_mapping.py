# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Joints of the robot and positions of the checkpoint: names, units, ALOHA."""

from dataclasses import replace
import math

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
from pi0_ros.checkpoint import reader as checkpoint
from pi0_ros.checkpoint.config import RobotConfig
from pi0_ros.checkpoint.fit import fit, table, unfed
from pi0_ros.checkpoint.mapping import (aloha_actions, aloha_state, Conversion, JointMap,
                                        parse_conversions)
from pi0_ros.checkpoint.spec import Choices
from pi0_ros.policy.factory import DEMO
import pytest
from support import DATA

JOINTS = ('shoulder_pan', 'shoulder_lift', 'elbow_flex', 'wrist_flex', 'gripper')
CAMERAS = ('overhead', 'wrist')
ROBOT = RobotConfig(JOINTS, cameras=CAMERAS)


@pytest.mark.parametrize('rules, robot, wanted', [
    ('degree', math.pi / 2, 90), ('sign -1', 0.3, -0.3), ('0.0 0.04 -> 0 100', 0.01, 25),
    ('-1 1 -> 100 -100', 0.5, -50), ('degree, sign -1, offset 90', math.pi, -90),
    ('offset 1, sign -1', 2, -3), ('1e-1 +.2 -> 0. 1', 0.15, 0.5)])
def test_rules_of_conversion(rules, robot, wanted):
    it = parse_conversions([f'elbow_flex: {rules}'], JOINTS)['elbow_flex']
    assert robot * it.scale + it.offset == pytest.approx(wanted)


@pytest.mark.parametrize('texts, words', [
    (['elbow_flex degree'], "has 'elbow_flex degree', expected 'JOINT: RULE'"),
    (['knee: degree'], "names joint 'knee', which is none of shoulder_pan"),
    (['gripper: furlong'], "has rule 'furlong'.*expected degree, sign -1"),
    (['gripper: '], "has rule ''"), (['gripper: sign 2'], "has rule 'sign 2'"),
    (['gripper: 0 0 -> 0 1'], 'range without length'),
    (['gripper: 0 1 -> 3 3'], 'range without length'),
    (['gripper: degree', 'gripper: sign -1'], "names joint 'gripper' twice"),
    (['*_flex: degree', 'elbow*: degree'], "names joint 'elbow_flex' twice")])
def test_conversions_that_say_nothing_clear_are_refused(texts, words):
    with pytest.raises(ValueError, match=words):
        parse_conversions(texts, JOINTS)


def test_a_name_goes_before_a_pattern():
    out = parse_conversions(['gripper: offset 1', '*: degree'], JOINTS)
    assert out['gripper'] == Conversion(1.0, 1.0) and len(out) == len(JOINTS)
    assert out['elbow_flex'].scale == pytest.approx(180 / math.pi)


@given(st.data())
def test_what_goes_in_as_state_comes_out_as_action(data):
    """A policy that answers with its state leaves the robot where it stands."""
    numbers = st.floats(-3, 3).map(lambda x: round(x, 3))
    size = data.draw(st.integers(1, 8))
    scale = [data.draw(st.sampled_from([1, -1, 57.3, 0.02])) for _ in range(size)]
    offset = [data.draw(numbers) for _ in range(size)]
    order = np.array(data.draw(st.permutations(range(size))))
    there = np.array(data.draw(st.lists(st.booleans(), min_size=size, max_size=size)))
    robot = np.array([data.draw(numbers) for _ in range(size)])
    scale, offset = np.array(scale, float), np.array(offset)
    joints = JointMap(np.where(there, order, -1), np.flatnonzero(there), scale, offset,
                      scale[there], offset[there])
    mean = np.full(size, 7.0)
    state = joints.state_in(robot, mean)
    assert (state[~there] == 7.0).all()
    back = joints.actions_out(np.tile(state, (3, 1)))
    np.testing.assert_allclose(back, np.tile(robot[order[there]], (3, 1)), atol=1e-9)


def test_aloha_is_openpis():
    """Values that openpi's own code gave for one gripper; signs of one arm."""
    for opening, wanted in ((0, -1.080), (0.25, -0.513), (0.5, -0.140), (0.75, 0.223),
                            (1, 0.946)):
        state = aloha_state(np.array([1, 1, 1, 1, 1, 1, opening] * 2, float))
        np.testing.assert_allclose(state[[6, 13]], wanted, atol=5e-4)
        np.testing.assert_array_equal(state[7:13], [1, -1, -1, 1, 1, 1])
    for pi, wanted in ((-1.1, 0.033), (0, 0.553), (0.946, 1.001)):
        actions = aloha_actions(np.tile([1, 1, 1, 1, 1, 1, pi], (4, 1)))
        np.testing.assert_allclose(actions[:, 6], wanted, atol=5e-4)
        np.testing.assert_array_equal(actions[2, :6], [1, -1, -1, 1, 1, 1])


def test_a_robot_that_fits():
    joints = fit(checkpoint.read(DEMO), ROBOT)
    np.testing.assert_array_equal(joints.rows, range(5))
    np.testing.assert_array_equal(joints.columns, range(5))
    assert unfed(checkpoint.read(DEMO), replace(ROBOT, cameras=('', 'wrist'))) == ('overhead',)


@pytest.mark.parametrize('changes, words', [
    ({'joint_names': JOINTS[:4]}, "'joint_names' has 4 joints, the checkpoint has 5 actions"),
    ({'joint_names': JOINTS[1::-1] + JOINTS[2:]},
     "has 'shoulder_lift' at position 0, the checkpoint has it at 1"),
    ({'joint_names': ('Wrist_Flex.pos', *'bcde')}, "'Wrist_Flex.pos' at position 0"),
    ({'state_names': JOINTS[:3]}, "'state_names' has 3 joints, the checkpoint has 5 states"),
    ({'cameras': ('overhead', 'Wrist')}, "did you mean 'wrist'"),
    ({'adaptation': 'aloha'}, 'takes 7 or 14 joints, but there are 5 states and 5 actions'),
    ({'conversions': ('x: degree',)}, "names joint 'x', which is none of"),
    ({'joint_names': (*JOINTS[:4], JOINTS[0])}, "'joint_names' names 'shoulder_pan' twice"),
    ({'cameras': ('wrist', 'wrist')}, "'cameras' names 'wrist' twice"),
    ({'cameras': ('', '', '', 'wrist')}, "'cameras' has 4 entries, expected at most 3"),
    ({'adaptation': 'droid'}, "'adaptation' is 'droid', expected one of none, aloha")])
def test_a_robot_that_does_not_fit_is_told_why_beside_a_table(changes, words):
    with pytest.raises(ValueError, match=words) as error:
        fit(checkpoint.read(DEMO), replace(ROBOT, **changes))
    assert '\n     checkpoint state  ' in str(error.value)
    assert 'checkpoint camera' in str(error.value)


def test_a_camera_may_have_the_name_of_the_data_set_or_of_the_network():
    spec = replace(checkpoint.read(DEMO), renamed={'front': 'overhead'})
    for cameras in (('front', 'wrist'), ('overhead', 'wrist')):
        robot = replace(ROBOT, cameras=cameras)
        fit(spec, robot)
        assert unfed(spec, robot) == ()
    with pytest.raises(ValueError, match="names 'front' and 'overhead', which are one camera"):
        fit(spec, replace(ROBOT, cameras=('front', 'overhead')))


def test_states_and_actions_of_different_joints():
    """The base moves but is not observed, the torso is observed but not moved."""
    spec = replace(checkpoint.read(DEMO), action_names=None)
    robot = RobotConfig(('a', 'b', 'c', '-', 'base'), ('c', 'torso', 'a', 'b', '-'), CAMERAS,
                        ('torso: degree', 'c: sign -1'))
    assert robot.commanded == ('a', 'b', 'c', 'base')
    assert robot.observed == ('a', 'b', 'c', 'base', 'torso')
    joints = fit(spec, robot)
    state = joints.state_in(np.array([1, 2, 3, 9, math.pi]), np.full(5, 0.25))
    np.testing.assert_allclose(state, [-3, 180, 1, 2, 0.25])
    np.testing.assert_allclose(joints.actions_out(np.array([[1, 2, 3, 4, 5.0]])), [[1, 2, -3, 5]])
    assert 'torso' in table(spec, robot)


def test_relative_actions_belong_to_the_same_joint():
    spec = replace(checkpoint.read(DEMO), relative=np.array([True, False, False, False, False]))
    fit(spec, ROBOT)
    with pytest.raises(ValueError, match=r"action 0 \('shoulder_pan'\) is relative to state 0, "
                                         "which is 'torso'"):
        fit(spec, replace(ROBOT, state_names=('torso', *JOINTS[1:])))


def test_statistics_of_openpi_may_end_in_padding():
    folder = DATA / 'openpi_pytorch' / 'checkpoint'
    spec = checkpoint.read(folder, Choices(relative_joints=(0,), actions='positions'))
    names = tuple(f'j{i}' for i in range(14))
    cameras = spec.cameras
    aloha = fit(spec, RobotConfig(names, cameras=cameras, adaptation='aloha',
                                  conversions=('j1: degree',)))
    robot = np.linspace(0.1, 0.9, 14)
    as_trained = robot.copy()
    as_trained[1] *= 180 / math.pi
    np.testing.assert_allclose(aloha.state_in(robot, np.zeros(14)), aloha_state(as_trained))
    expected = aloha_actions(robot[None].copy())
    expected[0, 1] *= math.pi / 180
    np.testing.assert_allclose(aloha.actions_out(robot[None]), expected)
    wide = {}
    for part in ('state', 'action'):
        it = getattr(spec, part)
        wide[part] = replace(it, **{field: np.concatenate([getattr(it, field), np.zeros(18)])
                                    for field in ('shift', 'scale', 'spread', 'middle')})
    padded = replace(spec, state_width=32, action_width=32, **wide,
                     relative=np.concatenate([spec.relative, np.zeros(18, bool)]))
    joints = fit(padded, RobotConfig(names, cameras=cameras))
    assert joints.state_in(np.ones(14), np.zeros(32)).tolist() == [1] * 14 + [0] * 18
    with pytest.raises(ValueError, match='has 13 joints, the checkpoint has 32 actions'):
        fit(padded, RobotConfig(names[:13], cameras=cameras))
