# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Networks of pi-zero-pytorch: the folder without the library, the actions with it."""

import json
import logging
from pathlib import Path
import shutil
import sys

import numpy as np
from pi0_ros.checkpoint import save_pi_zero
from pi0_ros.checkpoint.config import RobotConfig
from pi0_ros.checkpoint.reader import read, trained_delay
from pi0_ros.checkpoint.spec import PI_ZERO
from pi0_ros.observation.images import letterbox
from pi0_ros.observation.observation import Observation
from pi0_ros.policy.config import PolicyConfig
from pi0_ros.policy.factory import DEMO, declares_training, make_inner, policy_class
from pi0_ros.policy.policy import Leftover
from pi0_ros.remote import metadata
from pi0_ros.verbs import infer, look
from pi0_ros.verbs import train as train_verb
from pi0_ros.weights.files import CheckpointError
import pytest
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer
import torch

TOKENIZER = DEMO / 'tokenizer'
STATES, ACTIONS, LENGTH = 12, 6, 32
SIGLIP = {'type': 'siglip', 'image_size': 32, 'patch_size': 16, 'dim': 24, 'depth': 1, 'heads': 2,
          'mlp_dim': 48}
NETWORK = {'dim': 32, 'num_tokens': 600, 'dim_action_input': ACTIONS, 'dim_joint_state': STATES,
           'depth': 2, 'heads': 2, 'dim_head': 16, 'vit_dim': 24}
JOINTS = tuple(f'joint_{number}' for number in range(ACTIONS))
WATCHED = (*JOINTS, *(f'other_{number}' for number in range(STATES - ACTIONS)))
CAMERAS = ('top', 'wrist')
SAID = 'pick up the red block'


def statistics(dice=None):
    dice = dice or np.random.default_rng(1)
    return {feature: {'mean': dice.normal(size=width).tolist(),
                      'std': dice.uniform(0.5, 1, width).tolist()}
            for feature, width in (('observation.state', STATES), ('action', ACTIONS))}


@pytest.fixture
def folder(tmp_path):
    """Return a folder whose weights are of no network."""
    out = tmp_path / 'policy'
    shutil.copytree(TOKENIZER, out / 'tokenizer')
    write(out)
    save_file({'to_action_tokens.bias': np.zeros(32, np.float32)}, out / 'model.safetensors')
    return out


def write(folder, **changes):
    given = {'type': PI_ZERO, **NETWORK, 'vision': SIGLIP, 'cameras': list(CAMERAS),
             'trajectory_length': LENGTH, 'statistics': statistics(), 'fps': 20,
             'state_names': list(WATCHED), 'action_names': list(JOINTS)} | changes
    text = json.dumps({name: value for name, value in given.items() if value != 'left out'})
    (folder / 'config.json').write_text(text)


def test_a_folder_is_read_without_the_library(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, 'pi_zero_pytorch', None)
    spec = read(folder)
    assert (spec.network, spec.layout, spec.cameras) == (PI_ZERO, 'pi-zero-pytorch', CAMERAS)
    assert (spec.state_width, spec.action_width, spec.chunk_length) == (STATES, ACTIONS, LENGTH)
    assert (spec.denoising_steps, spec.dt_s, spec.image_size) == (18, 0.05, (32, 32))
    assert (spec.state_names, spec.action_names) == (WATCHED, JOINTS)
    assert np.allclose(spec.action.middle, statistics()['action']['mean'])
    assert (spec.prompt, spec.tokenizer) == ('plain', folder / 'tokenizer')
    assert (spec.trained_delay, spec.action_offset) == (0, 0)
    with pytest.raises(CheckpointError, match='needs that library.*pip install pi-zero-pytorch'):
        policy_class(folder)(folder)


