# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Actions that are velocities of joints: added up from where the robot is, and told back."""

from dataclasses import replace
import json
import shutil

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
from pi0_ros.checkpoint import reader as checkpoint
from pi0_ros.checkpoint.config import RobotConfig
from pi0_ros.checkpoint.fit import fit
from pi0_ros.checkpoint.spec import Choices
from pi0_ros.observation.observation import Observation
from pi0_ros.policy.actions import added_up
from pi0_ros.policy.config import PolicyConfig
from pi0_ros.policy.policy import Leftover
from pi0_ros.policy.provenance import configuration, configuration_hash
from pi0_ros.weights.files import CheckpointError
from pi0_ros.workers.factory import make_policy
import pytest
from safetensors.numpy import load_file, save_file
from support import DATA, PI05_FIXTURES
from test_policy import fixture_observation, load

NAME = PI05_FIXTURES[0]
FOLDER = None
JOINTS = ('a', 'b', 'c', 'd', 'e', 'grip')
VELOCITIES = {'actions': 'velocities', 'velocity_of_training': 3.0, 'position_joints': ('grip',)}


@pytest.fixture(scope='module', autouse=True)
def moving(tmp_path_factory):
    """Give the fixture's arm actions that go to and fro, as velocities do."""
    global FOLDER
    FOLDER = shutil.copytree(DATA / NAME / 'checkpoint', tmp_path_factory.mktemp('v') / 'moving')
    for path in FOLDER.glob('*processor.safetensors'):
        told = load_file(path)
        for what, value, grip in (('q01', -0.7, 0.2), ('q99', 0.5, 0.8)):
            told[f'action.{what}'][:] = [value] * 5 + [grip]
        save_file(told, path)


def policy(conversions=(), rtc='', folder=None, **changes):
    out = make_policy(
        PolicyConfig(checkpoint=str(folder or FOLDER), device='cpu',
                     dtype='float32', action_rate=15.0, tokenizer=str(DATA / NAME / 'tokenizer'),
                     **changes),
        RobotConfig(JOINTS, cameras=('front', 'wrist'), conversions=conversions), rtc)
    out.load()
    return out


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=30), st.floats(-2, 2), st.floats(0.01, 0.1))
def test_they_are_added_up_from_the_beginning_of_every_period(speeds, begin, dt):
    at, wanted = begin, []
    for speed in speeds:
        wanted.append(at)
        at += speed * dt
    got = added_up(np.array(speeds)[:, None], np.array([begin]), dt)
    np.testing.assert_allclose(got[:, 0], wanted, atol=1e-9)


def decided(made):
    noise = np.load(DATA / NAME / 'noise.npy')
    return made.infer(fixture_observation(NAME), noise).positions


def test_a_chunk_begins_where_the_robot_is_and_goes_as_fast_as_the_policy_says():
    raw, state = decided(policy()), fixture_observation(NAME).state
    got = decided(policy(**VELOCITIES))
    np.testing.assert_array_equal(got[0, :5], state[:5])
    np.testing.assert_allclose(np.diff(got[:, :5], axis=0) * 15.0, 3.0 * raw[:-1, :5], atol=1e-9)
    np.testing.assert_array_equal(got[:, 5], raw[:, 5])  # the gripper's are positions


def test_one_that_is_due_later_has_moved_until_then():
    """Row 0 of a chunk with action_offset 1 is due a period after the observation."""
    raw, state = decided(policy(action_offset=0)), fixture_observation(NAME).state
    got = decided(policy(action_offset=1, **VELOCITIES))
    np.testing.assert_allclose(got[0, :5], state[:5] + 3.0 * raw[0, :5] / 15.0, atol=1e-9)
    np.testing.assert_allclose(got[1, :5] - got[0, :5], 3.0 * raw[0, :5] / 15.0, atol=1e-9)


def test_without_a_gripper_all_are_velocities():
    path = FOLDER.parent / 'all'
    shutil.copytree(FOLDER, path)
    for file in path.glob('*processor.safetensors'):
        told = load_file(file)
        told['action.q01'][:], told['action.q99'][:] = -1, 1
        save_file(told, file)
    got = decided(policy(folder=path, **VELOCITIES | {'position_joints': ('none',)}))
    np.testing.assert_array_equal(got[0], fixture_observation(NAME).state)


def test_a_joint_that_is_mounted_the_other_way_turns_the_other_way():
    """The unit is the robot's: of a conversion only the sign counts."""
    seen = fixture_observation(NAME)
    turned = Observation(0, seen.state * np.array([-1, 1, 1, 1, 1, 1.0]), seen.images, {},
                         seen.instruction)
    noise = np.load(DATA / NAME / 'noise.npy')
    plain = policy(**VELOCITIES).infer(seen, noise).positions
    got = policy(conversions=('a: sign -1',), **VELOCITIES).infer(turned, noise).positions
    np.testing.assert_allclose(got[:, 0], -plain[:, 0], atol=1e-6)
    np.testing.assert_allclose(got[:, 1:], plain[:, 1:], atol=1e-6)
    degrees = Observation(0, seen.state * np.array([np.pi / 180, 1, 1, 1, 1, 1]), seen.images, {},
                          seen.instruction)
    got = policy(conversions=('a: degree',), **VELOCITIES).infer(degrees, noise).positions
    np.testing.assert_allclose(got[:, 0] - degrees.state[0], plain[:, 0] - seen.state[0],
                               atol=1e-6)


