# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""A policy on another machine: what is asked, every way a server can fail, and serving."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
import json
import logging
from pathlib import Path
import socket
import ssl
import subprocess
import threading
import time
import urllib.request

import numpy as np
from pi0_ros.checkpoint import reader as checkpoint
from pi0_ros.configuration.file import read_all_parameters
from pi0_ros.observation.observation import Observation
from pi0_ros.policy.factory import checkpoint_folder
from pi0_ros.policy.policy import Leftover, Unserved
from pi0_ros.remote import client, metadata
from pi0_ros.remote.link import AGAIN_S, Link, read_key, ServerError
from pi0_ros.remote.server import without_paths
from pi0_ros.remote.wire import MOST, pack, unpack
from pi0_ros.sim import arm, demonstration
from pi0_ros.verbs import evaluate, look, serve, served
from pi0_ros.weights.files import CheckpointError
from pi0_ros.workers.factory import make_policy
import pytest
from servers import answer, cut, greet, raw, StandIn, standing_in, WIDTH
from support import DATA
from websockets.asyncio.client import connect as connect_async
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

JOINTS = ['a', 'b', 'c']
IMAGES = {'front': np.full((48, 64, 3), 90, np.uint8)}
MAP = {'server_map.state': 'state', 'server_map.image': 'camera front, hwc, 32x32',
       'server_map.prompt': 'instruction'}


@pytest.fixture
def asking():
    """Return a function that makes a RemotePolicy of a server."""
    made = []

    def make(address, **changes):
        given = {'policy': 'remote', 'server': address, 'server_schema': 'custom', **MAP,
                 'joint_names': JOINTS, 'cameras': ['front'], 'action_rate': 20.0,
                 'server_deadline': 20.0, 'max_inference_time': 60.0, **changes}
        if given['server_schema'] != 'custom':
            given = {name: value for name, value in given.items() if name not in MAP}
        config = read_all_parameters(None, **given)
        policy = make_policy(config.policy, config.robot, config.control.rtc)
        made.append(policy)
        return policy

    yield make
    for policy in made:
        policy.close()


def seen(state=(0.1, 0.2, 0.3), images=None, text='go'):
    return Observation(77, np.asarray(state, float), images or IMAGES, {'front': 5}, text)


def started(policy):
    policy.load()
    policy.warm_up()
    return policy


# ---- what is asked, and what comes back ----

def test_a_question_and_its_answer(asking):
    with standing_in({'reset_pose': [0.0] * 3}) as server:
        policy = started(asking(server.address))
        chunk = policy.infer(seen())
    assert len(server.questions) == 2, 'the first answer warms up and is not executed'
    question = server.questions[1]
    assert set(question) == {'state', 'image', 'prompt'} and question['prompt'] == 'go'
    assert question['image'].shape == (32, 32, 3) and question['image'].dtype == np.uint8
    np.testing.assert_array_equal(chunk.positions, np.tile([0.1, 0.2, 0.3], (10, 1)))
    assert (chunk.t_obs_ns, chunk.dt_ns, chunk.offset, chunk.seed) == (77, 50_000_000, 0, None)
    assert chunk.image_stamps_ns == {'front': 5} and chunk.instruction == 'go'


def test_units_and_order_are_the_robots(asking):
    def reply(question):
        return {'actions': np.tile([[10.0, 20.0, 90.0]], (5, 1))}
    with standing_in(answers=reply) as server:
        policy = started(asking(server.address, state_names=['c', 'b', 'a', 'extra'],
                                conversions=None, **{'conversions.c': 'degree'}))
        chunk = policy.infer(seen((0.1, 0.2, np.pi, 7.0)))
    np.testing.assert_allclose(server.questions[1]['state'], [180.0, 0.2, 0.1, 7.0])
    np.testing.assert_allclose(chunk.positions[0], [10.0, 20.0, np.pi / 2])


def test_velocities_of_a_server_are_added_up(asking):
    def reply(question):
        return {'actions': np.tile([[0.5, 0.0, 0.8]], (5, 1))}
    with standing_in(answers=reply) as server:
        policy = started(asking(server.address, actions='velocities', velocity_of_training=2.0,
                                position_joints=['c']))
        chunk = policy.infer(seen())
    np.testing.assert_allclose(chunk.positions[:, 0], 0.1 + 0.05 * np.arange(5))
    np.testing.assert_allclose(chunk.positions[:, 2], 0.8)


def test_a_camera_that_is_not_fed_is_left_out(asking):
    with standing_in() as server:
        policy = started(asking(server.address, **{'server_map.other': 'camera wrist, chw'}))
        policy.infer(seen())
    assert 'other' not in server.questions[1]


