"""Joint limits, from the URDF that the robot publishes."""

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class JointLimits:
    """Position limits of D joints, radians or metres, in a fixed joint order."""

    lower: np.ndarray  # [D]
    upper: np.ndarray  # [D]

    def clamp(self, positions: np.ndarray) -> np.ndarray:
        """Return ``positions`` [..., D] inside the limits."""
        return np.clip(positions, self.lower, self.upper)


def unlimited(joint_count: int) -> JointLimits:
    """Return limits that let everything pass."""
    return JointLimits(np.full(joint_count, -np.inf), np.full(joint_count, np.inf))


def limits_from_urdf(urdf: str, joint_names: tuple[str, ...]) -> JointLimits:
    """Return the position limits of ``joint_names``; a continuous joint has none.

    :raises ValueError: the text is no URDF, or lacks a joint or its limits.
    """
    try:
        joints = {joint.get('name'): joint for joint in ElementTree.fromstring(urdf).iter('joint')
                  if joint.get('type') and joint.get('name')}
    except ElementTree.ParseError as error:
        raise ValueError(f'robot_description is no URDF: {error}') from error
    lower, upper = [], []
    for name in joint_names:
        joint = joints.get(name)
        if joint is None:
            raise ValueError(f"robot_description has no joint '{name}', it has "
                             f"{', '.join(sorted(joints))}: check parameter 'joint_names'")
        if joint.get('type') == 'continuous':
            lower.append(-np.inf)
            upper.append(np.inf)
            continue
        limit = joint.find('limit')
        try:
            low, high = float(limit.get('lower', 0)), float(limit.get('upper', 0))
        except (AttributeError, ValueError) as error:
            raise ValueError(f"joint '{name}' of robot_description has no limits") from error
        if not low < high:
            raise ValueError(f"joint '{name}' of robot_description has limits {low} to {high}, "
                             'which leave it no room')
        lower.append(low)
        upper.append(high)
    return JointLimits(np.array(lower), np.array(upper))
