# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""How the demo checkpoint is made."""

from copy import deepcopy
from dataclasses import replace
import json
import random

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
from pi0_ros.checkpoint import reader as checkpoint
from pi0_ros.engine.paths import Reference
from pi0_ros.finetune import flow
from pi0_ros.policy.factory import DEMO
from pi0_ros.policy.pi0 import Pi0Policy
from pi0_ros.policy.policy import ActionChunk
from pi0_ros.sim import arm, expert, world
from pi0_ros.sim.episodes import run_episode
from pi0_ros.sim.robot import SimulatedRobot
from pi0_ros.sim.world import COLOURS
from pi0_ros.training import attention, demonstrations, instructions, learning, train
from pi0_ros.training.export import export
from pi0_ros.training.model import architecture, new_model, start_from
from pi0_ros.weights.files import CheckpointError
from pi0_ros.weights.pi05 import CACHE
import pytest
import torch


@pytest.fixture(scope='module')
def tokenizer():
    return instructions.build_tokenizer(512)


@pytest.fixture(scope='module')
def shard(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demonstrations, 'SHARD', 16)
        path = demonstrations.write_shard((tmp_path_factory.mktemp('shards'), 5, 64, 'blocks'))
    return demonstrations.load([path])


@given(st.text(max_size=80))
def test_tokenizer_reads_anything(tokenizer, text):
    ids = tokenizer.encode(text + '\n').ids
    assert ids[0] == tokenizer.token_to_id('<bos>') and ids[-1] == tokenizer.token_to_id('\n')
    assert max(ids) < tokenizer.get_vocab_size()


def test_tokenizer_has_the_words_people_type_whole_and_ignores_case(tokenizer):
    tokens = tokenizer.encode('Please pick up the RED block\n').tokens
    assert tokens == ['<bos>', '▁please', '▁pick', '▁up', '▁the', '▁red', '▁block', '\n']


def test_instructions_name_their_block_and_no_other():
    rng = random.Random(1)
    for target, colour in enumerate(COLOURS):
        for _ in range(200):
            text = instructions.sample(rng, target)
            assert [name for name in COLOURS if name in text.split() or name in text] == [colour]
    for _ in range(200):
        words = instructions.sample(rng, expert.NO_BLOCK).split()
        assert not set(words) & set(COLOURS)


def test_demonstrations_are_seeded_and_continue_smoothly(shard, monkeypatch):
    monkeypatch.setattr(demonstrations, 'SHARD', 16)
    again = demonstrations.make_shard(5, 64)
    for name, values in shard.items():
        np.testing.assert_array_equal(values, again[name])
    steps = np.diff(shard['actions'], axis=2)
    assert np.abs(steps).max() / demonstrations.DT < 4.0
    assert np.abs(shard['actions'][:, :, 0] - shard['hold'][:, None]).max() < 0.1


def test_overhead_patch_shows_the_named_block(shard):
    for colour in range(3):
        patch = learning._overhead_patch(shard['blocks'][:, colour])
        tiles = shard['images'][:, 0].reshape(-1, 3, 8, 8, 8, 8).transpose(0, 2, 4, 1, 3, 5)
        mean = tiles.reshape(-1, 64, 3, 64).mean(-1)[np.arange(len(patch)), patch]
        assert (mean.argmax(1) == colour).mean() > 0.8


def test_folded_attention_is_attention():
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, 4, 5, 8, generator=generator)
    key, value = (torch.randn(2, 1, 7, 8, generator=generator) for _ in range(2))
    mask = torch.where(torch.rand(2, 1, 5, 7, generator=generator) < 0.3, -1e9, 0.0)
    out, _ = attention.folded_attention(None, query, key, value, mask)
    expected = torch.nn.functional.scaled_dot_product_attention(
        query, key.repeat(1, 4, 1, 1), value.repeat(1, 4, 1, 1), attn_mask=mask)
    torch.testing.assert_close(out, expected.transpose(1, 2))


def test_loss_is_that_of_transformers(tokenizer, shard):
    """The shared prefix changes the cost, not the loss."""
    samples = learning.Samples(shard, tokenizer, 128, 0, 4)
    learner = learning.Learner(new_model(0), 10, 1e-3, torch.device('cpu'))
    batch = samples.batch(0)
    torch.manual_seed(1)
    loss, _ = learner.losses(batch)
    torch.manual_seed(1)
    repeat = learning.REPEATS
    whole = learner.model(
        state=batch.state.repeat(repeat, 1), actions=batch.actions.repeat(repeat, 1, 1),
        input_ids=batch.input_ids.repeat(repeat, 1), attention_mask=batch.mask.repeat(repeat, 1),
        pixel_values=batch.images.repeat(repeat, 1, 1, 1, 1),
        pixel_attention_mask=torch.ones((4 * repeat, 2), dtype=torch.bool))
    torch.testing.assert_close(loss, whole.loss, rtol=1e-4, atol=1e-5)


