# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Several questions at once: each gets its own answer; and whose turn it is."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
import json
import math
import threading

import numpy as np
from pi0_ros.checkpoint.spec import Choices
from pi0_ros.engine.guidance import KINDS
from pi0_ros.observation.observation import Observation
from pi0_ros.policy.factory import DEMO
from pi0_ros.policy.pi0 import Pi0Policy
from pi0_ros.policy.policy import Leftover
from pi0_ros.remote import turns
from pi0_ros.remote.turns import Busy, Turns
import pytest
from support import DATA, FIXTURES, PI05_FIXTURES


def policy_of(name, **settings):
    folder = DATA / name
    facts = json.loads((folder / 'fixture.json').read_text())
    mask = facts.get('delta_mask')
    policy = Pi0Policy(
        folder / 'checkpoint', dt_ns=1, device='cpu', tokenizer=str(folder / facts['tokenizer']),
        choices=Choices(relative_joints=None if mask is None else tuple(np.flatnonzero(mask))),
        **{'dtype': 'float32', **settings})
    policy.load()
    return policy


def questions(policy, count, leftovers=False):
    """Return questions with other images, cameras, states, words and leftovers."""
    dice, spec = np.random.default_rng(4), policy.spec
    words = ['go', 'pick up the red block and put it into the box', 'stop', 'take it slowly']
    width = policy._observed()
    out = []
    for number in range(count):
        cameras = spec.cameras[:1 + number % len(spec.cameras)]
        seen = Observation(0, spec.state.middle[:width] + spec.state.spread[:width]
                           * dice.normal(0, 0.3, width), {
            name: dice.integers(0, 256, (60, 80, 3), np.uint8) for name in cameras}, {},
            words[number % len(words)])
        noise = dice.standard_normal(policy.noise_shape)
        left = None
        if leftovers and number % 2:
            rows = 6 + number
            left = Leftover(np.tile(spec.action.middle, (rows, 1)), 2)
        out.append((seen, noise, left))
    return out


def away(got, wanted):
    return max(float(np.abs(one.positions - other.positions).max()
                     / np.abs(other.positions).max()) for one, other in zip(got, wanted))


@pytest.mark.parametrize('name', FIXTURES + PI05_FIXTURES)
def test_together_is_as_one_after_another(name):
    policy = policy_of(name)
    asked = questions(policy, 5)
    wanted = [policy.infer(*one) for one in asked]
    got = policy.infer_together([policy.begin(*one, keep=True) for one in asked])
    assert away(got, wanted) < 1e-5
    again = policy.infer_together([policy.begin(*one, keep=True) for one in asked])
    assert all(np.array_equal(one.positions, other.positions) for one, other in zip(got, again))
    assert len({one.positions.tobytes() for one in got}) == 5


def guided(name, rtc):
    """Return a policy that continues; none of them was trained to, but can be asked to."""
    if name == 'demo':
        policy = Pi0Policy(DEMO, device='cpu', dtype='float32',
                           rtc='' if rtc == 'trained' else rtc)
        policy.load()
    else:
        policy = policy_of(name, rtc='' if rtc == 'trained' else rtc)
    if rtc == 'trained':
        policy.spec, policy.rtc = replace(policy.spec, trained_delay=8), rtc
        policy._load()
    return policy


@pytest.mark.parametrize('name', ['demo', PI05_FIXTURES[0]])
@pytest.mark.parametrize('rtc', [kind for kind in KINDS if kind])
def test_leftovers_are_continued_each_its_own(name, rtc):
    policy = guided(name, rtc)
    asked = questions(policy, 4, leftovers=True)
    wanted = [policy.infer(*one) for one in asked]
    got = policy.infer_together([policy.begin(*one, keep=True) for one in asked])
    assert away(got, wanted) < 1e-5
    assert [one.given for one in got] == [one.given for one in wanted] == [0, 2, 0, 2]


def test_one_alone_goes_the_usual_way():
    policy = Pi0Policy(DEMO, device='cpu', dtype='float32')
    policy.load()
    policy.warm_up()
    policy.together = None
    seen, noise, _ = questions(policy, 1)[0]
    one, = policy.infer_together([policy.begin(seen, noise)])
    assert np.array_equal(one.positions, policy.infer(seen, noise).positions)


def test_bfloat16_is_as_near_as_the_engine_is():
    for name in (FIXTURES[0], PI05_FIXTURES[0]):
        policy = policy_of(name)
        asked = questions(policy, 3)
        wanted = [policy.infer(*one) for one in asked]
        half = policy_of(name, dtype='bfloat16')
        got = half.infer_together([half.begin(*one, keep=True) for one in asked])
        assert 1e-6 < away(got, wanted) < 5e-2