@pytest.mark.parametrize('rtc, known', [('identity', 9), ('trained', 4)])
def test_what_is_continued_is_told_back_as_velocities(tmp_path, rtc, known):
    folder = shutil.copytree(FOLDER, tmp_path / 'checkpoint')
    content = json.loads((folder / 'config.json').read_text())
    (folder / 'config.json').write_text(json.dumps({**content, 'rtc_training_max_delay': 6}))
    made = policy(rtc=rtc, folder=folder, **VELOCITIES)
    state = fixture_observation(NAME).state
    speeds = np.linspace(-1, 1, 9)[:, None] * np.ones(6)
    planned = added_up(np.vstack([speeds, speeds[:1]]), state, 1 / 15)
    given_, (target, weight) = made._guide(Leftover(planned, 4), state)
    assert given_ == 4
    wanted = made.spec.action.undo(np.where(made.spec.velocity, speeds / 3.0, planned[:9]))
    np.testing.assert_allclose(target[:known, :6].numpy(), wanted[:known], atol=1e-5)
    if rtc == 'identity':  # the last speed of a plan is not known
        assert not weight[9, :5].any()
    whole, _ = made._guide(Leftover(planned[:4], 4), state)
    assert whole == 3


@pytest.mark.parametrize('changes, words', [
    ({'velocity_of_training': 0.0}, "set 'velocity_of_training' to what an action of 1 was"),
    ({'position_joints': ()}, "'position_joints' to the gripper, or to .none."),
    ({'position_joints': ('x',)}, "'position_joints' names 'x', which is none of joint_names"),
    ({'relative_joints': ('a',)}, 'action 0 is relative to the state and a velocity'),
    ({'actions': 'auto'}, "are of 'actions' velocities, which is auto"),
    ({'actions': 'positions'}, "are of 'actions' velocities, which is positions"),
    ({'position_joints': ('none',)}, 'action 5 is .* always turned one way: those are positions')])
def test_what_is_not_told_whole_is_asked_for(changes, words):
    with pytest.raises((ValueError, CheckpointError), match=words):
        policy(**VELOCITIES | changes)


def test_openpis_adaptation_has_no_velocities():
    spec = replace(checkpoint.read(DATA / 'openpi_pytorch' / 'checkpoint', Choices(
        relative_joints=(), actions='positions')), velocity=np.ones(14))
    with pytest.raises(ValueError, match="'adaptation' is aloha and 'actions' is velocities"):
        fit(spec, RobotConfig(tuple(f'j{i}' for i in range(14)), adaptation='aloha',
                              cameras=('base_0_rgb',)))


def test_an_openpi_checkpoint_that_looks_like_velocities_may_be_one(tmp_path):
    folder = shutil.copytree(DATA / 'openpi_pytorch' / 'checkpoint', tmp_path / 'droid')
    path, = folder.rglob('norm_stats.json')
    content = json.loads(path.read_text())
    stats = content.get('norm_stats', content)
    stats['state']['mean'], stats['state']['std'] = [1.0] * 14, [0.2] * 14
    stats['actions']['mean'], stats['actions']['std'] = [0.0] * 14, [0.1] * 14
    path.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="Set 'actions' to velocities or end_"):
        checkpoint.read(folder, Choices(relative_joints=()))
    spec = checkpoint.read(folder, Choices(relative_joints=(), actions='velocities', velocity=3.0,
                                           positions=(6, 13)))
    assert spec.velocity.tolist() == [3.0] * 6 + [0.0] + [3.0] * 6 + [0.0]


def test_positions_stay_positions():
    assert load(DATA / NAME / 'checkpoint',
                tokenizer=str(DATA / NAME / 'tokenizer')).spec.velocity is None


def test_a_record_of_velocities_says_what_they_were():
    robot = RobotConfig(JOINTS, cameras=('front', 'wrist'))

    def decided_by(**changes):
        return configuration(PolicyConfig(policy='mock_hold', **changes), robot, 'blend',
                             'identity')

    one = decided_by(**VELOCITIES)
    assert one['velocity_of_training'] == 3.0 and one['position_joints'] == ['grip']
    assert configuration_hash(one) != configuration_hash(
        decided_by(**VELOCITIES | {'velocity_of_training': 1.0}))
    assert 'actions' not in decided_by()  # of records that were made before


def test_of_actions_of_lerobot_that_stay_around_zero_is_a_warning(tmp_path):
    """Statistics of states around 1.5, actions around 0."""
    folder = shutil.copytree(FOLDER, tmp_path / 'checkpoint')
    for file in folder.glob('*processor.safetensors'):
        told = load_file(file)
        told['observation.state.q01'][:], told['observation.state.q99'][:] = 1.0, 2.0
        told['action.q01'][:], told['action.q99'][:] = -0.3, 0.3
        save_file(told, file)
    told = ' '.join(checkpoint.read(folder).warnings)
    assert 'its actions do not look like positions: actions 0, 1, 2, 3, 4, 5 are around 0' in told
    assert not checkpoint.read(folder, Choices(actions='positions')).warnings
