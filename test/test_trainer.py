# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Verb train on data sets of ours: what it reads, writes, goes on with, and refuses."""

import errno
import json
import os
from pathlib import Path
import signal
import subprocess
import sys

from bags import write_demonstration
import cv2
import numpy as np
from pi0_ros.checkpoint.reader import read
from pi0_ros.dataset import frames as videos
from pi0_ros.dataset.reader import DataError, DataSet
from pi0_ros.finetune import flow
from pi0_ros.finetune.command import memory_advice, train
from pi0_ros.finetune.learner import cast, freeze
from pi0_ros.finetune.settings import Settings
from pi0_ros.finetune.trainer import Trainer
from pi0_ros.policy.factory import checkpoint_folder
from pi0_ros.policy.pi0 import Pi0Policy
from pi0_ros.training.model import new_model
from pi0_ros.verbs import export
from pi0_ros.verbs import train as verb
from pi0_ros.weights.loading import load_model
import pyarrow
import pyarrow.parquet
import pytest
from safetensors.torch import load_file
import torch

SIM = Path(__file__).parents[1] / 'config' / 'sim.yaml'
GOLDEN = Path(__file__).parent / 'data' / 'lerobot_dataset'
LAST = Path('checkpoints') / 'last' / 'pretrained_model'


@pytest.fixture(scope='module')
def dataset(tmp_path_factory):
    """Return a data set of two episodes."""
    folder = tmp_path_factory.mktemp('sets')
    bag = write_demonstration(folder / 'bag', 3)
    assert export.main([str(bag), '--dataset', str(folder / 'set'), '--fps', '10',
                        '--params-file', str(SIM)]) == 0
    return folder / 'set'


def settings(dataset, output, **more):
    given = {'steps': 4, 'batch_size': 2, 'save_every': 2, 'log_every': 1, 'chunk_size': 10,
             'learning_rate': 1e-3, 'threads': 1, 'workers': 1, 'eval_frames': 2}
    return Settings(dataset, 'demo', output, **given | more)


def lines(output):
    return [json.loads(line) for line in (output / 'log.jsonl').read_text().splitlines()]


def test_it_ends_with_a_checkpoint_that_the_loader_takes(dataset, tmp_path, capsys):
    out = tmp_path / 'out'
    assert train(settings(dataset, out, steps=12, batch_size=4)) == 0
    told = capsys.readouterr().out
    assert '2 episodes' in told and 'parameters are trained' in told
    rows = lines(out)
    assert [row['step'] for row in rows] == list(range(1, 13))
    assert np.mean([row['loss'] for row in rows[-4:]]) < np.mean([row['loss'] for row in rows[:4]])
    assert all(row['images_per_s'] > 0 for row in rows)
    spec = read(out / LAST)
    assert spec.chunk_length == 10 and spec.dt_s == pytest.approx(0.1)
    assert spec.action_names[0] == 'shoulder_pan' and spec.action_offset == 0
    policy = Pi0Policy(out / LAST)
    policy.load()
    policy.warm_up()
    kept = sorted(path.name for path in (out / 'checkpoints').iterdir())
    assert kept == ['000012', 'best', 'last']  # the others went
    assert json.loads((out / LAST / 'train_config.json').read_text())['dataset']['fps'] == 10
    assert '12 of 12 steps' in (out / LAST / 'README.md').read_text()


def test_it_goes_on_to_the_same_numbers(dataset, tmp_path, capsys):
    straight, broken = tmp_path / 'straight', tmp_path / 'broken'
    assert train(settings(dataset, straight)) == 0
    given = settings(dataset, broken)
    trainer = Trainer(given)
    stop = trainer.learner.learn

    def cut(loss, backward):
        if trainer.learner.number == 3:
            raise KeyboardInterrupt
        return stop(loss, backward)

    trainer.learner.learn = cut
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    assert len(lines(broken)) == 3  # one more than is kept
    assert train(given, resume=True) == 0
    assert 'going on from step 2' in capsys.readouterr().out
    assert [row['loss'] for row in lines(broken)] == [row['loss'] for row in lines(straight)]
    one, other = (load_file(out / LAST / 'model.safetensors') for out in (straight, broken))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize('changes, words', [
    ({'seed': 5}, 'was begun with another seed'), ({'batch_size': 3}, 'another batch_size')])
