# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""A person takes over, on a synthetic clock: engaged, led, silent, wrong, given back."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
from pi0_ros.control.leading import Leading
from pi0_ros.control.states import State
from pi0_ros.motion.handover import STRATEGIES
import pytest
from rig import ACCELERATION, NAMES, REACH, Rig, VELOCITY
from support import MS

OVER = 1.02


class Led(Rig):
    """A robot with a leader, who is heard every 20 ms, and a switch that is pressed as often."""

    def __init__(self, mode='relative', while_led='infer', **given_):
        super().__init__(**given_)
        self.leading = Leading(self.guard, mode, while_led)
        self.pressed: bool | None = None
        self.leader = None  # a function from seconds to positions; None: silent
        self.leaders, self.leader_names, self.stamped = 1, NAMES, lambda now: 0
        self.found = []

    def _node(self):
        super()._node()
        if self.steady % 20 == 0:
            steady_ns = self.steady * MS
            if self.pressed is not None:
                self.leading.press(self.pressed, self.now * MS, steady_ns)
            if self.leader is not None:
                self.found.append(self.leading.lead(
                    self.leader_names, self.leader(self.steady / 1e3), self.now * MS, steady_ns,
                    self.stamped(self.now) * MS, self.leaders))
            self.leading.watch(steady_ns)

    def take_over(self, leader=None, ms=1000):
        """Engage, with a leader who stands elsewhere if none is given."""
        self.pressed = True
        self.leader = leader or (lambda seconds: np.array([0.7, -0.4]))
        return self.run(ms)

    def judge(self, since=0):
        """Look at everything that the controller was made to command."""
        path = np.array(self.path[since:])
        speeds = np.abs(np.diff(path[::5], axis=0)) / 0.005
        assert speeds.max(initial=0) <= OVER * VELOCITY
        assert self.accelerations(since).max(initial=0) <= OVER * ACCELERATION
        assert np.abs(path).max() <= REACH + 1e-4
        assert not self.rejected

    def reasons(self):
        """Return the reasons for which the leader was not followed."""
        return {finding.reason for finding in self.found if finding}


def swing(seconds):
    return np.array([0.3 * np.sin(2 * seconds), 0.2 * np.cos(seconds)])


@pytest.mark.parametrize('strategy', STRATEGIES)
def test_engaged_the_robot_rests_where_it_is_and_then_goes_as_the_leader_goes(strategy):
    rig = Led(strategy=strategy).start()
    rig.take_over()
    stood = rig.path[-1].copy()
    assert rig.leading.engaged and not rig.moves()
    began = rig.steady / 1e3
    rig.leader = lambda seconds: np.array([0.7, -0.4]) + [0.2 * np.sin(seconds - began), 0.0]
    rig.run(1500)
    np.testing.assert_allclose(rig.path[-1], stood + [0.2 * np.sin(1.5), 0.0], atol=0.03)
    rig.judge()
    assert rig.guard.fault is None and rig.pilot.enabled


def test_the_policy_decides_on_and_nothing_of_it_is_executed():
    rig = Led().start()
    merged = rig.pilot.counters.merged
    rig.take_over()
    rested, decided = rig.path[-1].copy(), []
    inner = rig.guard.accept
    rig.guard.accept = lambda *given_: decided.append(inner(*given_))
    rig.run(1500)
    assert len(decided) >= 3 and {one.text for one in decided} == {'a person leads the robot'}
    np.testing.assert_allclose(rig.path[-1], rested, atol=1e-3)
    assert rig.pilot.counters.merged == merged  # which counts the policy's


def test_given_back_the_policy_goes_on_from_where_the_robot_is():
    rig = Led().start()
    rig.take_over(swing, 2000)
    rig.pressed = False
    rig.run(40)
    assert not rig.leading.engaged
    rig.pressed = None
    rig.run(1500)
    assert rig.moves() and rig.pilot.state is State.MOVING
    assert rig.pilot.plan.instruction == 'go'
    rig.judge()


def test_absolute_the_robot_comes_only_to_a_leader_who_is_near():
    rig = Led('absolute').start()
    rig.take_over(lambda seconds: np.array([1.5, 1.5]))
    assert rig.leading.problem.reason == 'chunk_start' and not rig.moves()
    here = rig.path[-1].copy()
    rig.leader = lambda seconds: here + 0.15
    rig.run(1000)
    np.testing.assert_allclose(rig.path[-1], here + 0.15, atol=1e-3)
    rig.judge()


def test_relative_a_leader_who_stands_anywhere_moves_nothing():
    rig = Led().start()
    rig.take_over(lambda seconds: np.array([100.0, -50.0]))
    assert not rig.moves() and rig.leading.problem is None
    rig.judge()


