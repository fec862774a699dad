# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What is asked of a chunk, by the node and by evaluations of bags; who holds the lock when."""

from dataclasses import replace
import threading

import numpy as np
from pi0_ros.control import safety
from pi0_ros.control.config import ControlConfig, SafetyConfig
from pi0_ros.control.guard import Guard
from pi0_ros.control.pilot import Pilot, Timing
from pi0_ros.control.rules import GuardRules, Watchdog
from pi0_ros.control.timing import Delays
from pi0_ros.evaluation.execution import Execution
from pi0_ros.kinematics.urdf import UrdfError
from pi0_ros.motion import limiter
from pi0_ros.motion.limits import RobotLimits, Rules, unlimited
from pi0_ros.observation.buffers import JointBuffer, LatestBuffer
from pi0_ros.observation.finding import Finding
from pi0_ros.observation.observation import Freshness, Observation, ObservationBuilder
import pytest
from support import box, chunk, MS, robot_urdf


def both(made, seen):
    """Return what the node and what an evaluation say of a chunk, a reason or ''."""
    rules = GuardRules(tracks=False)
    pilot = Pilot(('a',), box(1, -2, 2, 1.5, 5.0, 0.2, 0.3), Timing.at_rate(50.0, 0.3))
    guard = Guard(pilot, ObservationBuilder(JointBuffer(('a',)), {'c': LatestBuffer()},
                                            lambda image: image, Freshness(1, 1, 1)), rules)
    found = guard.check(made, seen, made.t_obs_ns)
    execution = Execution(('a',), ControlConfig(handover='blend'), SafetyConfig(
        joint_limits=('a: lower -2, upper 2, velocity 1.5',), position_margin=0.0,
        velocity_scale=1.0, dry_run=True), 0)
    return (found.reason if found else ''), execution.take(made, seen).refused


@pytest.mark.parametrize('check', ['check_form', 'check_age', 'check_way'])
def test_a_check_is_in_node_and_evaluation_or_in_neither(monkeypatch, check):
    made = chunk(0.001 * np.arange(50), t_obs_ns=10**12)
    seen = Observation(10**12, np.zeros(1), {}, {}, 'go')
    assert both(made, seen) == ('', '')
    monkeypatch.setattr(safety, check, lambda *given: Finding('new', 'a new check'))
    assert both(made, seen) == ('new', 'new')


@pytest.mark.parametrize('values, reason', [
    (np.full(50, np.nan), 'chunk_not_finite'), (np.full(50, 1.7e308), 'chunk_not_finite'),
    (np.full(50, -1e7), 'chunk_not_finite'), (np.full(50, 0.5), 'chunk_start'),
    (np.full(50, -0.5), 'chunk_start'), (np.linspace(0, 3, 50), 'chunk_limits'),
    (np.linspace(0, -3, 50), 'chunk_limits'), ([0] * 20 + [0.4] * 30, 'chunk_jump'),
    ([0] * 20 + [-0.4] * 30, 'chunk_jump'), ([0.1] * 50, '')])
def test_node_and_evaluation_say_the_same_of_a_chunk(values, reason):
    seen = Observation(10**12, np.zeros(1), {}, {}, 'go')
    assert both(chunk(values, t_obs_ns=10**12), seen) == (reason, reason)


def test_a_value_that_is_no_place_does_not_become_part_of_a_plan():
    """Finite and absurd, in the column of a gripper, which may jump."""
    limits = box(1, -2, 2, 1.5, 5.0)
    found = safety.check_form(chunk([0.0] * 49 + [1.7e308]), ('hand',))
    assert found.reason == 'chunk_not_finite' and '1.7e+308' in found.text
    pilot = Pilot(('hand',), limits, Timing.at_rate(50.0, 0.3))
    pilot.enable(np.zeros(1), 0)
    with pytest.raises((ValueError, ArithmeticError)):
        with np.errstate(all='ignore'):
            pilot.accept(chunk([np.inf] * 50), 0, pilot.epoch)
    assert not pilot.plan.remaining_ns(0)


def test_a_plan_is_made_without_the_lock(monkeypatch):
    pilot = Pilot(('a',), box(1, -2, 2, 1.5, 5.0), Timing.at_rate(50.0, 0.3))
    pilot.enable(np.zeros(1), 0)
    free = []

    def slow(knots, *given):
        def look():
            free.append(pilot.lock.acquire(timeout=5))
            pilot.lock.release()
        other = threading.Thread(target=look)
        other.start()
        other.join(10)
        return knots, None, False

    monkeypatch.setattr('pi0_ros.motion.splice.limit', slow)
    assert pilot.accept(chunk(0.01 * np.arange(50)), 0, pilot.epoch) is None
    assert free == [True]


def test_the_slowest_limits_that_parameters_allow_take_few_steps(monkeypatch):
    """0.001 rad/s^2: a stop from 1.5 rad/s takes 25 minutes, and is not walked."""
    pilot = Pilot(tuple('abcdefghijklmn'), box(14, -2, 2, 1.5, 0.001), Timing.at_rate(50.0, 0.3))
    pilot.enable(np.zeros(14), 0)
    steps, step = [], limiter._Walk.step
    monkeypatch.setattr(limiter._Walk, 'step', lambda *given: (steps.append(1), step(*given)))
    rising = 0.02 * np.arange(1, 51)[:, None] * np.ones(14)
    assert pilot.accept(chunk(rising), 0, pilot.epoch) is None
    assert 0 < len(steps) < 300


