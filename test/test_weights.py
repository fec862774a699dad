# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Where weights lie and what they are: places, shards, adapters, and folders that are damaged."""

import json
from pathlib import Path
import shutil

from hypothesis import given, HealthCheck, settings
from hypothesis import strategies as st
import numpy as np
from pi0_ros.checkpoint import reader as checkpoint
from pi0_ros.checkpoint.spec import Choices, Unrecorded
from pi0_ros.observation.observation import Observation
from pi0_ros.policy.factory import checkpoint_folder
from pi0_ros.policy.pi0 import Pi0Policy
from pi0_ros.policy.provenance import fingerprint
from pi0_ros.verbs import infer, look
from pi0_ros.weights import loading
from pi0_ros.weights.files import CheckpointError
import pytest
from safetensors.torch import load_file, save_file
from support import DATA, FIXTURES
import torch

BASE = DATA / 'lerobot_relative' / 'checkpoint'
TOKENIZER = str(DATA / FIXTURES[0] / 'checkpoint' / 'tokenizer')


@pytest.fixture
def copy(tmp_path):
    return shutil.copytree(BASE, tmp_path / 'checkpoint')


def loaded(folder):
    return dict(loading.load_model(folder, torch.float32, torch.device('cpu')).named_parameters())


def equal(one, other):
    return all(torch.equal(one[name], other[name]) for name in one.keys() | other.keys())


def actions(folder, **choices):
    """Return a chunk of a checkpoint, from a fixed observation and noise."""
    policy = Pi0Policy(folder, dt_ns=20_000_000, device='cpu', dtype='float32', compiled='off',
                       engine='reference', tokenizer=TOKENIZER, choices=Choices(**choices))
    policy.load()
    rng = np.random.default_rng(0)
    seen = Observation(0, np.linspace(-0.5, 0.5, policy.spec.state_width), {
        name: rng.integers(0, 255, (48, 64, 3), np.uint8) for name in policy.spec.cameras}, {},
        'pick it up')
    return policy.infer(seen, rng.standard_normal(policy.noise_shape)).positions


# ---- places ----

@pytest.mark.parametrize('pointed', [
    '005000/pretrained_model', '005000', 'last', '.', '..', 'link/last'])
def test_what_people_point_at_leads_to_the_checkpoint(tmp_path, pointed):
    """Training by LeRobot: run/checkpoints/{005000,last -> 005000}/pretrained_model."""
    steps = tmp_path / 'run' / 'checkpoints'
    shutil.copytree(BASE, steps / '005000' / 'pretrained_model')
    (steps / '005000' / 'training_state').mkdir()
    (steps / 'last').symlink_to('005000')
    (steps / 'link').symlink_to(steps)
    found = checkpoint_folder(str(steps / pointed))
    assert found.resolve() == (steps / '005000' / 'pretrained_model').resolve()
    checkpoint.read(found)


def test_several_steps_are_named(tmp_path):
    """Without last, as after a copy, or openpi's experiment folder: nobody guesses."""
    for step in ('5000', '10000'):
        shutil.copytree(BASE, tmp_path / 'run' / step)
    with pytest.raises(CheckpointError, match='it holds the steps 10000, 5000, give the folder'):
        checkpoint.read(checkpoint_folder(str(tmp_path / 'run')))
    shutil.rmtree(tmp_path / 'run' / '5000')
    checkpoint.read(checkpoint_folder(str(tmp_path / 'run')))


def hub_cache(home, name='someone/pi0_pick', revision='0123'):
    """Lay a checkpoint in the hub's cache: a snapshot of links to blobs."""
    model = home / 'hub' / f"models--{name.replace('/', '--')}"
    snapshot = model / 'snapshots' / revision
    snapshot.mkdir(parents=True)
    (model / 'refs').mkdir()
    (model / 'refs' / 'main').write_text(revision)
    (model / 'blobs').mkdir()
    for number, path in enumerate(one for one in BASE.iterdir() if one.is_file()):
        shutil.copy(path, model / 'blobs' / str(number))
        (snapshot / path.name).symlink_to(model / 'blobs' / str(number))
    return snapshot


