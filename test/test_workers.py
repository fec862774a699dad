# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""A policy in a process of its own: the same chunks, and what happens when it dies."""

import os
import signal
import threading

import numpy as np
from pi0_ros.configuration.file import read_all_parameters
from pi0_ros.observation.observation import Observation
from pi0_ros.policy.policy import Leftover, PolicyGone
from pi0_ros.sim import arm
from pi0_ros.weights.files import CheckpointError
from pi0_ros.workers import process as remote
from pi0_ros.workers.factory import make_local_policy, make_policy
from pi0_ros.workers.process import ProcessPolicy, SharedImages
import pytest

CAMERAS = ('overhead', 'wrist')


def configured(**changes):
    """Return what a policy is made of, in a process unless ``changes`` say otherwise."""
    config = read_all_parameters(None, **{
        'policy': 'mock_sine', 'checkpoint': 'demo', 'joint_names': list(arm.JOINT_NAMES),
        'cameras': list(CAMERAS), 'worker': 'process', **changes})
    return config.policy, config.robot, config.control.rtc, config.safety.max_inference_time


def observation(seed=0, t_obs_ns=1_000_000_000):
    dice = np.random.default_rng(seed)
    images = {name: dice.integers(0, 256, (48 + 16 * seed, 64, 3), np.uint8) for name in CAMERAS}
    return Observation(t_obs_ns, dice.normal(0, 0.1, 5) + arm.home(), images,
                       {name: t_obs_ns for name in CAMERAS}, 'pick up the red block')


@pytest.fixture
def started():
    policies = []

    def start(**changes):
        policies.append(make_policy(*configured(**changes)))
        policies[-1].load()
        policies[-1].warm_up()
        return policies[-1]

    yield start
    for policy in policies:
        policy.close()
        assert policy.process_id is None


def test_images_of_any_size_pass_through_shared_memory():
    one = SharedImages()
    other = SharedImages(os.dup(one.descriptor))
    for seed in (0, 3, 1):  # larger, then smaller
        images = observation(seed).images
        seen = other.read(one.write(images))
        for name, image in images.items():
            np.testing.assert_array_equal(seen[name], image)
    one.close()
    other.close()


def test_chunks_are_those_of_a_policy_in_this_process(started):
    policy, local = started(policy='pi0', handover='rtc'), make_local_policy(
        *configured(policy='pi0', handover='rtc')[:3])
    local.load()
    local.warm_up()
    leftover = Leftover(np.tile(arm.home(), (20, 1)), 4)
    for seed, more in ((0, {}), (2, {'leftover': leftover}), (1, {})):
        wanted, got = (each.infer(observation(seed), **more) for each in (local, policy))
        np.testing.assert_array_equal(got.positions, wanted.positions)
        assert (got.number, got.seed, got.given, got.image_stamps_ns, got.instruction) == (
            wanted.number, wanted.seed, wanted.given, wanted.image_stamps_ns, wanted.instruction)
    told = policy.describe()
    assert told['engine'] == 'fast' and int(told['process']) != os.getpid()


@pytest.mark.parametrize('changes, kind, words', [
    ({'policy': 'pi0', 'checkpoint': '/nowhere'}, CheckpointError, "'/nowhere' does not exist"),
    ({'policy': 'pi0', 'cameras': ('overhead', 'front')}, ValueError, 'front')])
def test_what_cannot_be_loaded_is_told_as_without_a_process(changes, kind, words):
    policy = make_policy(*configured(**changes))
    with pytest.raises(kind, match=words):
        policy.load()
    assert policy.process_id is None


def test_what_the_process_logs_is_heard(started, caplog):
    caplog.set_level('INFO')
    started(policy='pi0')
    assert any('checkpoint' in text and 'and this robot' in text for text in caplog.messages)
    assert any(text.startswith('engine: fast') for text in caplog.messages)


def test_an_error_in_the_process_is_an_error_here_and_it_goes_on(started):
    policy = started(policy='mock_faulty')
    with pytest.raises(RuntimeError, match='RuntimeError: the faulty mock policy failed'):
        policy.infer(observation())
    assert np.isnan(policy.infer(observation()).positions).all()


def test_a_killed_process_is_named_and_the_next_call_starts_another(started):
    policy = started()
    policy.infer(observation())
    before = policy.process_id
    os.kill(before, signal.SIGKILL)
    with pytest.raises(PolicyGone, match=rf'process {before} ended \(exit code -9\)'):
        policy.infer(observation())
    assert policy.process_id is None and 'ended' in policy.describe()['engine_reason']
    assert policy.infer(observation()).positions.shape == (50, 5)
    assert policy.process_id != before


def test_a_process_that_hangs_is_killed(started, monkeypatch):
    policy = started()
    for _ in range(remote.FIRST):
        policy.infer(observation())
    before = policy.process_id
    os.kill(before, signal.SIGSTOP)
    with monkeypatch.context() as patched:
        patched.setattr(remote, 'POLL_S', 0.02)
        with pytest.raises(PolicyGone, match='did not answer within .* killed it .exit code -9'):
            policy.infer(observation())
    assert policy.infer(observation()).number == remote.FIRST  # no number comes twice


def test_a_policy_that_is_always_slow_is_not_taken_for_hanging(started, monkeypatch):
    """The network at full size on a processor takes seconds for every chunk."""
    policy = started()
    monkeypatch.setattr(remote, 'POLL_S', 0.01)
    monkeypatch.setattr(remote, 'PATIENCE_FACTOR', 50)  # on a machine that is busy otherwise
    policy._patience = 2
    stop = threading.Event()

    def nap():
        for _ in range(60):
            os.kill(policy.process_id, signal.SIGSTOP)
            stop.wait(0.08)
            os.kill(policy.process_id, signal.SIGCONT)
            if stop.wait(0.01):
                return

    napping = threading.Thread(target=nap)
    napping.start()
    try:
        numbers = [policy.infer(observation()).number for _ in range(remote.FIRST + 3)]
    finally:
        stop.set()
        napping.join()
    assert numbers == list(range(remote.FIRST + 3))


def test_an_abort_ends_a_call_that_waits(started):
    policy = started()
    os.kill(policy.process_id, signal.SIGSTOP)
    threading.Timer(0.3, policy.abort).start()
    with pytest.raises(PolicyGone, match='ended .exit code -9'):
        policy.infer(observation())


def test_a_process_does_not_outlive_who_asked(started):
    policy = started()
    process = policy._process
    policy._pipe.close()  # as when the node is killed
    assert process.wait(60) == 0


def test_closing_without_loading_is_allowed():
    ProcessPolicy(*configured()).close()
