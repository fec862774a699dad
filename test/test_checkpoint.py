# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Checkpoint folders: recognised, read strictly, refused with a reason."""

import json
import logging
import shutil
import struct

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
from pi0_ros.checkpoint import reader as checkpoint
from pi0_ros.checkpoint.normalise import lerobot_normaliser, openpi_normaliser
from pi0_ros.checkpoint.spec import Choices
from pi0_ros.policy.factory import checkpoint_folder, DEMO
from pi0_ros.policy.pi0 import Pi0Policy
from pi0_ros.weights import loading as weights
from pi0_ros.weights.files import CheckpointError
from pi0_ros.weights.header import read_header
from pi0_ros.weights.network import network_config
from pi0_ros.weights.tensors import stored_names
import pytest
from safetensors.numpy import load_file, save_file
from support import DATA, FIXTURES


def load(folder, **options):
    policy = Pi0Policy(folder, dt_ns=20_000_000, device='cpu', dtype='float32', **options)
    policy.load()
    return policy


@given(st.sampled_from(['MEAN_STD', 'MIN_MAX', 'QUANTILES', 'QUANTILE10', 'IDENTITY']),
       st.lists(st.floats(-5, 5), min_size=3, max_size=3),
       st.lists(st.floats(0.01, 5), min_size=3, max_size=3),
       st.lists(st.floats(-9, 9), min_size=3, max_size=3))
