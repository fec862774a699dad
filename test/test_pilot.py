# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What is published, and when nothing is: windows, first pieces, stops, silence."""

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
from pi0_ros.control.following import first_piece_ns
from pi0_ros.control.pilot import ClockJump, Pilot, Stance, Timing
from pi0_ros.control.states import State
from pi0_ros.motion.limits import unlimited
from pi0_ros.motion.plan import Plan
from pi0_ros.motion.spline import cubic
from pi0_ros.motion.stops import stop, way
from pi0_ros.motion.trajectory import first_piece, window
from pi0_ros.ros.links.conversions import trajectory_message
from pi0_ros.sim.controller import Settings, TrajectoryController, TrajectoryMessage
import pytest
from support import box, chunk, command_problem, MS

TICK = 20 * MS
LIMITS = box(1, -2.0, 2.0, 1.5, 5.0)


def pilot(limits=None, rate=50.0, replan=0.3, strategy='blend'):
    out = Pilot(('a',), limits or unlimited(1), Timing.at_rate(rate, replan, strategy))
    out.enable(np.array([0.0]), 0)
    return out


def run(it, start_ms, end_ms):
    """Tick from start to end; return the windows that were published."""
    windows = [it.tick(now * MS) for now in range(start_ms, end_ms, TICK // MS)]
    return [window for window in windows if window is not None]


class Arm:
    """A pilot and the real controller's behaviour on one clock, in milliseconds."""

    def __init__(self, rate=50.0, strategy='blend', limits=LIMITS, settings=Settings(
            update_rate=1000.0), late_ms=2, holds=0.0):
        self.pilot = Pilot(('a',), limits, Timing.at_rate(rate, 0.3, strategy))
        self.pilot.enable(np.zeros(1), 1000 * MS)
        self.controller = TrajectoryController(('a',), np.array([holds]), settings)
        self.every = round(1000 / settings.update_rate)
        self.now, self.period, self.path, self.late_ms = 1000, round(1000 / rate), [], late_ms
        self.mail, self.messages = [], []

    def pass_time(self, until_ms):
        while self.now < until_ms:
            self.now += 1
            while self.mail and self.mail[0][0] <= self.now:
                self.controller.accept(self.mail.pop(0)[1], self.now * MS)
            if self.now % self.every == 0:
                self.controller.update(self.now * MS, np.zeros(1), np.zeros(1))
                self.path.append(self.controller.commanded[0])

    def tick(self, *times_ms):
        for at in times_ms:
            self.pass_time(at)
            told = self.pilot.tick(at * MS)
            if told is not None:
                self.messages.append(told)
                self.mail.append((at + self.late_ms, TrajectoryMessage.of(told)))
        return self

    def accept(self, at, values, seen_ms, stance=None):
        self.pass_time(at)
        return self.pilot.accept(chunk(values, t_obs_ns=seen_ms * MS), at * MS, self.pilot.epoch,
                                 stance)

    def speeds(self, since_ms=1000):
        return np.diff(self.path)[(since_ms - 1000) // self.every:] * 1e3 / self.every

    def accelerations(self):
        return np.abs(np.diff(self.path, 2)) / (self.every / 1e3)**2


# ---- silence ----

def test_disarmed_robot_gets_no_command():
    it = Pilot(('a',), unlimited(1), Timing.at_rate(50.0, 0.3))
    assert it.accept(chunk([1] * 9), 0, it.epoch) == 'the robot is disarmed'
    assert not run(it, 0, 1000) and not it.wants_chunk(0) and it.state is State.DISARMED


def test_armed_robot_without_a_chunk_gets_no_command():
    it = pilot()
    assert not run(it, 0, 1000) and it.state is State.STANDING


def test_chunk_asked_for_before_a_stop_does_not_restart_the_robot():
    it = pilot()
    asked = it.epoch
    it.stop()
    assert 'before a reset' in it.accept(chunk([1] * 50), 20 * MS, asked)


@pytest.mark.parametrize('halt', [Pilot.stop, Pilot.disable])
def test_every_stop_discards_what_is_under_way_also_a_second_one(halt):
    it = pilot()
    it.stop()
    asked = it.epoch
    halt(it)
    assert it.accept(chunk(np.arange(1, 51)), 20 * MS, asked) is not None
    assert not run(it, 20, 500)


# ---- windows ----

def test_a_window_is_the_plan_then_a_stop():
    it = pilot(limits=LIMITS)
    it.accept(chunk(np.arange(1, 51) / 100), 0, it.epoch)
    told = run(it, 0, 420)[-1]  # at 400 ms
    at = told.stamp_ns + told.times_ns
    assert told.stamp_ns == 395 * MS and told.times_ns[0] == 0
    follows = at <= 400 * MS + it.timing.follow_ns
    planned, speeds = it.plan.motion(at)
    np.testing.assert_allclose(told.positions[follows], planned[follows], atol=1e-12)
    np.testing.assert_allclose(told.velocities[follows], speeds[follows], atol=1e-12)
    assert told.velocities[-1] == 0 and told.velocities[~follows][0] > 0.3
    assert np.diff(told.times_ns).max() <= 20 * MS


@given(st.lists(st.lists(st.floats(-2, 2), min_size=2, max_size=2), min_size=1, max_size=60),
       st.integers(0, 1500), st.sampled_from([10, 20, 33, 100, 1000]))
def test_every_window_obeys_the_rules_of_the_controller(values, now_ms, period_ms):
    it = Pilot(('a', 'b'), unlimited(2), Timing.at_rate(1000 / period_ms, 0.3))
    it.enable(np.zeros(2), 1)
    it.accept(chunk(values, t_obs_ns=1), 1, it.epoch)
    told = it.tick(max(now_ms, 1) * MS)
    assert command_problem(trajectory_message(told)) is None


@given(st.floats(-1.5, 1.5), st.floats(-1.5, 1.5), st.floats(-1.9, 1.9),
       st.sampled_from([0, 100, 200]))
def test_a_stop_keeps_the_limits_and_the_room(speed, other, place, least_ms):
    limits = box(2, -2.0, 2.0, 1.5, 5.0)
    velocity = np.array([speed, other])
    room = np.where(velocity > 0, 2.0 - place, 2.0 + place)
    velocity = np.sign(velocity) * np.minimum(np.abs(velocity), np.sqrt(10 * room))
    knots = stop(np.full(2, place), velocity, limits, least_ms * MS)
    at = np.arange(0, knots[0][-1] + 10 * MS, MS)
    positions, speeds = cubic(*knots, at)
    assert np.abs(positions).max() <= 2.0 + 1e-9 and not knots[2][-1].any()
    assert (np.abs(np.diff(speeds[:-10], axis=0)) <= 5.0 * 1e-3 + 1e-8).all()
    assert (np.abs(speeds) <= np.abs(velocity) + 1e-9).all()
    np.testing.assert_allclose(speeds[0], velocity, atol=1e-9)


@given(st.floats(-1.5, 1.5), st.floats(-1.0, 1.0), st.floats(-1.0, 1.0))
def test_a_way_leads_there_within_the_limits(speed, place, target):
    knots = way(np.array([place, 0.5]), np.array([speed, 0.2]), np.array([target, np.nan]),
                box(2, -2.0, 2.0, 1.5, 5.0), 200 * MS)
    positions, speeds = cubic(*knots, np.arange(0, knots[0][-1] + 1, MS))
    assert knots[1][-1, 0] == pytest.approx(target, abs=1e-9)
    assert positions[-1, 1] == pytest.approx(0.52, abs=2e-2)  # only stopped
    assert np.abs(speeds).max() <= 1.5 + 1e-6
    assert np.abs(np.diff(speeds, axis=0)).max() <= 5.0e-3 + 1e-6


def test_window_of_a_standing_plan_stands():
    told = window(Plan.standing(np.ones(1), 0).knots, ('a',), 5, 100 * MS, LIMITS, 100 * MS, 5)
    assert (told.positions == 1).all() and (told.velocities == 0).all()


def test_a_first_piece_is_one_point():
    told = first_piece(np.ones(2), ('a', 'b'), 300 * MS, 7)
    assert told.times_ns.tolist() == [300 * MS] and not told.velocities.any()
    assert command_problem(trajectory_message(told)) is None


# ---- from chunk to rest ----

def test_chunk_that_runs_out_ends_in_a_smooth_stop_and_silence():
    it = pilot()
    it.accept(chunk(np.arange(1, 51) / 100), 0, it.epoch)
    windows = run(it, 0, 3000)
    starts = np.array([told.start[0] for told in windows])
    assert windows[-1].stamp_ns < 1300 * MS and it.state is State.STANDING
    steps = np.diff(starts[10:])  # after the cross-fade from standing
    assert abs(steps).max() < 0.0101 and steps[-1] == pytest.approx(0, abs=1e-3)
    np.testing.assert_array_equal(windows[-1].velocities, 0)


def test_new_chunk_continues_after_a_stop():
    it = pilot()
    it.accept(chunk([0.1] * 50), 0, it.epoch)
    run(it, 0, 2000)
    it.accept(chunk([0.2] * 50, t_obs_ns=2000 * MS), 2000 * MS, it.epoch)
    windows = run(it, 2000, 2400)
    assert windows[0].start[0] == pytest.approx(0.1, abs=0.05)
    assert windows[-1].start[0] == pytest.approx(0.2, abs=1e-6)


def test_disable_while_moving_stops_smoothly_then_falls_silent():
    it = pilot()
    it.accept(chunk(np.arange(1, 51) / 50), 0, it.epoch)
    run(it, 0, 400)
    it.disable()
    assert it.state is State.STOPPING and not it.enabled
    starts = np.array([told.start[0] for told in run(it, 400, 1500)])
    assert len(starts) in (12, 13) and (np.diff(np.diff(starts)) < 1e-9).all()
    assert it.state is State.DISARMED and not it.speaking


def test_a_robot_that_is_stopped_by_a_cause_that_goes_moves_on():
    it = pilot(limits=LIMITS)
    it.accept(chunk(np.arange(1, 51) / 50), 0, it.epoch)
    run(it, 0, 400)
    it.stop()
    run(it, 400, 480)
    assert it.state is State.STOPPING and it.enabled
    assert it.accept(chunk(np.full(50, 0.5), t_obs_ns=480 * MS), 480 * MS, it.epoch) is None
    assert it.state is State.MOVING
    assert run(it, 480, 3000)[-1].start[0] == pytest.approx(0.5, abs=1e-3)


def test_chunk_that_comes_after_the_plan_ran_out_is_used():
    it = pilot()
    it.accept(chunk([0.1] * 50), 0, it.epoch)
    asked = it.epoch
    run(it, 0, 1400)
    assert it.accept(chunk([0.2] * 50, t_obs_ns=900 * MS), 1400 * MS, asked) is None


def test_new_control_thread_starts_without_a_past():
    it = pilot()
    it.accept(chunk([0.1] * 50), 0, it.epoch)
    run(it, 0, 200)
    it.disable()
    it.forget_time()
    assert it.state is State.DISARMED and not run(it, 60_000, 60_200)


def test_replanning_follows_the_age_of_the_observation():
    it = pilot(replan=0.3)
    assert it.wants_chunk(0)
    it.accept(chunk([0.1] * 50), 0, it.epoch)
    assert not it.wants_chunk(299 * MS) and it.wants_chunk(300 * MS)
    it.want_chunk()
    assert it.wants_chunk(1)


def test_who_plays_chunks_whole_comes_to_rest_for_another_instruction():
    arm = Arm(strategy='synchronous').tick(1000)
    assert arm.accept(1001, np.arange(1, 151) * 0.01, 1000) is None
    arm.tick(*range(1020, 1500, 20))
    arm.pilot.want_chunk()
    assert not arm.pilot.wants_chunk(1500 * MS)
    asked = next(at for at in range(1500, 3000, 20)
                 if (arm.tick(at), arm.pilot.wants_chunk(at * MS))[1])
    assert 1680 <= asked <= 1780 and arm.speeds().min() > -1e-6


# ---- what the controller commands ----

KINDS = [Settings(kind, option, update_rate=rate, allow_trajectory_replacement=False)
         for kind in ('humble', 'jazzy', 'master') for option in (True, False)
         for rate in (50.0, 100.0, 250.0, 500.0, 1000.0)]


@pytest.mark.parametrize('settings', KINDS, ids=lambda s: (
    f'{s.kind}-{s.interpolate_from_desired_state}-{s.update_rate:.0f}'))
@pytest.mark.parametrize('late_ms', [0, 3, 15])
def test_every_controller_plays_a_motion_no_harder_than_the_plan(settings, late_ms):
    """From the first message to the last, with a stop in between: 1.02 times the limit."""
    timing_rate = settings.update_rate
    arm = Arm(settings=settings, late_ms=late_ms)
    arm.pilot.use(Timing.at_rate(50.0, 0.3, update_rate_hz=timing_rate))
    rng = np.random.default_rng(1)
    for at in range(1000, 5500, 20):
        if arm.pilot.wants_chunk(at * MS) and at < 3000:
            place = arm.pilot.told(np.array([at * MS]))[0, 0]
            arm.accept(at + int(rng.integers(1, 19)),
                       place + np.cumsum(rng.normal(0.01, 0.005, 50)), at - 7)
        if at == 2000:
            arm.pilot.stop()
        arm.tick(at + 20 + int(rng.integers(0, 4)) * (at % 100 == 0))
    assert np.ptp(arm.path) > 0.3 and arm.pilot.state is State.STANDING
    assert arm.accelerations().max() <= 1.02 * 5.0
    assert np.abs(arm.speeds()).max() <= 1.02 * 1.5
    assert arm.path[-1] == pytest.approx(arm.pilot.plan.rest[0], abs=1e-9)


@pytest.mark.parametrize('kind', ['humble', 'jazzy'])
@pytest.mark.parametrize('holds', [0.12, -0.05, 0.01])
@pytest.mark.parametrize('rate', [100.0, 500.0])
def test_a_motion_begins_softly_wherever_the_controller_holds(kind, holds, rate):
    arm = Arm(settings=Settings(kind, update_rate=rate), holds=holds)
    arm.tick(1000)
    first_ns = first_piece_ns(LIMITS, np.full(1, 0.12))
    assert arm.accept(1001, np.arange(1, 51) / 100, 1000, Stance(np.zeros(1), first_ns)) is None
    arm.tick(*range(1020, 3000, 20))
    assert len([told for told in arm.messages if len(told.times_ns) == 1]) == 1
    assert arm.accelerations().max() <= 1.02 * 5.0 and np.abs(arm.speeds()).max() <= 1.5
    assert arm.path[-1] == pytest.approx(arm.pilot.plan.rest[0], abs=1e-6)


@pytest.mark.parametrize('rate', [1.0, 2.0, 7.0, 15.0, 50.0, 100.0])
def test_every_rate_moves_with_real_chunks(rate):
    """50 actions of 20 ms, a new chunk every 0.3 s, 0.1 s late: 0.5 rad/s are asked for."""
    arm, pending = Arm(rate=rate, limits=box(1, -9, 9, 1.5, 5.0)), None
    for now in range(1000, 7000, 10):
        if pending is None and arm.pilot.wants_chunk(now * MS):
            pending = now, arm.pilot.epoch
        if pending and now >= pending[0] + 100:
            start = (pending[0] - 1000) / 2000
            arm.accept(now, start + np.arange(1, 51) / 100, pending[0])
            pending = None
        if (now - 1000) % arm.period < 10:
            arm.tick(now)
    speed = arm.speeds(3000)
    assert speed.mean() == pytest.approx(0.5, rel=0.12)
    assert arm.accelerations().max() <= 1.02 * 5.0
    if rate > 3:  # the slower ones stop between messages, as a chunk of one second must
        assert np.abs(speed - 0.5).max() < 0.3


@pytest.mark.parametrize('gap', [40, 60, 80, 100, 120, 150, 300, 900, -40, -500])
@pytest.mark.parametrize('kind', ['humble', 'jazzy'])
def test_a_late_tick_or_a_clock_that_is_set_makes_no_jump(gap, kind):
    """Who was not served for so long comes to rest as told; the next motion begins there."""
    if kind == 'humble' and gap < 0:
        pytest.skip('its trajectory follows the clock: what that does is no command of ours')
    arm = Arm(settings=Settings(kind, update_rate=1000.0)).tick(1000)
    arm.accept(1001, np.arange(1, 101) / 100, 1000)
    arm.tick(*range(1020, 1500, 20))
    if gap > 0:
        arm.tick(1480 + gap)
    else:
        arm.pass_time(1500)
        arm.now += gap
        arm.controller._update_ns += gap * MS
        assert arm.pilot.tick(arm.now * MS) is None
    late = gap < 0 or gap > 100
    assert arm.pilot.counters.late_ticks == late and arm.pilot.enabled
    for at in range(arm.now + 20, arm.now + 2500, 20):
        if arm.pilot.wants_chunk(at * MS):
            place = arm.pilot.told(np.array([at * MS]))[0, 0]
            arm.accept(at, place + np.arange(1, 51) / 100, at,
                       Stance(arm.pilot.plan.rest, 200 * MS))
        arm.tick(at)
    assert arm.speeds()[-1] > 0.1
    assert arm.accelerations().max() <= 1.02 * 5.0


@pytest.mark.parametrize('jump_ms', [-1500, 5000])
def test_clock_jump_disarms(jump_ms):
    it = pilot()
    it.accept(chunk([0.1] * 500), 0, it.epoch)
    run(it, 2000, 2200)
    with pytest.raises(ClockJump, match='jumped by'):
        it.tick((2180 + jump_ms) * MS)
    assert it.state is State.DISARMED and not run(it, 2200 + jump_ms, 2400 + jump_ms)


@pytest.mark.parametrize('rate', [50, 15, 10, 5, 2, 1])
def test_a_stop_is_told_at_once_between_two_ticks(rate):
    """It begins a message's way after it was asked for, whatever the control rate."""
    arm = Arm(rate, limits=box(1, -9, 9, 1.5, 5.0)).tick(1000)
    arm.accept(1001, np.arange(1, 300) * 0.01, 1000)  # 0.5 rad/s
    ticks = list(range(1000 + arm.period, 3001, arm.period))
    arm.tick(*ticks)
    asked = ticks[-1] + arm.period // 3
    arm.pass_time(asked)
    begin = arm.path[-1]
    arm.pilot.stop()
    arm.tick(asked, *range(ticks[-1] + arm.period, ticks[-1] + 5000, arm.period))
    assert arm.path[-1] - begin < 0.5 * (0.03 + 0.1) + 0.002
    assert arm.speeds(asked).min() > -1e-6 and abs(arm.speeds()[-1]) < 1e-9
    assert arm.accelerations().max() <= 1.02 * 5.0


def test_a_gripper_lengthens_no_stop():
    limits = box(2, -2.0, 2.0, 1.5, 5.0)
    limits.acceleration[1] = limits.stopping[1] = 0.2
    limits.alone[1] = True
    times, positions, _ = stop(np.zeros(2), np.array([1.0, 0.1]), limits, 200 * MS)
    assert times.tolist() == [0, 200 * MS, 500 * MS]
    np.testing.assert_allclose(positions[:, 0], [0, 0.1, 0.1])


def test_positions_are_clamped_to_the_limits():
    it = pilot(limits=box(1, -0.1, 0.1))
    it.accept(chunk(np.arange(1, 51) / 50), 0, it.epoch)
    windows = run(it, 0, 800)
    assert max(told.positions.max() for told in windows) == pytest.approx(0.1, abs=1e-4)
    assert it.counters.clamped and it.clamped[0] == pytest.approx(0.9, abs=0.01)


def test_a_plan_that_cannot_be_made_whole_is_never_in_force(monkeypatch):
    it = pilot(limits=LIMITS)
    it.accept(chunk(np.arange(1, 51) / 100), 0, it.epoch)
    run(it, 0, 200)
    before = it.plan

    def fails(*given):
        raise MemoryError

    monkeypatch.setattr('pi0_ros.motion.splice.limit', fails)
    with pytest.raises(MemoryError):
        it.accept(chunk(np.full(50, 1.9), t_obs_ns=200 * MS), 200 * MS, it.epoch)
    assert it.plan is before and it.state is State.MOVING


def test_what_is_not_finite_is_never_published():
    it = pilot(limits=LIMITS)
    it.accept(chunk(np.arange(1, 51) / 100), 0, it.epoch)
    run(it, 0, 200)
    it.plan.positions[-5:] = np.nan
    with pytest.raises(FloatingPointError):
        it.tick(200 * MS)
    assert it.state is State.FAULTED and it.tick(220 * MS) is None


def test_a_plan_that_comes_too_late_for_its_tick_is_not_told():
    it = pilot(limits=LIMITS)
    it.accept(chunk(np.arange(1, 51) / 100), 0, it.epoch)
    run(it, 0, 220)
    it.accept(chunk(np.full(50, 0.2), t_obs_ns=200 * MS), 201 * MS, it.epoch)
    new, told = it.plan, it.tick(290 * MS)
    assert it.counters.late_plans == 1 and it.wants_chunk(291 * MS) and it.plan is not new
    at = told.stamp_ns + told.times_ns[:9]
    np.testing.assert_allclose(told.positions[:9], it.plan.sample(at), atol=1e-12)
    assert it.plan.rest[0] == pytest.approx(0.5, abs=0.01)  # of the chunk before


def test_slow_time_slows_the_plan():
    """A controller at half speed is where the plan is, and loses none of it."""
    it = pilot(limits=LIMITS)
    it.accept(chunk(np.arange(1, 101) / 100), 0, it.epoch)
    run(it, 0, 500)
    it.scale.use(0.5)
    starts = [told.start[0] for told in run(it, 500, 900)]
    np.testing.assert_allclose(np.diff(starts), 0.005, atol=1e-3)
    it.scale.use(0.0)
    assert np.ptp([told.start[0] for told in run(it, 900, 1100)][1:]) == 0
    it.scale.use(1.0)
    assert run(it, 1100, 3000)[-1].start[0] == pytest.approx(1.0, abs=1e-3)


def test_where_the_clock_is_set_back_the_plan_goes_on_by_a_period():
    pilot = Pilot(('a',), LIMITS, Timing.at_rate(50.0, 0.3))
    for at in (1000, 1020, 720, 740):
        pilot.tick(at * MS)
    assert pilot.scale.at(740 * MS) == 1060 * MS


@pytest.mark.parametrize('far, seconds', [(0.1, 2 * np.sqrt(0.1 / 5)), (-1.0, 1.0 / 1.5 + 0.3),
                                          (1.9, 1.9 / 1.5 + 0.3)])
def test_the_way_to_a_place_takes_as_long_as_the_limits_ask(far, seconds):
    """From rest to rest: ramps at 5 rad/s^2, and between them, if it is far, 1.5 rad/s."""
    times, positions, speeds = way(np.zeros(1), np.zeros(1), np.full(1, far), LIMITS, 0)
    assert times[-1] / 1e9 == pytest.approx(seconds, abs=1e-6)
    assert positions[-1, 0] == pytest.approx(far, abs=1e-6) and speeds[-1, 0] == 0
    assert np.abs(speeds).max() == pytest.approx(min(1.5, np.sqrt(5 * abs(far))), rel=1e-6)
