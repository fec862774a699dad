# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Replicas in Ray Serve's hands: killed at random, changed, refused. Needs Ray."""

from contextlib import suppress
import importlib.util
import os
from pathlib import Path
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request

import numpy as np
from pi0_ros.observation.observation import Observation
from pi0_ros.policy.factory import DEMO
from pi0_ros.policy.policy import Unserved
from pi0_ros.remote.link import ServerError
from pi0_ros.sim import arm
from pi0_ros.verbs import serve
import pytest
from safetensors.numpy import load_file, save_file
from servers import node

ROOT = Path(__file__).parents[1]
# What every process of Python in a cluster does first: one whose number a file has never decides.
HANGS = '''
import os, time
from pathlib import Path
from pi0_ros.remote import turns

def decide(self, decide, *args, **options):
    def patient(asked):
        while str(os.getpid()) in Path({told!r}).read_text():
            time.sleep(0.05)
        return decide(asked)
    init(self, patient, *args, **options)

init, turns.Turns.__init__, turns.HANGS_S = turns.Turns.__init__, decide, 2.0
'''

REPLACED_S = 300.0  # of which Ray waits thirty for robots that might still leave it

needs_ray = pytest.mark.skipif(importlib.util.find_spec('ray') is None, reason='needs Ray')
LOOK = {name: np.random.default_rng(number).integers(0, 256, (120, 160, 3), np.uint8)
        for number, name in enumerate(('overhead', 'wrist'))}
STATE = np.array([0.1, 0.2, 0.3, 0.4, 0.01])


def another(folder, names=None):
    """Make a checkpoint like the demo's with other weights, and other joints if ``names``."""
    shutil.copytree(DEMO, folder)
    weights = load_file(folder / 'model.safetensors')
    weights['model.action_out_proj.bias'] += 0.01
    save_file(weights, folder / 'model.safetensors', {'format': 'pt'})
    for path in folder.glob('*.json') if names else ():
        text = path.read_text()
        for old, new in names.items():
            text = text.replace(f'"{old}"', f'"{new}"')
        path.write_text(text)
    return folder


class Serve:
    """The verb with two replicas, in a process."""

    def __init__(self, folder, *words, **environment):
        self.log, self.there = [], threading.Event()
        self.process = subprocess.Popen(
            [sys.executable, '-m', 'pi0_ros', 'serve', '--checkpoint', str(folder), '--port', '0',
             '--replicas', '2', *words], cwd=ROOT, stderr=subprocess.PIPE, text=True,
            env={**os.environ, **environment})
        self.news = threading.Condition()
        threading.Thread(target=self.read, daemon=True).start()
        self.port = int(self.until(r'ws://127.0.0.1:(\d+), schema')[1])
        self.address = f'ws://127.0.0.1:{self.port}'

    def read(self):
        for line in self.process.stderr:
            with self.news:
                self.log.append(line)
                self.news.notify_all()

    def until(self, pattern):
        with self.news:
            assert self.news.wait_for(lambda: re.search(pattern, ''.join(self.log)), 120), ''.join(
                self.log)[-2000:]
            return re.search(pattern, ''.join(self.log))

    def metrics(self):
        with urllib.request.urlopen(f'http://127.0.0.1:{self.port}/metrics') as answer:
            return answer.read().decode()

    def count(self, name):
        return int(re.search(rf'pi0_ros_{name} (\d+)', self.metrics())[1])

    def close(self):
        self.process.terminate()
        assert self.process.wait(60) == 0


@pytest.fixture
def serving(tmp_path):
    made = []

    def make(*words, **environment):
        another(tmp_path / 'two')
        (tmp_path / 'now').symlink_to(DEMO)
        made.append(Serve(tmp_path / 'now', *words, **environment))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def robot():
    made = []

    def make(served, server_deadline=20.0):
        made.append(node(served.address, server_deadline=server_deadline))
        return made[-1]

    yield make
    for policy in made:
        policy.close()


def ask(policy):
    return policy.infer(Observation(0, STATE, LOOK, {}, 'pick up the red block'),
                        np.zeros(policy.noise_shape)).positions


def until_answered(policy):
    """Ask as a node does: again where the answer does not come in time."""
    end = time.monotonic() + REPLACED_S
    while time.monotonic() < end:
        with suppress(ServerError, Unserved):
            policy.ensure_loaded()
            return ask(policy)
        threading.Event().wait(0.05)  # it does not connect anew at once
    raise AssertionError('nobody answers')


