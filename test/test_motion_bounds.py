# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Bounds of plans, windows and limits, just before and just after."""

from dataclasses import replace

from hypothesis import given, settings, strategies as st
import numpy as np
from pi0_ros.motion.limiter import _Walk, breaks, keeps, limit, MOST_STEPS, STEP_NS, STILL
from pi0_ros.motion.limits import unlimited
from pi0_ros.motion.plan import Plan
from pi0_ros.motion.spline import cubic, knot_velocities, without_overshoot
from pi0_ros.motion.trajectory import APART_NS, closer, first_piece, PAST_NS, window
import pytest
from support import box, chunk, MS, Planner

S = 10**9


def piece(*rows, apart_ms=100):
    """Return knots of one joint of rows (position, velocity), so far apart."""
    times = apart_ms * MS * np.arange(len(rows), dtype=np.int64)
    return times, np.array([[row[0]] for row in rows], float), np.array(
        [[row[1]] for row in rows], float)


# ---- what breaks a limit ----

def test_a_piece_breaks_what_it_breaks_by_a_little_and_keeps_it_just_below():
    limits = box(1, -1.0, 1.0, 1.0, 5.0)
    # From rest to v in 0.1 s at constant acceleration: v = a t, way = v t / 2.
    for share, broken in ((1.0, False), (1.001, True)):
        speed = 0.5 * share
        assert breaks(piece((0, 0), (speed * 0.05, speed)), limits).tolist() == [broken]
    # Constant velocity.
    for speed, broken in ((1.0, False), (1.001, True), (-1.001, True)):
        assert breaks(piece((0, speed), (0.1 * speed, speed)), limits).tolist() == [broken]
    # A place outside, and one from which it cannot stop before: v^2 / 2a = 0.1 at 1 rad/s.
    for place, speed, broken in ((1.0, 0.0, False), (1.001, 0.0, True), (-1.001, 0.0, True),
                                 (0.9, 1.0, False), (0.902, 1.0, True), (-0.902, -1.0, True)):
        rows = [(place - 0.001 * speed, speed), (place, speed)]
        assert breaks(piece(*rows, apart_ms=1), limits).any() == broken
    # Inside at both ends, outside between: it goes out and comes back, gently.
    loose = replace(limits, velocity=np.array([9.0]), acceleration=np.array([99.0]))
    out = piece((0.99, 0.3), (0.99, -0.3), apart_ms=400)  # its vertex is 0.03 further
    assert cubic(*out, np.array([200 * MS]))[0][0, 0] == pytest.approx(1.02)
    assert breaks(out, loose).tolist() == [True] and not keeps(out, loose)
    down = piece((-0.99, -0.3), (-0.99, 0.3), apart_ms=400)
    assert breaks(down, loose).tolist() == [True]
    for share, broken in ((0.25, True), (0.5, True), (0.75, True)):  # it is looked at there
        rows = {0.25: [(0.99, 1.0), (0.9, -0.1)], 0.5: [(0.99, 0.3), (0.99, -0.3)],
                0.75: [(0.9, 0.1), (0.99, -1.0)]}[share]
        some = piece(*rows, apart_ms=400)
        assert (cubic(*some, np.array([round(share * 400) * MS]))[0][0, 0] > 1.0) == broken
        assert breaks(some, loose).tolist() == [broken]


def test_a_vertex_of_the_velocity_between_two_knots_counts():
    """
    0.2 rad in 0.2 s from rest to rest: 1.5 rad/s in the middle, taken for at most twice that.

    The bound is what 30 rad/s^2 make of it in half the time.
    """
    limits = box(1, -9, 9, 2.99, 99.0)
    assert breaks(piece((0, 0), (0.2, 0), apart_ms=200), limits).tolist() == [True]
    assert keeps(piece((0, 0), (0.2, 0), apart_ms=200), replace(
        limits, velocity=np.array([3.01])))