def test_a_switch_that_is_silent_holds_and_goes_on_when_it_is_pressed_again():
    rig = Led().start()
    rig.take_over(swing)
    rig.pressed = None
    rig.run(900)
    assert rig.leading.problem.reason == 'takeover_silent' and not rig.moves()
    assert rig.leading.engaged and rig.pilot.enabled  # the policy does not go on by itself
    held = rig.path[-1].copy()
    rig.leader = lambda seconds: swing(seconds) + 1.0  # it went elsewhere meanwhile
    rig.pressed = True
    rig.run(100)
    assert np.abs(rig.path[-1] - held).max() < 0.1
    rig.run(800)
    assert rig.moves() and rig.leading.problem is None
    rig.judge()


def test_a_leader_who_is_silent_leaves_a_robot_at_rest():
    rig = Led().start()
    rig.take_over(swing)
    rig.leader = None
    rig.run(1000)
    assert not rig.moves() and rig.leading.engaged and rig.guard.fault is None
    rig.judge()


@pytest.mark.parametrize('wrong, words', [
    ({'leader': lambda seconds: np.array([np.nan, 0.0])}, 'not finite'),
    ({'leader': lambda seconds: np.array([0.1])}, '2 names and 1 positions'),
    ({'leader_names': ('x', 'y')}, 'has x, y, expected some of a, b'),
    ({'leader_names': ()}, '0 names and 2 positions'),
    ({'stamped': lambda now: now - 700}, 'stamped 0.70 s ago'),
    ({'stamped': lambda now: now + 9000}, 's ahead'),
    ({'stamped': lambda now: -5}, 's ago'),
    ({'leaders': 2}, 'two leaders')])
def test_a_leader_who_is_wrong_holds_the_robot_and_is_named(wrong, words):
    rig = Led().start()
    rig.take_over(swing)
    before = {name: getattr(rig, name) for name in wrong}
    for name, value in wrong.items():
        setattr(rig, name, value)
    rig.run(800)
    assert words in str(rig.leading.problem) and not rig.moves()
    assert rig.leading.problem.reason == 'takeover_leader' and rig.guard.fault is None
    for name, value in before.items():
        setattr(rig, name, value)
    rig.run(800)
    assert rig.moves() and rig.leading.problem is None
    rig.judge()


def test_a_leader_who_jumps_is_not_followed():
    rig = Led().start()
    rig.take_over(swing)
    rig.leader = lambda seconds: swing(seconds) + (1.0 if int(10 * seconds) % 2 else 0.0)
    rig.run(1500)
    rig.judge()
    assert 'chunk_start' in rig.reasons() and rig.guard.fault is None


def test_a_leader_beyond_the_limits_leads_no_further_than_these():
    rig = Led().start()
    began = rig.steady / 1e3
    rig.take_over(lambda seconds: np.array([0.4 * (seconds - began), 0.0]), 8000)
    assert rig.path[-1][0] > REACH - 0.01
    rig.judge()


def test_a_leader_of_some_joints_leaves_the_others():
    rig = Led().start()
    rig.leader_names = ('b',)
    began = rig.steady / 1e3
    rig.take_over(lambda seconds: np.array([0.2 * np.sin(seconds - began)]))
    a = rig.path[-1][0]
    rig.run(700)
    assert rig.moves() and abs(rig.path[-1][0] - a) < 1e-3
    rig.judge()


def test_every_stop_goes_before_the_leader():
    for stop in (lambda rig: rig.guard.press_stop(True),
                 lambda rig: rig.guard.disarm(rig.leading.problem or _finding())):
        rig = Led().start()
        rig.take_over(swing)
        stop(rig)
        rig.run(1000)
        assert not rig.leading.engaged and not rig.pilot.enabled and rig.silent()
        rig.judge()
    rig = Led().start()
    rig.take_over(swing)
    rig.feeds = {'joints'}
    rig.run(800)
    assert not rig.moves() and rig.guard.stopped_by.reason == 'camera_silent'


def _finding():
    from pi0_ros.observation.finding import Finding
    return Finding('operator', 'disarmed by the operator', 'operator')


def test_nobody_leads_a_robot_that_is_not_armed():
    """Nor one that is armed while the switch is held: it must be let go first."""
    rig = Led()
    rig.run(200)
    rig.take_over(swing, 500)
    assert not rig.leading.engaged and not rig.commands
    assert rig.arm() is None
    rig.run(500)
    assert not rig.leading.engaged
    for let_go in (False, None):
        rig.pressed = None  # a hiccup of the network is no letting go
        rig.run(400)
        rig.pressed = True
        rig.run(100)
        assert not rig.leading.engaged
        rig.pressed = let_go
        rig.run(100 if let_go is False else 1100)
        rig.pressed = True
        rig.run(100)
        assert rig.leading.engaged
        rig.guard.disarm(_finding())
        rig.run(800)
        assert not rig.leading.engaged and rig.arm() is None
    rig.run(500)
    assert not rig.leading.engaged