def test_where_the_time_goes_is_told(asking):
    with standing_in() as server:
        policy = started(asking(server.address))
        policy.infer(seen())
        told = policy.describe()
    assert told['server_infer_ms'] == '1.5' and float(told['server_network_ms']) >= 0
    assert int(told['sent_bytes']) > 32 * 32 * 3 and told['server'] == server.address


@pytest.mark.parametrize('changes, why', [
    ({'server': 'localhost:8000'}, 'expected ws://'), ({'server': 'http://x'}, 'expected ws://'),
    ({'server_map.image': 'photo'}, "'image: photo'"), ({'server_key_file': '/no'}, 'be read'),
    ({'cameras': ['rear']}, "'cameras' names 'rear'"), ({'action_rate': 0.0}, 'control rate'),
    ({'handover': 'rtc'}, "set 'handover' to blend")])
def test_what_is_said_of_a_server_is_checked(asking, changes, why):
    with standing_in() as server, pytest.raises((CheckpointError, ValueError), match=why):
        started(asking(**{'address': server.address, **{
            'address' if name == 'server' else name: value for name, value in changes.items()}}))


def test_a_server_is_told_whole_in_the_parameters():
    for changes, why in (({'server': ''}, "'server' is empty"),
                         ({'server_schema': ''}, "'server_schema' is empty"),
                         ({'server_deadline': 2.0}, "less than 'max_inference_time'")):
        with pytest.raises(ValueError, match=why):
            read_all_parameters(None, **{'policy': 'remote', 'server': 'ws://x', 'joint_names': [
                'a'], 'cameras': ['b'], 'server_schema': 'aloha', **changes})


def test_a_servers_clock_does_not_matter(asking):
    """Nothing that it says of time moves a chunk: that is due by the joint state's stamp."""
    def reply(question):
        return {**answer(question), 'time': -1e18,
                'server_timing': {'infer_ms': -1e12, 'at': 9e18}}
    with standing_in({'time': 4e9}, answers=reply) as server:
        policy = started(asking(server.address))
        chunk = policy.infer(seen())
    assert chunk.t_obs_ns == 77 and chunk.due_ns[0] == 77


# ---- servers that fail ----

def bad_actions(actions):
    return lambda question: {'actions': actions}


ANSWERS = {
    'text': (lambda question: 'Traceback (most recent call last):\n  File "/x"\nValueError: no',
             'server_error', 'ValueError: no'),
    'no_actions': (lambda question: {'action': np.zeros((2, 3))}, 'server_answer', 'no array'),
    'a_list': (bad_actions([[1.0, 2.0, 3.0]] * 3), 'server_answer', 'no array of actions'),
    'wrong_width': (bad_actions(np.zeros((5, 4))), 'server_answer', 'shape [5, 4], expected'),
    'one_step': (bad_actions(np.zeros((1, 3))), 'server_answer', '1 steps'),
    'flat': (bad_actions(np.zeros(3)), 'server_answer', 'shape [3]'),
    'nan': (bad_actions(np.full((5, 3), np.nan)), 'server_answer', 'not finite'),
    'endless': (bad_actions(np.zeros((2000, 3))), 'server_answer', '2000 steps'),
    'letters': (bad_actions(np.full((5, 3), 'x')), 'server_answer', 'no array of actions'),
    'no_map': (lambda question: pack([1]), 'server_answer', "none of openpi's protocol"),
    'garbage': (lambda question: b'\xc1\xff', 'server_answer', "none of openpi's protocol"),
    'half': (lambda question: pack(answer(question))[:-7], 'server_answer', 'protocol'),
    'objects': (lambda question: pack(answer(question)).replace(b'<f8', b'|O8'), 'server_answer',
                'protocol'),
}


@pytest.mark.parametrize('name', ANSWERS)
def test_an_answer_that_is_none(asking, name):
    wrong, reason, words = ANSWERS[name]
    turn = {'bad': False}

    def answers(question):
        return wrong(question) if turn['bad'] else answer(question)

    with standing_in(answers=answers) as server:
        policy = started(asking(server.address))
        turn['bad'] = True
        with pytest.raises(ServerError) as caught:
            policy.infer(seen())
        assert caught.value.finding.reason == reason and words in str(caught.value)
        assert caught.value.finding.subject == 'server' and not policy.loaded
        turn['bad'] = False
        again(policy)
        assert policy.infer(seen()).positions.shape == (10, 3)


