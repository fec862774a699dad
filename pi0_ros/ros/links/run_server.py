# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The action ~/run: programs ask for an instruction to be followed, and hear how it ends."""

from collections.abc import Callable
from dataclasses import dataclass
import math

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
    armings: int       # so many times since the node was configured
    state: str
    reason: str        # why it holds, or is not armed
    message: str       # the same as a sentence
    queue_s: float     # that the plan reaches
    chunks: int        # taken into plans since the node was configured


class _Run:
    """A goal under way."""

    def __init__(self, goal: ServerGoalHandle, now_ns: int, now: Situation | None) -> None:
        request = goal.request
        self.goal, self.prompt = goal, request.prompt.strip()
        self.limit_s, self.begin_ns = request.max_duration_s, now_ns
        self.chunks, self.armings = (now.chunks, now.armings) if now else (0, 0)
        self.number = -1  # of its instruction
        self.periods, self.ended = 0, Future()

    def end(self, reason: str, message: str, outcome: int = 0) -> None:
        """End it, once."""
        if not self.ended.done():
            self.ended.set_result((reason, message, outcome))


class RunServer:
    """
    One run at a time; a new one replaces the old without a stop in between.

    Everything happens on the executor's thread.
    """

    def __init__(self, node: LifecycleNode, asked: Asked, refusal: Callable[[str], str | None],
                 instruct: Callable[[str, bool], None], look: Callable[[], Situation | None]
                 ) -> None:
        """
        Offer the action, where its type is installed.

        :param asked: has the instruction that is followed.
        :param refusal: returns why an instruction would not be followed, or None.
        :param instruct: follows an instruction, '' to hold; true: it begins anew.
        :param look: tells the situation; None while the node is not active.
        """
        self._node, self._asked, self._look = node, asked, look
        self._why_not, self._instruct = refusal, instruct
        self._run: _Run | None = None
        self.telling = 0  # goals whose end has not been told yet
        if RunPolicy is None:
            return
        self._server = ActionServer(
            node, RunPolicy, '~/run', self._execute, callback_group=ReentrantCallbackGroup(),
            cancel_callback=self._on_cancel)
        node.create_timer(PERIOD_S, self._watch, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def judge(self, success: bool | None) -> bool:
        """
        End the run that is under way; return whether there is one.

        :param success: None: it shall not count.
        """
        run = self._run
        if run is None or run.ended.done() or run.number != self._asked.number:
            return False
        result = RunPolicy.Result
        run.end(*(('discarded', 'judged not to count') if success is None else
                  ('judged', 'judged a success', result.OUTCOME_SUCCESS) if success else
                  ('judged', 'judged a failure', result.OUTCOME_FAILURE)))
        return True

    def close(self) -> None:
        """End the run that is under way: the node does nothing any more."""
        if self._run is not None:
            self._run.end('inactive', 'the node was deactivated, or ends')

    def _on_cancel(self, goal: ServerGoalHandle) -> CancelResponse:
        run = self._run
        if run is not None and run.goal.goal_id == goal.goal_id:
            run.end('canceled', 'canceled by the client')
        return CancelResponse.ACCEPT

    async def _execute(self, goal: ServerGoalHandle) -> object:
        """Follow the goal's prompt until it ends."""
        self.telling += 1
        try:
            return await self._follow(goal)
        finally:
            self.telling -= 1

    async def _follow(self, goal: ServerGoalHandle) -> object:
        now, begin_ns = self._look(), self._now()
        run = _Run(goal, begin_ns, now)
        refusal = self._refusal(run, now)
        if refusal:
            run.end(*refusal)
        else:
            before, self._run = self._run, run
            if before:
                before.end('replaced', f"replaced by a run of '{run.prompt}'")
            self._instruct(run.prompt, True)
            run.number = self._asked.number
        reason, message, outcome = await run.ended
        if self._run is run:
            self._run = None
        if self._asked.number == run.number and self._asked.instruction:
            self._instruct('', False)  # nobody else asked for anything meanwhile
        now, duration_s = self._look(), max(0.0, (self._now() - begin_ns) / 1e9)
        if reason == 'canceled' and goal.is_cancel_requested:
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

    def _now(self) -> int:
        return self._node.get_clock().now().nanoseconds

    def _refusal(self, run: _Run, now: Situation | None) -> tuple[str, str] | None:
        """Return why a run cannot begin, a word and a sentence, or None."""
        if run.goal.is_cancel_requested:
            return 'canceled', 'canceled by the client before it began'
        if now is None:
            return 'inactive', 'the node is not active: activate it first'
        if not run.prompt:
            return 'invalid_goal', 'prompt is empty, expected what to do'
        if not (math.isfinite(run.limit_s) and run.limit_s >= 0):
            return 'invalid_goal', (f'max_duration_s is {run.limit_s}, expected seconds, or 0 '
                                    'for no limit')
        if not now.armed:
            return now.reason or 'not_armed', f'the robot is not armed: {now.message}'
        refused = self._why_not(run.prompt)
        return ('refused', refused) if refused else None

    def _watch(self) -> None:
        run = self._run
        if run is None or run.ended.done():
            return
        now, asked = self._look(), self._asked
        if now is None:
            run.end('inactive', 'the node was deactivated')
        elif not now.armed:
            run.end(now.reason or 'not_armed', f'disarmed: {now.message}')
        elif now.armings != run.armings:
            run.end('not_armed', 'the robot was disarmed and armed again meanwhile')
        elif asked.number != run.number:
            run.end(*(('refused', asked.refused) if asked.refused else
                      ('replaced', f"replaced by the instruction '{asked.instruction}'")
                      if asked.instruction else (HOLD, 'an empty instruction: holding')))
        elif 0 < run.limit_s <= (self._now() - run.begin_ns) / 1e9:
            run.end('time_limit', f'ran for its {run.limit_s:g} s')
        else:
            run.periods += 1
            if run.periods % FEEDBACK_PERIODS == 0:
                run.goal.publish_feedback(RunPolicy.Feedback(
                    state=now.state, reason=now.reason, queue_s=now.queue_s,
                    chunks=max(0, now.chunks - run.chunks)))