# Whose turn it is.

class Scene:
    """Questions by name, which are decided when the test lets them."""

    def __init__(self, **settings):
        self.thread = ThreadPoolExecutor(1)
        self.batches, self.go = [], threading.Semaphore(0)
        self.loop, self.began = asyncio.get_running_loop(), asyncio.Event()
        self.turns = Turns(self.decide, self.thread, **settings)

    def decide(self, asked):
        self.batches.append(list(asked))
        self.loop.call_soon_threadsafe(self.began.set)
        assert self.go.acquire(timeout=10)
        return [ValueError(one) if one.startswith('bad') else one.upper() for one in asked]

    def ask(self, name, deadline_s=math.inf, alive=lambda: True):
        return asyncio.create_task(self.turns.ask(name, alive, deadline_s))

    async def until_it_began(self):
        """Wait until the first batch is decided."""
        await self.began.wait()


def played(story, **settings):
    async def play():
        scene = Scene(**settings)
        try:
            return await asyncio.wait_for(story(scene), 20)
        finally:
            scene.go.release(100)
            scene.thread.shutdown()
    return asyncio.run(play())


@pytest.fixture
def patient(monkeypatch):
    """Let the order of what is due be that of a test, however long the machine is busy."""
    monkeypatch.setattr(turns, 'PATIENCE_S', 1000.0)


@pytest.mark.usefixtures('patient')
def test_who_waits_is_decided_together_and_the_urgent_first():
    async def story(scene):
        tasks = [scene.ask('first')]
        await scene.until_it_began()
        for name, deadline_s in (('a', 400), ('b', 100), ('bad', 200), ('c', 300)):
            tasks.append(scene.ask(name, deadline_s))
            await asyncio.sleep(0)
        scene.go.release(3)
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert scene.batches == [['first'], ['b', 'bad', 'c'], ['a']]
        assert [one[0] for one in found if isinstance(one, tuple)] == ['FIRST', 'A', 'B', 'C']
        assert isinstance(found[3], ValueError) and scene.turns.batches == 3

    played(story, most=3)


def test_the_first_waits_for_others_so_long():
    async def story(scene):
        tasks = [scene.ask('a'), scene.ask('b')]
        scene.go.release(1)
        await asyncio.gather(*tasks)
        assert scene.batches == [['a', 'b']]
        scene.go.release(1)
        await scene.ask('alone')  # nobody comes
        assert scene.batches[1:] == [['alone']]

    played(story, most=2, wait_s=0.05)


def test_who_has_gone_is_left_out():
    async def story(scene):
        tasks = [scene.ask('first')]
        await scene.until_it_began()
        tasks += [scene.ask('gone', alive=lambda: False), scene.ask('here')]
        scene.go.release(2)
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert scene.batches == [['first'], ['here']]
        assert str(found[1]) == 'who asked has gone'

    played(story, most=4)


def test_what_would_come_too_late_is_told_at_once():
    async def story(scene):
        scene.turns.batch_s = 1.0
        tasks = [scene.ask('first')]
        await scene.until_it_began()
        tasks.append(scene.ask('second', 1.9 + 0.2))
        await asyncio.sleep(0)
        with pytest.raises(Busy, match=r'1 questions wait, an answer would come in about 3\.0 s'):
            await scene.ask('late', 2.5)
        tasks.append(scene.ask('patient'))
        await asyncio.sleep(0)
        with pytest.raises(Busy, match='2 questions wait'):
            await scene.ask('one too many')
        scene.go.release(3)
        assert [one[0] for one in await asyncio.gather(*tasks)] == ['FIRST', 'SECOND', 'PATIENT']
        assert scene.turns.refused == 2

    played(story, most_waiting=2)


@pytest.mark.usefixtures('patient')
def test_who_is_more_urgent_does_not_wait_for_the_patient():
    async def story(scene):
        scene.turns.batch_s = 0.4
        tasks = [scene.ask('first')]
        await scene.until_it_began()
        tasks += [scene.ask(f'patient {number}') for number in range(9)]
        await asyncio.sleep(0)
        tasks.append(scene.ask('urgent', 0.9))
        await asyncio.sleep(0)
        scene.go.release(20)
        await asyncio.gather(*tasks)
        assert scene.batches[1] == ['urgent'] and scene.turns.refused == 0

    played(story)


