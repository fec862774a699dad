"""Joint limits: those of the robot's URDF, and parameters that can only tighten them."""

import fnmatch
import logging
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from urdf_parser_py.urdf import Joint
from urdf_parser_py.xml_reflection import core as urdf_parser

MOST_MARGIN = 0.05         # of a joint's range
PRISMATIC_JUMP, PRISMATIC_TRACKING = 0.10, 0.15  # of its range, where radians mean nothing
UNLIMITED = 1e6            # stands for no limit of velocity or acceleration
OUTSIDE = 0.1              # radians or metres beyond a limit that a joint may be measured at
TIGHTER = ('lower', 'upper', 'velocity', 'acceleration')

urdf_parser.on_error = logging.getLogger(__name__).debug  # else it writes to stderr
_log = logging.getLogger(__name__)


class LimitsError(ValueError):
    """A description or limits cannot be used; ``reason`` is a word for programs."""

    def __init__(self, reason: str, text: str) -> None:
        """Keep both."""
        super().__init__(text)
        self.reason = reason


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

    @property
    def none(self) -> bool:
        """Return whether everything passes."""
        return bool(np.isinf(self.upper).all() and np.isinf(self.lower).all()
                    and (self.velocity >= UNLIMITED).all()
                    and (self.acceleration >= UNLIMITED).all())

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
        """Return ``positions`` [T, D], those of continuous joints without jumps of whole turns.

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
    """Return the limits of ``joint_names``.

    :param urdf: the robot's description; None: parameters alone.
    :raises LimitsError: the text is no URDF, or a joint cannot be commanded by its position.
    """
    joints = _joints(urdf) if urdf is not None else {}
    columns, unknown = [], []
    for name in joint_names:
        joint = joints.get(name)
        if joint is None and urdf is not None:
            raise LimitsError('joint_unknown', f"robot_description has no joint '{name}', it has "
                              f"{', '.join(sorted(joints))}")
        limits, missing = _one(name, joint, joints, rules)
        columns.append(limits)
        unknown += [f"{' and '.join(missing)} of '{name}'"] if missing else []
    lower, upper, velocity, acceleration, jump, tracking, turns, alone = np.array(columns).T
    return JointLimits(lower, upper, velocity, acceleration * rules.acceleration_scale, jump,
                       tracking, turns.astype(bool), alone.astype(bool), acceleration,
                       tuple(unknown))


class RobotLimits:
    """The limits of one robot, from the newest description of it that can be used.

    The one owner: session, operator and bags ask it. A description that cannot be used is no
    reason for wider limits, or for none: what is configured stays, and everything is unknown.
    """

    def __init__(self, joint_names: Sequence[str], rules: Rules) -> None:
        """Begin without a description."""
        self._names, self._rules = joint_names, rules
        self.text: str | None = None
        self.problem: LimitsError | None = None
        self.now = make_limits(joint_names, rules)

    def describe(self, urdf: str) -> bool:
        """Take a description; return whether it is another than the one before."""
        if urdf == self.text:
            return False
        self.text, self.problem = urdf, None
        try:
            self.now = make_limits(self._names, self._rules, urdf)
        except LimitsError as error:
            self.problem = error
            self.now = replace(make_limits(self._names, self._rules), unknown=(str(error),),
                               refused=True)
        return True


def limits_from_urdf(urdf: str, joint_names: Sequence[str], rules: Rules = Rules()
                     ) -> JointLimits:
    """Return the limits of ``joint_names`` in ``urdf``; see ``make_limits``.

    :raises LimitsError: also if a limit is missing.
    """
    out = make_limits(joint_names, rules, urdf)
    if out.unknown:
        raise LimitsError('limits_unknown', 'robot_description does not limit '
                          f"{'; '.join(out.unknown)}")
    return out


def _joints(urdf: str) -> dict[str, Joint]:
    """Return the joints of a robot; whatever else its description has is nobody's business."""
    try:
        elements = ElementTree.fromstring(urdf).findall('joint')
    except ElementTree.ParseError as error:
        raise LimitsError('no_urdf', f'robot_description is no URDF: {error}') from error
    out = {}
    for element in elements:
        try:
            joint = Joint.from_xml_string(ElementTree.tostring(element))
        except Exception as error:  # the library raises what it comes across
            raise LimitsError('joint_unreadable', f"joint '{element.get('name')}' of "
                              f'robot_description cannot be read: {error}') from error
        out[joint.name] = joint
    return out


