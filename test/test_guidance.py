# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Real-time chunking: its equations, in every path, and what a policy makes of a leftover."""

from dataclasses import replace
import json
import logging
import shutil

from hypothesis import given
from hypothesis import strategies as st
from networks import error, inputs, network
import numpy as np
from pi0_ros.checkpoint.mapping import aloha_actions, aloha_given, JointMap
from pi0_ros.engine import guidance
from pi0_ros.engine.paths import choose, Fast, Reference
from pi0_ros.motion.handover import rtc_kind
from pi0_ros.policy.factory import DEMO
from pi0_ros.policy.pi0 import Pi0Policy
from pi0_ros.policy.policy import Leftover
from pi0_ros.weights.files import CheckpointError
import pytest
from test_policy import fixture_observation, load, load_fixture
import torch

GUIDED = [kind for kind in guidance.KINDS if kind]


def guide(model, kind, delay=3, planned=7, seed=5):
    """Return target and weight as a policy would make them."""
    length, width = model.config.chunk_size, 32
    dice = torch.Generator().manual_seed(seed)
    rows = (np.arange(length) < delay).astype(float) if kind == 'trained' else \
        guidance.weights(length, planned, delay)
    return (torch.randn(length, width, generator=dice),
            torch.from_numpy(rows).float()[:, None].repeat(1, width))


def test_weights_are_those_of_the_paper():
    weights = guidance.weights(50, 25, 6)  # H = 50, s = 25, d = 6
    assert (weights[:6] == 1).all() and (weights[25:] == 0).all()
    np.testing.assert_allclose(weights[[6, 10, 15, 20, 24]], [0.877, 0.488, 0.189, 0.041, 0.0015],
                               atol=6e-4)


@given(st.integers(1, 200), st.integers(0, 250), st.integers(0, 250))
def test_weights_stay_within_their_bounds(length, end, delay):
    weights = guidance.weights(length, end, delay)
    assert weights.shape == (length,) and (np.diff(weights) <= 1e-12).all()
    assert (weights >= 0).all() and (weights <= 1).all()
    delay = min(delay, end, length)
    assert (weights[:delay] == 1).all() and (weights[min(end, length):] == 0).all()
    if delay <= length - delay:
        assert (weights[max(delay, length - delay):] == 0).all()  # s is at least d


def test_factor_is_that_of_the_paper():
    taus = np.arange(10) / 10
    expected = [5.0, 5.0, 4.25, 2.762, 2.167, 2.0, 2.167, 2.762, 4.25, 5.0]
    np.testing.assert_allclose([guidance.factor(tau) for tau in taus], expected, atol=5e-4)
    r2 = (1 - 0.3)**2 / (0.3**2 + (1 - 0.3)**2)
    assert guidance.factor(0.3) == pytest.approx((1 - 0.3) / (0.3 * r2))


def test_identity_is_its_closed_form():
    """In the paper's own sign: v = -velocity, A1 = A + (1 - tau) v, A + (v + g W (Y - A1)) / n."""
    dice = np.random.default_rng(0)
    a, v, y, w = (dice.standard_normal((6, 4)) for _ in range(4))
    steps = 8
    for k, row in enumerate(guidance.steering(steps)):
        tau = k / steps
        a1 = a + (1 - tau) * v
        expected = a + (v + guidance.factor(tau) * w * (y - a1)) / steps
        got = guidance.steer(*(torch.from_numpy(x).float() for x in (a, -v)), row,
                             *(torch.from_numpy(x).float() for x in (y, w)))
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_full_jacobian_is_the_numerical_one():
    dice = torch.Generator().manual_seed(0)
    mix = torch.randn(12, 12, generator=dice, dtype=torch.float64)

    def velocity(actions):
        return torch.tanh(mix @ actions.flatten()).view(actions.shape)

    a, y, w = (torch.randn(4, 3, generator=dice, dtype=torch.float64) for _ in range(3))
    row = guidance.steering(10).double()[3]
    clean = a - row[0] * velocity(a)
    wanted = a + row[1] * velocity(a)
    for index in range(12):  # (Y - A1)^T diag(W) dA1/dA, one column of the Jacobian after another
        push = torch.zeros(12, dtype=torch.float64)
        push[index] = 1e-6
        up, down = (x - row[0] * velocity(x) for x in (a + push.view(4, 3), a - push.view(4, 3)))
        column = (up - down) / 2e-6
        wanted.view(-1)[index] += row[2] * (w * (y - clean) * column).sum()
    given_ = a.clone().requires_grad_()
    got = guidance.steer_full(given_, velocity(given_), row, y, w)
    torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-8)
    assert not got.requires_grad


