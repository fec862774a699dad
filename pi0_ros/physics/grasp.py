# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Where the joints go to take the thing: above it, down, closed, up."""

import mujoco
import numpy as np
from pi0_ros.physics.robot import PhysicsRobot

ABOVE, LIFT = 0.06, 0.06  # m
LARGEST = 0.9  # rad from one pose to the next, in the two seconds that mock_scripted has
TURNS, DAMPING, LONGEST = 300, 1e-3, 0.1
POINTING = 0.3  # m of error that fingers which point aside by one radian are worth


def grasp(robot: PhysicsRobot) -> np.ndarray:
    """Return the poses [P, D] of a grasp, as the driver has the joints; the rest stays home."""
    hand, thing = robot.model.hand, robot.thing
    column = robot.joint_names.index(hand.gripper)
    home = np.array(robot.model.home)

    def pose(height: float, opening: float, near: np.ndarray) -> np.ndarray:
        out = reach(robot, thing + [0, 0, height], near)
        out[column] = opening
        return out

    above = pose(ABOVE, hand.open, home)
    down = pose(0.0, hand.open, above)
    closed = down.copy()
    closed[column] = hand.closed
    steps = max(1, int(np.ceil(np.abs(above - home).max() / LARGEST)))
    return np.stack([*np.linspace(home, above, steps + 1)[1:], down, closed,
                     pose(LIFT, hand.closed, down)])


def reach(robot: PhysicsRobot, target: np.ndarray, near: np.ndarray) -> np.ndarray:
    """
    Return joints [D] that put what the hand holds at ``target``, with the fingers down.

    Damped least squares from ``near``, and as much more as the servos give way under the arm's
    weight; for a robot whose driver has the joints of its arm as they are.
    """
    hand, mjcf = robot.model.hand, robot.mjcf
    data = mujoco.MjData(mjcf)
    its = [robot.joint_names.index(name) for name in hand.joints]
    joints = [mjcf.joint(robot.model.joints[i].leader) for i in its]
    places, dofs = [[int(at[0]) for at in column] for column in zip(
        *((joint.qposadr, joint.dofadr) for joint in joints))]
    low, high = np.array([joint.range for joint in joints]).T
    angles, site = np.array(near)[its], mjcf.site(hand.site).id
    moves, turns = np.zeros((3, mjcf.nv)), np.zeros((3, mjcf.nv))
    for _ in range(TURNS):
        data.qpos[places] = angles
        mujoco.mj_kinematics(mjcf, data)
        mujoco.mj_comPos(mjcf, data)
        frame = data.site_xmat[site].reshape(3, 3)
        held = data.site_xpos[site] + frame @ hand.grip
        mujoco.mj_jac(mjcf, data, moves, turns, held, mjcf.site_bodyid[site])
        error = np.append(target - held, POINTING * np.cross(frame[:, 0], [0, 0, -1.0]))
        slope = np.vstack([moves[:, dofs], POINTING * turns[:, dofs]])
        step = slope.T @ np.linalg.solve(slope @ slope.T + DAMPING * np.eye(6), error)
        angles = np.clip(angles + np.clip(step, -LONGEST, LONGEST), low, high)
    data.qpos[places] = angles
    mujoco.mj_forward(mjcf, data)
    stiffness = mjcf.actuator_gainprm[[robot.servos[i] for i in its], 0]
    out = np.array(near)
    out[its] = np.clip(angles + data.qfrc_bias[dofs] / stiffness, low, high)
    return out
