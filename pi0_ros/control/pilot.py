"""Decides at every control tick what is published: a window of the plan, a stop, or nothing."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pi0_ros.control.handover import make_handover
from pi0_ros.control.limits import JointLimits
from pi0_ros.control.queue import ActionQueue
from pi0_ros.control.trajectory import Trajectory, rolling_window
from pi0_ros.observation.observation import Observation
from pi0_ros.policy.policy import ActionChunk, Leftover

POINTS = 10
CLOCK_JUMP_NS = 1_000_000_000
MOST_SLACK_NS = 100_000_000
ON_TIME_NS = 2_000_000  # a tick that comes so close to when it was expected


@dataclass(frozen=True)
class Timing:
    """Lengths of time that shape the commands, nanoseconds."""

    period_ns: int           # of the control loop
    replan_ns: int           # age of the newest observation at which the next chunk is wanted
    fade_ns: int = 100_000_000
    brake_ns: int = 200_000_000
    window_ns: int = 200_000_000
    handover: str = 'blend'  # one of handover.STRATEGIES; read when the pilot is made
    coasts: bool = True      # whether the robot follows the last window when no other comes

    @staticmethod
    def at_rate(rate_hz: float, replan_s: float, handover: str = 'blend', coasts: bool = True
                ) -> 'Timing':
        """Return timing for ``rate_hz``: half a window outlasts a control period."""
        period_ns = round(1e9 / rate_hz)
        return Timing(period_ns, round(replan_s * 1e9), handover=handover, coasts=coasts,
                      window_ns=max(200_000_000, 3 * period_ns))


class ClockJump(Exception):
    """The clock that commands are stamped with jumped."""


class Pilot:
    """Turns chunks into commands for an armed robot, and into silence for a disarmed one.

    Times come in as nanoseconds of one clock. Any method may be called from any thread.
    """

    def __init__(self, joint_names: tuple[str, ...], limits: JointLimits, timing: Timing) -> None:
        """Start disarmed."""
        self.joint_names, self.limits, self.timing = joint_names, limits, timing
        self.queue = ActionQueue(len(joint_names), make_handover(timing.handover, timing.fade_ns),
                                 timing.brake_ns, limits)
        self.enabled = False
        self.speaking = False  # whether the next tick publishes
        self.chunk_obs_ns: int | None = None  # of the chunk in use, None: another is wanted
        self.late_ticks = 0
        self._chunk_ns = self._dt_ns = 0
        self._stopping = False
        self._last_tick_ns: int | None = None
        self._told: tuple | None = None  # the queue at the last tick
        self._changes: list[tuple[int, Callable[[int], str | None]]] = []  # since then
        self._lock = threading.RLock()

    def enable(self, positions: np.ndarray, now_ns: int) -> None:
        """Arm: the plan stands still at the measured ``positions`` [D] until a chunk comes.

        Where that is in the margin of a limit, the robot may move out of it.
        """
        with self._lock:
            self.queue.limits = self.limits.including(positions)
            self._stand(positions, now_ns)
            self.enabled = True

    def disable(self, now_ns: int) -> None:
        """Disarm: a smooth stop, then silence."""
        with self._lock:
            self.stop(now_ns)
            self.enabled = False

    def stop(self, now_ns: int) -> None:
        """Come to rest on the planned path; chunks asked for before this are of no use any more.

        Calling it again during the stop does not start another.
        """
        with self._lock:
            self.queue.epoch += 1
            if not self._stopping:
                self._change(self.queue.brake, now_ns)
            self.chunk_obs_ns, self._stopping = None, True

    def forget_time(self) -> None:
        """Be silent, and take the next tick for the first: the control thread is new."""
        with self._lock:
            self.speaking, self._last_tick_ns = False, None
            self._changes, self._told = [], None

    def want_chunk(self, now_ns: int) -> None:
        """Ask for a chunk at once, for example because the instruction changed.

        Whoever plays chunks whole comes to rest first.
        """
        with self._lock:
            if self.queue.handover.waits and self.queue.remaining_ns(now_ns):
                self.stop(now_ns)
            self.chunk_obs_ns = None

    def wants_chunk(self, now_ns: int) -> bool:
        """Return whether the next inference should start: at the latest at half a chunk."""
        if self.queue.handover.waits:
            return self.enabled and not self.queue.remaining_ns(now_ns)
        obs_ns, queue = self.chunk_obs_ns, self.queue
        replan_ns = min(self.timing.replan_ns, self._chunk_ns // 2)
        return self.enabled and (obs_ns is None or now_ns - obs_ns >= replan_ns
                                 or queue.before_stop_ns(now_ns) <= self._needed_ns())

    def _needed_ns(self) -> int:
        """Return how long an inference may take: half as long again as measured, and two ticks."""
        slack_ns = min(2 * self.timing.period_ns, MOST_SLACK_NS)
        return 3 * self.queue.delay * self._dt_ns // 2 + slack_ns

    def leftover(self, seen: Observation) -> Leftover | None:
        """Return what the next chunk shall continue; None where the hand-over wants none.

        :param seen: what it is decided from. Of a plan for another instruction only what will have
            been executed is left, if this inference takes as long as the last one: an exceptional
            one before it shall not make the arm react late.
        """
        with self._lock:
            queue = self.queue
            if not (queue.handover.continues and self._dt_ns):
                return None
            positions = queue.leftover(seen.t_obs_ns, self._dt_ns,
                                       self._chunk_ns // self._dt_ns)
            delay = queue.delay
            if seen.instruction != queue.instruction:
                delay = queue.last_delay
                positions = positions[:delay]
            if not len(positions):
                return None
            state = seen.state[:len(self.joint_names)]
            return Leftover(queue.limits.nearest_turn(positions, state), delay)

    def accept(self, chunk: ActionChunk, now_ns: int, epoch: int) -> str | None:
        """Take a chunk into the plan; return None, or why it is of no use any more.

        :param epoch: the queue's when the observation was taken.
        :raises ValueError: the chunk is malformed.
        """
        with self._lock:
            if not self.enabled:
                return 'the robot is disarmed'
            problem = self._change(lambda at_ns: self.queue.merge(chunk, at_ns, epoch), now_ns)
            if problem is None:
                self.chunk_obs_ns, self._dt_ns = chunk.t_obs_ns, chunk.dt_ns
                self._chunk_ns = chunk.end_ns - chunk.t_obs_ns
                self.speaking, self._stopping = True, False
            return problem

    def _change(self, how: Callable[[int], str | None], now_ns: int) -> str | None:
        """Change the plan from the next tick on; until then the robot follows what it was told.

        That tick may come at another time than expected: then the change is made again.
        """
        at_ns = now_ns
        if self._last_tick_ns is not None:
            next_ns = self._last_tick_ns + self.timing.period_ns
            at_ns = max(now_ns, min(next_ns, now_ns + MOST_SLACK_NS))
        problem = how(at_ns)
        if problem is None:
            self._changes.append((at_ns, how))
        return problem

    def _make_changes_again(self, now_ns: int) -> None:
        """Let changes begin now, at a tick, where another time was expected."""
        changes, self._changes = self._changes, []
        if self._told is not None and any(
                at_ns < now_ns - ON_TIME_NS for at_ns, _ in changes):
            self.queue.restore(self._told)
            for _, how in changes:
                if how(now_ns) is not None:  # too late by now
                    self.chunk_obs_ns = None

    def tick(self, now_ns: int) -> Trajectory | None:
        """Return what to publish at ``now_ns``, or None for silence.

        :raises ClockJump: the clock moved by more than a second since the last tick. The robot is
            disarmed and nothing more is published: old times mean nothing on the new clock.
        """
        with self._lock:
            last, self._last_tick_ns = self._last_tick_ns, now_ns
            if last is not None and self._lost_track(now_ns - last, last, now_ns):
                return None
            self._make_changes_again(now_ns)
            self._told = self.queue.state()
            if not self.speaking:
                return None
            # The last message of a stop says where to rest; after it a live node is silent.
            self.speaking = self.queue.remaining_ns(now_ns) > 0
            return rolling_window(self._inside_limits, self.joint_names, now_ns,
                                  self.timing.window_ns, POINTS)

    def _lost_track(self, gap_ns: int, last_ns: int, now_ns: int) -> bool:
        """Return whether the last window already slowed down, or the clock stepped.

        The controller is then behind the plan: going on with it would jump. Come to rest as the
        window does, or stand at the last command where there is no window, and ask for a new chunk
        from there.
        """
        window_ns, coasts = self.timing.window_ns, self.timing.coasts
        if 0 <= gap_ns <= (window_ns // 2 if coasts else 2 * self.timing.period_ns):
            return False
        if self._told is not None:  # what came since has not been published
            self.queue.restore(self._told)
        self._changes = []
        if self.speaking:
            self.late_ticks += 1
            if coasts:
                if gap_ns < 0:  # the controller went on for about a period all the same
                    self.queue.shift(now_ns - self.timing.period_ns - last_ns)
                    last_ns = now_ns - self.timing.period_ns
                self.queue.coast(last_ns, now_ns, window_ns)
                self._begin_anew()
            else:
                self._stand(self.queue.sample(np.array([last_ns]))[0], now_ns)
        if not -CLOCK_JUMP_NS <= gap_ns <= CLOCK_JUMP_NS + 3 * self.timing.period_ns:
            self.queue.epoch += 1
            self.enabled = self.speaking = False
            raise ClockJump(f'the clock jumped by {gap_ns / 1e9:+.2f} s')
        return True

    def _stand(self, positions: np.ndarray, now_ns: int) -> None:
        self.queue.seed(positions, now_ns)
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._changes, self._told = [], self.queue.state()
        self.chunk_obs_ns, self.speaking, self._stopping = None, False, False

    def _inside_limits(self, times_ns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the plan; it keeps the limits already, which is said once more for the last."""
        positions, velocities = self.queue.motion(times_ns)
        return self.queue.limits.clamp(positions), velocities
