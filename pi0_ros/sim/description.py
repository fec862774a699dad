# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The URDF of the simulated arm, from the numbers of its kinematics."""

from dataclasses import replace

from pi0_ros.motion.limits import Rules, UNLIMITED
from pi0_ros.sim import arm

RULES = Rules(grippers=('gripper',))  # as config/sim.yaml has them
UNLIMITED_RULES = replace(RULES, velocity_scale=UNLIMITED, acceleration=UNLIMITED, margin=0.0)


def urdf() -> str:
    """Return the robot description."""
    return f"""<?xml version="1.0"?>
<robot name="pi0_ros_sim">
  <link name="base_link">{_box(0.08, 0.08, arm.BASE_HEIGHT, arm.BASE_HEIGHT / 2, 'z')}</link>
  <link name="shoulder"/>
  <link name="upper_arm">{_box(arm.UPPER_ARM, 0.026, 0.026, arm.UPPER_ARM / 2, 'x')}</link>
  <link name="forearm">{_box(arm.FOREARM, 0.026, 0.026, arm.FOREARM / 2, 'x')}</link>
  <link name="hand">{_box(arm.HAND, 0.02, 0.02, arm.HAND / 2, 'x')}</link>
  <link name="finger">{_box(0.05, 0.008, 0.01, 0.025, 'x')}</link>
  {_joint(0, 'revolute', 'base_link', 'shoulder', f'0 0 {arm.BASE_HEIGHT}', '0 0 1')}
  {_joint(1, 'revolute', 'shoulder', 'upper_arm', '0 0 0', '0 -1 0')}
  {_joint(2, 'revolute', 'upper_arm', 'forearm', f'{arm.UPPER_ARM} 0 0', '0 -1 0')}
  {_joint(3, 'revolute', 'forearm', 'hand', f'{arm.FOREARM} 0 0', '0 -1 0')}
  {_joint(4, 'prismatic', 'hand', 'finger', f'{arm.HAND - 0.05} 0 0', '0 1 0')}
</robot>
"""


def _box(x: float, y: float, z: float, offset: float, axis: str) -> str:
    origin = f'{offset} 0 0' if axis == 'x' else f'0 0 {offset}'
    return (f'<visual><origin xyz="{origin}"/><geometry><box size="{x} {y} {z}"/></geometry>'
            '</visual>')


def _joint(index: int, kind: str, parent: str, child: str, origin: str, axis: str) -> str:
    return (f'<joint name="{arm.JOINT_NAMES[index]}" type="{kind}"><parent link="{parent}"/>'
            f'<child link="{child}"/><origin xyz="{origin}"/><axis xyz="{axis}"/>'
            f'<limit lower="{arm.LOWER[index]}" upper="{arm.UPPER[index]}" effort="10" '
            f'velocity="{arm.MAX_VELOCITY[index]}"/></joint>')
