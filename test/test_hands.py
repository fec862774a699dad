# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Policies whose state and actions are poses of a tool: what they read, and what joints do."""

from dataclasses import replace
import json
import shutil

import arms
from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
from pi0_ros.checkpoint import reader as checkpoint
from pi0_ros.checkpoint.config import RobotConfig
from pi0_ros.checkpoint.fit import fit
from pi0_ros.checkpoint.mapping import parse_conversions
from pi0_ros.checkpoint.normalise import lerobot_normaliser, openpi_normaliser
from pi0_ros.checkpoint.spec import Choices
from pi0_ros.configuration.advice import advised
from pi0_ros.configuration.file import read_all_parameters
from pi0_ros.kinematics.hands import parse_hands
from pi0_ros.kinematics.rotations import matrices, numbers, turn
from pi0_ros.kinematics.urdf import UrdfError
from pi0_ros.motion.limits import RobotLimits, Rules
from pi0_ros.observation.observation import Observation
from pi0_ros.policy.config import PolicyConfig
from pi0_ros.policy.hands import HandPolicy, Seen
from pi0_ros.policy.policy import ActionChunk, Leftover
from pi0_ros.verbs import infer, look
from pi0_ros.weights.files import CheckpointError
from pi0_ros.workers.factory import make_policy
import pytest
from safetensors.numpy import load_file, save_file
from support import DATA, PI05_FIXTURES
from test_kinematics import made, needs_pinocchio

pytestmark = needs_pinocchio
NAME = PI05_FIXTURES[0]
ARM = arms.joints('panda')
GRIPPER = 'panda_finger_joint1'
HOME = np.array([*arms.AT_WORK['panda'], 0.03])
TOOL = ('panda_hand: frame panda_link0, joints ' + ' '.join(ARM) + ', rotation ',)
POSE, DELTA = 'end_effector_pose', 'end_effector_delta'
STEPS = {'actions': DELTA, 'step_of_training': 0.05, 'turn_of_training': 0.5}
PERIOD_NS = 50_000_000


def robot(rotation='axis_angle', states=(), **more):
    return RobotConfig(('panda_hand', GRIPPER), states, cameras=('front', 'wrist'),
                       end_effectors=(TOOL[0] + rotation,), **more)


def body(urdf=None, lower=None):
    limits = RobotLimits((*ARM, GRIPPER), Rules(margin=0.0))
    limits.describe(urdf or arms.urdf('panda'))
    assert not limits.problem
    return limits.body


class Says:
    """A policy inside that says what it is told to say, and remembers what it read."""

    loaded, dt_ns = True, PERIOD_NS

    def __init__(self, positions):
        self.positions, self.offset = np.asarray(positions, float), 0

    def infer(self, observation, noise=None, leftover=None):
        self.read, self.leftover = observation.state, leftover
        return ActionChunk(observation.t_obs_ns, self.dt_ns, self.positions,
                           observation.instruction, offset=self.offset)


def hands(positions, config=PolicyConfig(actions=POSE), of=None, seen=Seen({}, {}), known=None):
    inner = Says(positions)
    return inner, HandPolicy(inner, config, of or robot(), seen, known or body())


def ask(policy, state=HOME, leftover=None):
    return policy.infer(Observation(5, np.asarray(state, float), {}, {}, 'go'), None, leftover)


def straight(rotation_kind='axis_angle', metres=0.1):
    """Return a chunk of poses that lead the tool straight to the side, and where it begins."""
    place, rotation = made('panda').pose(HOME[:7])
    written = numbers(rotation, rotation_kind)
    return np.array([[*(place + [0, metres * k / 49, 0]), *written, 0.01] for k in range(50)])


# ---- what is said of tools ----