@pytest.mark.parametrize('kind', GUIDED)
@pytest.mark.parametrize('steps', [1, 4, 10])
def test_paths_agree(kind, steps):
    model = network()
    given_ = (*inputs(model), *guide(model, kind))
    wanted = Reference(model, steps, kind)(*given_)
    got = Fast(model, steps, 900, False, kind)(*given_)
    assert error(wanted, got) < 2e-5 and not got.requires_grad


@pytest.mark.parametrize('kind', GUIDED)
def test_without_a_leftover_nothing_changes(kind):
    model = network()
    plain, nothing = inputs(model), (torch.zeros(10, 32), torch.zeros(10, 32))
    for path in (Reference, lambda *given_: Fast(model, 10, 900, False, *given_[2:])):
        wanted = Reference(model, 10)(*plain)
        assert error(wanted, path(model, 10, kind)(*plain, *nothing)) < 2e-5


@pytest.mark.parametrize('kind', GUIDED)
def test_first_actions_are_pulled_to_the_leftover_and_the_last_ones_hardly(kind):
    model = network()
    target, weight = guide(model, kind)
    target, plain = target.clamp(-1, 1) * 0.5, Reference(model, 10)(*inputs(model))
    got = Fast(model, 10, 900, False, kind)(*inputs(model), target, weight)
    before, after = (float((x - target)[:3].abs().mean()) for x in (plain, got))
    assert after < 0.1 * before
    if kind == 'trained':
        assert torch.equal(got[:3], target[:3])


def test_compiled_paths_are_steered_too():
    model = network()
    for kind in ('identity', 'trained'):
        given_ = (*inputs(model), *guide(model, kind))
        got = Fast(model, 5, 900, True, kind)(*given_)
        assert error(Reference(model, 5, kind)(*given_), got) < 2e-5


def test_the_full_form_differentiates_the_expert_alone():
    """Neither image encoder nor language model runs where gradients are recorded."""
    model, recorded = network(), []
    for name, part in (('vision', model.model.vlm), ('expert', model.model.dit)):
        part.register_forward_pre_hook(
            lambda module, args, name=name: recorded.append((name, torch.is_grad_enabled())))
    Reference(model, 2, 'full')(*inputs(model), *guide(model, 'full'))
    assert set(recorded) == {('vision', False), ('expert', True)}
    fast = Fast(model, 2, 900, False, 'full')
    through = fast.engine._through
    fast.engine._through = lambda *args, **more: (
        recorded.append(('prefix', torch.is_grad_enabled())), through(*args, **more))[1]
    fast(*inputs(model), *guide(model, 'full'))
    assert ('prefix', False) in recorded and ('prefix', True) not in recorded


@pytest.mark.parametrize('kind', GUIDED)
def test_the_self_check_covers_guidance(kind, caplog):
    caplog.set_level(logging.WARNING)
    model = network()
    embed = type(inputs(model)[1])
    path, report = choose(model, 4, 2, 20, 'auto', 'off', lambda ids: embed(
        ids, model.model.vlm.get_input_embeddings()(ids).detach()), kind)
    assert isinstance(path, Fast) and report.difference < 1e-4 and not caplog.messages


# ---- what a policy makes of a leftover ----

def test_hand_overs_name_their_kind():
    assert [rtc_kind(*pair) for pair in (
        ('blend', 'full'), ('rtc', 'identity'), ('rtc', 'full'), ('rtc_trained', 'identity'))] == [
        '', 'identity', 'full', 'trained']


