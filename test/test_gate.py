# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The address of several replicas: who goes where, and what robots notice when one is gone."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
import itertools
import threading
import urllib.error
import urllib.request

import numpy as np
from pi0_ros.checkpoint import reader
from pi0_ros.observation.observation import Observation
from pi0_ros.policy.factory import DEMO
from pi0_ros.policy.policy import ActionChunk, Leftover, Unserved
from pi0_ros.remote import gate, metadata, schemas
from pi0_ros.remote.gate import Gate, NoReplica
from pi0_ros.remote.server import PolicyServer
from pi0_ros.remote.wire import pack, unpack
import pytest
from servers import node
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

SPEC = reader.read(DEMO)
LOOK = {name: np.full((24, 32, 3), 90, np.uint8) for name in SPEC.cameras}
STATE = np.array([0.1, 0.2, 0.3, 0.4, 0.01])


class Stub:
    """A replica with a policy that adds the noise's first number to the state."""

    def __init__(self, name, fingerprint='a', replaces=(), action_names=None):
        self.name, self.thread = name, ThreadPoolExecutor(1)
        self.asked, self.broken, self.go = 0, '', None
        described = metadata.describe(SPEC, 20.0, 0, 'identity', (50, 32), fingerprint)
        described[metadata.KEY] |= {metadata.REPLICAS: 2, metadata.REPLACES: list(replaces)}
        if action_names:
            described[metadata.KEY]['action']['names'] = action_names
        self.server = PolicyServer(self.decide, described, schemas.ours(SPEC.cameras), {
            name: name for name in SPEC.cameras}, SPEC.state_width, self.thread,
            check=self.check)

    def decide(self, questions):
        self.asked += len(questions)
        if self.go:
            assert self.go.wait(10)
        if self.broken == 'raises':
            raise RuntimeError('CUDA error')
        return [ActionChunk(0, 1, np.tile(seen.state, (10, 1)) + (
            0.0 if noise is None else noise[0, 0]) + (
            np.nan if self.broken or seen.instruction == 'nan' else 0.0), seen.instruction)
            for seen, noise, _ in questions]

    def check(self):
        if self.broken:
            raise ValueError(self.broken)

    async def listen(self):
        self.listening = await self.server.listen('127.0.0.1', 0)
        self.port = next(iter(self.listening.sockets)).getsockname()[1]

    async def die(self):
        """End without a word, as a process that is killed."""
        self.listening.close(close_connections=False)
        for connection in list(self.listening.connections):
            connection.transport.abort()


class Stubs:
    """Stands for the fleet that Ray Serve keeps: whose turn it is goes round."""

    def __init__(self, *stubs):
        self.stubs, self.turn, self.leases = list(stubs), itertools.count(), {}

    @property
    def robots(self):
        return len(self.leases)

    async def lease(self, token):
        if not self.stubs:
            raise NoReplica('no replica answers')
        stub = self.stubs[next(self.turn) % len(self.stubs)]
        host = stub.server.guests.host(token, 0.05)
        try:
            await host.__anext__()
        except RuntimeError as error:
            raise NoReplica(str(error)) from error
        self.leases[token] = stub, asyncio.create_task(self.follow(token, host))
        return '', stub.port

    async def follow(self, token, host):
        try:
            async for _ in host:
                pass
        finally:
            await host.aclose()
            self.leases.pop(token, None)

    async def running(self):
        return len(self.stubs)

    def reports(self):
        return {stub.name: stub.server.report() for stub in self.stubs}

    def figures(self):
        return {'changes_total': ('counter', 3)}


class House:
    """A gate and its replicas, in a thread."""

    def __init__(self, *stubs, **settings):
        self.fleet, self.stubs = Stubs(*stubs), stubs
        self.gate, ready = Gate(self.fleet, **settings), threading.Event()
        self.runner = threading.Thread(target=asyncio.run, args=(self.run(ready),), daemon=True)
        self.runner.start()
        assert ready.wait(10)

    async def run(self, ready):
        self.loop, self.ended = asyncio.get_running_loop(), asyncio.Event()
        for stub in self.stubs:
            await stub.listen()
        listening = await self.gate.listen('127.0.0.1', 0)
        self.port = next(iter(listening.sockets)).getsockname()[1]
        ready.set()
        await self.ended.wait()
        listening.close()
        await listening.wait_closed()

    @property
    def address(self):
        return f'ws://127.0.0.1:{self.port}'

    def do(self, work):
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(10)

    def kill(self, stub):
        self.fleet.stubs.remove(stub)
        self.do(stub.die())

    def send_elsewhere(self, stub):
        """Let a replica's robots go, as a change of checkpoint does."""
        async def cancel():
            for there, task in list(self.fleet.leases.values()):
                if there is stub:
                    task.cancel()
        self.fleet.stubs.remove(stub)
        self.do(cancel())

    def get(self, path, **headers):
        with urllib.request.urlopen(urllib.request.Request(
                f'http://127.0.0.1:{self.port}{path}', headers=headers)) as answer:
            return answer.read().decode()

    def close(self):
        self.loop.call_soon_threadsafe(self.ended.set)
        self.runner.join()
        for stub in self.stubs:
            stub.thread.shutdown(wait=False)