def test_another_training_is_not_gone_on_with(dataset, tmp_path, changes, words, capsys):
    out = tmp_path / 'out'
    assert train(settings(dataset, out, steps=1)) == 0
    assert train(settings(dataset, out, steps=1)) == 1
    assert 'say --resume' in capsys.readouterr().err
    assert train(settings(dataset, out, steps=1, **changes), resume=True) == 1
    assert words in capsys.readouterr().err
    assert train(settings(dataset, tmp_path / 'none'), resume=True) == 1
    assert 'no training to go on with' in capsys.readouterr().err


def test_held_out_episodes_are_measured_and_the_best_is_kept(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr('pi0_ros.finetune.trainer.LEAST_EPISODES', 2)
    out = tmp_path / 'out'
    given = settings(dataset, out, held_out=0.5, eval_every=1, save_every=9, steps=3)
    trainer = Trainer(given)
    assert len(trainer.held) == 1 and len(trainer.episodes) == len(trainer.data.episodes) - 1
    assert not set(trainer.frames) & set(trainer.data.frames_of(trainer.held))
    errors = iter([0.3, 0.1, 0.2])
    measure = trainer.measure
    trainer.measure = lambda: (measure(), next(errors))[1]
    trainer.run()
    told = [row for row in lines(out) if 'held_out' in row]
    assert len(told) == 3 and all(0 < row['held_out'] < 1 and row['hold_still'] > 0
                                  for row in told)
    assert (out / 'checkpoints' / 'best').resolve().name == '000002'
    assert (out / 'checkpoints' / 'last').resolve().name == '000003'


def test_every_frame_comes_once_in_an_epoch(dataset, tmp_path):
    trainer = Trainer(settings(dataset, tmp_path / 'out', batch_size=1))
    count = len(trainer.frames)
    seen = [trainer.frames[trainer._order(0)[at]] for at in range(count)]
    assert sorted(seen) == sorted(trainer.frames) and seen != sorted(seen)
    assert list(trainer._order(1)) != list(trainer._order(0))


def test_batches_are_the_same_whoever_makes_them(dataset, tmp_path):
    one = Trainer(settings(dataset, tmp_path / 'one', batch_size=8, steps=6))
    many = Trainer(settings(dataset, tmp_path / 'many', batch_size=8, steps=6, workers=6))
    for first, second in zip(one._batches(0), many._batches(0)):
        for name, value in vars(first).items():
            assert torch.equal(value, getattr(second, name)), name


def test_frozen_parts_stay(dataset, tmp_path):
    before = load_file(checkpoint_folder('demo') / 'model.safetensors')
    for flag, frozen in (('train_expert_only', '.paligemma.'),
                         ('freeze_vision_encoder', 'vision_tower')):
        out = tmp_path / flag
        assert train(settings(dataset, out, steps=1, **{flag: True})) == 0
        after = load_file(out / LAST / 'model.safetensors')
        changed = {name for name in after if not torch.equal(after[name], before[name].float())}
        assert not [name for name in changed if frozen in name]
        # Of the last layer of the text nobody reads more than keys and values.
        rest = {name for name in after if frozen not in name and 'layers.4' not in name
                and 'language_model.norm' not in name}
        assert rest and rest <= changed, rest - changed


@pytest.mark.parametrize('dtype', ['bfloat16', 'mixed'])
def test_types(dataset, tmp_path, dtype):
    model = load_model(checkpoint_folder('demo'), torch.float32, torch.device('cpu'))
    freeze(model, True, False)
    assert cast(model, dtype) == torch.bfloat16
    kinds = {name: one.dtype for name, one in model.named_parameters()}
    for name, kind in kinds.items():
        if dtype == 'mixed':
            assert kind == torch.float32 or name.startswith('model.vlm.'), name
            assert kind == torch.bfloat16 or 'language_model.layers.1.mlp' not in name
        elif 'vision_tower' in name or 'norm' in name or 'projector' in name:
            assert kind == torch.float32, name
        elif 'mlp.up_proj' in name:
            assert kind == torch.bfloat16, name
    out = tmp_path / dtype
    assert train(settings(dataset, out, steps=2, dtype=dtype, gradient_checkpointing=True)) == 0
    assert all(np.isfinite(row['loss']) for row in lines(out))
    policy = Pi0Policy(out / LAST)
    policy.load()


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'mixed'])
def test_every_type_is_measured_and_what_is_frozen_stays_as_exact_as_it_was(
        dataset, tmp_path, monkeypatch, dtype):
    monkeypatch.setattr('pi0_ros.finetune.trainer.LEAST_EPISODES', 2)
    out = tmp_path / 'out'
    assert train(settings(dataset, out, steps=2, dtype=dtype, held_out=0.4,
                          train_expert_only=True)) == 0
    assert [row for row in lines(out) if 'held_out' in row]
    before = load_file(checkpoint_folder('demo') / 'model.safetensors')
    after = load_file(out / LAST / 'model.safetensors')
    for name, value in before.items():
        if '.paligemma.' in name:
            assert torch.equal(after[name], value), name