def test_a_tool_is_told_in_a_line():
    hand = parse_hands([TOOL[0] + 'rpy, state_rotation quaternion_xyzw'])['panda_hand']
    assert hand.joints == ARM and hand.frame == 'panda_link0'
    assert hand.numbers(False) == tuple(
        f'panda_hand.{end}' for end in ('x', 'y', 'z', 'roll', 'pitch', 'yaw'))
    assert len(hand.numbers(True)) == 7
    assert hand.numbers(False, steps=True)[0] == 'panda_hand.step.x'


@pytest.mark.parametrize('text, why', [
    ('panda_hand', 'it has no colon'), ('tool0: frame base', 'it lacks joints, rotation'),
    ('tool0: frame base, joints a b, rotation euler', "rotation 'euler' of 'tool0', expected one"),
    ('tool0: frame base, joints a a, rotation rpy', "has 'a' twice"),
    ('tool0: frame base, joints a, rotation rpy, speed 3', "'speed' is none of frame")])
def test_a_tool_that_is_not_told_whole_is_refused(text, why):
    with pytest.raises(ValueError, match=why):
        parse_hands([text])


def test_two_tools_share_no_joint():
    with pytest.raises(ValueError, match="has 'b' twice"):
        parse_hands(['one: frame base, joints a b, rotation rpy',
                     'two: frame base, joints b c, rotation rpy'])


def test_the_robot_has_the_tools_joints_and_the_network_its_numbers():
    it = robot('rotation_6d', states=('panda_hand', GRIPPER, 'spare'))
    assert it.commanded == (*ARM, GRIPPER) and it.observed == (*ARM, GRIPPER, 'spare')
    inner = it.in_numbers(False)
    assert len(inner.joint_names) == 10 and inner.joint_names[-1] == GRIPPER
    assert inner.states == (*inner.joint_names, 'spare') and not inner.end_effectors
    assert it.in_numbers(True).joint_names[:2] == ('panda_hand.step.x', 'panda_hand.step.y')
    assert RobotConfig(('a',)).in_numbers(False).joint_names == ('a',)


@pytest.mark.parametrize('changes, why', [
    ({'end_effectors': {}}, "set 'end_effectors' to the tools, and put their links in"),
    ({'actions': 'auto'}, "'joint_names' has 'panda_hand' of 'end_effectors': set 'actions' to"),
    ({'actions': DELTA}, "'actions' is end_effector_delta: set 'step_of_training'"),
    ({'actions': DELTA, 'step_of_training': 1.0, 'turn_of_training': 1.0}, "'step_axes' to frame"),
    ({'adaptation': 'aloha'}, "'adaptation' is aloha, which is for joints"),
    ({'step_axes': 'tool'}, "'step_of_training', 'turn_of_training' and 'step_axes' are of"),
    ({'end_effectors': {'panda_hand': 'frame a, joints b, rotation rpy',
                        'other': 'frame a, joints c, rotation rpy'}},
     "has 'other', which neither 'joint_names' nor 'state_names' names"),
    ({'end_effectors': {'panda_hand': 'frame a'}}, 'it lacks joints, rotation')])
def test_a_configuration_that_is_not_whole_is_refused(changes, why):
    given = {'checkpoint': 'demo', 'joint_names': ['panda_hand', GRIPPER], 'cameras': ['front'],
             'actions': POSE,
             'end_effectors': {'panda_hand': 'frame a, joints b, rotation rpy'}, **changes}
    tools = given.pop('end_effectors')
    given |= {f'end_effectors.{link}': text for link, text in tools.items()}
    with pytest.raises(ValueError) as caught:
        config = read_all_parameters(None, **given)
        config.policy.choices(config.robot.in_numbers(True))
    assert why in str(caught.value)


def test_state_and_action_of_one_joint_may_have_units_of_their_own():
    texts = ['grip: 0 0.04 -> 0 1', 'action grip: 0.04 0 -> -1 1', 'state *: sign -1']
    assert parse_conversions(texts, ['a', 'grip'], 'action')['grip'].scale == pytest.approx(-50)
    states = parse_conversions(texts, ['a', 'grip'], 'state')
    assert states['grip'].scale == pytest.approx(25) and states['a'].scale == -1
    assert 'a' not in parse_conversions(texts, ['a', 'grip'], 'action')
    assert parse_conversions(['state of_joy: degree'], ['of_joy'])['of_joy'].scale > 50
    with pytest.raises(ValueError, match="names joint 'b'"):
        parse_conversions(['action b: degree'], ['a'], 'state')


