# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
What a robot's description (URDF) says of the joints that are commanded, and of their mimics.

Whatever else it holds is nobody's business: what robot_state_publisher takes is taken here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
import math
import xml.etree.ElementTree as ElementTree

from pi0_ros.kinematics.urdf import parse, UrdfError

KINDS = ('revolute', 'prismatic', 'continuous')


@dataclass
class Described:
    """One commanded joint; limits that are not known are infinite."""

    kind: str = 'revolute'
    lower: float = -math.inf   # rad or m, those of mimics and soft limits included
    upper: float = math.inf
    velocity: float = math.inf  # per second
    warnings: list[str] = field(default_factory=list)


def read(urdf: str, names: Sequence[str]) -> tuple[dict[str, Described], list[str]]:
    """
    Return those of the joints ``names`` that a description has, and the names of all that move.

    :raises UrdfError: it is no URDF, or one of these joints, or of their mimics, cannot be read
        or commanded.
    """
    joints: dict[str, ElementTree.Element] = {}
    for element in parse(urdf).findall('joint'):
        name = element.get('name')
        if name in joints:
            raise UrdfError('joint_twice', f"robot_description has two joints '{name}': give "
                            'each robot in it a prefix of its own')
        if name:
            joints[name] = element
    moving = sorted(name for name, joint in joints.items() if joint.get('type') != 'fixed')
    return {name: _joint(name, joints) for name in names if name in joints}, moving


def _joint(name: str, joints: dict[str, ElementTree.Element]) -> Described:
    """Return what is said of a commanded joint; it must keep its mimics inside their limits."""
    joint = joints[name]
    kind = joint.get('type', '')
    if kind not in KINDS:
        raise UrdfError('joint_kind', f"joint '{name}' of robot_description is "
                        f"{kind or 'of no type'}, which no position commands")
    leader = joint.find('mimic')
    if leader is not None:
        raise UrdfError('joint_mimics', f"joint '{name}' of robot_description mimics "
                        f"'{leader.get('joint')}'")
    out = Described(kind, *_limits(name, joint))
    for other, (factor, offset) in _mimics(name, joints).items():
        lower, upper, velocity = _limits(other, joints[other])
        ends = sorted((end - offset) / factor for end in (lower, upper))
        least, most = max(out.lower, ends[0]), min(out.upper, ends[1])
        if least < most:
            out.lower, out.upper = least, most
        else:
            out.warnings.append(
                f"'{other}' mimics '{name}', and its limits {lower:g} to {upper:g} would leave "
                f"'{name}' no room: those of '{name}' count, {out.lower:g} to {out.upper:g}")
        out.velocity = min(out.velocity, velocity / abs(factor))
    return out


def _mimics(name: str, joints: dict[str, ElementTree.Element]) -> dict[str, tuple[float, float]]:
    """Return all that mimic a joint, also by others: position = factor * its position + offset."""
    out: dict[str, tuple[float, float]] = {}
    waiting = [(name, 1.0, 0.0)]
    while waiting:
        leader, factor, offset = waiting.pop()
        for other, joint in joints.items():
            mimic = joint.find('mimic')
            if mimic is None or mimic.get('joint') != leader or other in out or other == name:
                continue
            own, shift = (_number(mimic, key, other, default) for key, default in (
                ('multiplier', 1.0), ('offset', 0.0)))
            if own:
                out[other] = own * factor, own * offset + shift
                waiting.append((other, *out[other]))
    return out


def _limits(name: str, joint: ElementTree.Element) -> tuple[float, float, float]:
    """
    Return lower, upper and velocity of a joint itself, infinite where they are not said.

    Of its soft limits (safety_controller), those that are tighter count, as for MoveIt and
    ros2_control; a velocity of 0 or less stands for none in many descriptions.
    """
    lower, upper, velocity = -math.inf, math.inf, math.inf
    limit, soft = joint.find('limit'), joint.find('.//safety_controller')
    if limit is not None:
        ends = [_number(limit, key, name, 0.0) for key in ('lower', 'upper')]
        if joint.get('type') != 'continuous' and any(ends):
            lower, upper = ends
        said = _number(limit, 'velocity', name, 0.0)
        velocity = said if said > 0 else math.inf
    if soft is not None and joint.get('type') != 'continuous':
        ends = [_number(soft, key, name, 0.0) for key in ('soft_lower_limit', 'soft_upper_limit')]
        if ends[0] < ends[1]:
            lower, upper = max(lower, ends[0]), min(upper, ends[1])
    return lower, upper, velocity


def _number(element: ElementTree.Element, key: str, joint: str, default: float) -> float:
    text = element.get(key)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isnan(value):
        raise UrdfError('joint_unreadable', f"joint '{joint}' of robot_description cannot be "
                        f"read: its {key} is '{text}', expected a number")
    return value
