# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Robots in MuJoCo: what their drivers tell, how their controllers move them, what they take."""

import importlib.util
from pathlib import Path
import subprocess
import sys

import numpy as np
from pi0_ros.motion.limits import make_limits, Rules
from pi0_ros.sim.controller import TrajectoryMessage, TrajectoryRejected
import pytest
from support import DATA, MS

HERE = importlib.util.find_spec('mujoco') is not None
needs = pytest.mark.skipif(not HERE, reason='needs requirements/mujoco.txt')
NAMES = ('so101', 'aloha')


@pytest.fixture
def robot(request):
    from pi0_ros.physics.models import MODELS
    from pi0_ros.physics.robot import PhysicsRobot
    made = PhysicsRobot(MODELS[request.param])
    yield made
    made.close()


each = pytest.mark.parametrize('robot', NAMES, indirect=True)


def follow(robot, poses, seconds=2.0):
    """Let the controllers lead through poses, as mock_scripted does; return where it went."""
    at = robot.joints
    for pose in poses:
        for step in range(round(seconds * 50)):
            ease = (1 - np.cos(np.pi * (step + 1) / (seconds * 50))) / 2
            place = at + (pose - at) * ease
            for controller, group in zip(robot.controllers, robot.groups):
                controller.hold(place[[robot.joint_names.index(name) for name in group.joints]])
            robot.advance(robot.now_ns + 20 * MS)
        at = pose


@needs
@each
def test_it_stands_where_its_controllers_hold_it(robot):
    begun = robot.joints
    np.testing.assert_allclose(begun, robot.model.home, atol=0.05)  # its weight
    robot.advance(2 * 10**9)
    assert np.abs(robot.joints - begun).max() < 0.005
    assert np.abs(robot.velocity).max() < 1e-3


@needs
@each
def test_the_same_is_the_same_in_many_steps_as_in_one(robot):
    for at in range(0, 500, 3):
        robot.advance(at * MS)
    robot.advance(500 * MS)
    places = robot.joints
    robot.reset(0, 0)
    robot.advance(500 * MS)
    np.testing.assert_array_equal(places, robot.joints)


@needs
@each
@pytest.mark.parametrize('seed', range(3))
def test_what_lies_there_is_taken(robot, seed):
    from pi0_ros.physics.grasp import grasp
    robot.reset(seed, 0)
    lay = robot.thing
    assert robot.taken is None
    follow(robot, grasp(robot))
    assert robot.taken == robot.model.thing and robot.thing[2] > lay[2] + 0.03


@needs
@each
def test_a_grasp_that_does_not_close_takes_nothing(robot):
    from pi0_ros.physics.grasp import grasp
    poses = grasp(robot)
    poses[:, robot.joint_names.index(robot.model.hand.gripper)] = robot.model.hand.open
    follow(robot, poses)
    assert robot.taken is None


@needs
@pytest.mark.parametrize('robot', ['so101'], indirect=True)
def test_its_description_has_the_limits_of_the_real_one(robot):
    rules = Rules(grippers=('gripper',))
    said = make_limits(robot.joint_names, rules, robot.urdf())
    real = make_limits(robot.joint_names, rules, (DATA / 'robots' / 'so101.urdf').read_text())
    np.testing.assert_allclose(said.lower, real.lower, atol=1e-3)
    np.testing.assert_allclose(said.upper, real.upper, atol=1e-3)


@needs
@pytest.mark.parametrize('robot', ['so101'], indirect=True)
def test_its_gripper_is_told_as_its_driver_tells_it(robot):
    low, high = robot.mjcf.joint('gripper').range
    robot._data.joint('gripper').qpos[0] = low
    assert robot.joints[5] == pytest.approx(0.0)
    robot._data.joint('gripper').qpos[0] = high
    assert robot.joints[5] == pytest.approx(np.pi)


@needs
@pytest.mark.parametrize('robot', ['so101'], indirect=True)
def test_a_controller_refuses_joints_of_another(robot):
    names, places = list(robot.joint_names), robot.joints.tolist()
    message = TrajectoryMessage(0, names, [10**9], [places], [[0.0] * len(names)])
    with pytest.raises(TrajectoryRejected, match="'gripper' is not one of"):
        robot.accept(message, 0)


@needs
@each
def test_both_fingers_move(robot):
    name = robot.model.hand.gripper
    joint = robot.model.joints[robot.joint_names.index(name)]
    pose = robot.joints
    pose[robot.joint_names.index(name)] = robot.model.hand.open
    follow(robot, [pose])
    for moved, sign in joint.moves:
        place = sign * robot._data.joint(moved).qpos[0]
        scale = robot._scale[robot.joint_names.index(name)]
        offset = robot._offset[robot.joint_names.index(name)]
        assert offset + scale * place == pytest.approx(robot.model.hand.open, abs=0.02)


@needs
@each
def test_every_camera_sees_the_robot_move(robot):
    from pi0_ros.physics.grasp import grasp
    before = {name: robot.image(name).copy() for name in robot.cameras}
    follow(robot, grasp(robot)[:2])
    for name, image in before.items():
        assert image.shape == (240, 320, 3) and image.std() > 5
        moved = (image != robot.image(name)).any(axis=-1).mean()
        assert moved > 0.02 or 'left' in name  # the arm that stays


@needs
def test_the_untrained_checkpoint_is_in_the_units_of_the_profile(tmp_path):
    pytest.importorskip('rclpy', reason='needs ROS 2')
    from pi0_ros.configuration.file import read_all_parameters
    from pi0_ros.observation.observation import Observation
    from pi0_ros.physics.models import MODELS
    from pi0_ros.ros.demo.trial import untrained
    from pi0_ros.workers.factory import make_policy
    model, path = MODELS['so101'], Path(__file__).parents[1] / 'config' / 'robots' / 'so101.yaml'
    folder = untrained(model, path, tmp_path / 'checkpoint')
    config = read_all_parameters(path, policy='pi0', checkpoint=str(folder), action_rate=20.0)
    policy = make_policy(config.policy, config.robot)
    policy.load()
    images = {name: np.zeros((48, 64, 3), np.uint8) for name in model.cameras}
    home = np.array(model.home)
    chunk = policy.infer(Observation(10**9, home, images, dict.fromkeys(images, 10**9), 'go'))
    assert np.abs(chunk.positions - home).max() < 1.0  # some standard deviations of 0.1 rad


@needs
@pytest.mark.live
@pytest.mark.xdist_group('live')
@pytest.mark.parametrize('name', NAMES)
def test_the_node_takes_the_thing_with_the_profile(name, tmp_path):
    pytest.importorskip('rclpy', reason='needs ROS 2')
    from pi0_ros.physics.models import MODELS
    from pi0_ros.ros.demo.trial import trial
    summary, recording = trial(MODELS[name], 'mock_scripted', 1, tmp_path)
    assert summary['taken'] == MODELS[name].thing and summary['faults'] == 0
    for picture in ('joints.png', 'cameras.png', f'{next(iter(MODELS[name].cameras))}.gif'):
        assert (tmp_path / picture).stat().st_size > 5000


@pytest.mark.skipif(HERE, reason='MuJoCo is installed')
@pytest.mark.parametrize('verb', ['sim', 'demo'])
def test_without_mujoco_a_sentence_says_how_it_is_installed(verb):
    pytest.importorskip('rclpy', reason='needs ROS 2')
    done = subprocess.run([sys.executable, '-m', 'pi0_ros', verb, '--robot', 'so101'],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert 'pip install --no-deps -r requirements/mujoco.txt' in done.stderr
    assert 'Traceback' not in done.stderr