# ---- what it reads ----

@pytest.mark.parametrize('kind', ['axis_angle', 'rpy', 'rotation_6d', 'quaternion_wxyz'])
def test_it_reads_where_the_tool_is(kind):
    inner, policy = hands(straight(kind), of=robot(kind))
    ask(policy)
    place, rotation = made('panda').pose(HOME[:7])
    np.testing.assert_allclose(inner.read[:3], place)
    np.testing.assert_allclose(matrices(inner.read[3:-1], kind), rotation, atol=1e-9)
    assert inner.read[-1] == HOME[-1]


def test_it_reads_a_turn_as_training_wrote_it():
    place, rotation = made('panda').pose(HOME[:7])
    plain = numbers(rotation, 'axis_angle')
    mean = plain * (1 - 2 * np.pi / np.linalg.norm(plain))  # the other way around
    names = robot().in_numbers(False).states
    seen = Seen(dict(zip(names, [*place, *mean, 0.02])), dict.fromkeys(names, 0.1))
    inner, policy = hands(straight(), seen=seen)
    assert not ask(policy).unlike
    np.testing.assert_allclose(inner.read[3:6], mean, atol=1e-6)


def test_a_state_of_a_tool_goes_with_actions_that_are_joints():
    of = RobotConfig((*ARM, GRIPPER), ('panda_hand', GRIPPER), end_effectors=(
        TOOL[0] + 'axis_angle',))
    said = np.tile(HOME, (50, 1))
    inner, policy = hands(said, PolicyConfig(), of)
    chunk = ask(policy)
    np.testing.assert_array_equal(chunk.positions, said)
    names = of.in_numbers(False).observed
    place, _ = made('panda').pose(HOME[:7])
    np.testing.assert_allclose([inner.read[names.index(f'panda_hand.{end}')] for end in 'xyz'],
                               place)
    assert chunk.offset == 0 and not chunk.preview


# ---- what joints do ----

@pytest.mark.parametrize('kind', ['axis_angle', 'rpy', 'rotation_6d', 'rotation_6d_rows',
                                  'quaternion_xyzw', 'quaternion_wxyz'])
def test_the_tool_goes_where_the_policy_says(kind):
    said = straight(kind)
    _, policy = hands(said, of=robot(kind))
    chunk = ask(policy)
    assert not chunk.problem and chunk.positions.shape == (50, 8)
    for row, wanted in zip(chunk.positions, said):
        place, rotation = made('panda').pose(row[:7])
        np.testing.assert_allclose(place, wanted[:3], atol=0.001)
        assert np.linalg.norm(turn(rotation @ matrices(wanted[3:-1], kind).T)) < 0.0087
    np.testing.assert_array_equal(chunk.positions[:, 7], 0.01)
    assert "'panda_hand' would go from [0.44" in chunk.preview
    assert 'at most 100 mm and 0 degrees away' in chunk.preview and 'within 2.5 s' in chunk.preview


@pytest.mark.parametrize('axes', ['frame', 'tool'])
def test_steps_are_added_up_from_where_the_tool_is(axes):
    said = np.zeros((20, 7))
    said[:, 0], said[:, 5], said[:, 6] = 0.1, 0.04, 0.02   # 5 mm along x, 0.02 rad about z
    inner, policy = hands(said, PolicyConfig(**STEPS, step_axes=axes))
    chunk = ask(policy)
    assert not chunk.problem and chunk.offset == 1, 'a step is what happens in its period'
    place, rotation = made('panda').pose(HOME[:7])
    np.testing.assert_array_equal(chunk.positions[:, 7], 0.02)
    for row in chunk.positions:
        change = matrices(np.array([0, 0, 0.02]), 'axis_angle')
        step = np.array([0.005, 0, 0])
        place = place + (rotation @ step if axes == 'tool' else step)
        rotation = rotation @ change if axes == 'tool' else change @ rotation
        here, turned = made('panda').pose(row[:7])
        np.testing.assert_allclose(here, place, atol=0.001)
        assert np.linalg.norm(turn(turned @ rotation.T)) < 0.0087