def test_paused_the_policy_is_not_asked():
    rig = Led(while_led='pause').start()
    rig.take_over(swing)
    assert not rig.leading.infers
    rig.pressed = False
    rig.run(40)
    assert rig.leading.infers


@pytest.mark.parametrize('after_ms', range(0, 40, 4))
def test_a_leader_who_does_not_move_moves_nothing_but_to_a_stop(after_ms):
    """Whenever it is pressed: the robot goes no further than a stop takes it."""
    rig, stops = Led().start(), Rig().start()
    for one in (rig, stops):
        one.run(after_ms)
    here = rig.path[-1].copy()
    stops.guard.disarm(_finding())
    stops.run(1500)
    rig.take_over(ms=1500)
    assert rig.leading.problem is None
    far = np.abs(rig.path[-1] - here)
    assert (far <= np.abs(stops.path[-1] - here) + 0.06).all(), far
    rig.judge()


def test_joints_that_are_heard_later_begin_where_they_are():
    rig = Led().start()
    rig.leader_names = ('a',)
    rig.take_over(lambda seconds: np.array([0.5]))
    stood = rig.path[-1].copy()
    rig.leader_names = ('b',)
    rig.leader = lambda seconds: np.array([rig.path[-1][1] + 0.19])
    at = rig.path[-1][1] + 0.19
    rig.leader = lambda seconds: np.array([at])
    rig.run(800)
    np.testing.assert_allclose(rig.path[-1], stood, atol=2e-3)


def test_an_arm_that_sags_does_not_sink_with_every_hold():
    rig = Led(tells=True)
    rig.sag = np.array([0.04, 0.04])
    rig.start()
    rig.leader_names = ('b',)
    rig.take_over(lambda seconds: np.array([0.5]))
    stood = rig.path[-1].copy()
    for _ in range(6):
        rig.pressed = None
        rig.run(500)
        rig.pressed = True
        rig.run(500)
    np.testing.assert_allclose(rig.path[-1], stood, atol=0.01)


def test_a_leader_who_was_silent_begins_anew():
    rig = Led().start()
    rig.take_over(lambda seconds: np.array([0.5, 0.5]))
    stood, rig.leader = rig.path[-1].copy(), None
    rig.run(2000)
    assert str(rig.leading.problem) == 'the leader is silent: holding'
    rig.leader = lambda seconds: np.array([0.65, 0.35])
    rig.run(1000)
    assert rig.leading.problem is None
    np.testing.assert_allclose(rig.path[-1], stood, atol=2e-3)


@pytest.mark.parametrize('mode', ['relative', 'absolute'])
def test_a_gripper_stays_until_the_leaders_is_where_it_is(mode):
    """Nothing is let go because somebody took over."""
    rig = Led(mode)
    rig.pilot.limits = replace(rig.pilot.limits, alone=np.array([False, True]),
                               jump=np.array([0.2, np.inf]))
    rig.start()
    rig.take_over(lambda seconds: np.array([rig.path[-1][0], 1.8]))
    closed = rig.path[-1][1]
    rig.run(500)
    assert abs(rig.path[-1][1] - closed) < 1e-3
    begun = rig.steady / 1e3
    rig.leader = lambda seconds: np.array([
        rig.path[-1][0], 1.8 - 3.6 * min(1.0, (seconds - begun) / 3)])
    rig.run(4000)  # it passes where the gripper is, and takes it along
    assert rig.path[-1][1] < closed - 1.0
    rig.judge()


@pytest.mark.parametrize('away', [0.1, -0.1])
def test_a_gripper_that_is_caught_moves_as_the_leader_moves_and_not_before(away):
    """What is held is not let go because the leader's gripper is open a little further."""
    rig = Led()
    rig.pilot.limits = replace(rig.pilot.limits, alone=np.array([False, True]),
                               jump=np.array([0.2, np.inf]))
    rig.start()
    rig.take_over(None)
    rig.run(600)
    closed = rig.path[-1][1]
    rig.leader = lambda seconds: np.array([rig.path[-1][0], closed + away])
    rig.run(600)
    assert rig.leading.problem is None
    assert abs(rig.path[-1][1] - closed) < 1e-3
    begun = rig.steady / 1e3
    rig.leader = lambda seconds: np.array([
        rig.path[-1][0], closed + away * (1 - 0.5 * min(1.0, seconds - begun))])
    rig.run(1500)  # it comes nearer: the gripper waits for it
    assert abs(rig.path[-1][1] - closed) < 1e-3
    rig.leader = lambda seconds: np.array([
        rig.path[-1][0], closed - away * min(1.0, max(0.0, seconds - begun - 1.5))])
    rig.run(2000)  # and passes: they are one
    assert abs(rig.path[-1][1] - (closed - away)) < 2e-3
    rig.judge()


