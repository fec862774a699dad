# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Bounds of the control core, just before and just after: each states what a number is for."""

import re

import numpy as np
from pi0_ros.control import safety
from pi0_ros.control.controllers import Controller, Controllers, Report, SILENT_NS
from pi0_ros.control.following import AGREE_NS, Follower, RESTS_NS
from pi0_ros.control.guard import Guard, IMAGE_PROBLEM_NS, RETRY_NS
from pi0_ros.control.pilot import ClockJump, Pilot, Stance, Timing
from pi0_ros.control.rules import GuardRules
from pi0_ros.control.states import State
from pi0_ros.control.timing import TimeScale
from pi0_ros.motion.limits import unlimited
from pi0_ros.motion.splice import splice
from pi0_ros.observation.buffers import JointBuffer, LatestBuffer
from pi0_ros.observation.finding import Finding
from pi0_ros.observation.observation import Freshness, ObservationBuilder
import pytest
from support import box, chunk, MS

NAMES = ('a', 'b')
NOW = 10**12
STOPS = Finding('stop', 'somebody stops it')


def stopped(pilot, now):
    """Tick until a pilot has come to rest; return when."""
    for _ in range(100):
        now += 20 * MS
        pilot.tick(now)
        if not pilot.speaking:
            return now
    raise AssertionError('it never came to rest')


class Scene:
    """A guard whose robot stands at 0, and is measured there."""

    def __init__(self, timing=None, decode=lambda image: image):
        limits = box(2, -2, 2, 1.5, 5.0, 0.5, 0.3)
        self.joints, self.camera = JointBuffer(NAMES), LatestBuffer()
        builder = ObservationBuilder(self.joints, {'front': self.camera}, decode,
                                     Freshness(10**9, 10**9, 10**9))
        self.pilot = Pilot(NAMES, limits, timing or Timing.at_rate(50.0, 0.3))
        self.guard = Guard(self.pilot, builder, GuardRules())
        self.now, self.at = NOW, np.zeros(2)

    def tick(self, ms=20, times=1):
        out = None
        for _ in range(times):
            self.now += ms * MS
            self.joints.put(list(NAMES), self.at, self.now, self.now)
            self.camera.put(0, self.now, self.now)
            out = self.guard.tick(self.now)[0]
        return out

    def report(self, reference=(0.0, 0.0), stamp=None, received=None, scaling=1.0):
        received = self.now if received is None else received
        self.guard.controllers.each[0].hear(Report(
            received if stamp is None else stamp, received, NAMES, np.array(reference, float),
            scaling))

    def armed(self):
        self.tick(times=40)
        assert self.guard.arm(self.now) is None
        return self

    def moving(self, values=None, dt_ns=20 * MS):
        self.armed()
        values = np.linspace([0, 0], [0.3, 0], 50) if values is None else values
        assert self.pilot.accept(chunk(values, self.now, dt_ns), self.now,
                                 self.pilot.epoch) is None
        self.tick()
        assert self.pilot.state is State.MOVING
        return self


# ---- time that is scaled ----

def test_time_that_was_slow_is_remembered_for_times_in_the_past():
    scale = TimeScale()
    scale.use(0.5)  # before the first tick nothing has passed
    assert scale.advance(0) == 0
    for at in (100, 200, 300):
        scale.advance(at)
    scale.use(1.0)
    scale.advance(400)
    wanted, times = [-50, 0, 50, 75, 100, 150, 250, 350], [-50, 0, 100, 150, 200, 300, 400, 500]
    assert [scale.at(time) for time in times] == wanted
    assert scale.of(np.array(times)).tolist() == wanted
    scale.use(0.0)
    scale.advance(600)
    assert scale.at(600) == scale.at(400) == 250 and scale.at(450) == 250


@pytest.mark.parametrize('said, used', [(0.0, 0.0), (0.5, 0.5), (1.0, 1.0), (1.003, 1.0),
                                        (3.0, 0.7), (-0.1, 0.7), (np.nan, 0.7)])
