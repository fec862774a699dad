# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What a checkpoint says at the edge of what is allowed, and what stands in where it is silent."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
from pi0_ros.checkpoint import layout_transformers, mapping
from pi0_ros.checkpoint import reader as checkpoint
from pi0_ros.checkpoint.dataset import DataSet
from pi0_ros.checkpoint.fit import table
from pi0_ros.checkpoint.normalise import lerobot_normaliser, openpi_normaliser
from pi0_ros.checkpoint.reader import not_positions
from pi0_ros.checkpoint.spec import Choices, find_tokenizer
from pi0_ros.weights import loading, places
from pi0_ros.weights.files import CheckpointError
from pi0_ros.weights.network import network_config
import pytest
from safetensors.numpy import load_file, save_file
from support import DATA, FIXTURES
import torch


@pytest.fixture
def copy(tmp_path):
    return shutil.copytree(DATA / FIXTURES[0] / 'checkpoint', tmp_path / 'checkpoint')


@pytest.fixture
def openpi(tmp_path):
    return shutil.copytree(DATA / 'openpi_pytorch' / 'checkpoint', tmp_path / 'openpi')


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def config(folder, **values):
    edit(folder / 'config.json', lambda content: content.update(values))


def said(folder, **choices):
    with pytest.raises(CheckpointError) as caught:
        checkpoint.read(folder, Choices(**choices))
    return str(caught.value)


# ---- numbers at their bounds ----

@pytest.mark.parametrize('key, most', [('num_inference_steps', 1000), ('chunk_size', 1000)])
def test_steps_up_to_a_thousand(copy, key, most):
    config(copy, **{key: most})
    assert checkpoint.read(copy)
    config(copy, **{key: most + 1})
    assert f'is {most + 1}, expected 1 to {most}' in said(copy)
    config(copy, **{key: 1})
    assert checkpoint.read(copy)
    config(copy, **{key: 0})
    assert 'is 0, expected 1 to' in said(copy)


@pytest.mark.parametrize('size', [[2049, 224], [224, 2049], [0, 224]])
def test_images_up_to_2048(copy, size):
    config(copy, image_resolution=size)
    assert 'expected 1 to 2048' in said(copy)


def test_images_of_2048_are_no_fault_in_themselves(copy):
    config(copy, image_resolution=[2048, 2048])
    assert 'expected 1 to' not in said(copy)  # the network's own size is another


@pytest.mark.parametrize('rate, right', [(1000, True), (1001, False), (0.5, True), (0, False)])
def test_rates_up_to_a_kilohertz(tmp_path, rate, right):
    (tmp_path / 'train_config.json').write_text(json.dumps({'dataset': {'fps': rate}}))
    if right:
        assert DataSet(tmp_path).control_period == pytest.approx(1 / rate)
    else:
        with pytest.raises(ValueError, match='control rate'):
            DataSet(tmp_path)


def test_a_state_as_wide_as_its_padding_and_no_wider(copy):
    config(copy, max_state_dim=7, max_action_dim=7)
    assert checkpoint.read(copy).state_width == 7
    config(copy, max_state_dim=6)
    assert 'its state width is 7, expected 1 to 6' in said(copy)
    edit(copy / 'config.json', lambda content: content.pop('max_state_dim'))
    assert checkpoint.read(copy).state_width == 7  # padded to 32 where nothing is said


def test_the_state_is_padded_to_32_where_nothing_is_said(copy):
    def wide(content):
        content.pop('max_state_dim')
        content['input_features']['observation.state']['shape'] = [40]
    edit(copy / 'config.json', wide)
    path = copy / 'policy_preprocessor_step_6_normalizer_processor.safetensors'
    save_file({key: np.resize(value, 40) if key.startswith('observation.state') else value
               for key, value in load_file(path).items()}, path)
    assert 'its state width is 40, expected 1 to 32' in said(copy)


# ---- what stands in ----

