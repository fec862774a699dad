# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""pi0.5: its network, its prompt and its checkpoints; what LeRobot and openpi do with them."""

import json
import shutil

from hypothesis import given, settings
from hypothesis import strategies as st
from networks import error, inputs, network, prompt
import numpy as np
from pi0_ros.checkpoint import reader as checkpoint
from pi0_ros.checkpoint.config import RobotConfig
from pi0_ros.checkpoint.normalise import BINS, lerobot_normaliser, openpi_normaliser
from pi0_ros.checkpoint.spec import Choices
from pi0_ros.configuration.file import read_all_parameters
from pi0_ros.engine import guidance
from pi0_ros.engine.kernels import count_kernels
from pi0_ros.engine.paths import BUCKET, choose, Fast, made_up, Reference
from pi0_ros.observation.observation import Observation
from pi0_ros.policy.config import PolicyConfig
from pi0_ros.policy.pi0 import Pi0Policy
from pi0_ros.policy.prompt import prompt_ids, state_digits
from pi0_ros.weights.files import CheckpointError
from pi0_ros.workers.factory import make_policy
import pytest
from safetensors.numpy import load_file, save_file
from support import DATA, FIXTURES, PI05_FIXTURES
from test_policy import facts_of, fixture_observation, load_fixture
import torch

QUANTILES, RELATIVE = PI05_FIXTURES


@pytest.fixture
def copy(tmp_path):
    return shutil.copytree(DATA / QUANTILES / 'checkpoint', tmp_path / 'checkpoint')


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def said(folder, **choices):
    with pytest.raises(CheckpointError) as caught:
        checkpoint.read(folder, Choices(**choices))
    return str(caught.value)


# ---- what the network reads ----

@pytest.mark.parametrize('name', PI05_FIXTURES)
def test_tokens_and_normalised_state_are_those_of_the_trainer(name):
    policy = load_fixture(name)
    expected = np.load(DATA / name / 'expected_preprocessed.npz')
    seen = fixture_observation(name)
    raw, _, words, _ = policy.prepare(seen)
    np.testing.assert_array_equal(words.ids.numpy(), expected['tokens'])
    text = policy._tokenizer.decode(words.ids.tolist(), skip_special_tokens=False)
    assert facts_of(name)['prompt'].replace(' ', '') == text.replace(' ', '')
    state = policy.spec.state
    np.testing.assert_allclose(state.normalise(raw), expected['normalised_state'], atol=1e-5)
    np.testing.assert_array_equal(state.trained(raw.astype(np.float32)),
                                  expected['normalised_state'].astype(np.float32))


def lerobots(mode, stats, values):
    """Return what LeRobot's normalize_processor.py computes, with torch in float32."""
    one, other = (torch.tensor(value, dtype=torch.float32) for value in stats)
    x = torch.tensor(values, dtype=torch.float32)
    if mode == 'MEAN_STD':
        return ((x - one) / (other + 1e-8)).numpy()
    span = other - one
    span = torch.where(span == 0, torch.tensor(1e-8), span)
    return (2.0 * (x - one) / span - 1.0).numpy()


STATS = {'MEAN_STD': ('mean', 'std'), 'QUANTILES': ('q01', 'q99'), 'MIN_MAX': ('min', 'max'),
         'QUANTILE10': ('q10', 'q90')}


@settings(max_examples=300)
@given(st.sampled_from(list(STATS)), st.floats(-3, 3, width=32), st.floats(2**-10, 4, width=32),
       st.integers(-2, 258), st.sampled_from([-1, 0, 1]))
def test_a_digit_at_the_edge_of_its_bin_is_the_trainers(mode, low, span, digit, ulp):
    """Values whose normalised ones lie on an edge, and one float32 beside them."""
    stats = low, (span if mode == 'MEAN_STD' else low + span)
    edge = -1 + digit / 128
    value = low + edge * span if mode == 'MEAN_STD' else low + (edge + 1) / 2 * span
    value = np.float32(value)
    if ulp:
        value = np.nextafter(value, np.float32(np.inf * ulp))
    names = STATS[mode]
    it = lerobot_normaliser(mode, 'x', {f'x.{name}': np.array([one], np.float32)
                                        for name, one in zip(names, stats)}, 1)
    wanted = np.digitize(lerobots(mode, [[one] for one in stats], [value]),
                         np.linspace(-1, 1, 257)[:-1]) - 1
    np.testing.assert_array_equal(it.digits(np.array([value], np.float64)), wanted)