@settings(max_examples=20, deadline=None)
@given(st.sampled_from([(POSE, 'axis_angle', 'auto'), (POSE, 'rotation_6d', 'auto'),
                        (DELTA, 'axis_angle', 'frame'), (DELTA, 'rpy', 'tool')]),
       st.integers(0, 10**6))
def test_what_is_planned_is_told_as_the_network_would_have_said_it(case, seed):
    """Joints of a chunk, told back as what is left over, are the numbers of that chunk."""
    actions, kind, axes = case
    random = np.random.default_rng(seed)
    if actions == POSE:
        config, said = PolicyConfig(actions=POSE), straight(kind, 0.05)
    else:
        config = PolicyConfig(**STEPS, step_axes=axes)
        said = np.concatenate([0.1 * random.uniform(-1, 1, (50, 6)), np.full((50, 1), 0.02)], 1)
    inner, policy = hands(said, config, robot(kind))
    chunk = ask(policy)
    assert not chunk.problem
    ask(policy, leftover=Leftover(chunk.positions[:30], 3))
    assert inner.leftover.delay == 3
    # Joints reach a pose within 5 % of the tolerance: of a step that is 0.1 mm of its unit.
    np.testing.assert_allclose(inner.leftover.positions, said[:30],
                               atol=2e-4 if actions == POSE else 5e-3)


def test_a_pose_out_of_reach_drops_the_chunk_and_says_why():
    _, policy = hands(straight(metres=1.5))
    chunk = ask(policy)
    assert chunk.problem.startswith("'panda_hand' cannot follow, step ")
    assert 'mm and' in chunk.problem and np.isfinite(chunk.positions).all()
    np.testing.assert_array_equal(chunk.positions[-1, :7], chunk.positions[-2, :7])


def test_limits_that_are_set_are_kept():
    limits = RobotLimits((*ARM, GRIPPER), Rules(margin=0.0, tighter={
        ARM[0]: {'lower': -0.02, 'upper': 0.02}, ARM[2]: {'lower': 0.05, 'upper': 0.12}}))
    limits.describe(arms.urdf('panda'))
    _, policy = hands(straight(metres=0.3), known=limits.body)
    chunk = ask(policy)
    assert chunk.positions[:, 0].max() <= 0.02 + 1e-9 and chunk.positions[:, 2].max() <= 0.12


def test_what_is_no_rotation_or_no_number_moves_nothing():
    said = straight('rotation_6d')
    said[10, 3:9] = 0.0
    _, policy = hands(said, of=robot('rotation_6d'))
    chunk = ask(policy)
    assert 'axis without length' in chunk.problem
    np.testing.assert_array_equal(chunk.positions[:, :7], np.tile(HOME[:7], (50, 1)))
    said[10, 3] = np.nan
    chunk = ask(hands(said, of=robot('rotation_6d'))[1])
    assert chunk.positions.shape == (50, 8) and np.isnan(chunk.positions).all()


def test_a_tool_that_training_never_saw_there_is_told():
    names = robot().in_numbers(False).states
    place, rotation = made('panda').pose(HOME[:7])
    mean = [*place, *numbers(rotation, 'axis_angle'), 0.02]
    spread = dict.fromkeys(names, 0.03)
    seen = Seen(dict(zip(names, mean)), spread)
    assert not ask(hands(straight(), seen=seen)[1]).unlike
    seen = Seen(dict(zip(names, [*(place + [0.4, 0, 0]), *mean[3:]])), spread)
    told = ask(hands(straight(), seen=seen)[1]).unlike
    assert told.startswith("'panda_hand.x' is 0.442 in 'panda_link0', in training it was 0.842 ")