@pytest.fixture
def houses():
    made = []

    def make(*stubs, **settings):
        made.append(House(*stubs, **settings))
        return made[-1]

    yield make
    for house in made:
        house.close()


@pytest.fixture
def robots():
    """Return a function that makes a RemotePolicy, as a node of this package has it."""
    made = []

    def make(house, **changes):
        made.append(node(changes.pop('server', house.address), server_deadline=5.0, **changes))
        return made[-1]

    yield make
    for policy in made:
        policy.close()


def seen(text='go'):
    return Observation(0, STATE, LOOK, {}, text)


NOISE = np.full((50, 32), 0.25)
WANTED = np.tile(STATE + 0.25, (10, 1))


def plain(house, **settings):
    """Return a connection of a client of openpi's, which knows of no replicas."""
    link = connect(house.address, compression=None, max_size=None, open_timeout=5, proxy=None,
                   **settings)
    said = unpack(link.recv())
    return link, said


def question(text='go'):
    return pack({'state': STATE, 'images': LOOK, 'prompt': text, metadata.NOISE: NOISE})


def test_a_node_goes_to_a_replica_and_others_through_the_gate(houses, robots):
    one, two = Stub('one'), Stub('two')
    house = houses(one, two)
    first, second = robots(house), robots(house)
    for policy in (first, second):
        np.testing.assert_allclose(policy.infer(seen(), NOISE).positions, WANTED)
    assert one.asked == two.asked == 2 and house.gate.relayed == 0, 'each warms up and asks'
    link, said = plain(house)
    with link:
        assert said[metadata.KEY]['fingerprint'] == 'a'
        link.send(question())
        np.testing.assert_allclose(unpack(link.recv())['actions'], WANTED)
        assert house.gate.relayed == 1 and house.fleet.robots == 3


def test_a_relayed_node_is_answered_too(houses, robots):
    house = houses(Stub('one'), redirects=False)
    policy = robots(house)
    np.testing.assert_allclose(policy.infer(seen(), NOISE).positions, WANTED)
    assert house.gate.relayed == 1


@pytest.mark.parametrize('redirects', [True, False])
def test_a_replica_that_dies_between_questions_is_not_missed(houses, robots, redirects):
    one, two = Stub('one'), Stub('two')
    house = houses(one, two, redirects=redirects)
    policy = robots(house)
    mine = one if one.asked else two
    policy.infer(seen(), NOISE)
    house.kill(mine)
    np.testing.assert_allclose(policy.infer(seen(), NOISE).positions, WANTED)
    assert policy.number == 2 and policy.describe()['connected'] == 'yes'


def test_a_replica_that_dies_while_it_decides_is_not_missed(houses, robots):
    one, two = Stub('one'), Stub('two')
    house = houses(one, two)
    policy = robots(house)
    link, _ = plain(house)
    nodes, relays = (one, two) if one.asked else (two, one)
    for stub, ask in ((nodes, lambda: policy.infer(seen(), NOISE).positions),
                      (relays, lambda: (link.send(question()),
                                        unpack(link.recv())['actions'])[1])):
        asked, stub.go = stub.asked, threading.Event()
        with ThreadPoolExecutor(1) as beside:
            answer = beside.submit(ask)
            while stub.asked == asked:
                assert not answer.done()
            house.kill(stub)
            if stub is nodes:
                stub.go.set()
            else:  # nobody is left, until another comes
                again = Stub('again')
                house.do(again.listen())
                house.fleet.stubs.append(again)
                stub.go.set()
            np.testing.assert_allclose(answer.result(10), WANTED)
    link.close()


def test_one_that_always_dies_is_told_of(houses, robots):
    house = houses(Stub('one'))
    policy = robots(house)
    house.kill(house.stubs[0])
    with pytest.raises(Unserved, match='none of its replicas answers|cannot be reached'):
        policy.infer(seen(), NOISE)
    assert not policy.loaded
    with pytest.raises(urllib.error.HTTPError, match='503') as unwell:
        house.get('/healthz')
    unwell.value.close()