def test_adapters_survive_products_in_bfloat16(dataset, tmp_path):
    pytest.importorskip('peft', reason='needs PEFT (requirements/train.txt)')
    out = tmp_path / 'out'
    trainer = Trainer(settings(dataset, out, lora_rank=4, dtype='mixed'))
    for name, one in trainer.model.named_parameters():
        if '.lora_B' in name:
            torch.nn.init.constant_(one, 1e-4)
    trainer.save()
    before = load_file(checkpoint_folder('demo') / 'model.safetensors')
    after = load_file(out / LAST / 'model.safetensors')
    name = 'model.paligemma_with_expert.gemma_expert.model.layers.0.self_attn.q_proj.weight'
    delta = dict(trainer.model.named_modules())[
        'model.dit.layers.0.self_attn.q_proj'].get_delta_weight('default').float()
    far = (after[name] - before[name].float() - delta).abs().max()
    assert far < 0.02 * before[name].abs().max()
    assert (after[name] != before[name]).float().mean() > 0.5


def test_a_start_that_fails_leaves_no_folder_in_the_way(dataset, tmp_path, capsys):
    out = tmp_path / 'out'
    assert train(settings(dataset, out, cameras=('front',))) == 1
    assert train(settings(dataset, out, steps=1)) == 0
    capsys.readouterr()
    (tmp_path / 'other').mkdir()
    (tmp_path / 'other' / 'mine.txt').write_text('')
    assert train(settings(dataset, tmp_path / 'other', steps=1)) == 1
    assert 'exists' in capsys.readouterr().err


def test_ctrl_c_keeps_what_was_learnt(dataset, tmp_path, capsys):
    out = tmp_path / 'out'
    given = settings(dataset, out, save_every=100)
    trainer = Trainer(given)
    step = trainer.learner.learn

    def told(*given_):
        done = step(*given_)
        if trainer.learner.number == 3:
            signal.raise_signal(signal.SIGINT)
        return done

    trainer.learner.learn = told
    before = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(KeyboardInterrupt):
            trainer.run()
    finally:
        signal.signal(signal.SIGINT, before)
    with (out / 'log.jsonl').open('a') as log:
        log.write('{"step": 4, "lo')  # of a disk that was full
    assert train(given, resume=True) == 0
    assert 'going on from step 3' in capsys.readouterr().out
    assert [row['step'] for row in lines(out)] == [1, 2, 3, 4]


def test_a_gradient_that_is_no_number_changes_nothing(dataset, tmp_path):
    trainer = Trainer(settings(dataset, tmp_path / 'out'))
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    one = trainer.learner.trained[0]

    def loss():  # finite, with a gradient that is not
        return (one.flatten()[0] - one.flatten()[0].detach()).abs().sqrt()

    with pytest.raises(FloatingPointError, match='gradient of step 0 is not finite'):
        trainer.learner.learn(loss)
    assert all(torch.equal(before[name], value)
               for name, value in trainer.model.state_dict().items())