def test_how_far_training_went_depends_on_its_statistics():
    for mode, far in (('MEAN_STD', 4.0), ('QUANTILES', 2.0), ('MIN_MAX', 1.5),
                      ('IDENTITY', np.inf)):
        one = {'MEAN_STD': {'mean': 0, 'std': 1}, 'IDENTITY': {}}.get(
            mode, {'q01': -1, 'q99': 1, 'min': -1, 'max': 1})
        assert lerobot_normaliser(mode, 's', {f's.{key}': np.array([float(value)])
                                              for key, value in one.items()}, 1).far == far
    assert openpi_normaliser('s', {'q01': [0], 'q99': [1]}, 1, quantiles=True).far == 2.0
    names = robot().in_numbers(False).states
    place, rotation = made('panda').pose(HOME[:7])
    mean = dict(zip(names, [*(place + [0.45, 0, 0]), *numbers(rotation, 'axis_angle'), 0.02]))
    for far, told in ((2.0, False), (1.5, True)):
        seen = Seen(mean, dict.fromkeys(names, 0.25), far)
        assert bool(ask(hands(straight(), seen=seen)[1]).unlike) is told


def test_a_plan_is_told_on_the_branch_that_training_was_on():
    """A tool that points down: 3.1 rad one way and 3.2 the other are one turn, two numbers."""
    said, names = straight(), robot().in_numbers(False).commanded
    angle = np.linalg.norm(said[0, 3:6])
    said[:, 3:6] *= 1 - 2 * np.pi / angle
    seen = Seen({}, {}, 4.0, dict(zip(names, said[0])))
    inner, policy = hands(said, seen=seen)
    chunk = ask(policy)
    ask(policy, leftover=Leftover(chunk.positions[:20], 2))
    np.testing.assert_allclose(inner.leftover.positions[:, 3:6], said[:20, 3:6], atol=1e-3)


def test_with_steps_the_gripper_is_told_when_it_is_due():
    """Rows of such a chunk are due a period later; the gripper's positions are not."""
    said = np.zeros((20, 7))
    said[:, 6] = np.linspace(0.0, 0.038, 20)
    inner, policy = hands(said, PolicyConfig(**STEPS, step_axes='frame'))
    chunk = ask(policy)
    np.testing.assert_array_equal(chunk.positions[:, 7], [*said[1:, 6], said[-1, 6]])
    ask(policy, leftover=Leftover(chunk.positions[:10], 2))
    np.testing.assert_array_equal(inner.leftover.positions[1:, 6], said[1:10, 6])
    inner.offset = 1
    chunk = ask(policy)
    assert chunk.offset == 1
    np.testing.assert_array_equal(chunk.positions[:, 7], said[:, 6])


def test_a_description_that_is_refused_says_why():
    limits = RobotLimits((*ARM, GRIPPER), Rules())
    limits.describe('<sdf/>')
    _, policy = hands(straight(), known=limits.body)
    for use in (policy.check, lambda: ask(policy)):
        with pytest.raises(UrdfError, match='is an SDF'):
            use()


def test_a_pattern_means_joints_and_not_the_numbers_of_a_pose():
    of = robot(conversions=('*: degree', 'panda_hand.[xyz]: 0 1 -> 0 1000')).in_numbers(False)
    got = parse_conversions(of.conversions, of.observed, 'state', of.of_tools)
    assert set(got) == {GRIPPER, 'panda_hand.x', 'panda_hand.y', 'panda_hand.z'}
    assert parse_conversions(('*: degree',), ('gantry.x',))['gantry.x'].scale > 50