def test_normalisation_round_trip_and_formula(mode, low, span, values):
    low, span, values = map(np.array, (low, span, values))
    high = low + span
    stats = {f'x.{name}': value for name, value in (
        ('mean', low), ('std', span), ('min', low), ('max', high), ('q01', low), ('q99', high),
        ('q10', low), ('q90', high))}
    it = lerobot_normaliser(mode, 'x', stats, 3)
    expected = {'MEAN_STD': (values - low) / (span + 1e-8), 'IDENTITY': values}.get(
        mode, 2 * (values - low) / span - 1)
    np.testing.assert_allclose(it.normalise(values), expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(it.restore(it.normalise(values)), values, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize('stats, words', [
    ({}, "lack 'x.mean', which normalisation MEAN_STD needs"),
    ({'x.mean': np.zeros(2), 'x.std': np.ones(3)}, r"'x.mean' has shape \(2,\), expected \(3,\)"),
    ({'x.mean': np.zeros(3), 'x.std': np.full(3, np.nan)}, "'x.std' is not finite")])
def test_bad_statistics_are_named(stats, words):
    with pytest.raises(ValueError, match=words):
        lerobot_normaliser('MEAN_STD', 'x', stats, 3)


@pytest.fixture
def copy(tmp_path):
    return shutil.copytree(DATA / FIXTURES[0] / 'checkpoint', tmp_path / 'checkpoint')


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def cut(path, part):
    data = path.read_bytes()
    path.write_bytes(data[:int(len(data) * part)])


def lie(path, key, value):
    """Change what the header says of one tensor."""
    data = path.read_bytes()
    size = struct.unpack('<Q', data[:8])[0]
    header = json.loads(data[8:8 + size])
    header['model.state_proj.bias'][key] = value
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack('<Q', len(text)) + text + data[8 + size:])


def loop(path, new=False):
    if not new:
        path.unlink()
    path.symlink_to(path.name)


def instead_of_weights(folder, name):
    (folder / 'model.safetensors').rename(folder / name)


def statistics(folder, name, value):
    path = next(folder.glob('policy_preprocessor*.safetensors'))
    values = {key: array.copy() for key, array in load_file(path).items()}
    if value is None:
        del values[name]
    else:
        values[name][2] = value
    save_file(values, path)


def relative(folder, back=True, **changes):
    """Make the actions relative, in all files."""
    edit(folder / 'config.json', use_relative_actions=True, relative_exclude_joints=None,
         action_feature_names=None)
    path = folder / 'policy_postprocessor.json'
    content = json.loads(path.read_text())
    for step in content['steps']:
        if step['registry_name'] == 'absolute_actions_processor':
            step['config']['enabled'] = back
    path.write_text(json.dumps(content))
    path = folder / 'policy_preprocessor.json'
    content = json.loads(path.read_text())
    for step in content['steps']:
        if step['registry_name'] == 'relative_actions_processor':
            step['config'].update(enabled=True, **changes)
    path.write_text(json.dumps(content))


def tokenizer_without(folder, token, instead='<gone>'):
    path = folder / 'tokenizer' / 'tokenizer.json'
    path.write_text(path.read_text().replace(token, instead))


@pytest.mark.parametrize('damage, words', [
    (lambda c: shutil.rmtree(c), "folder '.*' does not exist"),
    (lambda c: (c / 'config.json').unlink(), "config.json' is missing: copy the whole folder"),
    (lambda c: (c / 'config.json').write_text('{"type": "pi0"'), 'is not JSON'),
    (lambda c: (c / 'config.json').write_text('[]'), 'holds no JSON object'),
    (lambda c: (c / 'policy_preprocessor.json').unlink(), 'LeRobot before 0.4'),
    (lambda c: edit(c / 'config.json', type='pi05'),
     'is pi0.5 by its config.json, its weights are of PI0: files of two checkpoints'),
    (lambda c: edit(c / 'config.json', type='pi0_fast'), 'is pi0-FAST, another network'),
    (lambda c: edit(c / 'config.json', type='act'), "has type 'act', expected pi0"),
    (lambda c: edit(c / 'config.json', type=None), 'is none of LeRobot, openpi or transformers'),
    (lambda c: edit(c / 'config.json', chunk_size='many'), "chunk_size is 'many', expected a w"),
    (lambda c: edit(c / 'config.json', dit_config={'hidden_size': 10**20}), 'no PI0 network'),
    (lambda c: ((c / 'params').mkdir(), (c / 'model.safetensors').unlink()),
     'Orbax .JAX. format: convert it'),
    (lambda c: (c / 'model.safetensors').write_bytes(b''), 'is damaged'),
    (lambda c: (c / 'config.json').write_bytes(bytes([255])), 'is not JSON'),
    (lambda c: tokenizer_without(c, '<bos>'), "has no token '<bos>'"),
    (lambda c: edit(c / 'config.json', input_features={}), "lacks 'observation.state': copy"),
    (lambda c: edit(c / 'config.json', use_relative_actions=True),
     'disagree on whether actions are relative: set .relative_joints'),
    (lambda c: relative(c, action_names='abcdefg'), "'abcdefg', expected a list"),
    (lambda c: relative(c, action_names={'a': 1}), 'expected a list: copy the file'),
    (lambda c: relative(c, back=False), "no step 'absolute_actions_processor' that is enabled"),
    (lambda c: relative(c, exclude_joints='gripper'), "exclude_joints is 'gripper', expected a l"),
    (lambda c: edit(c / 'config.json', chunk_size=True), 'chunk_size is True, expected a whole'),
    (lambda c: edit(c / 'config.json', image_resolution='big'), "image_resolution is 'big'"),
    (lambda c: (c / 'train_config.json').write_text('{"dataset": {"fps": -30}}'),
     'control rate .fps. is -30, expected above 0'),
    (lambda c: (c / 'train_config.json').write_text('{"dataset": {"fps": Infinity}}'), 'is inf'),
    (lambda c: (c / 'train_config.json').write_text('{"dataset": {"fps": NaN}}'), 'is nan'),
    (lambda c: [p.unlink() for p in c.glob('policy_pre*.safetensors')],
     "statistics file 'policy_preprocessor_step_6.*' is missing"),
    (lambda c: next(c.glob('policy_post*.safetensors')).write_bytes(b'junk'), 'is damaged'),
    (lambda c: (c / 'model.safetensors').unlink(), "model.safetensors' is missing"),
    (lambda c: (c / 'model.safetensors').write_bytes(b'\x80\x04junk' * 99), 'is damaged'),
    (lambda c: shutil.rmtree(c / 'tokenizer'), "no tokenizer folder: set 'tokenizer'"),
    (lambda c: (c / 'tokenizer' / 'tokenizer.json').write_text('{'), "tokenizer '.*' is damaged"),
    (lambda c: tokenizer_without(c, r'\n"', '<gone>"'), r"has no token '\\n', which PI0 reads"),
    (lambda c: instead_of_weights(c, 'pytorch_model.bin'), 'is a pickle, which can run any code'),
    (lambda c: instead_of_weights(c, 'adapter_model.safetensors'),
     'is an adapter .LoRA. of another'),
    (lambda c: instead_of_weights(c, 'adapter_config.json'), 'is not JSON'),
    (lambda c: instead_of_weights(c, 'model.safetensors.index.json'), 'is not JSON'),
    (lambda c: instead_of_weights(c, '__0_0.distcp'), 'distributed checkpoint of torch'),
    (lambda c: cut(c / 'model.safetensors', 0.5), 'is damaged.*copy it again'),
    (lambda c: cut(c / 'model.safetensors', 0.999), 'is damaged'),
    (lambda c: lie(c / 'model.safetensors', 'shape', [10**20]), 'is damaged'),
    (lambda c: lie(c / 'model.safetensors', 'shape', [64]), 'is damaged'),
    (lambda c: lie(c / 'model.safetensors', 'data_offsets', [0, 10**15]), 'is damaged'),
    (lambda c: loop(c / 'config.json'), "config.json' is missing|cannot be read"),
    (lambda c: loop(c / 'model.safetensors'), "model.safetensors' is missing"),
    (lambda c: loop(c / 'train_config.json', new=True), 'does not record its control rate'),
    (lambda c: edit(c / 'config.json', chunk_size=10**20), 'chunk length is 10{20}, expected 1'),
    (lambda c: edit(c / 'config.json', num_inference_steps=-1), 'denoising steps is -1, expected'),
    (lambda c: edit(c / 'config.json', image_resolution=[10**20, 3]), 'image height is 1000'),
    (lambda c: edit(c / 'config.json', image_resolution=[112, 112]), 'its network reads 224 x'),
    (lambda c: edit(c / 'config.json', max_state_dim=6), 'state width is 7, expected 1 to 6'),
    (lambda c: edit(c / 'config.json', max_state_dim='wide'), "max_state_dim is 'wide', expected"),
    (lambda c: edit(c / 'config.json', input_features=[1]), 'expected an object: copy the file'),
    (lambda c: edit(c / 'config.json', vlm_config=None), 'is no published size of PI0'),
    (lambda c: (c / 'model.safetensors').unlink(),
     'is missing: copy the whole folder'),
    (lambda c: statistics(c, 'observation.state.std', -1.0), "state.std' is negative"),
    (lambda c: statistics(c, 'observation.state.mean', np.nan), "state.mean' is not finite"),
    (lambda c: statistics(c, 'observation.state.mean', None), "lack 'observation.state.mean'")])
def test_damaged_checkpoints_are_refused_with_a_reason(copy, damage, words):
    damage(copy)
    with pytest.raises(CheckpointError, match=words):
        if 'control rate' in words:
            Pi0Policy(copy)
        load(copy)


@pytest.mark.parametrize('change, words', [
    (lambda t: t.pop('model.state_proj.bias'), 'in 1 places: missing embed_action_time.state'),
    (lambda t: t.update(extra=np.zeros(1, np.float32)), 'unexpected extra'),
    (lambda t: t.update({'model.state_proj.bias': np.zeros(3, np.float32)}),
     r'state_proj.bias has shape \(3,\), expected \(32,\)'),
    (lambda t: t['model.state_proj.bias'].fill(np.nan), 'state_proj.bias holds values that are')])
def test_weights_are_loaded_strictly(copy, change, words):
    tensors = {name: array.copy()
               for name, array in load_file(copy / 'model.safetensors').items()}
    change(tensors)
    save_file(tensors, copy / 'model.safetensors')
    with pytest.raises(CheckpointError, match=words):
        load(copy)


@pytest.fixture
def openpi(tmp_path):
    return shutil.copytree(DATA / 'openpi_pytorch' / 'checkpoint', tmp_path / 'openpi')


def test_openpi_must_be_told_which_actions_are_relative(openpi):
    with pytest.raises(CheckpointError, match="set 'relative_joints' to those joints"):
        checkpoint.read(openpi)
    assert not checkpoint.read(
        openpi, Choices(relative_joints=(), actions='positions')).relative.any()


@pytest.mark.parametrize('damage, assets, words', [
    (lambda c: shutil.rmtree(c / 'assets'), '', '0 norm_stats.json below assets/: copy'),
    (lambda c: shutil.copytree(c / 'assets/trossen', c / 'assets/a/b'), '',
     r"2 norm_stats.json .*\(a/b, trossen\): choose one with 'assets'"),
    (lambda c: None, 'droid', 'no assets/droid/norm_stats.json, it has trossen'),
    (lambda c: (c / 'config.json').unlink(), '', 'does not record its chunk length')])
def test_incomplete_openpi_checkpoints_are_refused(openpi, damage, assets, words):
    damage(openpi)
    with pytest.raises(CheckpointError, match=words):
        checkpoint.read(openpi, Choices(relative_joints=(), actions='positions', assets=assets))


def test_pickles_are_never_opened(openpi):
    """metadata.pt of openpi's training is a pickle; this one would write a file."""
    payload = b"cos\nsystem\n(S'touch " + str(openpi / 'ran').encode() + b"'\ntR."
    (openpi / 'metadata.pt').write_bytes(payload)
    (openpi / 'optimizer.pt').write_bytes(payload)
    load(openpi, tokenizer=str(DATA / 'openpi_pytorch' / 'tokenizer'),
         choices=Choices(relative_joints=(), actions='positions'))
    assert not (openpi / 'ran').exists()


def test_folders_that_are_loops_are_refused(tmp_path, openpi):
    loop(tmp_path / 'loop', new=True)
    with pytest.raises(CheckpointError, match='does not exist'):
        checkpoint.read(tmp_path / 'loop')
    (openpi / 'assets' / 'round').symlink_to(openpi / 'assets')
    spec = checkpoint.read(
        openpi, Choices(relative_joints=(), actions='positions', assets='trossen'))
    assert spec.layout == 'openpi'


def test_openpi_trained_in_pytorch_needs_a_chunk_length(openpi):
    widths = json.loads((openpi / 'config.json').read_text())
    (openpi / 'config.json').unlink()
    spec = checkpoint.read(
        openpi, Choices(relative_joints=(), actions='positions', chunk_length=30))
    assert spec.chunk_length == 30 and spec.trainer == 'openpi, trained in PyTorch'
    (openpi / 'config.json').write_text(json.dumps(
        {key: widths[key] for key in ('vlm_config', 'dit_config')}))
    policy = load(openpi, tokenizer=str(DATA / 'openpi_pytorch' / 'tokenizer'),
                  choices=Choices(relative_joints=(), actions='positions', chunk_length=30))
    policy.warm_up()
    assert policy.model.config.chunk_size == 30


def test_relative_actions_need_their_states(openpi):
    with pytest.raises(CheckpointError, match='action 20 shall be relative, but it has 14'):
        checkpoint.read(openpi, Choices(relative_joints=(0, 20)))


def full_size(**sizes):
    """Return names and shapes of a whole PI0, without its memory."""
    from transformers import PI0Config
    config = PI0Config()
    for part, (name, value) in sizes.items():
        setattr({'text': config.vlm_config.text_config, 'dit': config.dit_config,
                 'vision': config.vlm_config.vision_config}[part], name, value)
    model = weights._empty(config, None)
    return {name: tuple(value.shape) for name, value in model.named_parameters()}


def test_widths_are_read_off_the_tensors(tmp_path):
    """A trainer's config.json does not have them: text and image sizes differ in the wild."""
    from transformers import PI0Config
    shapes, usual = full_size(), PI0Config()
    (tmp_path / 'config.json').write_text('{"type": "pi0", "chunk_size": 50}')
    same = network_config(tmp_path, shapes, 50)
    for part in ('vlm_config.text_config', 'vlm_config.vision_config', 'dit_config'):
        ours, theirs = same, usual
        for step in part.split('.'):
            ours, theirs = getattr(ours, step), getattr(theirs, step)
        for key in ('hidden_size', 'intermediate_size', 'num_hidden_layers',
                    'num_attention_heads'):
            assert getattr(ours, key) == getattr(theirs, key), (part, key)
    assert same.dit_config.head_dim == same.vlm_config.text_config.head_dim == 256
    assert same.dit_config.num_key_value_heads == 1
    assert same.vlm_config.text_config.num_key_value_heads == 1
    assert not same.vlm_config.vision_config.vision_use_head
    other = network_config(tmp_path, full_size(text=('vocab_size', 257216),
                                               dit=('num_hidden_layers', 6),
                                               vision=('image_size', 448)), 20)
    assert other.vlm_config.text_config.vocab_size == 257216 and other.chunk_size == 20
    assert other.vlm_config.vision_config.image_size == 448
    assert other.dit_config.num_hidden_layers == 6
    odd = {**shapes, 'model.vlm.vision_tower.embeddings.patch_embedding.weight': (96, 3, 14, 14)}
    with pytest.raises(CheckpointError, match='image encoder of width 96 .* not SigLIP So400m'):
        network_config(tmp_path, odd, 50)


def test_aliases_and_the_two_embedding_tables():
    table = 'model.vlm.language_model.embed_tokens.weight'
    own = 'paligemma_with_expert.paligemma.model.language_model.embed_tokens.weight'
    head = 'paligemma_with_expert.paligemma.lm_head.weight'
    assert stored_names([head])[table] == head
    assert stored_names([own, head])[table] == stored_names([head, own])[table] == own
    assert stored_names(['elsewhere', head], {own: 'elsewhere'})[table] == 'elsewhere'
    assert stored_names(['x'], {own: 'nowhere'}) == {'x': 'x'}
    assert stored_names(['model.paligemma_with_expert.gemma_expert.lm_head.weight']) == {}


def test_rate_and_names_come_from_the_data_set_on_this_disk(copy, tmp_path, monkeypatch):
    monkeypatch.setenv('HF_LEROBOT_HOME', str(tmp_path / 'home'))
    config = {'dataset': {'repo_id': 'me/cups', 'root': None}}
    (copy / 'train_config.json').write_text(json.dumps(config))
    assert checkpoint.read(copy).dt_s is None
    meta = tmp_path / 'home' / 'me' / 'cups' / 'meta'
    meta.mkdir(parents=True)
    joints = [f'joint{i}.pos' for i in range(7)]
    (meta / 'info.json').write_text(json.dumps({'fps': 30, 'features': {
        'observation.state': {'names': {'motors': joints}}, 'action': {'names': joints[:2]}}}))
    spec = checkpoint.read(copy)
    assert spec.dt_s == pytest.approx(1 / 30)
    assert spec.state_names == tuple(joints) and spec.action_names is None
    (copy / 'train_config.json').write_text(json.dumps(
        {'dataset': {'fps': 15}, 'env': {'fps': 10}}))
    assert checkpoint.read(copy).dt_s == pytest.approx(1 / 15)


def test_tokenizer_comes_from_the_hubs_cache_and_never_from_the_network(copy, tmp_path,
                                                                        monkeypatch):
    from huggingface_hub import constants
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path))
    shutil.move(copy / 'tokenizer', tmp_path / 'saved')
    with pytest.raises(CheckpointError, match='hf download google/paligemma-3b-pt-224'):
        load(copy)
    with pytest.raises(CheckpointError, match="'me/words' is neither a folder .* nor in the hub"):
        load(copy, tokenizer='me/words')
    for name, commit in (('google--paligemma-3b-pt-224', 'a' * 40), ('me--words', 'b' * 40)):
        snapshot = tmp_path / f'models--{name}' / 'snapshots' / commit
        shutil.copytree(tmp_path / 'saved', snapshot)
        (tmp_path / f'models--{name}' / 'refs').mkdir()
        (tmp_path / f'models--{name}' / 'refs' / 'main').write_text(commit)
    assert load(copy, tokenizer='me/words').model is not None
    edit_tokenizer_name(copy, 'google/paligemma-3b-pt-224')
    assert load(copy).spec.tokenizer.name == 'a' * 40