def test_what_comes_after_an_episode_is_no_error(dataset, tmp_path, monkeypatch):
    from pi0_ros.finetune import held_out
    trainer = Trainer(settings(dataset, tmp_path / 'out'))
    seen = []
    summarise = held_out.summarise
    monkeypatch.setattr(held_out, 'summarise', lambda records, *rest: (
        seen.extend(records), summarise(records, *rest))[1])
    end = int(trainer.data._end[0])
    held_out.measure(trainer.model, trainer.inputs, trainer.data, [end - 3], 2, 0)
    done = np.array(seen[0]['done'])
    assert np.isfinite(done[:3]).all() and np.isnan(done[3:]).all()


def test_a_checkpoint_with_relative_actions_stays_as_it_is(dataset, tmp_path, capsys):
    out = tmp_path / 'all'
    assert train(settings(dataset, out, steps=1, relative_actions=True,
                          relative_exclude_joints=())) == 0
    assert read(out / LAST).relative.all()
    given = vars(settings(dataset, tmp_path / 'on', steps=1)) | {'checkpoint': str(out / LAST)}
    assert train(Settings(**given)) == 0
    assert read(tmp_path / 'on' / LAST).relative.all()
    given |= {'output': tmp_path / 'kept', 'keep_statistics': True, 'relative_actions': False}
    assert train(Settings(**given)) == 1
    assert 'leave out --keep-statistics' in capsys.readouterr().err


def test_adapters_follow_the_seed(dataset, tmp_path):
    pytest.importorskip('peft', reason='needs PEFT (requirements/train.txt)')
    one, two = (Trainer(settings(dataset, tmp_path / name, lora_rank=2)) for name in 'ab')
    for name, value in one.model.state_dict().items():
        assert torch.equal(value, two.model.state_dict()[name]), name


def test_relative_actions_have_statistics_of_their_own(dataset, tmp_path):
    out = tmp_path / 'out'
    assert train(settings(dataset, out, steps=1, relative_actions=True)) == 0
    spec = read(out / LAST)
    assert spec.relative.tolist() == [True, True, True, True, False]
    absolute = DataSet(dataset).statistics()['action.mean']
    assert abs(spec.action.middle[1]) < 0.3 < abs(absolute[1])
    assert spec.action.middle[4] == pytest.approx(absolute[4], abs=0.01)


def test_statistics_are_kept_where_asked(dataset, tmp_path):
    out = tmp_path / 'out'
    before = read(checkpoint_folder('demo'))
    assert train(settings(dataset, out, steps=1, keep_statistics=True)) == 0
    after = read(out / LAST)
    np.testing.assert_allclose(after.state.middle, before.state.middle)
    np.testing.assert_allclose(after.action.spread, before.action.spread)


def test_trained_delay_is_written_down_and_has_no_loss(dataset, tmp_path):
    out = tmp_path / 'out'
    trainer = Trainer(settings(dataset, out, steps=1, trained_delay=4, batch_size=200))
    noise, times, given = trainer._draw(0, (10, 32))
    assert (times[given] == 0).all() and (times[~given] > 0).all()
    lengths = given.sum(1)
    assert set(lengths.tolist()) == {0, 1, 2, 3, 4} and (lengths == 0).float().mean() > 0.4
    trainer.save()
    assert read(out / LAST).trained_delay == 4
    Pi0Policy(out / LAST, rtc='trained')


def test_pi05_learns_too(dataset, tmp_path):
    from pi0_ros.training.export import export as write
    from pi0_ros.training.instructions import build_tokenizer
    from pi0_ros.training.learning import Samples
    from pi0_ros.training import demonstrations
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demonstrations, 'SHARD', 8)
        shard = demonstrations.load([demonstrations.write_shard((tmp_path, 5, 64, 'blocks'))])
    tokenizer = build_tokenizer(512, 'pi05')
    write(tmp_path / 'pi05', dict(new_model(0, network='pi05').state_dict()),
          Samples(shard, tokenizer, 128, 0, 4, 'pi05'), tokenizer)
    out = tmp_path / 'out'
    given = settings(dataset, out, steps=2, gradient_checkpointing=True)
    assert train(Settings(**{**vars(given), 'checkpoint': str(tmp_path / 'pi05')})) == 0
    spec = read(out / LAST)
    assert spec.network == 'pi05' and spec.prompt == 'pi05'
    policy = Pi0Policy(out / LAST)
    policy.load()
    policy.warm_up()