def test_a_plan_without_limits_or_without_a_future_is_left_alone():
    wild = piece((0, 0), (5, 50), (0, 0))
    made, clamped, slowed = limit(wild, 0, unlimited(1))
    assert made is wild and clamped is None and not slowed
    limits = box(1, -1, 1, 1.0, 5.0)
    for start in (100 * MS + 1, 200 * MS):  # of one knot or none nothing can be broken
        assert limit(wild, start, limits)[0] is wild
    assert limit(wild, 100 * MS, limits)[0] is not wild


def test_a_long_plan_is_followed_in_steps_of_at_most_50_ms():
    limits = box(1, -9, 9, 0.1, 5.0)
    times = 20 * MS * np.arange(1001, dtype=np.int64)
    places = np.linspace(0, 8, 1001)[:, None]  # 20 s at four times what it may
    made, _, slowed = limit((times, places, np.full((1001, 1), 0.4)), 0, limits)
    apart = np.diff(made[0][:-3])
    assert slowed and apart.max() <= 50 * MS + 1 and len(made[0]) > 200
    short = limit((times[:51], places[:51], np.full((51, 1), 0.4)), 0, limits)[0]
    assert np.diff(short[0][:-3]).max() == STEP_NS and MOST_STEPS == 200


# ---- knots ----

def test_velocities_at_knots_do_not_overshoot():
    times = 100 * MS * np.arange(4, dtype=np.int64)
    places = np.array([[0.0], [1.0], [1.0], [0.0]])
    made = knot_velocities(times, places, np.zeros(1))
    assert made[:, 0].tolist() == [0.0, 0.0, 0.0, -10.0]
    rising = knot_velocities(times, np.array([[0.0], [1.0], [3.0], [4.0]]), np.ones(1))
    # The weighted harmonic mean of 10 and 20, equal lengths: 2 * 10 * 20 / 30.
    assert rising[:, 0] == pytest.approx([1.0, 400 / 30, 400 / 30, 10.0])
    made = without_overshoot(times, places, np.array([[40.0], [5.0], [-5.0], [-40.0]]))
    assert made[:, 0].tolist() == [30.0, 0.0, 0.0, -30.0]  # three times the slope; 0 at the top
    falling = without_overshoot(times, -places, np.array([[-40.0], [0.0], [0.0], [40.0]]))
    assert falling[:, 0].tolist() == [-30.0, 0.0, 0.0, 30.0]
    other_way = without_overshoot(times, places, np.array([[-1.0], [0.0], [0.0], [1.0]]))
    assert other_way[:, 0].tolist() == [0.0, 0.0, 0.0, 0.0]


def test_turns_are_the_short_way_and_far_is_more_than_a_share():
    limits = replace(box(2, -9, 9, 1, 5, 0.5, 0.3), turns=np.array([True, False]))
    moved = limits.shortest(np.array([6.2, 6.2]))
    np.testing.assert_allclose(moved, [6.2 - 2 * np.pi, 6.2])
    here = np.array([3.1, 0.0])
    assert limits.far(here, np.array([-3.1, 0.0]), 1.0).tolist() == [False, False]
    assert limits.far(here, np.array([-2.8, 0.31]), 1.0).tolist() == [True, True]
    assert limits.far(here, np.array([3.1, 0.16]), 0.5).tolist() == [False, True]
    near = limits.nearest_turn(np.array([[-3.1, 1.0], [-3.0, 1.0]]), np.array([9.4, 0.0]))
    np.testing.assert_allclose(near, [[-3.1 + 4 * np.pi, 1.0], [-3.0 + 4 * np.pi, 1.0]])


# ---- windows ----

def test_points_are_at_most_20_ms_apart_and_none_is_lost():
    times = np.array([0, 20 * MS, 41 * MS, 100 * MS], np.int64)
    made = closer(times)
    assert set(times) <= set(made) and (np.diff(made) <= APART_NS).all() and (
        np.diff(made) > 0).all()
    assert len(made) == 1 + 1 + 2 + 3
    near = np.array([0, 20 * MS], np.int64)
    assert closer(near) is near and closer(near[:1]).tolist() == [0]


