# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
A gripper behind an action, by the rules of GripperActionController.

As they are read in ``gripper_action_controller_impl.hpp`` of ros2_controllers (jazzy; its
successor ``parallel_gripper_action_controller`` the same), which was not run beside this; with its
defaults but for goal_tolerance. Where a goal is replaced by another, its old one is aborted here
and stays without an answer there.
"""

import numpy as np
from rclpy.action import ActionServer, CancelResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.node import Node
from rclpy.task import Future

try:  # it comes with ros2_control
    from control_msgs.action import GripperCommand
except ImportError:
    GripperCommand = None

GOAL_TOLERANCE, STALL_VELOCITY, STALL_TIMEOUT_NS = 0.01, 0.001, 1_000_000_000


class Gripper:
    """Goes to its goal at once, and says when it is there, or stands at what it holds."""

    def __init__(self, node: Node, robot: object, number: int,
                 tolerance: float = GOAL_TOLERANCE) -> None:
        """
        Be the action ~/gripper_cmd of ``node``, for controller ``number`` of a ``robot``.

        :param tolerance: goal_tolerance, in the unit of the joint.
        """
        self._robot, self._number, self._tolerance = robot, number, tolerance
        self._column = list(robot.joint_names).index(robot.controllers[number].joint_names[0])
        self._under_way: Future | None = None
        self._handle: ServerGoalHandle | None = None
        self._goal, self._moved_ns = 0.0, 0
        self._server = ActionServer(node, GripperCommand, '~/gripper_cmd', self._run,
                                    cancel_callback=self._cancel)

    def _place(self) -> float:
        return float(self._robot.joints[self._column])

    async def _run(self, handle: ServerGoalHandle) -> object:
        if self._under_way is not None:
            self._under_way.set_result('replaced')
        self._goal, self._moved_ns = handle.request.command.position, self._robot.now_ns
        self._robot.controllers[self._number].hold(np.array([self._goal]))
        self._under_way, self._handle = Future(), handle
        mine = self._under_way
        how = await mine
        result = GripperCommand.Result(position=self._place())
        result.reached_goal, result.stalled = how == 'reached', how == 'stalled'
        {'reached': handle.succeed, 'canceled': handle.canceled}.get(how, handle.abort)()
        return result

    def _cancel(self, handle: ServerGoalHandle) -> CancelResponse:
        if self._handle is handle and self._under_way is not None:
            self._robot.controllers[self._number].hold(np.array([self._place()]))
            self._end('canceled')
        return CancelResponse.ACCEPT

    def _end(self, how: str) -> None:
        under_way, self._under_way, self._handle = self._under_way, None, None
        under_way.set_result(how)

    def look(self) -> None:
        """See whether the goal under way is reached, or the gripper stands."""
        if self._under_way is None:
            return
        if abs(self._place() - self._goal) < self._tolerance:
            self._end('reached')
        elif abs(self._robot.velocity[self._column]) > STALL_VELOCITY:
            self._moved_ns = self._robot.now_ns
        elif self._robot.now_ns - self._moved_ns > STALL_TIMEOUT_NS:
            self._end('stalled')