def test_a_name_of_the_hub_is_looked_up_in_its_cache_and_never_fetched(tmp_path, monkeypatch):
    snapshot = hub_cache(tmp_path)
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path / 'hub'))
    for place in ('someone/pi0_pick', tmp_path, tmp_path / 'hub', snapshot.parents[1], snapshot):
        found = checkpoint_folder(str(place))
        assert found.resolve() == snapshot.resolve()
        checkpoint.read(found)
    with pytest.raises(CheckpointError, match='fetch it first: hf download someone/else'):
        checkpoint.read(checkpoint_folder('someone/else'))
    hub_cache(tmp_path, 'someone/other')
    with pytest.raises(CheckpointError, match='holds the models someone/other, someone/pi0_pick'):
        checkpoint.read(checkpoint_folder(str(tmp_path)))


def test_a_cache_without_a_main_branch_and_a_broken_link_are_led_on(tmp_path, monkeypatch):
    snapshot = hub_cache(tmp_path)
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path / 'hub'))
    (snapshot.parents[1] / 'refs' / 'main').unlink()
    for place in ('someone/pi0_pick', snapshot.parent, snapshot.parents[1]):
        assert checkpoint_folder(str(place)).resolve() == snapshot.resolve()
    shutil.copytree(snapshot, snapshot.parent / '4567')
    with pytest.raises(CheckpointError, match='it holds the snapshots 0123, 4567, give the'):
        checkpoint.read(checkpoint_folder(str(snapshot.parent)))
    with pytest.raises(CheckpointError, match='hf download me/one --revision v2'):
        checkpoint.read(checkpoint_folder('me/one@v2'))
    with pytest.raises(CheckpointError, match='it is a file, give the folder that it is in'):
        checkpoint.read(checkpoint_folder(str(snapshot / 'config.json')))
    steps = tmp_path / 'run' / 'checkpoints'
    for step in ('1000', '2000'):
        shutil.copytree(BASE, steps / step / 'pretrained_model')
    (steps / 'last').symlink_to('3000')
    with pytest.raises(CheckpointError, match="link to '3000', which is not there: it holds the "
                       'steps 1000, 2000'):
        checkpoint.read(checkpoint_folder(str(steps / 'last')))


# ---- shards ----

def shard(folder):
    """Save the weights of a folder in two files with an index."""
    tensors = load_file(folder / 'model.safetensors')
    names, told = sorted(tensors), {}
    for number, part in enumerate((names[::2], names[1::2])):
        file = f'model-0000{number + 1}-of-00002.safetensors'
        save_file({name: tensors[name] for name in part}, folder / file)
        told |= dict.fromkeys(part, file)
    (folder / 'model.safetensors').unlink()
    (folder / 'model.safetensors.index.json').write_text(json.dumps({'weight_map': told}))


def test_weights_in_several_files_are_the_same(copy):
    before = loaded(copy)
    shard(copy)
    checkpoint.read(copy)
    assert equal(loaded(copy), before)
    (copy / 'model-00002-of-00002.safetensors').unlink()
    with pytest.raises(CheckpointError, match='model-00002.*is missing, which model.safetenso'):
        checkpoint.read(copy)


@pytest.mark.parametrize('told, words', [
    ({'weight_map': {'a': '../../other'}}, 'leads out of the checkpoint'),
    ({'weight_map': {'a': 1}}, 'no weight_map'), ({}, 'no weight_map')])
def test_an_index_that_is_damaged_is_named(copy, told, words):
    shard(copy)
    (copy / 'model.safetensors.index.json').write_text(json.dumps(told))
    with pytest.raises(CheckpointError, match=words):
        checkpoint.read(copy)


def test_an_index_that_says_otherwise_than_its_files_is_refused(copy):
    shard(copy)
    index = copy / 'model.safetensors.index.json'
    told = json.loads(index.read_text())['weight_map']
    first, second = sorted(set(told.values()))
    name = next(name for name, file in told.items() if file == first)
    index.write_text(json.dumps({'weight_map': told | {name: second}}))
    with pytest.raises(CheckpointError, match=f'{name} in {second}, it is in {first}'):
        checkpoint.read(copy)
    index.write_text(json.dumps({'weight_map': told}))
    both = load_file(copy / second) | {name: load_file(copy / first)[name] + 1}
    save_file(both, copy / second)
    with pytest.raises(CheckpointError, match=f"{name} is in '{first}' and in '{second}'"):
        checkpoint.read(copy)