def test_the_plan_passes_as_slowly_as_the_controller_says_where_that_can_be(said, used):
    scene = Scene().armed()
    scene.guard.controllers.each[0].hear_scaling(0.7, scene.now)
    scene.tick()
    scene.guard.controllers.each[0].hear_scaling(said, scene.now)
    scene.tick()
    assert scene.pilot.scale.factor == used
    problem = scene.guard.controllers.problem(scene.now)
    assert (problem is None) == (used == said or said == 1.003)
    if said == 3.0:
        assert 'scaled to 300 %' in problem.text


def test_a_speed_that_is_told_no_more_says_for_how_long():
    controller = Controller(NAMES)
    controller.hear_scaling(1.0, NOW)
    assert controller.problem(NOW + 1000 * MS) is None
    assert 'not been told for 1.5 s' in controller.problem(NOW + 1500 * MS).text


# ---- ticks ----

@pytest.mark.parametrize('rate, coasts, late_ms', [
    (50.0, True, 100), (10.0, True, 150), (50.0, False, 40), (10.0, False, 200)])
def test_how_late_a_tick_may_be(rate, coasts, late_ms):
    timing = Timing.at_rate(rate, 0.3, coasts=coasts)
    assert timing.late_ns == late_ms * MS and timing.lead_ns == (25 * MS if coasts else 0)
    scene = Scene(timing).moving()
    scene.tick(late_ms)
    assert scene.pilot.counters.late_ticks == 0
    scene.tick(late_ms + 1)
    assert scene.pilot.counters.late_ticks == 1


@pytest.mark.parametrize('rate, gap_ms, jumps', [
    (50.0, 1050, False), (50.0, 1070, True), (1.0, 3900, False), (1.0, 4100, True),
    (50.0, -990, False), (50.0, -1010, True)])
def test_a_clock_jump_is_a_second_and_three_periods(rate, gap_ms, jumps):
    pilot = Pilot(NAMES, unlimited(2), Timing.at_rate(rate, 0.3))
    pilot.tick(NOW)
    if not jumps:
        assert pilot.tick(NOW + gap_ms * MS) is None
        return
    with pytest.raises(ClockJump, match=re.escape(f'jumped by {gap_ms / 1e3:+.2f} s')):
        pilot.tick(NOW + gap_ms * MS)


def test_an_inference_may_take_half_as_long_again_and_two_ticks_at_most_a_tenth_of_a_second():
    """A chunk that came 10 steps late: 300 ms for inference, and 40 ms at 50 Hz, 100 at 10."""
    for rate, slack_ms in ((50.0, 40), (10.0, 100)):
        scene = Scene(Timing.at_rate(rate, 0.3)).moving()
        pilot, now = scene.pilot, scene.now
        pilot.accept(chunk(np.zeros((50, 2)), now - 160 * MS), now, pilot.epoch)
        took_ns = (pilot.delay + 1 - 1) * 20 * MS
        needed_ns = 3 * took_ns // 2 + slack_ms * MS
        left_ns = pilot.plan.before_stop_ns(now)
        assert pilot.lasts(now, left_ns - needed_ns - 1)
        assert not pilot.lasts(now, left_ns - needed_ns)
        scene.pilot.stop()
        stopped(pilot, now)
        assert not pilot.lasts(now, -10**12)  # what stands lasts for nothing


def test_a_first_piece_that_is_told_late_is_given_its_whole_time():
    scene = Scene().armed()
    pilot = scene.pilot
    assert pilot.accept(chunk(np.linspace([0, 0], [0.3, 0], 50), scene.now), scene.now,
                        pilot.epoch, Stance(np.zeros(2), 400 * MS)) is None
    scene.tick(90)  # late, not too late
    assert pilot.waits(scene.now + 400 * MS - 1) and not pilot.waits(scene.now + 400 * MS)
    assert pilot.plan.begin_ns == scene.now + 400 * MS + pilot.timing.lead_ns


