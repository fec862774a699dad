# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The controllers that a robot's joints are on, and what each of them says of itself."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from pi0_ros.control import safety
from pi0_ros.observation.finding import Finding

TRAJECTORY, GRIPPER, VELOCITIES = 'joint_trajectory', 'gripper_command', 'velocities'
# What is told every tick where to be now, and knows no time and no end.
STREAMS = ('positions', 'joint_state_command', VELOCITIES)
INTERFACES = (TRAJECTORY, *STREAMS, GRIPPER)
SILENT_NS = 200_000_000     # for which a controller that tells its state may say nothing
CLOCKS_APART_NS = 100_000_000
SCALING_NS = 1_000_000_000  # for which a topic of the speed scaling may be silent
SLOWEST_REPORT = 5          # periods of its state, after which it is no news any more


@dataclass(frozen=True)
class Group:
    """Joints that one controller has, and how it is commanded."""

    name: str = ''  # nothing for the only one
    interface: str = TRAJECTORY
    joints: tuple[str, ...] = ()
    max_effort: float = 0.0  # of a gripper, N or Nm
    dead_band: float = 0.0   # of a gripper: less is no news, rad or m
    sequential: bool = False  # whether a gripper's goal must end before the next
    prefix: str = ''         # that its own names of the joints do not have
    joint_states: str = ''   # topic of its joints alone, nothing where all are on one
    topic: str = ''          # of its commands, nothing where that follows from its name
    max_joint_lag: float = 0.0  # s, that its joint states may be behind the others

    @property
    def controller(self) -> str:
        """Return what to call its controller in a sentence."""
        return f"the controller of '{self.name}'" if self.name else 'the controller'

    @property
    def own(self) -> tuple[str, ...]:
        """Return the joints as its controller calls them."""
        return tuple(name.removeprefix(self.prefix) for name in self.joints)


def interfaces(groups: Sequence[Group], joint_names: Sequence[str], *kinds: str) -> np.ndarray:
    """Return [D] which joints are commanded through one of the interfaces ``kinds``."""
    out = np.zeros(len(joint_names), bool)
    for group in groups:
        out[columns(group, joint_names)] = group.interface in kinds
    return out


def lags_ns(groups: Sequence[Group]) -> dict[str, int]:
    """Return by how much the states of joints may be behind the others, for those that may."""
    return {joint: round(1e9 * group.max_joint_lag) for group in groups for joint in group.joints
            if group.max_joint_lag}


def columns(group: Group, joint_names: Sequence[str]) -> np.ndarray:
    """Return [G] where the joints of a group stand among ``joint_names``."""
    return np.array([joint_names.index(name) for name in group.joints], int)


@dataclass(frozen=True)
class Report:
    """What a controller says of itself (control_msgs/JointTrajectoryControllerState)."""

    stamp_ns: int
    received_ns: int
    joint_names: tuple[str, ...]
    reference: np.ndarray       # [D] positions it commands, in the order of the robot's joints
    speed_scaling: float = 1.0  # of its time


