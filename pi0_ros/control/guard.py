# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Whether the robot may move: everything that is asked before a command leaves.

At every tick, in this order, and the first that finds something decides: the robot itself, where
its joints are fresh, also while it stops; and while it is armed, inputs and the controller. A
chunk is asked before it becomes part of the plan: its shape, its values, its age, whether it
begins where the robot is, steps, limits. What the plan is made of then keeps the limits by itself
(limiter.py).
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from pi0_ros.control import safety
from pi0_ros.control.controllers import Controllers, Group
from pi0_ros.control.faults import Faults
from pi0_ros.control.following import Follower, LAGS_NS
from pi0_ros.control.pilot import ClockJump, Pilot, Stance
from pi0_ros.control.rules import check_chunk, GuardRules
from pi0_ros.control.states import State
from pi0_ros.motion.trajectory import Trajectory
from pi0_ros.observation.finding import Finding
from pi0_ros.observation.observation import NotReady, Observation, ObservationBuilder
from pi0_ros.policy.policy import ActionChunk

RETRY_NS = 100_000_000          # between inferences while one fails or an image cannot be read
IMAGE_PROBLEM_NS = 500_000_000  # for which an image that could not be read is news
STILL_OVER_NS = 200_000_000
LED = Finding('dropped', 'a person leads the robot', 'takeover')
STOPPING = Finding('stopping', 'the robot is still stopping: try again')
CLEARED = Finding('cleared', 'the inputs were cleared: try again', 'clock')