def test_images_of_lerobot_are_224_where_nothing_is_said(copy):
    edit(copy / 'config.json', lambda content: content.pop('image_resolution'))
    assert checkpoint.read(copy).image_size == (224, 224)


def test_openpi_says_neither_steps_nor_images_nor_prompt(openpi):
    spec = checkpoint.read(openpi, Choices(relative_joints=(), actions='positions'))
    assert spec.denoising_steps == 10 and spec.max_prompt_tokens == 48
    assert spec.image_size == (224, 224)


def transformers(folder, **changes):
    """Return the description of a checkpoint of transformers' own, with values changed."""
    values = {f'{name}_{what}': [number] * 3 for name in ('state', 'actions')
              for what, number in (('mean', 0.0), ('std', 1.0))}
    values.update(changes)
    (folder / 'processor_config.json').write_text(json.dumps(
        {key: value for key, value in values.items() if value is not ...}))
    return layout_transformers.describe(folder, {}, Choices())


def test_transformers_has_fifty_steps_and_ten_where_nothing_is_said(tmp_path):
    spec = transformers(tmp_path)
    assert (spec.chunk_length, spec.denoising_steps, spec.image_size) == (50, 10, (224, 224))


@pytest.mark.parametrize('lost', ['state_mean', 'state_std', 'actions_mean', 'actions_std'])
@pytest.mark.parametrize('value, words', [
    (..., 'has no (state|actions)_mean and'), (None, 'has no (state|actions)_mean and'),
    ('x' * 60, "'x{40}'|expected lists"), (3.0, 'expected lists')])
def test_every_statistic_of_transformers_is_needed(tmp_path, lost, value, words):
    with pytest.raises((CheckpointError, ValueError), match=words) as caught:
        transformers(tmp_path, **{lost: value})
    assert 'x' * 41 not in str(caught.value)


# ---- features ----

@pytest.mark.parametrize('shape', [[3, 48], [3, 48, 64, 1], [3, 48, 'x'], [3.0, 48, 64], []])
def test_a_camera_has_three_whole_numbers(copy, shape):
    edit(copy / 'config.json', lambda content: next(
        value for value in content['input_features'].values()
        if value['type'] == 'VISUAL').update(shape=shape))
    assert 'expected three whole numbers' in said(copy)


@pytest.mark.parametrize('shape', [[7, 1], [7.0], ['7'], [], [[7]]])
def test_a_state_has_one_whole_number(copy, shape):
    edit(copy / 'config.json', lambda content: content['input_features'][
        'observation.state'].update(shape=shape))
    assert 'expected one whole number' in said(copy)


@pytest.mark.parametrize('names, asked', [
    (['x', 'y', 'a', 'b', 'c', 'd', 'e'], False), (['x', 'y', 'z', 'a', 'b', 'c', 'd'], True),
    (['ee.x', 'EE.Y', 'ee.z', 'a', 'b', 'c', 'd'], True),
    (['x.pos', 'y.pos', 'roll.pos', 'a', 'b', 'c', 'd'], True)])
def test_actions_that_are_called_as_the_pose_of_a_tool_are_asked_about(copy, names, asked):
    config(copy, action_feature_names=names)
    if asked:
        assert 'as the pose of a tool' in said(copy)
    else:
        assert checkpoint.read(copy).action_names == tuple(names)


def test_relative_actions_that_nothing_makes_absolute_are_refused(tmp_path):
    folder = shutil.copytree(DATA / 'lerobot_relative' / 'checkpoint', tmp_path / 'relative')
    assert checkpoint.read(folder).relative.any()

    def silent(content):
        for step in content['steps']:
            if step['registry_name'] == 'absolute_actions_processor':
                step['config'].pop('enabled', None)
    edit(folder / 'policy_postprocessor.json', silent)
    assert 'has no step' in said(folder)


