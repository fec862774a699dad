# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Profiles of robots, and descriptions as they come, against what these robots really have.

test/data/robots has the moving joints of public descriptions: names, kinds, limits, mimics.
"""

import json
from pathlib import Path
import re
import shutil

import numpy as np
from pi0_ros.checkpoint.mapping import parse_conversions
from pi0_ros.configuration.file import read_all_parameters
from pi0_ros.motion.limits import make_limits, RobotLimits, Rules
from pi0_ros.observation.observation import Observation
from pi0_ros.workers.factory import make_policy
import pytest
from safetensors.numpy import load_file, save_file
from support import DATA

ROOT = Path(__file__).parents[1]
PROFILES = sorted((ROOT / 'config' / 'robots').glob('*.yaml'))
URDF = {'so101': 'so101', 'ur5e_2f85': 'ur5e_2f85', 'fr3': 'fr3_hand', 'openarm': 'openarm',
        'piper': 'piper', 'aloha': None}  # whose arms have a description each
ARMS = sorted(path.stem for path in (DATA / 'robots').glob('*.urdf'))
# The policy's value, and what the robot calls it.
UNITS = {'so101': {'gripper': (100.0, np.pi), 'shoulder_pan': (90.0, np.pi / 2)},
         'ur5e_2f85': {'robotiq_85_left_knuckle_joint': (1.0, 0.7929), 'elbow_joint': (1.5, 1.5)},
         'fr3': {'fr3_finger_joint1': (1.0, 0.0), 'fr3_joint4': (-2.0, -2.0)},
         'openarm': {'openarm_left_finger_joint1': (-65.0, 0.044),
                     'openarm_right_joint4': (180.0, np.pi)},
         'aloha': {'left/left_finger': (1.0, 0.058), 'right/waist': (0.5, 0.5)},
         'piper': {'gripper': (0.05, 0.05)}}


def description(name):
    return (DATA / 'robots' / f'{name}.urdf').read_text()


def profile(path, **instead):
    return read_all_parameters(path, **{'policy': 'mock_hold', **instead})


@pytest.mark.parametrize('path', PROFILES, ids=lambda path: path.stem)
def test_a_profile_is_right_about_its_robot(path):
    config = profile(path)
    robot, name = config.robot, path.stem
    urdf = description(URDF[name]) if URDF[name] else None
    limits = make_limits(robot.commanded, config.safety.limit_rules(robot.commanded), urdf)
    assert not limits.unknown, limits.unknown
    assert (limits.upper > limits.lower).all() and np.isfinite(limits.velocity).all()
    assert {joint for group in config.groups for joint in group.joints} == set(robot.commanded)
    known = parse_conversions(robot.conversions, robot.observed)
    for joint, (theirs, ours) in UNITS[name].items():
        conversion = known.get(joint)
        scale, offset = (conversion.scale, conversion.offset) if conversion else (1.0, 0.0)
        assert ours * scale + offset == pytest.approx(theirs)
        if joint in robot.commanded and name != 'aloha':  # openpi opens it further
            row = robot.commanded.index(joint)
            assert limits.lower[row] - 1e-6 <= ours <= limits.upper[row] + 0.8
    assert limits.alone.any() and all(
        'finger' in joint or 'gripper' in joint or 'knuckle' in joint
        for joint, alone in zip(robot.commanded, limits.alone) if alone)
    head = re.match(r'(#.*\n)+', path.read_text())
    assert head and re.search(r'\b[0-9a-f]{7}\b', head[0]), 'says where its facts are from'


def test_the_limits_of_alohas_profile_are_those_of_its_description():
    config = profile(ROOT / 'config' / 'robots' / 'aloha.yaml')
    joints = config.robot.commanded
    said = make_limits(joints, config.safety.limit_rules(joints))
    real = make_limits(joints, Rules(grippers=config.safety.gripper_joints), description('aloha'))
    for what in ('lower', 'upper', 'velocity'):
        np.testing.assert_allclose(getattr(said, what), getattr(real, what), atol=1e-4)


def made_up(folder, robot):
    """Return a tiny checkpoint, as LeRobot trains it, for these joints and cameras."""
    shutil.copytree(DATA / 'lerobot_mean_std' / 'checkpoint', folder)
    width, cameras = len(robot.joint_names), [name for name in robot.cameras if name]
    for path in folder.glob('*processor.safetensors'):
        kept = {key: np.resize(value, width) if value.shape == (7,) else value
                for key, value in load_file(path).items() if 'images' not in key}
        save_file(kept, path)
    for path in (folder / 'config.json', folder / 'policy_preprocessor.json',
                 folder / 'policy_postprocessor.json'):
        content = json.loads(path.read_text())
        for part in [content, *(step['config'] for step in content.get('steps', []))]:
            for key in ('input_features', 'output_features', 'features'):
                if part.get(key):
                    part[key] = features(part[key], width, cameras)
        path.write_text(json.dumps(content))
    return folder


def features(before, width, cameras):
    out = {name: dict(value, shape=[width]) for name, value in before.items()
           if value['type'] != 'VISUAL'}
    if len(out) < len(before):
        out |= {f'observation.images.{name}': {'type': 'VISUAL', 'shape': [3, 48, 64]}
                for name in cameras}
    return out


@pytest.mark.parametrize('path', PROFILES, ids=lambda path: path.stem)
def test_a_checkpoint_of_that_robot_decides_with_its_profile(path, tmp_path):
    config = profile(path)
    folder = made_up(tmp_path / 'checkpoint', config.robot)
    config = profile(path, policy='pi0', checkpoint=str(folder), action_rate=30.0)
    policy = make_policy(config.policy, config.robot)
    policy.load()
    state = np.zeros(len(config.robot.observed))
    images = {name: np.zeros((48, 64, 3), np.uint8) for name in config.robot.cameras}
    chunk = policy.infer(Observation(10**9, state, images, dict.fromkeys(images, 10**9), 'go'))
    assert chunk.positions.shape == (50, len(config.robot.commanded))
    assert np.isfinite(chunk.positions).all()


@pytest.mark.parametrize('path', PROFILES, ids=lambda path: path.stem)
def test_a_node_is_configured_by_a_profile(path):
    rclpy = pytest.importorskip('rclpy', reason='needs ROS 2')
    from pi0_ros.ros.links import gripper
    from pi0_ros.ros.node import Pi0Node
    if gripper.actions is None and 'gripper_command' in path.read_text():
        pytest.skip('needs control_msgs')
    context = rclpy.Context()
    rclpy.init(context=context)
    node = Pi0Node(context=context, cli_args=[
        '--ros-args', '--params-file', str(path), '-p', 'policy:=mock_hold'])
    try:
        assert node.trigger_configure().name == 'SUCCESS'
        assert [each.group.joints for each in node.session.commands] == [
            group.joints for group in profile(path).groups]
    finally:
        node.close()
        node.destroy_node()
        context.try_shutdown()


# ---- descriptions of robots that were tried ----

ODD = {'piper_2024': "velocity of 'joint1'"}  # the only one of which something is not known


@pytest.mark.parametrize('name', ARMS)
def test_a_description_is_read_and_its_leaders_can_be_commanded(name):
    urdf = description(name)
    moving = re.findall(r'<joint name="([^"]+)" type="(?!fixed)', urdf)
    mimics = set(re.findall(r'<joint name="([^"]+)"(?:(?!</joint>).)*<mimic', urdf, re.S))
    leaders = [joint for joint in moving if joint not in mimics]
    limits = make_limits(leaders, Rules(), urdf)
    assert '; '.join(limits.unknown) == ODD.get(name, '')
    for joint in mimics:
        with pytest.raises(ValueError, match=f"joint '{joint}' of robot_description mimics"):
            make_limits([joint], Rules(), urdf)


@pytest.mark.parametrize('name, joint, lower, upper, velocity', [
    ('ur5e_2f85', 'elbow_joint', -2.9916, 2.9916, 3.1416),  # soft limits, 0.15 inside of pi
    ('ur5e_2f85', 'robotiq_85_left_knuckle_joint', 0.0, 0.8, 0.5),
    ('panda_hand', 'panda_joint4', -3.0718, 0.0175, 2.3925),  # soft limits
    ('panda_hand', 'panda_finger_joint1', 0.0, 0.04, 0.2),
    ('fr3_hand', 'fr3_joint4', -3.0421, -0.1518, 2.62),  # zero is outside
    ('gen3_2f85', 'joint_1', -np.inf, np.inf, 1.3963),  # continuous
    ('gen3_2f85', 'joint_2', -2.24, 2.24, 1.3963),
    ('xarm6_gripper', 'joint3', -3.927, 0.19198, 3.14),
    ('xarm6_gripper', 'drive_joint', 0.0, 0.85, 2.0),
    ('so101', 'gripper', -0.174533, 1.74533, 10.0),
    ('aloha', 'left/left_finger', 0.021, 0.057, 1.0),
    ('aloha', 'left/gripper', -np.inf, np.inf, 3.1416),  # continuous
    ('openarm', 'openarm_left_joint2', -3.3161, 0.1745, 16.7547),
    ('piper', 'joint7', 0.0, 0.035, 1.0),
    ('wxai_stationary', 'follower_left_joint_1', 0.0, 3.1416, 3.375),
    ('wx250s', 'shoulder', -1.885, 1.9897, 3.1416)])
def test_limits_of_robots_as_they_are(name, joint, lower, upper, velocity):
    limits = make_limits([joint], Rules(velocity_scale=1.0, margin=0.0), description(name))
    np.testing.assert_allclose([limits.lower[0], limits.upper[0], limits.velocity[0]],
                               [lower, upper, velocity], atol=1e-3)


def test_pipers_driver_has_a_joint_that_its_description_lacks():
    config = profile(ROOT / 'config' / 'robots' / 'piper.yaml')
    owner = RobotLimits(config.robot.commanded, config.safety.limit_rules(config.robot.commanded))
    assert owner.describe(description('piper')) and not owner.problem
    assert "has no joint 'gripper': the limits that are set for it stand in" in (
        owner.now.warnings[0])
    bare = RobotLimits(config.robot.commanded, Rules())
    bare.describe(description('piper'))
    assert "robot_description has no joint 'gripper', it has joint1, joint2" in str(bare.problem)