class Guard(Faults):
    """
    Keeps watch over one robot. Any method may be called from any thread.

    Times are nanoseconds: ``now_ns`` of the clock of stamps, ``steady_ns`` of one nobody sets.
    What decides on the state of the robot is done under the pilot's lock.
    """

    def __init__(self, pilot: Pilot, builder: ObservationBuilder, rules: GuardRules,
                 groups: Sequence[Group] = ()) -> None:
        """Begin without a fault. :param groups: of the robot's controllers; none: there is one."""
        super().__init__(pilot, rules)
        self.builder = builder
        self.controllers = Controllers(pilot.joint_names, groups)
        self.rejections = self.failures = 0     # in all
        self._follower = Follower(pilot, self.controllers)
        self._image: tuple[int, Finding] | None = None
        self.first = True  # whether the next chunk is the first since the robot was armed
        self._retry_ns = 0

    # ---- every tick ----

    def tick(self, now_ns: int) -> tuple[Trajectory | None, bool]:
        """
        Return what to publish, None for silence, and whether the policy should decide.

        :raises ClockJump: as Pilot.tick; the robot is disarmed.
        """
        with self._lock:
            was_armed = self.pilot.enabled
            scaling = self.controllers.scaling(now_ns)
            if 0.0 <= scaling <= safety.FULL_SPEED:
                self.pilot.scale.use(min(scaling, 1.0))
            self._follower.watch_rest(self.builder.joints.get(), now_ns)
            was_speaking = self.pilot.speaking
            finding = self._look(now_ns) if was_armed or was_speaking else None
            wants = was_armed and finding is None and self.wants_chunk(now_ns)
            try:
                told = self.pilot.tick(now_ns)
                if was_speaking and not self.pilot.speaking:
                    self._follower.note_rest()
                return told, wants and self.pilot.enabled
            except ClockJump as jump:
                self._retry_ns, self._image = 0, None
                self._follower.forget()
                if was_armed and not self.fault:
                    self.stopped_by = Finding('clock_jump', f'{jump}: disarmed; arm it again',
                                              'clock')
                raise

    def _look(self, now_ns: int) -> Finding | None:
        """Look at everything that stops a robot; return what was found."""
        finding = self._look_at_robot(now_ns)
        if finding or not self.pilot.enabled:
            return finding
        finding = (self.builder.check(now_ns) or self.controllers.problem(now_ns)
                   or self._follower.unsure(now_ns))
        if finding:
            self.stop(finding)
        return finding

    def _look_at_robot(self, now_ns: int) -> Finding | None:
        """Look at whether the robot follows, also while it stops, for whatever reason."""
        joints = self.builder.joints.get()
        if joints is None or not self.rules.tracks:
            return None
        follower, armed = self._follower, self.pilot.enabled
        if self.builder.check_joints(now_ns):
            follower.deaf(now_ns)
            return None
        measured = joints.value[:len(self.pilot.joint_names)]
        finding = follower.departed(now_ns)
        if finding:  # nobody follows: whatever was told now would be a jump
            follower.doubt()
            self.disarm(finding)
            self.pilot.end_stop()
            return finding
        finding = follower.tracking(joints.stamp_ns, measured, now_ns, self.rules.tracking_ns)
        if finding:
            follower.doubt()
            if self.fault is None or self.fault.reason != finding.reason:
                self.latch(finding, self._back(measured))
            return finding
        finding = follower.frozen(joints.stamp_ns, measured)
        if finding and armed:
            follower.doubt()
            self.disarm(finding, self._back(measured))
            return finding
        if not armed and not self.pilot.turned and follower.leans(measured, now_ns):
            follower.doubt()
            self.pilot.stop(self._back(measured))
        if not armed:
            return None
        finding = follower.moved(measured)
        if finding:
            self.disarm(finding)
        return finding

    def _back(self, measured: np.ndarray) -> np.ndarray:
        """Return where a robot goes that does not follow: where it is; grippers stay."""
        limits = self.pilot.limits
        return np.where(limits.alone | ~np.isfinite(limits.tracking), np.nan, measured)

    def wants_chunk(self, now_ns: int) -> bool:
        """Return whether the next inference should start."""
        return now_ns >= self._retry_ns and (self.led or self.pilot.wants_chunk(now_ns))

    # ---- the policy's thread ----

    def observe(self, now_ns: int, instruction: str) -> Observation | Finding:
        """Return the observation at ``now_ns``, or, after a stop, why it cannot be taken."""
        try:
            observation = self.builder.build(now_ns, instruction)
        except NotReady as error:
            self._image = now_ns, error.finding
            self._retry_ns = now_ns + RETRY_NS
            if not self.led:  # a person needs no images
                self.stop(error.finding)
            return error.finding
        self._image = None
        return observation

    def begin(self, steady_ns: int) -> None:
        """Begin to wait for an inference."""
        self._watchdog.working_since_ns = steady_ns

    def end(self) -> None:
        """Wait no longer for an inference."""
        self._watchdog.working_since_ns = None

    def accept(self, chunk: ActionChunk, observation: Observation, now_ns: int, epoch: int
               ) -> Finding | None:
        """
        Take a chunk into the plan; return None, or why not.

        Three in a row that a check rejects latch a fault; those that only came too late, after a
        stop or for a robot that is not armed do not count.
        """
        self._watchdog.working_since_ns = None
        if self.led:
            self._in_a_row, self._retry_ns = 0, now_ns + self.pilot.timing.replan_ns
            return LED
        finding = self.check(chunk, observation, now_ns)
        if chunk.unlike and self.first and self.pilot.enabled:  # armed before it was instructed
            finding = Finding('unlike_training', chunk.unlike, 'chunk')
            self.disarm(finding)
            return finding
        if not finding:
            stance = self.stance(now_ns)
            if isinstance(stance, Finding):
                self.disarm(stance)
                return stance
            try:
                dropped = self.pilot.accept(chunk, now_ns, epoch, stance)
            except (ValueError, ArithmeticError) as error:
                finding = Finding('chunk_not_finite', str(error), 'chunk')
            else:
                self._in_a_row, self.first = 0, False
                if not dropped:
                    self.stopped_by = None
                return Finding('dropped', dropped, 'chunk') if dropped else None
        if not self.pilot.enabled or self.pilot.epoch != epoch:
            return finding
        self.rejections += 1
        self._count(finding, now_ns)
        return finding

    def let_lead(self, led: bool) -> None:
        """Let a person lead, or the policy again."""
        self.led, self._retry_ns = led, 0
        self.first = self.first or not led  # the policy then begins anew

    def stance(self, now_ns: int) -> Stance | Finding | None:
        """Return where a motion begins, for a robot that stands and follows, or why nowhere."""
        joints = self.builder.joints.get()
        if self.pilot.state is not State.STANDING or joints is None or not self.rules.tracks:
            return None
        measured = joints.value[:len(self.pilot.joint_names)]
        return (self._follower.apart(measured, now_ns)
                or self._follower.stance(measured, now_ns))

    def failed(self, text: str, now_ns: int, gone: bool = False) -> None:
        """Count an inference that raised; three in a row latch a fault, ``gone`` at once."""
        self._watchdog.working_since_ns = None
        self.failures += 1
        if gone:
            self.latch(Finding('policy_gone', text, 'policy'))
        else:
            self._count(Finding('policy_failed', text, 'policy'), now_ns)

    def unserved(self, finding: Finding, now_ns: int, fresh: bool = True) -> None:
        """
        Note that nobody answers: the robot comes to rest at the end of its plan, and goes on.

        Who answers an armed robot wrongly three times in a row latches a fault.

        :param fresh: whether somebody was asked, and not only looked for too early.
        """
        self._watchdog.working_since_ns = None
        self.failures += fresh
        self._retry_ns = now_ns + RETRY_NS
        if fresh and self.pilot.enabled and finding.reason in ('server_error', 'server_answer'):
            self._count(finding, now_ns)
        with self._lock:
            if self.pilot.enabled:
                self.stopped_by = finding

    def _count(self, finding: Finding, now_ns: int) -> None:
        self._in_a_row += 1
        self._retry_ns = now_ns + RETRY_NS
        if self._in_a_row >= self.rules.rejections:
            self.latch(replace(finding, text=f'{self._in_a_row} inferences in a row failed, the '
                               f'last: {finding}'))

    def check(self, chunk: ActionChunk, observation: Observation, now_ns: int) -> Finding | None:
        """Return why a chunk must not become part of the plan, or None."""
        pilot, near = self.pilot, self._near(observation)
        return check_chunk(chunk, near, now_ns, pilot.limits.including(near[0]),
                           pilot.joint_names, pilot.handover, self.rules)

    def _near(self, observation: Observation) -> list[np.ndarray]:
        """Return where the robot was, as measured and, if it is armed, as told: robots lag."""
        out = [observation.state[:len(self.pilot.joint_names)]]
        if self.pilot.enabled:
            out += list(self.pilot.told(observation.t_obs_ns - LAGS_NS))
        return out

    # ---- supervision ----

    def watch(self, steady_ns: int, usual_ns: int) -> None:
        """
        Latch an inference that does not come back; end an arming that takes too long.

        :param usual_ns: the 95th percentile of what inferences take.
        """
        if hanging := self._watchdog.hanging(steady_ns, usual_ns, self.rules):
            self.latch(hanging)
        if late := self._watchdog.arming_late(steady_ns):
            self.disarm(late)

    def image_problem(self, now_ns: int) -> Finding | None:
        """Return what was wrong with an image that was to be used just now."""
        image = self._image
        return image[1] if image and now_ns - image[0] <= IMAGE_PROBLEM_NS else None

    # ---- the operator ----

    def why_not(self, now_ns: int, problem: Finding | None) -> Finding | None:
        """Return why the robot cannot be armed, or None; ``problem`` is that of the inputs."""
        limits = self.pilot.limits
        if self.fault:
            return self.fault
        if limits.unknown and not (self.rules.allow_missing_limits and not limits.refused):
            return Finding('description_refused' if limits.refused else 'limits_unknown',
                           f"joint limits are unknown, {'; '.join(limits.unknown)}",
                           'robot_description')
        if self.pilot.speaking and not self.pilot.enabled or self._still_comes(now_ns):
            return STOPPING
        return problem or self._unfit(now_ns)

    def _still_comes(self, now_ns: int) -> bool:
        """Return whether a first piece of an earlier motion is on: what is told now would jump."""
        return not self.pilot.enabled and self.pilot.waits(now_ns)

    def _unfit(self, now_ns: int) -> Finding | None:
        """Return why a robot that is measured so is not armed, or None."""
        joints, names = self.builder.joints.get(), self.pilot.joint_names
        if self.pilot.enabled:
            return None
        if joints is None:
            return CLEARED
        if not self.rules.tracks:
            return None  # nothing that is commanded moves it
        moved, seconds = self.builder.joints.pace(STILL_OVER_NS)
        return (safety.check_still(moved[:len(names)], seconds, self.pilot.limits, names)
                or safety.check_inside(joints.value[:len(names)], self.pilot.limits, names)
                or self.controllers.problem(now_ns) or self.controllers.silent(now_ns)
                or self._follower.apart(joints.value[:len(names)], now_ns))

    def unready(self, chunk: ActionChunk, observation: Observation, now_ns: int
                ) -> Finding | None:
        """Return why the robot must not be armed for what the policy would do first, or None."""
        finding = self.check(chunk, observation, now_ns)
        if not finding and chunk.unlike:
            return Finding('unlike_training', chunk.unlike, 'chunk')
        if not finding or finding.reason != 'chunk_start':
            return finding
        away = safety.distance(chunk.positions, self._near(observation), self.pilot.limits)
        rows = ', '.join(f'{name} {far:.2f}' for name, far in zip(self.pilot.joint_names, away))
        return replace(finding, text=f'the first action is too far away: {rows}; {finding}')

    def begin_arming(self, steady_ns: int) -> None:
        """
        Begin to arm; ``watch`` ends what takes too long.

        :raises RuntimeError: the robot is in a state in which that cannot be asked.
        """
        with self._lock:
            self.pilot.arming()
            self._watchdog.arming_since_ns = steady_ns

    def arm(self, now_ns: int) -> Finding | None:
        """
        Arm, if it is not; return None, or why that cannot be done.

        The robot stands where it is measured until a chunk comes; ``following`` says where that
        then begins.
        """
        with self._lock:
            if self.fault:
                return self.fault
            joints = self.builder.joints.get()
            if self.pilot.enabled or joints is None:
                return None if self.pilot.enabled else CLEARED
            if self.pilot.state not in (State.DISARMED, State.ARMING) or self._still_comes(now_ns):
                return STOPPING
            self._in_a_row, self._retry_ns, self._watchdog.arming_since_ns = 0, 0, None
            self.first, self.led = True, False
            self.stopped_by = None
            measured = joints.value[:len(self.pilot.joint_names)]
            self.pilot.enable(self._follower.begin(measured, now_ns), now_ns)
            return None
