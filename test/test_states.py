# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The states: what may follow what, whatever is asked in whatever order, from two threads."""

import threading

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule, RuleBasedStateMachine
import numpy as np
from pi0_ros.control.guard import Guard
from pi0_ros.control.pilot import ClockJump, Pilot, Timing
from pi0_ros.control.rules import GuardRules
from pi0_ros.control.states import ALLOWED, ARMED, Machine, State
from pi0_ros.observation.buffers import JointBuffer, LatestBuffer
from pi0_ros.observation.finding import Finding
from pi0_ros.observation.observation import Freshness, Observation, ObservationBuilder
import pytest
from support import box, chunk, DATA, MS

LIMITS = box(1, -2.0, 2.0, 1.5, 5.0, 0.5, 0.3)


@pytest.mark.parametrize('state', State)
@pytest.mark.parametrize('to', State)
def test_only_what_the_table_allows_may_follow(state, to):
    machine = Machine()
    machine.state = state
    if to is state or to in ALLOWED[state]:
        machine.change(to)
        assert machine.state is to
    else:
        with pytest.raises(RuntimeError, match=f'{state.value} is not followed by {to.value}'):
            machine.change(to)
        assert machine.state is state


def test_a_stop_never_ends_in_more_than_it_did_before():
    machine = Machine()
    machine.state = State.MOVING
    for to, after in ((State.STANDING, State.STANDING), (State.FAULTED, State.FAULTED),
                      (State.DISARMED, State.FAULTED), (State.STANDING, State.FAULTED)):
        machine.end_in(to)
        assert machine.state is State.STOPPING and machine.after is after
    machine.rested()
    assert machine.state is State.FAULTED


def test_every_state_can_be_left_and_reached():
    for state in State:
        assert ALLOWED[state] and any(state in others for others in ALLOWED.values())


def test_the_diagram_of_the_docs_is_the_table():
    text = (DATA.parents[1] / 'docs' / 'safety.md').read_text()
    block = text.split('```mermaid')[1].split('```')[0]
    drawn = {tuple(word.strip() for word in line.split(':')[0].split('-->'))
             for line in block.splitlines() if '-->' in line and '[*]' not in line}
    assert drawn == {(state.value, to.value) for state, others in ALLOWED.items()
                     for to in others}


class Lives(RuleBasedStateMachine):
    """One robot, and everything that may be asked of it."""

    @initialize()
    def begin(self):
        self.now, self.errors = 10**12, []
        self.joints, self.camera = JointBuffer(('a',)), LatestBuffer()
        builder = ObservationBuilder(self.joints, {'c': self.camera}, lambda image: image,
                                     Freshness(10**9, 10**9, 10**9))
        self.pilot = Pilot(('a',), LIMITS, Timing.at_rate(50.0, 0.3))
        self.guard = Guard(self.pilot, builder, GuardRules(tracks=False))
        change = self.pilot.machine.change

        def checked(to):
            state = self.pilot.machine.state
            assert to is state or to in ALLOWED[state]
            change(to)

        self.pilot.machine.change = checked
        self.measure()

    def measure(self):
        self.joints.put(['a'], self.pilot.told(np.array([self.now]))[0], self.now, self.now)
        self.camera.put(0, self.now, self.now)

    def elsewhere(self, call, other):
        """Run the call in another thread, or here."""
        if not other:
            return call()
        thread = threading.Thread(target=call)
        thread.start()
        thread.join(5.0)
        assert not thread.is_alive(), 'a call did not come back'

    @rule(other=st.booleans())
    def arms(self, other):
        def arm():
            refusal = self.guard.arm(self.now)
            if refusal is None:
                assert self.pilot.enabled and self.guard.fault is None
        self.elsewhere(arm, other)

    @rule()
    def begins_to_arm(self):
        if self.pilot.state is State.DISARMED:
            self.guard.begin_arming(self.now)

    @rule(other=st.booleans())
    def disarms(self, other):
        self.elsewhere(lambda: self.guard.disarm(Finding('operator', 'disarmed')), other)
        assert not self.pilot.enabled

    @rule(other=st.booleans())
    def stops(self, other):
        self.elsewhere(self.pilot.stop, other)
        assert self.pilot.state is not State.MOVING

    @rule(back=st.booleans())
    def faults(self, back):
        self.guard.latch(Finding('tracking', 'x'), np.zeros(1) if back else None)
        assert not self.pilot.enabled

    @rule()
    def resets(self):
        before = self.guard.fault
        assert self.guard.reset(self.now, before) is None
        assert not self.pilot.enabled or before is None

    @rule()
    def has_a_new_control_thread(self):
        self.guard.disarm(Finding('inactive', 'x'))
        self.pilot.forget_time()
        assert self.pilot.state in (State.DISARMED, State.FAULTED)

    @rule(late=st.integers(0, 400), step=st.floats(-0.02, 0.02), old=st.booleans())
    def chunk_comes(self, late, step, old):
        t_obs = self.now - late * MS
        place = self.pilot.told(np.array([t_obs]))[0]
        made = chunk(place + step * np.arange(1, 51), t_obs_ns=t_obs)
        seen = Observation(t_obs, place, {}, {}, 'go')
        armed = self.pilot.enabled
        found = self.guard.accept(made, seen, self.now, self.pilot.epoch - old)
        assert found is not None or armed

    @rule(ms=st.integers(1, 130))
    def ticks(self, ms):
        self.now += ms * MS
        self.measure()
        before = self.pilot.state
        told, wants = self.guard.tick(self.now)
        assert told is None or before in (State.MOVING, State.STOPPING)
        assert told is None or told.finite
        assert not wants or self.pilot.enabled

    @rule(seconds=st.sampled_from([-3, 5]))
    def clock_jumps(self, seconds):
        if self.pilot._tick_ns is None:
            return
        self.now += seconds * 10**9
        self.measure()
        with pytest.raises(ClockJump):
            self.guard.tick(self.now)
        assert not self.pilot.enabled and not self.pilot.speaking

    @invariant()
    def nothing_is_armed_in_a_fault(self):
        if self.guard.fault:
            assert not self.pilot.enabled
            assert self.pilot.state in (State.FAULTED, State.STOPPING)
        if self.pilot.state in ARMED:
            assert self.guard.fault is None

    def teardown(self):
        self.guard.disarm(Finding('operator', 'end'))
        for _ in range(200):
            self.now += 20 * MS
            self.measure()
            self.guard.tick(self.now)
        assert not self.pilot.speaking


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