def test_a_tensor_under_two_names_is_refused(copy):
    tensors = load_file(copy / 'model.safetensors')
    name = 'model.state_proj.weight'
    save_file(tensors | {f'_orig_mod.{name}': tensors[name] + 1}, copy / 'model.safetensors')
    with pytest.raises(CheckpointError, match='state_proj.weight twice'):
        checkpoint.read(copy)


# ---- adapters ----

STATE, QUERY = 'model.state_proj', ('model.paligemma_with_expert.gemma_expert.model.layers.0.'
                                    'self_attn.q_proj')
HEAD = 'model.action_out_proj'


@pytest.fixture
def adapted(tmp_path):
    """Return an adapter's folder, as PEFT 0.21 saves it, and how its base would have to be."""
    folder = shutil.copytree(BASE, tmp_path / 'adapter')
    (folder / 'model.safetensors').unlink()
    base, dice = load_file(BASE / 'model.safetensors'), torch.Generator().manual_seed(0)
    config = {'peft_type': 'LORA', 'base_model_name_or_path': str(BASE), 'r': 2, 'lora_alpha': 8,
              'rank_pattern': {'state_proj': 4}, 'alpha_pattern': {}, 'use_rslora': False,
              'bias': 'none', 'init_lora_weights': True, 'modules_to_save': ['action_out_proj'],
              'target_modules': '.*', 'use_dora': False}
    (folder / 'adapter_config.json').write_text(json.dumps(config))
    parts, wanted = {}, dict(base)
    for module, rank in ((STATE, 4), (QUERY, 2)):
        rows, columns = base[f'{module}.weight'].shape
        a = torch.randn((rank, columns), generator=dice)
        b = torch.randn((rows, rank), generator=dice)
        parts |= {f'base_model.model.{module}.lora_A.weight': a,
                  f'base_model.model.{module}.lora_B.weight': b}
        wanted[f'{module}.weight'] = base[f'{module}.weight'] + 8 / rank * (b @ a)
    whole = torch.randn(base[f'{HEAD}.weight'].shape, generator=dice)
    parts[f'base_model.model.{HEAD}.weight'] = wanted[f'{HEAD}.weight'] = whole
    save_file(parts, folder / 'adapter_model.safetensors')
    merged = shutil.copytree(BASE, tmp_path / 'merged')
    save_file(wanted, merged / 'model.safetensors')
    return folder, merged


def configure(folder, **values):
    path = folder / 'adapter_config.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_an_adapter_is_its_base_with_what_it_changes(adapted):
    folder, merged = adapted
    assert equal(loaded(folder), loaded(merged)) and not equal(loaded(folder), loaded(BASE))
    np.testing.assert_array_equal(actions(folder), actions(merged))
    assert f'an adapter of {BASE}' in checkpoint.read(folder).trainer


def test_an_adapter_changes_what_it_has_whole_too(adapted):
    folder, _ = adapted
    before = loaded(folder)
    parts = load_file(folder / 'adapter_model.safetensors')
    base = load_file(BASE / 'model.safetensors')[f'{STATE}.weight']
    save_file(parts | {f'base_model.model.{STATE}.weight': 2 * base},
              folder / 'adapter_model.safetensors')
    name = 'embed_action_time.state_proj.weight'
    torch.testing.assert_close(loaded(folder)[name], before[name] + base)


def test_an_adapters_network_is_described_by_its_base(adapted):
    """Adapters of LeRobot keep no widths in config.json."""
    folder, merged = adapted
    config = json.loads((folder / 'config.json').read_text())
    if 'vlm_config' in config:
        for key in ('vlm_config', 'dit_config'):
            config.pop(key)
        (folder / 'config.json').write_text(json.dumps(config))
    assert equal(loaded(folder), loaded(merged))


