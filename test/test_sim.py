# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Physics, cameras and the demonstrator of the simulated robot."""

import xml.etree.ElementTree as ElementTree

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
from pi0_ros.sim import arm, expert, world
from pi0_ros.sim.controller import TrajectoryMessage
from pi0_ros.sim.description import urdf
from pi0_ros.sim.render import camera, CAMERAS, render, RGB
from pi0_ros.sim.robot import SimulatedRobot
import pytest
from support import MS

RNG = np.random.default_rng


def over_block(index, height=world.REST_HEIGHT, aside=0.0):
    """Return a table whose open gripper stands at a block, ``aside`` metres off."""
    table = world.random_world(RNG(3))
    x, y, _ = table.blocks[0, index]
    table.joints[0, :4] = arm.inverse([np.arctan2(y, x), np.hypot(x, y) + aside, height])
    return table


def close(table, opening=expert.CLOSED, seconds=0.5):
    command = table.joints.copy()
    command[0, arm.GRIPPER] = opening
    for _ in range(round(seconds / 0.002)):
        world.step(table, command, 0.002)


@given(st.floats(-1.5, 1.5), st.floats(0.12, 0.30), st.floats(0.01, 0.18))
def test_inverse_kinematics_meets_forward(pan, radius, height):
    joints = np.append(arm.inverse([pan, radius, height]), 0.0)
    tool = arm.forward(joints)[3]
    np.testing.assert_allclose(
        tool, [radius * np.cos(pan), radius * np.sin(pan), height], atol=1e-9)
    np.testing.assert_allclose(arm.tool_polar(joints), [pan, radius, height], atol=1e-9)
    assert (joints >= arm.LOWER).all() and (joints <= arm.UPPER).all()


def test_blocks_are_reachable_and_apart_and_follow_the_seed():
    tables = world.random_world(RNG(0), 200)
    radius = np.linalg.norm(tables.blocks[..., :2], axis=-1)
    assert radius.min() >= 0.17 and radius.max() <= 0.30
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert np.linalg.norm(tables.blocks[:, a] - tables.blocks[:, b], axis=-1).min() > 0.08
    np.testing.assert_array_equal(world.random_world(RNG(0), 200).blocks, tables.blocks)


def test_joints_lag_and_obey_their_velocity_limits():
    table = world.random_world(RNG(0))
    command = table.joints + 0.01
    world.step(table, command, world.JOINT_LAG)
    np.testing.assert_allclose((command - table.joints)[0, :4], 0.01 / np.e, rtol=1e-6)
    world.step(table, table.joints + 1.0, 0.01)
    assert (table.velocity[0, :4] == pytest.approx(arm.MAX_VELOCITY[:4]))


@pytest.mark.parametrize('aside, taken', [(0.0, 1), (0.018, 1), (0.022, world.NOTHING)])
def test_gripper_takes_a_block_within_two_centimetres(aside, taken):
    table = over_block(1, aside=aside)
    close(table)
    assert table.held[0] == taken


def test_held_block_moves_with_the_hand_and_falls_when_released():
    table = over_block(2)
    close(table)
    assert table.joints[0, arm.GRIPPER] == pytest.approx(world.BLOCK_SIZE, abs=2e-4)
    command = table.joints.copy()
    command[0, :4] = arm.inverse([0.3, 0.2, 0.12])
    command[0, arm.GRIPPER] = expert.CLOSED
    for _ in range(1000):
        world.step(table, command, 0.002)
    tool = arm.forward(table.joints)[0, 3]
    assert np.linalg.norm(table.blocks[0, 2] - tool) < 0.02
    close(table, arm.GRIPPER_OPEN)
    assert table.held[0] == world.NOTHING
    assert table.blocks[0, 2, 2] == pytest.approx(world.REST_HEIGHT)


def test_closed_gripper_takes_nothing_by_touching():
    table = over_block(0, height=0.15)
    close(table, 0.0)
    command = table.joints.copy()
    command[0, :4] = over_block(0).joints[0, :4]
    for _ in range(500):
        world.step(table, command, 0.002)
    assert table.held[0] == world.NOTHING


def test_demonstrator_takes_every_named_block_and_changes_its_mind():
    tables = world.random_world(RNG(5), 300)
    target, rows = RNG(6).integers(0, 3, 300), np.arange(300)
    command = tables.joints.copy()
    for target in (target, (target + 1) % 3):
        for _ in range(300):
            command = expert.advance(tables, command, target, 0.02)
            world.step(tables, command, 0.02)
        assert (tables.held == target).all()
        assert (tables.blocks[rows, target, 2] > 0.05).all()


def test_demonstrator_holds_still_when_no_block_is_named():
    tables = world.random_world(RNG(5), 3)
    command = tables.joints.copy()
    after = expert.advance(tables, command, np.full(3, expert.NO_BLOCK), 0.02)
    np.testing.assert_array_equal(after, command)


def test_cameras_show_the_blocks_in_their_colours():
    table = world.random_world(RNG(4))
    table.joints[0, :4] = arm.inverse([1.4, 0.13, 0.17])  # out of the way
    view = camera('overhead', table.joints[0])
    pixels, _ = view.project(table.blocks[0] + [0, 0, world.BLOCK_SIZE / 2])
    image = render(table, 'overhead')
    assert image.shape == (480, 640, 3) and image.dtype == np.uint8
    for (column, row), colour in zip(pixels.astype(int), RGB.values()):
        assert tuple(image[row, column]) == colour


def test_wrist_camera_moves_with_the_hand():
    table = over_block(0, height=0.08)
    middle = render(table, 'wrist')[200:280, 300:340].reshape(-1, 3).mean(0)
    assert middle.argmax() == 0 and middle[0] > 2 * middle[1]
    assert len({render(table, name).tobytes() for name in CAMERAS}) == 3
    with pytest.raises(ValueError, match="unknown simulated camera 'left'"):
        camera('left', table.joints[0])


def test_robot_description_has_the_joints_and_limits_of_the_arm():
    joints = ElementTree.fromstring(urdf()).findall('joint')
    assert [joint.get('name') for joint in joints] == list(arm.JOINT_NAMES)
    for joint, low, high, speed in zip(joints, arm.LOWER, arm.UPPER, arm.MAX_VELOCITY):
        limit = joint.find('limit')
        assert (float(limit.get('lower')), float(limit.get('upper')),
                float(limit.get('velocity'))) == (low, high, speed)


def test_robot_follows_a_trajectory_and_resets_to_its_seed():
    robot = SimulatedRobot(11, start_ns=MS)
    blocks, home = robot.world.blocks.copy(), robot.joints.copy()
    target = home + [0.5, 0, 0, 0, 0]
    robot.accept(TrajectoryMessage(0, list(arm.JOINT_NAMES), [500 * MS], [target.tolist()], [[]]))
    robot.advance(2000 * MS)
    np.testing.assert_allclose(robot.joints, target, atol=1e-3)
    robot.reset(11, robot.now_ns)
    np.testing.assert_array_equal(robot.world.blocks, blocks)
    np.testing.assert_array_equal(robot.joints, home)
