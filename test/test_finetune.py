# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Fine-tuning, against what LeRobot 0.6.1's own code did, and on data sets of ours."""

import json
from pathlib import Path

import numpy as np
from pi0_ros.checkpoint.reader import read
from pi0_ros.dataset.reader import DataSet, Item
from pi0_ros.dataset.relative import relative_mask, relative_statistics
from pi0_ros.finetune import flow
from pi0_ros.finetune.inputs import adopt, Inputs
from pi0_ros.finetune.learner import freeze, Learner, Schedule
from pi0_ros.policy.prompt import load_tokenizer
from pi0_ros.weights.loading import load_model, save_as_lerobot
import pytest
from safetensors.numpy import load_file
import torch

GOLDEN = Path(__file__).parent / 'data' / 'lerobot_training'
EXPECTED = json.loads((GOLDEN / 'expected.json').read_text())
VARIANTS = {'all': (False, False), 'expert_only': (True, False), 'frozen_vision': (False, True)}


class Stub:
    """A data set of one batch, as the golden case has it."""

    def __init__(self):
        self.raw = dict(np.load(GOLDEN / 'batch.npz'))
        self.cameras = ('front', 'wrist')
        self.state, self.action = self.raw['state'], self.raw['actions'][:, 0]
        self.fps, self.action_offset = 30, 0

    def names(self, feature):
        return ()

    def statistics(self):
        return load_file(GOLDEN / 'checkpoint' / 'policy_preprocessor_step_6_normalizer_processor'
                         '.safetensors')

    def items(self):
        return [Item({name: self.raw[f'image.{name}'][row] for name in self.cameras},
                     self.raw['state'][row], self.raw['actions'][row], str(task))
                for row, task in enumerate(self.raw['tasks'])]


@pytest.fixture(scope='module')
def golden():
    """Return a function that makes a network, and the batch of all steps."""
    data = Stub()
    spec = read(GOLDEN / 'checkpoint')
    length = data.raw['actions'].shape[1]

    def model():
        return load_model(GOLDEN / 'checkpoint', torch.float32, torch.device('cpu'), length)

    meaning = adopt(spec, data, (), length, None, ())
    made = model()
    patches = (spec.image_size[0] // made.config.vlm_config.vision_config.patch_size) ** 2
    inputs = Inputs(meaning, load_tokenizer(str(GOLDEN / 'tokenizer'), spec),
                    made.config.vlm_config.image_token_id, patches,
                    (made.config.max_state_dim, made.config.max_action_dim))
    return model, inputs.batch(data.items()), data.raw


def loss_of(model, batch, raw, step, **more):
    noise, times = torch.from_numpy(raw['noise'][step]), torch.from_numpy(raw['time'][step])
    return flow.losses(model, batch, noise, times[:, None].expand(noise.shape[:2]), 6, **more)


@pytest.mark.parametrize('checkpointing', [False, True])
@pytest.mark.parametrize('variant', VARIANTS)
def test_steps_are_lerobots(golden, tmp_path, variant, checkpointing):
    make, batch, raw = golden
    expected = EXPECTED[variant]
    model = make()
    names = freeze(model, *VARIANTS[variant])
    heads = 1 if variant == 'expert_only' else 2  # that tell words, and have no gradient
    assert len(names) == expected['trainable'] - heads
    learner = Learner(model, Schedule(4))
    for step, told in enumerate(expected['steps'][:3]):
        per_dim = loss_of(model, batch, raw, step).mean((0, 1)).tolist()
        assert per_dim == pytest.approx(told['per_dim'], rel=1e-5)
        done = learner.learn(lambda step=step: loss_of(model, batch, raw, step,
                                                       checkpointing=checkpointing).mean())
        assert done['loss'] == pytest.approx(told['loss'], rel=1e-5)
        assert done['grad_norm'] == pytest.approx(told['grad_norm'], rel=1e-4)
        assert done['rate'] == pytest.approx(expected['learning_rates'][step])
        if step in (0, 2):
            save_as_lerobot(model.state_dict(), tmp_path / 'model.safetensors')
            ours = load_file(tmp_path / 'model.safetensors')
            for name, value in np.load(GOLDEN / f'after_{step + 1}_{variant}.npz').items():
                assert np.abs(ours[name] - value).max() < 1e-4, name


def test_gradients_are_lerobots(golden):
    make, batch, raw = golden
    model = make()
    freeze(model, False, False)
    loss_of(model, batch, raw, 0).mean().backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    norms = {name: one.grad.norm() for name, one in model.named_parameters()
             if one.grad is not None}
    told = EXPECTED['all']['gradient_norms']
    checked = 0
    for name, value in norms.items():
        name = name.removeprefix('embed_action_time.').replace(
            'model.vlm.vision_tower.',
            'paligemma_with_expert.paligemma.model.vision_tower.vision_model.').replace(
            'model.vlm.', 'paligemma_with_expert.paligemma.model.').replace(
            'model.dit.', 'paligemma_with_expert.gemma_expert.model.')
        if f'model.{name}' in told:
            assert float(value) == pytest.approx(told[f'model.{name}'], rel=1e-3, abs=1e-6), name
            checked += 1
    assert checked == len(told) - 2 or checked == len(norms)


def test_the_schedule_is_lerobots():
    whole = Schedule(30_000)
    assert whole.rate(0) == pytest.approx(2.5e-5 / 1001)
    assert whole.rate(500) == pytest.approx(2.5e-5 * (1 / 1001 + 0.5 * 1000 / 1001))
    assert whole.rate(30_000) == whole.rate(90_000) == pytest.approx(2.5e-6)
    rates = EXPECTED['all']['learning_rates']
    assert [Schedule(4).rate(step) for step in range(4)] == pytest.approx(rates)


@pytest.mark.parametrize('name', json.loads((GOLDEN / 'relative_statistics.json').read_text()))
def test_relative_statistics_are_lerobots(name):
    told = json.loads((GOLDEN / 'relative_statistics.json').read_text())[name]
    raw = np.load(GOLDEN / 'relative_data.npz')
    data = DataSet.__new__(DataSet)
    data.state, data.action = raw['state'], raw['action']
    bounds = np.flatnonzero(np.diff(raw['episode_index'])) + 1
    data._begin = np.concatenate([[0], bounds])
    data._end = np.concatenate([bounds, [len(raw['state'])]])
    _, length, _, exclude = name.split('_')
    mask = relative_mask(list(raw['names']), [exclude] if exclude != 'none' else [], 6)
    ours = relative_statistics(data, mask, int(length))
    spread = np.array(told['max']) - told['min']
    for part, value in told.items():
        allowed = 0.01
        far = np.abs(ours[f'action.{part}'] - value)
        assert (far <= (allowed * spread if part.startswith('q') else 1e-5)).all(), part