def test_adapters_are_merged_into_what_is_saved(dataset, tmp_path, capsys):
    pytest.importorskip('peft', reason='needs PEFT (requirements/train.txt)')
    out = tmp_path / 'out'
    assert train(settings(dataset, out, steps=3, lora_rank=4, learning_rate=1e-2)) == 0
    assert '1.8 million parameters' in capsys.readouterr().out
    before = load_file(checkpoint_folder('demo') / 'model.safetensors')
    after = load_file(out / LAST / 'model.safetensors')
    assert set(after) == set(before)
    changed = {name for name in after if not torch.equal(after[name], before[name].float())}
    assert changed and all('.q_proj.' in name or '.v_proj.' in name or 'state_proj' in name
                           or 'action_' in name for name in changed)
    assert not [name for name in changed if '.paligemma.' in name]
    for name in changed:  # of so low a rank
        if name.endswith('q_proj.weight'):
            kept = torch.linalg.matrix_rank(after[name] - before[name].float(), rtol=1e-4)
            assert kept <= 4, name
    trainer = Trainer(settings(dataset, tmp_path / 'again', lora_rank=4))
    seen = trainer.inputs.batch([trainer.data.item(0, 10)])
    noise, times, given = (part[:1] for part in trainer._draw(0, (10, 32)))
    for name, one in trainer.model.named_parameters():
        if '.lora_B' in name:
            torch.nn.init.normal_(one, std=0.1)
    trainer.write(tmp_path / 'merged')
    other = load_model(tmp_path / 'merged', torch.float32, torch.device('cpu'), 10)
    with torch.no_grad():
        torch.testing.assert_close(
            flow.losses(other, seen, noise, times, 5),
            flow.losses(trainer.model.eval(), seen, noise, times, 5), rtol=1e-4, atol=1e-4)


def test_several_processes_compute_what_one_does(dataset, tmp_path):
    pytest.importorskip('accelerate', reason='needs accelerate (requirements/train.txt)')
    given = ['--dataset', str(dataset), '--checkpoint', 'demo', '--steps', '3', '--chunk-size',
             '10', '--log-every', '1', '--save-every', '3', '--device', 'cpu', '--threads', '1',
             '--learning-rate', '1e-3']
    rows = []
    for name, more in (('one', ['--batch-size', '4']),
                       ('two', ['--batch-size', '2', '--gpus', '2'])):
        done = subprocess.run(
            [sys.executable, '-m', 'pi0_ros', 'train', *given, *more, '--output',
             str(tmp_path / name)], capture_output=True, text=True,
            env=os.environ | {'PYTHONPATH': os.pathsep.join(sys.path)})
        assert done.returncode == 0, done.stderr[-3000:]
        rows.append([row['loss'] for row in lines(tmp_path / name)])
    assert rows[0][:2] == pytest.approx(rows[1][:2], rel=1e-4)
    assert rows[0] == pytest.approx(rows[1], rel=2e-2)
    one, two = (load_file(tmp_path / name / LAST / 'model.safetensors') for name in ('one', 'two'))
    assert max(float((one[name] - two[name]).abs().mean()) for name in one) < 1e-4


@pytest.mark.parametrize('module, more, words', [
    ('peft', ['--lora-rank', '4'], '--lora-rank needs PEFT'),
    ('accelerate', ['--gpus', '2'], '--gpus needs accelerate')])
def test_what_is_not_installed_is_told(dataset, tmp_path, monkeypatch, capsys, module, more,
                                       words):
    monkeypatch.setitem(sys.modules, module, None)
    assert verb.main(['--dataset', str(dataset), '--checkpoint', 'demo', '--output',
                      str(tmp_path / 'out'), *more]) == 1
    assert words in capsys.readouterr().err


