# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
What a controller does that the node did not tell it to, and where motions begin after that.

On the rig: the real controller's behaviour, its state told or not. What it is made to command is
judged, at every millisecond.
"""

from types import SimpleNamespace

import numpy as np
from pi0_ros.control.controllers import Controller, Report
from pi0_ros.control.following import first_piece_ns
from pi0_ros.control.states import State
from pi0_ros.observation.finding import Finding
from pi0_ros.sim.controller import Settings
import pytest
from rig import ACCELERATION, NAMES, Rig, VELOCITY
from support import box, chunk, MS

OVER = 1.02


def commanded(rig, since):
    """Return the largest velocity and acceleration commanded since, as shares of the limits."""
    path = np.array(rig.path[since:])
    return (np.abs(np.diff(path, axis=0)).max() * 1e3 / VELOCITY,
            np.abs(np.diff(path, 2, axis=0)).max() * 1e6 / ACCELERATION)


class Slow(Rig):
    """A policy that goes somewhere at 0.2 rad/s, and stays there."""

    goal, step = 0.0, 0.004

    def decide(self, seen):
        at = (self.pilot.told(np.array([seen.t_obs_ns]))[0] if self.pilot.enabled
              else seen.state)
        rows = []
        for _ in range(50):
            at = at + np.clip(np.array([self.goal, 0.0]) - at, -self.step, self.step)
            rows.append(at)
        return chunk(rows, t_obs_ns=seen.t_obs_ns)


@pytest.mark.parametrize('tells', [True, False])
@pytest.mark.parametrize('kind', ['humble', 'jazzy'])
def test_a_controller_that_is_switched_off_is_noticed_before_it_is_switched_on(tells, kind):
    rig = Slow(settings=Settings(kind, update_rate=1000.0, from_command_on_activation=False),
               tells=tells)
    rig.run(100)
    assert rig.arm() is None
    rig.goal = 0.27
    rig.run(200)
    rig.controller.deactivate()
    rig.blocked = rig.measured().copy()
    rig.run(3000)
    assert not rig.pilot.enabled and not rig.guard.fault
    assert rig.guard.stopped_by.reason == ('controller_silent' if tells else 'not_following')
    rig.controller.activate(rig.measured())
    rig.blocked, since = None, len(rig.path)
    rig.run(500)
    assert rig.arm() is None
    rig.run(3000)
    assert rig.path[-1][0] == pytest.approx(0.27, abs=0.01)
    assert max(commanded(rig, since)) <= OVER


def test_drives_that_stand_are_noticed_and_the_plan_comes_back_to_the_joints():
    rig = Slow()
    rig.run(100)
    assert rig.arm() is None
    rig.run(500)
    rig.blocked, rig.goal = rig.measured().copy(), 0.27
    rig.run(3000)
    assert rig.guard.stopped_by.reason == 'not_following' and not rig.pilot.enabled
    assert rig.controller.commanded[0] == pytest.approx(rig.blocked[0], abs=0.02)
    rig.blocked, since = None, len(rig.path)
    rig.run(300)
    assert max(commanded(rig, since)) <= OVER


@pytest.mark.parametrize('tells', [True, False])
@pytest.mark.parametrize('sag', [0.01, 0.05, 0.12])
def test_an_arm_that_is_held_where_it_sagged_to_begins_softly(sag, tells):
    """Its controller took the measured joints for its goal, node and endpoint are the same."""
    rig = Rig(tells=tells)
    rig.sag = np.array([sag, -sag / 2])
    rig.run(100)
    assert rig.arm() is None
    rig.run(2000)
    rig.pilot.disable()
    rig.run(1500)
    rig.blocked = rig.measured().copy()  # friction: the joints stay
    rig.controller.hold(rig.blocked)
    rig.run(600)
    since = len(rig.path)
    assert rig.arm() is None
    rig.blocked, rig.sag = None, np.zeros(2)
    rig.run(2500)
    assert rig.moves() and rig.pilot.enabled
    assert max(commanded(rig, since)) <= OVER


@pytest.mark.parametrize('sag', [0.01, 0.12])
@pytest.mark.parametrize('kind', ['humble', 'jazzy'])
@pytest.mark.parametrize('tells', [True, False])
def test_an_arm_that_sags_begins_its_first_motion_softly(sag, kind, tells):
    rig = Rig(settings=Settings(kind, update_rate=1000.0), tells=tells)
    rig.sag = np.array([sag, sag])
    rig.run(200)
    assert rig.arm() is None
    rig.run(3000)
    assert rig.moves() and max(commanded(rig, 0)) <= OVER


@pytest.mark.parametrize('messages', [1, 2, 10])
def test_what_a_robot_was_told_that_did_not_move_says_nothing_of_where_it_is_held(messages):
    """Its controller is off in the first piece, and on again where it was; the arm sags to it."""
    rig = Rig(policy=lambda values: 0 * values + values[0])
    rig.sag = np.full(2, 0.1)
    rig.run(100)
    assert rig.arm() is None
    while not rig.commands:
        rig.run(1)
    rig.controller.deactivate()
    while len(rig.commands) < messages:
        rig.run(1)
    rig.pilot.disable()
    rig.run(3000)
    rig.controller.activate(rig.measured())
    rig.run(600)
    since, rig.policy = len(rig.path), 'sine'
    assert rig.arm() is None
    rig.run(3000)
    assert rig.moves() and max(commanded(rig, since)) <= OVER


@pytest.mark.parametrize('told_ms', [760, 800, 840])
def test_a_robot_that_sags_the_way_it_was_told_has_not_gone_it(told_ms):
    """Its controller is off meanwhile: what it moves when that is on again is its own weight."""
    rig = Rig(policy=lambda values: 0 * values + values[0] - 0.12,
              settings=Settings('humble', update_rate=1000.0))
    rig.sag = np.full(2, 0.12)
    rig.run(100)
    assert rig.arm() is None
    while not rig.commands:
        rig.run(1)
    rig.controller.deactivate()
    rig.run(told_ms)
    rig.pilot.disable()
    rig.run(3000)
    rig.controller.activate(rig.measured())
    rig.run(600)
    since, rig.policy = len(rig.path), 'sine'
    assert rig.arm() is None
    rig.run(3000)
    assert rig.moves() and max(commanded(rig, since)) <= OVER


def test_a_robot_that_came_where_it_was_told_begins_sooner():
    rig = Rig().start()
    for _ in range(3):
        rig.pilot.disable()
        rig.run(1500)
        assert rig.arm() is None
        rig.run(2000)
    lengths = [window.times_ns[0] for _, window in rig.commands if len(window.times_ns) == 1]
    assert len(lengths) == 4 and max(lengths[1:]) < 0.6 * lengths[0]


def test_a_chunk_that_is_stopped_before_it_is_told_says_nothing_either():
    rig = Rig(infer_ms=70)
    rig.sag = np.full(2, 0.1)
    rig.run(100)
    assert rig.arm() is None
    while not rig.pilot.speaking:
        rig.run(1)
    assert not rig.commands
    rig.pilot.stop()
    rig.run(3000)
    assert rig.moves() and max(commanded(rig, 0)) <= OVER


def test_a_fault_before_anything_was_told_moves_nothing():
    """Where the controller holds an arm that sags is not known: there is no way back from it."""
    rig = Rig(policy='hangs')
    rig.sag = np.full(2, 0.1)
    rig.run(100)
    assert rig.arm() is None
    rig.run(50)
    rig.guard.latch(Finding('tracking', 'somebody is in the way'), rig.measured())
    rig.run(500)
    assert not rig.commands and rig.pilot.state is State.FAULTED


def test_somebody_who_moves_the_robot_while_it_settles_makes_no_jump():
    rig = Rig().start()
    rig.instruction = ''
    rig.guard.hold('no_instruction')
    while rig.pilot.speaking:
        rig.run(1)
    at = rig.measured().copy()
    rig.run(50)
    rig.blocked = at + [0.25, 0.0]
    rig.run(2000)
    rig.controller.hold(rig.blocked)
    rig.run(2)
    rig.blocked, rig.instruction, since = None, 'go', len(rig.path)
    rig.run(3000)
    assert max(commanded(rig, since)) <= OVER


@pytest.mark.parametrize('tells', [True, False])
def test_a_tracking_fault_leads_back_to_where_the_robot_is(tells):
    rig = Rig(policy=lambda values: values * 0 + 0.01 * np.arange(1, 51)[:, None] + values[0],
              tells=tells).start()
    rig.blocked, since = rig.measured().copy(), len(rig.path)
    rig.run(4000)
    assert rig.guard.stopped_by.reason in ('tracking', 'not_following')
    assert np.abs(rig.controller.commanded - rig.blocked).max() < 0.02
    assert max(commanded(rig, since)) <= OVER and rig.pilot.state in (
        State.FAULTED, State.DISARMED)


def test_a_stop_at_a_late_tick_still_leads_back_to_where_the_robot_is():
    rig = Rig().start()
    rig.node_dead, since = True, len(rig.path)
    rig.run(150)
    rig.node_dead, back = False, rig.path[-1] - [0.1, 0.0]
    rig.guard.latch(Finding('tracking', 'it does not follow', 'a'), back)
    rig.run(3000)
    assert rig.pilot.counters.late_ticks == 1 and rig.silent()
    np.testing.assert_allclose(rig.path[-1], back, atol=1e-3)
    assert max(commanded(rig, since)) <= OVER


@pytest.mark.parametrize('speed', [0.8, 0.5, 0.1])
def test_a_controller_at_part_of_its_speed_is_no_fault(speed):
    """The robot does what it is told, slower: a UR whose slider is below 100 %."""
    rig = Rig(tells=True)
    rig.controller.speed_scaling = speed
    rig.run(100)
    assert rig.arm() is None
    rig.run(8000)
    assert rig.guard.fault is None and rig.pilot.enabled and rig.pilot.scale.factor == speed
    told = rig.pilot.told(np.array([rig.now * MS]))[0]
    assert np.abs(told - rig.path[-1]).max() < 0.02 and rig.moves(1000)
    assert commanded(rig, 0)[0] <= OVER
    rig.controller.speed_scaling = 0.0  # paused: it holds
    rig.run(100)
    at = rig.path[-1].copy()
    rig.run(2000)
    np.testing.assert_allclose(rig.path[-1], at, atol=0.01)
    assert rig.guard.fault is None and rig.pilot.enabled
    rig.controller.speed_scaling = 1.0
    assert rig.run(2000).moves()


@pytest.mark.parametrize('infer_ms', [60, 300])
@pytest.mark.parametrize('instruction', ['go', ''])
def test_an_arm_that_sags_stands_armed_as_long_as_it_likes(infer_ms, instruction):
    rig = Rig(tells=True, infer_ms=infer_ms)
    rig.sag, rig.instruction = np.array([0.12, 0.1]), instruction
    rig.run(200)
    assert rig.arm() is None
    rig.run(1500)
    assert rig.pilot.enabled and rig.guard.stopped_by is None
    rig.instruction = 'go'
    rig.run(3000)
    assert rig.moves() and max(commanded(rig, 0)) <= OVER


@pytest.mark.parametrize('after_ms', [250, 600, 1200])
@pytest.mark.parametrize('what', ['stop', 'disarm', 'camera', 'tracking'])
def test_whatever_stops_a_robot_that_is_held_does_not_leave_it_leaning(what, after_ms):
    rig = Rig(policy=lambda values: values[0] + 0.01 * np.arange(1, 51)[:, None]).start()
    rig.blocked, since = rig.measured().copy(), len(rig.path)
    rig.run(after_ms)
    if what == 'stop':
        rig.guard.press_stop(True)
    elif what == 'disarm':
        rig.pilot.disable()
    elif what == 'camera':
        rig.feeds.discard('images')
    rig.run(4000)
    assert np.abs(rig.controller.commanded - rig.blocked).max() < 0.31
    assert not rig.pilot.speaking and max(commanded(rig, since)) <= OVER


@pytest.mark.parametrize('period_ms', [20, 50, 100])
def test_a_state_that_is_told_seldom_begins_no_motion_with_a_jump(period_ms):
    rig = Rig(tells=True, strategy='synchronous', infer_ms=20)
    hear, count = rig.guard.controllers.each[0].hear, []

    def seldom(report):
        count.append(1)
        if len(count) * 20 % period_ms == 0:
            hear(report)

    rig.guard.controllers.each[0].hear = seldom
    rig.run(300)
    assert rig.arm() is None
    rig.run(5000)
    assert rig.moves(1500) and rig.pilot.enabled
    assert max(commanded(rig, 0)) <= OVER


def test_a_stop_in_a_first_piece_lasts_until_that_is_over():
    rig = Rig()
    rig.controller.hold(np.array([0.12, 0.0]))
    rig.sag = np.array([0.12, 0.0])
    rig.run(200)
    assert rig.arm() is None
    rig.run(250)
    assert len(rig.commands) == 1  # the first piece
    rig.pilot.disable()
    rig.run(60)
    assert rig.pilot.state is State.STOPPING
    rig.run(800)
    at = rig.path[-1].copy()
    assert rig.pilot.state is State.DISARMED and not rig.run(500).moves()
    np.testing.assert_allclose(rig.path[-1], at)


def test_a_chunk_that_comes_in_a_first_piece_skips_nothing():
    arm = Rig()
    arm.run(200)
    assert arm.arm() is None
    arm.run(300)
    assert not arm.guard.wants_chunk(arm.now * MS) and len(arm.commands) == 1


@pytest.mark.parametrize('said', [np.nan, -0.1, 3.0])
def test_a_speed_that_cannot_be_is_named_and_stops(said):
    rig = Rig().start()
    rig.guard.controllers.each[0].hear_scaling(said, rig.now * MS)
    rig.run(900)
    assert not rig.moves() and rig.guard.stopped_by.reason == 'speed_scaling'
    assert rig.pilot.enabled and rig.guard.fault is None
    for _ in range(30):
        rig.guard.controllers.each[0].hear_scaling(1.0, rig.now * MS)
        rig.run(50)
    assert rig.moves()
    rig.run(2500)  # told no more
    assert not rig.moves() and rig.guard.stopped_by.reason == 'speed_scaling'


def test_a_controller_that_holds_what_nobody_told_it_is_noticed():
    rig = Rig(tells=True).start()
    rig.controller.deactivate()
    rig.controller.activate(rig.measured() + [0.4, 0.0])
    rig.controller.accept = lambda message, now_ns: None  # somebody else's word counts
    rig.controller.hold(rig.measured() + [0.4, 0.0])
    rig.run(600)
    assert rig.guard.stopped_by.reason in ('controller_departed', 'tracking')
    assert not rig.pilot.enabled


def test_a_node_that_heard_nothing_for_a_while_takes_no_controller_for_silent():
    """As when its machine was busy: which message comes first afterwards is chance."""
    rig = Rig(tells=True).start()
    rig.tells, rig.feeds = False, {'images'}
    rig.run(600)
    assert rig.guard.stopped_by.reason == 'joints_silent'
    rig.feeds, commands = {'joints', 'images'}, len(rig.commands)
    rig.run(150)
    assert len(rig.commands) == commands  # it stands until that is known
    rig.tells = True
    rig.run(900)
    assert rig.pilot.enabled and rig.moves() and not rig.guard.fault
    rig.tells, rig.feeds = False, {'images'}
    rig.run(600)
    rig.feeds = {'joints', 'images'}
    rig.run(300)  # it is silent indeed
    assert rig.guard.stopped_by.reason == 'controller_silent' and not rig.pilot.enabled


def test_joint_states_that_come_and_go_let_no_robot_move_whose_controller_is_silent():
    rig = Rig(tells=True).start()
    rig.tells, rig.feeds = False, {'images'}
    rig.run(600)
    commands = len(rig.commands)
    for _ in range(10):
        rig.feeds = {'joints', 'images'}
        rig.run(60)
        rig.feeds = {'images'}
        rig.run(120)
    assert len(rig.commands) == commands


def test_a_controller_that_stops_to_tell_its_state_disarms_and_is_not_armed():
    rig = Rig(tells=True).start()
    rig.tells = False
    rig.run(1500)
    assert rig.guard.stopped_by.reason == 'controller_silent' and not rig.pilot.enabled
    assert rig.arm().reason == 'controller_silent'
    rig.tells = True
    rig.run(100)
    assert rig.arm() is None


def heard(**change):
    """Return a controller that has told of itself."""
    out = Controller(NAMES)
    given = {'stamp_ns': 10**12, 'received_ns': 10**12, 'joint_names': NAMES,
             'reference': np.zeros(2), 'speed_scaling': 1.0}
    out.hear(Report(**{**given, **change}))
    return out


@pytest.mark.parametrize('change, reason', [
    ({'stamp_ns': 10**12 + 5 * 10**8}, 'controller_clock'),
    ({'stamp_ns': 10**12 - 5 * 10**8}, 'controller_clock'),
    ({'joint_names': ('a', 'c')}, 'controller_joints'),
    ({'joint_names': ('a', 'b', 'c')}, 'controller_joints'),
    ({'speed_scaling': 3.0}, 'speed_scaling'), ({}, None)])
def test_what_a_controller_tells_is_checked(change, reason):
    found = heard(**change).problem(10**12)
    assert (found and found.reason) == reason
    rig = Rig()
    rig.guard.controllers.each[0] = heard(**change)
    rig.run(200)
    problem = rig.guard.controllers.problem(10**12)
    assert (problem is None) == (reason is None)


def test_another_order_of_joints_is_the_same_controller():
    assert heard(joint_names=('b', 'a')).problem(10**12) is None


def test_a_first_piece_is_long_enough_for_the_limits():
    limits = box(2, -2, 2, 1.5, 5.0)
    for away in (0.001, 0.05, 0.3, 1.0):
        seconds = first_piece_ns(limits, np.array([away, 0.0])) / 1e9
        assert 2 * 6 * away / seconds**2 <= 5.0 and 1.5 * away / seconds <= 1.5
        assert seconds >= 0.1


def test_a_joint_armed_outside_its_limits_does_not_come_back_there():
    rig = Rig()
    rig.controller.hold(np.array([2.09, 0.0]))
    rig.run(50)
    goal = [1.5]

    def decide(seen):
        at = (rig.pilot.told(np.array([seen.t_obs_ns]))[0] if rig.pilot.enabled else seen.state)
        rows = []
        for _ in range(50):
            at = at + np.clip(np.array([goal[0], 0.0]) - at, -0.02, 0.02)
            rows.append(at)
        return chunk(rows, t_obs_ns=seen.t_obs_ns)

    rig.decide = decide
    rig.run(100)
    assert rig.arm() is None
    rig.run(3000)
    assert rig.path[-1][0] == pytest.approx(1.5, abs=0.02)
    goal[0] = 2.15
    rig.run(3000)
    assert rig.path[-1][0] <= 2.0 + 1e-3


def test_a_reset_clears_what_it_was_asked_about_and_nothing_else():
    from pi0_ros.observation.finding import Finding
    rig = Rig().start()
    rig.guard.latch(Finding('policy_failed', 'one'))
    asked = rig.guard.fault
    rig.run(1000)
    rig.guard.fault = Finding('tracking', 'two')  # latched by another thread meanwhile
    assert rig.guard.reset(0, asked).reason == 'tracking' and rig.guard.fault
    assert rig.guard.reset(0, rig.guard.fault) is None and rig.pilot.state is State.DISARMED


def test_an_arming_that_takes_too_long_ends_and_comes_to_nothing():
    rig = Rig()
    rig.run(200)
    rig.guard.begin_arming(rig.steady * MS)
    assert rig.pilot.state is State.ARMING
    rig.run(5100)
    assert rig.pilot.state is State.DISARMED and rig.guard.stopped_by.reason == 'arming_late'


def test_a_robot_is_taken_to_stand_half_a_second_after_its_last_command():
    rig = Rig().start()
    rig.instruction = ''
    rig.guard.hold('no_instruction')
    while rig.pilot.speaking:
        rig.run(1)
    rig.run(400)
    assert rig.guard._follower._rest is None  # it may still come to rest
    rig.run(200)
    np.testing.assert_allclose(rig.guard._follower._rest, rig.measured(), atol=1e-6)


def test_a_driver_that_rounds_its_speed_up_is_at_full_speed():
    rig = Rig().start()
    rig.guard.controllers.each[0].hear_scaling(1.004, rig.now * MS)
    rig.run(100)
    assert rig.pilot.scale.factor == 1.0 and rig.pilot.enabled


def test_a_finding_says_by_how_much():
    """Programs read the numbers, people the sentence."""
    report = Report(10**12, 10**12, NAMES, np.zeros(2), 3.0)
    it = Controller(NAMES)
    it.hear(report)
    found = it.problem(10**12)
    assert (found.reason, found.amount, found.allowed) == ('speed_scaling', 3.0, 1.0)
    it.hear(Report(10**12 + 400 * MS, 10**12, NAMES, np.zeros(2)))
    found = it.problem(10**12)
    assert (found.reason, found.amount, found.allowed) == ('controller_clock', 0.4, 0.1)
    assert '0.40 s ahead of this one' in found.text
    it.hear(Report(10**12 - 400 * MS, 10**12, NAMES, np.zeros(2)))
    assert '0.40 s behind this one' in it.problem(10**12).text


def test_one_report_is_no_news_after_a_fifth_of_a_second():
    it = Controller(NAMES)
    it.hear(Report(10**12, 10**12, NAMES, np.zeros(2)))
    assert it.reference(10**12 + 199 * MS) and it.silent(10**12 + 199 * MS) is None
    assert it.reference(10**12 + 201 * MS) is None
    assert it.silent(10**12 + 201 * MS).reason == 'controller_silent'


def test_a_robot_that_creeps_is_expected_to_follow_within_a_few_seconds():
    """At 0.025 rad/s it is told to go a fifth of the tracking limit in two and a half seconds."""
    rig = Slow()
    rig.step = 0.0005
    rig.run(100)
    assert rig.arm() is None
    rig.goal = 0.5
    rig.run(2000)
    rig.blocked = rig.measured().copy()
    rig.run(2000)
    assert rig.pilot.enabled
    rig.run(2000)
    assert not rig.pilot.enabled and rig.guard.stopped_by.reason == 'not_following'


def test_nobody_is_armed_while_a_first_piece_of_an_earlier_motion_is_on():
    rig = Rig()
    rig.sag = np.full(2, 0.1)
    rig.run(100)
    assert rig.arm() is None
    while not rig.commands:
        rig.run(1)
    (_, piece), = rig.commands
    # As long as the limits ask for 0.12 rad, and for the delivery of the message.
    least_ns = first_piece_ns(rig.pilot.limits, np.full(2, 0.12)) + rig.pilot.timing.lead_ns
    assert piece.times_ns[0] >= least_ns
    rig.pilot.disable()
    rig.pilot.end_stop()  # as when the controller is seen to be gone
    assert rig.pilot.state is State.DISARMED and rig.arm().reason == 'stopping'
    assert rig.guard.arm(rig.now * MS).reason == 'stopping'
    rig.run(1500)
    assert rig.arm() is None


def test_a_follower_whose_name_is_discovered_later_has_not_gone():
    """Right after the start a subscription is known before the node that has it."""
    from pi0_ros.ros.links.followers import Followers

    class Topic:
        topic, names = '/t', {'_NODE_NAME_UNKNOWN_': frozenset([b'1'])}
        group = SimpleNamespace(name='', joints=('a',))

        def followers(self):
            return self.names

        def endpoints(self):
            return frozenset().union(*self.names.values())

        def others(self):
            return []

    class Commands(list):

        def problem(self):
            return None

    topic = Topic()
    followers = Followers(Commands([topic]))
    followers.remember()
    topic.names = {'/arm': frozenset([b'1'])}
    assert followers.problem() is None
    topic.names = {'/recorder': frozenset([b'2'])}
    assert followers.problem().reason == 'controller_gone'
