# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Where tools are and how joints bring them elsewhere, on three real arms."""

import math
import re

import arms
from hypothesis import given
from hypothesis import strategies as st
import numpy as np
from pi0_ros.kinematics.arm import Arm, pinocchio
from pi0_ros.kinematics.inverse import follow, LEAP, reach, Tolerance
from pi0_ros.kinematics.rotations import matrices, numbers, ROTATIONS, turn
from pi0_ros.kinematics.tools import Chain, chains
from pi0_ros.kinematics.urdf import UrdfError
import pytest

needs_pinocchio = pytest.mark.skipif(
    pinocchio is None, reason='Pinocchio is not installed: pip install -r requirements/tools.txt')
turns = st.lists(st.floats(-3.5, 3.5), min_size=3, max_size=3).map(np.array)
CHUNKS = 1000


def made(name, **instead):
    frame, tool = arms.HANDS[name]
    return Arm(instead.get('urdf', arms.urdf(name)), instead.get('joints', arms.joints(name)),
               instead.get('frame', frame), instead.get('tool', tool))


def degrees(one, other):
    return math.degrees(np.linalg.norm(turn(one @ other.T)))


# ---- rotations ----

@given(turns, st.sampled_from(sorted(ROTATIONS)), st.none() | turns)
def test_a_rotation_is_the_same_after_it_was_written_and_read(vector, kind, near):
    matrix = matrices(vector, 'axis_angle')
    near = None if near is None else numbers(matrices(near, 'axis_angle'), kind)
    written = numbers(matrix, kind, near)
    assert written.shape == (len(ROTATIONS[kind]),)
    np.testing.assert_allclose(matrices(written, kind), matrix, atol=1e-8)
    if near is not None:
        plain = numbers(matrix, kind)
        assert np.linalg.norm(written - near) <= np.linalg.norm(plain - near) + 1e-9


@given(turns)
def test_a_matrix_turns_and_does_not_mirror(vector):
    matrix = matrices(vector, 'axis_angle')
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(matrix) == pytest.approx(1)
    assert np.linalg.norm(turn(matrix)) == pytest.approx(
        abs((np.linalg.norm(vector) + np.pi) % (2 * np.pi) - np.pi), abs=1e-6)