def test_the_base_of_an_adapter_is_looked_for_and_asked_for(adapted, tmp_path, monkeypatch):
    folder, merged = adapted
    configure(folder, base_model_name_or_path='/home/trainer/base')
    with pytest.raises(CheckpointError, match="adapter .LoRA. of '/home/trainer/base', which is "
                       "not on this disk: put or link .*adapter/base'"):
        checkpoint.read(folder)
    (folder / 'base').symlink_to(BASE)  # as it says
    assert equal(loaded(folder), loaded(merged))
    (folder / 'base').unlink()
    configure(folder, base_model_name_or_path='someone/pi0_pick')
    with pytest.raises(CheckpointError, match='fetch it .hf download someone/pi0_pick., or put'):
        checkpoint.read(folder)
    hub_cache(tmp_path)
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path / 'hub'))
    assert equal(loaded(folder), loaded(merged))
    configure(folder, revision='b' * 40)  # which is not the one that is there
    with pytest.raises(CheckpointError, match=f"pi0_pick --revision {'b' * 40}"):
        checkpoint.read(folder)


def test_another_base_is_another_checkpoint(adapted, tmp_path):
    folder, _ = adapted
    before = fingerprint(folder)
    other = shutil.copytree(BASE, tmp_path / 'other')
    save_file({name: tensor + 1 for name, tensor in load_file(
        BASE / 'model.safetensors').items()}, other / 'model.safetensors')
    (folder / 'base').symlink_to(other)
    assert fingerprint(folder) != before


@pytest.mark.parametrize('values, words', [
    ({'use_dora': True}, 'asks for use_dora True, which is not done here'),
    ({'peft_type': 'IA3'}, "peft_type 'IA3'"), ({'bias': 'all'}, "bias 'all'"),
    ({'init_lora_weights': 'pissa'}, "init_lora_weights 'pissa'"),
    ({'megatron_config': {'a': 1}}, 'megatron_config'),
    ({'alpha_pattern': [1]}, 'expected patterns'), ({'rank_pattern': {'(': 2}}, 'expected patt'),
    ({'r': 3}, r'of rank 3, but its base has'), ({'lora_alpha': None}, 'lora_alpha None')])
def test_what_an_adapter_asks_for_and_nobody_does_is_refused(adapted, values, words):
    folder, _ = adapted
    configure(folder, **values)
    with pytest.raises(CheckpointError, match=words):
        checkpoint.read(folder)


@pytest.mark.parametrize('change, words', [
    (lambda parts: parts.pop(f'base_model.model.{STATE}.lora_A.weight'), 'only half of the'),
    (lambda parts: parts.update({'base_model.model.model.other.lora_A.weight': torch.zeros(2, 3)}),
     'changes model.other.weight, which its base does not have'),
    (lambda parts: parts.update(
        {f'base_model.model.{STATE}.lora_magnitude_vector': torch.ones(3)}),
     'lora_magnitude_vector')])
def test_an_adapter_that_does_not_fit_its_base_is_refused(adapted, change, words):
    folder, _ = adapted
    parts = load_file(folder / 'adapter_model.safetensors')
    change(parts)
    save_file(parts, folder / 'adapter_model.safetensors')
    with pytest.raises(CheckpointError, match=words):
        checkpoint.read(folder)


# ---- images with statistics ----

def with_image_statistics(folder, mean, std):
    """Let the processors normalise images, as LeRobot does with VISUAL MEAN_STD."""
    for name in ('pre', 'post'):
        path = folder / f'policy_{name}processor.json'
        content = json.loads(path.read_text())
        for step in content['steps']:
            if 'norm_map' in step['config']:
                step['config']['norm_map']['VISUAL'] = 'MEAN_STD'
                if name == 'pre':
                    stats = load_file(folder / step['state_file'])
                    for key in step['config']['features']:
                        if 'images' in key:
                            stats[f'{key}.mean'] = torch.full((3, 1, 1), mean)
                            stats[f'{key}.std'] = torch.full((3, 1, 1), std)
                    save_file(stats, folder / step['state_file'])
        path.write_text(json.dumps(content))