def test_renamed_cameras_are_known(copy):
    path = copy / 'policy_preprocessor.json'
    content = json.loads(path.read_text())
    content['steps'][0]['config'] = {'rename_map': {
        'observation.images.top': 'observation.images.front'}}
    path.write_text(json.dumps(content))
    assert checkpoint.read(copy).renamed == {'top': 'front'}


@pytest.mark.parametrize('name', ['../elsewhere', '/etc'])
def test_a_tokenizer_outside_the_checkpoint_is_not_followed(copy, name):
    path = copy / 'policy_preprocessor.json'
    content = json.loads(path.read_text())
    for step in content['steps']:
        if step['registry_name'] == 'tokenizer_processor':
            step['artifacts'] = {'tokenizer_name': name}
    path.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match='leads out of the checkpoint'):
        checkpoint.read(copy)


def edit_tokenizer_name(folder, name):
    path = folder / 'policy_preprocessor.json'
    content = json.loads(path.read_text())
    for step in content['steps']:
        if step['registry_name'] == 'tokenizer_processor':
            step['config']['tokenizer_name'] = name
    path.write_text(json.dumps(content))


def test_a_still_joint_is_named_and_cannot_explode(copy, caplog):
    statistics(copy, 'observation.state.std', 1e-9)
    with caplog.at_level(logging.WARNING):
        policy = load(copy)
    assert 'state 2 hardly moved in training' in caplog.text
    state = policy.spec.state.restore(np.zeros(7))
    state[2] += 0.01
    assert policy.spec.state.normalise(state)[2] == 5.0
    state[2] -= 0.01
    np.testing.assert_allclose(policy.spec.state.normalise(state), 0, atol=1e-5)