def test_training_resumes_to_the_same_weights(tmp_path, tokenizer, shard):
    samples = learning.Samples(shard, tokenizer, 128, 0, 4)

    def learner():
        return learning.Learner(new_model(0), 4, 1e-3, torch.device('cpu'))

    straight, broken = learner(), learner()
    losses = [straight.learn(samples.batch(k), 0)[0] for k in range(4)]
    for k in range(2):
        broken.learn(samples.batch(k), 0)
    broken.save(tmp_path / 'state')
    resumed = learner()
    resumed.restore(tmp_path / 'state')
    assert [resumed.learn(samples.batch(k), 0)[0] for k in (2, 3)] == losses[2:]
    for name, value in straight.average.items():
        assert torch.equal(value, resumed.average[name]), name


def test_train_verb_makes_a_checkpoint_that_the_loader_takes(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demonstrations, 'SHARD', 8)
    arguments = ['--work', str(tmp_path), '--output', str(tmp_path / 'out'), '--steps', '2',
                 '--batch', '2', '--shards', '1', '--workers', '1', '--episodes', '1']
    monkeypatch.setattr('pi0_ros.sim.episodes.TIME_LIMIT_S', 0.5)
    assert train.main(arguments) == 0
    rows = [json.loads(line) for line in (tmp_path / 'log.jsonl').read_text().splitlines()]
    assert rows[-1]['step'] == 2 and 'success' in rows[-1]
    assert (tmp_path / 'learning.png').stat().st_size > 5000
    policy = Pi0Policy(tmp_path / 'out')
    policy.load()
    policy.warm_up()


def test_demo_checkpoint_takes_the_named_block_closed_loop():
    """A sample of the table in docs/training.md, which has 200 seeds."""
    policy = Pi0Policy(DEMO)
    policy.load()
    episodes = [run_episode(policy, seed) for seed in range(50, 60)]
    assert sum(episode.success for episode in episodes) >= 7
    assert sum(episode.wrong for episode in episodes) <= 1


def test_demo_checkpoint_takes_it_also_with_300_ms_of_delay():
    policy = Pi0Policy(DEMO)
    policy.load()
    episodes = [run_episode(policy, seed, delay_s=0.3) for seed in range(50, 55)]
    assert sum(episode.success for episode in episodes) >= 3


@pytest.mark.parametrize('delay_s', [0.0, 0.2])
def test_demo_checkpoint_tries_again_with_a_hand_that_is_closed_on_nothing(delay_s):
    policy = Pi0Policy(DEMO)
    policy.load()
    episodes = [run_episode(policy, seed, delay_s, missed=True) for seed in range(50, 55)]
    assert sum(episode.success for episode in episodes) >= 4
    assert not any(episode.wrong for episode in episodes)


def test_a_given_prefix_has_no_loss_and_enters_without_noise(tokenizer, shard, monkeypatch):
    """Training for hand-over rtc_trained (arXiv 2512.05964)."""
    samples = learning.Samples(shard, tokenizer, 128, 0, 4)
    learner = learning.Learner(new_model(0), 10, 1e-3, torch.device('cpu'), trained_delay=6)
    given_ = learner._given(400, 50)
    lengths = given_.sum(1)
    assert set(lengths.tolist()) == set(range(7)) and 0.4 < (lengths == 0).float().mean() < 0.6
    assert all(row[:n].all() and not row[n:].any() for row, n in zip(given_, lengths))

    batch, seen = samples.batch(0), []
    prefix = torch.arange(50) < 6
    monkeypatch.setattr(learner, '_given', lambda count, length: prefix.repeat(count, 1))
    embed = flow.tokens
    monkeypatch.setattr(flow, 'tokens', lambda model, state, noisy, times: (
        seen.append((noisy.detach().clone(), times)), embed(model, state, noisy, times))[1])
    torch.manual_seed(1)
    loss, _ = learner.losses(batch)
    noisy, times = seen[0]
    actions = batch.actions.repeat(learning.REPEATS, 1, 1)
    assert (times[:, :6] == 0).all() and (times[:, 6:] > 0).all()
    torch.testing.assert_close(noisy[:, :6], actions[:, :6])
    assert (noisy[:, 6:] - actions[:, 6:]).abs().mean() > 0.1
    # The loss looks at the rest alone: what the network says of the prefix does not matter.
    monkeypatch.setattr(learner.model.action_out_proj, 'forward', lambda x, real=learner.model.
                        action_out_proj.forward: real(x) + 9.0 * prefix[:, None])
    torch.manual_seed(1)
    torch.testing.assert_close(learner.losses(batch)[0], loss)


