"""What would have become of a policy's chunks between policy and robot."""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np

from pi0_ros.control import safety
from pi0_ros.control.guard import LAGS_NS
from pi0_ros.control.handover import CONTINUING, make_handover
from pi0_ros.control.limits import JointLimits, make_limits
from pi0_ros.control.pilot import Timing
from pi0_ros.control.queue import ActionQueue
from pi0_ros.observation.observation import Observation
from pi0_ros.policy.policy import ActionChunk, Leftover

ALLOWED = 1.01  # of a velocity limit


@dataclass(frozen=True)
class Fate:
    """What happened to one chunk."""

    refused: str             # the reason, a word of docs/safety.md; '': taken
    clamped: bool            # whether it led out of the position limits
    slowed: bool             # whether it is faster than the velocity limits
    jump: np.ndarray | None = None    # [D] from the plan before, where this chunk takes over
    border: np.ndarray | None = None  # [D] rms acceleration while the chunk before took over
    inside: np.ndarray | None = None  # [D] and after that, until this one came


class Execution:
    """Chunks as the node would have handed them over, one every moment, late by a fixed delay.

    The robot that they move is not there: observations are those of whoever was recorded. So what
    is told is how well consecutive chunks agree, not where they would have led.
    """

    def __init__(self, values: SimpleNamespace, delay_ns: int) -> None:
        """Begin with a stand. :param delay_ns: of an inference."""
        self.values, self.delay_ns = values, delay_ns
        self.timing = Timing.at_rate(values.control_rate, values.replan_period, values.handover)
        self.limits = make_limits(values.joint_names, values.limit_rules)
        self.warning = ''
        self._description: str | None = None
        self.stand()

    @property
    def continues(self) -> bool:
        """Return whether the policy is told what is planned."""
        return self.values.handover in CONTINUING

    def describe(self, urdf: str | None) -> None:
        """Take the limits of a robot description."""
        if urdf is None or urdf == self._description:
            return
        self._description, values = urdf, self.values
        try:
            self.limits = make_limits(values.joint_names, values.limit_rules, urdf)
        except ValueError as error:
            self.warning = str(error)
        self.stand()

    def unlimited(self) -> str:
        """Return a sentence on limits that are not known, '' if all are."""
        return self.warning or (
            f"joint limits are unknown, {'; '.join(self.limits.unknown)}: the live node would not "
            'arm; record robot_description' if self.limits.unknown else '')

    def shortest(self, moved: np.ndarray) -> np.ndarray:
        """Return distances [..., D] without whole turns of joints that turn."""
        return np.where(self.limits.turns, (moved + np.pi) % (2 * np.pi) - np.pi, moved)

    def stand(self) -> None:
        """Forget what was planned."""
        self._queue: ActionQueue | None = None
        self._last_ns, self._joined = 0, False
        self._path = np.zeros(0, np.int64), np.zeros((0, len(self.values.joint_names)))

    def _goes_on(self, t_obs_ns: int) -> ActionQueue | None:
        """Return the plan, where it still moves when a chunk of that observation would come."""
        queue, now_ns = self._queue, t_obs_ns + self.delay_ns
        if queue is None or now_ns <= self._last_ns or not queue.before_stop_ns(now_ns):
            return None
        return queue

    def leftover(self, seen: Observation, dt_ns: int, steps: int) -> Leftover | None:
        """Return what the next chunk shall continue; None where nothing is planned."""
        queue = self._goes_on(seen.t_obs_ns)
        if queue is None or not self.continues:
            return None
        positions, delay = queue.leftover(seen.t_obs_ns, dt_ns, steps), self.delay_ns // dt_ns
        if seen.instruction != queue.instruction:
            positions = positions[:delay]  # as Pilot.leftover
        if not len(positions):
            return None
        state = seen.state[:len(self.values.joint_names)]
        return Leftover(queue.limits.nearest_turn(positions, state), delay)

    def take(self, chunk: ActionChunk, seen: Observation) -> Fate:
        """Hand a chunk over; return what the safety checks and the plan before make of it."""
        names = self.values.joint_names
        state = seen.state[:len(names)]
        limits: JointLimits = self.limits.including(state)
        queue, now_ns = self._goes_on(chunk.t_obs_ns), chunk.t_obs_ns + self.delay_ns
        near = [state, *(queue.sample(chunk.t_obs_ns - LAGS_NS) if queue else ())]
        handover = make_handover(self.values.handover, self.timing.fade_ns)
        finding = (safety.check_form(chunk, names)
                   or (None if handover.waits else safety.check_age(
                       chunk, now_ns, self.values.guard_rules.chunk_age_ns))
                   or safety.check_way(chunk, near, limits, names))
        if finding:
            self.stand()
            return Fate(finding.reason, False, False)
        told: dict[str, np.ndarray] = {}
        if queue is None or handover.waits:  # who waits plays chunks whole, and joins none
            queue = ActionQueue(len(names), handover, self.timing.brake_ns, limits)
            queue.seed(state, chunk.t_obs_ns - chunk.dt_ns)
            self._joined = False
        else:
            queue.limits = limits
            # The first after a stand begins late on a robot that was moved on meanwhile.
            told = self._compare(queue, chunk, now_ns) if self._joined else {}
            self._joined = True
        clamped = queue.clamped
        if queue.merge(chunk, now_ns, queue.epoch):
            self.stand()
            return Fate('dropped', False, False)
        self._queue, self._last_ns = queue, now_ns
        # From here on it is executed, until another takes over.
        times = np.arange(now_ns - 2 * self.timing.period_ns, chunk.end_ns, self.timing.period_ns)
        self._path = times, queue.sample(times)
        speed = np.abs(self.shortest(np.diff(chunk.positions, axis=0))) / (chunk.dt_ns / 1e9)
        return Fate('', queue.clamped > clamped,
                    bool((speed > ALLOWED * limits.velocity).any()), **told)

    def _compare(self, queue: ActionQueue, chunk: ActionChunk, now_ns: int
                 ) -> dict[str, np.ndarray]:
        """Return how a chunk differs from the plan, and how the plan moved since it began."""
        step = min(self.delay_ns // chunk.dt_ns, len(chunk.positions) - 1)
        due_ns = np.array([chunk.t_obs_ns + (step + 1) * chunk.dt_ns])
        planned = queue.sample(due_ns)
        new = queue.limits.nearest_turn(chunk.positions[step:step + 1], planned[0])
        out = {'jump': np.abs(new - planned)[0]}
        times, positions = (part[self._path[0] < now_ns] for part in self._path)
        if len(times) > 4:
            bends = np.diff(positions, 2, axis=0) / (self.timing.period_ns / 1e9)**2
            fades = times[2:] < self._last_ns + self.timing.fade_ns
            for name, rows in (('border', bends[fades]), ('inside', bends[~fades])):
                if len(rows):
                    out[name] = np.sqrt((rows**2).mean(axis=0))
        return out
