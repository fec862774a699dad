# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Joint limits: those of the robot's URDF, and parameters that can only tighten them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
import fnmatch
import logging
import math

import numpy as np
from pi0_ros.kinematics.urdf import UrdfError
from pi0_ros.motion.description import Described, read
from pi0_ros.policy.policy import Body

MOST_MARGIN = 0.05         # of a joint's range
PRISMATIC_JUMP, PRISMATIC_TRACKING = 0.10, 0.15  # of its range, where radians mean nothing
UNLIMITED = 1e6            # stands for no limit of velocity or acceleration
OUTSIDE = 0.1              # radians beyond a limit that a joint may be measured at
PRISMATIC_OUTSIDE = 0.15   # of its range, at most that in metres
TIGHTER = ('lower', 'upper', 'velocity', 'acceleration')

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rules:
    """What the operator allows, beside the URDF."""

    velocity_scale: float = 0.5       # of the URDF's velocity
    acceleration_scale: float = 1.0   # of what is below
    acceleration: float = 5.0         # rad/s^2 or m/s^2; URDF has none
    margin: float = 0.05              # rad or m inside the position limits
    jump: float = 0.2                 # rad
    tracking: float = 0.3             # rad
    grippers: tuple[str, ...] = ()    # names or shell patterns
    tighter: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    instead: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # also looser


@dataclass(frozen=True)
class JointLimits:
    """Limits of D joints, radians or metres and seconds, in a fixed joint order."""

    lower: np.ndarray         # [D] the margin is taken off
    upper: np.ndarray         # [D]
    velocity: np.ndarray      # [D]
    acceleration: np.ndarray  # [D]
    jump: np.ndarray          # [D] between where the robot is and where a chunk begins
    tracking: np.ndarray      # [D] between where the robot is and where it was told to be
    turns: np.ndarray         # [D] bool: continuous, whole turns make no difference
    alone: np.ndarray         # [D] bool: grippers, which neither slow others nor are slowed
    stopping: np.ndarray      # [D] acceleration of stops, whatever acceleration_scale is
    unknown: tuple[str, ...] = ()  # what neither URDF nor parameters limit, one text for a joint
    refused: bool = False          # whether there was a URDF that could not be used
    warnings: tuple[str, ...] = ()  # what is odd about the description
    outside: np.ndarray = field(default_factory=lambda: np.array(OUTSIDE))  # [D], or one for all

    @property
    def none(self) -> bool:
        """Return whether everything passes."""
        return bool(np.isinf(self.upper).all() and np.isinf(self.lower).all()
                    and (self.velocity >= UNLIMITED).all()
                    and (self.acceleration >= UNLIMITED).all())

    def of(self, columns: np.ndarray) -> 'JointLimits':
        """Return the limits of some joints. :param columns: [G] where they stand."""
        parts = {one.name: getattr(self, one.name) for one in fields(self)}
        return replace(self, **{name: part[columns] for name, part in parts.items()
                                if isinstance(part, np.ndarray) and part.ndim})

    def clamp(self, positions: np.ndarray) -> np.ndarray:
        """Return ``positions`` [..., D] inside the position limits."""
        return np.clip(positions, self.lower, self.upper)

    def including(self, positions: np.ndarray) -> 'JointLimits':
        """Return limits that ``positions`` [D] are inside of: a robot may begin in the margin."""
        return replace(self, lower=np.minimum(self.lower, positions),
                       upper=np.maximum(self.upper, positions))

    def shortest(self, moved: np.ndarray) -> np.ndarray:
        """Return distances [..., D] without the whole turns of continuous joints."""
        return np.where(self.turns, (moved + np.pi) % (2 * np.pi) - np.pi, moved)

    def far(self, one: np.ndarray, other: np.ndarray, share: float) -> np.ndarray:
        """Return which joints [D] are further apart than ``share`` of their tracking limit."""
        return np.abs(self.shortest(one - other)) > share * self.tracking

    def nearest_turn(self, positions: np.ndarray, reference: np.ndarray) -> np.ndarray:
        """
        Return ``positions`` [T, D], those of continuous joints without jumps of whole turns.

        :param reference: [D] where the first row is taken to be near.
        """
        if not self.turns.any():
            return positions
        out = np.unwrap(positions, axis=0)
        out += 2 * np.pi * np.round((reference - out[0]) / (2 * np.pi))
        return np.where(self.turns, out, positions)


def unlimited(joint_count: int) -> JointLimits:
    """Return limits that let everything pass."""
    most, all_joints = np.full(joint_count, UNLIMITED), np.full(joint_count, np.inf)
    none = np.zeros(joint_count, bool)
    return JointLimits(-all_joints, all_joints, most, most, all_joints, all_joints, none, none,
                       most)