@pytest.mark.parametrize('changes, text', [
    ({'dimm': 3}, "config.json has 'dimm', which is none of .*dim_action_input"),
    ({'external_state_encoders': []}, "has 'external_state_encoders', which is none of"),
    ({'dim': 'left out'}, "config.json lacks 'dim'"),
    ({'depth': 2.5}, "'depth' of config.json is 2.5, expected int"),
    ({'pi05': True}, "has 'pi05', which is none of .* cannot be run here"),
    ({'num_advantage_tokens': 2}, "has 'num_advantage_tokens', which is none of"),
    ({'layer_time_cond': 1}, "'layer_time_cond' of config.json is 1, expected bool"),
    ({'heads': True}, "'heads' of config.json is True, expected int"),
    ({'dim': 10**12}, "'dim' of config.json is 1000000000000, expected at most"),
    ({'vision': 'left out'}, "its vision is 'None', expected 'siglip', or an object with"),
    ({'vision': {'type': 'resnet'}}, 'its vision is .*resnet'),
    ({'vision': SIGLIP | {'channels': 1}}, "its vision has 'channels', which is none of"),
    ({'vision': {'type': 'vit', 'image_size': 32}}, "its vision lacks 'patch_size'"),
    ({'vision': {'type': 'siglip', 'checkpoint': '../other'}}, 'leads out of the checkpoint'),
    ({'vision': SIGLIP | {'checkpoint': 'vision'}}, 'says the rest itself'),
    ({'cameras': []}, r'its cameras are \[\], expected one name for each image'),
    ({'cameras': ['top', 'top']}, 'its cameras are'),
    ({'state_names': ['one']}, 'its state_names are 1, the network has 12'),
    ({'statistics': {}}, "statistics lack 'observation.state.mean'"),
    ({'statistics': {'observation.state': {'mean': 'much', 'std': [1]}}},
     'no lists of numbers'),
    ({'normalization': 'ZSCORE'}, "normalisation mode 'ZSCORE'"),
    ({'trajectory_length': 'left out'}, 'its trajectory_length is None'),
    ({'trajectory_length': 5000}, 'its chunk length is 5000, expected 1 to 1000'),
    ({'steps': 1}, 'its steps are 1, expected 0 to 1000 and at least 2'),
    ({'fps': -3}, 'its fps is -3'), ({'fps': float('inf')}, 'its fps is inf'),
    ({'fps': float('nan')}, 'its fps is nan'), ({'fps': 5000}, 'its fps is 5000'),
    ({'normalization': 'IDENTITY'}, "say 'relative'"),
    ({'relative': [99]}, 'action 99 shall be relative'), ({'relative': 'all'}, 'its relative is'),
    ({'prompt': 'pi05'}, "its prompt is 'pi05', expected one of plain"),
    ({'letterbox': 'round'}, "its letterbox is 'round', expected one of"),
    ({'image_size': 64}, 'its image_size is 64, its vision reads 32'),
    ({'image_mean': [0.5, 0.5, 0.5]}, 'its image_mean and image_std are .* three numbers'),
    ({'image_mean': [0.5] * 3, 'image_std': [0.2, 0.0, 0.2]}, 'its image_mean and image_std'),
    ({'train_time_rtc': True}, "it has no 'train_time_rtc_max_delay'"),
    ({'action_offset': 99}, 'its action_offset is 99'),
])
def test_what_a_folder_may_not_say(folder, changes, text):
    write(folder, **changes)
    with pytest.raises(CheckpointError, match=text):
        read(folder)


def test_a_trained_delay_is_one_less_than_training_drew(folder):
    write(folder, train_time_rtc=True, train_time_rtc_max_delay=9)
    assert read(folder).trained_delay == 8 and declares_training(str(folder))
    assert trained_delay({'type': PI_ZERO, 'train_time_rtc_max_delay': 9}) == 0


def test_inspect_tells_what_it_is(folder, capsys):
    assert look.main([str(folder), '--json']) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told['network'], told['layout']) == ('pi-zero-pytorch', 'pi-zero-pytorch')
    assert (told['chunk_length'], told['action_rate_hz']) == (LENGTH, 20.0)


def test_it_is_not_trained_here(folder, tmp_path, capsys):
    assert train_verb.main(['--dataset', str(Path(__file__).parent / 'data' / 'lerobot_dataset'
                                             / 'image'), '--checkpoint', str(folder), '--output',
                            str(tmp_path / 'out')]) == 1
    assert 'is trained with that library' in capsys.readouterr().err