def _one(name: str, joint: Joint | None, joints: Mapping[str, Joint], rules: Rules
         ) -> tuple[tuple[float, ...], list[str]]:
    """Return the limits of one joint, in the order of JointLimits, and what is unknown of it."""
    kind = joint.type if joint else 'revolute'
    if kind not in ('revolute', 'prismatic', 'continuous'):
        raise LimitsError('joint_kind', f"joint '{name}' of robot_description is {kind}, which no "
                          'position commands')
    if joint and joint.mimic:
        raise LimitsError('joint_mimics', f"joint '{name}' of robot_description mimics "
                          f"'{joint.mimic.joint}'")
    lower, upper, velocity = _of_urdf(joint, joints)
    tighter = rules.tighter.get(name, {})
    for key, value, loose in (('lower', lower, min), ('upper', upper, max),
                              ('velocity', velocity, max)):
        if np.isfinite(value) and key in tighter and loose(tighter[key], value) != value:
            _log.warning("the limit %s %s of '%s' is looser than %s of robot_description, which "
                         'stays', key, tighter[key], name, value)
    lower, upper = max(lower, tighter.get('lower', lower)), min(upper, tighter.get('upper', upper))
    if not lower < upper:
        raise LimitsError('joint_room', f"joint '{name}' has limits {lower} to {upper}, which "
                          'leave it no room')
    velocity = min(velocity * rules.velocity_scale, tighter.get('velocity', np.inf))
    acceleration = min(rules.acceleration, tighter.get('acceleration', np.inf))
    turns = kind == 'continuous'
    missing = [what for what, known in (
        ('position', turns or np.isfinite([lower, upper]).all()),
        ('velocity', np.isfinite(velocity))) if not known]
    jump, tracking = rules.jump, rules.tracking
    wide = upper - lower
    if kind == 'prismatic' and np.isfinite(wide):
        jump, tracking = PRISMATIC_JUMP * wide, PRISMATIC_TRACKING * wide
    margin = min(rules.margin, MOST_MARGIN * wide)
    alone = any(fnmatch.fnmatchcase(name, pattern) for pattern in rules.grippers)
    if alone:
        # Things in the hand keep it from closing, and a policy closes it in one step.
        margin, jump, tracking = 0.0, np.inf, np.inf
    return (lower + margin, upper - margin, min(velocity, UNLIMITED), acceleration, jump, tracking,
            turns, alone), missing


def _of_urdf(joint: Joint | None, joints: Mapping[str, Joint]) -> tuple[float, float, float]:
    """Return lower, upper and velocity, infinite where unknown; mimics must stay inside theirs."""
    lower, upper, velocity = -np.inf, np.inf, np.inf
    if joint is None:
        return lower, upper, velocity
    if joint.limit is not None:
        if joint.type != 'continuous' and (joint.limit.lower or joint.limit.upper):
            lower, upper = float(joint.limit.lower or 0), float(joint.limit.upper or 0)
        velocity = _velocity(joint)
    for other in joints.values():
        if other.mimic is None or other.mimic.joint != joint.name or other.limit is None:
            continue
        factor = 1.0 if other.mimic.multiplier is None else float(other.mimic.multiplier)
        if not factor:
            continue
        if other.type != 'continuous' and (other.limit.lower or other.limit.upper):
            ends = sorted((float(end or 0) - float(other.mimic.offset or 0)) / factor
                          for end in (other.limit.lower, other.limit.upper))
            lower, upper = max(lower, ends[0]), min(upper, ends[1])
        velocity = min(velocity, _velocity(other) / abs(factor))
    return lower, upper, velocity


def _velocity(joint: Joint) -> float:
    """Return the velocity limit; 0 stands for none in many descriptions."""
    velocity = float(joint.limit.velocity or np.inf)
    if not velocity > 0:
        raise LimitsError('joint_velocity', f"joint '{joint.name}' of robot_description has a "
                          f'velocity limit of {velocity}, expected one above 0')
    return velocity