def test_images_are_normalised_where_training_did(copy):
    """Before they are fitted, and clipped after that, as LeRobot's resize does."""
    before = actions(copy)
    with_image_statistics(copy, 0.0, 1.0)
    np.testing.assert_allclose(actions(copy), before, atol=1e-5)
    with_image_statistics(copy, 0.5, 0.2)
    spec = checkpoint.read(copy)
    assert any('images are normalised by statistics' in text for text in spec.warnings)
    assert np.abs(actions(copy) - before).max() > 1e-3
    policy = Pi0Policy(copy, dt_ns=1, device='cpu')
    image = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    (name, scaling), *_ = spec.pixels.items()
    host = policy._pixels([image], [scaling])[0].clone()
    wanted = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    wanted = torch.nn.functional.interpolate((wanted - 0.5) / 0.2, (168, 224), mode='bilinear',
                                             align_corners=False).clamp(0, 1)[0] * 2 - 1
    np.testing.assert_allclose(host[:, 28:196], wanted, atol=1e-4)
    np.testing.assert_allclose(policy._pixels.fit(torch.from_numpy(image), scaling), host,
                               atol=1e-4)


# ---- what a checkpoint does not record ----

def test_statistics_of_an_old_lerobot_ask_for_the_letterbox(copy, capsys):
    path = copy / 'policy_preprocessor_step_6_normalizer_processor.safetensors'
    save_file({name: tensor for name, tensor in load_file(path).items()
               if name.rpartition('.')[2] in ('mean', 'std')}, path)
    with pytest.raises(Unrecorded, match="set 'letterbox' to lerobot_0.3, or to lerobot"):
        checkpoint.read(copy)
    assert checkpoint.read(copy, Choices(letterbox='lerobot_0.3')).letterbox == 'lerobot_0.3'
    assert look.main([str(copy), '--tokenizer', TOKENIZER]) == 0
    told = capsys.readouterr().out
    assert 'letterbox: auto  # required: lerobot_0.3 or lerobot' in told
    assert f'tokenizer: "{Path(TOKENIZER).resolve()}"' in told


def openpi(tmp_path, **stats):
    folder = shutil.copytree(DATA / 'openpi_pytorch' / 'checkpoint', tmp_path / 'openpi')
    path = next(folder.rglob('norm_stats.json'))
    content = json.loads(path.read_text())
    content['norm_stats'] |= stats
    path.write_text(json.dumps(content))
    return folder, path


def test_statistics_of_openpi_may_lie_beside_the_weights(tmp_path):
    folder, path = openpi(tmp_path)
    choices = Choices(relative_joints=(), actions='positions')
    before = checkpoint.read(folder, choices)
    shutil.move(path, folder / 'norm_stats.json')
    shutil.rmtree(folder / 'assets')
    after = checkpoint.read(folder, choices)
    np.testing.assert_array_equal(after.state.middle, before.state.middle)


def test_velocities_of_openpi_are_asked_about_and_never_moved(tmp_path):
    """DROID: the state is about a pose of the arm, the actions are about nothing."""
    pose = [0.0, 0.3, -0.1, -2.1, 0.0, 2.4, 0.1, 0.5]
    state = {'mean': pose, 'std': [0.3] * 8, 'q01': None}
    folder, path = openpi(tmp_path, state=state, actions={'mean': [0.01] * 8, 'std': [0.2] * 8})
    with pytest.raises(Unrecorded, match="do not look like positions.*Set 'actions' to"):
        checkpoint.read(folder, Choices(relative_joints=()))
    checkpoint.read(folder, Choices(relative_joints=(), actions='positions'))
    checkpoint.read(folder, Choices(relative_joints=tuple(range(7))))  # relative ones are around 0
    content = json.loads(path.read_text())['norm_stats']
    content['actions']['mean'] = [value + 0.05 for value in pose]
    path.write_text(json.dumps(content))  # positions, and without the wrapper
    checkpoint.read(folder, Choices(relative_joints=()))
    content['actions'] = {'mean': [0.01] * 8, 'std': [0.02] * 8}
    content['state'] = {'mean': [0.3] * 8, 'std': [0.5] * 8}  # nothing is clear, all is small
    path.write_text(json.dumps(content))
    with pytest.raises(Unrecorded, match='do not look like positions'):
        checkpoint.read(folder, Choices(relative_joints=()))
    content['actions'] = {name: [[0.0] * 8] * 10 for name in ('mean', 'std')}
    path.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match='actions.mean for every step of a chunk'):
        checkpoint.read(folder, Choices(relative_joints=()))