def test_a_joint_that_stood_at_zero_is_still_too(copy):
    statistics(copy, 'observation.state.mean', 0.0)
    statistics(copy, 'observation.state.std', 0.0)
    assert 'state 2 hardly moved' in checkpoint.read(copy).warnings[0]


def test_openpis_action_dim_is_read_off_the_tensors(openpi):
    config = json.loads((openpi / 'config.json').read_text())
    tensors = load_file(openpi / 'model.safetensors')
    for name in ('action_in_proj.weight', 'state_proj.weight'):
        tensors[name] = np.ascontiguousarray(tensors[name][:, :24])
    for name in ('action_out_proj.weight', 'action_out_proj.bias'):
        tensors[name] = np.ascontiguousarray(tensors[name][:24])
    save_file(tensors, openpi / 'model.safetensors')
    (openpi / 'config.json').write_text(json.dumps({**config, 'action_dim': 24}))
    policy = load(openpi, tokenizer=str(DATA / 'openpi_pytorch' / 'tokenizer'),
                  choices=Choices(relative_joints=(), actions='positions'))
    policy.warm_up()
    assert policy.noise_shape == (50, 24)


def test_odd_folders_are_no_checkpoints():
    for name in ('a' * 5000, '~nobody-of-that-name/x'):
        with pytest.raises(CheckpointError, match='does not exist'):
            checkpoint.read(checkpoint_folder(name))