def test_a_stock_client_is_told_that_nobody_is_there(houses, monkeypatch):
    monkeypatch.setattr(gate, 'PATIENCE_S', 0.2)
    house = houses(Stub('one'))
    house.kill(house.stubs[0])
    with connect(house.address, compression=None, proxy=None) as link:
        assert link.recv() == 'Busy: no replica answers'
        with pytest.raises(ConnectionClosed):
            link.recv()
    assert link.close_code == 1013


def test_who_is_sent_elsewhere_gets_its_answer_first(houses, robots):
    one, two = Stub('one'), Stub('two')
    house = houses(one, two)
    policy = robots(house)
    mine, other = (one, two) if one.asked else (two, one)
    mine.go = threading.Event()
    with ThreadPoolExecutor(1) as beside:
        answer = beside.submit(policy.infer, seen(), NOISE)
        while mine.asked < 2:
            assert not answer.done()
        house.send_elsewhere(mine)
        mine.go.set()
        np.testing.assert_allclose(answer.result(10).positions, WANTED)
    assert other.asked == 0
    while not other.asked:
        np.testing.assert_allclose(policy.infer(seen(), NOISE).positions, WANTED)
    assert other.asked == 1, 'it was not warmed up for nothing'


def test_another_checkpoint_is_noticed_in_the_metadata_alone(houses, robots, caplog):
    one, two = Stub('one'), Stub('two', 'b', replaces=['a'])
    house = houses(one)
    policy = robots(house)
    link, _ = plain(house)
    house.do(two.listen())
    house.fleet.stubs.append(two)
    house.send_elsewhere(one)
    left = Leftover(WANTED, 2)
    while policy._ours['fingerprint'] == 'a':  # the one before may answer once more
        np.testing.assert_allclose(policy.infer(seen(), NOISE, left).positions, WANTED)
    assert policy._ours['fingerprint'] == 'b' and two.asked == 1
    link.send(question())
    np.testing.assert_allclose(unpack(link.recv())['actions'], WANTED)
    link.close()


@pytest.mark.parametrize('other', [
    {'fingerprint': 'b'},  # it does not say that it replaces anything
    {'fingerprint': 'b', 'replaces': ['a'], 'action_names': list('edcba')}])
def test_a_checkpoint_that_is_no_replacement_is_refused(houses, robots, other):
    one, two = Stub('one'), Stub('two', **other)
    house = houses(one)
    policy = robots(house)
    house.do(two.listen())
    house.fleet.stubs.append(two)
    house.kill(one)
    with pytest.raises(Unserved, match='has another checkpoint than before'):
        policy.infer(seen(), NOISE)
    assert two.asked == 0


@pytest.mark.parametrize('how', ['nan', 'raises'])
def test_a_replica_that_breaks_is_left_by_all_at_once(houses, robots, how):
    one, two = Stub('one'), Stub('two')
    house = houses(one, two)
    first, second = robots(house), robots(house)
    link, _ = plain(house)
    one.broken = two.broken = ''
    mine = house.fleet.leases
    broken = next(iter(mine.values()))[0]
    broken.broken = how
    for policy in (first, second):
        np.testing.assert_allclose(policy.infer(seen(), NOISE).positions, WANTED)
    link.send(question())
    np.testing.assert_allclose(unpack(link.recv())['actions'], WANTED)
    link.close()
    assert 'broken' in broken.server.guests.closed
    other = two if broken is one else one
    assert all(stub is other for stub, _ in list(house.fleet.leases.values()))


def test_a_question_that_breaks_an_answer_breaks_no_replica(houses, robots):
    one = Stub('one')
    house = houses(one)
    policy = robots(house)
    with pytest.raises(Unserved, match='not finite'):
        policy.infer(seen('nan'), NOISE)
    assert not one.server.guests.closed
    policy._next_s = 0.0
    policy.ensure_loaded()
    np.testing.assert_allclose(policy.infer(seen(), NOISE).positions, WANTED)


def test_only_the_gate_lets_anybody_in(houses, robots, tmp_path):
    house = houses(one := Stub('one'), key='secret')
    with pytest.raises(InvalidStatus, match='401'):
        connect(house.address, proxy=None)
    for path in ('', '?lease=', '?lease=guess', '/metrics'):
        with pytest.raises(InvalidStatus, match='401'):
            connect(f'ws://127.0.0.1:{one.port}/{path}', proxy=None)
    (tmp_path / 'key').write_text('secret')
    policy = robots(house, server_key_file=str(tmp_path / 'key'))
    np.testing.assert_allclose(policy.infer(seen(), NOISE).positions, WANTED)
    token, = house.fleet.leases
    with pytest.raises(InvalidStatus, match='401'):  # once
        connect(f'ws://127.0.0.1:{one.port}/?lease={token}', proxy=None)
    with pytest.raises(urllib.error.HTTPError, match='401') as unknown:
        house.get('/metrics')
    unknown.value.close()
    assert house.get('/healthz') == 'OK\n'