def test_without_a_description_it_says_so_and_takes_the_next_that_comes():
    limits = RobotLimits((*ARM, GRIPPER), Rules())
    _, policy = hands(straight(), known=limits.body)
    with pytest.raises(UrdfError, match='need robot_description, which has not come'):
        ask(policy)
    limits.describe(arms.urdf('panda'))
    assert not ask(policy).problem
    before = ask(policy).positions
    limits.describe(arms.urdf('panda').replace('0 0 0.107', '0 0 0.207').replace('0.0584', '0.1'))
    assert np.abs(ask(policy).positions - before).max() > 0.1, 'the tool is 10 cm further out now'


def test_advice_names_the_parameters():
    assert "parameter 'end_effectors'" in advised(UrdfError('link_unknown', 'no link'))


# ---- with a checkpoint ----

@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return of_poses(tmp_path_factory.mktemp('h') / 'poses')


def of_poses(out, far=1.0):
    """Return a checkpoint whose state and actions are poses of the Panda's hand."""
    shutil.copytree(DATA / NAME / 'checkpoint', out)
    config = json.loads((out / 'config.json').read_text())
    config['input_features']['observation.state']['shape'] = [7]
    config['output_features']['action']['shape'] = [7]
    (out / 'config.json').write_text(json.dumps(config))
    place, rotation = made('panda').pose(HOME[:7])
    mean = np.array([*place, *numbers(rotation, 'axis_angle'), 0.02])
    reach = far * np.array([0.06] * 3 + [0.1] * 3 + [0.02])
    for path in out.glob('*processor.safetensors'):
        told = load_file(path)
        for name in ('observation.state', 'action'):
            for what in [key for key in told if key.startswith(f'{name}.')]:
                kind = what.rpartition('.')[2]
                value = {'q01': mean - reach, 'q99': mean + reach, 'min': mean - reach,
                         'max': mean + reach, 'mean': mean, 'std': reach}.get(kind)
                if value is None and told[what].shape[-1:] == (6,):
                    value = np.zeros(7)
                if value is not None:
                    told[what] = value.astype(told[what].dtype)
        save_file(told, path)
    for path in out.glob('policy_*processor.json'):
        content = json.loads(path.read_text())
        for step in content['steps']:
            for feature in step.get('config', {}).get('features', {}).values():
                if feature['shape'] == [6]:
                    feature['shape'] = [7]
        path.write_text(json.dumps(content))
    return out


def configured(folder, **changes):
    return PolicyConfig(checkpoint=str(folder), device='cpu', dtype='float32', action_rate=20.0,
                        tokenizer=str(DATA / NAME / 'tokenizer'), actions=POSE, **changes)


def pictures():
    grey = np.full((64, 64, 3), 128, np.uint8)
    return {'front': grey, 'wrist': grey}


@pytest.mark.parametrize('worker', ['thread', 'process'])
def test_a_checkpoint_of_poses_moves_joints(folder, worker):
    policy = make_policy(configured(folder, worker=worker), robot(), body=body())
    try:
        policy.load()
        policy.warm_up()
        chunk = policy.infer(Observation(5, HOME, pictures(), {}, 'go'))
    finally:
        policy.close()
    assert chunk.positions.shape[1] == 8 and np.isfinite(chunk.positions).all()
    assert chunk.preview.startswith("'panda_hand' would go from [0.442 0.049 0.551] to ")
    assert not chunk.unlike


def test_its_actions_are_what_joints_do(folder):
    """The same noise without tools gives the raw numbers; joints bring the tool there."""
    noise = np.random.default_rng(3).standard_normal((50, 32))
    policy = make_policy(configured(folder), robot(), body=body())
    policy.load()
    noise = noise[:policy.noise_shape[0]]
    chunk = policy.infer(Observation(5, HOME, pictures(), {}, 'go'), noise)
    raw = policy.inner.infer(Observation(
        5, np.array([*made('panda').pose(HOME[:7])[0],
                     *numbers(made('panda').pose(HOME[:7])[1], 'axis_angle'), 0.03]),
        pictures(), {}, 'go'), noise).positions
    good = 0
    for row, wanted in zip(chunk.positions, raw):
        place, _ = made('panda').pose(row[:7])
        good += np.linalg.norm(place - wanted[:3]) < 0.001
    last = int(chunk.problem.split('step ')[1].split(':')[0]) if chunk.problem else len(raw)
    assert good >= last
    np.testing.assert_array_equal(chunk.positions[:, 7], raw[:, 6])


