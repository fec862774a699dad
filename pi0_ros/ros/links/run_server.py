# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The action ~/run: programs ask for an instruction to be followed, and hear how it ends."""

from collections.abc import Callable
from dataclasses import dataclass
import math
import time

from pi0_ros.ros.asked import Asked
from rclpy.action import ActionServer, CancelResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode
from rclpy.task import Future

try:  # a package of its own, in the folder beside this one
    from pi0_interfaces.action import RunPolicy
except ImportError:
    RunPolicy = None

PERIOD_S = 0.1
FEEDBACK_PERIODS = 2
HOLD = 'no_instruction'


@dataclass(frozen=True)
class Situation:
    """What the robot does now, for a run."""

    armed: bool
    state: str
    reason: str        # why it holds, or is not armed
    message: str       # the same as a sentence
    queue_s: float     # that the plan reaches
    chunks: int        # taken into plans since the node was configured


class _Run:
    """A goal under way."""

    def __init__(self, goal: ServerGoalHandle, chunks: int) -> None:
        request = goal.request
        self.goal, self.prompt = goal, request.prompt.strip()
        self.limit_s, self.begin_s = request.max_duration_s, time.monotonic()
        self.chunks, self.periods = chunks, 0
        self.ended = Future()

    def end(self, reason: str, message: str, outcome: int = 0) -> None:
        """End it, once."""
        if not self.ended.done():
            self.ended.set_result((reason, message, outcome, time.monotonic() - self.begin_s))


class RunServer:
    """
    One run at a time; a new one replaces the old without a stop in between.

    Everything happens on the executor's thread.
    """

    def __init__(self, node: LifecycleNode, asked: Asked, instruct: Callable[[str], str],
                 look: Callable[[], Situation | None]) -> None:
        """
        Offer the action, where its type is installed.

        :param asked: has the instruction that is followed.
        :param instruct: follows an instruction, '' to hold; returns why not, '' if it does.
        :param look: tells the situation; None while the node is not active.
        """
        self._node, self._asked, self._instruct, self._look = node, asked, instruct, look
        self._run: _Run | None = None
        if RunPolicy is None:
            return
        self._server = ActionServer(
            node, RunPolicy, '~/run', self._execute, callback_group=ReentrantCallbackGroup(),
            cancel_callback=lambda goal: CancelResponse.ACCEPT)
        node.create_timer(PERIOD_S, self._watch, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def judge(self, success: bool) -> bool:
        """End the run that is under way as a success or a failure; return whether there is one."""
        run = self._run
        if run is None or run.ended.done():
            return False
        result = RunPolicy.Result
        run.end('judged', f"judged a {'success' if success else 'failure'}",
                result.OUTCOME_SUCCESS if success else result.OUTCOME_FAILURE)
        return True

    async def _execute(self, goal: ServerGoalHandle) -> object:
        """Follow the goal's prompt until it ends."""
        now = self._look()
        run = _Run(goal, now.chunks if now else 0)
        refusal = self._refusal(run, now)
        if refusal:
            run.end(*refusal)
        else:
            before, self._run = self._run, run
            if before:
                before.end('replaced', f"replaced by a run of '{run.prompt}'")
            problem = self._instruct(run.prompt)
            if problem:
                run.end('refused', problem)
        reason, message, outcome, duration_s = await run.ended
        if self._run is run:
            self._run = None
            if self._asked.instruction == run.prompt:  # nobody else asked for it
                self._instruct('')
        now = self._look()
        if goal.is_cancel_requested:
            goal.canceled()
        elif reason == 'time_limit' or outcome == RunPolicy.Result.OUTCOME_SUCCESS:
            goal.succeed()
        else:
            goal.abort()
        self._node.get_logger().info(f"run of '{run.prompt}' ended after {duration_s:.1f} s: "
                                     f'{message}')
        return RunPolicy.Result(
            outcome=outcome, termination_reason=reason, message=message, duration_s=duration_s,
            chunks=max(0, now.chunks - run.chunks) if now else 0)

    @staticmethod
    def _refusal(run: _Run, now: Situation | None) -> tuple[str, str] | None:
        """Return why a run cannot begin, a word and a sentence, or None."""
        if now is None:
            return 'inactive', 'the node is not active: activate it first'
        if not run.prompt:
            return 'invalid_goal', 'prompt is empty, expected what to do'
        if not (math.isfinite(run.limit_s) and run.limit_s >= 0):
            return 'invalid_goal', (f'max_duration_s is {run.limit_s}, expected seconds, or 0 '
                                    'for no limit')
        if not now.armed:
            return now.reason or 'not_armed', f'the robot is not armed: {now.message}'
        return None

    def _watch(self) -> None:
        run = self._run
        if run is None or run.ended.done():
            return
        now = self._look()
        passed_s = time.monotonic() - run.begin_s
        if run.goal.is_cancel_requested:
            run.end('canceled', 'canceled by the client')
        elif now is None:
            run.end('inactive', 'the node was deactivated')
        elif not now.armed:
            run.end(now.reason or 'not_armed', f'disarmed: {now.message}')
        elif self._asked.instruction != run.prompt:
            other = self._asked.instruction
            run.end(*(('replaced', f"replaced by the instruction '{other}'") if other else
                      (HOLD, 'an empty instruction: holding')))
        elif 0 < run.limit_s <= passed_s:
            run.end('time_limit', f'ran for its {run.limit_s:g} s')
        else:
            run.periods += 1
            if run.periods % FEEDBACK_PERIODS == 0:
                run.goal.publish_feedback(RunPolicy.Feedback(
                    state=now.state, reason=now.reason, queue_s=now.queue_s,
                    chunks=max(0, now.chunks - run.chunks)))