def test_another_network_is_no_pi_zero():
    config = PolicyConfig(policy=PI_ZERO, checkpoint='demo')
    robot = RobotConfig(joint_names=('shoulder_pan', 'shoulder_lift', 'elbow_flex', 'wrist_flex',
                                     'gripper'), cameras=('overhead', 'wrist'))
    with pytest.raises(CheckpointError, match="is PI0: set 'policy' to pi0"):
        make_inner(config, robot)


# From here on with the library.

@pytest.fixture(scope='module')
def library():
    return pytest.importorskip('pi_zero_pytorch', exc_type=ImportError)


def new_model(library, **changes):
    torch.manual_seed(3)
    encoder = library.SigLIP(**{name: value for name, value in SIGLIP.items() if name != 'type'})
    model = library.PiZero(vit=encoder, **NETWORK | changes)
    with torch.no_grad():  # the encoder's table begins as noise, the rest as next to nothing
        for value in model.parameters():
            value.add_(0.02 * torch.randn_like(value))
    return model.eval()


def save(model, folder, **changes):
    save_pi_zero(model, folder, **{
        'tokenizer': TOKENIZER, 'cameras': CAMERAS, 'trajectory_length': LENGTH,
        'statistics': statistics(), 'vision': SIGLIP, 'fps': 50, 'state_names': WATCHED,
        'action_names': JOINTS, **changes})


@pytest.fixture(scope='module')
def saved(library, tmp_path_factory):
    out = tmp_path_factory.mktemp('pi_zero') / 'policy'
    model = new_model(library)
    save(model, out)
    return model, out


def opened(folder, **settings):
    policy = policy_class(folder)(folder, **settings)
    policy.load()
    policy.warm_up()
    return policy


def observation(seed=0):
    dice = np.random.default_rng(seed)
    return Observation(0, dice.normal(size=STATES), {
        name: dice.integers(0, 256, (48, 64, 3), dtype=np.uint8) for name in CAMERAS}, {}, SAID)


def given(seen):
    """Return what the library reads of an observation."""
    pixels = torch.stack([torch.from_numpy(letterbox(seen.images[name], 32, 32))
                          for name in CAMERAS], 1)[None]
    ids = Tokenizer.from_file(str(TOKENIZER / 'tokenizer.json')).encode(SAID).ids
    known = statistics()['observation.state']
    state = (seen.state - known['mean']) / (np.array(known['std']) + 1e-8)
    return pixels, torch.tensor([ids]), torch.from_numpy(state).float()[None]


def restored(actions):
    known = statistics()['action']
    return actions[0].double().numpy() * known['std'] + known['mean']


@pytest.mark.parametrize('steps', [18, 5])
def test_its_actions_are_the_librarys_own(saved, steps):
    model, folder = saved
    seen, policy = observation(), opened(saved[1], steps=steps)
    torch.manual_seed(7)
    wanted, noise = model.sample_actions(*given(seen), LENGTH, steps=steps, show_pbar=False,
                                         return_original_noise=True)
    chunk = policy.infer(seen, noise[0].numpy())
    assert np.abs(chunk.positions - restored(wanted)).max() < 1e-6
    assert np.ptp(chunk.positions, axis=0).min() > 0.1
    assert policy.describe()['engine'] == PI_ZERO


def test_noise_follows_from_the_seed(saved):
    first, again = (opened(saved[1], seed=4, steps=3) for _ in range(2))
    one, two = first.infer(observation()), again.infer(observation())
    assert np.array_equal(one.positions, two.positions) and one.seed == 4
    assert not np.array_equal(one.positions, first.infer(observation()).positions)
    noise = np.random.default_rng((4, 0)).standard_normal((LENGTH, ACTIONS))
    assert np.array_equal(one.positions, again.infer(observation(), noise).positions)