def test_long_instruction_is_cut_with_a_warning(caplog):
    name = FIXTURES[0]
    policy = load(DATA / name / 'checkpoint')
    with caplog.at_level(logging.WARNING):
        ids = policy._prompted('fold the shirt ' * 40, np.zeros(7)).ids
    assert 'the policy reads the first 48: say it in fewer words' in caplog.text
    assert len(ids) == 48


def test_letterbox_of_lerobot_0_4_is_asked_for(copy):
    config = json.loads((copy / 'config.json').read_text())
    del config['use_relative_actions']
    (copy / 'config.json').write_text(json.dumps(config))
    shutil.rmtree(copy / 'tokenizer')
    assert checkpoint.read(copy).trainer == 'LeRobot 0.5.0 or newer'
    tensors = load_file(copy / 'model.safetensors')
    save_file({name: value for name, value in tensors.items() if 'embed_tokens' not in name},
              copy / 'model.safetensors')
    spec = checkpoint.read(copy)
    assert spec.trainer == 'LeRobot 0.4' and "'letterbox' to lerobot_0.4" in spec.warnings[0]
    assert checkpoint.read(copy, Choices(letterbox='lerobot')).warnings == ()


def test_lerobot_before_0_4_is_refused_by_name(copy):
    tensors = load_file(copy / 'model.safetensors')
    tensors['normalize_inputs.buffer_observation_state.mean'] = np.zeros(7, np.float32)
    save_file(tensors, copy / 'model.safetensors')
    assert any('1 statistics of LeRobot before 0.4' in text and 'left out' in text
               for text in checkpoint.read(copy).warnings)  # those of the processors count
    load(copy)
    (copy / 'policy_preprocessor.json').unlink()
    config = json.loads((copy / 'config.json').read_text())
    config |= {'proj_width': 1024, 'num_steps': 5}
    (copy / 'config.json').write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match='before 0.4: convert .*migrate_policy.*all keys '
                       'matched.*lerobot_0.3 afterwards.*proj_width, num_steps .num_steps is 5'):
        checkpoint.read(copy)