# ---- relative actions, by LeRobot's rule ----

def steps_of(folder, change, part='policy_preprocessor.json'):
    """Change the list of steps of a pipeline."""
    content = json.loads((folder / part).read_text())
    content['steps'] = change({step['registry_name']: step for step in content['steps']})
    (folder / part).write_text(json.dumps(content))


@pytest.mark.parametrize('names, words, absolute', [
    (['j1', 'j2', 'j3', 'j4', 'j5', 'j6', 'Left_Gripper.pos'], ['gripper'], [6]),
    (['j1', 'gripper'], ['gripper'], [1]), (['motors'], ['gripper'], []), ([], ['gripper'], []),
    (None, ['gripper'], []), ([['j1', 'gripper'], 'j2'], ['gripper'], [0]),
    (['gripper'] + ['j'] * 7, ['gripper'], [0]), (['gripper'] * 7, [''], []),
    (['a', 'b', 'ab', 'c', 'c', 'c', 'c'], ['a', 'b'], [0, 1, 2]), (['gripper'] * 7, [], [])])
def test_relative_are_the_actions_that_lerobot_made_relative_and_it_is_said_why(
        copy, names, words, absolute):
    def change(steps):
        steps['relative_actions_processor']['config'] |= {
            'action_names': names, 'exclude_joints': words}
        return list(steps.values())

    config = json.loads((copy / 'config.json').read_text())
    config |= {'action_feature_names': names, 'relative_exclude_joints': words}
    (copy / 'config.json').write_text(json.dumps(config))
    steps_of(copy, change)
    spec = checkpoint.read(copy)
    assert np.flatnonzero(~spec.relative).tolist() == absolute
    assert ('all but those' in spec.relative_why) == bool(absolute)
    if words == ['gripper'] and not absolute:
        assert 'LeRobot made every action relative' in spec.relative_why
    config |= {'action_feature_names': ['other'] * 7}
    (copy / 'config.json').write_text(json.dumps(config))
    with pytest.raises(Unrecorded, match='disagree on which actions are relative'):
        checkpoint.read(copy)


# ---- steps ----

@pytest.mark.parametrize('change, words', [
    (lambda steps: [*steps.values(), steps['normalizer_processor']], "_processor' twice"),
    (lambda steps: [steps.pop('normalizer_processor'), *steps.values()],
     "'relative_actions_processor' behind 'normalizer_processor'|behind 'normalizer_processor'"),
    (lambda steps: [step for name, step in steps.items() if 'new_line' not in name],
     "has no step 'pi0_new_line_processor'"),
    (lambda steps: [*(step for name, step in steps.items() if 'new_line' not in name),
                    steps['pi0_new_line_processor']], "behind 'tokenizer_processor'")])
def test_steps_that_are_missing_twice_or_in_another_order_are_refused(copy, change, words):
    steps_of(copy, change)
    with pytest.raises(CheckpointError, match=words):
        checkpoint.read(copy)


def test_two_renames_are_one_after_the_other(copy):
    def twice(steps):
        first = steps['rename_observations_processor']
        first['config']['rename_map'] = {'observation.images.mine': 'observation.images.x'}
        second = json.loads(json.dumps(first))
        second['config']['rename_map'] = {'observation.images.x': 'observation.images.top'}
        return [first, second, *(step for step in steps.values() if step is not first)]

    steps_of(copy, twice)
    assert checkpoint.read(copy).renamed == {'mine': 'top'}

    def behind(steps):
        return [*steps.values(), json.loads(json.dumps(steps['rename_observations_processor']))]

    steps_of(copy, behind)
    with pytest.raises(CheckpointError, match="behind 'normalizer_processor'"):
        checkpoint.read(copy)


@pytest.mark.parametrize('value, fits', [(0, False), (0.0, False), (5, False), (None, True),
                                         (False, True), ([], True)])
def test_a_setting_of_a_step_that_nobody_knows_is_refused_unless_it_says_nothing(
        copy, value, fits):
    def change(steps):
        steps['normalizer_processor']['config']['clip'] = value
        return list(steps.values())

    steps_of(copy, change)
    if fits:
        checkpoint.read(copy)
    else:
        with pytest.raises(CheckpointError, match='has clip .*, which LeRobot.s lacks'):
            checkpoint.read(copy)