def test_a_normaliser_without_statistics_at_all_is_named():
    with pytest.raises(ValueError, match="lack 'x.mean', .* there are none: copy"):
        lerobot_normaliser('MEAN_STD', 'x', {}, 3)
    stats = {f'y{number}.mean': np.zeros(3) for number in range(9)}
    with pytest.raises(ValueError, match='there are y0.mean, .*, y5.mean: copy'):
        lerobot_normaliser('MEAN_STD', 'x', stats, 3)


def test_a_table_says_which_slot_a_camera_is():
    spec = SimpleNamespace(state_width=1, action_width=1, state_names=None, action_names=None,
                           cameras=('base', 'wrist', 'side'),
                           camera=lambda name: {'front': 'base'}.get(name, name))
    robot = SimpleNamespace(states=('a',), state_names=(), joint_names=('a',),
                            cameras=('front', '', 'other'))
    rows = [line.split() for line in table(spec, robot).splitlines()]
    assert ['base', 'camera_1'] in rows and ['wrist', '-'] in rows and ['side', '-'] in rows
    assert ['(none', 'is', "'other')", 'camera_3'] in rows


# ---- openpi ----

def normaliser(middle, spread):
    middle, spread = np.asarray(middle, float), np.asarray(spread, float)
    return SimpleNamespace(middle=middle, spread=spread)


@pytest.mark.parametrize('middles, spreads, odd', [
    ([0, 0, 1, 1], [0.1] * 4, [0, 1]),         # two of four clear ones
    ([0, 1, 1, 1], [0.1] * 4, []),             # one of four is a joint that happens to be there
    ([0, 0, 1, 1, 1, 1, 1, 1], [0.1] * 8, []),  # two of eight
    ([0, 1], [0.1] * 2, []), ([0.3, 0.3, 0.3], [0.1] * 3, [])])
def test_actions_that_stay_at_zero_where_states_do_not(middles, spreads, odd):
    """Whoever commands positions commands about what is measured: here states are at 1."""
    count = len(middles)
    found = not_positions(normaliser([1.0] * count, [0.1] * count),
                          normaliser(middles, spreads), np.zeros(count, bool))
    assert found == odd


def test_small_actions_about_small_states():
    """States about 0 that vary by 2, actions that vary by 0.01: steps, no places."""
    states, still = normaliser([0.0] * 4, [2.0] * 4), np.zeros(4, bool)
    assert not_positions(states, normaliser([0.0] * 4, [0.01] * 4), still) == [0, 1, 2, 3]
    assert not_positions(states, normaliser([0.0] * 4, [0.01, 0.01, 2.0, 2.0]), still) == [0, 1]
    assert not_positions(states, normaliser([0.0] * 4, [0.01, 2.0, 2.0, 2.0]), still) == []
    two = normaliser([0.0] * 2, [2.0] * 2)
    assert not_positions(two, normaliser([0.0] * 2, [0.01, 2.0]), np.zeros(2, bool)) == []


def test_which_statistics_lie_below_assets_is_told(openpi):
    beside = openpi / 'assets' / 'trossen' / 'norm_stats.json'
    shutil.copy(beside, openpi / 'norm_stats.json')
    shutil.copytree(beside.parent, openpi / 'assets' / 'another')
    assert checkpoint.read(openpi, Choices(relative_joints=(), actions='positions'))
    edit(beside, lambda content: content.update(note=1))
    text = said(openpi, relative_joints=(), actions='positions')
    assert 'another below assets/, trossen: remove' in text


# ---- ALOHA ----

@pytest.mark.parametrize('opening', [-3.0, -0.5, 0.0, 0.5, 1.0, 1.5, 4.0])
def test_an_alohas_gripper_that_is_told_out_of_range_stays_a_number(opening):
    state = np.zeros(14)
    state[[6, 13]] = opening
    out = mapping.aloha_state(state)
    assert np.isfinite(out).all()
    assert out[6] == out[13]


# ---- where it lies ----