# ---- states ----

def test_limits_of_an_armed_robot_stay():
    scene, others = Scene(), box(2, -1, 1, 1.0, 4.0, 0.5, 0.3)
    scene.pilot.take_limits(others)
    assert scene.pilot.limits is others
    scene.armed()
    scene.pilot.take_limits(unlimited(2))
    assert scene.pilot.limits is others


def test_a_fault_that_is_reset_while_the_robot_stops_ends_disarmed():
    scene = Scene().moving()
    scene.guard.latch(STOPS)
    assert scene.pilot.state is State.STOPPING
    assert scene.guard.reset(scene.now) is None
    scene.tick(times=60)
    assert scene.pilot.state is State.DISARMED
    scene.moving()
    scene.guard.disarm(STOPS)
    scene.pilot.reset()  # which changes nothing of a stop that ends disarmed anyway
    scene.tick(times=60)
    assert scene.pilot.state is State.DISARMED


def test_nobody_is_armed_without_joints_and_arming_again_is_no_error():
    scene = Scene()
    assert scene.guard.arm(NOW).reason == 'cleared'
    scene.armed()
    assert scene.guard.arm(scene.now) is None


def test_joints_that_were_forgotten_stop_a_robot_and_nothing_breaks():
    scene = Scene().moving()
    scene.joints.clear()
    scene.guard.tick(scene.now + 20 * MS)
    assert scene.guard.stopped_by.reason == 'joints_missing' and scene.pilot.enabled


def test_an_image_that_cannot_be_read_is_news_for_half_a_second_and_tried_again_after_a_tenth():
    def unreadable(image):
        raise ValueError('image is torn')

    scene = Scene(decode=unreadable).armed()
    now = scene.now
    assert scene.guard.image_problem(now) is None
    assert scene.guard.observe(now, 'go').reason == 'camera_unreadable'
    assert scene.guard.image_problem(now + IMAGE_PROBLEM_NS).reason == 'camera_unreadable'
    assert scene.guard.image_problem(now + IMAGE_PROBLEM_NS + 1) is None
    assert not scene.guard.wants_chunk(now + RETRY_NS - 1)
    assert scene.guard.wants_chunk(now + RETRY_NS)


# ---- findings ----

def test_a_period_that_is_none_is_told_in_seconds():
    found = safety.check_form(chunk(np.zeros((3, 2)), dt_ns=-20 * MS), NAMES)
    assert found.amount == pytest.approx(-0.02)


@pytest.mark.parametrize('check', [
    lambda apart, limits: safety.check_reference(apart, np.zeros((1, 2)), limits, NAMES),
    lambda apart, limits: safety.check_tracking(apart, np.zeros((1, 2)), limits, NAMES),
    lambda apart, limits: safety.check_rest(apart, np.zeros(2), limits, NAMES)])
def test_the_joint_that_is_named_is_that_which_is_furthest_beyond_what_it_may(check):
    """Joint b is further away and may be: a is what is wrong."""
    limits = box(2, -2, 2, 1.5, 5.0, 0.5, 0.3)
    limits.tracking[1] = 3.0
    assert check(np.array([0.5, 0.55]), limits).subject == 'a'


# ---- what a controller says ----

def test_a_controller_that_holds_something_else_is_believed_after_a_tenth_of_a_second():
    scene = Scene()
    scene.report()
    scene.tick()
    follower = scene.guard._follower
    scene.report((0.07, 0.0))  # more than a fifth of the tracking limit
    assert follower.departed(scene.now) is None
    scene.report((0.07, 0.0))
    assert follower.departed(scene.now + AGREE_NS - 1) is None
    assert follower.departed(scene.now + AGREE_NS).reason == 'controller_departed'
    scene.report((0.05, 0.0))
    assert follower.departed(scene.now + AGREE_NS) is None
    scene.report((0.07, 0.0))
    assert follower.departed(scene.now + AGREE_NS) is None  # it counts anew