@pytest.mark.parametrize('rtc', ['identity', 'full'])
def test_a_chunk_continues_what_is_executed(saved, rtc):
    policy, seen = opened(saved[1], rtc=rtc, steps=6), observation()
    dice = np.random.default_rng(5)
    planned = policy.infer(seen, dice.standard_normal(policy.noise_shape)).positions[8:]
    noise = dice.standard_normal(policy.noise_shape)
    free = policy.infer(seen, noise)
    guided = policy.infer(seen, noise, Leftover(planned, 5))
    assert (free.given, guided.given) == (0, 5)
    assert np.allclose(guided.positions[:5], planned[:5], atol=1e-6)
    soft = slice(5, 12)  # not given any more, but near what is planned
    away = [np.abs(chunk.positions[soft] - planned[soft]).mean() for chunk in (free, guided)]
    assert away[1] < 0.6 * away[0]
    steps = np.abs(np.diff(guided.positions[:14], axis=0)).max()
    assert steps < 1.5 * max(np.abs(np.diff(planned, axis=0)).max(),
                             np.abs(np.diff(free.positions, axis=0)).max())


def test_the_library_continues_it_the_same_way(saved):
    model, folder = saved
    policy, seen = opened(folder, rtc='identity', steps=4), observation()
    noise = torch.randn(1, LENGTH, ACTIONS, generator=torch.Generator().manual_seed(9))
    known = statistics()['action']
    planned = np.random.default_rng(2).normal(known['mean'], known['std'], (20, ACTIONS))
    frozen = torch.from_numpy((planned - known['mean']) / known['std']).float()[None]
    solve = model.odeint_fn
    model.odeint_fn = lambda flow, _, times: solve(flow, noise.clone(), times)
    try:
        wanted = model.sample_actions(
            *given(seen), LENGTH, steps=4, show_pbar=False, frozen_actions=frozen,
            soft_mask_lens=(4, 16, 12), return_frozen_actions_with_sampled=True)
    finally:
        model.odeint_fn = solve
    got = policy.infer(seen, noise[0].numpy(), Leftover(planned, 4))
    assert np.abs(got.positions - restored(wanted.detach())).max() < 1e-5


def test_hand_over_rtc_trained_gives_the_first_alone(library, tmp_path):
    model = new_model(library, train_time_rtc=True, train_time_rtc_max_delay=6)
    save(model, tmp_path / 'policy')
    policy, seen = opened(tmp_path / 'policy', rtc='trained', steps=4), observation()
    noise = np.random.default_rng(3).standard_normal(policy.noise_shape)
    planned = policy.infer(seen, noise).positions + 0.3
    guided = policy.infer(seen, noise, Leftover(planned, 4))
    assert guided.given == 4 and np.allclose(guided.positions[:4], planned[:4], atol=1e-6)
    assert policy.infer(seen, noise, Leftover(planned, 20)).given == 5
    with pytest.raises(CheckpointError, match='cannot be guided .* or to rtc_trained'):
        policy_class(tmp_path / 'policy')(tmp_path / 'policy', rtc='full')


def test_an_encoder_may_lie_beside(library, tmp_path):
    from transformers import SiglipVisionConfig, SiglipVisionModel
    torch.manual_seed(4)
    encoder = SiglipVisionModel(SiglipVisionConfig(
        hidden_size=24, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2,
        image_size=32, patch_size=16)).eval()
    encoder.save_pretrained(tmp_path / 'siglip')
    model = library.PiZero(**NETWORK).eval()
    save(model, tmp_path / 'policy', encoder=tmp_path / 'siglip', vision='siglip',
         image_mean=(0.4, 0.5, 0.6), image_std=(0.2, 0.3, 0.4))
    seen, policy = observation(), opened(tmp_path / 'policy', steps=4)
    pixels, ids, state = given(seen)
    pixels = ((pixels[0].transpose(0, 1) + 1) / 2 - torch.tensor([0.4, 0.5, 0.6])[:, None, None]
              ) / torch.tensor([0.2, 0.3, 0.4])[:, None, None]
    with torch.no_grad():
        tokens = encoder(pixel_values=pixels).last_hidden_state[None]
    torch.manual_seed(1)
    wanted, noise = model.sample_actions(tokens, ids, state, LENGTH, steps=4, show_pbar=False,
                                         return_original_noise=True)
    got = policy.infer(seen, noise[0].numpy()).positions
    assert np.abs(got - restored(wanted)).max() < 1e-6
    shutil.rmtree(tmp_path / 'policy' / 'vision')
    with pytest.raises(CheckpointError, match='vision/config.json.* is missing'):
        opened(tmp_path / 'policy')


