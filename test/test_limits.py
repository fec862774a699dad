# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Limits of the URDF and of parameters, and plans that keep them."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
from pi0_ros.control.config import parse_tighter
from pi0_ros.control.safety import check_inside
from pi0_ros.motion.limiter import limit
from pi0_ros.motion.limits import limits_from_urdf, make_limits, RobotLimits, Rules, unlimited
from pi0_ros.motion.spline import cubic
from pi0_ros.sim.arm import JOINT_NAMES
from pi0_ros.sim.description import urdf
import pytest
from support import box, MS, robot_urdf


def test_limits_of_the_simulated_arm():
    limits = limits_from_urdf(urdf(), JOINT_NAMES, Rules(grippers=('grip*',)))
    np.testing.assert_allclose(limits.lower, [-1.95, -0.35, -2.65, -2.55, 0.0])
    np.testing.assert_allclose(limits.upper, [1.95, 2.15, 0.15, 0.95, 0.06])
    np.testing.assert_allclose(limits.velocity, [1.5, 1.5, 2.0, 2.0, 0.15])
    np.testing.assert_array_equal(limits.acceleration, 5.0)
    np.testing.assert_array_equal(limits.jump, [0.2] * 4 + [np.inf])
    assert not limits.unknown and not limits.turns.any()


def test_prismatic_joints_are_measured_by_their_range():
    limits = limits_from_urdf(robot_urdf(rail='prismatic 0 2 0.5'), ('rail',))
    assert limits.jump == 0.2 and limits.tracking == pytest.approx(0.3)
    assert limits.lower == 0.05 and limits.upper == 1.95
    finger = limits_from_urdf(robot_urdf(finger='prismatic 0 0.04 0.1'), ('finger',))
    np.testing.assert_allclose([finger.lower, finger.upper, finger.jump],
                               [[0.002], [0.038], [0.004]])


def test_joint_order_is_that_of_the_configuration():
    text = robot_urdf(a='revolute -1 1 1', b='revolute -2 2 2')
    np.testing.assert_allclose(limits_from_urdf(text, ('b', 'a')).velocity, [1.0, 0.5])


def test_continuous_joints_have_no_ends_and_count_turns():
    limits = limits_from_urdf(robot_urdf(wrist='continuous 0 0 2', elbow='revolute -7 7 2'),
                              ('wrist', 'elbow'))
    assert limits.lower[0] == -np.inf and limits.turns.tolist() == [True, False]
    given = np.array([[-3.1, 3.1], [3.1, -3.1]])
    near = limits.nearest_turn(given, np.array([9.4, 0.0]))
    np.testing.assert_allclose(near[:, 0], [9.4664, 9.3832], atol=1e-4)
    np.testing.assert_array_equal(near[:, 1], given[:, 1])


def test_a_leader_must_keep_its_mimics_inside_their_limits():
    text = robot_urdf(left='prismatic 0 0.08 1', right='prismatic -0.01 0.03 0.2 left -0.5 0.01')
    limits = make_limits(('left',), Rules(margin=0.0, velocity_scale=1.0), text)
    np.testing.assert_allclose([limits.lower, limits.upper, limits.velocity],
                               [[0.0], [0.04], [0.4]])
    with pytest.raises(ValueError, match="'right' of robot_description mimics 'left'"):
        make_limits(('right',), Rules(), text)


@pytest.mark.parametrize('text, words', [
    ('<robot', 'is no URDF'), ('<robot/>', "has no joint 'a'"),
    (robot_urdf(a='fixed 0 0 1'), 'is fixed, which no position commands'),
    (robot_urdf(a='revolute 1 -1 1'), 'which leave it no room'),
    (robot_urdf(a='hinge 0 1 1'), 'is hinge, which no position commands'),
    (robot_urdf(a='revolute x 1 1'), 'cannot be read'),
    (robot_urdf(a='revolute 0 0 1'), "does not limit position of 'a'"),
    (robot_urdf(a='revolute -1 1 0'), "does not limit velocity of 'a'"),
    (robot_urdf(a='revolute -1 1 -2'), "does not limit velocity of 'a'"),
    (robot_urdf(a='revolute'), "position and velocity of 'a'")])
def test_bad_descriptions_are_named(text, words):
    with pytest.raises(ValueError, match=words):
        limits_from_urdf(text, ('a',))