def test_header_tells_types_and_sizes():
    names, stored = read_header(DATA / FIXTURES[2] / 'checkpoint')
    part = stored['embed_action_time.state_proj.weight']
    assert part.shape == (32, 32) and part.size == 1024 and part.dtype == 'F32'
    assert len(names) > len(stored)


def test_statistics_of_openpi_may_be_longer_not_shorter():
    it = openpi_normaliser('state', {'mean': [1, 2, 3], 'std': [1, 1, 2]}, 2)
    np.testing.assert_allclose(it.normalise(np.array([2.0, 3])), 1 / (1 + 1e-6))
    np.testing.assert_allclose(it.restore(it.normalise(np.array([4.0, 5]))), [4, 5])
    for bad, words in (({'mean': [1], 'std': [1, 1]}, r'has shape \(1,\), expected at least'),
                       ({'mean': [1, 2], 'std': [1, -1]}, "'state.std' is negative")):
        with pytest.raises(ValueError, match=words):
            openpi_normaliser('state', bad, 2)


def test_when_the_first_action_is_due_is_what_the_checkpoint_says_or_with_the_observation(copy):
    assert checkpoint.read(copy).action_offset == 0  # as LeRobot's recorder stores them
    edit(copy / 'config.json', action_offset=1)
    assert checkpoint.read(copy).action_offset == 1
    assert checkpoint.read(DEMO).action_offset == 1  # its demonstrator's are the next states
    edit(copy / 'config.json', action_offset=-1)
    with pytest.raises(CheckpointError, match='its action_offset is -1, expected 0 to 10'):
        checkpoint.read(copy)


@pytest.mark.parametrize('mode, low, high', [
    ('MIN_MAX', 'min', 'max'), ('QUANTILES', 'q01', 'q99')])