def again(policy, seconds=60, **changes):
    """Let the policy find its server again, with some settings changed."""
    policy._config = replace(policy._config, **changes)
    end = time.monotonic() + seconds
    while True:
        try:
            return policy.ensure_loaded()
        except Unserved:
            assert time.monotonic() < end
            time.sleep(0.01)


def test_who_answers_twice_is_not_asked_again(asking):
    turn = {'twice': False}
    with standing_in(answers=lambda question: [answer(question)] * (1 + turn['twice'])) as server:
        policy = started(asking(server.address))
        turn['twice'] = True
        policy.infer(seen())
        wait_for(lambda: policy._link._socket.recv_messages.frames.qsize())
        with pytest.raises(ServerError, match='was not asked'):
            policy.infer(seen((0.5, 0.5, 0.5)))
        assert not policy.loaded


def wait_for(done, seconds=60):
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, 'in vain'
        time.sleep(0.005)


def test_a_late_answer_is_never_used(asking):
    hold = threading.Event()

    def slow(question):
        if question['prompt'] == 'late':
            hold.wait(60)
            return {'actions': np.full((5, 3), 9.0)}
        return answer(question)

    with standing_in(answers=slow) as server:
        policy = started(asking(server.address))
        policy._config = replace(policy._config, server_deadline=0.1)
        with pytest.raises(ServerError) as caught:
            policy.infer(seen(text='late'))
        assert caught.value.finding.reason == 'server_late' and not policy.loaded
        hold.set()
        again(policy, server_deadline=20.0)
        assert policy.infer(seen()).positions.max() < 1


def test_a_server_that_dies_between_question_and_answer_is_found_again(asking):
    server = StandIn().start()
    policy = started(asking(server.address))
    server.answers = lambda question: cut(server.open[-1]) or answer(question)
    with pytest.raises(ServerError) as caught:
        policy.infer(seen())
    assert caught.value.finding.reason == 'server_unreachable'
    server.stop()
    with pytest.raises(Unserved) as caught:
        policy.ensure_loaded()
    assert caught.value.finding.reason == 'server_unreachable'
    server.answers = answer
    server.start()  # on the same port
    try:
        before = len(server.questions)
        again(policy)
        assert len(server.questions) == before + 1, 'the first answer is not executed'
        assert policy.infer(seen()).positions.shape == (10, 3)
    finally:
        server.stop()


def test_a_network_that_took_long_is_given_as_long_again(asking):
    with standing_in() as server:
        policy, given = asking(server.address), []
        connected = policy._link._connected

        def slowly(address, context, patience_s, headers):
            given.append(patience_s)
            time.sleep(0.5)
            return connected(address, context, patience_s, headers)

        policy._link._connected = slowly
        policy.ensure_loaded()
        policy._missed(ServerError('server_unreachable', 'on purpose'))
        again(policy)
    assert given[0] == client.LOAD_S and 1.5 <= given[1] <= AGAIN_S[1]


def test_pauses_between_attempts_grow(asking, monkeypatch):
    times = []
    policy = asking('ws://127.0.0.1:9', joint_names=JOINTS)
    monkeypatch.setattr(policy._link, 'connect', lambda patience=1.0: times.append(
        time.monotonic()) or (_ for _ in ()).throw(ServerError('server_unreachable', 'no')))
    now = [0.0]
    monkeypatch.setattr(client.time, 'monotonic', lambda: now[0])
    policy.load()
    for _ in range(1000):
        now[0] += 0.05
        with pytest.raises(Unserved):
            policy.ensure_loaded()
    assert 10 <= len(times) <= 20
    now[0] += 10
    with pytest.raises(Unserved) as caught:
        policy.infer(seen())
    assert not caught.value.fresh, 'who infers waits for no connection'


def test_a_server_that_comes_later(asking):
    with socket.create_server(('127.0.0.1', 0)) as taken:
        port = taken.getsockname()[1]
    policy = started(asking(f'ws://127.0.0.1:{port}'))
    assert not policy.loaded and policy.describe()['connected'] == 'no'
    with pytest.raises(Unserved, match='cannot be reached'):
        policy.infer(seen())
    server = StandIn()
    server.port = port
    server.start()
    try:
        again(policy)
        assert policy.infer(seen()).positions.shape == (10, 3)
    finally:
        server.stop()


@pytest.mark.parametrize('behave, reason', [
    (lambda one: one.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi'),
     'server_unreachable'),
    (lambda one: one.sendall(b'HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n'),
     'server_unreachable'),
    (lambda one: one.sendall(b'SSH-2.0-OpenSSH_9.6\r\n'), 'server_unreachable'),
    (lambda one: one.close(), 'server_unreachable'),
    (lambda one: one.recv(1) and time.sleep(0.5), 'server_unreachable')])