class Controller:
    """The newest report of one controller. One thread may put while another asks."""

    def __init__(self, joint_names: tuple[str, ...], group: Group | None = None) -> None:
        """Begin without one."""
        self.joint_names, self.group = joint_names, group or Group(joints=joint_names)
        self._reports: deque[Report] = deque(maxlen=8)
        self._scaling: tuple[int, float] | None = None  # told by a topic of its own

    def hear(self, report: Report) -> None:
        """Take a report."""
        self._reports.append(report)

    def hear_scaling(self, factor: float, received_ns: int) -> None:
        """Take how fast the controller's time passes, 1 for full speed, by a topic of its own."""
        self._scaling = received_ns, factor

    def forget(self) -> None:
        """Forget all: another controller, or the clock jumped."""
        self._reports.clear()
        self._scaling = None

    @property
    def newest(self) -> Report | None:
        """Return the newest report."""
        return self._reports[-1] if self._reports else None

    def reference(self, now_ns: int) -> Report | None:
        """Return the newest report if it is news and about these joints."""
        reports = list(self._reports.copy())
        if not reports or set(reports[-1].joint_names) != set(self.joint_names):
            return None
        late_ns = now_ns - reports[-1].received_ns
        return reports[-1] if late_ns <= self._allowed_ns(reports) else None

    @staticmethod
    def _allowed_ns(reports: list[Report]) -> int:
        periods = np.diff([report.received_ns for report in reports])
        return max(SILENT_NS, SLOWEST_REPORT * int(np.median(periods)) if len(periods) else 0)

    def silent(self, now_ns: int) -> Finding | None:
        """Return that a controller which has told its state does not tell it any more."""
        reports = list(self._reports.copy())
        if not reports or now_ns - reports[-1].received_ns <= self._allowed_ns(reports):
            return None
        return Finding('controller_silent', f'{self.group.controller} has not told its state for '
                       f'{(now_ns - reports[-1].received_ns) / 1e9:.2f} s: it was switched off, '
                       'or has ended; start it, then arm again', self.group.name or 'controller')

    def scaling(self, now_ns: int) -> float:
        """Return how fast its time passes; 1 where nobody says."""
        if self._scaling is not None:
            return self._scaling[1]
        report = self.reference(now_ns)
        return report.speed_scaling if report else 1.0

    def problem(self, now_ns: int) -> Finding | None:
        """Return why a robot on this controller cannot be commanded, or None."""
        factor, newest, it = self.scaling(now_ns), self.newest, self.group.controller
        subject = self.group.name or 'controller'
        if not 0.0 <= factor <= safety.FULL_SPEED:
            return Finding('speed_scaling', f'{it} says that its speed is scaled to '
                           f'{100 * factor:.0f} %, expected 0 to 100', subject, factor, 1.0)
        if self._scaling is not None and now_ns - self._scaling[0] > SCALING_NS:
            return Finding('speed_scaling', f'the speed scaling of {it} has not been '
                           f'told for {(now_ns - self._scaling[0]) / 1e9:.1f} s', subject)
        if newest is None:
            return None
        mine = set(self.joint_names)
        other = sorted(mine.symmetric_difference(newest.joint_names))
        if other:
            return Finding('controller_joints', f'{it} has joints '
                           f"{', '.join(newest.joint_names)}, commanded are "
                           f"{', '.join(self.joint_names)}: it refuses every message",
                           ', '.join(other))
        ahead_ns = newest.stamp_ns - newest.received_ns
        if newest.stamp_ns and abs(ahead_ns) > CLOCKS_APART_NS:
            way = 'ahead of' if ahead_ns > 0 else 'behind'
            return Finding('controller_clock', f'the clock of {it} is '
                           f'{abs(ahead_ns) / 1e9:.2f} s {way} this one: it would refuse '
                           'commands, or be late; synchronise the machines, or let both use '
                           'simulated time', subject, abs(ahead_ns) / 1e9, CLOCKS_APART_NS / 1e9)
        return None


class Controllers:
    """All controllers of a robot; the slowest says how fast time passes for all."""

    def __init__(self, joint_names: tuple[str, ...], groups: Sequence[Group] = ()) -> None:
        """Begin without a report. :param groups: none: one controller has all joints."""
        groups = groups or (Group(joints=joint_names),)
        self.joint_names, self.groups = joint_names, tuple(groups)
        self.each = [Controller(group.joints, group) for group in groups]
        self.columns = [columns(group, joint_names) for group in groups]

    def __iter__(self) -> Iterator[tuple[Controller, np.ndarray]]:
        """Return every controller, and where its joints stand, [G]."""
        return iter(zip(self.each, self.columns))

    def forget(self) -> None:
        """Forget all: other controllers, or the clock jumped."""
        for controller in self.each:
            controller.forget()

    def hears(self, now_ns: int) -> bool:
        """Return whether any tells its state."""
        return any(one.reference(now_ns) is not None for one in self.each)

    def scaling(self, now_ns: int) -> float:
        """Return how fast the time of the slowest passes."""
        factors = [one.scaling(now_ns) for one in self.each]
        return next((one for one in factors if not 0.0 <= one <= safety.FULL_SPEED), min(factors))

    def problem(self, now_ns: int) -> Finding | None:
        """Return why a robot on these controllers cannot be commanded, or None."""
        return next(filter(None, (one.problem(now_ns) for one in self.each)), None)

    def silent(self, now_ns: int) -> Finding | None:
        """Return that one which has told its state does not tell it any more."""
        return next(filter(None, (one.silent(now_ns) for one in self.each)), None)

    def of_interface(self, *kinds: str) -> np.ndarray:
        """Return [D] which joints are commanded through one of the interfaces ``kinds``."""
        return interfaces(self.groups, self.joint_names, *kinds)
