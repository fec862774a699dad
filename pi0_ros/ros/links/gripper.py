# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""A gripper behind an action: goals when the wanted width changes, and what became of them."""

from collections.abc import Sequence
import time

import numpy as np
from pi0_ros.control.controllers import GRIPPER, Group
from pi0_ros.motion.trajectory import Trajectory
from pi0_ros.observation.finding import Finding
from rclpy.action import ActionClient, get_action_names_and_types
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode
from rclpy.task import Future

try:  # it comes with ros2_control
    from control_msgs import action as actions
except ImportError:
    actions = None

KINDS = ('GripperCommand', 'ParallelGripperCommand')
PERIOD_S = 0.02
ANSWER_S = 2.0   # in which a server accepts or rejects a goal
FRESH_S = 0.5    # for which what was wanted is still sent: it is no order for ever
CANCELED, ABORTED = 5, 6  # action_msgs/GoalStatus
NEEDS = ('a gripper_command needs the package control_msgs: install it (it comes with '
         'ros2_control), or command the gripper by another interface')


def check(groups: Sequence[Group]) -> None:
    """
    Look whether gripper actions can be used, if a group asks for it.

    :raises ValueError: control_msgs is not installed.
    """
    if actions is None and any(group.interface == GRIPPER for group in groups):
        raise ValueError(NEEDS)


class GripperClient:
    """
    Tells one gripper where to be; used by the control thread, works on the executor's.

    A goal goes where the window ends. There is never a second one under way before the first is
    accepted; an accepted one is replaced by the next, or, with ``sequential``, has ended before.
    """

    def __init__(self, node: LifecycleNode, group: Group, dry_run: bool = False) -> None:
        """
        Create the client; its type is that of the server, once that is there.

        See ``check``: control_msgs must be there.
        """
        self._node, self._dry_run, self.group = node, dry_run, group
        self.topic = node.resolve_topic_name(group.topic or (
            f'{group.name}/gripper_cmd' if group.name else 'gripper_cmd'))
        self._client: ActionClient | None = None
        self._kind = ''
        self._wanted: tuple[float, float] | None = None  # and when, by the control thread
        self._sent: float | None = None
        self._goals = 0
        self._asked_s: float | None = None  # when a goal was sent that is not answered yet
        self._running = False               # whether one was accepted that has not ended
        self._problem: Finding | None = None
        self._timer = node.create_timer(PERIOD_S, self._work,
                                        clock=Clock(clock_type=ClockType.STEADY_TIME))

    def missing(self) -> str | None:
        """Return a sentence if there is no server; a dry run needs none."""
        if self._dry_run or self._find():
            return None
        return (f"no gripper action '{self.topic}' of type {' or '.join(KINDS)}: start its "
                'controller, or remap it')

    def begin(self) -> None:
        """Forget what was before somebody armed: it is over, and no order any more."""
        self._problem = self._wanted = self._sent = self._asked_s = None
        self._running = False
        self._goals += 1

    def _find(self) -> bool:
        """Return whether there is a server; speak to it."""
        if self._client is None:
            kinds = dict(get_action_names_and_types(self._node)).get(self.topic, [])
            found = [kind for kind in KINDS if f'control_msgs/action/{kind}' in kinds
                     and hasattr(actions, kind)]
            if not found:
                return False
            self._kind = found[0]
            self._client = ActionClient(self._node, getattr(actions, self._kind), self.topic)
        return self._client.server_is_ready()

    def followers(self) -> dict[str, frozenset[bytes]]:
        """Return the server, once it is there."""
        ready = self._client is not None and self._client.server_is_ready()
        return {self.topic: frozenset([b'server'])} if ready else {}

    def endpoints(self) -> frozenset[bytes]:
        """Return what names the server, once it is there."""
        return frozenset().union(*self.followers().values())

    def others(self) -> list[str]:
        """Return nobody: who sends goals cannot be known."""
        return []

    def problem(self) -> Finding | None:
        """Return what the server answered, or that it does not."""
        asked_s = self._asked_s
        if asked_s is not None and time.monotonic() - asked_s > ANSWER_S:
            return self._finding('does not answer: restart its controller, then arm again')
        return self._problem

    def _finding(self, text: str) -> Finding:
        return Finding('gripper_failed', f"the gripper '{self.topic}' "
                       f"({', '.join(self.group.joints)}) {text}",
                       self.group.name or self.group.joints[0])

    def publish(self, trajectory: Trajectory, speed: np.ndarray) -> None:
        """Want the gripper where a window ends."""
        self._wanted = float(trajectory.positions[-1, 0]), time.monotonic()

    def _work(self) -> None:
        """Send what is wanted, if it is news and nothing is under way."""
        if (self._wanted is None or self._problem or self._dry_run or self._client is None
                or self._asked_s is not None or self._running and self.group.sequential):
            return
        wanted, when_s = self._wanted
        same = self._sent is not None and abs(wanted - self._sent) <= self.group.dead_band
        if same or time.monotonic() - when_s > FRESH_S or not self._client.server_is_ready():
            return
        self._sent, self._asked_s, self._running = wanted, time.monotonic(), True
        self._goals += 1
        self._client.send_goal_async(self._goal(wanted)).add_done_callback(
            lambda done, number=self._goals: self._answered(done, number))

    def _goal(self, position: float) -> object:
        kind = getattr(actions, self._kind)
        goal = kind.Goal()
        if self._kind == 'GripperCommand':
            goal.command.position = position
            goal.command.max_effort = self.group.max_effort
        else:
            goal.command.name = list(self.group.own)
            goal.command.position = [position]
            goal.command.effort = [self.group.max_effort]
        return goal

    def _answered(self, done: Future, number: int) -> None:
        if number != self._goals:
            return  # somebody has armed anew
        self._asked_s = None
        handle = done.result() if done.exception() is None else None
        if handle is None or not handle.accepted:
            self._problem = self._finding(
                f'refused to go to {self._sent:.3f}: see what its controller logs; arm again')
            return
        handle.get_result_async().add_done_callback(
            lambda ended, number=number: self._ended(ended, number))

    def _ended(self, done: Future, number: int) -> None:
        """Look at how a goal ended: to be stopped by a thing in the hand is no failure."""
        if number != self._goals:
            return  # another goal took its place
        self._running = False
        answer = done.result() if done.exception() is None else None
        if answer is None:
            return  # of a server that has gone, which is seen elsewhere
        if answer.status == CANCELED:
            self._problem = self._finding('was told something else by another client: stop that, '
                                          'then arm again')
        if self.group.sequential:
            return  # of such servers an abort says that something is in the hand
        holds = any(getattr(answer.result, what, False) for what in ('stalled', 'reached_goal'))
        if answer.status == ABORTED and not holds:
            self._problem = self._finding('gave up: see what its controller logs; arm again')

    def close(self) -> None:
        """Take client and timer back; the gripper goes where it was told last."""
        self._node.destroy_timer(self._timer)
        if self._client is not None:
            self._client.destroy()
            self._client = None