def test_a_report_without_a_stamp_is_of_now():
    scene = Scene()
    scene.tick()
    scene.report((0.07, 0.0), stamp=0)
    assert scene.guard._follower.departed(scene.now) is None
    assert scene.guard._follower.departed(scene.now + AGREE_NS).reason == 'controller_departed'


@pytest.mark.parametrize('held, refused', [(0.29, False), (0.31, True)])
def test_a_robot_that_is_held_where_it_is_not_is_not_armed(held, refused):
    scene = Scene()
    scene.tick(times=40)
    scene.report((held, 0.0))
    found = scene.guard.why_not(scene.now, None)
    assert (found is not None and found.reason == 'controller_departed') == refused


def test_a_controller_that_tells_its_state_seldom_may_be_silent_for_five_periods():
    controller = Controller(NAMES)
    for number in range(8):
        controller.hear(Report(NOW, NOW + 100 * MS * number, NAMES, np.zeros(2)))
    last = NOW + 700 * MS
    assert controller.reference(last + 500 * MS) and not controller.silent(last + 500 * MS)
    assert not controller.reference(last + 501 * MS)
    assert 'has not told its state for 0.60 s' in controller.silent(last + 600 * MS).text
    often = Controller(NAMES)
    often.hear(Report(NOW, NOW, NAMES, np.zeros(2)))
    assert often.reference(NOW + SILENT_NS) and not often.reference(NOW + SILENT_NS + 1)


def test_what_a_controller_holds_counts_only_from_when_it_is_at_rest():
    """Before that it is where it was told to be, whatever it says."""
    scene = Scene().moving()
    scene.pilot.disable()
    end = stopped(scene.pilot, scene.now)
    scene.guard._follower.note_rest()
    scene.guard._follower._spoke_ns = end
    told = scene.guard._follower._told
    rests = end + scene.pilot.timing.lead_ns + RESTS_NS
    scene.report((0.01, 0.0), stamp=rests - 1, received=rests)
    np.testing.assert_array_equal(scene.guard._follower._held(rests), told)
    scene.report((0.01, 0.0), stamp=rests, received=rests)
    np.testing.assert_array_equal(scene.guard._follower._held(rests), [0.01, 0.0])


# ---- whether the robot follows ----

class Told:
    """A pilot that is told to move at a constant speed; nothing else is asked of it."""

    def __init__(self, speed):
        self.limits, self.joint_names = box(2, -9, 9, 1.5, 5.0, 0.5, 0.3), NAMES
        self._speed = speed

    def told(self, times_ns):
        return np.outer((np.asarray(times_ns) - NOW) / 1e9, [self._speed, 0.0])


@pytest.mark.parametrize('speed, after_s', [(3.0, 0.32), (0.13, 0.76), (0.06, 1.5),
                                            (0.035, 2.01)])
def test_a_joint_that_stands_is_noticed_in_the_shortest_time_that_it_should_have_moved_in(
        speed, after_s):
    """
    By more than a fifth of the tracking limit, 0.06, but for the last 0.3 s; five ticks later.

    Looked at are the last 0.5, 1 and 3 s, each once half of it is known: 3 rad/s are seen in the
    first, 0.06 in the last, and then at once.
    """
    follower = Follower(Told(speed), Controllers(NAMES))
    for number in range(1, 200):
        at = NOW + number * 20 * MS
        if follower.frozen(at, np.zeros(2)):
            break
    else:
        raise AssertionError('nobody noticed')
    assert after_s <= number * 0.02 <= after_s + 0.15