def test_a_server_of_something_else(behave, reason):
    with raw(behave) as address, pytest.raises(ServerError) as caught:
        Link(address).connect(0.3)
    assert caught.value.finding.reason == reason and address in str(caught.value)


@pytest.mark.parametrize('speaks, reason', [
    (lambda connection: connection.send('hello'), 'server_error'),
    (lambda connection: connection.send(pack([1, 2])), 'server_answer'),
    (lambda connection: connection.send(b'\xc1'), 'server_answer'),
    (lambda connection: connection.close(), 'server_unreachable'),
    (lambda connection: connection.send(bytes(MOST + 1)), 'server_unreachable'),
    (lambda connection: connection.recv(), 'server_late')])
def test_a_server_that_begins_wrongly(speaks, reason):
    with standing_in(speaks=speaks) as server, pytest.raises(ServerError) as caught:
        Link(server.address).connect(3.0 if reason == 'server_late' else 20.0)
    assert caught.value.finding.reason == reason


@pytest.mark.parametrize('said, reason', [('Traceback: out of memory', 'server_error'),
                                          (b'\xc1', 'server_answer')])
def test_a_server_that_closed_before_it_was_heard(monkeypatch, said, reason):
    """What it said before tells what is wrong, not that its socket is gone."""
    connected = Link._connected

    def late(self, *given):
        connection = connected(self, *given)
        connection.recv_events_thread.join()  # the whole connection has come and gone
        return connection

    monkeypatch.setattr(Link, '_connected', late)
    with (standing_in(speaks=lambda connection: connection.send(said)) as server,
          pytest.raises(ServerError) as caught):
        Link(server.address).connect(20.0)
    assert caught.value.finding.reason == reason


def test_a_network_that_takes_no_more_is_given_up(asking):
    """The question is larger than what the system keeps for a peer that does not read."""
    given_up = threading.Event()

    def deaf(connection):
        greet(connection)
        given_up.wait(10)

    with raw(deaf) as address:
        link = Link(address)
        assert link.connect(20.0) == {}
        began = time.monotonic()
        with pytest.raises(ServerError) as caught:
            link.ask({'image': np.zeros(2**24, np.uint8)}, 0.2)
        assert caught.value.finding.reason == 'server_late' and not link.up
        assert time.monotonic() - began < 10
        given_up.set()


def test_a_peer_that_reads_slowly_does_not_stretch_the_deadline(asking, tmp_path):
    given_up = threading.Event()

    def drip(connection):
        greet(connection)
        while not given_up.wait(0.02) and connection.recv(512):
            pass

    with raw(drip) as address:
        link = Link(address)
        link.connect(20.0)
        began = time.monotonic()
        with pytest.raises(ServerError) as caught:
            link.ask({'image': np.zeros(2**24, np.uint8)}, 0.3)
        assert caught.value.finding.reason == 'server_late'
        assert time.monotonic() - began < 30  # read to the end it would take ten minutes
        given_up.set()


def test_who_was_late_itself_does_not_say_that_the_server_left(asking):
    """Its process stood still past the deadline, which cut the connection."""
    ended = threading.Event()
    with standing_in(answers=lambda question: ended.wait(60) and answer(question)) as server:
        link = Link(server.address)
        link.connect(20.0)
        receive = link._receive

        def after_a_stop(patience_s):
            time.sleep(0.3)
            cut(link._socket)
            link._socket.recv_events_thread.join()
            return receive(patience_s)

        link._receive = after_a_stop
        with pytest.raises(ServerError) as caught:
            link.ask({'state': np.zeros(3)}, 0.2)
        assert caught.value.finding.reason == 'server_late'
        ended.set()


def test_whoever_closes_need_not_wait_for_an_answer(asking):
    ended = threading.Event()
    with standing_in(answers=lambda question: ended.wait(10) and answer(question)) as server:
        link = Link(server.address)
        link.connect(20.0)
        threading.Timer(0.1, link.abort).start()
        with pytest.raises(ServerError):
            link.ask({'state': np.zeros(3)}, 60.0)
        ended.set()


def certificate(folder, name):
    subprocess.run(['openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2',
                    '-subj', f'/CN={name}', '-addext', 'subjectAltName=IP:127.0.0.1', '-keyout',
                    folder / f'{name}.key', '-out', folder / f'{name}.pem'], check=True,
                   capture_output=True)
    return str(folder / f'{name}.pem'), str(folder / f'{name}.key')


