# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Why the robot stops: for now, disarmed, or with a fault that a person resets."""

import numpy as np
from pi0_ros.control.pilot import Pilot
from pi0_ros.control.rules import GuardRules, Watchdog
from pi0_ros.control.states import State
from pi0_ros.observation.finding import Finding


class Faults:
    """What the robot is stopped by. Any method may be called from any thread."""

    def __init__(self, pilot: Pilot, rules: GuardRules) -> None:
        """Begin without a fault."""
        self.pilot, self.rules = pilot, rules
        self.fault: Finding | None = None
        self.stop_pressed = False
        self.led = False  # whether a person leads, and the policy's chunks are not executed
        self.stopped_by: Finding | None = None  # the last reason, until it goes on
        self._in_a_row = 0  # chunks that were rejected, and inferences that failed
        self._watchdog = Watchdog()
        self._lock = pilot.lock

    def use(self, rules: GuardRules) -> None:
        """Go by other rules from now on."""
        self.rules = rules

    def hold(self, reason: str) -> None:
        """Stop smoothly because the policy has nothing to do; goes on with an instruction."""
        if not self.led:
            self.stop(Finding(reason, {
                'no_instruction': 'waiting for an instruction',
                'refused': 'the instruction was refused'}[reason], 'instruction'))

    def stop(self, finding: Finding) -> None:
        """Stop smoothly; the robot goes on by itself when the reason is gone."""
        with self._lock:
            if self.pilot.enabled:
                self.stopped_by = finding
            self.pilot.stop()

    def latch(self, finding: Finding, target: np.ndarray | None = None) -> None:
        """
        Disarm until the operator resets; the first reason stays.

        :param target: [D] where the robot goes, see ``Pilot.stop``.
        """
        with self._lock:
            self.fault = self.fault or finding
            self.stopped_by = self.fault
            self._watchdog.arming_since_ns = None
            self.pilot.disable(State.FAULTED, target)

    def disarm(self, finding: Finding, target: np.ndarray | None = None) -> None:
        """Stop smoothly and disarm; the operator may arm again at once."""
        with self._lock:
            if self.pilot.enabled or self.pilot.state is State.ARMING:
                self.stopped_by = finding
            self._watchdog.arming_since_ns = None
            self.pilot.disable(State.DISARMED, target)

    def press_stop(self, pressed: bool) -> None:
        """Latch the operator's stop, or release it: the fault stays until it is reset."""
        self.stop_pressed = pressed
        if pressed:
            self.latch(Finding('operator_stop', 'stopped by the operator', 'stop'))

    def reset(self, steady_ns: int, asked: Finding | None = None) -> Finding | None:
        """
        Clear the fault; return None, or why its cause, or another one, is still there.

        :param asked: the fault that was to be cleared; None: whichever there is.
        """
        with self._lock:
            if self.stop_pressed:
                return Finding('operator_stop', 'the stop is still pressed: publish false on it '
                               'first', 'stop')
            if self.fault and self.fault.reason == 'policy_hangs':
                hanging = self._watchdog.hanging(steady_ns, 0, self.rules)
                if hanging:
                    return hanging
            if asked is not None and self.fault is not asked:
                return self.fault
            if self.stopped_by is self.fault:
                self.stopped_by = None
            self.fault, self._in_a_row = None, 0
            self.pilot.reset()
            return None