def test_a_joint_that_stands_after_a_long_way_is_noticed_as_soon():
    follower = Follower(Told(0.13), Controllers(NAMES))
    stands = 601  # more than it keeps of the past
    for number in range(1, stands + 100):
        at = NOW + number * 20 * MS
        if follower.frozen(at, np.array([0.13 * 0.02 * min(number, stands), 0.0])):
            break
    assert 0.6 <= (number - stands) * 0.02 <= 1.1


def test_a_joint_that_lags_by_up_to_a_third_of_a_second_follows():
    follower = Follower(Told(1.2), Controllers(NAMES))
    for number in range(1, 100):
        at = NOW + number * 20 * MS
        behind = np.array([1.2 * (number * 0.02 - 0.5), 0.0])
        assert follower.tracking(at, behind, at, 0) is None  # 0.2 s more is 0.24, 0.3 allowed
    further = np.array([1.2 * (number * 0.02 - 0.56), 0.0])
    assert follower.tracking(at, further, at, 0).reason == 'tracking'
    ahead = np.array([1.2 * (number * 0.02 + 0.26), 0.0])
    assert follower.tracking(at, ahead, at, 0).reason == 'tracking'


def test_the_watchdog_waits_five_times_as_long_as_usual():
    scene = Scene()
    usual = 1000 * MS
    scene.guard.begin(0)
    allowed = max(scene.guard.rules.hang_ns, 5 * usual)
    assert allowed == 5 * usual
    scene.guard.watch(allowed, usual)
    assert scene.guard.fault is None
    scene.guard.watch(allowed + 1, usual)
    assert scene.guard.fault.reason == 'policy_hangs'


def test_a_robot_that_is_disarmed_far_behind_its_stop_is_led_back_and_does_not_lean():
    """It is held at 0 while it is told to move; the stop would end 0.33 rad away, allowed 0.3."""
    scene = Scene().moving(np.linspace([0, 0], [0.5, 0], 50))
    while scene.pilot.told(np.array([scene.now]))[0, 0] < 0.26:
        scene.tick()
    scene.pilot.disable()
    assert not scene.pilot.turned
    for _ in range(60):
        scene.tick()
        if not scene.pilot.speaking:
            break
    assert scene.guard.fault is None and scene.pilot.turned
    np.testing.assert_allclose(scene.pilot.plan.rest, scene.at, atol=1e-6)


@pytest.mark.parametrize('age_ms, lag_ms, departed', [
    (0, 280, False), (250, 280, False), (250, 450, True)])
def test_what_a_controller_holds_is_compared_with_what_it_was_told_at_its_stamp(
        age_ms, lag_ms, departed):
    scene = Scene().moving(np.linspace([0, 0], [1.2, 0], 50))
    for _ in range(42):
        scene.at = scene.pilot.told(np.array([scene.now]))[0]
        scene.tick()
    follower, stamp = scene.guard._follower, scene.now - age_ms * MS

    def told(at):
        return scene.pilot.told(np.array([at]))[0]

    found = []
    for at in (scene.now, scene.now + AGREE_NS):
        scene.report(told(stamp - lag_ms * MS), stamp=stamp if age_ms else 0, received=scene.now)
        found.append(follower.departed(at if age_ms else scene.now))
    assert found[0] is None and (found[1] is not None) == departed


def test_a_plan_is_made_three_times_at_most_while_ticks_pass(monkeypatch):
    scene, made = Scene().moving(), []

    def slow(*given):
        made.append(given)
        scene.tick()  # meanwhile the control thread tells on
        scene.pilot._plan = scene.pilot._plan.later(0)
        return splice(*given)

    monkeypatch.setattr('pi0_ros.control.pilot.splice', slow)
    dropped = scene.pilot.accept(chunk(np.zeros((50, 2)), scene.now), scene.now,
                                 scene.pilot.epoch)
    assert dropped == 'the plan was told on while the chunk came' and len(made) == 3