def test_a_gripper_without_limits_is_caught_where_it_is_passed():
    rig = Led()
    lower, upper = (np.array([one[0], sign * np.inf]) for one, sign in (
        (rig.pilot.limits.lower, -1), (rig.pilot.limits.upper, 1)))
    rig.pilot.limits = replace(rig.pilot.limits, alone=np.array([False, True]), lower=lower,
                               upper=upper, jump=np.array([0.2, np.inf]))
    rig.start()
    rig.take_over(None)
    rig.run(600)
    closed = rig.path[-1][1]
    rig.leader = lambda seconds: np.array([rig.path[-1][0], closed + 0.05])
    rig.run(600)
    assert rig.leading.problem is None
    assert abs(rig.path[-1][1] - closed) < 1e-3


def test_failures_that_are_not_in_a_row_are_no_fault():
    rig = Led().start()
    rig.take_over(swing)
    for _ in range(4):
        rig.policy = RuntimeError('cosmic ray')
        rig.run(150)
        rig.policy = 'sine'
        rig.run(1200)
    assert rig.guard.fault is None and rig.leading.engaged


def test_given_back_the_first_chunk_is_asked_whether_it_is_like_training():
    rig = Led().start()
    rig.take_over(swing)
    rig.said, rig.pressed = {'unlike': 'the tool is where training never saw it'}, False
    rig.run(1500)
    assert rig.guard.stopped_by.reason == 'unlike_training' and not rig.pilot.enabled


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1), st.sampled_from(STRATEGIES), st.sampled_from(
    ('relative', 'absolute')), st.booleans())
def test_whatever_a_person_does_the_limits_are_kept(seed, strategy, mode, tells):
    dice = np.random.default_rng(seed)
    rig = Led(mode, strategy=strategy, tells=tells).start()
    for _ in range(12):
        kind = dice.integers(8)
        if kind < 3:
            rig.pressed = (True, False, None)[kind]
        elif kind == 3:
            rig.leader = None
        elif kind == 4:
            rig.leader = lambda seconds, at=dice.normal(0, 1, 2): at
        elif kind == 5:
            rig.leader = lambda seconds: dice.normal(0, 3, 2)
        elif kind == 6:
            rig.leader = lambda seconds, w=dice.uniform(0.5, 9): 0.5 * np.sin(
                w * np.array([seconds, seconds + 1]))
        else:
            rig.late_ms = int(dice.integers(0, 8))
        rig.run(int(dice.integers(20, 400)))
    rig.judge()
    rig.pressed, rig.leader = None, None
    rig.run(400)
    rig.guard.press_stop(True)
    rig.run(1500)
    assert rig.silent() and not rig.moves()


def test_whoever_lets_go_gives_back_also_where_two_switches_publish():
    """The program that pressed it hangs, and a person says false from a terminal."""
    rig = Led().start()
    rig.take_over(swing)
    rig.leading.press(False, rig.now * MS, rig.steady * MS, switches=2)
    assert not rig.leading.engaged


def test_a_robot_that_was_armed_again_at_once_is_led_by_nobody():
    """Before anything has looked whether it is armed; the switch is still held."""
    rig = Led().start()
    rig.take_over()
    rig.guard.disarm(_finding())
    watch, rig.leading.watch, rig.pressed, rig.leader = rig.leading.watch, print, None, None
    rig.run(600)
    assert rig.leading.engaged and rig.guard.arm(rig.now * MS) is None and rig.pilot.enabled
    rig.leading.watch, rig.pressed = watch, True
    rig.leading.press(True, rig.now * MS, rig.steady * MS)
    assert not rig.leading.engaged and not rig.guard.led
    rig.run(500)
    assert not rig.leading.engaged
    rig.pressed = False
    rig.run(40)
    rig.pressed = True
    rig.run(40)
    assert rig.leading.engaged


def test_an_empty_instruction_does_not_slow_a_person():
    rig = Led().start()
    rig.take_over(swing)
    rig.run(1000)
    epoch = rig.pilot.epoch
    rig.guard.hold('no_instruction')
    assert rig.pilot.epoch == epoch and rig.guard.stopped_by is None