def test_who_is_told_where_to_go_and_stays_away_is_forgotten(houses, monkeypatch):
    from pi0_ros.remote import guests
    monkeypatch.setattr(guests, 'COMES_S', 0.1)
    house = houses(one := Stub('one'))
    with pytest.raises(urllib.error.HTTPError, match='307') as moved:
        class Stay(urllib.request.HTTPRedirectHandler):
            def redirect_request(self, *_):
                return None

        urllib.request.build_opener(Stay).open(urllib.request.Request(
            f'http://127.0.0.1:{house.port}/', headers={
                'Pi0-Ros-Moves': 'yes', 'Connection': 'Upgrade', 'Upgrade': 'websocket',
                'Sec-WebSocket-Version': '13', 'Sec-WebSocket-Key': 'AAAAAAAAAAAAAAAAAAAAAA=='}))
    there = moved.value.headers['Location']
    moved.value.close()
    assert there.startswith(f'ws://127.0.0.1:{one.port}/?lease=')

    house.do(until(lambda: not house.fleet.leases))
    with pytest.raises(InvalidStatus, match='401'):
        connect(there, proxy=None)


def test_who_asks_again_replaces_its_question(houses):
    house = houses(one := Stub('one'))
    _, port = house.do(house.fleet.lease('token'))
    one.go = threading.Event()
    with connect(f'ws://127.0.0.1:{port}/?lease=token', compression=None, proxy=None) as link:
        link.recv()
        for number in range(1, 4):
            link.send(pack({'state': STATE, 'images': LOOK, 'prompt': 'go',
                            metadata.NOISE: NOISE * number, metadata.ID: number}))
            while not one.asked:
                pass
        waiting = one.server.turns._waiting
        house.do(until(lambda: [asked.asked[1][0, 0] for asked in waiting] == [0.75]))
        one.go.set()
        answer = unpack(link.recv())
        assert answer[metadata.ID] == 3 and 'prev_total_ms' not in answer['server_timing']
        np.testing.assert_allclose(answer['actions'], np.tile(STATE + 0.75, (10, 1)))
        link.send(question())
        assert 'prev_total_ms' in unpack(link.recv())['server_timing']
    assert one.asked == 3, 'the second question was not decided'


async def until(holds):
    while not holds():
        await asyncio.sleep(0.01)


def test_metrics_are_those_of_all(houses, robots):
    house = houses(Stub('one'), Stub('two'))
    policy = robots(house)
    policy.infer(seen(), NOISE)
    lines = house.get('/metrics').splitlines()
    for line in ('pi0_ros_replicas 2', 'pi0_ros_robots 1', 'pi0_ros_relayed 0',
                 'pi0_ros_changes_total 3', '# TYPE pi0_ros_answers_total counter'):
        assert lines.count(line) == 1
    answers = {line for line in lines if line.startswith('pi0_ros_answers_total{')}
    assert answers == {'pi0_ros_answers_total{replica="one"} 2',
                       'pi0_ros_answers_total{replica="two"} 0'}


def test_the_host_is_the_one_that_a_robot_used(houses, monkeypatch, robots):
    house = houses(one := Stub('one'))
    policy = robots(house, server=f'ws://localhost:{house.port}')
    link = policy._link._socket
    assert link.request.headers['Host'] == f'localhost:{one.port}'


def test_a_replica_that_hangs_takes_nobody(houses, robots, monkeypatch):
    from pi0_ros.remote import turns
    monkeypatch.setattr(turns, 'HANGS_S', 0.0)
    house = houses(one := Stub('one'))
    policy = robots(house)
    assert not one.server.turns.hangs
    one.server.turns.batch_s = 0.0  # however long the first one took
    one.go = threading.Event()
    with ThreadPoolExecutor(1) as beside:
        answer = beside.submit(policy.infer, seen(), NOISE)
        house.do(until(lambda: one.server.turns.hangs))
        one.go.set()
        answer.result(10)
    assert not one.server.turns.hangs


def test_a_broken_policy_is_noticed_by_whoever_asked(houses, robots):
    """Also where that one has gone before the answer came."""
    house = houses(one := Stub('one'))
    _, port = house.do(house.fleet.lease('token'))
    one.go, one.broken = threading.Event(), 'nan'
    with connect(f'ws://127.0.0.1:{port}/?lease=token', compression=None, proxy=None) as link:
        link.recv()
        link.send(question())
        while not one.asked:
            pass
    one.go.set()
    house.do(until(lambda: one.server.guests.closed))