def test_statistics_in_the_json_go_before_those_of_the_file(copy):
    before = checkpoint.read(copy).state.middle

    def inline(steps):
        steps['normalizer_processor']['config']['stats'] = {'observation.state': {
            'mean': (before + 1).tolist(), 'std': [0.5] * 7}}
        return list(steps.values())

    steps_of(copy, inline)
    np.testing.assert_allclose(checkpoint.read(copy).state.middle, before + 1, atol=1e-6)


def test_a_state_that_is_not_normalised_is_as_wide_as_its_statistics(copy):
    config = json.loads((copy / 'config.json').read_text())
    config['input_features']['observation.state']['shape'] = [32]  # of the base
    (copy / 'config.json').write_text(json.dumps(config))

    def plain(steps):
        for step in steps.values():
            if 'norm_map' in step['config']:
                step['config']['norm_map'].pop('STATE')
        return list(steps.values())

    steps_of(copy, plain)
    steps_of(copy, plain, 'policy_postprocessor.json')
    assert checkpoint.read(copy).state_width == 7


# ---- cameras ----

def with_cameras(folder, names, renamed, measured, **config):
    """Give a checkpoint these cameras, renames, and statistics of the data set's cameras."""
    values = json.loads((folder / 'config.json').read_text())
    state = values['input_features']['observation.state']
    values['input_features'] = {f'observation.images.{name}': {
        'type': 'VISUAL', 'shape': list(shape)} for name, shape in names.items()} | {
            'observation.state': state}
    (folder / 'config.json').write_text(json.dumps(values | config))

    def change(steps):
        steps['rename_observations_processor']['config']['rename_map'] = {
            f'observation.images.{old}': f'observation.images.{new}'
            for old, new in renamed.items()}
        return list(steps.values())

    steps_of(folder, change)
    path = folder / 'policy_preprocessor_step_6_normalizer_processor.safetensors'
    kept = {key: value for key, value in load_file(path).items() if 'images' not in key}
    save_file(kept | {f'observation.images.{name}.mean': torch.zeros(3, 1, 1)
                      for name in measured}, path)


COLOUR = (3, 224, 224)


@pytest.mark.parametrize('names, renamed, measured, empty, wanted', [
    ('abc', {'front': 'a', 'wrist': 'b'}, ['front', 'wrist'], 0, 'ab'),
    ('ab', {'front': 'a'}, ['front', 'b'], 0, 'ab'),    # one needed no rename
    ('abc', {}, ['a', 'b'], 0, 'abc'), ('abc', {'front': 'a'}, [], 0, 'abc')])
def test_cameras_of_a_base_are_those_that_the_data_set_fed(
        copy, names, renamed, measured, empty, wanted):
    with_cameras(copy, dict.fromkeys(names, COLOUR), renamed, measured, empty_cameras=empty)
    assert ''.join(checkpoint.read(copy).cameras) == wanted


def test_empty_cameras_are_told_by_index_and_count(copy):
    names = dict.fromkeys(('top', 'empty_camera_0', 'empty_camera_7'), COLOUR)
    with_cameras(copy, names, {}, [], empty_cameras=1)
    assert checkpoint.read(copy).cameras == ('top', 'empty_camera_7')
    with_cameras(copy, names, {}, [], empty_cameras=0)
    assert checkpoint.read(copy).cameras == ('top', 'empty_camera_0', 'empty_camera_7')


def test_a_depth_camera_is_none_by_its_channel_or_by_the_data_set(copy, tmp_path):
    with_cameras(copy, {'top': COLOUR, 'one': (1, 48, 64), 'last': (48, 64, 1), 'told': COLOUR},
                 {}, [])
    data = tmp_path / 'data' / 'meta'
    data.mkdir(parents=True)
    (data / 'info.json').write_text(json.dumps({'features': {'observation.images.told': {
        'dtype': 'video', 'info': {'video.is_depth_map': True}}, 'action': None}}))
    (copy / 'train_config.json').write_text(json.dumps({'dataset': {'root': str(data.parent)}}))
    spec = checkpoint.read(copy)
    assert spec.cameras == ('top',) and 'one, last, told is a depth image' in spec.warnings[0]


