# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Kinematics of three real arms as their makers publish them: facts, without their meshes.

UR5e: Universal_Robots_ROS2_Description, config/ur5e (nominal). Panda: moveit_resources. Piper:
AgileX' piper_description. Of each: joint, kind, parent, child, origin xyz and rpy, axis, limits.
"""

import math

PI = math.pi
ARMS = {
    'ur5e': [
        ('base_joint', 'fixed', 'world', 'base_link', (0.3, -0.2, 0.7), (0, 0, 0.5), None, None),
        ('inertia', 'fixed', 'base_link', 'base_link_inertia', (0, 0, 0), (0, 0, PI), None, None),
        ('shoulder_pan_joint', 'revolute', 'base_link_inertia', 'shoulder_link', (0, 0, 0.1625),
         (0, 0, 0), (0, 0, 1), (-2 * PI, 2 * PI)),
        ('shoulder_lift_joint', 'revolute', 'shoulder_link', 'upper_arm_link', (0, 0, 0),
         (PI / 2, 0, 0), (0, 0, 1), (-2 * PI, 2 * PI)),
        ('elbow_joint', 'revolute', 'upper_arm_link', 'forearm_link', (-0.425, 0, 0), (0, 0, 0),
         (0, 0, 1), (-PI, PI)),
        ('wrist_1_joint', 'revolute', 'forearm_link', 'wrist_1_link', (-0.3922, 0, 0.1333),
         (0, 0, 0), (0, 0, 1), (-2 * PI, 2 * PI)),
        ('wrist_2_joint', 'revolute', 'wrist_1_link', 'wrist_2_link', (0, -0.0997, 0),
         (PI / 2, 0, 0), (0, 0, 1), (-2 * PI, 2 * PI)),
        ('wrist_3_joint', 'continuous', 'wrist_2_link', 'wrist_3_link', (0, 0.0996, 0),
         (PI / 2, PI, PI), (0, 0, 1), None),
        ('flange', 'fixed', 'wrist_3_link', 'flange', (0, 0, 0), (0, -PI / 2, -PI / 2), None,
         None),
        ('tool', 'fixed', 'flange', 'tool0', (0, 0, 0), (PI / 2, 0, PI / 2), None, None)],
    'panda': [
        ('panda_joint1', 'revolute', 'panda_link0', 'panda_link1', (0, 0, 0.333), (0, 0, 0),
         (0, 0, 1), (-2.9671, 2.9671)),
        ('panda_joint2', 'revolute', 'panda_link1', 'panda_link2', (0, 0, 0), (-PI / 2, 0, 0),
         (0, 0, 1), (-1.8326, 1.8326)),
        ('panda_joint3', 'revolute', 'panda_link2', 'panda_link3', (0, -0.316, 0), (PI / 2, 0, 0),
         (0, 0, 1), (-2.9671, 2.9671)),
        ('panda_joint4', 'revolute', 'panda_link3', 'panda_link4', (0.0825, 0, 0),
         (PI / 2, 0, 0), (0, 0, 1), (-3.1416, 0.0873)),
        ('panda_joint5', 'revolute', 'panda_link4', 'panda_link5', (-0.0825, 0.384, 0),
         (-PI / 2, 0, 0), (0, 0, 1), (-2.9671, 2.9671)),
        ('panda_joint6', 'revolute', 'panda_link5', 'panda_link6', (0, 0, 0), (PI / 2, 0, 0),
         (0, 0, 1), (-0.0873, 3.8223)),
        ('panda_joint7', 'revolute', 'panda_link6', 'panda_link7', (0.088, 0, 0), (PI / 2, 0, 0),
         (0, 0, 1), (-2.9671, 2.9671)),
        ('panda_joint8', 'fixed', 'panda_link7', 'panda_link8', (0, 0, 0.107), (0, 0, 0), None,
         None),
        ('panda_hand_joint', 'fixed', 'panda_link8', 'panda_hand', (0, 0, 0), (0, 0, -PI / 4),
         None, None),
        ('panda_finger_joint1', 'prismatic', 'panda_hand', 'panda_leftfinger', (0, 0, 0.0584),
         (0, 0, 0), (0, 1, 0), (0.0, 0.04))],
    'piper': [
        ('joint1', 'revolute', 'base_link', 'link1', (0, 0, 0.123), (0, 0, -1.5708), (0, 0, 1),
         (-2.618, 2.618)),
        ('joint2', 'revolute', 'link1', 'link2', (0, 0, 0), (1.5708, -0.10095, -1.5708),
         (0, 0, 1), (0, 3.14)),
        ('joint3', 'revolute', 'link2', 'link3', (0.28503, 0, 0), (0, 0, 1.3826), (0, 0, 1),
         (-2.967, 0)),
        ('joint4', 'revolute', 'link3', 'link4', (0.021984, 0.25075, 0), (-1.5708, 0, 0),
         (0, 0, -1), (-1.832, 1.832)),
        ('joint5', 'revolute', 'link4', 'link5', (0, 0, 0), (1.5708, -0.087266, 0), (0, 0, 1),
         (-1.22, 1.22)),
        ('joint6', 'revolute', 'link5', 'link6', (0, 0.091, 0.0014165), (-1.5708, -1.5708, 0),
         (0, 0, -1), (-3.14, 3.14)),
        ('joint7', 'prismatic', 'link6', 'link7', (0, 0, 0.13503), (1.5708, 0, 1.5708),
         (0, 0, -1), (-0.038, 0))]}
HANDS = {'ur5e': ('base_link', 'tool0'), 'panda': ('panda_link0', 'panda_hand'),
         'piper': ('base_link', 'link6')}
# Joints at which each stands as on a table, hand downwards.
AT_WORK = {'ur5e': (0.3, -1.6, 1.9, -1.8, -1.5, 0.2),
           'panda': (0.0, -0.4, 0.1, -2.2, 0.0, 1.9, 0.8),
           'piper': (0.1, 1.3, -1.1, 0.2, 0.7, 0.1)}


def joints(name):
    """Return the names of the joints that move the hand."""
    return tuple(row[0] for row in ARMS[name] if row[1] != 'fixed' and row[3] not in (
        'panda_leftfinger', 'link7'))


def limits(name):
    """Return lower and upper of these joints, 2 pi where there are none."""
    known = {row[0]: row[7] or (-2 * PI, 2 * PI) for row in ARMS[name]}
    return tuple(zip(*(known[joint] for joint in joints(name))))


def urdf(name):
    """Return the arm's description."""
    def text(values):
        return ' '.join(map(str, values))

    out = [f'<robot name="{name}">']
    out += [f'<link name="{link}"/>'
            for link in dict.fromkeys(end for row in ARMS[name] for end in row[2:4])]
    for joint, kind, parent, child, xyz, rpy, axis, ends in ARMS[name]:
        out.append(f'<joint name="{joint}" type="{kind}"><parent link="{parent}"/>'
                   f'<child link="{child}"/><origin xyz="{text(xyz)}" rpy="{text(rpy)}"/>')
        if axis:
            low, high = ends or (0, 0)
            out.append(f'<axis xyz="{text(axis)}"/><limit velocity="2" effort="9"'
                       + (f' lower="{low}" upper="{high}"' if ends else '') + '/>')
        out.append('</joint>')
    return '\n'.join([*out, '</robot>'])
