# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What would have become of a policy's chunks between policy and robot."""

from dataclasses import dataclass

import numpy as np
from pi0_ros.configuration.advice import advised
from pi0_ros.control.config import ControlConfig, SafetyConfig
from pi0_ros.control.following import LAGS_NS
from pi0_ros.control.pilot import Timing
from pi0_ros.control.rules import check_chunk
from pi0_ros.motion.handover import make_handover
from pi0_ros.motion.limiter import SETTLED
from pi0_ros.motion.limits import JointLimits, RobotLimits
from pi0_ros.motion.plan import leftover, Plan
from pi0_ros.motion.splice import Rules, splice
from pi0_ros.observation.observation import Observation
from pi0_ros.policy.policy import ActionChunk, Body, Leftover

ALLOWED = 1.01  # of a velocity limit


@dataclass(frozen=True)
class Fate:
    """What happened to one chunk."""

    refused: str             # the reason, a word of docs/safety.md; '': taken
    clamped: tuple[str, ...] = ()  # joints that it led out of their position limits
    slowed: tuple[str, ...] = ()   # joints that it moved faster than their velocity limits
    jump: np.ndarray | None = None    # [D] from the plan before, where this chunk takes over
    border: np.ndarray | None = None  # [D] rms acceleration while the chunk before took over
    inside: np.ndarray | None = None  # [D] and after that, until this one came


class Execution:
    """
    Chunks as the node would have handed them over, one every moment, late by a fixed delay.

    The robot that they move is not there: observations are those of whoever was recorded. So what
    is told is how well consecutive chunks agree, not where they would have led.
    """

    def __init__(self, joint_names: tuple[str, ...], control: ControlConfig,
                 safety: SafetyConfig, delay_ns: int) -> None:
        """Begin with a stand. :param delay_ns: of an inference."""
        self.joint_names, self.delay_ns, self.handover = joint_names, delay_ns, control.handover
        self.timing = Timing.at_rate(control.control_rate, control.replan_period,
                                     control.handover)
        self._rules = safety.guard_rules()
        self._robot = RobotLimits(joint_names, safety.limit_rules(joint_names))
        self.stand()

    @property
    def limits(self) -> JointLimits:
        """Return the limits of the robot, as the node would have them."""
        return self._robot.now

    def body(self) -> Body:
        """Return what the policy may know of the robot."""
        return self._robot.body()

    @property
    def warning(self) -> str:
        """Return what is wrong with the robot description, '' if nothing is."""
        return advised(self._robot.problem) if self._robot.problem else ''

    @property
    def continues(self) -> bool:
        """Return whether the policy is told what is planned."""
        return make_handover(self.handover, self.timing.fade_ns).continues

    def describe(self, urdf: str | None) -> None:
        """Take the limits of a robot description."""
        if urdf is not None and self._robot.describe(urdf):
            self.stand()

    def unlimited(self) -> str:
        """Return a sentence on limits that are not known, '' if all are."""
        return self.warning or (
            f"joint limits are unknown, {'; '.join(self.limits.unknown)}: the live node would not "
            'arm; record robot_description' if self.limits.unknown else '')

    def shortest(self, moved: np.ndarray) -> np.ndarray:
        """Return distances [..., D] without whole turns of joints that turn."""
        return self.limits.shortest(moved)

    def stand(self) -> None:
        """Forget what was planned."""
        self._plan: Plan | None = None
        self._last_ns, self._joined = 0, False
        self._path = np.zeros(0, np.int64), np.zeros((0, len(self.joint_names)))

    def _goes_on(self, t_obs_ns: int) -> Plan | None:
        """Return the plan, where it still moves when a chunk of that observation would come."""
        plan, now_ns = self._plan, t_obs_ns + self.delay_ns
        if plan is None or now_ns <= self._last_ns or not plan.before_stop_ns(now_ns):
            return None
        return plan

    def leftover(self, seen: Observation, dt_ns: int, steps: int, offset: int
                 ) -> Leftover | None:
        """Return what the next chunk shall continue; None where nothing is planned."""
        plan, delay = self._goes_on(seen.t_obs_ns), self.delay_ns // dt_ns + 1 - offset
        first_ns = seen.t_obs_ns + offset * dt_ns
        if plan is None or not self.continues:
            return None
        return leftover(plan, first_ns, seen, dt_ns, steps, delay, delay, self.limits)

    def take(self, chunk: ActionChunk, seen: Observation) -> Fate:
        """Hand a chunk over; return what the safety checks and the plan before make of it."""
        names = self.joint_names
        state = seen.state[:len(names)]
        limits = self.limits.including(state)
        plan, now_ns = self._goes_on(chunk.t_obs_ns), chunk.t_obs_ns + self.delay_ns
        near = [state, *(plan.sample(chunk.t_obs_ns - LAGS_NS) if plan else ())]
        handover = make_handover(self.handover, self.timing.fade_ns)
        finding = check_chunk(chunk, near, now_ns, limits, names, handover,
                              self._rules)
        if finding:
            self.stand()
            return Fate(finding.reason)
        told: dict[str, np.ndarray] = {}
        if plan is None or handover.waits:  # who waits plays chunks whole, and joins none
            plan = Plan.standing(state, chunk.t_obs_ns - chunk.dt_ns)
            self._joined = False
        else:
            # The first after a stand begins late on a robot that was moved on meanwhile.
            told = self._compare(plan, chunk, now_ns) if self._joined else {}
            self._joined = True
        made = splice(plan, chunk, now_ns, Rules(
            self.limits.including(plan.at(now_ns)), handover, self.timing.brake_ns))
        if isinstance(made, str):
            self.stand()
            return Fate('dropped')
        self._plan, self._last_ns = made, now_ns
        # From here on it is executed, until another takes over.
        times = np.arange(now_ns - 2 * self.timing.period_ns, chunk.end_ns, self.timing.period_ns)
        self._path = times, made.sample(times)
        speed = np.abs(self.shortest(np.diff(chunk.positions, axis=0))) / (chunk.dt_ns / 1e9)
        clamped = () if made.clamped is None else made.clamped > SETTLED
        return Fate('', self._names(clamped),
                    self._names((speed > ALLOWED * limits.velocity).any(axis=0)), **told)

    def _names(self, chosen: np.ndarray) -> tuple[str, ...]:
        return tuple(name for name, one in zip(self.joint_names, chosen) if one)

    def _compare(self, plan: Plan, chunk: ActionChunk, now_ns: int) -> dict[str, np.ndarray]:
        """Return how a chunk differs from the plan, and how the plan moved since it began."""
        late = int((chunk.due_ns <= chunk.t_obs_ns + self.delay_ns).sum())
        step = min(late, len(chunk.positions) - 1)
        due_ns = chunk.due_ns[step:step + 1]
        planned = plan.sample(due_ns)
        new = self.limits.nearest_turn(chunk.positions[step:step + 1], planned[0])
        out = {'jump': np.abs(new - planned)[0]}
        times, positions = (part[self._path[0] < now_ns] for part in self._path)
        if len(times) > 4:
            bends = np.diff(positions, 2, axis=0) / (self.timing.period_ns / 1e9)**2
            fades = times[2:] < self._last_ns + self.timing.fade_ns
            for name, rows in (('border', bends[fades]), ('inside', bends[~fades])):
                if len(rows):
                    out[name] = np.sqrt((rows**2).mean(axis=0))
        return out