# ---- what it reads ----

def test_frames_come_in_any_order_with_little_memory(dataset):
    whole, little = DataSet(dataset), DataSet(dataset, cache_bytes=2 * 640 * 480 * 3)
    order = np.random.default_rng(0).permutation(len(whole))[:12]
    for index in order:
        one, other = (data.item(int(index), 5) for data in (whole, little))
        for name in whole.cameras:
            np.testing.assert_array_equal(one.images[name], other.images[name])
        assert one.images['overhead'].shape == (480, 640, 3)
    assert little._videos._bytes <= 3 * 640 * 480 * 3
    assert len(whole._videos._kept) > len(little._videos._kept)


def test_actions_end_with_their_episode(dataset):
    data = DataSet(dataset)
    end = data._end[0]
    item = data.item(end - 3, 6)
    np.testing.assert_array_equal(item.actions[:3], data.action[end - 3:end])
    assert (item.actions[3:] == data.action[end - 1]).all()
    assert item.task == 'pick up the red block'
    assert data.item(end, 1).task == 'pick up the green block'
    starts = data.chunk_starts(6)
    assert all(start // 1 + 6 <= end or start >= end for start in starts)


def with_pictures(dataset, folder):
    """Write the data set with images in its tables, as LeRobot does without videos."""
    data = DataSet(dataset)
    (folder / 'data' / 'chunk-000').mkdir(parents=True)
    (folder / 'meta').mkdir()
    for path in (dataset / 'meta').rglob('*'):
        if path.is_file():
            target = folder / path.relative_to(dataset)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    info = json.loads((folder / 'meta' / 'info.json').read_text())
    columns = []
    for path in sorted((dataset / 'data').rglob('*.parquet')):
        columns.append(pyarrow.parquet.read_table(path))
    table = pyarrow.concat_tables(columns)
    for name in data.cameras:
        info['features'][f'observation.images.{name}']['dtype'] = 'image'
        packed = []
        for index in range(len(data)):
            image = data.item(index, 1).images[name]
            packed.append({'bytes': cv2.imencode('.png', image[:, :, ::-1])[1].tobytes(),
                           'path': f'frame-{index}.png'})
        table = table.append_column(f'observation.images.{name}', pyarrow.array(
            packed, pyarrow.struct([('bytes', pyarrow.binary()), ('path', pyarrow.string())])))
    pyarrow.parquet.write_table(table, folder / 'data' / 'chunk-000' / 'file-000.parquet')
    (folder / 'meta' / 'info.json').write_text(json.dumps(info))
    return folder


def test_images_may_lie_in_the_tables(dataset, tmp_path):
    data, other = DataSet(dataset), DataSet(with_pictures(dataset, tmp_path / 'pictures'))
    for index in (0, 7, len(data) - 1):
        one, two = data.item(index, 3), other.item(index, 3)
        for name in data.cameras:
            np.testing.assert_array_equal(one.images[name], two.images[name])


@pytest.mark.parametrize('kind', ['image', 'video'])
def test_data_sets_of_lerobots_own_are_read(kind):
    """Written by LeRobot 0.6.1: three episodes of 15 frames; a bar of 8 i + 1 columns grows."""
    data = DataSet(GOLDEN / kind)
    assert (len(data), data.fps, data.cameras) == (45, 10, ('front',))
    assert data.names('action') == ('a', 'b', 'c') and data.episodes == [0, 1, 2]
    for index in (44, 0, 14, 15, 31, 7):
        episode, number = divmod(index, 15)
        item = data.item(index, 4)
        assert item.task == f'task {episode}' and item.state.tolist() == [episode, number, 0]
        assert item.actions[:, 1].tolist() == [min(number + step, 14) + 0.5 for step in range(4)]
        image = item.images['front']
        assert image.shape == (96, 128, 3)
        assert (image[95, :, 0] > 127).sum() == 8 * number + 1
        assert int(image[0, 0, 0]) == pytest.approx(127, abs=4)
    assert data.statistics()['action.mean'][1] == pytest.approx(7.5)


def changed(dataset, folder, name, value):
    """Return a data set whose info.json says something else."""
    (folder / 'meta').mkdir(parents=True)
    for path in dataset.rglob('*'):
        if path.is_file():
            target = folder / path.relative_to(dataset)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    info = json.loads((folder / 'meta' / 'info.json').read_text())
    if value is None:
        del info['features'][name]
    else:
        info[name] = value
    (folder / 'meta' / 'info.json').write_text(json.dumps(info))
    return folder


def test_what_is_no_data_set_says_why(dataset, tmp_path):
    with pytest.raises(DataError, match='has no meta/info.json'):
        DataSet(tmp_path)
    with pytest.raises(DataError, match="of version 'v2.1', expected v3.0"):
        DataSet(changed(dataset, tmp_path / 'old', 'codebase_version', 'v2.1'))
    with pytest.raises(DataError, match="has no 'action'"):
        DataSet(changed(dataset, tmp_path / 'blind', 'action', None))
    lost = changed(dataset, tmp_path / 'lost', 'fps', 10)
    for path in (lost / 'data').rglob('*.parquet'):
        path.unlink()
    with pytest.raises(DataError, match='no parquet file in data'):
        DataSet(lost)


def test_a_damaged_video_is_named(dataset, tmp_path):
    folder = changed(dataset, tmp_path / 'set', 'fps', 10)
    (path,) = (folder / 'videos' / 'observation.images.wrist').rglob('*.mp4')
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match=f"video '{path}' cannot be read"):
        DataSet(folder).item(0, 1).images['wrist']