@given(st.floats(-3, 3), st.floats(0.001, 4), st.floats(-9, 9, width=32))
def test_openpis_digits_are_computed_as_openpi_does(low, span, value):
    """transforms.py: float32 states, statistics in float64."""
    it = openpi_normaliser('x', {'q01': [low], 'q99': [low + span]}, 1, quantiles=True)
    x = np.array([value], np.float32)
    q01, q99 = np.array([low]), np.array([low + span])
    wanted = (x - q01) / (q99 - q01 + 1e-6) * 2.0 - 1.0
    np.testing.assert_array_equal(it.digits(x), np.digitize(wanted, BINS) - 1)
    np.testing.assert_allclose(it.normalise(x), wanted, rtol=1e-6, atol=1e-6)
    back = (wanted + 1.0) / 2.0 * (q99 - q01 + 1e-6) + q01
    np.testing.assert_allclose(it.restore(wanted), back, rtol=1e-9, atol=1e-9)


def test_digits_go_from_minus_one_to_255():
    it = lerobot_normaliser('MIN_MAX', 'x', {'x.min': np.zeros(5), 'x.max': np.ones(5)}, 5)
    assert it.digits(np.array([-0.1, 0.0, 0.5, 1.0, 7.0])).tolist() == [-1, 0, 128, 255, 255]


@pytest.mark.parametrize('text, plain', [
    ('  put_the cup\non it ', 'put the cup on it'), ('a\n', 'a'), ('', '')])
def test_the_prompt_has_the_task_and_the_state(text, plain):
    tokenizer = load_fixture(QUANTILES)._tokenizer
    ids = prompt_ids(tokenizer, text, 'pi05', (-1, 0, 255))
    whole = f'Task: {plain}, State: -1 0 255;\nAction: '
    assert ids == [tokenizer.token_to_id('<bos>'),
                   *tokenizer.encode(whole, add_special_tokens=False).ids]


def test_the_prompt_follows_the_state_and_the_last_is_kept():
    policy = load_fixture(QUANTILES)
    seen = fixture_observation(QUANTILES)
    one = policy.prepare(seen)[2]
    assert policy.prepare(seen)[2] is one
    moved = Observation(0, seen.state + 0.3, seen.images, {}, seen.instruction)
    other = policy.prepare(moved)[2]
    assert other.ids.tolist() != one.ids.tolist()
    hair = Observation(0, seen.state + 1e-9, seen.images, {}, seen.instruction)
    assert policy.prepare(hair)[2].ids.tolist() == one.ids.tolist()


def test_a_prompt_that_is_too_long_is_cut_and_that_is_told_once(caplog):
    policy = load_fixture(QUANTILES)
    state = np.zeros(6)
    with caplog.at_level('WARNING'):
        for number in range(3):
            ids = policy._prompted('fold the shirt ' * 60, state + number).ids
    assert len(ids) == 200 and caplog.text.count('with the state behind it, the policy reads') == 1


# ---- the network ----

@settings(max_examples=20)
@given(st.data())
def test_random_architectures_agree_with_the_reference(data):
    model = network(
        seed=data.draw(st.integers(0, 99)), pi05=True, width=8 * data.draw(st.integers(1, 8)),
        expert_width=8 * data.draw(st.integers(1, 8)), layers=data.draw(st.integers(1, 4)),
        heads=data.draw(st.integers(1, 8)), head_dim=data.draw(st.sampled_from([4, 8, 16])),
        vocabulary=data.draw(st.integers(60, 300)), chunk=data.draw(st.integers(1, 60)),
        mlp=data.draw(st.integers(1, 4)))
    steps = data.draw(st.integers(1, 12))
    given_ = inputs(model, data.draw(st.integers(1, 3)), data.draw(st.integers(1, 90)))
    assert error(Reference(model, steps)(*given_), Fast(model, steps, 900, False)(*given_)) < 1e-5