def test_a_description_full_of_other_things_is_fine(capsys):
    text = robot_urdf(a='revolute -1 1 1').replace('</robot>', (
        '<ros2_control name="x" type="system"><joint name="a"><command_interface '
        'name="position"/></joint></ros2_control><gazebo/><link/></robot>')).replace(
        '<limit', '<odd/><limit speed="7"')
    assert limits_from_urdf(text, ('a',)).upper == 0.95
    assert capsys.readouterr().err == ''


def test_parameters_tighten_and_never_loosen():
    tighter = parse_tighter(['*: velocity 0.4', 'a: upper 0.5, lower -3, acceleration 2',
                             'b: velocity 0.3'], ('a', 'b'))
    text = robot_urdf(a='revolute -1 1 1', b='revolute -1 1 1')
    limits = make_limits(('a', 'b'), Rules(margin=0.0, acceleration_scale=0.5, tighter=tighter),
                         text)
    np.testing.assert_allclose(limits.upper, [0.5, 1.0])
    np.testing.assert_allclose(limits.lower, [-1.0, -1.0])
    np.testing.assert_allclose(limits.velocity, [0.4, 0.3])
    np.testing.assert_allclose(limits.acceleration, [1.0, 2.5])
    (told,) = limits.warnings
    assert 'lower -3.0' in told and 'which stays' in told


def test_parameters_stand_in_for_a_description():
    whole = parse_tighter(['a: lower -1, upper 1, velocity 0.5'], ('a', 'b'))
    limits = make_limits(('a', 'b'), Rules(tighter=whole))
    assert limits.unknown == ("position and velocity of 'b'",)
    assert limits.upper[0] == 0.95 and limits.velocity[0] == 0.5


@pytest.mark.parametrize('text', ['a', 'a: upper', 'a: top 1', 'a: upper x', 'a: velocity 0',
                                  'a: upper 1 2', 'c: upper 1', 'a: upper nan'])
def test_bad_joint_limits_are_named(text):
    with pytest.raises(ValueError, match="'joint_limits'"):
        parse_tighter([text], ('a', 'b'))


# ---- plans that keep them ----

def whole(plan):
    """Return times in seconds, positions, velocities and accelerations at every millisecond."""
    at = np.arange(plan[0][0], plan[0][-1] + MS, MS)
    positions, velocities = cubic(*plan, at)
    return positions, velocities, np.diff(velocities, axis=0) / 1e-3


def plan_of(positions, dt_ms=20, first=None):
    """Return a plan through positions [N, D] or [N]."""
    positions = np.asarray(positions, float).reshape(len(positions), -1)
    velocities = np.gradient(positions, dt_ms / 1e3, axis=0)
    velocities[0], velocities[-1] = first if first is not None else 0.0, 0.0
    return np.arange(len(positions), dtype=np.int64) * dt_ms * MS, positions, velocities


def test_a_plan_that_keeps_the_limits_is_not_touched():
    plan = plan_of(0.2 * (1 - np.cos(np.linspace(0, np.pi, 60))))
    new, clamped, slowed = limit(plan, 0, box(1, acceleration=2.0))
    assert all(a is b for a, b in zip(new, plan)) and not clamped and not slowed


def test_a_plan_without_limits_is_not_touched():
    plan = plan_of(np.random.default_rng(0).normal(size=(30, 3)))
    assert limit(plan, 0, unlimited(3))[0] is plan


def test_a_step_becomes_the_fastest_motion_that_stops_there():
    plan = plan_of([0.0] + [0.5] * 20)
    new, clamped, slowed = limit(plan, 0, box(1, velocity=1.0, acceleration=4.0))
    positions, velocities, _ = whole(new)
    assert slowed and not clamped
    assert positions.max() < 0.5 + 2e-3 and abs(positions[-1] - 0.5) < 2e-3
    assert 0.95 < velocities.max() <= 1.0 + 1e-9
    # At best 0.5 / 1.0 + 1.0 / 4.0 = 0.75 s.
    assert new[0][-1] < 1.2e9


def test_all_joints_are_slowed_by_one_factor():
    plan = plan_of([[0.0, 0.0]] + [[1.0, 0.25]] * 20)
    new, _, _ = limit(plan, 0, box(2, velocity=0.5, acceleration=50.0))
    positions, velocities, _ = whole(new)
    going = velocities[:, 0] > 0.49
    np.testing.assert_allclose(velocities[going, 1] / velocities[going, 0], 0.25, atol=0.13)