def test_a_server_with_a_certificate(asking, tmp_path):
    try:
        (own, key), (other, _) = certificate(tmp_path, 'own'), certificate(tmp_path, 'other')
    except (OSError, subprocess.CalledProcessError):
        pytest.skip('openssl is not installed')
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own, key)
    with standing_in(ssl=context) as server:
        for authority in ('', other):
            with pytest.raises(ServerError, match='certificate') as caught:
                Link(server.address, '', authority).connect(20.0)
            assert caught.value.finding.reason == 'server_unreachable'
        policy = started(asking(server.address, server_ca=own))
        assert policy.infer(seen()).positions.shape == (10, 3)


def test_keys_are_one_line(tmp_path):
    (tmp_path / 'key').write_text(' s3cret \n')
    assert read_key(str(tmp_path / 'key')) == 's3cret' and read_key('') == ''
    for text in ('', 'two\nlines', 'ünïcode'):
        (tmp_path / 'key').write_text(text)
        with pytest.raises(ValueError, match='holds no key'):
            read_key(str(tmp_path / 'key'))


# ---- our server ----

class Served:
    """The verb serve, in a thread of its own."""

    def __init__(self, *words, key=''):
        args = serve.parser().parse_args(['--port', '0', *words])
        self.thread, self.ready = ThreadPoolExecutor(1), threading.Event()
        self.policy, self.server = self.thread.submit(
            served.make, args, key, self.thread).result()
        self._runner = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._runner.start()
        assert self.ready.wait(60)

    async def _run(self):
        self.loop, self.ended = asyncio.get_running_loop(), asyncio.Event()
        listening = await self.server.listen('127.0.0.1', 0)
        self.port = next(iter(listening.sockets)).getsockname()[1]
        self.address = f'ws://127.0.0.1:{self.port}'
        self.ready.set()
        await self.ended.wait()
        listening.close()
        await listening.wait_closed()

    def close(self):
        self.loop.call_soon_threadsafe(self.ended.set)
        self._runner.join()
        self.thread.shutdown()
        self.policy.close()


@pytest.fixture(scope='module')
def demo():
    served = Served('--checkpoint', 'demo')
    yield served
    served.close()


OURS = {'server_schema': 'pi0_ros', 'joint_names': list(arm.JOINT_NAMES),
        'cameras': ['overhead', 'wrist'], 'action_rate': 0.0}
LOOK = {name: np.random.default_rng(number).integers(0, 256, (120, 160, 3), np.uint8)
        for number, name in enumerate(('overhead', 'wrist'))}
STATE = np.array([0.1, 0.2, 0.3, 0.4, 0.01])


def local(**changes):
    config = read_all_parameters(None, **{
        'policy': 'pi0', 'checkpoint': 'demo', 'joint_names': list(arm.JOINT_NAMES),
        'cameras': ['overhead', 'wrist'], **changes})
    return started(make_policy(config.policy, config.robot, config.control.rtc))


@pytest.mark.parametrize('worker', ['thread', 'process'])
def test_two_of_ours_decide_as_one_does_bit_for_bit(asking, demo, worker):
    """Seeds, noise and leftovers go over the wire; images raw, so that nothing is rounded."""
    policy = started(asking(demo.address, **OURS, server_raw_images=True, handover='rtc', seed=3,
                            worker=worker))
    alone = local(handover='rtc', seed=3)
    look = Observation(9, STATE, LOOK, {}, 'take the red block')
    for leftover in (None, Leftover(np.tile(STATE, (20, 1)) + 0.01, 4)):
        one, other = policy.infer(look, None, leftover), alone.infer(look, None, leftover)
        np.testing.assert_array_equal(one.positions, other.positions)
        assert (one.number, one.seed, one.given, one.dt_ns, one.offset) == (
            other.number, other.seed, other.given, other.dt_ns, other.offset)
    noise = np.random.default_rng(5).standard_normal(alone.noise_shape)
    if worker == 'thread':
        assert policy.noise_shape == alone.noise_shape
        np.testing.assert_array_equal(policy.infer(look, noise).positions,
                                      alone.infer(look, noise).positions)
    alone.close()


def test_fitted_images_are_a_fraction_and_nearly_the_same(asking, demo):
    policy = started(asking(demo.address, **OURS))
    alone = local()
    look = Observation(9, STATE, LOOK, {}, 'take the red block')
    one, other = policy.infer(look), alone.infer(look)
    assert np.abs(one.positions - other.positions).max() < 0.02
    assert int(policy.describe()['sent_bytes']) < 30_000
    alone.close()


