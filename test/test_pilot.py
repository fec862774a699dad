"""Windows of the plan, and when there are none."""

import copy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi0_ros.control.limits import unlimited
from pi0_ros.control.pilot import ClockJump, Pilot, Timing
from pi0_ros.control.trajectory import rolling_window
from pi0_ros.ros.conversions import trajectory_message
from pi0_ros.sim.controller import TrajectoryController, TrajectoryMessage
from support import MS, box, chunk, command_problem

TICK = 20 * MS


def pilot(limits=None, rate=50.0, replan=0.3):
    out = Pilot(('a',), limits or unlimited(1), Timing.at_rate(rate, replan))
    out.enable(np.array([0.0]), 0)
    return out


def run(it, start_ms, end_ms):
    """Tick from start to end; return the windows that were published."""
    windows = [it.tick(now * MS) for now in range(start_ms, end_ms, TICK // MS)]
    return [window for window in windows if window is not None]


def test_disarmed_robot_gets_no_command():
    it = Pilot(('a',), unlimited(1), Timing.at_rate(50.0, 0.3))
    assert it.accept(chunk([1] * 9), 0, it.queue.epoch) == 'the robot is disarmed'
    assert not run(it, 0, 1000) and not it.wants_chunk(0)


def test_armed_robot_without_a_chunk_gets_no_command():
    assert not run(pilot(), 0, 1000)


def test_chunk_is_published_as_ten_points_that_end_at_rest():
    it = pilot()
    it.accept(chunk(np.arange(1, 51) / 100), 0, it.queue.epoch)
    it.queue.handover.fade_ns = 0
    window = run(it, 0, 220)[-1]  # at 200 ms
    assert window.times_ns.tolist() == [20 * MS * k for k in range(1, 11)]
    np.testing.assert_allclose(window.positions[:5, 0], np.arange(11, 16) / 100)
    assert window.velocities[-1] == 0 and (window.velocities[:-1] > 0).all()
    assert window.velocities[0] == pytest.approx(0.5)


def test_chunk_that_runs_out_ends_in_a_smooth_stop_and_silence():
    it = pilot()
    it.accept(chunk(np.arange(1, 51) / 100), 0, it.queue.epoch)
    windows = run(it, 0, 3000)
    starts = np.array([window.positions[0, 0] for window in windows])
    assert windows[-1].stamp_ns < 1300 * MS and not it.speaking
    steps = np.diff(starts[10:])  # after the cross-fade from standing
    assert abs(steps).max() < 0.0101 and steps[-1] == pytest.approx(0, abs=1e-3)
    np.testing.assert_array_equal(windows[-1].velocities, 0)


def test_new_chunk_continues_after_a_stop():
    it = pilot()
    it.accept(chunk([0.1] * 50), 0, it.queue.epoch)
    run(it, 0, 2000)
    it.accept(chunk([0.2] * 50, t_obs_ns=2000 * MS), 2000 * MS, it.queue.epoch)
    windows = run(it, 2000, 2400)
    assert windows[0].positions[0, 0] == pytest.approx(0.1, abs=0.05)
    assert windows[-1].positions[0, 0] == pytest.approx(0.2, abs=1e-6)


def test_disable_while_moving_stops_smoothly_then_falls_silent():
    it = pilot()
    it.accept(chunk(np.arange(1, 51) / 50), 0, it.queue.epoch)
    run(it, 0, 400)
    it.disable(400 * MS)
    windows = run(it, 400, 1500)
    starts = np.array([window.positions[0, 0] for window in windows])
    assert len(windows) == 11 and (np.diff(np.diff(starts)) < 1e-9).all()
    assert not it.enabled and not it.speaking


def test_chunk_asked_for_before_a_stop_does_not_restart_the_robot():
    it = pilot()
    asked = it.queue.epoch
    it.stop(10 * MS)
    assert 'before a reset' in it.accept(chunk([1] * 50), 20 * MS, asked)


@pytest.mark.parametrize('jump_ms', [-1500, 5000])
def test_clock_jump_disarms(jump_ms):
    it = pilot()
    it.accept(chunk([0.1] * 500), 0, it.queue.epoch)
    run(it, 2000, 2200)
    with pytest.raises(ClockJump, match='jumped by'):
        it.tick((2180 + jump_ms) * MS)
    assert not it.enabled and not run(it, 2200 + jump_ms, 2400 + jump_ms)


def follow(windows, until_ms):
    """Return what joint_trajectory_controller would command, sampled every 2 ms."""
    controller, path, start = TrajectoryController(('a',), np.zeros(1)), [], windows[0].stamp_ns
    for now in range(start, until_ms * MS, 2 * MS):
        while windows and windows[0].stamp_ns <= now:
            window = windows.pop(0)
            controller.accept(TrajectoryMessage(
                window.stamp_ns, ['a'], window.times_ns.tolist(), window.positions.tolist(),
                window.velocities.tolist()), now)
        path.append(controller.sample(now, np.zeros(1), np.zeros(1))[0])
    return np.array(path)


@pytest.mark.parametrize('gap_ms', [120, 150, 200, 300, 900, -40, -500])
def test_late_tick_or_clock_step_does_not_make_the_robot_jump(gap_ms):
    """Whoever was not served for so long has slowed down: going on with the plan would jump."""
    it = pilot()
    it.accept(chunk(np.arange(1, 101) / 50), 0, it.queue.epoch)  # 1 rad/s
    windows = run(it, 200, 600)
    now = 580 + gap_ms
    assert it.tick(now * MS) is None and it.wants_chunk(now * MS) and it.enabled
    stood = it.queue.sample(np.array([now * MS]))[0, 0]
    if gap_ms > 0:  # the plan is what the controller goes on with
        coming = np.arange(now, now + 300, 2)
        path = follow(list(windows), now + 300)[-len(coming):]
        np.testing.assert_allclose(it.queue.sample(coming * MS)[:, 0], path, atol=0.004)
    assert it.late_ticks == 1
    for wait in (0, 60):  # the next chunk comes at once, or a little later
        again = copy.deepcopy(it.queue)
        again.merge(chunk([stood] * 50, t_obs_ns=now * MS), (now + wait) * MS, again.epoch)
        moved = np.diff(again.sample(np.arange(now + wait, now + 400, 2) * MS)[:, 0]) / 0.002
        assert np.abs(moved).max() < (1.1 if gap_ms > 0 else 1.4)  # from full speed back
    it.accept(chunk([stood] * 50, t_obs_ns=now * MS), now * MS, it.queue.epoch)
    assert run(it, now + 20, now + 40)


def test_tick_within_half_a_window_goes_on():
    it = pilot()
    it.accept(chunk(np.arange(1, 101) / 50), 0, it.queue.epoch)
    run(it, 200, 400)
    assert it.tick(480 * MS) is not None and not it.late_ticks


@pytest.mark.parametrize('stop', [Pilot.stop, Pilot.disable])
def test_every_stop_discards_what_is_under_way_also_a_second_one(stop):
    it = pilot()
    it.stop(0)
    asked = it.queue.epoch
    stop(it, 10 * MS)
    assert it.accept(chunk(np.arange(1, 51)), 20 * MS, asked) is not None
    assert not run(it, 20, 500)


def test_chunk_that_comes_after_the_plan_ran_out_is_used():
    it = pilot()
    it.accept(chunk([0.1] * 50), 0, it.queue.epoch)
    asked = it.queue.epoch
    run(it, 0, 1400)
    assert it.accept(chunk([0.2] * 50, t_obs_ns=900 * MS), 1400 * MS, asked) is None


def test_new_control_thread_starts_without_a_past():
    it = pilot()
    it.accept(chunk([0.1] * 50), 0, it.queue.epoch)
    run(it, 0, 200)
    it.disable(200 * MS)
    it.forget_time()
    assert not run(it, 60_000, 60_200)


def test_replanning_follows_the_age_of_the_observation():
    it = pilot(replan=0.3)
    assert it.wants_chunk(0)
    it.accept(chunk([0.1] * 50), 0, it.queue.epoch)
    assert not it.wants_chunk(299 * MS) and it.wants_chunk(300 * MS)
    it.want_chunk(0)
    assert it.wants_chunk(1)


def test_positions_are_clamped_to_the_limits():
    it = pilot(limits=box(1, -0.1, 0.1))
    it.accept(chunk(np.arange(1, 51) / 50), 0, it.queue.epoch)
    windows = run(it, 0, 800)
    assert max(window.positions.max() for window in windows) == pytest.approx(0.1, abs=1e-4)
    assert it.queue.clamped
    # The controller's cubic may pass the last point by what it cannot brake in one period.
    assert follow(windows, 900).max() <= 0.1 + 0.003


@pytest.mark.parametrize('rate', [1.0, 2.0, 7.0, 15.0, 50.0, 100.0])
def test_every_rate_moves_with_real_chunks(rate):
    """50 actions of 20 ms, a new chunk every 0.3 s, 0.1 s late: 0.5 rad/s are asked for."""
    it, period = pilot(rate=rate), round(1000 / rate)
    windows, pending = [], None
    for now in range(0, 6000, 10):
        if pending is None and it.wants_chunk(now * MS):
            pending = now, it.queue.epoch
        if pending and now >= pending[0] + 100:
            start = pending[0] / 2000
            it.accept(chunk(start + np.arange(1, 51) / 100, t_obs_ns=pending[0] * MS), now * MS,
                      pending[1])
            pending = None
        if now % period < 10:
            window = it.tick(now * MS)
            windows += [window] if window else []
    speed = np.diff(follow(windows, 6000))[1000:] / 0.002  # after the start
    assert speed.mean() == pytest.approx(0.5, rel=0.1)
    if rate > 3:  # the slower ones stop between messages, as a chunk of one second must
        assert np.abs(speed - 0.5).max() < 0.15


@given(st.lists(st.lists(st.floats(-2, 2), min_size=2, max_size=2), min_size=1, max_size=60),
       st.integers(0, 1500), st.sampled_from([20, 33, 100, 1000]))
def test_every_window_obeys_the_rules_of_the_controller(values, now_ms, period_ms):
    it = Pilot(('a', 'b'), unlimited(2), Timing.at_rate(1000 / period_ms, 0.3))
    it.enable(np.zeros(2), 1)
    it.accept(chunk(values, t_obs_ns=1), 1, it.queue.epoch)
    window = it.tick(max(now_ms, 1) * MS)
    if window is None:
        return
    assert command_problem(trajectory_message(window)) is None
    assert np.abs(window.positions).max() <= np.abs(values).max() + 1e-9


def test_velocities_are_those_of_the_plan_at_the_pace_of_the_window():
    window = rolling_window(lambda times: (times[:, None] * 2e-9, np.full((len(times), 1), 2.0)),
                            ('a',), 0, 200 * MS, 10)
    np.testing.assert_allclose(window.velocities[:, 0],
                               [2, 2, 2, 2, 2, 1.6, 1.2, 0.8, 0.4, 0], atol=1e-9)
    np.testing.assert_allclose(window.positions[:5, 0], 0.04 * np.arange(1, 6))
    assert window.positions[-1, 0] == pytest.approx(0.3)  # half of the second half


def test_window_of_a_standing_plan_stands():
    window = rolling_window(lambda times: (np.ones((len(times), 1)), np.zeros((len(times), 1))),
                            ('a',), 5, 200 * MS, 10)
    assert (window.positions == 1).all() and (window.velocities == 0).all()


class Arm:
    """A pilot and the controller that follows it, on one clock in milliseconds."""

    def __init__(self, rate=50.0, strategy='blend'):
        self.pilot = Pilot(('a',), unlimited(1), Timing.at_rate(rate, 0.3, strategy))
        self.pilot.enable(np.zeros(1), 1000 * MS)
        self.controller = TrajectoryController(('a',), np.zeros(1))
        self.now, self.period, self.path = 1000, round(1000 / rate), []

    def pass_time(self, until_ms):
        while self.now < until_ms:
            self.now += 1
            self.path.append(self.controller.sample(self.now * MS, np.zeros(1), np.zeros(1))[0])

    def tick(self, *times_ms):
        for at in times_ms:
            self.pass_time(at)
            window = self.pilot.tick(at * MS)
            if window is not None:
                self.controller.accept(TrajectoryMessage(
                    window.stamp_ns, ['a'], window.times_ns.tolist(), window.positions.tolist(),
                    window.velocities.tolist()), at * MS)

    def accept(self, at, values, seen_ms):
        self.pass_time(at)
        chunk_ = chunk(values, t_obs_ns=seen_ms * MS)
        assert self.pilot.accept(chunk_, at * MS, self.pilot.queue.epoch) is None

    def speeds(self, since_ms=1000):
        return np.diff(self.path)[since_ms - 1000:] * 1e3


@pytest.mark.parametrize('gap', [20, 40, 60, 80, 100, 120, 150, 180])
@pytest.mark.parametrize('moves', [True, False])
def test_a_chunk_that_meets_a_late_tick_fades_in_from_what_the_robot_follows(gap, moves):
    """Between the chunk and the tick the controller goes on with the window before."""
    arm = Arm()
    arm.tick(1000)
    if moves:
        arm.accept(1001, np.zeros(60), 1000)
    arm.tick(*range(1020, 1400, 20))
    arm.accept(1381, np.full(60, 0.2), 1375)
    late = 1380 + gap
    arm.tick(late)
    if gap > 100:
        arm.accept(late + 5, np.full(60, 0.2), late)
    arm.tick(*range(late + 20, 2200, 20))
    assert arm.path[-1] == pytest.approx(0.2, abs=1e-3)
    assert np.abs(arm.speeds()).max() < 1.9 * 0.2 / 0.1  # a cubic, of 0.2 rad in 0.1 s


@pytest.mark.parametrize('rate', [50, 15, 10, 5, 2, 1])
def test_a_stop_between_two_ticks_never_goes_back(rate):
    arm = Arm(rate)
    arm.tick(1000)
    arm.accept(1001, np.arange(1, 300) * 0.02, 1000)  # 1 rad/s
    ticks = list(range(1000 + arm.period, 3001, arm.period))
    arm.tick(*ticks)
    arm.pass_time(ticks[-1] + 1)
    arm.pilot.stop((ticks[-1] + 1) * MS)
    arm.tick(*range(ticks[-1] + arm.period, ticks[-1] + 5000, arm.period))
    speeds = arm.speeds(ticks[-1])
    # Where the plan ends between two points, the cubic to the last one swings by 0.03 mrad.
    assert speeds.min() > -5e-3 and speeds.max() < 1.05 and abs(speeds[-1]) < 1e-9


@pytest.mark.parametrize('rate', [20, 9, 7, 5, 3, 2])
def test_a_chunk_fades_in_at_any_control_rate(rate):
    arm = Arm(rate)
    arm.tick(1000)
    arm.accept(1001, np.zeros(200), 1000)
    ticks = [1000 + arm.period * k for k in range(1, 12)]
    arm.tick(*ticks[:3])
    arm.accept(ticks[2] + 1, np.full(200, 0.2), ticks[2] - 5)
    arm.tick(*ticks[3:])
    assert arm.path[-1] == pytest.approx(0.2, abs=1e-3)
    assert np.abs(arm.speeds()).max() < 1.7 * 0.2 / 0.1


def test_who_plays_chunks_whole_comes_to_rest_for_another_instruction():
    arm = Arm(strategy='synchronous')
    arm.tick(1000)
    arm.accept(1001, np.arange(1, 151) * 0.02, 1000)
    arm.tick(*range(1020, 1500, 20))
    arm.pilot.want_chunk(1490 * MS)
    assert not arm.pilot.wants_chunk(1500 * MS)
    asked = next(at for at in range(1500, 3000, 20)
                 if (arm.tick(at), arm.pilot.wants_chunk(at * MS))[1])
    assert 1680 <= asked <= 1720 and arm.speeds().min() > -1e-6