def test_positions_are_clamped_with_room_to_stop():
    plan = plan_of(np.linspace(0, 3, 60))
    limits = box(1, lower=-1.0, upper=1.0, velocity=5.0, acceleration=3.0)
    new, clamped, _ = limit(plan, 0, limits)
    positions, velocities, accelerations = whole(new)
    assert clamped and 0.995 < positions.max() <= 1.0 + 1e-4
    assert np.abs(accelerations).max() <= 3.0 + 1e-6


def test_a_robot_outside_its_limits_only_comes_in():
    plan = plan_of([1.2] + [1.3] * 5 + [0.5] * 20)
    new, _, _ = limit(plan, 0, box(1, upper=1.0, velocity=1.0, acceleration=4.0))
    positions, _, _ = whole(new)
    assert positions.max() <= 1.2 + 1e-9 and positions[-1] == pytest.approx(0.5, abs=5e-3)


@pytest.mark.parametrize('ramp', [-0.69, 0.4])
def test_what_is_behind_does_not_overtake(ramp):
    """A plan faster than the limits is caught up with, and not passed where it ends."""
    plan = plan_of([*np.linspace(0, ramp, 30), *[ramp] * 30])
    new, _, slowed = limit(plan, 0, box(1, velocity=1.49, acceleration=5.0))
    positions, _, _ = whole(new)
    assert slowed and np.abs(positions).max() < abs(ramp) + 5e-3
    assert positions[-1] == pytest.approx(ramp, abs=5e-3)


def test_a_slow_gripper_slows_no_arm():
    wanted = np.stack([np.linspace(0, 1, 50), np.linspace(0, 0.08, 50)], axis=1)
    limits = replace(box(2, velocity=1.2, acceleration=5.0), velocity=np.array([1.2, 0.05]),
                     alone=np.array([False, True]))
    new, _, _ = limit(plan_of(wanted), 0, limits)
    assert cubic(*new, np.array([980 * MS]))[0][0, 0] > 0.95
    together, _, _ = limit(plan_of(wanted), 0, replace(limits, alone=np.zeros(2, bool)))
    assert cubic(*together, np.array([980 * MS]))[0][0, 0] < 0.8


def test_past_knots_stay():
    plan = plan_of([0.0] * 10 + [1.0] * 10)
    new, _, _ = limit(plan, 160 * MS, box(1, acceleration=2.0))
    np.testing.assert_array_equal(new[0][:8], plan[0][:8])
    np.testing.assert_array_equal(new[1][:9], plan[1][:9])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_is_planned_the_limits_hold_at_every_time(data):
    count = data.draw(st.integers(1, 3))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    size = data.draw(st.sampled_from([0.01, 0.3, 2.0, 50.0]))
    limits = replace(unlimited(count), lower=rng.uniform(-2, -0.1, count),
                     upper=rng.uniform(0.1, 2, count), velocity=rng.uniform(0.1, 3, count),
                     acceleration=rng.uniform(0.5, 20, count))
    start = rng.uniform(limits.lower, limits.upper)
    room = np.minimum(limits.upper - start, start - limits.lower)
    first = rng.uniform(-1, 1, count) * np.minimum(
        limits.velocity, np.sqrt(2 * limits.acceleration * room))
    steps = data.draw(st.integers(1, 30))
    positions = np.vstack([start, start + rng.normal(0, size, (steps, count))])
    plan = plan_of(positions, data.draw(st.sampled_from([5, 20, 33, 100])), first)
    new, _, _ = limit(plan, 0, limits)
    found, velocities, accelerations = whole(new)
    assert np.isfinite(found).all()
    step = (new[0][1] - new[0][0]) / 1e9
    turn = limits.acceleration * step**2 / 8 + 1e-9  # within a step that turns at the limit
    assert (found <= limits.upper + turn).all() and (found >= limits.lower - turn).all()
    assert (np.abs(velocities) <= limits.velocity * (1 + 1e-5)).all()
    assert (np.abs(accelerations) <= limits.acceleration * (1 + 1e-4) + 1e-6).all()
    np.testing.assert_array_equal(new[2][-1], 0)
    assert new[0][-1] <= plan[0][-1] + 500 * MS + 1e9 * (
        limits.velocity / limits.acceleration).max() + 50 * MS  # then it only stops


