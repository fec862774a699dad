"""Whether the robot may move: everything that is asked before a command leaves.

At every tick, in this order, and the first that finds something decides: a latched fault, not
armed, inputs, the robot itself (tracking error). A chunk is asked before it becomes part of the
plan: its shape, its values, its age, whether it begins where the robot is, steps, limits. What the
plan is made of then keeps the limits by itself (limiter.py).
"""

import threading
from dataclasses import dataclass, replace

import numpy as np

from pi0_ros.control import safety
from pi0_ros.control.pilot import ClockJump, Pilot
from pi0_ros.control.trajectory import Trajectory
from pi0_ros.observation.finding import Finding
from pi0_ros.observation.observation import NotReady, Observation, ObservationBuilder
from pi0_ros.policy.policy import ActionChunk

RETRY_NS = 100_000_000          # between inferences while one fails or an image cannot be read
IMAGE_PROBLEM_NS = 500_000_000  # for which an image that could not be read is news
STILL_OVER_NS = 50_000_000
SETTLE_NS = 500_000_000         # after the last command, before a robot is taken to stand
SAME = 0.02                     # rad or m that a robot that stands may seem to move
LAGS_NS = 50_000_000 * np.arange(7)  # that a robot may be behind what it is told
CLEARED = Finding('cleared', 'the inputs were cleared: try again', 'clock')


@dataclass(frozen=True)
class GuardRules:
    """What the operator allows; nanoseconds."""

    chunk_age_ns: int = 500_000_000
    tracking_ns: int = 200_000_000
    hang_ns: int = 2_000_000_000  # of an inference, at least; also five times its 95th percentile
    rejections: int = 3           # of chunks in a row, and of inferences that fail, before a fault
    allow_missing_limits: bool = False
    tracks: bool = True           # whether the robot follows: not in a dry run