def test_the_server_says_what_it_is(demo):
    link = Link(demo.address)
    spec, said = metadata.read(link.connect(20.0))
    link.close()
    assert spec.cameras == ('overhead', 'wrist') and spec.action_names == arm.JOINT_NAMES
    assert said['action_rate'] == 50.0 and said['rtc'] == 'identity' and said['noise'][0] == 50
    assert '/' not in str(said['checkpoint'])


@pytest.mark.parametrize('changes, why', [
    ({'joint_names': list(arm.JOINT_NAMES)[::-1]}, 'at position'), ({'cameras': ['rear']}, 'rear'),
    ({'joint_names': ['a', 'b']}, 'has 2 joints, the checkpoint has 5'),
    ({'handover': 'rtc_trained'}, 'continues chunks by identity')])
def test_a_checkpoint_that_does_not_fit_is_refused_as_a_local_one(asking, demo, changes, why):
    with pytest.raises((CheckpointError, ValueError), match=why):
        asking(demo.address, **{**OURS, **changes}).load()


def test_a_server_that_comes_back_with_another_checkpoint_is_not_used(asking, demo):
    policy = started(asking(demo.address, **{**OURS, 'action_rate': 50.0}))
    other = Served('--checkpoint', str(DATA / 'lerobot_mean_std' / 'checkpoint'))
    try:
        policy._link.close()
        policy._link.address = other.address
        with pytest.raises(ServerError, match='another checkpoint than before') as caught:
            policy.ensure_loaded()
        assert caught.value.finding.reason == 'server_answer' and not policy.loaded
        with pytest.raises(ValueError, match='does not fit'):
            asking(other.address, **{**OURS, 'action_rate': 50.0}).load()
    finally:
        other.close()


def test_an_answer_to_another_question_is_refused(asking, demo, monkeypatch):
    policy = started(asking(demo.address, **OURS))
    look = Observation(9, STATE, LOOK, {}, 'take the red block')
    answered = demo.server._answer

    async def before(*asked):
        return {**await answered(*asked), metadata.ID: policy._asked - 1}

    monkeypatch.setattr(demo.server, '_answer', before)
    with pytest.raises(ServerError, match='answers another question'):
        policy.infer(look)
    monkeypatch.undo()
    again(policy)
    assert policy.infer(look).positions.shape == (50, 5)


def test_who_asked_and_has_gone_is_not_decided_for(demo, monkeypatch):
    hold, begun, inferred = threading.Event(), threading.Event(), []
    decide = demo.server._decide

    def slow(asked):
        inferred.extend(one[0].instruction for one in asked)
        begun.set()
        hold.wait(10)
        return decide(asked)

    monkeypatch.setattr(demo.server, '_decide', slow)
    with connect(demo.address, compression=None, max_size=None) as first:
        first.recv()
        first.send(pack(question(prompt='first')))
        assert begun.wait(10)
        gone = connect(demo.address, compression=None, max_size=None).__enter__()
        gone.recv()
        gone.send(pack(question(prompt='gone')))
        cut(gone)
        with connect(demo.address, compression=None, max_size=None) as last:
            last.recv()
            last.send(pack(question(prompt='last')))
            hold.set()
            assert isinstance(last.recv(timeout=20), bytes)
    assert inferred == ['first', 'last']


def test_damaged_words_of_a_server_are_refused():
    link = {'version': 1}
    good = metadata.describe(checkpoint.read(checkpoint_folder('demo')), 50.0, 0, '', (50, 32),
                             'f')
    assert metadata.read(unpack(pack(good)))[0].cameras == ('overhead', 'wrist')
    for name, value in (('action_rate', 1e-300), ('action_offset', -50), ('image_size', [9**9, 9]),
                        ('cameras', ['\x00']), ('state', np.zeros(3)), ('noise', [50]),
                        ('chunk_length', 10**9), ('relative', np.zeros(9, bool))):
        with pytest.raises(ValueError):
            metadata.read({metadata.KEY: {**good[metadata.KEY], name: value}})
    for said, why in (({'version': 2}, 'speaks version 2'), (link, 'incomplete or damaged'),
                      (3, 'damaged')):
        with pytest.raises(ValueError, match=why):
            metadata.read({metadata.KEY: said})
    assert metadata.read({'reset_pose': []}) is None


def question(state=STATE, **more):
    return {'state': np.asarray(state), 'images': dict(LOOK), 'prompt': 'take the red block',
            **more}