# ---- descriptions as they come ----

GRIPPER = robot_urdf(finger='revolute 0 0.8 2')


def mimic(name, of, lower, upper, multiplier=1.0, offset=0.0):
    return (f'<joint name="{name}" type="revolute"><parent link="p"/><child link="c{name}"/>'
            f'<limit lower="{lower}" upper="{upper}" velocity="1" effort="1"/><mimic '
            f'joint="{of}" multiplier="{multiplier}" offset="{offset}"/></joint></robot>')


def test_a_mimic_whose_limits_contradict_its_leader_is_named_and_the_leader_counts():
    """Robotiq 2F-85, 2F-C2, PR2: 0 to 0.8 with multiplier -1."""
    limits = limits_from_urdf(GRIPPER.replace('</robot>', mimic('knuckle', 'finger', 0, 0.8, -1)),
                              ('finger',), Rules(margin=0.0))
    assert (limits.lower[0], limits.upper[0]) == (0, 0.8)
    assert "'knuckle' mimics 'finger'" in limits.warnings[0] and '0 to 0.8' in limits.warnings[0]


def test_a_mimic_of_a_mimic_is_kept_inside_its_limits_too():
    text = GRIPPER.replace('</robot>', mimic('one', 'finger', 0, 9, 2.0, 0.1)).replace(
        '</robot>', mimic('two', 'one', 0, 1.1, 1.0, 0.2))  # two = 2 * finger + 0.3
    limits = limits_from_urdf(text, ('finger',), Rules(margin=0.0, velocity_scale=1.0))
    np.testing.assert_allclose([limits.lower[0], limits.upper[0], limits.velocity[0]],
                               [0.0, 0.4, 0.5])


def test_soft_limits_are_kept_as_moveit_and_ros2_control_do():
    text = robot_urdf(a='revolute 0 2.749 1').replace(
        '</joint>', '<safety_controller k_position="20" k_velocity="20" soft_lower_limit="0.07" '
        'soft_upper_limit="2.679"/></joint>')
    limits = limits_from_urdf(text, ('a',), Rules(margin=0.0))
    np.testing.assert_allclose([limits.lower[0], limits.upper[0]], [0.07, 2.679])


@pytest.mark.parametrize('change', [
    lambda text: text.replace('</robot>', '<joint name="top" type="fixed"><axis xzy="0 0 1"/>'
                              '</joint></robot>'),
    lambda text: '\n  ' + text, lambda text: '\n<?xml version="1.0"?>\n' + text,
    lambda text: text.replace('</robot>', '<xacro:odd a:b="1"><sensor:x/></xacro:odd></robot>'),
    lambda text: text.replace('<robot ', '<robot xmlns="http://ros.org/x" ', 1),
    lambda text: text.replace('</robot>', '<joint name="other" type="revolute"><limit '
                              'lower="x"/></joint></robot>')])
def test_what_is_odd_elsewhere_does_not_matter(change):
    text = robot_urdf(a='revolute -1 1 1')
    assert text.startswith('<robot')
    assert limits_from_urdf(change(text), ('a',)).upper == 0.95


@pytest.mark.parametrize('text, words', [
    ('', 'is empty'), ('  \n', 'is empty'),
    ('/opt/robot/arm.urdf', "is '/opt/robot/arm.urdf', which may be a file's name"),
    ('package://arm/urdf/arm.urdf', "may be a file's name"),
    ('<sdf version="1.9"><model name="r"/></sdf>', r'is an SDF \(<sdf>\), expected a URDF'),
    ('<mujoco model="r"/>', 'is an MJCF model'), ('<html/>', 'is <html>, expected a URDF'),
    (robot_urdf(a='revolute -1 1 1').replace('</robot>', robot_urdf(a='revolute -3 3 1')
                                             .partition('>')[2]), "has two joints 'a'")])
def test_what_is_no_description_is_called_what_it_is(text, words):
    with pytest.raises(ValueError, match=words):
        limits_from_urdf(text, ('a',))


@pytest.mark.parametrize('text', [
    robot_urdf(a='revolute -1 1 -1'), robot_urdf(a='revolute -1 1 0'),
    robot_urdf(a='revolute -1 1 1').replace('velocity="1.0"', '').replace('velocity="1"', ''),
    robot_urdf(a='revolute -1 1 1').replace('effort="1"', '')])