@pytest.mark.parametrize('more, words', [
    ({'cameras': ('front',)}, "has no camera 'front', it has overhead, wrist"),
    ({'trained_delay': 10}, '--trained-delay is 10, expected 0 to 9'),
    ({'held_out': 1.0}, '--held-out is 1.0'),
    ({'chunk_size': 900, 'relative_actions': True}, 'every episode is shorter than a chunk'),
    ({'checkpoint': 'nowhere'}, 'nowhere')])
def test_what_does_not_fit_is_refused(dataset, tmp_path, capsys, more, words):
    given = vars(settings(dataset, tmp_path / 'out')) | more
    assert train(Settings(**given)) == 1
    assert words in capsys.readouterr().err


def test_cameras_can_be_put_in_another_order(dataset, tmp_path):
    trainer = Trainer(settings(dataset, tmp_path / 'out', cameras=('wrist', 'overhead')))
    assert trainer.meaning.spec.cameras == ('wrist', 'overhead')
    batch = trainer.inputs.batch([trainer.data.item(0, 10)])
    other = Trainer(settings(dataset, tmp_path / 'other'))
    torch.testing.assert_close(batch.images[:, [1, 0]],
                               other.inputs.batch([other.data.item(0, 10)]).images)


def test_the_network_reads_what_it_reads_when_it_is_run(dataset, tmp_path):
    """One frame as training has it, and as the policy of the checkpoint has it."""
    trainer = Trainer(settings(dataset, tmp_path / 'out', keep_statistics=True, chunk_size=50))
    policy = Pi0Policy(checkpoint_folder('demo'))
    policy.load()
    item = trainer.data.item(3, 50)
    from pi0_ros.observation.observation import Observation
    _, state, prompt, pixels = policy.prepare(Observation(
        0, item.state.astype(float), item.images, {}, item.task))
    batch = trainer.inputs.batch([item])
    torch.testing.assert_close(batch.images[0], pixels)
    torch.testing.assert_close(batch.state[0], state, rtol=1e-5, atol=1e-5)
    assert batch.ids[0, -len(prompt.ids):].tolist() == prompt.ids.tolist()


# ---- what goes wrong ----

