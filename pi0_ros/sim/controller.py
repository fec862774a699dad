# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
ROS 2's joint_trajectory_controller: what it accepts, and what it commands at every update.

As the branches of ros2_controllers do it, for a position command interface: ``humble`` (2.x);
``jazzy`` (4.22 and newer, Kilted, 6.x to 6.9.0); ``master`` (after 6.9.0), which is jazzy with
``allow_trajectory_replacement``. From ``update()``, ``on_activate()``, ``topic_callback()``,
``blend_with_active_trajectory()`` and ``validate_trajectory_msg()`` in
``joint_trajectory_controller.cpp``, and ``trajectory.cpp``; test/data/jtc has what their own code
commanded. A rule of its own: numbers are finite.
"""

from dataclasses import dataclass, field

import numpy as np
from pi0_ros.sim.trajectory import Point, Trajectory

KINDS = ('humble', 'jazzy', 'master')
MOST_PERIODS = 50


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

    @staticmethod
    def of(trajectory: object) -> 'TrajectoryMessage':
        """Return the message of a control.trajectory.Trajectory."""
        return TrajectoryMessage(
            trajectory.stamp_ns, list(trajectory.joint_names), trajectory.times_ns.tolist(),
            trajectory.positions.tolist(), trajectory.velocities.tolist())


class TrajectoryRejected(Exception):
    """A trajectory message breaks a rule; the text quotes it."""


@dataclass(frozen=True)
class Settings:
    """Parameters of the controller, under its own names where it has them."""

    kind: str = 'jazzy'
    interpolate_from_desired_state: bool = True  # humble: open_loop_control
    update_rate: float = 500.0                   # Hz
    allow_trajectory_replacement: bool = True    # read by master alone
    path_tolerance: float = 0.0                  # constraints.JOINT.trajectory; 0: none
    goal_tolerance: float = 0.0                  # constraints.JOINT.goal
    goal_time: float = 0.0                       # s
    from_command_on_activation: bool = True      # humble: always from the measured state
    allow_nonzero_velocity_at_trajectory_end: bool = False

    @property
    def period_ns(self) -> int:
        """Return the update period as the controller computes it."""
        return int(1e9 / self.update_rate)


class TrajectoryController:
    """Follows the newest accepted trajectory and holds its last point."""

    def __init__(self, joint_names: tuple[str, ...], positions: np.ndarray,
                 settings: Settings = Settings(), held: bool = True) -> None:
        """
        Be activated, and hold ``positions`` [D] until the first trajectory.

        :param held: whether the controller has updated already while it held.
        """
        self.joint_names, self.settings = joint_names, settings
        self.speed_scaling = 1.0
        self.commanded = np.array(positions, float)
        self.commanded_velocity = np.zeros(len(joint_names))
        self.active, self.holding = True, True
        self._current: Trajectory | None = None
        self._pending: Trajectory | None = None
        self._last = self._rest(self.commanded)  # commanded
        self._last_ns = 0
        self._time_ns = 0      # along the trajectory
        self._update_ns: int | None = None
        if held:
            self._pending = self._hold(self.commanded)

    def _rest(self, positions: np.ndarray) -> Point:
        return Point(0, np.array(positions, float), np.zeros(len(self.joint_names)))

    @staticmethod
    def _hold(positions: np.ndarray) -> Trajectory:
        return Trajectory(0, [Point(0, np.array(positions, float), None)])

    def deactivate(self) -> None:
        """Be switched off: what it commanded last stays, messages are lost."""
        self.active = False
        self.commanded_velocity = np.zeros(len(self.joint_names))

    def activate(self, measured: np.ndarray) -> None:
        """Be switched on where the joints are measured [D], or where they were commanded last."""
        settings = self.settings
        begin = (self.commanded if settings.from_command_on_activation
                 and settings.kind != 'humble' else measured)
        self.active, self.holding = True, True
        self._current, self._pending = None, self._hold(begin)
        self._last, self._last_ns = self._rest(begin), 0

    def hold(self, positions: np.ndarray) -> None:
        """Forget the trajectory and hold ``positions`` [D] from the next update on."""
        self._pending, self.holding = self._hold(positions), True

    @property
    def reference(self) -> np.ndarray:
        """Return what ``~/controller_state`` tells as reference, [D]."""
        current = self._current
        if current is None or not current.sampled:
            return self.commanded
        state, *_ = current.sample(self._time_ns)
        return self.commanded if state is None else state.position

    def accept(self, message: TrajectoryMessage, now_ns: int) -> None:
        """
        Follow ``message`` from the next update on, instead of the old trajectory.

        :raises TrajectoryRejected: it breaks a rule; the old trajectory goes on.
        """
        if not self.active:
            return
        problem = trajectory_problem(message, self.joint_names, now_ns,
                                     self.settings.allow_nonzero_velocity_at_trajectory_end)
        if problem:
            raise TrajectoryRejected(problem)
        columns = [message.joint_names.index(name) for name in self.joint_names]

        def rows(values: list) -> list:
            return [np.array(row, float)[columns] if len(row) else None for row in values] or (
                [None] * len(message.times_ns))

        self._pending = Trajectory(message.stamp_ns, [
            Point(*parts) for parts in zip(message.times_ns, rows(message.positions),
                                           rows(message.velocities),
                                           rows(message.accelerations))])
        self.holding = False

    def update(self, now_ns: int, measured: np.ndarray, measured_velocity: np.ndarray
               ) -> np.ndarray:
        """
        Return the commanded positions [D] of the update at ``now_ns``.

        :param measured, measured_velocity: [D] of the joints.
        """
        settings = self.settings
        period_ns = now_ns - (self._update_ns or 0)
        if self._update_ns is None or not 0 < period_ns < MOST_PERIODS * settings.period_ns:
            period_ns = settings.period_ns  # it is measured by a clock that nobody sets
        self._update_ns = now_ns
        if not self.active:
            return self.commanded
        if self._pending is not None:
            self._take(now_ns)
        current = self._current
        if current is None:
            return self.commanded
        first = not current.sampled
        humble = settings.kind == 'humble'
        if first:
            self._time_ns = now_ns
            current.begin(now_ns, self._before(now_ns, measured, measured_velocity))
        elif humble:
            self._time_ns = now_ns
        else:
            self._time_ns += int(np.longdouble(period_ns) * np.longdouble(self.speed_scaling))
        ahead_ns = 0 if humble else settings.period_ns
        state, segment_ns, before_last = current.sample(self._time_ns + ahead_ns)
        if state is None:
            return self.commanded
        since = self._time_ns / 1e9 - (current.start_ns + segment_ns) / 1e9
        if self._breaks_tolerance(measured, first, before_last, since):
            self.hold(measured)
        else:
            self._last, self._last_ns = state, now_ns
            self.commanded, self.commanded_velocity = state.position, state.velocity
        return self.commanded

    def run(self, times_ns: np.ndarray, measured: np.ndarray) -> np.ndarray:
        """
        Return the commanded positions [N, D] of updates at ``times_ns`` [N], a period apart.

        :param measured: [D] where the joints are meanwhile, at rest.
        """
        still, count = np.zeros_like(measured), len(times_ns)
        out = np.empty((count, len(measured)))
        done = 0
        while done < count:
            rest = None
            if done and count - done > 1:
                rest = self._run(times_ns[done:])
            if rest is None:
                out[done] = self.update(int(times_ns[done]), measured, still)
                done += 1
            else:
                out[done:done + len(rest)] = rest
                done += len(rest)
        return out

    def _run(self, times_ns: np.ndarray) -> np.ndarray | None:
        """Return as many of these updates but the last as are only sampled, or None."""
        settings, current = self.settings, self._current
        if not self.active or (self._pending is None and current is None):
            return np.repeat(self.commanded[None], len(times_ns) - 1, axis=0)
        if self._pending is not None or not current.sampled or (
                settings.path_tolerance or settings.goal_time):
            return None
        period_ns = settings.period_ns
        if settings.kind == 'humble':
            along = times_ns[:-1]
        else:
            step = int(np.longdouble(period_ns) * np.longdouble(self.speed_scaling))
            along = self._time_ns + step * np.arange(1, len(times_ns)) + period_ns
        places = current.positions(along)
        if places is None:
            return None
        self._update_ns = int(times_ns[-2])
        self._time_ns = int(along[-1]) - (0 if settings.kind == 'humble' else period_ns)
        return places  # and the last update says how it moves

    def _before(self, now_ns: int, measured: np.ndarray, velocity: np.ndarray) -> Point:
        """Return the state that the controller remembers to come before a trajectory."""
        if not self.settings.interpolate_from_desired_state:
            return Point(now_ns, np.array(measured, float), np.array(velocity, float))
        then_ns = now_ns if self.settings.kind == 'humble' else self._last_ns or now_ns
        last = self._last
        return Point(then_ns, last.position, last.velocity, last.acceleration)

    def _breaks_tolerance(self, measured: np.ndarray, first: bool, before_last: bool, since: float
                          ) -> bool:
        settings = self.settings
        if self.holding or not (settings.path_tolerance or settings.goal_time):
            return False
        state, *_ = self._current.sample(self._time_ns)
        if state is None:
            return False
        error = np.abs(state.position - measured)
        if settings.path_tolerance and (before_last or first) and (
                error > settings.path_tolerance).any():
            return True
        return bool(settings.goal_time and settings.goal_tolerance and not before_last
                    and since > settings.goal_time and (error > settings.goal_tolerance).any())

    def _take(self, now_ns: int) -> None:
        """Let the pending trajectory take the place of the current one."""
        pending, self._pending = self._pending, None
        settings, current = self.settings, self._current
        if (settings.kind == 'master' and settings.allow_trajectory_replacement
                and current is not None and len(current.points) > 1 and not self.holding):
            pending = self._blend(current, pending, now_ns)
        self._current = pending

    def _blend(self, old: Trajectory, new: Trajectory, now_ns: int) -> Trajectory:
        """
        Return master's join: the rest of ``old`` until ``new`` begins, then that.

        It counts from where the old one was at the last update, and plays from now: one stamped in
        the past begins now, whole.
        """
        cursor = begin = self._time_ns
        if new.start_ns > now_ns:
            begin += int(np.longdouble(new.start_ns - now_ns) * np.longdouble(self.speed_scaling))
        bridge, *_ = old.sample(begin)
        points = [Point(begin - cursor + point.time_ns, point.position, point.velocity,
                        point.acceleration) for point in new.points]
        before = [Point(old.start_ns + point.time_ns - cursor, point.position, point.velocity,
                        point.acceleration) for point in old.points
                  if cursor < old.start_ns + point.time_ns < begin]
        if bridge is not None and begin - cursor < points[0].time_ns:
            before.append(Point(begin - cursor, bridge.position, bridge.velocity,
                                bridge.acceleration))
        return Trajectory(0, before + points)


def trajectory_problem(message: TrajectoryMessage, joint_names: tuple[str, ...],
                       now_ns: int, moving_end: bool = False) -> str | None:
    """
    Return the rule that ``message`` breaks, or None.

    :param moving_end: whether the last point may have a velocity.
    """
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
    last = np.abs(message.velocities[-1]) if message.velocities else np.zeros(0)
    moving = np.flatnonzero(last > np.finfo(np.float32).eps)
    if len(moving) and not moving_end:
        return (f"velocity of the last point of joint '{names[moving[0]]}' is "
                f'{message.velocities[-1][moving[0]]}, but must be 0')
    if message.stamp_ns and message.stamp_ns + times[-1] < now_ns:
        return (f'trajectory ended {(now_ns - message.stamp_ns - times[-1]) / 1e9:.3f} s in the '
                'past')
    return None