def test_steps_below_a_run_are_named_and_those_of_the_folder_go_before(tmp_path):
    for name in ('checkpoints/001000', 'checkpoints/002000'):
        (tmp_path / 'run' / name).mkdir(parents=True)
    assert places.hint(tmp_path / 'run') == (
        ': it holds the steps 001000, 002000, give the folder of one')
    (tmp_path / 'run' / '003000').mkdir()
    assert places.hint(tmp_path / 'run') == ': it holds the steps 003000, give the folder of one'
    for name in ('models--a--b', 'models--a--c', 'checkpoints/001000', 'checkpoints/002000'):
        (tmp_path / 'cache' / name).mkdir(parents=True)
    assert 'it holds the models a/b, a/c' in places.hint(tmp_path / 'cache')


def test_a_name_with_a_revision_is_that_one(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(places, 'try_to_load_from_cache',
                        lambda name, file, revision=None: asked.append((name, revision)))
    assert places.cached('a/b@v2') is None and places.cached('a/b', 'v1') is None
    assert {('a/b', 'v2'), ('a/b', 'v1')} == set(asked)


def test_a_data_set_without_a_name_is_looked_for_nowhere(tmp_path, monkeypatch):
    monkeypatch.setenv('HF_LEROBOT_HOME', str(tmp_path))
    (tmp_path / 'meta').mkdir()
    (tmp_path / 'meta' / 'info.json').write_text('{"fps": 7}')
    for repo in ('', None, 3):
        (tmp_path / 'train_config.json').write_text(json.dumps({'dataset': {'repo_id': repo}}))
        assert DataSet(tmp_path).control_period is None


def test_a_tokenizer_without_a_name_is_looked_for_beside_only(tmp_path, monkeypatch):
    (tmp_path / 'tokenizer.json').write_text('{}')
    monkeypatch.chdir(tmp_path)
    assert find_tokenizer(tmp_path / 'none', None) is None
    assert find_tokenizer(tmp_path, None) == tmp_path
    assert find_tokenizer(tmp_path / 'none', str(tmp_path)) == tmp_path


# ---- weights ----

def test_large_weights_tell_how_far_they_are(copy, monkeypatch, caplog):
    monkeypatch.setattr(loading, 'LARGE', 10_000)
    with caplog.at_level('INFO', 'pi0_ros.weights.loading'):
        loading.load_model(copy, torch.float32, torch.device('cpu'))
    told = [int(record.getMessage().split()[2]) for record in caplog.records
            if 'loading weights' in record.getMessage()]
    assert [number // 25 for number in told[:3]] == [1, 2, 3] and len(told) <= 4
    assert all(number % 25 < 5 for number in told)


def test_small_weights_tell_nothing(copy, caplog):
    with caplog.at_level('INFO', 'pi0_ros.weights.loading'):
        loading.load_model(copy, torch.float32, torch.device('cpu'))
    assert 'loading weights' not in caplog.text


def test_a_file_is_opened_anew_after_a_while(copy, monkeypatch):
    opened, real = [], loading.safe_open
    monkeypatch.setattr(loading, 'safe_open', lambda *given: opened.append(given) or real(*given))
    loading.load_model(copy, torch.float32, torch.device('cpu'))
    assert len(opened) == 1
    monkeypatch.setattr(loading, 'REOPEN', 20_000)
    opened.clear()
    model = loading.load_model(copy, torch.float32, torch.device('cpu'))
    size = sum(value.nbytes for value in model.parameters())
    assert 2 <= len(opened) <= size / 20_000 + 1


def test_a_gpu_without_room_is_told_in_gib(copy, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'mem_get_info', lambda device: (2 * 2**30, 8 * 2**30))
    monkeypatch.setattr(torch.cuda, 'empty_cache', lambda: None)
    try:
        raise MemoryError
    except MemoryError as error:
        text = str(loading.out_of_memory(error, copy, torch.device('cuda')))
    size = (copy / 'model.safetensors').stat().st_size / 2**30
    assert f'are {size:.1f} GiB as stored, free are 2.0 of 8.0 GiB' in text


def test_of_many_tensors_that_do_not_fit_ten_are_named(copy):
    path = copy / 'model.safetensors'
    weights = load_file(path)
    lost = sorted(weights)[:15]
    save_file({key: value for key, value in weights.items() if key not in lost}, path)
    with pytest.raises(CheckpointError, match='places: ') as caught:
        loading.load_model(copy, torch.float32, torch.device('cpu'))
    text = str(caught.value)
    assert 'does not fit the network in' in text and text.count(';') == 9


def test_the_text_embedding_stays_on_the_host():
    table_ = torch.nn.Embedding(4, 3)
    loading._keep_on_host(table_, torch.device('meta'))
    rows = torch.tensor([1, 2])
    assert table_(rows).device.type == 'meta' and table_.weight.device.type == 'cpu'


@pytest.mark.parametrize('shape', [(8,), (2, 3, 4)])
def test_a_projection_that_is_no_matrix_leaves_the_width_as_it_is(tmp_path, shape):
    folder = DATA / FIXTURES[0] / 'checkpoint'
    shutil.copy(folder / 'config.json', tmp_path)
    usual = network_config(tmp_path, {}, 50)
    odd = network_config(tmp_path, {'embed_action_time.state_proj.weight': shape}, 50)
    assert odd.max_state_dim == usual.max_state_dim
    wide = network_config(tmp_path, {'embed_action_time.state_proj.weight': (8, 20)}, 50)
    assert wide.max_state_dim == 20


def test_openpis_statistics_need_a_mean_and_a_deviation():
    it = openpi_normaliser('x', {'mean': [1.0], 'std': [2.0]}, 1)
    np.testing.assert_allclose(it.restore(it.normalise(np.array([5.0]))), [5.0], atol=1e-5)


def with_cameras(folder, names, renamed, measured):
    """Give a checkpoint these cameras, renames, and statistics of the data set's cameras."""
    edit(folder / 'config.json', lambda content: content.update(input_features={
        **{f'observation.images.{name}': {'type': 'VISUAL', 'shape': [3, 224, 224]}
           for name in names},
        'observation.state': content['input_features']['observation.state']}))
    edit(folder / 'policy_preprocessor.json', lambda content: next(
        step for step in content['steps']
        if step['registry_name'] == 'rename_observations_processor')['config'].update(
            rename_map={f'observation.images.{old}': f'observation.images.{new}'
                        for old, new in renamed.items()}))
    path = folder / 'policy_preprocessor_step_6_normalizer_processor.safetensors'
    save_file({key: value for key, value in load_file(path).items() if 'images' not in key} | {
        f'observation.images.{name}.mean': np.zeros((3, 1, 1), np.float32)
        for name in measured}, path)


@pytest.mark.parametrize('names, kept', [
    (('base_0_rgb', 'left_wrist_0_rgb', 'right_wrist_0_rgb'), ('base_0_rgb',)),
    (('base_0_rgb', 'left_wrist_0_rgb', 'right_wrist_0_rgb', 'extra'), ('base_0_rgb',)),
    (('base_0_rgb', 'b', 'c'), ('base_0_rgb', 'b', 'c'))])
def test_only_a_bases_cameras_are_taken_for_empty_where_no_statistics_say_it(copy, names, kept):
    with_cameras(copy, names, {'front': 'base_0_rgb'}, [])
    assert checkpoint.read(copy).cameras == kept


def test_a_checkpoint_without_statistics_of_cameras_measures_none(copy):
    from pi0_ros.checkpoint import pipeline
    step = pipeline.Step('here', {'stats': {}}, None, {})
    assert pipeline.cameras_in(copy, step) == set()
    assert pipeline._width_of(copy, step, 'action') is None
