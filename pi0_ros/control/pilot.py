# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The plan of an armed robot: what a person, the guard and the policy ask of it."""

from dataclasses import replace

import numpy as np
from pi0_ros.control.states import State
from pi0_ros.control.teller import ClockJump, Teller
from pi0_ros.control.timing import Delays, Stance, Timing
from pi0_ros.motion.handover import make_handover, Switch
from pi0_ros.motion.limits import JointLimits
from pi0_ros.motion.plan import leftover, Plan
from pi0_ros.motion.splice import Rules, splice
from pi0_ros.motion.trajectory import Trajectory
from pi0_ros.observation.observation import Observation
from pi0_ros.policy.policy import ActionChunk, Leftover

__all__ = ['ClockJump', 'Pilot', 'Stance', 'Timing']
MOST_SLACK_NS = 100_000_000
EARLY_NS = 2_000_000    # before the tick that tells it, that a change of the plan is made for
PLANNING_NS = 5_000_000  # that making a plan may take: else it is made for the tick after
TRIES = 3               # to make a plan while ticks pass
AT_ONCE = Switch(0)     # how what a person leads to takes over: the limits smooth it


class Pilot(Teller):
    """
    Turns chunks into commands for an armed robot, and into silence for a disarmed one.

    Times come in as nanoseconds of one clock. Any method may be called from any thread: plans are
    made without the lock, and put in place under it where what was told since allows it.
    """

    def __init__(self, joint_names: tuple[str, ...], limits: JointLimits, timing: Timing,
                 streams: np.ndarray | None = None) -> None:
        """Start disarmed; see Teller."""
        super().__init__(joint_names, limits, timing, streams)
        self.handover: Switch = make_handover(timing.handover, timing.fade_ns)
        self.clamped: np.ndarray | None = None  # [D] how far the newest plan led out, if it did
        self._delays = Delays()
        self._chunk_ns = self._dt_ns = self._steps = self._offset = 0  # of the newest chunk

    def use(self, timing: Timing) -> None:
        """Use other times; the strategy of hand-over stays."""
        self.timing = timing

    # ---- what it is ----

    @property
    def state(self) -> State:
        """Return the state."""
        return self.machine.state

    @property
    def enabled(self) -> bool:
        """Return whether it is armed."""
        return self.machine.armed

    @property
    def speaking(self) -> bool:
        """Return whether the robot is being moved, or comes to rest."""
        return self.machine.commands

    @property
    def plan(self) -> Plan:
        """Return the plan that is in force; its times are those of ``scale``."""
        return self._plan

    @property
    def delay(self) -> int:
        """Return how many steps an inference takes, as measured: the longest of the last ten."""
        return self._delays.longest

    @property
    def newest(self) -> Trajectory | None:
        """Return what was published last since it was armed, or since it stood."""
        return self._last

    def waits(self, now_ns: int) -> bool:
        """Return whether a first piece is on: nothing can be told until it is over."""
        return self.scale.at(now_ns) < self._waits_until_ns

    @property
    def turned(self) -> bool:
        """Return whether a stop leads back to where the robot is already."""
        return self._turned

    def told(self, times_ns: np.ndarray) -> np.ndarray:
        """Return where the robot is told to be, [N, D], at times [N] of the clock."""
        return self._plan.sample(self.scale.of(times_ns))

    def remaining_ns(self, now_ns: int) -> int:
        """Return how long the robot still moves, 0 when it stands still."""
        return self._plan.remaining_ns(self.scale.at(now_ns))

    # ---- what a person, the guard and the policy ask ----

    def take_limits(self, limits: JointLimits) -> None:
        """Keep other limits from now on; an armed robot keeps those it was armed with."""
        with self.lock:
            if not self.enabled:
                self.limits = limits

    def arming(self) -> None:
        """Begin to arm."""
        with self.lock:
            self.machine.change(State.ARMING)

    def enable(self, positions: np.ndarray, now_ns: int) -> None:
        """
        Arm: the plan stands still at ``positions`` [D] until a chunk comes.

        :raises RuntimeError: the robot still stops, or a fault is latched.
        """
        with self.lock:
            if self.state is State.DISARMED:
                self.machine.change(State.ARMING)
            self.machine.change(State.STANDING)
            self._rest_at(positions, self.scale.at(now_ns))

    def disable(self, to: State = State.DISARMED, target: np.ndarray | None = None) -> None:
        """
        Disarm: a smooth stop from the next tick on, then silence.

        :param to: DISARMED or FAULTED. :param target: see ``stop``.
        """
        with self.lock:
            if self.state is State.STANDING and target is not None and self._last is not None:
                self.machine.change(State.MOVING)  # there, from where it was told to be
            moved = self.state is State.MOVING
            self.machine.end_in(to)
            self._halt(moved, target)

    def stop(self, target: np.ndarray | None = None) -> None:
        """
        Come to rest from the next tick on; chunks asked for before this are of no use any more.

        Calling it again during the stop does not start another, but for one with a target.

        :param target: [D] that the robot then goes to, NaN for joints that stay.
        """
        with self.lock:
            moved = self.state is State.MOVING
            if self.enabled:
                self.machine.end_in(State.STANDING)
            self._halt(moved, target)

    def _halt(self, moved: bool, target: np.ndarray | None) -> None:
        self.epoch += 1
        self.chunk_obs_ns = None
        if self.machine.commands and (moved or target is not None):
            self._stop, self._turned = (target,), target is not None

    def end_stop(self) -> None:
        """End a stop in what it was to end in, at once and in silence."""
        with self.lock:
            if self.state is State.STOPPING:
                self._fall_silent(self.machine.after)

    def give_up(self) -> None:
        """Command nothing any more: nobody is there who would."""
        with self.lock:
            self._fall_silent(State.FAULTED)

    def reset(self) -> None:
        """Leave a fault, once the robot has come to rest."""
        with self.lock:
            if self.state is State.STOPPING and self.machine.after is State.FAULTED:
                self.machine.after = State.DISARMED
            elif self.state is State.FAULTED:
                self.machine.change(State.DISARMED)

    def forget_time(self) -> None:
        """Be silent, and take the next tick for the first: the control thread is new."""
        with self.lock:
            if self.machine.commands:
                self.machine.end_in(State.DISARMED)
                self.machine.rested()
            self._tick_ns = None
            self._gaps.clear()
            self._rest_at(self._plan.rest, 0)
            self._waits_until_ns = 0

    def want_chunk(self) -> None:
        """
        Ask for a chunk at once, for example because the instruction changed.

        Whoever plays chunks whole comes to rest first.
        """
        with self.lock:
            if self.handover.waits and self.state is State.MOVING:
                self.stop()
            self.chunk_obs_ns = None

    def wants_chunk(self, now_ns: int) -> bool:
        """Return whether the next inference should start: at the latest at half a chunk."""
        with self.lock:
            scaled_ns, plan = self.scale.at(now_ns), self._plan
            comes = bool(self._first_ns) or scaled_ns < self._waits_until_ns
            if not self.enabled or self._coasts_until_ns is not None or comes:
                return False
            if self.scale.factor == 0.0 and self.state is State.MOVING:
                return False  # it holds, and what is planned is not used up
            if self.handover.waits:
                return not plan.remaining_ns(scaled_ns)
            replan_ns = min(self.timing.replan_ns, self._chunk_ns // 2)
            return (self.chunk_obs_ns is None or now_ns - self.chunk_obs_ns >= replan_ns
                    or plan.before_stop_ns(scaled_ns) <= self._needed_ns())

    def lasts(self, now_ns: int, longer_ns: int) -> bool:
        """Return whether the next inference may begin so much later: the plan lasts."""
        with self.lock:
            left_ns = self._plan.before_stop_ns(self.scale.at(now_ns))
            return self.state is State.MOVING and left_ns > self._needed_ns() + longer_ns

    def _needed_ns(self) -> int:
        """Return how long an inference may take: half as long again as measured, and two ticks."""
        slack_ns = min(2 * self.timing.period_ns, MOST_SLACK_NS)
        took_ns = max(0, self.delay + self._offset - 1) * self._dt_ns
        return 3 * took_ns // 2 + slack_ns

    def leftover(self, seen: Observation) -> Leftover | None:
        """
        Return what the next chunk shall continue; None where the hand-over wants none.

        :param seen: what it is decided from. Of a plan for another instruction only what will have
            been executed is left, if this inference takes as long as the last one: an exceptional
            one before it shall not make the arm react late.
        """
        with self.lock:
            plan, dt_ns, steps = self._plan, self._dt_ns, self._steps
            delay, last, obs_ns = self.delay, self._delays.last, self.scale.at(seen.t_obs_ns)
        if not (self.handover.continues and dt_ns):
            return None
        return leftover(plan, obs_ns + self._offset * dt_ns, seen, dt_ns, steps, delay, last,
                        self.limits)

    def accept(self, chunk: ActionChunk, now_ns: int, epoch: int, stance: Stance | None = None,
               leads: bool = False) -> str | None:
        """
        Take a chunk into the plan; return None, or why it is of no use any more.

        The new plan is made without the lock, for a moment after the tick that will tell it, and
        put in place if it still continues what the robot was told. If ticks have passed meanwhile
        it is made again, for so many ticks later: it will take as long again.

        :param epoch: the pilot's when the observation was taken.
        :param stance: where a robot that stands begins; None: where the plan stands.
        :param leads: whether a person decided it: it takes over at once, and measures nothing.
        :raises ValueError: the chunk is malformed, or no plan can be made of it.
        """
        passed_ns, before_ns = 0, None
        for _ in range(TRIES):
            with self.lock:
                now_ns = max(now_ns, self._tick_ns or now_ns)
                if before_ns is not None:
                    passed_ns += max(0, (self._tick_ns or before_ns) - before_ns)
                before_ns = self._tick_ns
                problem = self._of_no_use(epoch)
                base, at_ns, first_ns, scaled = self._ground(chunk, now_ns, stance, passed_ns)
                rules = Rules(self.limits.including(base.at(at_ns)),
                              AT_ONCE if leads else self.handover,
                              self.timing.brake_ns, None if self._tick_ns is None else
                              self.scale.at(self._tick_ns))
                was = self._plan
            made = problem or splice(base, scaled, at_ns, rules)
            with self.lock:
                if isinstance(made, str):
                    break
                made = self._of_no_use(epoch) or made
                if isinstance(made, str):
                    break
                if self._plan is was and self._in_time(made):
                    self._put(made, base, chunk, first_ns, leads)
                    return None
        with self.lock:
            self.counters.dropped += 1
        return made if isinstance(made, str) else 'the plan was told on while the chunk came'

    def _of_no_use(self, epoch: int) -> str | None:
        if not self.enabled:
            return 'the robot is disarmed'
        if self._coasts_until_ns is not None:
            return 'the robot comes to rest after a tick that came late'
        return 'chunk was asked for before a reset' if epoch != self.epoch else None

    def _ground(self, chunk: ActionChunk, now_ns: int, stance: Stance | None, later_ns: int = 0
                ) -> tuple[Plan, int, int, ActionChunk]:
        """
        Return the plan to go on from, from when, the first piece before, the chunk timed.

        :param later_ns: than the next tick.
        """
        base, first_ns = self._plan, self._first_ns
        at_ns = max(self.scale.at(self._next_tick(now_ns) + later_ns), self._waits_until_ns) + (
            self.timing.lead_ns if self._tick_ns is not None else 0)
        if self.state is State.STANDING:
            first_ns = stance.first_ns if stance and self.timing.coasts else 0
            at_ns += first_ns
            stands = base.rest if stance is None else np.where(
                self.streams, base.rest, stance.positions)
            if not np.array_equal(stands, base.rest):
                base = Plan.standing(stands, self.scale.at(now_ns))
        elif (self._tick_ns is not None and base is not self._told
              and not self._told.remaining_ns(base.begin_ns)):
            base = base.later(max(0, at_ns - base.begin_ns))  # it stands until it is told
        return base, at_ns, first_ns, replace(chunk, t_obs_ns=self.scale.at(chunk.t_obs_ns))

    def _next_tick(self, now_ns: int) -> int:
        """Return a time that is no earlier than the next tick, as ticks come."""
        if self._tick_ns is None:
            return now_ns
        usual_ns = max([self.timing.period_ns, *self._gaps])
        usual_ns = min(usual_ns, self.timing.late_ns)
        coming_ns = self._tick_ns + usual_ns
        if coming_ns < now_ns + PLANNING_NS:
            coming_ns += self.timing.period_ns
        return max(now_ns, coming_ns + EARLY_NS)

    def _in_time(self, made: Plan) -> bool:
        """
        Return whether the next tick can tell the robot what ``made`` changes.

        While it stands it is told nothing, and the motion may begin later.
        """
        if self._tick_ns is None or self.state is State.STANDING:
            return True
        next_ns = self._tick_ns + self.timing.period_ns  # that will tell it
        return self.scale.at(next_ns) + self.timing.lead_ns <= made.begin_ns

    def _put(self, made: Plan, base: Plan, chunk: ActionChunk, first_ns: int, leads: bool
             ) -> None:
        """Put a plan in place that was made of ``base``."""
        counters, first = self.counters, self._plan.instruction is None
        seen_ns = self.scale.at(chunk.t_obs_ns)
        if not leads:
            self._delays.measure((made.begin_ns - seen_ns) // chunk.dt_ns + 1 - chunk.offset,
                                 len(chunk.positions), first)
            self._chunk_ns = chunk.end_ns - chunk.t_obs_ns
            self._dt_ns, self._steps, self._offset = (chunk.dt_ns, len(chunk.positions),
                                                      chunk.offset)
        counters.merged += not leads
        counters.late_steps += made.late_steps
        counters.starved += made.starved
        counters.clamped += made.clamped is not None
        counters.slowed += made.slowed
        self.clamped = made.clamped
        if self.state is State.STANDING:
            self._told = Plan.standing(made.at(made.begin_ns), made.begin_ns)
            self._first_ns, self._last = first_ns, None
        elif base is not self._told:  # what the robot was not told yet changes as well
            made = replace(made, begin_ns=min(made.begin_ns, base.begin_ns))
        self._plan, self._stop = made, None
        self.machine.change(State.MOVING)
        self.chunk_obs_ns = chunk.t_obs_ns