def test_weights_are_strict(saved, tmp_path):
    folder = tmp_path / 'policy'
    shutil.copytree(saved[1], folder)
    path = folder / 'model.safetensors'
    whole = load_file(path)

    def refused(text, **changes):
        save_file({name: value for name, value in {**whole, **changes}.items()
                   if value is not None}, path)
        with pytest.raises(CheckpointError, match=text):
            opened(folder)

    name = 'to_action_tokens.weight'
    refused(f'lacks 1 tensors, such as {name}', **{name: None})
    refused('has 1 that the network does not know, such as more', more=np.zeros(3, np.float32))
    refused(r'to_action_tokens.weight of \(2, 2\), expected \(32, 6\)',
            **{name: np.zeros((2, 2), np.float32)})
    refused(f'tensor {name} .*is not finite', **{name: np.full((32, 6), np.nan, np.float32)})
    config = json.loads((folder / 'config.json').read_text())
    save_file(whole, path)
    (folder / 'config.json').write_text(json.dumps(config | {'activation': 'sine'}))
    with pytest.raises(CheckpointError, match='makes no network of its arguments'):
        opened(folder)


def test_all_arguments_are_kept_and_the_librarys_version(saved):
    told = json.loads((saved[1] / 'config.json').read_text())
    assert {'time_max_period', 'activation', 'norm_eps', 'ff_expand_factor'} <= set(told)
    assert told['library_version'] and 'dim_action' not in told


def test_noise_is_never_sent_for_actions(saved):
    with pytest.raises(CheckpointError, match="'denoising_steps' is 1, .* at least 2"):
        policy_class(saved[1])(saved[1], steps=1)


def test_an_action_that_stood_still_in_training_hides_no_given_ones(library, tmp_path):
    told = statistics()
    told['action']['std'][0] = 0.0
    save(new_model(library), tmp_path / 'policy', statistics=told)
    policy, seen = opened(tmp_path / 'policy', rtc='identity', steps=4), observation()
    noise = np.random.default_rng(3).standard_normal(policy.noise_shape)
    planned = policy.infer(seen, noise).positions + 0.2
    planned[:, 0] = told['action']['mean'][0]
    guided = policy.infer(seen, noise, Leftover(planned, 5))
    assert guided.given == 5 and np.allclose(guided.positions[:5], planned[:5], atol=1e-6)


def test_padding_of_the_tokenizer_is_kept(library, tmp_path):
    tokenizer = Tokenizer.from_file(str(TOKENIZER / 'tokenizer.json'))
    tokenizer.enable_padding(length=16, pad_id=0)
    tokenizer.save(str(tmp_path / 'padded.json'))
    save(new_model(library), tmp_path / 'policy', tokenizer=tmp_path / 'padded.json')
    policy = opened(tmp_path / 'policy', steps=3)
    assert len(policy.prepare(observation())[2].ids) == 16


def test_actions_that_do_not_look_like_positions_must_be_told(folder):
    told = statistics()
    told['observation.state'] = {'mean': [1.0] * STATES, 'std': [0.3] * STATES}
    told['action'] = {'mean': [0.0] * ACTIONS, 'std': [0.02] * ACTIONS}
    write(folder, statistics=told)
    with pytest.raises(CheckpointError, match='its actions do not look like positions'):
        read(folder)
    write(folder, statistics=told, relative=list(range(ACTIONS)))
    assert read(folder).relative.all()


@pytest.mark.parametrize('changes, text', [
    ({'dim_latent': 8}, "the model has 'dim_latent', which is none of"),
    ({'num_recurrent_memory_tokens': 2}, "the model has 'num_recurrent_memory_tokens'"),
    ({'pi05': True}, "the model has 'pi05'"), ({'num_tasks': 3}, "the model has 'num_tasks'"),
])
def test_what_cannot_be_kept_is_not_saved(library, tmp_path, changes, text):
    with pytest.raises(ValueError, match=text):
        save(new_model(library, **changes), tmp_path / 'policy')
    assert not list(tmp_path.iterdir())