@pytest.mark.parametrize('info', ['{', '[]', '{"features": null}', '{"features": [1]}',
                                  '{"features": {"action": 3}}'])
def test_a_data_set_on_this_disk_refuses_no_checkpoint(copy, tmp_path, info):
    data = tmp_path / 'data' / 'meta'
    data.mkdir(parents=True)
    (data / 'info.json').write_text(info)
    (copy / 'train_config.json').write_text(json.dumps({'dataset': {'root': str(data.parent)}}))
    assert checkpoint.read(copy).state_names is None
    for strange in ('name', [1], None):
        (copy / 'train_config.json').write_text(json.dumps({'dataset': strange}))
        checkpoint.read(copy)


# ---- anything else ----

def places_in(value, at=()):
    for key in value if isinstance(value, dict) else range(len(value)):
        yield (*at, key)
        if isinstance(value[key], (dict, list)):
            yield from places_in(value[key], (*at, key))


# Of these LeRobot itself takes what is missing for another wish, and so does this package.
WISHES = {('policy_preprocessor.json', name) for name in ('features', 'observation.state')}
PLACES = [(path.name, at) for path in sorted(BASE.glob('*.json'))
          for at in places_in(json.loads(path.read_text()))
          if not {'vlm_config', 'dit_config'} & set(at[:-1])
          and (path.name, at[-1]) not in WISHES]


def told_or_same(folder, before, file):
    """Assert that a folder is refused in a sentence or decides the same; put ``file`` right."""
    try:
        after = actions(folder)
    except CheckpointError as error:
        assert not any(word in str(error) for word in ('damaged: ', 'object has no', 'Traceback'))
        return
    finally:
        shutil.copy(BASE / file, folder / file)
    assert after.shape == before.shape
    np.testing.assert_allclose(after, before, atol=1e-6)


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(PLACES), st.sampled_from(
    ['remove', 'rename', None, 'x', 7, -1.5, [], {}, True]))
def test_a_value_that_is_damaged_is_told_or_does_not_matter(whole, place, how):
    """Removed, renamed or of another type: the same actions, or a sentence."""
    folder, before = whole
    name, at = place
    path, content = folder / name, json.loads((BASE / name).read_text())
    holder, key = content, at[-1]
    for step in at[:-1]:
        holder = holder[step]
    if how == 'remove':
        del holder[key]
    elif how == 'rename':
        if isinstance(key, int):
            return
        renamed = {f'{one}_x' if one == key else one: value for one, value in holder.items()}
        holder.clear()
        holder.update(renamed)
    elif type(holder[key]) is type(how):
        return
    else:
        holder[key] = how
    path.write_text(json.dumps(content))
    told_or_same(folder, before, name)


TENSORS = [(path.name, name) for path in sorted(BASE.glob('*.safetensors'))
           for name in load_file(path)]


@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(TENSORS), st.booleans())
def test_a_tensor_that_is_lost_is_told_or_does_not_matter(whole, place, lost):
    folder, before = whole
    file, name = place
    tensors = load_file(BASE / file)
    if lost:
        del tensors[name]
    else:
        tensors[name] = torch.cat([tensors[name].reshape(-1), torch.zeros(3)])
    save_file(tensors, folder / file)
    told_or_same(folder, before, file)


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    folder = shutil.copytree(BASE, tmp_path_factory.mktemp('whole') / 'checkpoint')
    return folder, actions(folder)


# ---- infer ----

def test_images_of_transformers_go_by_their_order_and_that_is_told(tmp_path, caplog):
    seen = Observation(0, np.zeros(2), {'top': 1, 'wrist': 2}, {}, 'go')
    spec = type('Spec', (), {'layout': 'transformers', 'cameras': ('image_1', 'image_2')})
    with caplog.at_level('INFO'):
        assert infer.in_order(seen, spec).images == {'image_1': 1, 'image_2': 2}
    assert 'top is image_1, wrist is image_2' in caplog.text
    spec.cameras = ('image_1',)
    with pytest.raises(ValueError, match='2 images, expected at most the 1'):
        infer.in_order(seen, spec)
