# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Tells the controller the plan, tick by tick: a window of it, a stop, or nothing."""

from collections import deque
import threading

import numpy as np
from pi0_ros.control.states import Machine, State
from pi0_ros.control.timing import Counters, TimeScale, Timing
from pi0_ros.motion.limits import JointLimits
from pi0_ros.motion.plan import Plan
from pi0_ros.motion.trajectory import first_piece, Trajectory, window

CLOCK_JUMP_NS = 1_000_000_000
KEPT_GAPS = 10          # between ticks: the next may come as late as the latest of them
REST_NS = 100_000_000   # that the end of a window takes to come to rest, at least


class ClockJump(Exception):
    """The clock that commands are stamped with jumped."""


class Teller:
    """What the control thread does with the plan that is in force, under the lock."""

    def __init__(self, joint_names: tuple[str, ...], limits: JointLimits, timing: Timing,
                 streams: np.ndarray | None = None) -> None:
        """
        Start disarmed.

        :param streams: [D] which joints are told no more than where to be now; None: all, or none
            where there are windows.
        """
        self.joint_names, self.limits, self.timing = joint_names, limits, timing
        self.streams = (np.full(len(joint_names), not timing.coasts) if streams is None
                        else streams)
        self.machine, self.counters, self.scale = Machine(), Counters(), TimeScale()
        self.lock = threading.RLock()
        self.epoch = 0  # chunks that were asked for in an older one are of no use any more
        self.chunk_obs_ns: int | None = None  # of the chunk in use, None: another is wanted
        self._plan = self._told = Plan.standing(np.zeros(len(joint_names)), 0)
        self._last: Trajectory | None = None  # that was published
        self._last_now_ns = 0
        self._tick_ns: int | None = None
        self._gaps: deque[int] = deque(maxlen=KEPT_GAPS)
        self._stop: tuple[np.ndarray | None] | None = None  # asked for, and where it shall lead
        self._turned = False      # whether a stop leads back to where the robot is
        self._first_ns = 0        # of the motion that begins, until it has been told
        self._waits_until_ns = 0  # for the controller to have come where the plan begins
        self._coasts_until_ns: int | None = None  # to rest, by itself and in silence

    def tick(self, now_ns: int) -> Trajectory | None:
        """
        Return what to publish at ``now_ns``, or None for silence.

        :raises ClockJump: the clock moved by more than a second since the last tick. The robot is
            disarmed and nothing more is published: old times mean nothing on the new clock.
        """
        with self.lock:
            last_ns, self._tick_ns = self._tick_ns, now_ns
            if last_ns is not None:
                gap_ns = now_ns - last_ns
                if self._lost_track(gap_ns, now_ns):
                    return None
                self._gaps.append(gap_ns)
            scaled_ns = self.scale.advance(now_ns)
            comes = scaled_ns < self._waits_until_ns  # to where the plan begins
            if not comes and not self._first_ns:
                self._tell_in_time(scaled_ns)
            if self._coasts_until_ns is None:
                if self._stop and self.machine.commands:
                    self._brake(scaled_ns, *self._stop)
                self._stop = None
            if comes:
                return None
            if self.machine.commands and self._first_ns:
                return self._begin(scaled_ns, now_ns)
            self._told = self._plan
            if not self.machine.commands:
                return None
            if self._coasts_until_ns is None:
                return self._window(scaled_ns, now_ns)
            if scaled_ns >= self._coasts_until_ns:
                self._coasts_until_ns = None
                if self._stop is None or self._stop[0] is None:
                    self._stop = None
                    self.machine.rested()
            return None

    def _window(self, scaled_ns: int, now_ns: int) -> Trajectory:
        if not self._plan.finite:
            self._fall_silent(State.FAULTED)
            raise FloatingPointError('the plan has a value that is not finite')
        out = window(self._plan.knots, self.joint_names, scaled_ns, self.timing.follow_ns,
                     self.limits, REST_NS, now_ns)
        if not out.finite:
            self._fall_silent(State.FAULTED)
            raise FloatingPointError('the command has a value that is not finite')
        # The last message of a motion says where to rest; after it a live node is silent.
        if not self._plan.remaining_ns(scaled_ns):
            self.machine.rested()
        self._last, self._last_now_ns = out, now_ns
        return out

    def _begin(self, scaled_ns: int, now_ns: int) -> Trajectory:
        """Return the first piece of a motion; what comes after it waits."""
        first_ns, self._first_ns = self._first_ns, 0
        self._waits_until_ns = scaled_ns + first_ns
        late_ns = self._waits_until_ns + self.timing.lead_ns - self._plan.begin_ns
        self._plan = self._plan.later(max(0, late_ns))
        self._told = Plan.standing(self._plan.at(scaled_ns), scaled_ns)
        self._last_now_ns = now_ns
        self._last = first_piece(self._plan.at(scaled_ns), self.joint_names, first_ns, now_ns)
        return self._last

    def _tell_in_time(self, scaled_ns: int) -> None:
        """Let a plan that comes too late for this tick begin later, or go on as before."""
        plan, told = self._plan, self._told
        by_ns = scaled_ns + self.timing.lead_ns - plan.begin_ns
        if plan is told or by_ns <= 0:
            return
        if not told.remaining_ns(plan.begin_ns):  # the robot stood
            self._plan = plan.later(by_ns)
        else:
            self._plan, self.chunk_obs_ns = told, None
            self.counters.late_plans += 1
            self.counters.merged -= 1
            self.counters.dropped += 1

    def _brake(self, scaled_ns: int, target: np.ndarray | None) -> None:
        here = self._plan.at(scaled_ns)
        if scaled_ns < self._waits_until_ns or self._first_ns:  # it only was to move
            self._plan = Plan.standing(here, scaled_ns)
            self._first_ns = 0
            if scaled_ns < self._waits_until_ns:  # the first piece is on, and cannot be stopped
                self._coasts_until_ns = self._waits_until_ns
            else:
                self.machine.rested()
        else:
            begin_ns = scaled_ns + self.timing.lead_ns
            self._plan = self._plan.stopped(
                begin_ns, self.limits.including(self._plan.at(begin_ns)), self.timing.brake_ns,
                None if target is None else self.limits.clamp(target))

    def _lost_track(self, gap_ns: int, now_ns: int) -> bool:
        """
        Return whether the last window already slowed down, or the clock stepped.

        The controller is then behind the plan: going on with it would jump. Let the robot come to
        rest as the window does, or stand at the last command where there is no window, and ask for
        a new chunk from there. A clock that steps ahead looks like a late tick, but the controller
        is not there yet: so it is given the time.
        """
        timing = self.timing
        if 0 <= gap_ns <= timing.late_ns:
            return False
        if gap_ns < 0:  # the controller went on for about a period all the same
            self.scale.shift(gap_ns - timing.period_ns)
        scaled_ns = self.scale.advance(now_ns)
        self._gaps.clear()
        jumped = not -CLOCK_JUMP_NS <= gap_ns <= CLOCK_JUMP_NS + 3 * timing.period_ns
        moves = self.machine.commands and self._coasts_until_ns is None
        if moves and not self._first_ns and scaled_ns >= self._waits_until_ns:
            self.counters.late_ticks += 1
            self._let_coast(scaled_ns, scaled_ns - max(gap_ns, 0), max(gap_ns, 0))
        if jumped:
            self._fall_silent(State.DISARMED)
            self._rest_at(self._plan.rest, scaled_ns)
            self._waits_until_ns += max(0, gap_ns)  # a first piece that is on goes on
            raise ClockJump(f'the clock jumped by {gap_ns / 1e9:+.2f} s')
        return True

    def _let_coast(self, scaled_ns: int, last_ns: int, more_ns: int) -> None:
        """Let the robot come to rest as it was told at ``last_ns``, and ``more_ns`` longer."""
        self.epoch += 1
        self.chunk_obs_ns = None  # a stop that leads somewhere does so after it
        self.machine.end_in(State.STANDING)
        if self.timing.coasts and self._last is not None:
            told = self._last
            times_ns = told.times_ns + (told.stamp_ns - self._last_now_ns) + last_ns
            stands = self._told.at(last_ns)  # who was told no more than that does no more
            self._plan = Plan.of((times_ns, np.where(self.streams, stands, told.positions),
                                  np.where(self.streams, 0.0, told.velocities)), scaled_ns)
            self._coasts_until_ns = int(times_ns[-1]) + more_ns
        else:
            self._plan = Plan.standing(self._told.at(last_ns), scaled_ns)
            self.machine.rested()
        self._told = self._plan

    def _fall_silent(self, to: State) -> None:
        """End in ``to`` at once; the robot does what it was told last."""
        self.epoch += 1
        self.machine.end_in(to)
        self.machine.rested()

    def _rest_at(self, positions: np.ndarray, scaled_ns: int) -> None:
        """Stand at ``positions`` [D], and begin anew from there."""
        self._plan = self._told = Plan.standing(positions, scaled_ns)
        self._stop, self.chunk_obs_ns, self._coasts_until_ns = None, None, None
        self._first_ns, self._last = 0, None
        self.epoch += 1