@pytest.mark.parametrize('rtc', guidance.KINDS)
def test_every_way_to_continue_agrees_with_the_reference(rtc):
    model = network(pi05=True)
    for seed in range(3):
        given_ = made_up(model, 2, 20, lambda ids: prompt(model, ids), seed, rtc)
        wanted = Reference(model, 10, rtc)(*given_)
        assert error(wanted, Fast(model, 10, 900, False, rtc)(*given_)) < 2e-5


def test_compiled_it_is_the_same():
    model = network(pi05=True)
    path, report = choose(model, 3, 2, 48, 'fast', 'on', lambda ids: prompt(model, ids))
    assert report.path == 'fast compiled' and report.difference < 1e-4


@pytest.mark.parametrize('rtc', guidance.KINDS)
@pytest.mark.parametrize('tokens', [1, 15, 16, 17, 40])
def test_a_padded_prompt_is_the_same_as_one_without(tokens, rtc):
    """What CUDA graphs get: lengths differ with the digits."""
    model = network(pi05=True)
    given_ = made_up(model, 2, tokens, lambda ids: prompt(model, ids), tokens, rtc)
    plain = Fast(model, 10, 900, False, rtc)(*given_)
    padded = Fast(model, 10, 900, False, rtc, padded=True)
    assert error(plain, padded(*given_)) < 1e-5
    sizes = {len(padded._padding(given_[0], given_[1].text)[1])}
    assert sizes == {-(-tokens // BUCKET) * BUCKET}


def test_what_is_padded_with_does_not_show():
    model = network(pi05=True)
    fast = Fast(model, 10, 900, False, padded=True)
    pixels, words, state, noise = inputs(model, 2, 20)
    one = fast.engine(*fast._padding(pixels, words.text, state, noise)[:4],
                      padding=fast.engine.padding(32, 20, 32))
    text = torch.nn.functional.pad(words.text, (0, 0, 0, 12), value=7.0)
    other = fast.engine(pixels, text, state, noise, padding=fast.engine.padding(32, 20, 32))
    assert torch.equal(one, other)


def test_the_loop_has_no_more_kernels_than_that_of_pi0():
    def kernels(pi05, steps):
        model = network(pi05=pi05, layers=18, width=16, expert_width=16, heads=2, head_dim=8)
        fast, given_ = Fast(model, steps, 900, False), inputs(model)
        return count_kernels(lambda: fast.eager(*given_))

    of_pi0, of_pi05 = (kernels(pi05, 10) - kernels(pi05, 9) for pi05 in (False, True))
    assert of_pi05 <= of_pi0


def test_the_time_mlp_never_runs_once_it_is_loaded(monkeypatch):
    model = network(pi05=True)
    fast = Fast(model, 10, 900, False)
    monkeypatch.setattr(model.embed_action_time, 'conditions', lambda times: 1 / 0)
    assert fast(*inputs(model)).isfinite().all()


def test_both_networks_in_one_process():
    policies = {name: load_fixture(name) for name in (FIXTURES[0], QUANTILES)}
    for _ in range(2):
        for name, policy in policies.items():
            policy.warm_up()
            actions = policy.infer(fixture_observation(name),
                                   np.load(DATA / name / 'noise.npy')).positions
            expected = np.load(DATA / name / 'expected_actions.npy')
            assert np.abs(actions - expected).max() < 1e-5 * np.abs(expected).max()


# ---- checkpoints ----

def test_the_network_is_told_by_its_weights(copy):
    assert checkpoint.read(copy).network == 'pi05'
    assert checkpoint.read(DATA / FIXTURES[0] / 'checkpoint').network == 'pi0'
    edit(copy / 'config.json', lambda content: content.update(type='pi0'))
    assert 'is PI0 by its config.json, its weights are of pi0.5' in said(copy)


@pytest.mark.parametrize('spelled', ['pi05', 'PI05', 'pi0.5', 'pi0_5'])
def test_its_name_is_spelled_in_several_ways(copy, spelled):
    edit(copy / 'config.json', lambda content: content.update(type=spelled))
    assert checkpoint.read(copy).network == 'pi05'


def steps(folder, change):
    path = folder / 'policy_preprocessor.json'
    edit(path, lambda content: content.update(steps=change(
        {step['registry_name']: step for step in content['steps']})))


PREPARE, NORMALISES = 'pi05_prepare_state_tokenizer_processor_step', 'normalizer_processor'


def test_a_pipeline_that_writes_another_prompt_is_refused(copy):
    steps(copy, lambda all_: [step for name, step in all_.items() if name != PREPARE])
    assert f"has no step '{PREPARE}'" in said(copy)


def test_a_pipeline_of_both_networks_is_refused(copy):
    steps(copy, lambda all_: [*list(all_.values())[:-2], {
        'registry_name': 'pi0_new_line_processor', 'config': {}}, *list(all_.values())[-2:]])
    assert "has step 'pi0_new_line_processor', which is another network's" in said(copy)


def test_a_pipeline_that_normalises_after_the_prompt_is_refused(copy):
    def turned(all_):
        names = [name for name in all_ if name != NORMALISES]
        names.insert(names.index(PREPARE) + 1, NORMALISES)
        return [all_[name] for name in names]
    steps(copy, turned)
    assert f"step '{NORMALISES}' behind '{PREPARE}'" in said(copy)


@pytest.mark.parametrize('given_, delay', [
    ({}, 0), ({'rtc_training_max_delay': 7}, 7), ({'trained_delay': 3}, 3),
    ({'rtc_training_max_delay': None}, 0), ({'rtc_training_max_delay': 4, 'trained_delay': 0}, 4)])
def test_what_training_gave_is_read_of_either_name(copy, given_, delay):
    edit(copy / 'config.json', lambda content: content.update(given_))
    assert checkpoint.read(copy).trained_delay == delay


@pytest.mark.parametrize('given_, declared, wanted', [
    ({}, 5, 'rtc_trained'), ({}, 0, 'blend'), ({}, None, 'blend'), ({}, 'x', 'blend'),
    ({'handover': 'switch'}, 5, 'switch'), ({'policy': 'mock_hold'}, 5, 'blend'),
    ({'joint_names': ['a', 'b', 'c', 'd', 'e', '-']}, 5, 'blend'),
    ({'checkpoint': '/nowhere'}, 5, 'blend')])
def test_the_hand_over_is_what_a_checkpoint_was_trained_for(copy, given_, declared, wanted):
    edit(copy / 'config.json', lambda content: content.update(rtc_training_max_delay=declared))
    config = read_all_parameters(None, **{
        'policy': 'pi0', 'checkpoint': str(copy), 'joint_names': list('abcdef'),
        'cameras': ['front'], **given_})
    assert config.control.handover == wanted


def test_that_hand_over_is_told_at_the_start(copy, caplog):
    edit(copy / 'config.json', lambda content: content.update(rtc_training_max_delay=5))
    policy = Pi0Policy(copy, dt_ns=1, device='cpu', rtc='trained',
                       tokenizer=str(DATA / QUANTILES / 'tokenizer'))
    with caplog.at_level('INFO'):
        policy.load()
    assert 'pi0.5 was trained to be given up to 5 actions' in caplog.text


def test_a_delay_that_is_no_number_is_refused(copy):
    edit(copy / 'config.json', lambda content: content.update(rtc_training_max_delay='x'))
    assert "its rtc_training_max_delay is 'x', expected a whole number" in said(copy)


def test_tensors_that_are_missing_or_too_many_are_named(copy):
    path = copy / 'model.safetensors'
    weights = load_file(path)
    weights.pop('model.time_mlp_out.bias')
    weights['model.state_proj.weight'] = np.zeros((24, 32), np.float32)
    save_file(weights, path)
    with pytest.raises(CheckpointError) as caught:
        Pi0Policy(copy, dt_ns=1, device='cpu',
                  tokenizer=str(DATA / QUANTILES / 'tokenizer')).load()
    assert 'missing embed_action_time.time_mlp_out.bias' in str(caught.value)
    assert 'unexpected model.state_proj.weight' in str(caught.value)


@pytest.fixture
def openpi(tmp_path):
    """Return the quantiles' checkpoint as openpi keeps it."""
    source, folder = DATA / QUANTILES / 'checkpoint', tmp_path / 'openpi'
    (folder / 'assets' / 'me').mkdir(parents=True)
    weights = load_file(source / 'model.safetensors')
    save_file({name.removeprefix('model.'): value for name, value in weights.items()},
              folder / 'model.safetensors')
    config = json.loads((source / 'config.json').read_text())
    (folder / 'config.json').write_text(json.dumps({
        'action_dim': 32, 'action_horizon': 50, 'paligemma_variant': 'gemma_2b',
        'action_expert_variant': 'gemma_300m',
        **{key: config[key] for key in ('vlm_config', 'dit_config')}}))
    told = load_file(source / 'policy_preprocessor_step_3_normalizer_processor.safetensors')
    (folder / 'assets' / 'me' / 'norm_stats.json').write_text(json.dumps({'norm_stats': {
        ours: {what: told[f'{theirs}.{what}'].astype(float).tolist()
               for what in ('mean', 'std', 'q01', 'q99')}
        for ours, theirs in (('state', 'observation.state'), ('actions', 'action'))}}))
    return folder


def test_openpis_pi05_is_told_by_its_weights_and_reads_quantiles(openpi):
    spec = checkpoint.read(openpi, Choices(relative_joints=(), actions='positions'))
    assert (spec.network, spec.layout, spec.max_prompt_tokens) == ('pi05', 'openpi', 200)
    theirs = checkpoint.read(DATA / QUANTILES / 'checkpoint')
    np.testing.assert_allclose(spec.state.middle, theirs.state.middle, atol=1e-6)
    np.testing.assert_allclose(spec.action.spread, theirs.action.spread, atol=1e-6)
    policy = Pi0Policy(openpi, dt_ns=1, device='cpu', dtype='float32',
                       tokenizer=str(DATA / QUANTILES / 'tokenizer'),
                       choices=Choices(relative_joints=(), actions='positions'))
    policy.load()
    policy.warm_up()
    seen = fixture_observation(QUANTILES)
    images = dict(zip(spec.cameras, seen.images.values()))
    chunk = policy.infer(Observation(0, seen.state, images, {}, seen.instruction))
    assert chunk.positions.shape == (50, 6) and np.isfinite(chunk.positions).all()


def test_openpis_pi05_may_have_no_state_in_its_prompt(openpi):
    """discrete_state_input=False: PaligemmaTokenizer.tokenize without a state."""
    known = {'relative_joints': (), 'actions': 'positions'}
    assert "set 'state_in_prompt' to no" in ' '.join(
        checkpoint.read(openpi, Choices(**known)).warnings)
    for plain in (True, False):
        policy = Pi0Policy(openpi, dt_ns=1, device='cpu', dtype='float32',
                           tokenizer=str(DATA / QUANTILES / 'tokenizer'),
                           choices=Choices(**known, plain_prompt=plain))
        policy.load()
        assert not policy.spec.warnings
        ids = policy._prompted(' put_it there ', np.zeros(6)).ids.tolist()
        moved = policy._prompted(' put_it there ', np.ones(6)).ids.tolist()
        tokenizer = policy._tokenizer
        if plain:
            assert ids == moved == prompt_ids(tokenizer, 'put it there', 'openpi')
            assert ids[-1] == tokenizer.token_to_id('\n')
        else:
            assert ids != moved and len(ids) > 30
        policy.warm_up()
        assert policy.describe()['engine'] == 'fast'


@pytest.mark.parametrize('change, words', [
    (lambda stats: stats['state'].pop('q01'), "'state.q01' has shape"),
    (lambda stats: stats['actions'].update(q99=[-9.0] * 6),
     "'actions.q01' is above 'actions.q99'"),
    (lambda stats: stats['actions'].update(q99=[None] * 6), 'actions.q99')])
def test_quantiles_of_openpi_that_cannot_be_are_refused(openpi, change, words):
    edit(openpi / 'assets' / 'me' / 'norm_stats.json',
         lambda content: change(content['norm_stats']))
    assert words in said(openpi, relative_joints=(), actions='positions')


def test_pi0s_layout_of_transformers_has_no_pi05(tmp_path, copy):
    config = json.loads((copy / 'config.json').read_text())
    shutil.copy(copy / 'model.safetensors', tmp_path)
    (tmp_path / 'config.json').write_text(json.dumps({
        'model_type': 'pi0', **{key: config[key] for key in ('vlm_config', 'dit_config')}}))
    assert 'its weights are of pi0.5' in said(tmp_path)


def old(folder):
    """Make it look as if LeRobot 0.4 had saved it: no tokenizer, no newer keys, lm_head alone."""
    edit(folder / 'config.json', lambda content: [content.pop(key) for key in (
        'use_relative_actions', 'relative_exclude_joints', 'action_feature_names')])
    path = folder / 'model.safetensors'
    save_file({name: value for name, value in load_file(path).items()
               if not name.endswith('embed_tokens.weight')}, path)
    return folder


def test_lerobot_0_4_had_a_number_for_every_place_of_a_padded_state(copy):
    """processor_pi05.py of 0.4.0 to 0.4.4: pad_vector(state, max_state_dim) before the digits."""
    assert 'LeRobot 0.4 seems to have saved it' in said(old(copy))

    def digits(letterbox):
        policy = Pi0Policy(copy, dt_ns=1, device='cpu', choices=Choices(letterbox=letterbox),
                           tokenizer=str(DATA / QUANTILES / 'tokenizer'))
        policy.load()
        return state_digits(fixture_observation(QUANTILES).state, policy.spec,
                            policy.joints.rows)

    new = digits('lerobot')
    assert len(new) == 6 and digits('lerobot_0.4') == new + (128,) * 26
    steps(copy, lambda all_: [
        {**step, 'config': {'max_state_dim': 8}} if name == PREPARE else step
        for name, step in all_.items()])
    assert digits('lerobot_0.4') == new + (128,) * 2


def test_padded_statistics_of_openpi_leave_the_prompt_as_it_is(openpi):
    """transforms.py: statistics are cut to the state, which is padded after that."""
    def read():
        policy = make_policy(
            PolicyConfig(checkpoint=str(openpi), device='cpu', dtype='float32', action_rate=15.0,
                         relative_joints=('none',), actions='positions',
                         tokenizer=str(DATA / QUANTILES / 'tokenizer')),
            RobotConfig(tuple('abcdef'), cameras=('base_0_rgb', 'left_wrist_0_rgb')))
        policy.load()
        seen = fixture_observation(QUANTILES)
        images = dict(zip(('base_0_rgb', 'left_wrist_0_rgb'), seen.images.values()))
        return policy, policy.infer(Observation(0, seen.state, images, {}, 'go'),
                                    np.load(DATA / QUANTILES / 'noise.npy')).positions

    before, one = read()
    edit(openpi / 'assets' / 'me' / 'norm_stats.json', lambda content: [
        values.update({key: value + [0.0] * 26 for key, value in values.items()})
        for values in content['norm_stats'].values()])
    after, other = read()
    assert after.spec.state_width == 32
    assert before.spec.warnings == after.spec.warnings  # nothing stands still
    assert before._prompt[0] == after._prompt[0]
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_graphs_of_a_little_shorter_and_longer_prompts_are_there_before_the_robot_moves():
    model = network(pi05=True)
    fast, lengths = Fast(model, 2, 2 * 16 + 60, False, padded=True), []
    fast._run = lambda pixels, text, *rest: lengths.append(len(text))
    given_ = inputs(model, 2, 40)
    fast(*given_)
    fast.prepare(*given_)
    assert lengths == [48, 32, 64]
    fast.prepare(*inputs(model, 2, 10))
    assert lengths[3:] == [32]  # none is shorter
    plain = Fast(model, 2, 92, False)
    plain._run = lambda *given: 1 / 0
    plain.prepare(*given_)  # nothing, where nothing is captured