def test_a_window_begins_in_the_past_but_not_before_its_clock():
    knots = piece((0, 0), (0.1, 1.0), (0.2, 1.0), (0.3, 0.0))
    limits = box(1, -9, 9, 9, 9)
    made = window(knots, ('a',), 100 * MS, 60 * MS, limits, 0, 5 * S)
    assert made.stamp_ns == 5 * S - PAST_NS and made.times_ns[0] == 0
    assert made.start[0] == pytest.approx(0.1)
    np.testing.assert_allclose(made.positions[0], cubic(*knots, np.array(
        [100 * MS - PAST_NS]))[0][0])
    for stamp, past in ((3 * MS, 3 * MS - 1), (1, 0)):  # a stamp of 0 has another meaning
        early = window(knots, ('a',), 100 * MS, 60 * MS, limits, 0, stamp)
        assert early.stamp_ns == stamp - past


def test_a_window_with_any_number_that_is_none_is_not_finite():
    good = first_piece(np.zeros(2), ('a', 'b'), 100 * MS, S)
    assert good.finite
    bad = np.array([0.0, np.nan])
    for change in ({'positions': bad[None]}, {'velocities': bad[None]}, {'start': bad}):
        assert not replace(good, **change).finite


# ---- plans ----

def test_a_chunk_that_is_late_or_early_says_by_how_much():
    planner = Planner()
    planner.take(chunk(0.1 * np.ones(5)), 0)
    late = planner.take(chunk(np.ones(5), t_obs_ns=1 * MS), 1601 * MS)
    assert 'its last action was due 1.500 s ago' in late
    early = planner.take(chunk(np.ones(5), t_obs_ns=3 * S), 0)
    assert 'its first action is due in 3.020 s' in early
    assert planner.take(chunk(np.ones(5), t_obs_ns=2 * MS), 102 * MS) is not None  # just over
    assert planner.take(chunk(np.ones(5), t_obs_ns=2 * MS), 101 * MS) is None


def test_a_plan_that_begins_later_takes_its_sources_along():
    first, second = chunk(np.zeros(3)), chunk(np.ones(3))
    plan = Plan(np.array([0, 100, 200], np.int64), np.zeros((3, 1)), np.zeros((3, 1)), 100, 150,
                sources=((50, first), (100, second), (120, second)))
    later = plan.later(30)
    assert [begin for begin, _ in later.sources] == [50, 130, 150]
    assert later.times.tolist() == [0, 130, 230] and (later.begin_ns, later.end_ns) == (130, 180)
    assert plan.source(49) is None and plan.source(50) is first and plan.source(130) is second


def test_how_long_a_plan_still_moves_and_goes_on():
    plan = Plan(np.array([0, 100], np.int64), np.zeros((2, 1)), np.zeros((2, 1)), 0, 60)
    assert [plan.remaining_ns(at) for at in (0, 99, 100, 101)] == [100, 1, 0, 0]
    assert [plan.before_stop_ns(at) for at in (0, 59, 60, 61)] == [60, 1, 0, 0]
    assert Plan.standing(np.zeros(1), 50).remaining_ns(0) == 0
    assert plan.leftover(0, 20, 10).shape == (4, 1)  # steps 0, 20, 40 and 60
    for name in ('positions', 'velocities'):
        assert not replace(plan, **{name: np.full((2, 1), np.inf)}).finite
    assert plan.finite


def test_only_the_pieces_beside_a_place_outside_break_the_limits():
    limits = box(1, lower=-1.0, upper=1.0, velocity=100.0, acceleration=1e4)
    plan = piece([1.2, 0.0], [0.9, 0.0], [0.5, 0.0], [0.4, 0.0], apart_ms=1000)
    assert breaks(plan, limits).tolist() == [True, False, False]
    plan = piece([0.4, 0.0], [0.5, 0.0], [0.9, 0.0], [1.2, 0.0], apart_ms=1000)
    assert breaks(plan, limits).tolist() == [False, False, True]