def test_what_does_not_fit_is_not_saved(library, saved, tmp_path):
    for changes, error, text in (
            ({'vision': SIGLIP | {'depth': 2}}, CheckpointError, 'of two networks'),
            ({'vision': SIGLIP | {'norm_eps': 0.1}}, ValueError, 'computes something else'),
            ({'cameras': []}, ValueError, 'its cameras are'),
            ({'cameras': 'top'}, ValueError, 'expected a list of cameras'),
            ({'image_mean': [0.5] * 3}, ValueError, 'image_mean and image_std together'),
            ({'statistics': {}}, ValueError, "statistics lack 'observation.state.mean'"),
            ({'action_offset': 99}, ValueError, 'its action_offset is 99'),
            ({'trajectory_length': 5000}, ValueError, 'its chunk length is 5000'),
            ({'tokenizer': Path(__file__)}, ValueError, 'is no tokenizer.json'),
            ({'tokenizer': tmp_path}, OSError, 'tokenizer.json'),
            ({'encoder': tmp_path}, ValueError, 'a vit of its own')):
        with pytest.raises(error, match=text):
            save(saved[0], tmp_path / 'policy', **changes)
        assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match='exists: name another folder'):
        save(saved[0], saved[1])


def test_infer_decides_from_a_file(saved, tmp_path, capsys):
    seen = observation()
    np.savez(tmp_path / 'seen.npz', state=seen.state, instruction=SAID,
             **{f'image.{name}': image for name, image in seen.images.items()})
    words = ['--checkpoint', str(saved[1]), '--observation', str(tmp_path / 'seen.npz'),
             '--output', str(tmp_path / 'actions.npy'), '--steps', '4', '--seed', '2']
    assert infer.main(words) == 0
    assert json.loads(capsys.readouterr().out)['engine'] == PI_ZERO
    wanted = opened(saved[1], seed=2, steps=4).infer(seen).positions
    assert np.array_equal(np.load(tmp_path / 'actions.npy'), wanted)
    np.savez(tmp_path / 'seen.npz', state=seen.state, instruction=SAID,
             **{'image.top': seen.images['top']})
    assert infer.main(words) == 1
    assert 'cannot do without' in capsys.readouterr().err


def test_it_is_served_and_judged_as_it_decides(library, tmp_path, capsys):
    from bags import Tape
    from pi0_ros.remote.wire import pack, unpack
    from pi0_ros.verbs import evaluate
    from test_remote import Served
    from websockets.sync.client import connect
    model = new_model(library, dim_joint_state=2, dim_action_input=2)
    save(model, tmp_path / 'policy', cameras=('camera_1',), state_names=('a', 'b'),
         action_names=('a', 'b'), statistics={
             feature: {'mean': [0.1, 0.1], 'std': [0.1, 0.1]}
             for feature in ('observation.state', 'action')})
    seen = Observation(0, np.array([0.1, 0.2]), {'camera_1': observation().images['top']}, {},
                       SAID)
    noise = np.random.default_rng((5, 0)).standard_normal((LENGTH, 2))
    served = Served('--checkpoint', str(tmp_path / 'policy'), '--steps', '4', '--max-batch', '2')
    try:
        with connect(served.address, compression=None, max_size=None) as there:
            there.recv()
            there.send(pack({'state': seen.state, 'images': dict(seen.images), 'prompt': SAID,
                             metadata.NOISE: noise}))
            answer = unpack(there.recv(timeout=20))
    finally:
        served.close()
    wanted = opened(tmp_path / 'policy', steps=4).infer(seen, noise).positions
    assert np.abs(answer['actions'] - wanted).max() < 1e-6
    tape = Tape(tmp_path / 'bag')
    tape.say(0, SAID)
    for at_ms in range(0, 3000, 20):
        tape.joints(at_ms, [at_ms / 10000, 0.1])
        if at_ms % 40 == 0:
            tape.image(at_ms, at_ms % 255)
    parameters = tmp_path / 'robot.yaml'
    parameters.write_text('/**:\n  ros__parameters:\n    policy: pi_zero_pytorch\n'
                          '    joint_names: [a, b]\n    cameras: [camera_1]\n'
                          '    denoising_steps: 4\n')
    assert evaluate.main([str(tape.close()), '--checkpoint', str(tmp_path / 'policy'),
                          '--params-file', str(parameters), '--out', str(tmp_path / 'out'),
                          '--every', '0.5', '--threads', '1']) == 0
    told = json.loads((tmp_path / 'out/evaluation.json').read_text())['runs']['policy']
    assert told['compared'] >= 3 and told['error_share']['policy'] > 0