def test_statistics_that_would_mirror_an_action_are_refused(mode, low, high):
    stats = {f'action.{low}': np.array([0.0, 2.0]), f'action.{high}': np.array([1.0, -2.0])}
    words = f"'action.{low}' is above 'action.{high}' at 1, 2.0 and -2.0"
    with pytest.raises(ValueError, match=words):
        lerobot_normaliser(mode, 'action', stats, 2)


def test_a_feature_that_never_moved_is_a_number_in_the_layout_of_transformers(tmp_path):
    """The processor of transformers adds 1e-8 to the deviation."""
    from pi0_ros.checkpoint.layout_transformers import describe
    (tmp_path / 'processor_config.json').write_text(json.dumps({
        'state_mean': [0.5, 0.0], 'state_std': [0.0, 1.0], 'actions_mean': [0.1],
        'actions_std': [0.0]}))
    spec = describe(tmp_path, {}, Choices())
    assert spec.state.normalise(np.array([0.5, 0.3])) == pytest.approx([0.0, 0.3])
    assert np.isfinite(spec.state.normalise(np.array([9.0, 0.0]))).all()
    assert spec.action.restore(np.array([3.0])) == pytest.approx([0.1], abs=1e-6)


# ---- folders as they exist: shared/cases ----

def step(folder, name, part='policy_preprocessor.json', **changes):
    """Change a step's configuration."""
    content = json.loads((folder / part).read_text())
    for one in content['steps']:
        if one.get('registry_name') == name:
            one['config'] = {**one['config'], **changes}
    (folder / part).write_text(json.dumps(content))


def features(*cameras, state=32):
    return {f'observation.images.{name}': {'type': 'VISUAL', 'shape': [3, 224, 224]}
            for name in cameras} | {'observation.state': {'type': 'STATE', 'shape': [state]}}


def test_a_model_that_was_fine_tuned_from_a_base_has_the_data_sets_widths_and_cameras(copy):
    """config.json keeps the base's: three cameras and a state of 32."""
    before = checkpoint.read(copy)
    base = ('base_0_rgb', 'left_wrist_0_rgb', 'right_wrist_0_rgb')
    edit(copy / 'config.json', input_features=features(*base))
    step(copy, 'rename_observations_processor', rename_map={
        f'observation.images.{mine}': f'observation.images.{its}'
        for mine, its in (('front', base[0]), ('wrist', base[1]))})
    spec = checkpoint.read(copy)
    assert spec.state_width == before.state_width == 7
    assert spec.cameras == base[:2]  # the third was empty
    assert any('right_wrist_0_rgb of the base was fed by none' in text for text in spec.warnings)
    assert [spec.camera(name) for name in ('front', 'wrist', base[0])] == [*base[:2], base[0]]
    np.testing.assert_array_equal(spec.state.middle, before.state.middle)


def test_a_base_says_that_it_needs_fine_tuning(copy):
    path = copy / 'policy_preprocessor.json'
    content = json.loads(path.read_text())
    for one in content['steps']:
        one.pop('state_file', None)
        one['config'].pop('stats', None)
    path.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match='it is a base model, .* before it is fine-tuned'):
        checkpoint.read(copy)


@pytest.mark.parametrize('new', [{'registry_name': 'state_action_32_adapter_processor'},
                                 {'class': 'my_robot.processors.DegreesToRadians'}])
@pytest.mark.parametrize('part', ['policy_preprocessor.json', 'policy_postprocessor.json'])
def test_a_step_that_nobody_knows_is_refused_by_name(copy, new, part):
    content = json.loads((copy / part).read_text())
    content['steps'].insert(1, {**new, 'config': {}})
    (copy / part).write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=f"has the step '{next(iter(new.values()))}'"):
        checkpoint.read(copy)


@pytest.mark.parametrize('changes', [
    {'norm_map': {'VISUAL': 'IDENTITY', 'ACTION': 'MEAN_STD'}},
    {'normalize_observation_keys': ['observation.images.front']},
    {'features': {'action': {'type': 'ACTION', 'shape': [7]}}}])
def test_a_state_that_the_normaliser_leaves_out_stays_as_it_is(copy, changes):
    step(copy, 'normalizer_processor', **changes)
    if 'norm_map' in changes:
        step(copy, 'unnormalizer_processor', 'policy_postprocessor.json', **changes)
    spec = checkpoint.read(copy)
    state = np.linspace(-2, 2, 7)
    np.testing.assert_array_equal(spec.state.normalise(state), state)
    assert any('observation.state is not normalised' in text for text in spec.warnings)