@pytest.mark.parametrize('ticks, tries', [(0, 1), (1, 2), (2, 2), (3, 2)])
def test_a_plan_that_takes_ticks_to_make_is_made_for_so_many_ticks_later(
        monkeypatch, ticks, tries):
    """As one that the limits change from end to end does, on a machine with other work."""
    scene, made = Scene().moving(), []

    def slow(*given):
        made.append(given)
        for _ in range(ticks):
            scene.tick()
        return splice(*given)

    monkeypatch.setattr('pi0_ros.control.pilot.splice', slow)
    assert scene.pilot.accept(chunk(np.full((80, 2), 0.1), scene.now), scene.now,
                              scene.pilot.epoch) is None
    assert len(made) == tries and not scene.pilot.counters.dropped
    period = scene.pilot.timing.period_ns
    if ticks:
        assert scene.pilot.plan.begin_ns >= scene.now + scene.pilot.timing.lead_ns
    places = [scene.pilot.told(np.array([scene.now]))[0]]
    for _ in range(40):
        scene.tick()
        places.append(scene.pilot.told(np.array([scene.now]))[0])
    assert np.abs(np.diff(places, 2, axis=0)).max() / (period / 1e9)**2 < 6.0  # no step


def test_a_motion_begins_where_the_controller_holds_the_robot():
    scene = Scene().armed()
    holds = np.array([0.1, -0.05])
    assert scene.pilot.accept(chunk(np.tile(holds, (50, 1)), scene.now), scene.now,
                              scene.pilot.epoch, Stance(holds)) is None
    scene.tick(times=3)
    np.testing.assert_allclose(scene.pilot.told(np.array([scene.now]))[0], holds, atol=1e-9)


def test_a_chunk_that_was_decided_before_a_tick_changes_nothing_of_what_that_told():
    scene = Scene().moving()
    before, told_ns = scene.now - 200 * MS, scene.now
    assert scene.pilot.accept(chunk(np.full((50, 2), 0.1), scene.now - 10 * MS), before,
                              scene.pilot.epoch) is None
    assert scene.pilot.plan.begin_ns >= told_ns + 20 * MS + scene.pilot.timing.lead_ns


def test_a_clock_jump_is_why_an_armed_robot_was_stopped_and_no_other():
    for prepare, reason in ((Scene.moving, 'clock_jump'), (lambda scene: scene.tick(), None)):
        scene = Scene()
        prepare(scene)
        with pytest.raises(ClockJump):
            scene.tick(5000)
        assert (scene.guard.stopped_by and scene.guard.stopped_by.reason) == reason
    scene = Scene().moving()
    scene.guard.latch(STOPS)
    with pytest.raises(ClockJump):
        scene.tick(5000)
    assert scene.guard.stopped_by is STOPS


# ---- inputs ----

@pytest.mark.parametrize('change, text, amount, allowed', [
    ({'image_age': 301}, "camera 'front' is silent: its newest image is 0.30 s old, allowed are "
     '0.30 s', 0.301, 0.3),
    ({'image_age': 180, 'image_stamp': -160},
     "camera 'front' is silent: its newest image is 0.18 s old and 0.16 s behind the joint "
     'states, allowed are 0.15 s', 0.16, 0.15),
    ({'image_stamp': -160}, "camera 'front' and the joint states are 0.16 s apart, allowed are "
     '0.15 s: check their clocks', 0.16, 0.15),
    ({'image_stamp': 160, 'joint_stamp': 100}, "camera 'front' is stamped 0.16 s in the future: "
     'check the clocks', 0.16, 0.15),
    ({'joint_stamp': -101}, 'joint states of a, b are 0.10 s old, allowed are 0.10 s', 0.101, 0.1),
    ({'joint_stamp': 160}, 'joint states of a, b are stamped 0.16 s in the future: check the '
     'clocks', 0.16, 0.15),
    ({'image_age': 299}, None, 0, 0), ({'image_stamp': -149}, None, 0, 0),
    ({'image_stamp': 149, 'joint_stamp': 10}, None, 0, 0), ({'joint_stamp': -99}, None, 0, 0),
    ({'joint_stamp': 149}, None, 0, 0)])