def test_a_run_is_not_gone_on_with_as_another(tmp_path):
    args = train.parser().parse_args(['--work', str(tmp_path), '--task', 'peg'])
    train.Training._require_same(args)
    train.Training._require_same(args)
    args.trained_delay = 5
    with pytest.raises(SystemExit, match='was begun with .*"trained_delay": 0.*another --work'):
        train.Training._require_same(args)


def test_a_checkpoint_says_what_it_was_trained_for(tmp_path, tokenizer, shard):
    samples = learning.Samples(shard, tokenizer, 128, 0, 4)
    weights = dict(new_model(0).state_dict())
    for delay in (0, 7):
        export(tmp_path / str(delay), weights, samples, tokenizer, delay)
        assert checkpoint.read(tmp_path / str(delay)).trained_delay == delay
    policy = Pi0Policy(tmp_path / '7', rtc='trained')
    policy.load()
    text = (tmp_path / '7' / checkpoint.OURS).read_text()
    (tmp_path / '7' / checkpoint.OURS).write_text(text.replace('"trained_delay": 7',
                                                               '"trained_delay": -3'))
    with pytest.raises(CheckpointError, match='trained_delay is -3, expected 0 to 50'):
        checkpoint.read(tmp_path / '7')


def test_peg_is_passed_on_both_sides_and_never_hit():
    """The task with two right ways: what the demonstrator does, and that a straight way hits."""
    rng = np.random.default_rng(0)
    table, count = world.random_world(rng, 60, 'peg'), 60
    target, side = world.behind(table), rng.choice([-1, 1], count)
    command, taken, passed = table.joints.copy(), np.zeros(count, bool), np.zeros(count)
    bearing = np.arctan2(table.peg[:, 1], table.peg[:, 0])
    away = np.hypot(table.peg[:, 0], table.peg[:, 1])
    for _ in range(200):
        command = expert.advance(table, command, target, 0.02, side)
        world.step(table, command, 0.02)
        tool = arm.tool_polar(table.joints[:, :4])
        beside = np.abs(tool[:, 1] - away) < 0.01
        passed = np.where(beside, np.sign(tool[:, 0] - bearing), passed)
        height = table.blocks[np.arange(count), target, 2]
        taken |= (table.held == target) & (height > world.REST_HEIGHT + 0.02)
    assert taken.all() and not table.hit.any()
    assert (passed == side).mean() > 0.9 and set(passed) == {-1, 1}
    straight = world.random_world(rng, 20, 'peg')
    target, command = world.behind(straight), straight.joints.copy()
    for _ in range(150):
        blind = replace(straight, peg=np.full_like(straight.peg, np.nan))
        command = expert.advance(blind, command, target, 0.02)
        world.step(straight, command, 0.02)
    assert straight.hit.all()


def test_peg_demonstrations_go_both_ways_and_name_the_block_behind(monkeypatch):
    monkeypatch.setattr(demonstrations, 'SHARD', 24)
    shard = demonstrations.make_shard(3, 16, 'peg')
    assert set(shard['behind']) == {0, 1, 2}
    turns = shard['actions'][np.arange(24), shard['behind'], :, 0] - shard['hold'][:, None, 0]
    assert turns.max() > 0.15 and turns.min() < -0.15


@pytest.mark.parametrize('end', ['taken', 'hit'])
def test_an_episode_with_a_peg_ends_with_the_block_or_at_the_peg(end):
    class Expert:
        """Knows the table; plans around the peg, or through it."""

        def infer(self, seen, leftover=None):
            robot = robots[0]
            table, command = deepcopy(robot.world), seen.state[None].copy()
            if end == 'hit':
                table.peg[:] = np.nan
            out = np.empty((50, 5))
            for k in range(50):
                command = expert.advance(table, command, world.behind(robot.world), 0.02)
                world.step(table, command, 0.02)
                out[k] = command[0]
            return ActionChunk(seen.t_obs_ns, 20_000_000, out, seen.instruction, offset=1)

    robots, begin = [], SimulatedRobot.__init__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SimulatedRobot, '__init__', lambda self, *given, **more: (
            robots.append(self), begin(self, *given, **more))[1])
        episode = run_episode(Expert(), 5, task='peg')
    assert episode.success == (end == 'taken') and episode.hit == (end == 'hit')


# ---- pi0.5 ----

@pytest.fixture(scope='module')
def digits():
    return instructions.build_tokenizer(512, 'pi05')


def test_every_digit_of_a_state_is_a_token_and_words_stay_as_they_are(tokenizer, digits):
    text = 'Task: take the red block 12, State: -1 0 7 31 255;\nAction: '
    tokens = digits.encode(text).tokens
    end = tokens.index(';')
    assert [token.strip() for token in tokens[end - 6:end - 1]] == ['-1', '0', '7', '31', '255']
    for words in ('pick up the red block\n', 'xyz\n'):
        assert digits.encode(words).ids == tokenizer.encode(words).ids
    assert digits.get_vocab_size() == tokenizer.get_vocab_size() + 247  # 0 to 9 were there


