"""A model of ROS 2's joint_trajectory_controller: what it accepts, and how it interpolates.

The rules are those of ros2_controllers 4 (``doc/trajectory.rst``, ``validate_trajectory_msg`` in
``joint_trajectory_controller.cpp``, ``trajectory.cpp``), and one of its own: numbers are finite.
Accelerations and efforts are checked and not followed.
"""

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class TrajectoryMessage:
    """The content of a trajectory_msgs/JointTrajectory."""

    stamp_ns: int
    joint_names: list[str]
    times_ns: list[int]              # time_from_start of each point
    positions: list[list[float]]
    velocities: list[list[float]]    # an empty list for a point without velocities
    accelerations: list[list[float]] = field(default_factory=list)
    effort: list[list[float]] = field(default_factory=list)


@dataclass(frozen=True)
class _Plan:
    times_ns: np.ndarray    # [N + 1] absolute; the first is where the motion begins
    positions: np.ndarray   # [N + 1, D]
    velocities: np.ndarray | None


class TrajectoryRejected(Exception):
    """A trajectory message breaks a rule; the text quotes it."""


class TrajectoryController:
    """Follows the newest accepted trajectory and holds its last point."""

    def __init__(self, joint_names: tuple[str, ...], positions: np.ndarray,
                 interpolate_from_desired_state: bool = True) -> None:
        """Hold ``positions`` [D] until the first trajectory."""
        self.joint_names = joint_names
        self.from_desired = interpolate_from_desired_state
        self._plan: _Plan | None = None
        self._pending: TrajectoryMessage | None = None
        self._sampled_ns: int | None = None
        self.desired = np.array(positions, float)
        self.desired_velocity = np.zeros(len(joint_names))

    def hold(self, positions: np.ndarray) -> None:
        """Forget the trajectory and hold ``positions``."""
        self._plan = self._pending = None
        self.desired = np.array(positions, float)
        self.desired_velocity = np.zeros(len(self.joint_names))

    def accept(self, message: TrajectoryMessage, now_ns: int) -> None:
        """Follow ``message`` from the next sample on, instead of the old trajectory.

        :raises TrajectoryRejected: it breaks a rule; the old trajectory goes on.
        """
        problem = trajectory_problem(message, self.joint_names, now_ns)
        if problem:
            raise TrajectoryRejected(problem)
        self._pending = message

    def sample(self, now_ns: int, measured: np.ndarray, measured_velocity: np.ndarray
               ) -> np.ndarray:
        """Return the desired positions [D] at ``now_ns``."""
        if self._pending is not None:
            # The desired state is the command of the last period: motion goes on from then.
            state = ((self._sampled_ns or now_ns, self.desired, self.desired_velocity)
                     if self.from_desired else (now_ns, measured, measured_velocity))
            self._plan, self._pending = self._begin(self._pending, now_ns, *state), None
        if self._plan is not None:
            self.desired, self.desired_velocity = _interpolate(self._plan, now_ns)
        self._sampled_ns = now_ns
        return self.desired

    def _begin(self, message: TrajectoryMessage, now_ns: int, state_ns: int,
               positions: np.ndarray, velocities: np.ndarray) -> _Plan:
        columns = [message.joint_names.index(name) for name in self.joint_names]
        times = (message.stamp_ns or now_ns) + np.array(message.times_ns, np.int64)
        points = np.array(message.positions, float)[:, columns]
        cubic = all(len(row) for row in message.velocities) and len(message.velocities)
        speeds = np.array(message.velocities, float)[:, columns] if cubic else None
        if times[0] <= now_ns:
            return _Plan(times, points, speeds)
        return _Plan(np.concatenate([[state_ns], times]), np.vstack([positions, points]),
                     np.vstack([velocities, speeds]) if cubic else None)


def _interpolate(plan: _Plan, now_ns: int) -> tuple[np.ndarray, np.ndarray]:
    """Return positions and velocities at ``now_ns``: linear, or cubic with velocities."""
    after = int(np.searchsorted(plan.times_ns, now_ns, side='right'))
    if after == 0 or after == len(plan.times_ns):
        row = 0 if after == 0 else -1
        return plan.positions[row], np.zeros(plan.positions.shape[1])
    begin, end = plan.positions[after - 1], plan.positions[after]
    length = (plan.times_ns[after] - plan.times_ns[after - 1]) / 1e9
    share = (now_ns - plan.times_ns[after - 1]) / 1e9 / length
    if plan.velocities is None:
        return begin + share * (end - begin), (end - begin) / length
    first, last = plan.velocities[after - 1] * length, plan.velocities[after] * length
    square = 3 * (end - begin) - 2 * first - last
    cube = 2 * (begin - end) + first + last
    position = begin + first * share + square * share**2 + cube * share**3
    return position, (first + 2 * square * share + 3 * cube * share**2) / length


def trajectory_problem(message: TrajectoryMessage, joint_names: tuple[str, ...],
                       now_ns: int) -> str | None:
    """Return the rule that ``message`` breaks, or None."""
    names, times = message.joint_names, message.times_ns
    if not times:
        return 'trajectory has no points'
    unknown = [name for name in names if name not in joint_names]
    if unknown:
        return f"joint '{unknown[0]}' is not one of {', '.join(joint_names)}"
    if len(set(names)) != len(names):
        return f"joint '{[n for n in names if names.count(n) > 1][0]}' is named twice"
    missing = [name for name in joint_names if name not in names]
    if missing:
        return f"joint '{missing[0]}' is missing: partial trajectories are not allowed"
    for index, positions in enumerate(message.positions):
        if len(positions) != len(names):
            return f'point {index} has {len(positions)} positions for {len(names)} joints'
        if not np.isfinite(positions).all():  # the real one has no such check and would follow
            return f'point {index} has a position that is not finite: {positions}'
    for kind in ('velocities', 'accelerations', 'effort'):
        for index, values in enumerate(getattr(message, kind)):
            if len(values) not in (0, len(names)):
                return f'point {index} has {len(values)} {kind} for {len(names)} joints'
            if not np.isfinite(values).all():
                return f'point {index} has {kind} that are not finite: {values}'
    for index in range(1, len(times)):
        if times[index] <= times[index - 1]:
            return (f'time between points {index - 1} and {index} is not strictly increasing, it '
                    f'is {times[index - 1] / 1e9} and {times[index] / 1e9}')
    if times[0] < 0:
        return f'point 0 has the negative time {times[0] / 1e9}'
    moving = np.flatnonzero(np.abs(message.velocities[-1]) > 1e-6)
    if len(moving):
        return (f"velocity of the last point of joint '{names[moving[0]]}' is "
                f'{message.velocities[-1][moving[0]]}, but must be 0')
    if message.stamp_ns and message.stamp_ns + times[-1] < now_ns:
        return (f'trajectory ended {(now_ns - message.stamp_ns - times[-1]) / 1e9:.3f} s in the '
                'past')
    return None
