"""Watches over a session on the executor's thread: says what fails and what recovers."""

import time
from typing import TYPE_CHECKING

from pi0_ros.observation.finding import Finding
from pi0_ros.ros import status
from pi0_ros.ros.controller_check import ControllerCheck

if TYPE_CHECKING:
    from pi0_ros.ros.session import Session

WATCH_PERIOD_S = 0.1


class Monitor:
    """Status when it changes, diagnostics once a second, and logs at the edges."""

    def __init__(self, session: 'Session') -> None:
        """Begin to watch."""
        node = session.node
        self._session, self._guard, self._log = session, session.guard, node.get_logger()
        self.news_from = float('inf')  # on the steady clock, seconds
        self._told_problem: tuple[str, str] | None = None
        self._told_fault: Finding | None = None
        self._clamped = 0
        self._board = status.StatusBoard(node)
        self._controller = ControllerCheck(node, session.command)
        self._timers = [node.create_timer(WATCH_PERIOD_S, self._watch),
                        node.create_timer(1.0, self._diagnose)]

    def close(self) -> None:
        """End the watch."""
        node = self._session.node
        for timer in self._timers:
            node.destroy_timer(timer)
        self._controller.close()
        for publisher in self._board.publishers:
            node.destroy_publisher(publisher)

    def _watch(self) -> None:
        session, guard = self._session, self._guard
        now_ns = session.now()
        session.watch_policy()
        if session.active:
            session.wake_policy(now_ns)
            self._watch_controller(now_ns)
        problem = session.inputs.problem(now_ns) or guard.image_problem(now_ns)
        told = (problem.reason, problem.subject) if problem else None
        if told != self._told_problem and time.monotonic() > self.news_from:
            self._told_problem = told
            if problem:
                self._log.warning(f'{problem}; holding')
            else:
                self._log.info('all inputs are fresh')
        if guard.fault is not self._told_fault:
            self._told_fault = guard.fault
            if guard.fault:
                self._log.error(f'fault, disarmed: {guard.fault}')
        self._board.show(*self._summary(problem), session.operator.instruction)

    def _watch_controller(self, now_ns: int) -> None:
        """Disarm when nobody follows any more, or somebody else commands too."""
        session = self._session
        if not session.pilot.enabled:
            return
        topic, others = session.command.topic, session.command.others()
        finding = None
        if not session.command.followed():
            finding = Finding('controller_gone', f"the controller on '{topic}' is gone: start it, "
                              'then arm again', topic)
        elif others:
            finding = Finding('two_commanders', f"'{topic}' has {others} other publisher(s): two "
                              'nodes command one robot; stop one, then arm again', topic)
        if finding:
            self._guard.disarm(finding, now_ns)
            self._log.error(f'disarmed: {finding}')

    def _summary(self, problem: Finding | None) -> tuple[bytes, str, str]:
        """Return level, state and message of the status."""
        session, guard = self._session, self._guard
        if guard.fault:
            return status.ERROR, 'fault', str(guard.fault)
        if not session.active:
            return status.OK, 'inactive', 'activate the node to use it'
        if problem:
            return status.WARN, 'waiting', str(problem)
        if not session.pilot.enabled:
            last = guard.stopped_by
            arm = f'call {session.operator.own("enable")} to arm'
            return (status.WARN, 'disarmed', str(last)) if last and last.reason in (
                'controller_gone', 'two_commanders', 'clock_jump') else (
                    status.OK, 'disarmed', arm)
        state = 'moving' if session.pilot.speaking else 'holding'
        refused = session.operator.refused
        return (status.WARN if refused else status.OK, state,
                refused or session.operator.instruction or 'waiting for an instruction')

    def _diagnose(self) -> None:
        session = self._session
        if session.active:
            self._controller.ask()
        clamped = session.pilot.queue.clamped
        if clamped > self._clamped:
            self._log.warning('the policy leads out of the position limits: clamped',
                              throttle_duration_sec=5.0)
        self._clamped = clamped
        self._board.diagnose(status.node_report(session, self._controller.warning))