@pytest.mark.parametrize('middle, spread, actions, why', [
    (0.4, 0.1, DELTA, "set 'actions' to end_effector_pose"),
    (0.0, 0.01, POSE, "set 'actions' to end_effector_delta")])
def test_a_wrong_guess_is_refused(folder, tmp_path, middle, spread, actions, why):
    other = shutil.copytree(folder, tmp_path / 'other')
    for path in other.glob('*processor.safetensors'):
        told = load_file(path)
        for what, value in (('q01', middle - spread), ('q99', middle + spread)):
            told[f'action.{what}'][:3] = value
        save_file(told, path)
    with pytest.raises(CheckpointError, match=why):
        checkpoint.read(other, Choices(actions=actions, places=((0, 0), (1, 1), (2, 2))))
    other = {POSE: DELTA, DELTA: POSE}[actions]
    assert checkpoint.read(tmp_path / 'other', Choices(
        actions=other, places=((0, 0), (1, 1), (2, 2))))


def test_what_training_saw_is_in_the_robots_units(folder):
    of = robot(conversions=('panda_hand.x: 0 1 -> 0 1000', 'state panda_finger_joint1: 0 1 -> 0 2',
                            'panda_finger_joint1: sign -1')).in_numbers(False)
    spec = checkpoint.read(folder, configured(folder).choices(of))
    seen = Seen.of(spec, fit(spec, of), of)
    assert seen.middle['panda_hand.x'] == pytest.approx(spec.state.middle[0] / 1000)
    assert seen.spread['panda_hand.x'] == pytest.approx(spec.state.spread[0] / 1000)
    assert seen.middle[GRIPPER] == pytest.approx(spec.state.middle[6] / 2)


def params(folder, tmp_path, **changes):
    given = {'checkpoint': str(folder), 'joint_names': ['panda_hand', GRIPPER],
             'cameras': ['front', 'wrist'], 'action_rate': 20.0, 'actions': POSE,
             'tokenizer': str(DATA / NAME / 'tokenizer'),
             'end_effectors': {'panda_hand': TOOL[0].split(': ', 1)[1] + 'axis_angle'}, **changes}
    path = tmp_path / 'robot.yaml'
    path.write_text(json.dumps({'/**': {'ros__parameters': given}}))
    (tmp_path / 'panda.urdf').write_text(arms.urdf('panda'))
    return ['--params-file', str(path), '--robot-description', str(tmp_path / 'panda.urdf')]


def test_infer_gives_joints_where_it_is_told_the_robot(folder, tmp_path, capsys):
    np.savez(tmp_path / 'seen.npz', state=HOME, instruction='go',
             **{f'image.{name}': image for name, image in pictures().items()})
    words = ['--checkpoint', str(folder), '--observation', str(tmp_path / 'seen.npz'),
             '--output', str(tmp_path / 'out.npy'), *params(folder, tmp_path)]
    assert infer.main(words) == 0, capsys.readouterr().err
    said = json.loads(capsys.readouterr().out)
    assert np.load(tmp_path / 'out.npy').shape[1] == 8
    assert said['preview'].startswith("'panda_hand' would go from")
    np.savez(tmp_path / 'seen.npz', state=HOME[:7], instruction='go',
             **{f'image.{name}': image for name, image in pictures().items()})
    assert infer.main(words) == 1
    assert 'state has 7 joints, expected 8: panda_joint1' in capsys.readouterr().err


