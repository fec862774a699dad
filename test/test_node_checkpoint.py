# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The node with golden checkpoints: images and joint states in, the trainer's own actions out."""

import json
import math
import shutil

import numpy as np
import pytest
import yaml

pytest.importorskip('rclpy', reason='needs ROS 2')

from graph import Graph  # noqa: E402, I100
from pi0_ros.verbs import look  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402
from support import DATA, FIXTURES, PI05_FIXTURES  # noqa: E402
from test_weights import BASE, COLOUR, with_cameras  # noqa: E402


def live_chunk(name, state=None, **parameters):
    """Return the first ~/action_chunk [T, D] of a node that sees the observation of a fixture."""
    folder = DATA / name
    facts = json.loads((folder / 'fixture.json').read_text())
    with np.load(folder / 'observation.npz') as file:
        seen = {key: file[key] for key in file.files}
    joints = [str(joint) for joint in seen['joint_names']]
    robots = list(facts['camera_map'])
    values = {
        'policy': 'pi0', 'checkpoint': str(folder / 'checkpoint'), 'joint_names': joints,
        'device': 'cpu', 'cameras': [facts['camera_map'][robot] for robot in robots],
        'action_rate': 50.0, 'tokenizer': str(folder / facts['tokenizer']), 'dtype': 'float32'}
    if 'delta_mask' in facts:
        values['relative_joints'] = [joint for joint, delta in zip(joints, facts['delta_mask'])
                                     if delta]
    graph = Graph(**{**values, **parameters})
    robot = graph.robot
    try:
        robot.names, robot.feeds = joints, {'joints'}
        robot.position = (seen['state'].astype(float) if state is None else state).tolist()
        publishers = [robot.create_publisher(Image, f'camera_{slot}/image_raw', 2)
                      for slot in range(1, len(robots) + 1)]

        def show():
            for publisher, camera in zip(publishers, robots):
                pixels = seen[f'image.{camera}']
                message = Image(height=pixels.shape[0], width=pixels.shape[1], encoding='rgb8',
                                step=pixels.shape[1] * 3, data=pixels.tobytes())
                message.header.stamp = robot.stamp()
                publisher.publish(message)

        robot.create_timer(0.1, show)
        assert graph.node.trigger_configure().name == 'SUCCESS'
        policy = graph.node.session.policy
        noise, infer = np.load(folder / 'noise.npy'), policy.infer
        policy.infer = lambda seen, start=None, leftover=None: infer(seen, noise, leftover)
        assert graph.node.trigger_activate().name == 'SUCCESS'
        graph.wait(lambda: graph.enable().success)
        graph.wait(lambda: graph.node.session._chunks.get_subscription_count())
        graph.instruct(str(seen['instruction']))
        graph.wait(lambda: robot.chunks)
        graph.wait(lambda: 'pi0: policy' in robot.diagnostics)
        told = {pair.key: pair.value for pair in robot.diagnostics['pi0: policy'].values}
        assert told['engine'] == 'fast' and float(told['self_check']) < 1e-4
        assert int(told['kernels']) > 100 and told['device'] == 'cpu'
    finally:
        graph.close()
    return np.array([list(point.positions) for point in robot.chunks[0].points])


@pytest.mark.parametrize('name', FIXTURES + PI05_FIXTURES)
def test_the_live_node_decides_what_the_trainer_does(name):
    expected = np.load(DATA / name / 'expected_actions.npy')
    assert np.abs(live_chunk(name) - expected).max() < 1e-5 * np.abs(expected).max()


def test_the_live_node_speaks_the_units_of_the_robot():
    """The same robot with a joint in degrees, one turned round, one normalised, one shifted."""
    name = 'lerobot_mean_std'
    with np.load(DATA / name / 'observation.npz') as file:
        state, joints = file['state'].astype(float), [str(joint) for joint in file['joint_names']]
    scale, offset = np.ones(len(joints)), np.zeros(len(joints))
    scale[0], scale[1], scale[2], offset[2], offset[3] = 180 / math.pi, -1, 2.5, -1, 0.5
    rules = zip(joints, ('degree', 'sign -1', '0.4 1.2 -> 0 2', 'offset 0.5'))
    live = live_chunk(name, state=(state - offset) / scale, **{
        f'conversions.{joint}': rule for joint, rule in rules})
    expected = np.load(DATA / name / 'expected_actions.npy')
    error = live * scale + offset - expected
    assert np.abs(error).max() < 1e-5 * np.abs(expected).max()


def test_a_configuration_that_does_not_fit_is_shown_beside_the_checkpoint(capfd):
    graph = Graph(policy='pi0', checkpoint='demo', cameras=['Overhead'],
                  joint_names=['shoulder_lift', 'shoulder_pan', 'elbow_flex', 'wrist_flex'])
    try:
        assert graph.node.trigger_configure().name == 'FAILURE'
    finally:
        graph.close()
    said = capfd.readouterr().err
    for words in ("names 'Overhead', but the checkpoint's cameras are overhead, wrist, did you "
                  "mean 'overhead'?", 'has 4 joints, the checkpoint has 5 actions',
                  "has 'shoulder_lift' at position 0, the checkpoint has it at 1",
                  "(none is 'Overhead')  camera_1"):
        assert words in said, said


def test_the_parameter_file_of_inspect_configures_the_node(tmp_path, capfd):
    """Fine-tuned from pi0_base: copied unchanged but for joint names and rate."""
    folder = shutil.copytree(BASE, tmp_path / 'checkpoint')
    with_cameras(folder, dict.fromkeys(('base_0_rgb', 'left_wrist_0_rgb', 'right_wrist_0_rgb'),
                                       COLOUR),
                 {'front': 'base_0_rgb', 'wrist': 'left_wrist_0_rgb'}, ['front', 'wrist'])
    name = json.loads((BASE.parent / 'fixture.json').read_text())['tokenizer']
    assert look.main([str(folder), '--tokenizer', str(BASE.parent / name)]) == 0
    told = yaml.safe_load(capfd.readouterr().out.partition('start from:')[2])
    values = told['/**']['ros__parameters']
    values |= {'joint_names': list('abcdefgh')[:len(values['joint_names'])], 'action_rate': 30.0}
    graph = Graph(policy='pi0', device='cpu', **values)
    try:
        assert graph.node.trigger_configure().name == 'SUCCESS'
    finally:
        graph.close()
    said = capfd.readouterr().err  # one thing in each severity
    assert '[WARN]' in said and 'right_wrist_0_rgb of the base was fed by none' in said
    assert '[INFO]' in said and 'base_0_rgb' in said
