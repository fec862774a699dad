"""The gripper of the simulated robot behind an action, as GripperActionController has it."""

import numpy as np
from rclpy.action import ActionServer, CancelResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.node import Node
from rclpy.task import Future

from pi0_ros.sim import arm
from pi0_ros.sim.robot import SimulatedRobot

try:  # it comes with ros2_control
    from control_msgs.action import GripperCommand
except ImportError:
    GripperCommand = None

PERIOD_S, TOLERANCE, STALLED_TURNS = 0.02, 0.002, 15  # s, m, turns without a way


class Gripper:
    """Goes to its goal at once, and says when it is there, or stands at what it holds."""

    def __init__(self, node: Node, robot: SimulatedRobot, number: int) -> None:
        """Be the action ~/gripper_cmd of ``node``, for controller ``number`` of ``robot``."""
        self._robot, self._number = robot, number
        self._under_way: Future | None = None
        self._goal, self._stood, self._before = 0.0, 0, np.nan
        self._server = ActionServer(node, GripperCommand, '~/gripper_cmd', self._run,
                                    cancel_callback=lambda goal: CancelResponse.ACCEPT)
        node.create_timer(PERIOD_S, self._look)

    async def _run(self, handle: ServerGoalHandle) -> object:
        if self._under_way is not None:
            self._under_way.set_result('replaced')
        self._goal, self._stood = handle.request.command.position, 0
        self._robot.controllers[self._number].hold(np.array([self._goal]))
        self._under_way = mine = Future()
        how = await mine
        if self._under_way is mine:
            self._under_way = None
        result = GripperCommand.Result(position=float(self._robot.joints[arm.GRIPPER]))
        result.reached_goal, result.stalled = how == 'reached', how == 'stalled'
        handle.succeed() if how == 'reached' else handle.abort()
        return result

    def _look(self) -> None:
        """See whether the goal under way is reached, or the gripper stands."""
        if self._under_way is None or self._under_way.done():
            return
        place = float(self._robot.joints[arm.GRIPPER])
        self._stood = self._stood + 1 if abs(place - self._before) < 1e-5 else 0
        self._before = place
        if abs(place - self._goal) < TOLERANCE:
            self._under_way.set_result('reached')
        elif self._stood > STALLED_TURNS:
            self._under_way.set_result('stalled')
