# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Watches over a session on the executor's thread: says what fails and what recovers."""

import time

from pi0_ros.checkpoint.spec import VELOCITIES
from pi0_ros.configuration.advice import advised
from pi0_ros.control import safety
from pi0_ros.observation.finding import Finding
from pi0_ros.ros import status
from pi0_ros.ros.asked import Asked
from pi0_ros.ros.links.preview import Preview
from pi0_ros.ros.session import Session
from rclpy.clock import Clock, ClockType

DISCOVERY_S = 1.0   # in which a missing input is not news
WATCH_PERIOD_S = 0.1
NEWS_AFTER_S = 1.0  # for which inputs must be fresh before that is told: some come and go


class Monitor:
    """
    Status when it changes, diagnostics once a second, and logs at the edges.

    Its time is a steady one: a simulator that stands is no reason to say nothing.
    """

    def __init__(self, session: Session, asked: Asked) -> None:
        """Begin to watch; what is missing is no news before ``news``."""
        node = session.node
        self._session, self._guard, self._log = session, session.guard, node.get_logger()
        self._asked, self._news_from = asked, float('inf')  # on the steady clock, seconds
        self._told_problem: tuple[str, str] | None = None
        self._problem_s = 0.0
        self._told_fault: Finding | None = None
        self._told_stop: Finding | None = None
        self._clamped = 0
        self._told_ceiling = False
        self._board = status.StatusBoard(node)
        self._preview = Preview(node, session.pilot, session.config.node.tool_link)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timers = [node.create_timer(WATCH_PERIOD_S, self._watch, clock=steady),
                        node.create_timer(1.0, self._diagnose, clock=steady)]

    def news(self) -> None:
        """Tell what is missing, from a little later on: inputs have to be discovered."""
        self._news_from = time.monotonic() + DISCOVERY_S

    def close(self) -> None:
        """End the watch; the last word is that the node does nothing any more."""
        node = self._session.node
        for timer in self._timers:
            node.destroy_timer(timer)
        fault = self._guard.fault
        self._board.show(status.ERROR if fault else status.OK, 'inactive', '', False,
                         f'not configured; the last fault: {advised(fault)}' if fault else
                         'not configured', '')
        for publisher in self._board.publishers:
            node.destroy_publisher(publisher)
        self._preview.close()

    def _watch(self) -> None:
        session, guard = self._session, self._guard
        session.watch()
        if session.active:
            session.wake_policy(session.now())
        problem = session.problem()
        self._tell_inputs(problem)
        if guard.fault is not self._told_fault:
            self._told_fault = guard.fault
            if guard.fault:
                self._log.error(f'fault, disarmed: {advised(guard.fault)}')
        last = guard.stopped_by
        if last is not self._told_stop and self._is_news(last):
            self._log.error(f'disarmed: {advised(last)}')
        if last is None or not session.pilot.enabled:  # else it is being disarmed just now
            self._told_stop = last
        self._board.show(*status.summary(session, self._asked, problem), self._asked.instruction)
        self._preview.tell(session.now(), session.limits.text, session.decided,
                           session.inputs.joints.get())

    def _is_news(self, last: Finding | None) -> bool:
        """Return whether the robot was disarmed for a reason that nobody else tells."""
        return (last is not None and not self._session.pilot.enabled
                and last is not self._guard.fault and last.subject not in status.BY_HAND
                and last.reason != 'clock_jump')

    def _tell_inputs(self, problem: Finding | None) -> None:
        """Log an input that fails, and once all have been fresh for a while."""
        now_s = time.monotonic()
        if problem:
            self._problem_s = now_s
            told = problem.reason, problem.subject
            if told != self._told_problem and now_s > self._news_from:
                self._told_problem = told
                holds = '; holding' if self._session.pilot.enabled else ''
                self._log.warning(f'{advised(problem)}{holds}')
        elif self._told_problem and now_s - self._problem_s > NEWS_AFTER_S:
            self._told_problem = None
            self._log.info('all inputs are fresh')

    def _diagnose(self) -> None:
        session = self._session
        if session.active and not session.config.safety.dry_run:
            session.ask_controller()
        self._tell_clock()
        pilot = session.pilot
        if pilot.counters.clamped > self._clamped and pilot.clamped is not None:
            limits = pilot.limits
            far = ', '.join(
                f'{name} by {beyond:.3f} (allowed are {low:.3f} to {high:.3f})'
                for name, beyond, low, high in zip(
                    pilot.joint_names, pilot.clamped, limits.lower, limits.upper) if beyond > 0)
            self._log.warning(f'the policy leads out of the position limits, clamped: {far}',
                              throttle_duration_sec=5.0)
        self._clamped = pilot.counters.clamped
        policy, counters = session.config.policy, pilot.counters
        if policy.actions == VELOCITIES and not self._told_ceiling:
            text = safety.ceiling(policy.velocity_of_training, pilot.limits, pilot.joint_names,
                                  counters.merged, counters.slowed)
            if text:
                self._told_ceiling = True
                self._log.warning(f"{text} (parameters 'velocity_scale', 'acceleration_scale', "
                                  "'max_acceleration')")
        self._board.diagnose(status.node_report(
            session, self._asked.instruction, '; '.join(session.link.warnings(pilot.limits))))

    def _tell_clock(self) -> None:
        """Warn of a simulated clock that is too slow to control by."""
        session = self._session
        step_ns = session.loop.clock_step_ns() if session.loop else 0
        if step_ns >= session.pilot.timing.period_ns:
            self._log.warning(
                f'/clock comes every {step_ns / 1e6:.0f} ms of its time, no faster than '
                f'control_rate {1e9 / session.pilot.timing.period_ns:g}: commands are late and '
                'missed; '
                'with a bag: ros2 bag play --clock 200', throttle_duration_sec=10.0)