def test_a_velocity_that_only_grows_is_fastest_at_the_end_of_its_piece():
    """From 0.9 to 1.0 at one acceleration: there is no vertex in between."""
    plan = piece([0.0, 0.9], [0.19, 1.0], apart_ms=200)
    assert breaks(plan, box(1, velocity=1.001, acceleration=5.0)).tolist() == [False]
    assert breaks(plan, box(1, velocity=0.99, acceleration=5.0)).tolist() == [True]


def test_a_gripper_goes_its_own_way_while_the_arm_is_slowed():
    limits = replace(box(2, velocity=1.0, acceleration=50.0), alone=np.array([False, True]))
    times = 100 * MS * np.arange(11)
    arm, hand = 0.4 * np.arange(11), 0.08 * np.arange(11)  # 4 and 0.8 a second, allowed is 1
    plan = times, np.stack([arm, hand], 1), np.tile([4.0, 0.8], (11, 1))
    (at, positions, _), _, slowed = limit(plan, 0, limits)
    assert slowed
    then = np.searchsorted(at, 600 * MS)
    place = np.interp(600 * MS, at, positions[:, 1])
    assert place == pytest.approx(0.48, abs=0.03) and positions[then, 0] < 0.8


def test_what_was_told_lately_is_kept_from_the_first_knot_on():
    times = 100 * MS * np.arange(6)
    plan = Plan.of((times, np.arange(6.0)[:, None], np.zeros((6, 1))), 0)
    assert plan.past(250 * MS)[0].tolist() == (100 * MS * np.arange(3)).tolist()
    assert plan.past(250 * MS, since_ns=50 * MS)[0][0] == 0


# ---- a step of the limiter ----

SOME = st.floats(-3.0, 3.0, allow_subnormal=False)


def within(room, velocity, acceleration, most, step):
    """Return the highest velocity after a step, as ``limiter`` says, found by halving."""
    low, high = velocity - acceleration * step, min(velocity + acceleration * step, most)
    if high <= low:
        return low

    def stops(new):
        ahead = step * (velocity + new) / 2
        return ahead + max(new, 0.0)**2 / (2 * acceleration) <= room

    if stops(high):
        return high
    if not stops(low):
        return low
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if stops(middle) else (low, middle)
    return low


@settings(max_examples=500)
@given(place=SOME, velocity=SOME, goal=SOME, acceleration=st.floats(0.5, 20.0),
       most=st.floats(0.1, 3.0), limits=st.tuples(SOME, SOME).map(sorted),
       aims=st.tuples(SOME, SOME).map(sorted), step=st.sampled_from([0.01, 0.05]))
def test_a_step_is_the_one_nearest_to_its_goal_that_may_be(
        place, velocity, goal, acceleration, most, limits, aims, step):
    """Towards a goal it is slower than it may be only where it could not stop any more."""
    (lower, upper), (low, high) = limits, aims
    own = box(1, lower, upper, most, acceleration)
    walk = _Walk([place], [velocity], own, step)
    walk.step([goal], [low], [high])
    room = velocity * abs(velocity) / (2 * acceleration)
    up = min(upper - place, max(high - place, room, 0.0))
    down = min(place - lower, max(place - low, -room, 0.0))
    fastest = within(up, velocity, acceleration, most, step)
    slowest = -within(down, -velocity, acceleration, most, step)
    slowest, fastest = min(slowest, fastest), max(slowest, fastest)
    wanted = min(max(goal, slowest), fastest)
    assert walk.speed[0] == pytest.approx(0.0 if abs(wanted) < STILL else wanted, abs=2e-6)
    assert walk.now[0] == pytest.approx(place + step * (velocity + walk.speed[0]) / 2, abs=1e-12)


def test_a_step_stands_still_below_a_millionth():
    own = box(1, -1.0, 1.0, 1.0, 5.0)
    for speed in (0.9e-6, -0.9e-6, 1.1e-6, -1.1e-6):
        walk = _Walk([0.0], [0.0], own, 0.01)
        walk.step([speed], [-1.0], [1.0])
        assert walk.speed == [speed if abs(speed) > STILL else 0.0]
