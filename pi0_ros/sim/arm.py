# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Kinematics of the simulated tabletop arm: four revolute joints and a parallel gripper.

Lengths are metres, angles radians. The base stands at the origin, x points away from it over the
table, z up. Pitch angles count upwards from the horizontal, each joint relative to the link
before it. All functions take and return arrays with any leading batch dimensions.
"""

import numpy as np

JOINT_NAMES = ('shoulder_pan', 'shoulder_lift', 'elbow_flex', 'wrist_flex', 'gripper')
GRIPPER = 4  # index of the gripper joint: the opening between the fingers, metres

BASE_HEIGHT = 0.10
UPPER_ARM = 0.18
FOREARM = 0.18
HAND = 0.08

LOWER = np.array([-2.0, -0.4, -2.7, -2.6, 0.0])
UPPER = np.array([2.0, 2.2, 0.2, 1.0, 0.06])
MAX_VELOCITY = np.array([3.0, 3.0, 4.0, 4.0, 0.30])
GRIPPER_OPEN = 0.06


def forward(joints: np.ndarray) -> np.ndarray:
    """
    Return the positions of shoulder, elbow, wrist and tool tip.

    :param joints: [..., 5] joint positions, in the order of ``JOINT_NAMES``.
    :returns: [..., 4, 3] points.
    """
    joints = np.asarray(joints)
    pitch = np.cumsum(joints[..., 1:4], axis=-1)
    length = np.array([UPPER_ARM, FOREARM, HAND])
    radius = np.cumsum(length * np.cos(pitch), axis=-1)
    height = BASE_HEIGHT + np.cumsum(length * np.sin(pitch), axis=-1)
    pan = joints[..., 0:1]
    points = np.zeros(joints.shape[:-1] + (4, 3))
    points[..., 0, 2] = BASE_HEIGHT
    points[..., 1:, 0] = radius * np.cos(pan)
    points[..., 1:, 1] = radius * np.sin(pan)
    points[..., 1:, 2] = height
    return points


def tool_polar(joints: np.ndarray) -> np.ndarray:
    """Return the tool tip as [..., 3]: pan angle, radius and height."""
    joints = np.asarray(joints)
    pitch = np.cumsum(joints[..., 1:4], axis=-1)
    length = np.array([UPPER_ARM, FOREARM, HAND])
    return np.stack([joints[..., 0], (length * np.cos(pitch)).sum(-1),
                     BASE_HEIGHT + (length * np.sin(pitch)).sum(-1)], axis=-1)


def inverse(polar: np.ndarray) -> np.ndarray:
    """
    Return the [..., 4] arm joints that put the tool tip at (pan, radius, height), hand down.

    Two-link planar inverse kinematics, elbow up. A point out of reach is pulled back to the
    sphere of reach, so that the result is always finite.
    """
    pan, radius, height = np.moveaxis(np.asarray(polar, float), -1, 0)
    wrist_height = height + HAND - BASE_HEIGHT
    distance = np.hypot(radius, wrist_height)
    reach = np.clip(distance, abs(UPPER_ARM - FOREARM) + 1e-3, UPPER_ARM + FOREARM - 1e-6)
    cos_elbow = (reach**2 - UPPER_ARM**2 - FOREARM**2) / (2 * UPPER_ARM * FOREARM)
    elbow = -np.arccos(np.clip(cos_elbow, -1, 1))
    lift = np.arctan2(wrist_height, radius) - np.arctan2(
        FOREARM * np.sin(elbow), UPPER_ARM + FOREARM * np.cos(elbow))
    wrist = -np.pi / 2 - lift - elbow
    return np.stack([pan, lift, elbow, wrist], axis=-1)


def home() -> np.ndarray:
    """Return the [5] joint positions at rest: retracted, hand down, gripper open."""
    return np.append(inverse(np.array([0.0, 0.13, 0.17])), GRIPPER_OPEN)