class Guard:
    """Keeps watch over one robot. Any method may be called from any thread.

    Times are nanoseconds: ``now_ns`` of the clock of stamps, ``steady_ns`` of one nobody sets.
    """

    def __init__(self, pilot: Pilot, builder: ObservationBuilder, rules: GuardRules) -> None:
        """Begin without a fault."""
        self.pilot, self.builder, self.rules = pilot, builder, rules
        self.fault: Finding | None = None
        self.stop_pressed = False
        self.stopped_by: Finding | None = None  # the last reason, until it goes on
        self.rejections = self.failures = 0     # in all
        self._in_a_row = 0
        self._away_since_ns: int | None = None
        self._image: tuple[int, Finding] | None = None
        self._retry_ns = 0
        self._rest: np.ndarray | None = None  # measured, since it stands
        self._spoke_ns, self._commanded = 0, False
        self._working_since_ns: int | None = None
        self._lock = threading.RLock()

    # ---- every tick ----

    def tick(self, now_ns: int) -> tuple[Trajectory | None, bool]:
        """Return what to publish, None for silence, and whether the policy should decide.

        :raises ClockJump: as Pilot.tick; the robot is disarmed.
        """
        wants, was_armed = False, self.pilot.enabled
        self._watch_rest(now_ns)
        if was_armed:
            finding = (self.fault or self.builder.check(now_ns) or self._tracking(now_ns)
                       or self._moved(now_ns))
            if self.fault:
                self.pilot.disable(now_ns)
            elif finding:
                if self.pilot.enabled:
                    self._stop(finding, now_ns)
            else:
                wants = self.wants_chunk(now_ns)
        try:
            return self.pilot.tick(now_ns), wants and self.pilot.enabled
        except ClockJump as jump:
            self._retry_ns, self._away_since_ns, self._image = 0, None, None
            self._rest = None
            if was_armed and not self.fault:
                self.stopped_by = Finding('clock_jump', f'{jump}: disarmed; arm it again', 'clock')
            raise

    def wants_chunk(self, now_ns: int) -> bool:
        """Return whether the next inference should start."""
        return now_ns >= self._retry_ns and self.pilot.wants_chunk(now_ns)

    def _tracking(self, now_ns: int) -> Finding | None:
        """Latch a robot that is not where it is told to be for too long; return that."""
        joints, queue = self.builder.joints.get(), self.pilot.queue
        if not self.rules.tracks or joints is None:
            return None
        told = queue.sample(joints.stamp_ns - LAGS_NS)
        finding = safety.check_tracking(joints.value[:told.shape[1]], told, queue.limits,
                                        self.pilot.joint_names)
        if finding is None:
            self._away_since_ns = None
            return None
        if self._away_since_ns is None:
            self._away_since_ns = now_ns
        if now_ns - self._away_since_ns < self.rules.tracking_ns:
            return None
        self.latch(finding, now_ns)
        return finding

    def _watch_rest(self, now_ns: int) -> None:
        """Remember where the robot was measured when it had come to rest."""
        joints = self.builder.joints.get()
        if self.pilot.speaking or joints is None:
            self._rest, self._spoke_ns = None, now_ns
        elif self._rest is None and now_ns - self._spoke_ns > SETTLE_NS:
            self._rest = joints.value[:len(self.pilot.joint_names)]

    def _moved(self, now_ns: int) -> Finding | None:
        """Disarm a robot that somebody else moves while it stands; return that.

        The next command would bring it back at once.
        """
        joints, rest = self.builder.joints.get(), self._rest
        if rest is None or joints is None or not self.rules.tracks:
            return None
        finding = safety.check_rest(joints.value[:len(rest)], rest, self.pilot.queue.limits,
                                    self.pilot.joint_names)
        if finding:
            self.disarm(finding, now_ns)
        return finding

    # ---- the policy's thread ----

    def observe(self, now_ns: int, instruction: str) -> Observation | Finding:
        """Return the observation at ``now_ns``, or, after a stop, why it cannot be taken."""
        try:
            observation = self.builder.build(now_ns, instruction)
        except NotReady as error:
            self._image = now_ns, error.finding
            self._retry_ns = now_ns + RETRY_NS
            self._stop(error.finding, now_ns)
            return error.finding
        self._image = None
        return observation

    def begin(self, steady_ns: int) -> None:
        """Begin to wait for an inference."""
        self._working_since_ns = steady_ns

    def end(self) -> None:
        """Wait no longer for an inference."""
        self._working_since_ns = None

    def accept(self, chunk: ActionChunk, observation: Observation, now_ns: int, epoch: int
               ) -> Finding | None:
        """Take a chunk into the plan; return None, or why not.

        Three in a row that a check rejects latch a fault; those that only came too late, after a
        stop or for a robot that is not armed do not count.
        """
        self._working_since_ns = None
        finding = self.check(chunk, observation, now_ns)
        if not finding:
            dropped = self.pilot.accept(chunk, now_ns, epoch)
            self._in_a_row = 0
            if not dropped:
                self.stopped_by = None
            return Finding('dropped', dropped, 'chunk') if dropped else None
        if not self.pilot.enabled or self.pilot.queue.epoch != epoch:
            return finding
        self.rejections += 1
        self._count(finding, now_ns)
        return finding

    def failed(self, text: str, now_ns: int, gone: bool = False) -> None:
        """Count an inference that raised; three in a row latch a fault, ``gone`` at once."""
        self._working_since_ns = None
        self.failures += 1
        if gone:
            self.latch(Finding('policy_gone', text, 'policy'), now_ns)
        else:
            self._count(Finding('policy_failed', text, 'policy'), now_ns)

    def _count(self, finding: Finding, now_ns: int) -> None:
        self._in_a_row += 1
        self._retry_ns = now_ns + RETRY_NS
        if self._in_a_row >= self.rules.rejections:
            self.latch(replace(finding, text=f'{self._in_a_row} inferences in a row failed, the '
                               f'last: {finding}'), now_ns)

    def check(self, chunk: ActionChunk, observation: Observation, now_ns: int) -> Finding | None:
        """Return why a chunk must not become part of the plan, or None."""
        names, queue = self.pilot.joint_names, self.pilot.queue
        measured = observation.state[:len(names)]
        limits = queue.limits if self.pilot.enabled else self.pilot.limits.including(measured)
        # Who plays chunks whole stands while one is decided: its age is no harm.
        return (safety.check_form(chunk, names)
                or (None if queue.handover.waits else
                    safety.check_age(chunk, now_ns, self.rules.chunk_age_ns))
                or safety.check_way(chunk, self._near(observation), limits, names))

    def _near(self, observation: Observation) -> list[np.ndarray]:
        """Return where the robot was, as measured and, if it is armed, as told: robots lag."""
        out = [observation.state[:len(self.pilot.joint_names)]]
        if self.pilot.enabled:
            out += list(self.pilot.queue.sample(observation.t_obs_ns - LAGS_NS))
        return out

    # ---- supervision ----

    def hung(self, now_ns: int, steady_ns: int, usual_ns: int) -> None:
        """Latch an inference that does not come back.

        :param usual_ns: the 95th percentile of what inferences take.
        """
        since, allowed_ns = self._working_since_ns, max(self.rules.hang_ns, 5 * usual_ns)
        if since is not None and steady_ns - since > allowed_ns:
            self.latch(self._hanging(steady_ns - since, allowed_ns), now_ns)

    @staticmethod
    def _hanging(took_ns: int, allowed_ns: int) -> Finding:
        return Finding('policy_hangs', 'the inference has not come back for '
                       f'{took_ns / 1e9:.1f} s, allowed are {allowed_ns / 1e9:.1f} s: the GPU or '
                       'its driver hangs',
                       'policy', took_ns / 1e9, allowed_ns / 1e9)

    def image_problem(self, now_ns: int) -> Finding | None:
        """Return what was wrong with an image that was to be used just now."""
        image = self._image
        return image[1] if image and now_ns - image[0] <= IMAGE_PROBLEM_NS else None

    def hold(self, reason: str, now_ns: int) -> None:
        """Stop smoothly because there is nothing to be done; goes on with an instruction."""
        self._stop(Finding(reason, {
            'no_instruction': 'waiting for an instruction',
            'refused': 'the instruction was refused'}[reason], 'instruction'), now_ns)

    def _stop(self, finding: Finding, now_ns: int) -> None:
        """Stop smoothly; the robot goes on by itself when the reason is gone."""
        if self.pilot.enabled:
            self.stopped_by = finding
        self.pilot.stop(now_ns)

    def latch(self, finding: Finding, now_ns: int) -> None:
        """Disarm until the operator resets; the first reason stays."""
        with self._lock:
            self.fault = self.fault or finding
            self.stopped_by = self.fault
        self.pilot.disable(now_ns)

    def disarm(self, finding: Finding, now_ns: int) -> None:
        """Stop smoothly and disarm; the operator may arm again at once."""
        if self.pilot.enabled:
            self.stopped_by = finding
        self.pilot.disable(now_ns)

    # ---- the operator ----

    def press_stop(self, pressed: bool, now_ns: int) -> None:
        """Latch the operator's stop, or release it: the fault stays until it is reset."""
        self.stop_pressed = pressed
        if pressed:
            self.latch(Finding('operator_stop', 'stopped by the operator', 'stop'), now_ns)

    def reset(self, steady_ns: int) -> Finding | None:
        """Clear the fault; return None, or why its cause is still there."""
        if self.stop_pressed:
            return Finding('operator_stop', 'the stop is still pressed: publish false on it first',
                           'stop')
        since = self._working_since_ns
        if self.fault and self.fault.reason == 'policy_hangs' and since is not None:
            return self._hanging(steady_ns - since, self.rules.hang_ns)
        self.fault, self._in_a_row, self._away_since_ns = None, 0, None
        return None

    def why_not(self, now_ns: int, problem: Finding | None) -> Finding | None:
        """Return why the robot cannot be armed, or None; ``problem`` is that of the inputs."""
        limits = self.pilot.limits
        if self.fault:
            return self.fault
        if limits.unknown and not (self.rules.allow_missing_limits and not limits.refused):
            missing = '; '.join(limits.unknown)
            return Finding('limits_unknown', f'joint limits are unknown, {missing}: publish '
                           "robot_description, or set parameter 'joint_limits', or "
                           "'allow_missing_limits'", 'robot_description')
        if self.pilot.speaking and not self.pilot.enabled:
            return Finding('stopping', 'the robot is still stopping: try again')
        return problem or self._unfit()

    def _unfit(self) -> Finding | None:
        """Return why a robot that is measured so is not armed, or None."""
        joints, names = self.builder.joints.get(), self.pilot.joint_names
        if self.pilot.enabled:
            return None
        if joints is None:
            return CLEARED
        if not self.rules.tracks:
            return None  # nothing that is commanded moves it
        moved, seconds = self.builder.joints.moved(STILL_OVER_NS)
        return (safety.check_still(moved[:len(names)], seconds, self.pilot.limits, names)
                or safety.check_inside(joints.value[:len(names)], self.pilot.limits, names))

    def too_far(self, chunk: ActionChunk, observation: Observation, now_ns: int
                ) -> Finding | None:
        """Return why the robot must not be armed for what the policy would do first, or None."""
        finding = self.check(chunk, observation, now_ns)
        if not finding or finding.reason != 'chunk_start':
            return finding
        away = safety.distance(chunk.positions, self._near(observation), self.pilot.limits)
        rows = ', '.join(f'{name} {far:.2f}' for name, far in zip(self.pilot.joint_names, away))
        return replace(finding, text=f'the first action is too far away: {rows}; {finding}')

    def arm(self, now_ns: int, same_controller: bool = False) -> Finding | None:
        """Arm, if it is not; return None, or why that cannot be done.

        The plan begins where the robot is measured; where it has not moved since the last stop and
        the same controller still holds it, where that was told to be: an arm may sag, a gripper
        holds something. Further away than that, the controller cannot be holding it there.
        """
        joints = self.builder.joints.get()
        if self.pilot.enabled or joints is None:
            return None if self.pilot.enabled else CLEARED
        self._in_a_row, self._away_since_ns, self._retry_ns = 0, None, 0
        self.stopped_by = None
        measured, rest = joints.value[:len(self.pilot.joint_names)], self._rest
        told = self.pilot.queue.sample(np.array([now_ns]))[0]
        limits = self.pilot.limits
        holds = (same_controller and rest is not None and self._commanded
                 and (np.abs(limits.nearest_turn(measured[None], rest)[0] - rest) < SAME).all()
                 and (np.abs(limits.nearest_turn(measured[None], told)[0] - told)
                      <= limits.jump).all())
        self.pilot.enable(told if holds else measured, now_ns)
        self._rest, self._commanded = measured, True
        return None
