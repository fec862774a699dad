# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
A person leads the robot: a policy whose chunks say where the leader is, through the same guard.

Each of them says to be there for a fifth of a second and then ends, so that a leader who falls
silent leaves a robot at rest. The limiter makes a way of them that keeps the limits.
"""

from collections.abc import Sequence

import numpy as np
from pi0_ros.control.guard import Guard
from pi0_ros.observation.finding import Finding
from pi0_ros.observation.observation import Observation
from pi0_ros.policy.policy import ActionChunk

ABSOLUTE, RELATIVE = 'absolute', 'relative'
MODES = (RELATIVE, ABSOLUTE)
INFER, PAUSE = 'infer', 'pause'
STEPS, STEP_NS = 10, 20_000_000
TAKEOVER = 'takeover'  # what plans serve that a person leads
LATE_NS = 500_000_000  # that a stamp of the leader may be old
WAITS = Finding('takeover', 'a person has taken over: waiting for the leader', TAKEOVER)
TWO = Finding('takeover_leader', 'two leaders publish: stop one of them', TAKEOVER)


class Leading:
    """
    Who leads, and since when. All methods are called from one thread.

    The dead man's switch is pressed by messages that keep coming: true leads, silence holds, false
    gives back. The policy then begins anew from where the robot is.
    """

    def __init__(self, guard: Guard, mode: str = RELATIVE, while_led: str = INFER,
                 timeout_ns: int = 300_000_000) -> None:
        """
        Nobody leads.

        :param mode: RELATIVE to where the leader was when it was engaged, or ABSOLUTE.
        :param while_led: INFER: the policy goes on deciding, for those who compare; PAUSE.
        :param timeout_ns: of the switch.
        """
        self._guard, self._mode, self._while_led = guard, mode, while_led
        self._timeout_ns = timeout_ns
        self.engaged, self.since_ns = False, 0
        self.problem: Finding | None = None
        self._pressed_ns = 0  # on the steady clock
        self._offset: np.ndarray | None = None  # [D] robot less leader

    @property
    def infers(self) -> bool:
        """Return whether the policy should decide although nothing of it is executed."""
        return not self.engaged or self._while_led == INFER

    def press(self, pressed: bool, now_ns: int, steady_ns: int) -> None:
        """Press the switch, or let it go and give the robot back to the policy."""
        if not pressed:
            return self.release()
        self._pressed_ns = steady_ns
        if self.engaged or not self._guard.pilot.enabled:
            return None
        self.engaged, self.since_ns = True, now_ns
        self._guard.let_lead(True)
        self._hold(WAITS)
        return None

    def release(self) -> None:
        """Give the robot back: it comes to rest, and the policy begins from there."""
        if self.engaged:
            self._end()
            self._guard.pilot.stop()

    def _end(self) -> None:
        self.engaged, self.problem, self._offset = False, None, None
        self._guard.let_lead(False)

    def watch(self, steady_ns: int) -> None:
        """Hold when the switch is silent; nobody leads a robot that was disarmed."""
        if self.engaged and not self._guard.pilot.enabled:
            self._end()
        elif self.engaged and self._silent(steady_ns) and (
                self.problem is None or self.problem.reason != 'takeover_silent'):
            self._hold(Finding('takeover_silent', 'the switch of who leads is silent: holding; '
                               'press it again, or publish false on it to give back', TAKEOVER))

    def lead(self, names: Sequence[str], positions: Sequence[float], now_ns: int, steady_ns: int,
             stamp_ns: int = 0, leaders: int = 1) -> Finding | None:
        """
        Go where the leader is; return why not, or None. Nothing is done while nobody leads.

        :param names: of joints; those that are not commanded do not matter, and those that are
            missing stay. :param stamp_ns: of the message, 0 for none.
        :param leaders: how many publish.
        """
        if not self.engaged or self._silent(steady_ns):
            return None
        joints = self._guard.builder.joints.get()
        finding = TWO if leaders > 1 else (
            self._odd(names, positions, now_ns, stamp_ns) or self._guard.builder.check(now_ns)
            or self._guard.controllers.problem(now_ns))
        if finding or joints is None:
            return self._hold(finding or WAITS)
        pilot, known = self._guard.pilot, dict(zip(names, positions))
        # Who is engaged while the robot comes to rest begins where it will stand.
        here = np.array(pilot.plan.rest if pilot.speaking else
                        joints.value[:len(pilot.joint_names)], float)
        wanted = np.array([known.get(name, at) for name, at in zip(pilot.joint_names, here)])
        if self._offset is None:
            self._offset = here - wanted if self._mode == RELATIVE else np.zeros_like(here)
        led = np.array([name in known for name in pilot.joint_names])
        wanted = np.where(led, wanted + self._offset, here)
        chunk = ActionChunk(now_ns, STEP_NS, np.tile(wanted, (STEPS, 1)), TAKEOVER, offset=1)
        seen = Observation(joints.stamp_ns, joints.value, {}, {}, TAKEOVER)
        finding = self._guard.check(chunk, seen, now_ns)
        if finding:
            return self._hold(finding)
        return self._take(chunk, now_ns)

    def _take(self, chunk: ActionChunk, now_ns: int) -> Finding | None:
        guard = self._guard
        stance = guard.stance(now_ns)
        if isinstance(stance, Finding):
            guard.disarm(stance)
            return stance
        try:
            dropped = guard.pilot.accept(chunk, now_ns, guard.pilot.epoch, stance, leads=True)
        except (ValueError, ArithmeticError) as error:
            return self._hold(Finding('chunk_not_finite', str(error), 'chunk'))
        if dropped is None:
            self.problem = guard.stopped_by = None
        return Finding('dropped', dropped, TAKEOVER) if dropped else None

    def _odd(self, names: Sequence[str], positions: Sequence[float], now_ns: int, stamp_ns: int
             ) -> Finding | None:
        """Return what is wrong with a message of the leader."""
        commanded = self._guard.pilot.joint_names
        text = ''
        if len(names) != len(positions):
            text = f'has {len(names)} names and {len(positions)} positions'
        elif not set(names) & set(commanded):
            text = (f"has {', '.join(names) or 'no joints'}, expected some of "
                    f"{', '.join(commanded)}")
        elif not np.isfinite(np.asarray(positions, float)).all():
            text = 'has a position that is not finite'
        elif stamp_ns and now_ns - stamp_ns > LATE_NS:
            text = f'is stamped {(now_ns - stamp_ns) / 1e9:.2f} s ago'
        return (Finding('takeover_leader', f'the leader {text}: holding', TAKEOVER) if text
                else None)

    def _silent(self, steady_ns: int) -> bool:
        return steady_ns - self._pressed_ns > self._timeout_ns

    def _hold(self, finding: Finding) -> Finding:
        """Come to rest; where a relative leader is when it goes on is its new place."""
        self.problem, self._offset = finding, None
        self._guard.stop(finding)
        return finding