def make_limits(joint_names: Sequence[str], rules: Rules, urdf: str | None = None) -> JointLimits:
    """
    Return the limits of ``joint_names``.

    :param urdf: the robot's description; None: parameters alone.
    :raises UrdfError: the text is no URDF, or a joint cannot be commanded by its position.
    """
    joints, others = read(urdf, joint_names) if urdf is not None else ({}, [])
    columns, unknown, warnings = [], [], []
    for name in joint_names:
        joint = joints.get(name)
        if joint is None and urdf is not None:
            if not {'lower', 'upper', 'velocity'} <= {*rules.tighter.get(name, ()),
                                                      *rules.instead.get(name, ())}:
                raise UrdfError('joint_unknown', f"robot_description has no joint '{name}', it "
                                f"has {', '.join(others) or 'none'}")
            warnings.append(f"robot_description has no joint '{name}': the limits that are set "
                            'for it stand in')
        limits, missing, odd = _one(name, joint or Described(), rules)
        columns.append(limits)
        warnings += odd
        unknown += [f"{' and '.join(missing)} of '{name}'"] if missing else []
    lower, upper, velocity, acceleration, jump, tracking, turns, alone, outside = np.array(
        columns).T
    return JointLimits(lower, upper, velocity, acceleration * rules.acceleration_scale, jump,
                       tracking, turns.astype(bool), alone.astype(bool), acceleration,
                       tuple(unknown), warnings=tuple(warnings), outside=outside)


class RobotLimits:
    """
    The limits of one robot, from the newest description of it that can be used.

    The one owner: session, operator and bags ask it. A description that cannot be used is no
    reason for wider limits, or for none: what is configured stays, and everything is unknown.
    """

    def __init__(self, joint_names: Sequence[str], rules: Rules) -> None:
        """Begin without a description."""
        self._names, self._rules = joint_names, rules
        self.text: str | None = None
        self.problem: UrdfError | None = None
        self.now = make_limits(joint_names, rules)

    def describe(self, urdf: str) -> bool:
        """Take a description; return whether it is another than the one before."""
        if urdf == self.text:
            return False
        if self.text is not None and not self.problem and self._strange(urdf):
            _log.warning('another robot_description has none of the commanded joints: it is not '
                         "this robot's (a camera's own robot_state_publisher, for example), and "
                         'the one before counts')
            return False
        self.text, self.problem = urdf, None
        try:
            self.now = make_limits(self._names, self._rules, urdf)
            for warning in self.now.warnings:
                _log.warning(warning)
        except UrdfError as error:
            self.problem = error
            self.now = replace(make_limits(self._names, self._rules), unknown=(str(error),),
                               refused=True)
        return True

    def body(self) -> Body:
        """Return what a policy may know of the robot."""
        return Body(self.text, self.now.lower, self.now.upper, self.problem)

    def _strange(self, urdf: str) -> bool:
        """Return whether a description can be read and has none of the joints."""
        try:
            return not read(urdf, self._names)[0]
        except UrdfError:
            return False


def limits_from_urdf(urdf: str, joint_names: Sequence[str], rules: Rules = Rules()
                     ) -> JointLimits:
    """
    Return the limits of ``joint_names`` in ``urdf``; see ``make_limits``.

    :raises UrdfError: also if a limit is missing.
    """
    out = make_limits(joint_names, rules, urdf)
    if out.unknown:
        raise UrdfError('limits_unknown', 'robot_description does not limit '
                        f"{'; '.join(out.unknown)}")
    return out


def _one(name: str, joint: Described, rules: Rules
         ) -> tuple[tuple[float, ...], list[str], list[str]]:
    """Return the limits of one joint, in the order of JointLimits; what is unknown; warnings."""
    known = {'lower': joint.lower, 'upper': joint.upper, 'velocity': joint.velocity,
             'acceleration': rules.acceleration}
    warnings = list(joint.warnings)
    for key, value in rules.instead.get(name, {}).items():
        said = f'{known[key]:g} ' if math.isfinite(known[key]) else ''
        if key != 'acceleration':  # which no description has
            warnings.append(f"the limit {key} {said}of '{name}' in robot_description is replaced "
                            f'by {value:g}, as it is set')
        known[key] = value
    tighter = rules.tighter.get(name, {})
    for key, loose in (('lower', min), ('upper', max), ('velocity', max)):
        value = known[key]
        if np.isfinite(value) and key in tighter and loose(tighter[key], value) != value:
            warnings.append(f"the limit {key} {tighter[key]} of '{name}' is looser than {value} "
                            'of robot_description, which stays')
    lower = max(known['lower'], tighter.get('lower', -np.inf))
    upper = min(known['upper'], tighter.get('upper', np.inf))
    if not lower < upper:
        raise UrdfError('joint_room', f"joint '{name}' has limits {lower} to {upper}, which "
                        'leave it no room')
    velocity = min(known['velocity'] * rules.velocity_scale, tighter.get('velocity', np.inf))
    acceleration = min(known['acceleration'], tighter.get('acceleration', np.inf))
    turns = joint.kind == 'continuous'
    missing = [what for what, there in (
        ('position', turns or np.isfinite([lower, upper]).all()),
        ('velocity', np.isfinite(velocity))) if not there]
    jump, tracking, outside, wide = rules.jump, rules.tracking, OUTSIDE, upper - lower
    if joint.kind == 'prismatic' and np.isfinite(wide):
        jump, tracking = PRISMATIC_JUMP * wide, PRISMATIC_TRACKING * wide
        outside = min(OUTSIDE, PRISMATIC_OUTSIDE * wide)
    margin = min(rules.margin, MOST_MARGIN * wide)
    alone = any(fnmatch.fnmatchcase(name, pattern) for pattern in rules.grippers)
    if alone:
        # Things in the hand keep it from closing, and a policy closes it in one step.
        margin, jump, tracking = 0.0, np.inf, np.inf
    return (lower + margin, upper - margin, min(velocity, UNLIMITED), acceleration, jump, tracking,
            turns, alone, outside), missing, warnings
