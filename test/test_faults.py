# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
What can go wrong, what the robot does and how it goes on: the rows of docs/safety.md.

On a synthetic clock, with a robot that follows its controller. Every row is looked at in the same
way: the joints come to rest within a second, no harder than the acceleration limit allows; then
the node is silent; when the cause is gone the robot moves again by itself, after it is armed, or
after a reset, and not before.
"""

from dataclasses import replace

import cv2
import numpy as np
from pi0_ros.control.guard import Guard, GuardRules
from pi0_ros.control.pilot import Pilot, Timing
from pi0_ros.observation.buffers import JointBuffer, LatestBuffer
from pi0_ros.observation.decoding import compressed_to_rgb
from pi0_ros.observation.finding import Finding
from pi0_ros.observation.observation import Freshness, Observation, ObservationBuilder
from pi0_ros.policy.policy import PolicyGone
from pi0_ros.sim.controller import TrajectoryController
import pytest
from rig import ACCELERATION, NAMES, Rig, START_MS
from support import box, chunk, MS

HARDEST = 1.02 * ACCELERATION

ITSELF, ARM, RESET = 'by itself', 'armed', 'reset'


def set_to(**values):
    """Return what sets attributes of a rig."""
    def act(rig):
        for name, value in values.items():
            setattr(rig, name, value)
    return act


def feed(*inputs):
    return set_to(feeds=set(inputs))


def broken_image():
    _, jpeg = cv2.imencode('.jpg', np.zeros((8, 8, 3), np.uint8))
    try:
        compressed_to_rgb(np.frombuffer(jpeg.tobytes()[:-40], np.uint8))
    except ValueError as error:
        return error
    raise AssertionError('a truncated image was decoded')


def freeze(rig, name):
    stamp = rig.now
    setattr(rig, name, lambda now: stamp)


def not_a_number(values):
    return np.where(np.arange(len(values))[:, None] == 7, np.nan, values)


def stamped(rig, **stamps):
    for name, by in stamps.items():
        setattr(rig, name, lambda now, by=by: now + by)


def good(rig):
    fresh = Rig()
    rig.policy, rig.image, rig.said = fresh.policy, fresh.image, {}
    rig.image_stamp, rig.joint_stamp = fresh.image_stamp, fresh.joint_stamp
    rig.feeds, rig.names, rig.disturb = fresh.feeds, list(NAMES), fresh.disturb
    rig.infer_ms, rig.instruction, rig.blocked = 60, 'go', None
    rig.clock_stands = False
    rig.guard.press_stop(False)


def block(rig):
    rig.blocked = rig.measured() - [0.5, 0.0]


def jump_clock(by_ms):
    def jump(rig):
        rig.run(7)  # no message is on its way
        rig.offset += by_ms
    return jump


# name: what breaks, the reason that is told, how it goes on
FAULTS = {
    'camera_dead': (feed('joints'), 'camera_silent', ITSELF),
    'camera_frozen_stamp': (lambda rig: freeze(rig, 'image_stamp'), 'camera_silent', ITSELF),
    'camera_future_stamp': (lambda rig: stamped(rig, image_stamp=140, joint_stamp=160),
                            'future_stamp', ITSELF),
    'camera_skew': (lambda rig: stamped(rig, image_stamp=-160), 'camera_skew', ITSELF),
    'camera_wrong_encoding': (set_to(image=ValueError("encoding '16UC1' is not supported")),
                              'camera_unreadable', ITSELF),
    'camera_truncated_jpeg': (set_to(image=broken_image()), 'camera_unreadable', ITSELF),
    'joints_stopped': (feed('images'), 'joints_silent', ITSELF),
    'joints_frozen_stamp': (lambda rig: freeze(rig, 'joint_stamp'), 'joints_silent', ITSELF),
    'joints_future_stamp': (lambda rig: stamped(rig, joint_stamp=200, image_stamp=100),
                            'future_stamp', ITSELF),
    'joints_nan': (set_to(disturb=lambda positions: positions * np.nan), 'joints_silent', ITSELF),
    'joints_duplicated': (set_to(names=['a', 'a']), 'joints_silent', ITSELF),
    'joints_renamed': (set_to(names=['a', 'c']), 'joints_silent', ITSELF),
    'joints_truncated': (set_to(disturb=lambda positions: positions[:1]), 'joints_silent', ITSELF),
    'policy_raises': (set_to(policy=RuntimeError('no kernel image')), 'policy_failed', RESET),
    'policy_out_of_memory': (set_to(policy=MemoryError('CUDA out of memory')), 'policy_failed',
                             RESET),
    'policy_process_gone': (set_to(policy=PolicyGone('the policy process 7 ended')),
                            'policy_gone', RESET),
    'policy_hangs': (set_to(policy='hangs'), 'policy_hangs', RESET),
    'policy_nan': (set_to(policy=not_a_number), 'chunk_not_finite', RESET),
    'policy_wrong_shape': (set_to(policy=lambda values: values[:, :1]), 'chunk_shape', RESET),
    'policy_jump': (set_to(policy=lambda values: values + 0.4), 'chunk_start', RESET),
    'policy_step': (set_to(policy=lambda values: np.vstack([values[:20], values[20:] + 0.4])),
                    'chunk_jump', RESET),
    'policy_out_of_reach': (set_to(policy=lambda values: values + np.linspace(0, 3, 50)[:, None]),
                            'chunk_limits', RESET),
    'policy_unreachable': (set_to(said={'problem': "'tool0' cannot follow"}), 'chunk_unreachable',
                           RESET),
    'policy_slow': (set_to(infer_ms=700), 'chunk_late', RESET),
    'robot_blocked': (block, 'tracking', RESET),
    'clock_back': (jump_clock(-50_000), 'clock_jump', ARM),
    'clock_ahead': (jump_clock(50_000), 'clock_jump', ARM),
    'operator_stop': (lambda rig: rig.guard.press_stop(True), 'operator_stop',
                      RESET),
    'operator_disarms': (lambda rig: rig.guard.disarm(Finding('operator', 'disarmed',
                                                              'operator')), 'operator', ARM),
}


@pytest.mark.parametrize('name', FAULTS)
def test_fault(name):
    breaks, reason, recovery = FAULTS[name]
    rig = Rig().start()
    since = len(rig.path)
    breaks(rig)
    at_once = recovery != RESET or name in ('operator_stop', 'policy_process_gone')
    rig.run(1000 if at_once else 4000)
    assert not rig.moves(100) and rig.silent(100)
    rig.run(1000)
    found = rig.guard.stopped_by
    assert found.reason == reason, found
    assert (rig.guard.fault is not None) == (recovery == RESET)
    assert rig.accelerations(since - 100).max() < HARDEST
    assert found.text and found.subject
    if recovery == RESET:
        assert rig.arm() is rig.guard.fault  # refused while in a fault
    good(rig)
    rig.run(500)
    if recovery != ITSELF:
        assert not rig.moves() and not rig.pilot.enabled
        if recovery == RESET:
            assert rig.guard.reset(rig.steady * MS) is None
            assert not rig.run(500).moves()
        assert rig.arm() is None
    rig.run(1500)
    assert rig.moves()
    assert rig.accelerations(since + 500).max() < HARDEST


@pytest.mark.parametrize('name', ['operator_stop', 'policy_hangs'])
def test_reset_is_refused_while_the_cause_is_there(name):
    breaks, reason, _ = FAULTS[name]
    rig = Rig().start()
    breaks(rig)
    rig.run(4000)
    assert rig.guard.reset(rig.steady * MS).reason == reason and rig.guard.fault
    assert rig.arm() is not None
    good(rig)
    rig.run(100)
    assert rig.guard.reset(rig.steady * MS) is None


def test_a_cause_that_persists_latches_again():
    rig = Rig().start()
    rig.policy = RuntimeError('still broken')
    rig.run(3000)
    assert rig.guard.reset(0) is None
    rig.guard.arm(rig.now * MS)  # past the look ahead, which would refuse
    count = len(rig.commands)
    rig.run(2000)
    assert rig.guard.fault.reason == 'policy_failed' and len(rig.commands) == count


def test_simulated_time_that_stands_lets_the_window_run_out():
    rig = Rig().start()
    rig.clock_stands = True
    count = len(rig.commands)
    rig.run(250)
    assert len(rig.commands) == count and not rig.run(300).moves()
    rig.clock_stands, rig.offset = False, rig.offset - 550
    rig.run(1500)
    assert rig.moves() and rig.accelerations()[-200:].max() < HARDEST


def test_a_node_that_dies_leaves_the_robot_at_rest_within_its_window():
    rig = Rig().start()
    rig.node_dead = True
    rig.run(200)
    assert not rig.run(300).moves()


@pytest.mark.parametrize('by_ms', [-40, -200, -500])
def test_a_clock_that_steps_back_a_little_makes_no_jump(by_ms):
    rig = Rig().start()
    since = len(rig.path)
    jump_clock(by_ms)(rig)
    rig.run(3500)
    assert rig.pilot.enabled and rig.moves()
    assert rig.accelerations(since - 300).max() < HARDEST


def test_two_chunks_at_once_and_a_lost_one_leave_no_mark():
    rig = Rig().start()
    since = len(rig.path)
    for _ in range(2):
        seen = rig.guard.observe(rig.now * MS, 'go')
        rig.guard.accept(rig.decide(seen), seen, rig.now * MS, rig.pilot.epoch)
    rig._pending = None
    rig.run(1500)
    assert rig.moves() and rig.accelerations(since).max() < HARDEST


def test_a_bag_that_loops_is_a_clock_that_goes_back_each_time():
    rig = Rig().start()
    for _ in range(3):
        jump_clock(-20_000)(rig)
        rig.run(1700)
        assert not rig.pilot.enabled and rig.guard.stopped_by.reason == 'clock_jump'
        assert rig.arm() is None
        assert rig.run(1500).moves()


def test_one_bad_chunk_is_rejected_and_the_plan_goes_on():
    rig = Rig().start()
    seen = rig.guard.observe(rig.now * MS, 'go')
    rejected = rig.guard.rejections
    bad = chunk(np.full((50, 2), np.nan), t_obs_ns=seen.t_obs_ns)
    found = rig.guard.accept(bad, seen, rig.now * MS, rig.pilot.epoch)
    assert found.reason == 'chunk_not_finite' and rig.guard.rejections == rejected + 1
    assert rig.run(1500).moves() and not rig.guard.fault


def test_what_was_asked_before_a_stop_never_counts():
    rig = Rig().start()
    seen, epoch = rig.guard.observe(rig.now * MS, 'go'), rig.pilot.epoch
    rig.pilot.stop()
    for _ in range(5):
        rig.guard.accept(chunk(np.full((50, 2), 9.0), t_obs_ns=seen.t_obs_ns), seen,
                         rig.now * MS, epoch)
    assert not rig.guard.fault


def test_small_skew_is_served():
    rig = Rig().start()
    rig.image_stamp = lambda now: now - 100
    assert rig.run(1500).moves() and rig.guard.stopped_by is None


# ---- arming ----

def refused(rig, ms=200):
    rig.run(ms)
    found = rig.arm()
    assert not rig.pilot.enabled
    return found


def test_arming_names_the_input_that_is_missing():
    rig = Rig()
    rig.feeds = {'joints'}
    assert str(refused(rig)) == "camera 'front' has not published an image"


def test_arming_says_how_far_each_joint_is_from_the_first_action():
    rig = Rig(policy=lambda values: values * 0 + [0.5, 0.1])
    found = refused(rig)
    assert found.reason == 'chunk_start' and found.subject == 'a'
    assert found.amount == pytest.approx(0.5) and 'a 0.50, b 0.10' in found.text


def test_a_robot_that_moves_is_not_armed():
    rig = Rig()
    rig.disturb = lambda positions: positions + [0.0, 2e-4 * (rig.steady - START_MS)]
    assert refused(rig).reason == 'moving'
    rig.disturb = lambda positions: positions + 0.01
    rig.instruction = 'go'
    assert (rig.run(300), rig.arm())[1] is None


def test_a_robot_that_still_stops_is_not_armed():
    rig = Rig().start()
    rig.pilot.disable()
    rig.run(40)
    assert rig.arm().reason == 'stopping'
    rig.run(1000)
    assert rig.arm() is None


def test_a_robot_that_somebody_moves_while_it_stands_is_disarmed():
    rig = Rig().start()
    rig.instruction = ''
    rig.guard.hold('no_instruction')
    rig.run(1500)
    assert rig.pilot.enabled and not rig.moves()
    rig.disturb = lambda positions: positions + [0.2, 0.0]
    rig.run(300)
    assert not rig.pilot.enabled and rig.guard.stopped_by.reason == 'moved'
    assert rig.guard.fault is None and rig.arm() is None


def test_an_arm_that_sags_is_armed_again_without_a_jump():
    rig = Rig().start()
    rig.disturb = lambda positions: positions - [0.08, 0.0]
    rig.run(1000)
    rig.pilot.disable()
    rig.run(1500)
    since = len(rig.path)
    now_ns = rig.now * MS
    assert rig.guard.why_not(now_ns, None) is None
    assert rig.guard.arm(now_ns) is None
    rig.run(2000)
    assert rig.moves() and rig.accelerations(since).max() < HARDEST


def test_a_robot_that_was_kept_far_from_its_plan_is_armed_where_it_is():
    rig = Rig().start()
    block(rig)
    rig.run(3000)
    assert rig.guard.fault.reason == 'tracking' and rig.guard.reset(rig.steady * MS) is None
    assert rig.guard.arm(rig.now * MS) is None
    told = rig.pilot.plan.sample(np.array([rig.now * MS]))[0]
    np.testing.assert_allclose(told, rig.blocked)


@pytest.mark.parametrize('lag_ms', [100, 150, 200])
def test_a_robot_that_lags_is_not_taken_for_one_that_does_not_follow(lag_ms):
    rig = Rig()
    fast = replace(rig.pilot.limits, velocity=np.full(2, 3.0), acceleration=np.full(2, 20.0),
                   stopping=np.full(2, 20.0))
    rig.pilot.limits = fast
    rig.measured = lambda: rig.path[-lag_ms] if len(rig.path) > lag_ms else np.zeros(2)

    def swing(seen):  # at up to 2 rad/s, from where the robot is measured
        due = seen.t_obs_ns / MS + 20 * np.arange(51) - START_MS
        wave = np.stack([np.sin(due / 500), 0 * due], axis=1)
        back = np.exp(-(due - due[0]) / 500)[:, None]
        return chunk((wave + back * (seen.state - wave[0]))[1:], t_obs_ns=seen.t_obs_ns)

    rig.decide = swing
    rig.run(300)
    assert rig.arm() is None
    rig.run(8000)
    assert rig.guard.fault is None and rig.moves(), rig.guard.fault
    speed = np.abs(np.diff(np.array(rig.path), axis=0)).max() * 1000
    assert speed > 1.5


def test_playing_chunks_whole_does_not_mind_a_slow_policy():
    rig = Rig(infer_ms=900, strategy='synchronous')
    rig.run(100)
    assert rig.arm() is None
    rig.run(6000)
    assert rig.guard.fault is None and len(rig.commands) > 100


def test_arming_asks_with_the_limits_that_will_hold():
    rig = Rig()
    rig.run(200)
    rig.pilot.limits = replace(rig.pilot.limits, jump=np.full(2, 0.001),
                               velocity=np.full(2, 0.01))
    rig.policy = lambda values: values + 0.05
    assert rig.arm().reason == 'chunk_start'


def test_arming_twice_changes_nothing():
    rig = Rig().start()
    before = rig.pilot.epoch
    assert rig.arm() is None and rig.pilot.epoch == before


def test_a_robot_in_the_margin_may_only_come_out_of_it():
    rig = Rig(policy=lambda values: values * 0 + 2.3)
    rig.controller = TrajectoryController(NAMES, np.full(2, 2.04))
    rig.run(200)
    assert rig.arm().reason == 'chunk_start'
    rig.policy = lambda values: values * 0 + 2.2
    rig.run(100)
    assert rig.arm() is None
    rig.run(1000)
    assert np.array(rig.path).max() <= 2.04 + 1e-9
    rig.policy = lambda values: values * 0 + 1.95
    rig.run(2000)
    assert rig.path[-1].max() == pytest.approx(1.95, abs=5e-3)


def test_a_robot_in_another_unit_is_not_armed():
    rig = Rig()
    rig.disturb = lambda positions: positions * 0 + 45.0
    assert refused(rig).reason == 'outside'


def test_unknown_limits_are_no_limits_only_if_somebody_says_so():
    rig = Rig()
    rig.pilot.limits = replace(rig.pilot.limits, unknown=("position of 'a'",))
    assert "position of 'a'" in str(refused(rig))
    rig.guard.use(GuardRules(allow_missing_limits=True))
    assert rig.arm() is None


def test_a_dry_run_does_not_ask_whether_the_robot_follows():
    rig = Rig(rules=GuardRules(tracks=False)).start()
    rig.disturb = lambda positions: np.zeros(2)
    assert rig.run(1000).guard.fault is None


# ---- joints without ends ----

def turning():
    """Return a rig whose joint a is continuous, reports wrapped angles, and turns on and on."""
    rig = Rig()
    rig.pilot.limits = replace(rig.pilot.limits, turns=np.array([True, False]),
                               lower=np.array([-np.inf, -2]), upper=np.array([np.inf, 2]))
    rig.disturb = lambda positions: (positions + np.pi) % (2 * np.pi) - np.pi

    def on(seen):
        ahead = 0.02 * np.arange(1, 51)  # 1 rad/s, in the wrapped angles of its training
        return (seen.state + np.stack([ahead, 0 * ahead], axis=1) + np.pi) % (2 * np.pi) - np.pi

    rig.decide = lambda seen: chunk(on(seen), t_obs_ns=seen.t_obs_ns)
    return rig


def test_a_continuous_joint_turns_on_through_the_wrap_of_its_angle():
    rig = turning()
    rig.run(100)
    assert rig.arm() is None
    rig.run(15_000)
    assert rig.guard.fault is None and rig.guard.rejections == 0
    assert np.ptp(np.array(rig.path)[:, 0]) > 4 * np.pi
    assert rig.accelerations().max() < HARDEST
    seen = rig.guard.observe(rig.now * MS, 'go')
    rig.pilot.handover.continues = True
    left = rig.pilot.leftover(seen)
    assert np.abs(left.positions[0] - seen.state).max() < 0.5  # near what the policy sees


def test_a_policy_of_ten_hertz_may_step_further():
    rig = Rig().start()
    seen = rig.guard.observe(rig.now * MS, 'go')
    values = seen.state + 0.25 * np.arange(1, 6)[:, None] * [1, 0]
    slow = chunk(values, t_obs_ns=seen.t_obs_ns, dt_ns=100 * MS)
    fast = chunk(values, t_obs_ns=seen.t_obs_ns)
    assert rig.guard.check(slow, seen, rig.now * MS) is None
    assert rig.guard.check(fast, seen, rig.now * MS).reason == 'chunk_start'


def test_a_motion_by_positions_that_came_late_goes_on_where_it_was_told_to_be():
    """There is no window: the robot stands at the last command, also after it is armed again."""
    pilot = Pilot(NAMES, box(2, -2, 2, 1.0, 5.0, 0.2, 0.3),
                  Timing.at_rate(50.0, 0.3, 'blend', coasts=False))
    joints, camera = JointBuffer(NAMES), LatestBuffer()
    guard = Guard(pilot, ObservationBuilder(joints, {'front': camera}, lambda image: image,
                                            Freshness(10**10, 10**10, 10**10)), GuardRules())
    at, now = np.zeros(2), 10**12

    def tick(after_ms=20):
        nonlocal at, now
        now += after_ms * MS
        joints.put(list(NAMES), at, now, now)
        camera.put(0, now, now)
        told, _ = guard.tick(now)
        at = at if told is None else told.start
        return told

    for _ in range(40):
        tick()
    guard.arm(now)
    seen = Observation(now, at, {}, {}, 'go')
    rising = chunk(0.008 * np.arange(1, 51)[:, None] * np.ones(2), t_obs_ns=now)
    assert guard.accept(rising, seen, now, pilot.epoch) is None
    for _ in range(25):
        tick()
    tick(90)
    for _ in range(60):
        tick()
    guard.disarm(Finding('operator', 'disarmed', 'operator'))
    for _ in range(60):
        tick()
    last = at
    assert guard.arm(now) is None
    np.testing.assert_allclose(pilot.plan.rest, last, atol=1e-9)


def test_a_fault_that_was_reset_is_no_reason_any_more():
    rig = Rig().start()
    rig.guard.latch(Finding('tracking', 'it does not follow', 'a'))
    rig.run(1500)
    assert rig.guard.stopped_by.reason == 'tracking'
    assert rig.guard.reset(rig.steady * MS) is None
    assert rig.guard.stopped_by is None


def test_who_is_armed_anew_has_failed_nothing_yet():
    rig = Rig()
    rig.run(100)
    assert rig.arm() is None
    for again in range(2):
        for _ in range(2):
            rig.guard.failed('it raised', rig.now * MS)
        assert rig.guard.fault is None
        if not again:
            rig.pilot.disable()
            rig.run(2000)
            assert rig.guard.arm(rig.now * MS) is None
    rig.guard.failed('it raised', rig.now * MS)
    assert rig.guard.fault.reason == 'policy_failed' and rig.guard.failures == 5


def test_a_tool_that_training_never_saw_there_is_not_armed_for():
    rig = Rig()
    rig.run(100)
    rig.said = {'unlike': "'tool0.x' is 2.0"}
    refusal = rig.arm()
    assert refusal.reason == 'unlike_training' and "'tool0.x' is 2.0" in str(refusal)
    rig.said = {}
    rig.run(500)
    assert rig.arm() is None
    rig.run(1500)
    assert rig.moves()
    rig.said = {'unlike': "'tool0.x' is 2.0"}
    rig.run(2000)
    assert rig.moves() and rig.pilot.enabled, 'a robot on its way is not stopped for it'


def test_who_arms_before_the_robot_is_instructed_is_asked_at_the_first_chunk():
    rig = Rig()
    rig.instruction = ''
    rig.run(100)
    assert rig.guard.arm(rig.now * MS) is None
    rig.run(300)
    rig.said, rig.instruction = {'unlike': "'tool0.x' is 2.0"}, 'go'
    rig.run(1000)
    assert not rig.moves() and not rig.pilot.enabled
    assert rig.guard.stopped_by.reason == 'unlike_training'