def robot(**changes):
    return RobotConfig(**{'joint_names': JOINTS, 'state_names': WATCHED, 'cameras': CAMERAS}
                       | changes)


def test_the_node_makes_it_by_either_name(saved, caplog):
    for name in ('pi0', PI_ZERO):
        caplog.set_level(logging.INFO)
        policy = make_inner(PolicyConfig(policy=name, checkpoint=str(saved[1])), robot())
        assert policy.spec.network == PI_ZERO and policy.cameras == CAMERAS
    with pytest.raises(ValueError, match='no slot feeds .* wrist, and a network of .* cannot'):
        make_inner(PolicyConfig(policy=PI_ZERO, checkpoint=str(saved[1])),
                   robot(cameras=('top',)))
    with pytest.raises(ValueError, match="hand-over 'rtc' needs a joint for every action"):
        make_inner(PolicyConfig(policy=PI_ZERO, checkpoint=str(saved[1])),
                   robot(joint_names=(*JOINTS[:-1], '-')), 'identity')
    for words, text in (({'engine': 'fast'}, "set 'engine' to auto"),
                        ({'dtype': 'bfloat16'}, "set 'dtype' to auto")):
        with pytest.raises(CheckpointError, match=text):
            make_inner(PolicyConfig(policy=PI_ZERO, checkpoint=str(saved[1]), **words), robot())


@pytest.mark.live
@pytest.mark.xdist_group('live')
@pytest.mark.parametrize('handover', ['blend', 'rtc'])
def test_a_robot_of_six_joints_moves(saved, tmp_path, handover):
    """Twelve joints are seen, six are moved: the numbers of the library's README."""
    pytest.importorskip('rclpy', reason='needs ROS 2')
    from graph import Graph
    from sensor_msgs.msg import Image
    folder = tmp_path / 'policy'
    save(saved[0], folder, statistics={feature: {'mean': [0.1] * width, 'std': [0.1] * width}
                                       for feature, width in (('observation.state', STATES),
                                                              ('action', ACTIONS))})
    graph = Graph(policy=PI_ZERO, checkpoint=str(folder), joint_names=list(JOINTS),
                  state_names=list(WATCHED), cameras=list(CAMERAS), denoising_steps=4,
                  handover=handover, replan_period=0.2, max_jump=2.0)
    try:
        robot = graph.robot
        robot.names, robot.position = list(WATCHED), [0.1] * STATES
        wrist = robot.create_publisher(Image, 'camera_2/image_raw', 2)

        def show():
            image = Image(**robot.image)
            image.header.stamp = robot.stamp()
            wrist.publish(image)

        robot.create_timer(0.05, show)
        graph.start()
        graph.wait(lambda: graph.enable().success)
        graph.instruct(SAID)
        graph.wait(lambda: len(robot.commands) > 60 and len(robot.chunks) > 3)
        moved = np.array([list(message.points[0].positions) for message in robot.commands])
        assert moved.shape[1] == ACTIONS and np.ptp(moved, axis=0).max() > 0.01
        assert robot.jumps().max() < 0.02
        told = {pair.key: pair.value for pair in robot.diagnostics['pi0: policy'].values}
        assert told['engine'] == PI_ZERO
    finally:
        graph.close()