def test_from_pi0_to_pi05_norms_begin_as_they_were():
    before, model = new_model(1), new_model(2, network='pi05')
    start_from(model, before)
    x = torch.randn(2, 5, 128)
    old, new = (part.model.dit.layers[2].input_layernorm for part in (before, model))
    y, gate = new(x, torch.randn(2, 1, 128))
    torch.testing.assert_close(y, old(x), rtol=1e-5, atol=1e-5)
    assert gate.eq(1).all()
    table = model.model.vlm.get_input_embeddings().weight
    torch.testing.assert_close(table[:512], before.model.vlm.get_input_embeddings().weight)
    torch.testing.assert_close(model.action_out_proj.weight, before.action_out_proj.weight)
    assert len(table) == 512 + 247


def test_the_loss_of_pi05_is_that_of_one_observation_after_another(digits, shard):
    """Padding of a batch's prompts changes nothing."""
    samples = learning.Samples(shard, digits, 128, 0, 4, 'pi05')
    model = new_model(0, network='pi05')
    learner = learning.Learner(model, 10, 1e-3, torch.device('cpu'))
    batch = samples.batch(0)
    lengths = batch.mask.sum(1)
    assert lengths.min() < lengths.max() <= 128 + instructions.MAX_TOKENS['pi05']
    seen = []
    velocity = flow.velocity

    def watched(*given, **more):
        seen.append((given, velocity(*given, **more)))
        return seen[-1][1]

    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(flow, 'velocity', watched)
        learner.losses(batch)
    (_, _, noisy, times, _), got = seen[0]
    reference = Reference(model, 10)
    for row in range(4):
        ids = batch.input_ids[row, :lengths[row]]
        seen_, mask = batch.images[row][None], torch.ones(1, len(ids), dtype=torch.long)
        core = reference.model.model
        with torch.no_grad():
            embeds = core.embed_prefix(ids[None], seen_, torch.ones((1, 2), dtype=torch.bool))
            cache = getattr(core.vlm(
                inputs_embeds=embeds, attention_mask=mask, position_ids=mask.cumsum(-1) - 1,
                token_type_ids=torch.zeros_like(ids)[None], use_cache=True), CACHE)
            alone = model.velocity(noisy[row][None], times[row][None], cache)
        torch.testing.assert_close(got[row], alone[0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('delay', [0, 7])
def test_a_checkpoint_of_pi05_is_read_as_it_was_trained(tmp_path, digits, shard, delay):
    samples = learning.Samples(shard, digits, 128, 0, 4, 'pi05')
    model = new_model(0, network='pi05')
    export(tmp_path / 'pi05', model.state_dict(), samples, digits, delay)
    spec = checkpoint.read(tmp_path / 'pi05')
    assert (spec.network, spec.trained_delay, spec.prompt) == ('pi05', delay, 'pi05')
    policy = Pi0Policy(tmp_path / 'pi05', device='cpu')
    policy.load()
    rng, words = np.random.default_rng((0, 0)), random.Random('0/0')
    row = rng.integers(0, 16, 4)[0]
    rng.random(4), rng.integers(0, 3, 4)
    state = shard['state'][row].astype(float)
    text = instructions.sample(words, int(samples.batch(0).named[0]) - 1)  # any of its words
    ids = policy._prompted(text, state).ids.tolist()
    wanted = samples.batch(0).input_ids[0, 128:].tolist()
    number = ids.index(digits.encode('State').ids[1])
    at = wanted.index(digits.encode('State').ids[1])
    assert ids[number:] == [one for one in wanted[at:] if one != digits.token_to_id('<pad>')]
    np.testing.assert_allclose(policy.spec.state.normalise(state),
                               samples.batch(0).state[0, :5], atol=1e-5)


def test_weights_of_another_size_are_no_beginning():
    small = new_model(1, architecture(
        width=64, expert_width=32, layers=3, heads=4, head_dim=16, image_width=48, image_layers=2,
        image_heads=4, image_size=56, patch=14, vocabulary=100, chunk=10))
    with pytest.raises(ValueError, match='cannot go on from there: .* expected'):
        start_from(new_model(0), small)
    with pytest.raises(ValueError, match='cannot go on from there: .*embed_tokens'):
        start_from(new_model(0), new_model(0, network='pi05'))


def test_images_that_the_network_does_not_see_are_no_training(tokenizer, shard):
    samples = learning.Samples(shard, tokenizer, 128, 0, 4)
    learner = learning.Learner(new_model(0, network='pi05'), 10, 1e-3, torch.device('cpu'))
    with pytest.raises(ValueError, match='no image is seen'):
        learner.losses(samples.batch(0))