def test_without_ray_it_says_what_to_install(capsys, monkeypatch):
    from pi0_ros import jobs
    monkeypatch.setattr(jobs.importlib.util, 'find_spec', lambda name: None)
    assert serve.main(['--checkpoint', 'demo', '--replicas', '2']) == 1
    assert 'this needs Ray: pip install -r requirements/ray.txt' in capsys.readouterr().err


def test_rays_own_protocol_cannot_serve(capsys):
    assert serve.main(['--checkpoint', 'demo', '--replicas', '2', '--ray', 'ray://x:10001']) == 1
    assert 'give HOST:6379 of the cluster' in capsys.readouterr().err


@needs_ray
@pytest.mark.live
@pytest.mark.xdist_group('live')
def test_killed_at_random_and_changed_no_question_is_lost(serving, robot, tmp_path):
    served = serving()
    robots = [robot(served) for _ in range(3)]
    wanted, dice = ask(robots[0]), random.Random(3)
    gone = None
    for _ in range(3):
        while True:  # until both are there again
            mine = replicas_of(served.process.pid)
            if gone not in mine and len(mine) == 2 and served.count('replicas') == 2:
                break
        gone = dice.choice(mine)
        os.kill(gone, signal.SIGKILL)
        for policy in robots:
            np.testing.assert_array_equal(ask(policy), wanted)
    (tmp_path / 'now').unlink()
    (tmp_path / 'now').symlink_to(tmp_path / 'two')
    served.process.send_signal(signal.SIGHUP)
    served.until("'two' decides in place of")
    for policy in robots:
        while policy.spec.folder.name != 'two':  # the one before answers what it was asked
            got = ask(policy)
        assert np.abs(got - wanted).max() > 1e-4
    assert served.count('checkpoint_changes_total') == 1
    # Other joints are refused while robots are there.
    names = dict(zip(arm.JOINT_NAMES, [f'other_{name}' for name in arm.JOINT_NAMES]))
    another(tmp_path / 'three', names)
    (tmp_path / 'now').unlink()
    (tmp_path / 'now').symlink_to(tmp_path / 'three')
    served.process.send_signal(signal.SIGHUP)
    # Ray may have sent all to one replica, which then sends one of them away.
    served.until(r"'two' goes on: 'three' has other action names, and \d robots")
    again = ask(robots[0])
    # What is no checkpoint is refused, too.
    (tmp_path / 'now').unlink()
    (tmp_path / 'four').mkdir()
    (tmp_path / 'now').symlink_to(tmp_path / 'four')
    served.process.send_signal(signal.SIGHUP)
    served.until("'two' goes on: the replicas of .*four' do not start: .*model.safetensors' is "
                 'missing')
    np.testing.assert_array_equal(ask(robots[0]), again)
    assert served.count('checkpoint_changes_refused_total') == 2


@needs_ray
@pytest.mark.live
@pytest.mark.xdist_group('live')
@pytest.mark.parametrize('how', ['an inference does not end', 'the process stands still'])
def test_a_replica_that_hangs_is_replaced(serving, robot, tmp_path, how):
    told = tmp_path / 'hangs'
    told.write_text('')
    (tmp_path / 'sitecustomize.py').write_text(HANGS.format(told=str(told)))
    served = serving(PYTHONPATH=f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    robots = [robot(served, server_deadline=2.0) for _ in range(2)]
    wanted = until_answered(robots[0])
    gone = replicas_of(served.process.pid)[0]
    if how == 'the process stands still':
        os.kill(gone, signal.SIGSTOP)
    else:
        told.write_text(str(gone))
    for policy in robots:
        np.testing.assert_array_equal(until_answered(policy), wanted)
    end = time.monotonic() + REPLACED_S
    while gone in replicas_of(served.process.pid) or served.count('replicas') < 2:
        assert time.monotonic() < end
        for policy in robots:
            np.testing.assert_array_equal(until_answered(policy), wanted)


def replicas_of(process):
    """Return the processes of the replicas in the cluster that a process has started."""
    def children(*words):
        return subprocess.run(['pgrep', *words], capture_output=True, text=True).stdout.split()

    raylets = children('-P', str(process))
    return [int(one) for one in children('-f', 'ServeReplica:pi0_ros_', '-P', ','.join(raylets))]