@pytest.mark.parametrize('name', ['lerobot_mean_std', 'lerobot_relative'])
def test_a_chunk_continues_the_leftover_in_the_robots_own_units(name):
    """Also where actions are relative, and the robot has moved since the plan was made."""
    seen = fixture_observation(name)
    policy = load_fixture(name, rtc='identity')
    plan = policy.infer(seen).positions
    moved = replace(seen, state=seen.state + 0.3 * np.abs(seen.state).max())
    policy.number = 7  # other noise
    free = policy.infer(moved)
    policy.number = 7
    given_ = policy.infer(moved, leftover=Leftover(plan[10:], 5))
    assert given_.given == 5 and free.given == 0
    apart = [np.abs(x.positions[:5] - plan[10:15]).mean() for x in (free, given_)]
    assert apart[1] < 0.2 * apart[0]
    raw = policy.prepare(moved)[0]
    target, weight = policy._guide(Leftover(plan[10:], 5), raw)[1]
    width = policy.spec.action_width
    restored = policy.spec.action.restore(target[:len(plan) - 10, :width].double().numpy())
    relative = np.flatnonzero(policy.spec.relative)
    restored[:, relative] += raw[relative]
    np.testing.assert_allclose(restored, policy.joints.actions_in(plan[10:], width), atol=1e-4)
    assert not weight[:, width:].any() and not weight[len(plan) - 10:].any()


def test_what_no_joint_takes_and_what_stood_still_is_not_guided():
    policy = load_fixture('lerobot_mean_std', rtc='identity')
    width = policy.spec.action_width
    policy.joints = replace(policy.joints, columns=np.arange(1, width),
                            action_scale=np.ones(width - 1), action_offset=np.zeros(width - 1))
    spread = policy.spec.action.spread.copy()
    spread[2] = 1e-6
    policy.spec = replace(policy.spec, action=replace(policy.spec.action, spread=spread))
    leftover = Leftover(np.zeros((20, width - 1)), 4)
    given_, (target, weight) = policy._guide(leftover, np.zeros(policy.spec.state_width))
    guided = weight[0].bool().tolist()
    assert given_ == 4
    assert guided == [k not in (0, 2) and k < width for k in range(weight.shape[1])]
    assert torch.isfinite(target).all()


def test_robot_units_go_to_the_checkpoint_and_back():
    rng = np.random.default_rng(0)
    joints = replace(JointMap.identity(4, 4), columns=np.array([3, 1]),
                     action_scale=np.array([57.3, -1.0]), action_offset=np.array([0.5, 2.0]))
    positions = rng.normal(size=(5, 2))
    actions = joints.actions_in(positions, 4)
    assert np.isnan(actions[:, [0, 2]]).all()
    np.testing.assert_allclose(joints.actions_out(actions), positions)
    for width in (7, 14):
        actions = rng.normal(size=(5, width))
        np.testing.assert_allclose(aloha_given(aloha_actions(actions)), actions)


def test_a_trained_prefix_needs_a_checkpoint_that_says_so(tmp_path):
    with pytest.raises(CheckpointError, match='does not say that it was trained.*to rtc, which'):
        Pi0Policy(DEMO, rtc='trained')
    folder = shutil.copytree(DEMO, tmp_path / 'trained')
    config = json.loads((folder / 'config.json').read_text())
    (folder / 'config.json').write_text(json.dumps({**config, 'trained_delay': 4}))
    policy = load(folder, rtc='trained')
    state = np.zeros(policy.spec.state_width)
    given_, (_, weight) = policy._guide(Leftover(np.zeros((30, 5)), 9), state)
    assert given_ == 4 and weight[:4].all() and not weight[4:].any()


def test_noise_is_that_of_seed_and_number():
    name = 'lerobot_mean_std'
    policy = load_fixture(name, seed=3)
    chunks = [policy.infer(fixture_observation(name)) for _ in range(3)]
    assert [(chunk.seed, chunk.number) for chunk in chunks] == [(3, 0), (3, 1), (3, 2)]
    noise = np.random.default_rng((3, 1)).standard_normal(policy.noise_shape)
    again = policy.infer(fixture_observation(name), noise)
    np.testing.assert_array_equal(again.positions, chunks[1].positions)
    assert again.seed is None