def test_a_plan_that_was_told_on_meanwhile_is_made_again(monkeypatch):
    from pi0_ros.control import pilot as module
    pilot = Pilot(('a',), box(1, -2, 2, 1.5, 5.0), Timing.at_rate(50.0, 0.3))
    pilot.enable(np.zeros(1), 0)
    pilot.tick(0)
    pilot.accept(chunk(0.01 * np.arange(50)), 1, pilot.epoch)
    for now in range(20, 200, 20):
        pilot.tick(now * MS)
    made, real, began = [], module.splice, []

    def late(base, given, at_ns, rules):
        began.append(at_ns)
        if not made:  # three ticks pass while it is made
            for now in (200, 220, 240):
                pilot.tick(now * MS)
        made.append(real(base, given, at_ns, rules))
        return made[-1]

    monkeypatch.setattr(module, 'splice', late)
    new = chunk(0.1 + 0.01 * np.arange(50), t_obs_ns=190 * MS)
    assert pilot.accept(new, 191 * MS, pilot.epoch) is None
    assert len(made) == 2 and began[1] > began[0] and pilot.plan.begin_ns >= 240 * MS


def test_one_owner_of_the_limits_keeps_what_is_configured():
    limits = RobotLimits(('a',), Rules(tighter={'a': {'lower': -1, 'upper': 1, 'velocity': 0.4}}))
    assert limits.now.velocity == 0.4 and not limits.now.refused
    assert limits.describe('no xml') and isinstance(limits.problem, UrdfError)
    assert limits.problem.reason == 'no_urdf' and limits.now.refused and limits.now.unknown
    assert limits.now.velocity == 0.4 and not limits.describe('no xml')
    assert limits.describe(robot_urdf(a='revolute -2 2 1')) and limits.problem is None
    assert limits.now.velocity == 0.4 and not limits.now.unknown


def test_the_watchdog_says_how_long_it_waited():
    it, rules = Watchdog(), GuardRules(hang_ns=2 * 10**9)
    assert it.hanging(10**12, 0, rules) is None and it.arming_late(10**12) is None
    it.working_since_ns = it.arming_since_ns = 10**12
    assert it.hanging(10**12 + 2 * 10**9, 0, rules) is None
    found = it.hanging(10**12 + 3 * 10**9, 0, rules)
    assert (found.reason, found.amount, found.allowed) == ('policy_hangs', 3.0, 2.0)
    assert it.hanging(10**12 + 4 * 10**9, 10**9, rules) is None  # five times what is usual
    assert it.arming_late(10**12 + 4 * 10**9) is None
    found = it.arming_late(10**12 + 6 * 10**9)
    assert (found.reason, found.amount, found.allowed) == ('arming_late', 6.0, 5.0)


@pytest.mark.parametrize('steps, counted', [(3, 3), (-4, 0), (70, 50)])
def test_an_inference_takes_between_no_step_and_the_chunk(steps, counted):
    it = Delays()
    it.measure(steps, 50, False)
    assert it.last == it.longest == counted


def test_the_joint_that_stood_is_named_and_no_other():
    moved, told = np.array([0.5, 0.0, 0.01]), np.array([0.6, 0.3, 0.2])
    found = safety.check_follows(moved, told, 0.25, box(3, -2, 2, 1.5, 5.0, 0.2, 0.3), 'abc')
    assert found.reason == 'not_following' and found.subject == 'b'


def test_a_long_plan_that_breaks_its_limits_is_followed_in_few_steps(monkeypatch):
    pilot = Pilot(('a',), box(1, -2, 2, 1.5, 5.0), Timing.at_rate(50.0, 0.3))
    pilot.enable(np.zeros(1), 0)
    steps, step = [], limiter._Walk.step
    monkeypatch.setattr(limiter._Walk, 'step', lambda *given: (steps.append(1), step(*given)))
    swinging = np.sin(np.arange(500) / 5)
    assert pilot.accept(chunk(swinging), 0, pilot.epoch) is None
    assert 100 < len(steps) < 300 and pilot.counters.slowed == 1


def test_a_robot_without_limits_is_slowed_by_none():
    pilot = Pilot(('a',), unlimited(1), Timing.at_rate(50.0, 0.3))
    pilot.enable(np.zeros(1), 0)
    assert pilot.accept(chunk(np.linspace(0, 9, 50)), 0, pilot.epoch) is None
    assert pilot.counters.slowed == 0 and pilot.counters.clamped == 0


def test_who_is_slowed_most_of_the_time_is_told_the_ceiling():
    limits = replace(unlimited(2), velocity=np.array([1.5, 0.6]))
    told = safety.ceiling(3.0, limits, ('a', 'b'), 40, 21)
    assert 'slow 21 of 40 plans' in told and "'b' goes at most 0.60, an action of 0.20" in told
    assert not safety.ceiling(3.0, limits, ('a', 'b'), 40, 20)
    assert not safety.ceiling(3.0, limits, ('a', 'b'), 19, 19), 'too few to say so'
    gripper = replace(limits, alone=np.array([False, True]))
    assert "'a' goes at most 1.50" in safety.ceiling(3.0, gripper, ('a', 'b'), 40, 40)
