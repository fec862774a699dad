"""The action queue: what the robot will do next, indexed by time."""

import numpy as np

from pi0_ros.control.handover import Switch
from pi0_ros.policy.policy import ActionChunk

BRAKE_STEP_NS = 10_000_000


class ActionQueue:
    """A plan of joint positions over time, spliced together from chunks.

    Positions are linear between the due times of actions. Before the first and after the last
    the plan stands still, and it always ends in a smooth stop: a chunk that is never followed by
    another is no reason to stop dead.
    """

    def __init__(self, joint_count: int, handover: Switch, brake_ns: int) -> None:
        """Plan for ``joint_count`` joints.

        :param handover: from chunk to chunk. :param brake_ns: length of every stop.
        """
        self.joint_count, self.handover, self.brake_ns = joint_count, handover, brake_ns
        self._plan = np.zeros(1, np.int64), np.zeros((1, joint_count))
        self._seeded = False
        self._newest_obs_ns = -1
        self._instruction: str | None = None  # that the plan serves, None after a stop
        self.epoch = 0
        self.merged = self.dropped = self.late_steps = 0

    def seed(self, positions: np.ndarray, now_ns: int) -> None:
        """Forget every action and stand still at ``positions`` [D].

        Chunks asked for before this moment carry an older epoch and are not merged any more.
        """
        self._plan = np.array([now_ns], np.int64), np.array(positions, float)[None]
        self._seeded, self._newest_obs_ns, self.epoch = True, -1, self.epoch + 1
        self._instruction = None

    def merge(self, chunk: ActionChunk, now_ns: int, epoch: int) -> str | None:
        """Put ``chunk`` in place of what was planned for its times; steps already due are dropped.

        :param epoch: value of ``epoch`` when the observation was taken.
        :returns: None, or one sentence on why the chunk is of no use any more.
        :raises ValueError: the chunk is malformed; the plan stays as it is.
        """
        self._require_well_formed(chunk)
        problem = self._splice(chunk, now_ns, epoch)
        self.dropped += problem is not None
        self.merged += problem is None
        return problem

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
        begin_ns = now_ns if self.handover.waits else chunk.t_obs_ns
        due = begin_ns + chunk.dt_ns * np.arange(1, len(chunk.positions) + 1)
        ahead = due > now_ns
        if not ahead.any():
            return (f'chunk came too late: its last action was due '
                    f'{(now_ns - due[-1]) / 1e9:.3f} s ago')
        if due[0] > now_ns + (chunk.end_ns - chunk.t_obs_ns):
            return (f'chunk lies in the future: its first action is due in '
                    f'{(due[0] - now_ns) / 1e9:.3f} s')
        new_times, new = due[ahead], np.array(chunk.positions[ahead], float)
        changed, self._instruction = chunk.instruction != self._instruction, chunk.instruction
        if changed:
            self.handover.forget()
        new = self.handover.take(new_times, new, self.sample(new_times),
                                 max(now_ns, int(new_times[0]) - chunk.dt_ns),
                                 changed or not self.remaining_ns(now_ns))
        times, positions = self._plan
        kept = (times > now_ns) & (times < new_times[0])
        self._plan = (np.concatenate([[now_ns], times[kept], new_times]).astype(np.int64),
                      np.concatenate([self.sample(np.array([now_ns])), positions[kept], new]))
        self._slow_down(max(now_ns, int(new_times[-1]) - self.brake_ns // 2))
        self._newest_obs_ns = chunk.t_obs_ns
        self.late_steps += int((~ahead).sum())
        return None

    def sample(self, times_ns: np.ndarray) -> np.ndarray:
        """Return planned positions [N, D] at ``times_ns`` [N]."""
        times, positions = self._plan
        if len(times) == 1:
            return np.repeat(positions, len(times_ns), axis=0)
        after = np.clip(np.searchsorted(times, times_ns, side='right'), 1, len(times) - 1)
        start, end = times[after - 1], times[after]
        share = np.clip((times_ns - start) / (end - start), 0.0, 1.0)[:, None]
        return positions[after - 1] * (1 - share) + positions[after] * share

    def remaining_ns(self, now_ns: int) -> int:
        """Return how long the plan still moves, 0 when it stands still."""
        times, _ = self._plan
        return max(0, int(times[-1]) - now_ns) if len(times) > 1 else 0

    def brake(self, now_ns: int) -> None:
        """Come to rest on the planned path within ``brake_ns``, and plan nothing after."""
        self._instruction = None
        self._slow_down(now_ns)

    def _slow_down(self, start_ns: int) -> None:
        """Replace the plan after ``start_ns`` by a stop on its path.

        Time along the plan slows down evenly from its pace to zero, so the stop covers half of
        what the plan would have covered.
        """
        after = np.unique(np.append(np.arange(0, self.brake_ns, BRAKE_STEP_NS), self.brake_ns))
        along = after - after**2 / (2 * self.brake_ns)
        times, positions = self._plan
        before = times < start_ns
        stop = self.sample(start_ns + along.astype(np.int64))
        self._plan = (np.concatenate([times[before], start_ns + after]).astype(np.int64),
                      np.concatenate([positions[before], stop]))