def test_one_slow_batch_does_not_close_the_server():
    async def story(scene):
        scene.turns.batch_s = 30.0  # as it seemed
        scene.go.release(9)
        assert (await scene.ask('a', 1.0))[0] == 'A'
        assert scene.turns.batch_s < 30.0

    played(story)


def test_who_says_no_deadline_gets_a_turn_among_those_who_do():
    async def story(scene):
        scene.turns._decide = lambda asked: [one for one in asked]
        count = dict.fromkeys('abc', 0)
        done = asyncio.Event()

        async def busy(name):
            while not done.is_set():
                await scene.turns.ask(name, lambda: True, 60.0)
                count[name] += 1
        others = [asyncio.create_task(busy(name)) for name in count]
        await asyncio.sleep(0)
        for _ in range(5):
            await scene.turns.ask('no deadline', lambda: True)
        done.set()
        await asyncio.gather(*others)
        assert min(count.values()) > 0

    played(story)


def test_a_thread_that_fails_fails_all_of_the_batch_and_goes_on():
    async def story(scene):
        def broken(asked):
            raise RuntimeError('out of memory')

        scene.turns._decide = broken
        found = await asyncio.gather(scene.ask('a'), scene.ask('b'), return_exceptions=True)
        assert [str(one) for one in found] == ['out of memory'] * 2
        scene.turns._decide = scene.decide
        scene.go.release(1)
        assert (await scene.ask('c'))[0] == 'C'

    played(story, most=2, wait_s=0.01)


# A server.

@pytest.fixture(scope='module')
def served():
    from test_remote import Served
    out = Served('--checkpoint', 'demo', '--max-batch', '4', '--max-wait-ms', '200')
    yield out
    out.close()


def test_a_server_answers_several_as_it_would_one(served, monkeypatch):
    from pi0_ros.remote import metadata
    from pi0_ros.remote.wire import pack, unpack
    from test_remote import question
    from websockets.asyncio.client import connect
    asked = [question(prompt=f'take the {colour} block', **{metadata.SEED: [number, 3]})
             for number, colour in enumerate(('red', 'green', 'blue', 'red'))]

    async def all_of(each):
        async def one(words):
            async with connect(served.address, compression=None, max_size=None) as there:
                await there.recv()
                await there.send(pack(words))
                return await there.recv()
        return await asyncio.gather(*map(one, each))

    before = served.server.turns.batches
    with monkeypatch.context() as patched:
        patched.setattr(served.server.turns, '_wait_s', 30.0)  # until all four are there
        together = [unpack(one)['actions'] for one in asyncio.run(all_of(asked))]
    assert served.server.turns.batches - before == 1
    alone = [unpack(asyncio.run(all_of([one]))[0])['actions'] for one in asked]
    for one, other in zip(together, alone):
        assert np.abs(one - other).max() < 1e-5 * np.abs(other).max()
    bad = question(np.array([0.1, 0.2, 0.3, 0.4, np.nan]))
    said = asyncio.run(all_of([asked[0], bad, asked[2]]))  # what does not fit fails alone
    assert [isinstance(one, bytes) for one in said] == [True, False, True]


def test_a_server_tells_how_it_goes_and_that_it_is_busy(served):
    import urllib.request
    from pi0_ros.remote import metadata
    from pi0_ros.remote.wire import pack
    from test_remote import question
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.client import connect
    with connect(served.address, compression=None, max_size=None) as there:
        there.recv()
        there.send(pack(question()))
        assert isinstance(there.recv(timeout=20), bytes)
    served.server.turns.batch_s, served.server.turns.deciding_since = 30.0, 1.0
    with connect(served.address, compression=None, max_size=None) as there:
        there.recv()
        there.send(pack(question(**{metadata.DEADLINE: 0.5})))
        assert there.recv(timeout=10) == (
            'Busy: 0 questions wait, an answer would come in about 60.0 s: ask again later, or '
            'add a server')
        with pytest.raises(ConnectionClosed) as closed:
            there.recv(timeout=10)
        assert closed.value.rcvd.code == 1013
    served.server.turns.batch_s, served.server.turns.deciding_since = 0.0, None
    port = served.address.rpartition(':')[2]
    with urllib.request.urlopen(f'http://127.0.0.1:{port}/metrics', timeout=5) as answer:
        told = dict(line.split() for line in answer.read().decode().splitlines()
                    if not line.startswith('#'))
    assert float(told['pi0_ros_busy_total']) >= 1 and float(told['pi0_ros_answers_total']) >= 1
    assert told['pi0_ros_waiting'] == '0' and float(told['pi0_ros_batches_total']) >= 1