@pytest.mark.parametrize('bad, why', [
    (question(np.zeros(4)), 'the state has 4 numbers, expected 5'),
    ({'images': {}}, "lacks 'state'"), (question(images={}), 'there is no image of overhead'),
    (question(**{metadata.NOISE: np.zeros((2, 2))}), 'the noise has shape'),
    (question(**{metadata.SEED: 'x'}), 'the seed is'), (question(prompt=3), "'prompt' is 3"),
    (question(prompt=1001 * 'x'), 'the instruction has 1001'),
    (question(**{metadata.LEFTOVER: np.zeros((4, 9)), metadata.DELAY: 1}), 'the leftover has'),
    (question(**{metadata.LEFTOVER: np.zeros((4, 5)), metadata.DELAY: 7}), 'the leftover has')])
def test_a_question_that_cannot_be_answered_gets_a_sentence(demo, bad, why):
    with connect(demo.address, compression=None, max_size=None) as one:
        one.recv()
        one.send(pack(bad))
        said = one.recv()
        assert isinstance(said, str) and why in said and 'Traceback' not in said
        with pytest.raises(ConnectionClosed):
            one.recv()
    with connect(demo.address, compression=None, max_size=None) as one:
        one.recv()
        one.send(pack(question()))
        assert unpack(one.recv())['actions'].shape == (50, 5)


def test_a_question_that_is_too_long_is_not_read(demo):
    with connect(demo.address, compression=None, max_size=None) as one:
        one.recv()
        with pytest.raises(ConnectionClosed):
            one.send(bytes(MOST + 1))
            one.recv()


def test_errors_tell_nothing_of_this_machine():
    assert without_paths(ValueError("checkpoint '/home/me/secret run/model': no")) == (
        "checkpoint '…/secret run/model': no")
    assert without_paths(ValueError('see ~/x/y.json\nand more')) == 'see …/y.json'
    assert without_paths(ValueError('file:/home/x no')) == 'file:…/x no'
    assert without_paths(ValueError('1/2 of ws://host:80')) == '1/2 of ws://host:80'
    assert '/' not in without_paths(RuntimeError('/home/me'))


def test_health_and_others_are_answered_during_an_inference(demo, monkeypatch):
    began, hold = threading.Event(), threading.Event()
    decide = demo.server._decide

    def slow(asked):
        began.set()
        hold.wait(10)
        return decide(asked)

    monkeypatch.setattr(demo.server, '_decide', slow)
    with connect(demo.address, compression=None, max_size=None) as one:
        one.recv()
        one.send(pack(question()))
        assert began.wait(10)
        health = f'http://127.0.0.1:{demo.port}/healthz'
        with urllib.request.urlopen(health, timeout=60) as answered:
            assert answered.read() == b'OK\n'
        with connect(demo.address, compression=None) as other:
            assert metadata.KEY in unpack(other.recv(timeout=60))
        hold.set()
        assert unpack(one.recv(timeout=20))['server_timing']['infer_ms'] > 0


def test_clients_take_turns(demo):
    """Each has one question open; whoever asks the more often does not get more than half."""
    order = []

    async def ask(name, count):
        async with connect_async(demo.address, compression=None, max_size=None) as one:
            await one.recv()
            for _ in range(count):
                await one.send(pack(question()))
                said = unpack(await one.recv())
                order.append(name)
        return said

    async def both():
        return await asyncio.gather(ask('a', 4), ask('b', 4))

    said = asyncio.run(both())
    assert order[:6].count('a') in (2, 3, 4) and all('prev_total_ms' in one['server_timing']
                                                     for one in said)


def test_a_key_is_asked_for():
    served = Served('--checkpoint', 'demo', key='s3cret')
    try:
        for key in ('', 'wrong', 's3cre'):
            with pytest.raises(ServerError, match='HTTP 401: it refuses the key'):
                Link(served.address, key).connect(20.0)
        link = Link(served.address, 's3cret')
        assert metadata.KEY in link.connect(20.0)
        link.close()
        with pytest.raises(InvalidStatus), connect(served.address):
            pass
        with urllib.request.urlopen(f'http://127.0.0.1:{served.port}/healthz') as answered:
            assert answered.status == 200
    finally:
        served.close()


@pytest.mark.parametrize('words, why', [
    (['--host', '0.0.0.0'], 'listens beyond this machine'),
    (['--host', 'robot.local'], 'listens beyond this machine'),
    (['--schema', 'aloha'], 'say which is which with --camera'),
    (['--schema', 'aloha', '--camera', 'cam_high=rear'], "--camera 'cam_high=rear'"),
    (['--api-key-file', '/no'], 'be read')])