def test_what_is_wrong_with_an_input_is_told_in_seconds(change, text, amount, allowed):
    joints, camera = JointBuffer(NAMES), LatestBuffer()
    builder = ObservationBuilder(joints, {'front': camera}, lambda image: image,
                                 Freshness(100 * MS, 300 * MS, 150 * MS))
    given = {'image_age': 0, 'image_stamp': 0, 'joint_stamp': 0} | change
    joints.put(list(NAMES), np.zeros(2), NOW + given['joint_stamp'] * MS, NOW)
    camera.put(0, NOW + given['image_stamp'] * MS, NOW - given['image_age'] * MS)
    found = builder.check(NOW)
    assert (found and found.text) == text
    if found:
        assert (found.amount, found.allowed) == pytest.approx((amount, allowed))


def test_a_finding_without_numbers_has_none():
    assert (STOPS.amount, STOPS.allowed) == (0.0, 0.0)


def test_a_camera_with_a_clock_of_its_own_comes_and_is_not_silent():
    joints, camera = JointBuffer(NAMES), LatestBuffer()
    builder = ObservationBuilder(joints, {'front': camera}, lambda image: image,
                                 Freshness(100 * MS, 300 * MS, 150 * MS))
    for number in range(20):
        now = NOW + 33 * MS * number
        joints.put(list(NAMES), np.zeros(2), now, now)
        camera.put(0, now - 3600 * 10**9, now)
    found = builder.check(now)
    assert found.reason == 'camera_skew' and 'comes, but its images are stamped 3600.0 s ago' in (
        found.text) and "'ignore_stamps'" in found.text
    assert (found.amount, found.allowed) == pytest.approx((3600.0, 0.3))
    for behind, reason in ((1.1, 'camera_skew'), (0.9, 'camera_silent')):  # more than a second
        camera.clear()
        for number in range(20):
            now += 33 * MS
            joints.put(list(NAMES), np.zeros(2), now, now)
            camera.put(0, now - round(behind * 1e9), now)
        assert builder.check(now).reason == reason
    for number in range(20):  # a driver that sends its last image again and again has no clock
        now += 100 * MS
        joints.put(list(NAMES), np.zeros(2), now, now)
        camera.put(0, NOW, now)
    assert builder.check(now).reason == 'camera_silent'


def test_joint_states_of_another_clock_and_of_other_names_are_called_that():
    joints = JointBuffer(NAMES)
    builder = ObservationBuilder(joints, {'front': LatestBuffer()}, lambda image: image,
                                 Freshness(100 * MS, 300 * MS, 150 * MS))
    joints.put(['robot1/a', 'robot1/b'], np.zeros(2), NOW, NOW)
    assert builder.check(NOW).text == ('no joint state yet for a, b: the joint states have '
                                       'robot1/a, robot1/b')
    joints.put(list(NAMES), np.zeros(2), 5 * 10**9, NOW)
    found = builder.check(NOW)
    assert found.reason == 'joints_silent' and 'come, but are stamped 995.0 s ago' in found.text
    assert "'use_sim_time'" in found.text
    assert (found.amount, found.allowed) == pytest.approx((995.0, 0.1))


def test_of_many_foreign_joints_some_are_named():
    joints = JointBuffer(NAMES)
    builder = ObservationBuilder(joints, {'front': LatestBuffer()}, lambda image: image,
                                 Freshness(100 * MS, 300 * MS, 150 * MS))
    for number in range(40):
        joints.put([f'j{number}'], np.zeros(1), NOW, NOW)
    assert builder.check(NOW).text.endswith('have ' + ', '.join(f'j{n}' for n in range(8)))
    assert len(joints.heard) == 20