def test_a_full_disk_loses_nothing(dataset, tmp_path, monkeypatch, capsys):
    out = tmp_path / 'out'
    given = settings(dataset, out)
    from pi0_ros.finetune import saving
    save, calls = saving.save_as_lerobot, []

    def full(tensors, path):
        calls.append(path)
        if len(calls) == 2:
            path.write_bytes(b'half')
            raise OSError(errno.ENOSPC, 'No space left on device')
        save(tensors, path)

    monkeypatch.setattr(saving, 'save_as_lerobot', full)
    assert train(given) == 1
    assert 'No space left on device' in capsys.readouterr().err
    assert sorted(path.name for path in (out / 'checkpoints').iterdir()) == ['000002', 'last']
    Pi0Policy(out / LAST)
    assert train(given, resume=True) == 0
    assert (out / 'checkpoints' / 'last').resolve().name == '000004'


def test_a_loss_that_is_no_number_changes_nothing(dataset, tmp_path, capsys, monkeypatch):
    out = tmp_path / 'out'
    given = settings(dataset, out)
    trainer = Trainer(given)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    with pytest.raises(FloatingPointError, match='loss of step 0 is nan: a smaller --learning'):
        trainer.learner.learn(lambda: trainer.learner.trained[0].sum() * float('nan'))
    assert all(torch.equal(before[name], value)
               for name, value in trainer.model.state_dict().items())


def test_memory_that_is_too_small_says_which_flag_saves_how_much(dataset, tmp_path):
    trainer = Trainer(settings(dataset, tmp_path / 'out'))
    text = memory_advice(trainer, trainer.settings)
    assert '--train-expert-only saves 0.0 GiB' in text and '--batch-size 1 halves' in text
    assert '--gradient-checkpointing' in text and '--dtype bfloat16' in text
    assert '--train-expert-only' not in memory_advice(None, trainer.settings)


def test_the_verb_has_every_setting(dataset, tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr('pi0_ros.finetune.command.train', lambda settings, resume: given.append(
        (settings, resume)) or 0)
    assert verb.main(['--dataset', 'a', '--checkpoint', 'demo', '--output', 'c']) == 0
    assert given[0] == (Settings(Path('a'), 'demo', Path('c')), False)
    assert verb.main(['--dataset', 'a', '--checkpoint', 'demo', '--output', 'c', '--resume',
                      '--cameras', 'x', 'y', '--no-relative-actions', '--steps', '7', '--dtype',
                      'mixed', '--relative-exclude-joints', '--learning-rate', '1e-4']) == 0
    one, resume = given[1]
    assert resume and one.cameras == ('x', 'y') and one.relative_actions is False
    assert (one.steps, one.dtype, one.relative_exclude_joints, one.learning_rate) == (
        7, 'mixed', (), 1e-4)


def test_a_video_is_looked_for_anew_only_where_need_be(dataset, monkeypatch):
    data = DataSet(dataset)
    seeks = []
    seek = videos._Video.frames_to

    def watched(self, at_s, period_s):
        seeks.append((self._at_s, at_s))
        return seek(self, at_s, period_s)

    monkeypatch.setattr(videos._Video, 'frames_to', watched)
    for index in range(6):
        data.item(index, 1).images['wrist']
    asked = len(seeks)
    for index in range(6):
        data.item(index, 1).images['wrist']
    assert len(seeks) == asked == 6  # all of them were kept
    assert all(at < asked_for for at, asked_for in seeks)


def test_fitted_images_are_kept_as_long_as_there_is_room(dataset, tmp_path):
    trainer = Trainer(settings(dataset, tmp_path / 'out', batch_size=8, steps=9))
    trainer.fill()
    inputs, count = trainer.inputs, len(trainer.data)
    assert len(inputs._kept) == 2 * count  # all: there are 4 GiB
    kept = inputs.batch([trainer.data.item(3, 10)])
    little = Trainer(settings(dataset, tmp_path / 'little', batch_size=8, steps=9,
                              cache_gib=5.5 * inputs.image_bytes / 2**30))
    little.fill()
    assert not little.inputs._kept  # not all of them fit in: they come as they are asked for
    for index in (1, 2, 3, 4):
        one = little.inputs.batch([little.data.item(index, 10)])
    assert len(little.inputs._kept) == 5
    assert torch.equal(little.inputs.batch([little.data.item(3, 10)]).images, kept.images)
    assert one.images.shape == kept.images.shape