def test_what_is_not_served(words, why, capsys):
    assert serve.main(['--checkpoint', 'demo', *words]) == 1
    assert why in capsys.readouterr().err


def test_openpis_clients_are_answered_in_their_schema(tmp_path):
    name, params = 'openpi_pytorch', tmp_path / 'robot.yaml'
    facts = json.loads((DATA / name / 'fixture.json').read_text())
    joints = [f'joint_{number}' for number in range(14)]
    params.write_text(json.dumps({'/**': {'ros__parameters': {
        'joint_names': joints, 'action_rate': 50.0, 'relative_joints': [
            joint for joint, delta in zip(joints, facts['delta_mask']) if delta]}}}))
    served = Served('--checkpoint', str(DATA / name / 'checkpoint'), '--schema', 'aloha',
                    '--tokenizer', str(DATA / name / 'tokenizer'), '--params-file',
                    str(params))
    try:
        sent = unpack((DATA / 'openpi_remote' / 'request_aloha.msgpack').read_bytes())
        with connect(served.address, compression=None, max_size=None) as one:
            assert unpack(one.recv()) == {}, 'as a stock server: nothing that is not asked for'
            for _ in range(2):
                one.send(pack(sent))
                said = unpack(one.recv())
        assert said['actions'].shape[1] == 14 and np.isfinite(said['actions']).all()
        assert {'infer_ms', 'prev_total_ms'} <= set(said['server_timing'])
    finally:
        served.close()


def test_the_log_of_a_server_names_who_asked(demo, caplog):
    caplog.set_level(logging.INFO, 'pi0_ros')
    with connect(demo.address, compression=None) as one:
        one.recv()
    wait_for(lambda: 'has gone' in caplog.text)
    assert '127.0.0.1' in caplog.text and WIDTH == 3


# ---- the command line ----

def observation_file(tmp_path):
    np.savez(tmp_path / 'seen.npz', state=STATE, instruction='take the red block',
             **{f'image.{name}': image for name, image in LOOK.items()})
    return str(tmp_path / 'seen.npz')


def test_infer_asks_a_server(demo, tmp_path, capsys):
    from pi0_ros.verbs import infer
    words = ['--observation', observation_file(tmp_path), '--output', str(tmp_path / 'a.npy')]
    assert infer.main(['--server', demo.address, *words]) == 0, capsys.readouterr().err
    got = np.load(tmp_path / 'a.npy')
    assert json.loads(capsys.readouterr().out)['engine'] == 'remote'
    assert infer.main(['--checkpoint', 'demo', *words]) == 0
    assert np.abs(np.load(tmp_path / 'a.npy') - got).max() < 0.02
    assert infer.main(['--server', 'ws://127.0.0.1:9', *words]) == 1
    assert 'cannot be reached' in capsys.readouterr().err


def test_inspect_tells_what_a_server_is(demo, tmp_path, capsys):
    assert look.main([demo.address]) == 0
    told = capsys.readouterr().out
    assert 'cameras     overhead, wrist' in told and '50 steps of 5 joints' in told
    with standing_in({'reset_pose': [0.0, -1.5]}) as server:
        assert look.main([server.address]) == 0
        told = capsys.readouterr().out
        assert 'reset_pose  [0.0, -1.5]' in told and 'not asked for' in told
        (tmp_path / 'robot.yaml').write_text(json.dumps({'/**': {'ros__parameters': {
            'joint_names': JOINTS, 'cameras': ['front'], 'action_rate': 20.0,
            'server_schema': 'custom', 'server_map': {'state': 'state', 'prompt': 'instruction',
                                                      'image': 'camera front, hwc, 32x32'}}}}))
        assert look.main([server.address, '--params-file', str(tmp_path / 'robot.yaml')]) == 0
        assert '10 steps of 3 joints' in capsys.readouterr().out
    assert look.main(['ws://127.0.0.1:9']) == 1


def test_evaluate_judges_a_server(demo, tmp_path, capsys):
    bag = tmp_path / 'bag'
    assert demonstration.main([str(bag), '--blocks', 'red']) == 0
    params = Path(__file__).parents[1] / 'config' / 'sim.yaml'
    assert evaluate.main([
        str(bag), '--checkpoint', demo.address, '--params-file', str(params), '--every', '2',
        '--samples', '1', '--out', str(tmp_path / 'out')]) == 0, capsys.readouterr().err
    name = demo.address.removeprefix('ws://').replace(':', '_')
    result = json.loads((tmp_path / 'out' / 'evaluation.json').read_text())
    assert list(result['runs']) == [name] and result['runs'][name]['moments'] > 0