def test_inspect_shows_where_the_tool_would_go(folder, tmp_path, capsys):
    words = [str(folder), '--json', '--measure', *params(folder, tmp_path)]
    assert look.main(words) == 0, capsys.readouterr().err
    assert "'panda_hand' would go from" in json.loads(capsys.readouterr().out)['measured']['tools']
    words = [str(folder), '--json', '--measure', *params(folder, tmp_path, end_effectors={
        'panda_hand': TOOL[0].split(': ', 1)[1].replace('panda_link0', 'panda_link0')
        + 'rpy'})]
    (tmp_path / 'panda.urdf').write_text(arms.urdf('panda').replace('0 0 0.333', '0 0 2.333'))
    assert look.main(words) == 0, capsys.readouterr().err
    told = json.loads(capsys.readouterr().out)['measured']['tools']
    assert "no joints bring 'panda_hand' to the mean pose of training" in told
    del words[-2:]
    assert look.main(words) == 0
    assert 'give --robot-description' in capsys.readouterr().out


def test_a_chunk_is_another_where_the_tool_is_another(folder):
    from pi0_ros.policy.provenance import configuration

    def of(config, robot):
        return configuration(config, robot, 'rtc', 'identity')
    one = of(configured(folder), robot())
    assert one['actions'] == POSE and one['end_effectors'] == list(robot().end_effectors)
    assert of(configured(folder), robot('rpy')) != one
    assert of(replace(configured(folder), tool_tolerance=0.01), robot()) != one
    assert 'end_effectors' not in of(replace(configured(folder), actions='auto'),
                                     RobotConfig(('a',)))


# ---- live ----

@pytest.fixture
def live(tmp_path):
    """Start a node that moves a Panda's hand, with parameters."""
    pytest.importorskip('rclpy', reason='needs ROS 2')
    from graph import Graph
    from sensor_msgs.msg import Image
    graphs = []

    def start(**parameters):
        graph = Graph(**{
            'urdf': arms.urdf('panda'), 'policy': 'pi0', 'device': 'cpu', 'dtype': 'float32',
            'checkpoint': str(of_poses(tmp_path / 'small', 0.02)), 'action_rate': 20.0,
            'tokenizer': str(DATA / NAME / 'tokenizer'), 'cameras': ['front', 'wrist'],
            'joint_names': ['panda_hand', GRIPPER], 'actions': POSE, 'gripper_joints': [GRIPPER],
            'end_effectors.panda_hand': TOOL[0].split(': ', 1)[1] + 'axis_angle',
            **parameters})
        graphs.append(graph)
        robot = graph.robot
        robot.names, robot.position = [*ARM, GRIPPER], HOME.tolist()
        other = robot.create_publisher(Image, 'camera_2/image_raw', 2)

        def show():
            message = Image(**robot.image)
            message.header.stamp = robot.stamp()
            other.publish(message)

        graph.shown = robot.create_timer(0.05, show)
        return graph.start()

    yield start
    for graph in graphs:
        graph.close()


@pytest.mark.parametrize('worker', ['thread', 'process'])
def test_a_live_node_shows_where_the_tool_would_go_and_moves_it(live, worker):
    graph = live(worker=worker)
    robot = graph.robot
    graph.instruct('go')
    answer = graph.enable()
    assert answer.success and "'panda_hand' would go from [0.442 0.049 0.551]" in answer.message
    graph.wait(lambda: len(robot.commands) > 20)
    assert list(robot.commands[-1].joint_names) == [*ARM, GRIPPER]
    place, _ = made('panda').pose(np.array(robot.position)[:7])
    assert 1e-5 < np.linalg.norm(place - made('panda').pose(HOME[:7])[0]) < 0.01


def test_a_live_node_is_not_armed_for_a_tool_that_is_another(live):
    graph = live(**{'end_effectors.panda_hand': TOOL[0].split(': ', 1)[1].replace(
        'panda_link0', 'panda_link1') + 'axis_angle'})
    graph.robot.position[0] = 0.0  # else the frame would turn, too
    graph.instruct('go')
    answer = graph.enable()
    assert not answer.success
    assert "joint 'panda_joint1'" in answer.message or 'is not between links' in answer.message
