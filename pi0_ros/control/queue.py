"""The action queue: what the robot will do next, indexed by time."""

from collections import deque
from dataclasses import replace

import numpy as np

from pi0_ros.control.handover import Switch
from pi0_ros.control.limiter import limit
from pi0_ros.control.limits import JointLimits, unlimited
from pi0_ros.control.trajectory import cubic, knot_velocities, slowed, without_overshoot
from pi0_ros.policy.policy import ActionChunk

BRAKE_STEP_NS = 10_000_000
KEPT_DELAYS = 10   # of which the longest counts (arXiv 2506.07339)
KEPT_SOURCES = 16
STOP_SHARE = 1.3   # of the time that the acceleration limit takes: the path may bend too
HISTORY_NS = 400_000_000  # of the past that a plan still knows: robots lag, ticks come early


class ActionQueue:
    """A plan of joint positions over time, spliced together from chunks.

    Between the due times of actions positions follow a cubic, so that the velocity has no steps.
    Before the first and after the last the plan stands still, and it always ends in a smooth stop:
    a chunk that is never followed by another is no reason to stop dead.
    """

    def __init__(self, joint_count: int, handover: Switch, brake_ns: int,
                 limits: JointLimits | None = None) -> None:
        """Plan for ``joint_count`` joints.

        :param handover: from chunk to chunk. :param brake_ns: length of every stop that the
            acceleration limit does not make longer. :param limits: that every plan keeps.
        """
        self.joint_count, self.handover, self.brake_ns = joint_count, handover, brake_ns
        self.limits = limits or unlimited(joint_count)
        still = np.zeros((1, joint_count))
        self._plan = np.zeros(1, np.int64), still, still  # times, positions, velocities
        self._end_ns = 0  # where the plan begins to stop
        self._seeded = False
        self._newest_obs_ns = -1
        self._sources: list[tuple[int, ActionChunk]] = []  # from when on which chunk is executed
        self._delays: deque[int] = deque(maxlen=KEPT_DELAYS)
        self._first_delay = self.last_delay = 0
        self.instruction: str | None = None  # that the plan serves, None after a stop
        self.epoch = 0
        self.merged = self.dropped = self.late_steps = self.starved = 0
        self.clamped = self.slowed = 0  # plans that the limits changed

    def seed(self, positions: np.ndarray, now_ns: int) -> None:
        """Forget every action and stand still at ``positions`` [D].

        Chunks asked for before this moment carry an older epoch and are not merged any more.
        """
        still = np.array(positions, float)[None]
        self._plan = np.array([now_ns], np.int64), still, np.zeros_like(still)
        self._end_ns, self._sources = now_ns, []
        self._seeded, self._newest_obs_ns, self.epoch = True, -1, self.epoch + 1
        self.instruction = None

    def shift(self, by_ns: int) -> None:
        """Plan everything so much later: the clock was set."""
        times, positions, velocities = self._plan
        self._plan = times + by_ns, positions, velocities
        self._end_ns += by_ns

    def coast(self, last_ns: int, now_ns: int, window_ns: int) -> None:
        """Forget every action; come to rest as a window does that was published at ``last_ns``.

        That is what the controller goes on with at ``now_ns`` when no other window has come.
        """
        rest_ns = last_ns + window_ns
        times = np.unique(np.append(np.arange(min(now_ns, rest_ns), rest_ns, BRAKE_STEP_NS),
                                    rest_ns))
        positions = self.sample(last_ns + slowed(times - last_ns, window_ns).astype(np.int64))
        self.seed(positions[-1], now_ns)
        if len(times) > 1:
            slope = (positions[1] - positions[0]) / (times[1] - times[0]) * 1e9
            self._plan = times, positions, knot_velocities(times, positions, slope)
            self._plan[2][-1] = 0

    def merge(self, chunk: ActionChunk, now_ns: int, epoch: int) -> str | None:
        """Put ``chunk`` in place of what was planned for its times.

        Steps that are already due are dropped, and so are those that only repeat the plan. A robot
        that has stood since the observation begins with the first step.

        :param epoch: value of ``epoch`` when the observation was taken.
        :returns: None, or one sentence on why the chunk is of no use any more.
        :raises ValueError: the chunk is malformed; the plan stays as it is.
        """
        self._require_well_formed(chunk)
        problem = self._splice(chunk, now_ns, epoch)
        self.dropped += problem is not None
        self.merged += problem is None
        return problem

    def state(self) -> tuple:
        """Return what ``restore`` takes back."""
        return (self._plan, self._end_ns, list(self._sources), self._newest_obs_ns,
                self.instruction, self.handover.state())

    def restore(self, state: tuple) -> None:
        """Plan again what was planned at ``state``; counters and measured delays stay."""
        (self._plan, self._end_ns, self._sources, self._newest_obs_ns, self.instruction,
         older) = state
        self.handover.restore(older)

    def _require_well_formed(self, chunk: ActionChunk) -> None:
        shape = chunk.positions.shape
        if len(shape) != 2 or shape[1] != self.joint_count or not shape[0]:
            raise ValueError(f'chunk has shape {shape}, expected (steps, {self.joint_count})')
        if chunk.dt_ns <= 0:
            raise ValueError(f'chunk has a control period of {chunk.dt_ns} ns, expected > 0')
        if not np.isfinite(chunk.positions).all():
            step, joint = np.argwhere(~np.isfinite(chunk.positions))[0]
            raise ValueError(f'chunk has a value that is not finite at step {step}, joint {joint}')

    def _splice(self, chunk: ActionChunk, now_ns: int, epoch: int) -> str | None:
        if not self._seeded or epoch != self.epoch:
            return 'chunk was asked for before a reset'
        if chunk.t_obs_ns <= self._newest_obs_ns:
            return 'chunk is older than the one in use'
        stands, first = not self.remaining_ns(now_ns), self.instruction is None
        self._measure((now_ns - chunk.t_obs_ns) // chunk.dt_ns, len(chunk.positions), first)
        self.starved += not (first or self.handover.waits) and now_ns > self._end_ns
        if chunk.end_ns <= now_ns and not self.handover.waits:
            return (f'chunk came too late: its last action was due '
                    f'{(now_ns - chunk.end_ns) / 1e9:.3f} s ago')
        # Who has stood still since the observation has executed nothing meanwhile.
        since = self._plan[0][-1] <= chunk.t_obs_ns or len(self._plan[0]) == 1
        begin_ns = chunk.t_obs_ns
        if self.handover.waits or (stands and since and begin_ns < now_ns):
            begin_ns = now_ns
        due = begin_ns + chunk.dt_ns * np.arange(1, len(chunk.positions) + 1)
        late = int((due <= now_ns).sum())
        if due[0] > now_ns + (chunk.end_ns - chunk.t_obs_ns):
            return (f'chunk lies in the future: its first action is due in '
                    f'{(due[0] - now_ns) / 1e9:.3f} s')
        start = max(late, min(chunk.given, len(due) - 1))
        steps = self.limits.nearest_turn(chunk.positions, self.sample(due[:1])[0])
        new_times, new = due[start:], np.array(steps[start:], float)
        changed, self.instruction = chunk.instruction != self.instruction, chunk.instruction
        if changed:
            self.handover.forget()
        times, positions, velocities = self._plan
        kept = (times > now_ns) & (times < new_times[0])
        past = (times < now_ns) & (times > now_ns - HISTORY_NS)
        unchanged = max([now_ns, int(new_times[0]) - chunk.dt_ns, *times[kept].tolist()])
        new = self.handover.take(new_times, new, self.sample(new_times), unchanged,
                                 changed or stands)
        here, velocity = self.motion(np.array([now_ns]))
        coming = np.concatenate([[now_ns], times[kept], new_times]).astype(np.int64)
        through = np.concatenate([here, positions[kept], new])
        self._plan = (np.concatenate([times[past], coming]),
                      np.concatenate([positions[past], through]),
                      np.concatenate([velocities[past],
                                      knot_velocities(coming, through, velocity[0])]))
        stop_ns = self._stop_ns(int(new_times[-1]), self.limits)
        self._slow_down(max(now_ns, int(new_times[-1]) - stop_ns // 2), stop_ns)
        self._keep_limits(now_ns, self.limits)
        self._newest_obs_ns = chunk.t_obs_ns
        self.late_steps += late
        begin = int(new_times[0])
        self._sources = [source for source in self._sources if source[0] < begin]
        self._sources.append((begin, replace(chunk, positions=chunk.positions[:0])))
        self._sources = self._sources[-KEPT_SOURCES:]
        return None

    def _measure(self, steps: int, length: int, first: bool) -> None:
        """Remember how many steps were executed while a chunk of ``length`` was inferred.

        The first after a seed or a stop is that of a policy that may still warm up.
        """
        self.last_delay = max(0, min(steps, length))
        if first:
            self._first_delay = self.last_delay
        else:
            self._delays.append(self.last_delay)

    @property
    def delay(self) -> int:
        """Return how many steps an inference takes, as measured: the longest of the last ten."""
        return max(self._delays, default=self._first_delay)

    @property
    def taken_over_ns(self) -> int | None:
        """Return the due time of the first step of the newest chunk in the plan."""
        return self._sources[-1][0] if self._sources else None

    def leftover(self, t_obs_ns: int, dt_ns: int, length: int) -> np.ndarray:
        """Return what is planned, [M, D], for the first M steps of a chunk of ``length`` steps."""
        due = t_obs_ns + dt_ns * np.arange(1, length + 1)
        return self.sample(due[due <= self._end_ns])

    def source(self, time_ns: int) -> ActionChunk | None:
        """Return the chunk, without its positions, that is executed at a time; None for a stand.

        While one chunk fades into the next, it is the next.
        """
        found = [chunk for begin, chunk in self._sources if begin <= time_ns]
        return found[-1] if found else None

    def sample(self, times_ns: np.ndarray) -> np.ndarray:
        """Return planned positions [N, D] at ``times_ns`` [N]."""
        return self.motion(times_ns)[0]

    def motion(self, times_ns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return planned positions and velocities, both [N, D], at ``times_ns`` [N]."""
        return cubic(*self._plan, times_ns)

    def remaining_ns(self, now_ns: int) -> int:
        """Return how long the plan still moves, 0 when it stands still."""
        times = self._plan[0]
        return max(0, int(times[-1]) - now_ns) if len(times) > 1 else 0

    def before_stop_ns(self, now_ns: int) -> int:
        """Return how long the plan goes on before it begins to stop."""
        return max(0, self._end_ns - now_ns)

    def brake(self, now_ns: int) -> None:
        """Come to rest on the planned path as fast as allowed, and plan nothing after."""
        self.instruction = None
        limits = replace(self.limits, acceleration=self.limits.stopping)
        self._slow_down(now_ns, self._stop_ns(now_ns, limits))
        self._keep_limits(now_ns, limits)

    def _stop_ns(self, at_ns: int, limits: JointLimits) -> int:
        """Return how long a stop takes: longer where the robot is too fast for ``brake_ns``."""
        if limits.none:
            return self.brake_ns
        times_ns = np.array([at_ns - BRAKE_STEP_NS, at_ns])
        speed = np.minimum(np.abs(self.motion(times_ns)[1]), limits.velocity)
        needed_s = STOP_SHARE * (speed / limits.acceleration).max()
        return max(self.brake_ns, round(1e9 * needed_s))

    def _keep_limits(self, start_ns: int, limits: JointLimits) -> None:
        self._plan, clamped, slowed = limit(self._plan, start_ns, limits)
        self.clamped += clamped
        self.slowed += slowed

    def _slow_down(self, start_ns: int, stop_ns: int) -> None:
        """Replace the plan after ``start_ns`` by a stop of ``stop_ns`` on its path.

        Time along the plan slows down evenly from its pace to zero, so the stop covers half of
        what the plan would have covered.
        """
        after = np.unique(np.append(np.arange(0, stop_ns, BRAKE_STEP_NS), stop_ns))
        along = after - after**2 / (2 * stop_ns)
        times, positions, velocities = self._plan
        before = times < start_ns
        stop, speed = self.motion(start_ns + along.astype(np.int64))
        speed *= (1 - after / stop_ns)[:, None]
        speed[1:] = without_overshoot(after, stop, speed)[1:]
        self._plan = (np.concatenate([times[before], start_ns + after]).astype(np.int64),
                      np.concatenate([positions[before], stop]),
                      np.concatenate([velocities[before], speed]))
        self._end_ns = start_ns