@pytest.mark.parametrize('names', [
    ['motors'], {'motors': list('abcdefg')}, [list('abcdefg')],
    {name: index for index, name in enumerate('abcdefg')},
    {'arm': list('abcdef'), 'gripper': 'g'}, [1] * 7, 'joint', None, {'a': None}])
def test_names_in_any_shape_refuse_no_checkpoint(copy, names):
    edit(copy / 'config.json', action_feature_names=names)
    known = checkpoint.read(copy).action_names
    assert known in (tuple('abcdefg'), None) and (known is None) == (
        names in (['motors'], [1] * 7, 'joint', None, {'a': None}))


def test_cameras_are_what_is_visual_whatever_the_key(copy):
    told = features('front', state=7) | {
        'observation.image.wrist': {'type': 'VISUAL', 'shape': [3, 48, 64]},
        'observation.images.depth': {'type': 'VISUAL', 'shape': [1, 48, 64]},
        'observation.images.empty_camera_0': {'type': 'VISUAL', 'shape': [3, 48, 64]}}
    edit(copy / 'config.json', input_features=told, empty_cameras=1)
    spec = checkpoint.read(copy)
    assert spec.cameras == ('front', 'observation.image.wrist')
    assert any('depth is a depth image' in text for text in spec.warnings)


@pytest.mark.parametrize('where, variable', [
    ('lerobot/someone/pick', 'HF_HOME'), ('someone/pick', 'HF_LEROBOT_HOME'),
    ('hub/datasets--someone--pick/snapshots/abc', 'HF_LEROBOT_HOME'),
    ('hub/datasets--someone--pick/snapshots/abc', 'HF_HOME')])
def test_the_rate_is_that_of_the_data_set_and_of_no_environment(
        copy, tmp_path, monkeypatch, where, variable):
    (copy / 'train_config.json').write_text(json.dumps({
        'dataset': {'repo_id': 'someone/pick'}, 'env': {'fps': 30}}))
    assert checkpoint.read(copy).dt_s is None
    meta = tmp_path / 'home' / where / 'meta'
    meta.mkdir(parents=True)
    (meta / 'info.json').write_text(json.dumps({'fps': 10}))
    if 'hub' in where:
        refs = meta.parents[2] / 'refs'
        refs.mkdir()
        (refs / 'main').write_text('abc\n')
    monkeypatch.delenv('HF_LEROBOT_HOME', raising=False)
    monkeypatch.setenv(variable, str(tmp_path / 'home'))
    assert checkpoint.read(copy).dt_s == pytest.approx(0.1)


def test_a_git_lfs_pointer_is_called_that(copy):
    (copy / 'model.safetensors').write_text('version https://git-lfs.github.com/spec/v1\noid 0\n')
    with pytest.raises(CheckpointError, match='is a Git LFS pointer, its content is not here'):
        checkpoint.read(copy)


@pytest.mark.parametrize('key', ['paligemma_variant', 'action_expert_variant'])
def test_an_openpi_conversion_that_lost_its_adapters_is_refused(openpi, key):
    edit(openpi / 'config.json', **{key: 'gemma_2b_lora'})
    with pytest.raises(CheckpointError, match=f"{key} is 'gemma_2b_lora'.*drops the adapters"):
        checkpoint.read(openpi, Choices(relative_joints=(), actions='positions'))


@pytest.mark.parametrize('prefix', [
    '_orig_mod.', 'module.', 'module._orig_mod.', '_orig_mod.module.'])
def test_names_that_a_wrapper_put_a_prefix_before_are_known(copy, prefix):
    _, before = read_header(copy)
    path = copy / 'model.safetensors'
    save_file({prefix + name: value for name, value in load_file(path).items()}, path)
    _, after = read_header(copy)
    assert set(after) == set(before)


def test_actions_that_are_called_as_poses_are_asked_about(copy):
    edit(copy / 'config.json', action_feature_names=[
        'x', 'y', 'z', 'roll', 'pitch', 'yaw', 'grip'])
    with pytest.raises(CheckpointError, match='are called x, y, z, roll, pitch, yaw, as the pose'):
        checkpoint.read(copy)
    assert checkpoint.read(copy, Choices(actions='positions')).action_names[0] == 'x'


def test_a_camera_that_needed_no_rename_is_kept(copy):
    """Only the base's own cameras can be empty: another that has its name already is not lost."""
    edit(copy / 'config.json', input_features=features('front', 'wrist', state=7))
    step(copy, 'rename_observations_processor', rename_map={
        'observation.images.top': 'observation.images.front'})
    assert checkpoint.read(copy).cameras == ('front', 'wrist')