def test_what_a_description_does_not_say_may_be_set(text):
    rules = Rules(margin=0.0, velocity_scale=1.0, tighter=parse_tighter(['a: velocity 0.7'],
                                                                        ('a',)))
    limits = make_limits(('a',), rules, text)
    assert limits.velocity[0] == 0.7 and not limits.unknown


def test_a_joint_that_a_description_lacks_is_moved_by_complete_limits_that_are_set():
    """Drivers name joints otherwise than their descriptions do."""
    whole = parse_tighter(['gripper: lower 0, upper 0.08, velocity 0.1'], ('a', 'gripper'))
    text = robot_urdf(a='revolute -1 1 1')
    limits = make_limits(('a', 'gripper'), Rules(tighter=whole, margin=0.0), text)
    assert limits.upper.tolist() == [1.0, 0.08] and not limits.unknown
    assert limits.warnings == ("robot_description has no joint 'gripper': the limits that are "
                               'set for it stand in',)
    some = parse_tighter(['gripper: lower 0, upper 0.08'], ('a', 'gripper'))
    with pytest.raises(ValueError, match="has no joint 'gripper', it has a$"):
        make_limits(('a', 'gripper'), Rules(tighter=some), text)


def test_a_limit_that_is_wrong_is_replaced_and_that_is_said_with_both_numbers():
    instead = parse_tighter(['a: upper 2.618'], ('a',), 'replace_limits')
    limits = make_limits(('a',), Rules(instead=instead, margin=0.0),
                         robot_urdf(a='revolute -1 2.168 1'))
    assert limits.upper[0] == 2.618
    assert limits.warnings == ("the limit upper 2.168 of 'a' in robot_description is replaced by "
                               '2.618, as it is set',)
    with pytest.raises(ValueError, match="'replace_limits' has 'a: top 1'"):
        parse_tighter(['a: top 1'], ('a',), 'replace_limits')


def test_a_description_of_something_else_does_not_replace_the_robots(caplog):
    limits = RobotLimits(('a',), Rules(margin=0.0))
    camera, arm = robot_urdf(oak_joint='revolute -1 1 1'), robot_urdf(a='revolute -1 1 1')
    assert limits.describe(camera) and limits.problem.reason == 'joint_unknown'
    assert limits.describe(arm) and limits.problem is None
    assert not limits.describe(camera) and limits.now.upper[0] == 1.0 and limits.text == arm
    assert 'has none of the commanded joints' in caplog.text
    assert limits.describe(robot_urdf(a='revolute -2 2 1')) and limits.now.upper[0] == 2.0


@pytest.mark.parametrize('kind, measured, armed', [
    ('prismatic 0 0.038 1', 0.043, True), ('prismatic 0 0.038 1', 0.045, False),
    ('prismatic 0 2.0 1', 2.09, True), ('prismatic 0 2.0 1', 2.11, False),
    ('revolute -1 1 1', 1.09, True), ('revolute -1 1 1', 1.11, False)])
def test_a_joint_far_outside_its_limits_is_not_armed_and_that_is_a_share_of_a_fingers(
        kind, measured, armed):
    limits = limits_from_urdf(robot_urdf(a=kind), ('a',), Rules(margin=0.0))
    assert (check_inside(np.array([measured]), limits, ('a',)) is None) == armed


def test_an_acceleration_that_replaces_is_one(caplog):
    rules = Rules(instead=parse_tighter(['a: acceleration 0.5, upper 2'], ('a',)), margin=0.0)
    limits = make_limits(('a',), rules, robot_urdf(a='revolute -1 1 1'))
    assert limits.acceleration[0] == limits.stopping[0] == 0.5 and limits.upper[0] == 2
    assert len(limits.warnings) == 1  # no description has an acceleration


def test_a_joint_that_a_description_lacks_may_be_given_by_what_replaces_too():
    whole = parse_tighter(['g: lower 0, upper 0.08, velocity 0.1'], ('a', 'g'), 'replace_limits')
    limits = make_limits(('a', 'g'), Rules(instead=whole, margin=0.0),
                         robot_urdf(a='revolute -1 1 1'))
    assert limits.upper.tolist() == [1.0, 0.08]
    assert "the limit upper of 'g' in robot_description is replaced by 0.08" in (
        limits.warnings[2])