def test_conventions():
    quarter = matrices(np.array([0, 0, math.pi / 2]), 'axis_angle')
    np.testing.assert_allclose(quarter @ [1, 0, 0], [0, 1, 0], atol=1e-12)
    both = matrices(np.array([math.pi / 2, 0, math.pi / 2]), 'rpy')  # first about x, then about z
    np.testing.assert_allclose(both @ [0, 1, 0], [0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(both @ [1, 0, 0], [0, 1, 0], atol=1e-12)
    half = math.sqrt(0.5)
    np.testing.assert_allclose(numbers(quarter, 'quaternion_xyzw'), [0, 0, half, half])
    np.testing.assert_allclose(numbers(quarter, 'quaternion_wxyz'), [half, 0, 0, half])
    np.testing.assert_allclose(numbers(quarter, 'rotation_6d'), [0, 1, 0, -1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(numbers(quarter, 'rotation_6d_rows'), [0, -1, 0, 1, 0, 0],
                               atol=1e-12)


def test_a_turn_is_written_as_training_had_it():
    """A gripper that points down is turned by about pi: by 3.1 one way or by 3.2 the other."""
    down = matrices(np.array([3.10, 0.1, 0.0]), 'axis_angle')
    other = numbers(down, 'axis_angle', np.array([-3.2, 0.0, 0.0]))
    assert other[0] < -3.1 and np.allclose(matrices(other, 'axis_angle'), down)
    assert numbers(down, 'quaternion_xyzw', np.array([-1.0, 0, 0, 0]))[0] < -0.9


def test_what_a_network_says_is_made_a_rotation():
    said = np.array([[2.0, 0, 0, 1.0, 0.5, 0]])
    np.testing.assert_allclose(matrices(said, 'rotation_6d')[0], np.eye(3), atol=1e-12)
    for bad, kind in ((np.zeros(6), 'rotation_6d'), (np.zeros(4), 'quaternion_xyzw'),
                      (np.array([1.0, 0, 0, 2, 0, 0]), 'rotation_6d'),
                      (np.array([np.nan, 0, 0]), 'axis_angle')):
        with pytest.raises(ValueError, match='a rotation'):
            matrices(bad, kind)


# ---- where the tool is ----

def by_hand(name, positions, until):
    """Return the pose of a link in the first one, multiplied out from the facts."""
    angles, out, link = dict(zip(arms.joints(name), positions)), np.eye(4), arms.ARMS[name][0][2]
    for joint, kind, parent, child, xyz, rpy, axis, _ in arms.ARMS[name]:
        if parent != link or link == until:
            continue
        step = np.eye(4)
        step[:3, :3], step[:3, 3] = matrices(np.array(rpy, float), 'rpy'), xyz
        if kind in ('revolute', 'continuous'):
            move = np.eye(4)
            move[:3, :3] = matrices(np.array(axis) * angles[joint], 'axis_angle')
            step = step @ move
        out, link = out @ step, child
    assert link == until
    return out


@needs_pinocchio
@pytest.mark.parametrize('name', arms.ARMS)
def test_the_tool_is_where_the_chain_of_the_facts_says(name):
    frame, tool = arms.HANDS[name]
    arm, random = made(name), np.random.default_rng(1)
    for _ in range(20):
        positions = random.uniform(-2, 2, len(arms.joints(name)))
        whole = by_hand(name, positions, tool)
        of_frame = by_hand(name, positions, frame)
        wanted = np.linalg.inv(of_frame) @ whole
        place, rotation = arm.pose(positions)
        np.testing.assert_allclose(place, wanted[:3, 3], atol=1e-9)
        np.testing.assert_allclose(rotation, wanted[:3, :3], atol=1e-9)


@needs_pinocchio
@pytest.mark.parametrize('name', arms.ARMS)
@pytest.mark.parametrize('root', [True, False])
def test_the_jacobian_is_how_the_tool_moves(name, root):
    arm = made(name, frame=arms.ARMS[name][0][2] if root else arms.HANDS[name][0])
    positions, small = np.array(arms.AT_WORK[name]), 1e-6
    jacobian = arm.jacobian(positions)
    place, rotation = arm.pose(positions)
    for column in range(len(positions)):
        moved, turned = arm.pose(positions + small * np.eye(len(positions))[column])
        np.testing.assert_allclose(jacobian[:3, column], (moved - place) / small, atol=1e-5)
        np.testing.assert_allclose(jacobian[3:, column], turn(turned @ rotation.T) / small,
                                   atol=1e-5)


@needs_pinocchio
def test_joints_come_in_the_order_in_which_they_are_named():
    backwards = made('panda', joints=arms.joints('panda')[::-1])
    positions = np.array(arms.AT_WORK['panda'])
    np.testing.assert_allclose(backwards.pose(positions[::-1])[0], made('panda').pose(
        positions)[0])
    np.testing.assert_allclose(backwards.jacobian(positions[::-1]), made('panda').jacobian(
        positions)[:, ::-1])


@needs_pinocchio
def test_what_else_the_description_holds_does_not_matter():
    plain = arms.urdf('ur5e')
    more = plain.replace('<robot name="ur5e">', '<robot name="ur5e"><ros2_control name="x"/>'
                         '<link name="camera"><inertial/></link>').replace(
        '<link name="tool0"/>', '<link name="tool0"><visual><geometry><mesh filename="package://'
        'nowhere/x.stl"/></geometry></visual></link>')
    positions = np.array(arms.AT_WORK['ur5e'])
    np.testing.assert_array_equal(made('ur5e', urdf=more).pose(positions)[0],
                                  made('ur5e').pose(positions)[0])


@needs_pinocchio
@pytest.mark.parametrize('instead, reason', [
    ({'tool': 'hand'}, 'link_unknown'), ({'frame': 'table'}, 'link_unknown'),
    ({'tool': 'panda_leftfinger'}, 'joint_more'),
    ({'joints': arms.joints('panda')[:6]}, 'joint_more'),
    ({'joints': (*arms.joints('panda'), 'panda_finger_joint1')}, 'joint_elsewhere'),
    ({'urdf': arms.urdf('panda').replace('</robot>', '<link name="t"/></robot>'), 'frame': 't'},
     'link_apart'),
    ({'urdf': arms.urdf('panda').replace('<axis xyz="0 0 1"/>',
                                         '<mimic joint="x"/><axis xyz="0 0 1"/>')}, 'joint_more'),
    ({'urdf': arms.urdf('panda').replace('"0 0 1"', '"a b c"')}, 'no_kinematics'),
    ({'frame': 'panda_hand', 'tool': 'panda_link0'}, 'frame_moves'),
    ({'urdf': 'no xml'}, 'no_urdf')])
def test_tools_that_are_not_there(instead, reason):
    with pytest.raises(UrdfError) as caught:
        made('panda', **instead)
    assert caught.value.reason == reason
    assert caught.value.args[0]


def test_without_pinocchio_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr('pi0_ros.kinematics.arm.pinocchio', None)
    with pytest.raises(UrdfError, match='ros-.ROS_DISTRO-pinocchio') as caught:
        made('panda')
    assert caught.value.reason == 'no_pinocchio'


# ---- and back ----

def ends(name, margin=0.05):
    lower, upper = (np.array(side, float) for side in arms.limits(name))
    return lower + margin, upper - margin


def a_way(name, arm, random, spread):
    """Return joints [50, n] of a random motion, and the poses of the tool."""
    lower, upper = ends(name)
    begin = (np.clip(arms.AT_WORK[name] + random.normal(0, 0.3, len(lower)), lower, upper)
             if spread else random.uniform(lower, upper))
    speed, swing, bend = random.normal(0, 0.6, (3, len(lower)))
    time = np.linspace(0, 1, 50)[:, None]
    joints = np.clip(begin + speed * time + 0.3 * swing * np.sin(3 * time)
                     + 0.2 * bend * time**2, lower, upper)
    poses = [arm.pose(row) for row in joints]
    return joints, np.array([pose[0] for pose in poses]), np.array([pose[1] for pose in poses])


@needs_pinocchio
@pytest.mark.parametrize('name', arms.ARMS)
def test_a_thousand_random_chunks_are_followed_within_a_millimetre_or_rejected(name):
    arm, random = made(name), np.random.default_rng(7)
    lower, upper = ends(name)
    rejected = 0
    for number in range(CHUNKS):
        joints, places, rotations = a_way(name, arm, random, number % 2)
        way = follow(arm, joints[0], places, rotations, lower, upper)
        assert (way.positions >= lower - 1e-9).all() and (way.positions <= upper + 1e-9).all()
        assert np.abs(np.diff(way.positions, axis=0)).max() <= LEAP
        if way.problem:
            rejected += 1
            continue
        for row, place, rotation in zip(way.positions, places, rotations):
            here, turned = arm.pose(row)
            assert np.linalg.norm(here - place) < 0.001
            assert degrees(turned, rotation) < 0.5
    assert rejected < 0.1 * CHUNKS, 'all of them can be followed: joints made them'


@needs_pinocchio
def test_a_step_that_joints_cannot_make_ends_the_way_there():
    arm = made('ur5e')
    begin, (lower, upper) = np.array(arms.AT_WORK['ur5e']), ends('ur5e')
    place, rotation = arm.pose(begin)
    places = place + np.linspace(0, 2, 50)[:, None] * np.array([1.0, 0, 0])
    way = follow(arm, begin, places, np.repeat(rotation[None], 50, 0), lower, upper)
    assert re.fullmatch(r'step \d+: the tool stays .* mm and .* degrees away from .*: out of '
                        'reach, or too few joints for this direction', way.problem)
    last = int(way.problem.split(':')[0].removeprefix('step '))
    assert 5 < last < 45, 'it goes as far as it can'
    np.testing.assert_array_equal(way.positions[last:], np.repeat(
        way.positions[last - 1][None], 50 - last, 0))


@needs_pinocchio
def test_a_joint_at_its_limit_is_told():
    arm = made('piper')
    lower, upper = ends('piper')
    begin = np.array(arms.AT_WORK['piper'])
    begin[4] = upper[4] - 0.02
    target = begin + [0, 0, 0, 0, 0.3, 0]
    place, rotation = arm.pose(target)
    _, problem = reach(arm, begin, place, rotation, lower, upper)
    assert 'joint5' in problem and 'at the limit' in problem


@needs_pinocchio
def test_a_redundant_arm_goes_on_with_its_other_joints_where_one_is_at_its_limit():
    arm, (lower, upper) = made('panda'), ends('panda')
    begin = np.array(arms.AT_WORK['panda'])
    upper[0] = begin[0]  # the first cannot go further
    place, rotation = arm.pose(begin)
    places = place + np.linspace(0, 0.1, 50)[:, None] * np.array([0.0, 1.0, 0])
    way = follow(arm, begin, places, np.repeat(rotation[None], 50, 0), lower, upper)
    assert not way.problem and way.positions[:, 0].max() <= upper[0] + 1e-12
    assert np.linalg.norm(arm.pose(way.positions[-1])[0] - places[-1]) < 0.001


@needs_pinocchio
@pytest.mark.parametrize('bent, thrown', [(0.001, True), (0.02, True), (0.1, False)])
def test_a_singularity_does_not_throw_the_arm(bent, thrown):
    """The wrist is straight: to turn about the missing axis two joints would have to fly."""
    arm, (lower, upper) = made('ur5e'), ends('ur5e')
    begin = np.array([0.3, -1.6, 1.9, -1.8, bent, 0.2])
    place, rotation = arm.pose(begin)
    axis = np.linalg.svd(arm.jacobian(begin)[3:, 3:])[0][:, 2]  # that the wrist cannot turn about
    turned = matrices(np.linspace(0, 0.2, 50)[:, None] * axis, 'axis_angle') @ rotation
    way = follow(arm, begin, np.repeat(place[None], 50, 0), turned, lower, upper)
    steps = np.abs(np.diff(np.vstack([begin, way.positions]), axis=0))
    assert steps.max() <= LEAP
    assert ('close to a singularity' in way.problem) is thrown and bool(way.problem) is thrown


@needs_pinocchio
def test_a_redundant_arm_stands_where_its_tool_does():
    """What the joints of an arm of seven do beside the tool must not go on by itself."""
    arm, (lower, upper) = made('panda'), ends('panda')
    begin = np.array(arms.AT_WORK['panda'])
    place, rotation = arm.pose(begin)
    away = 0.02 * np.minimum(np.arange(1, 51), 10)[:, None] * np.array([1.0, 0, 0])
    way = follow(arm, begin, place + away, np.repeat(rotation[None], 50, 0), lower, upper)
    assert not way.problem
    assert np.ptp(way.positions[10:], axis=0).max() < 1e-3


@needs_pinocchio
def test_how_many_directions_an_arm_has():
    assert made('panda').rank == made('ur5e').rank == 6
    joints = ''.join(
        f'<joint name="j{n}" type="revolute"><parent link="l{n}"/><child link="l{n + 1}"/>'
        f'<origin xyz="0.3 0 0"/><axis xyz="0 0 1"/></joint>' for n in range(4))
    links = ''.join(f'<link name="l{n}"/>' for n in range(5))
    flat = Arm(f'<robot name="flat">{links}{joints}</robot>', ('j0', 'j1', 'j2', 'j3'), 'l0', 'l4')
    assert flat.rank == 3
    begin = np.array([0.3, 0.9, -0.7, 1.1])
    target = begin + [0.2, -0.1, 0.15, 0.1]
    place, rotation = flat.pose(target)
    way = follow(flat, begin, place[None], rotation[None], np.full(4, -3.0), np.full(4, 3.0))
    assert not way.problem, 'a step of 0.2 rad is none by a singularity here'


@needs_pinocchio
def test_who_begins_outside_the_limits_may_stay_there():
    arm, (lower, upper) = made('panda'), ends('panda')
    begin = np.array(arms.AT_WORK['panda'])
    upper[5] = begin[5] - 0.01
    place, rotation = arm.pose(begin)
    way = follow(arm, begin, place[None], rotation[None], lower, upper)
    assert not way.problem
    np.testing.assert_allclose(way.positions[0], begin, atol=1e-6)


@needs_pinocchio
def test_an_arm_of_five_joints_does_what_it_can_where_it_may():
    """Without its last joint the Piper cannot hold every rotation; a wide tolerance lets it be."""
    joints = arms.joints('piper')[:5]
    urdf = arms.urdf('piper').replace('<joint name="joint6" type="revolute">',
                                      '<joint name="joint6" type="fixed">')
    arm = made('piper', urdf=urdf, joints=joints)
    lower, upper = (side[:5] for side in ends('piper'))
    begin = np.array(arms.AT_WORK['piper'][:5])
    place, rotation = arm.pose(begin)
    places = place + np.linspace(0, 0.05, 50)[:, None] * np.array([0.0, 1.0, 0])
    same = np.repeat(rotation[None], 50, 0)
    assert follow(arm, begin, places, same, lower, upper).problem
    wide = follow(arm, begin, places, same, lower, upper, Tolerance(0.001, 3.2))
    assert not wide.problem
    assert np.linalg.norm(arm.pose(wide.positions[-1])[0] - places[-1]) < 0.001


@pytest.mark.parametrize('name, grippers, tool', [
    ('ur5e', (), 'tool0'), ('panda', ('panda_finger_joint1',), 'panda_hand'),
    ('piper', ('joint7',), 'link6')])
def test_the_tool_of_an_arm_is_found(name, grippers, tool):
    commanded = (*grippers, *reversed(arms.joints(name)))
    (found,) = chains(arms.urdf(name), commanded, grippers)
    root = 'world' if name == 'ur5e' else arms.HANDS[name][0]  # what is fixed is no end
    assert found == Chain(root, tool, tuple(reversed(arms.joints(name))))


TWO = """<robot name="two">
  <joint name="lift" type="prismatic"><parent link="world"/><child link="column"/></joint>
  <joint name="to_left" type="fixed"><parent link="column"/><child link="left"/></joint>
  <joint name="l1" type="revolute"><parent link="left"/><child link="left_hand"/></joint>
  <joint name="lf" type="prismatic"><parent link="left_hand"/><child link="left_finger"/></joint>
  <joint name="flange" type="fixed"><parent link="left_hand"/><child link="left_flange"/></joint>
  <joint name="tcp" type="fixed"><parent link="left_flange"/><child link="left_tcp"/></joint>
  <joint name="sensor" type="fixed"><parent link="left_hand"/><child link="left_sensor"/></joint>
  <joint name="r1" type="revolute"><parent link="column"/><child link="right_hand"/></joint>
</robot>"""


def test_every_arm_has_a_tool_in_the_frame_that_does_not_move_it():
    joints = ('r1', 'l1', 'lf')
    assert set(chains(TWO, joints, ('lf',))) == {
        Chain('column', 'left_tcp', ('l1',)), Chain('column', 'right_hand', ('r1',))}
    assert chains(TWO, ('lift', *joints), ('lf',), ('left_finger',)) == [
        Chain('world', 'left_finger', ('lift', 'l1', 'lf'))]


CAMERA = ''.join(f'<joint name="{child}" type="fixed"><parent link="{parent}"/><child '
                 f'link="{child}"/></joint>' for parent, child in (
                     ('flange', 'camera_link'), ('camera_link', 'camera_color_frame'),
                     ('camera_color_frame', 'camera_color_optical_frame')))


@pytest.mark.parametrize('name', ['ur5e', 'panda', 'piper'])
def test_a_camera_at_the_wrist_is_no_tool(name):
    text = arms.urdf(name)
    hand = {'ur5e': 'flange', 'panda': 'panda_hand', 'piper': 'link6'}[name]
    with_camera = text.replace('</robot>', CAMERA.replace('"flange"', f'"{hand}"') + '</robot>')
    grippers = {'panda': ('panda_finger_joint1',), 'piper': ('joint7',)}.get(name, ())
    (found,) = chains(with_camera, (*arms.joints(name), *grippers), grippers)
    assert found.tool == arms.HANDS[name][1]


@pytest.mark.parametrize('tool, reason', [('nose', 'link_unknown'), ('left', 'tool_stands')])
def test_a_tool_that_cannot_be_shown_says_why(tool, reason):
    with pytest.raises(UrdfError) as caught:
        chains(TWO, ('l1',), (), (tool,))
    assert caught.value.reason == reason and f"'{tool}'" in str(caught.value)
