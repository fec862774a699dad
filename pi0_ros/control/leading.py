# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
A person leads the robot: a policy whose chunks say where the leader is, through the same guard.

Each of them says to be there for a fifth of a second and then ends, so that a leader who falls
silent leaves a robot at rest. The limiter makes a way of them that keeps the limits.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from pi0_ros.control.config import INFER, RELATIVE
from pi0_ros.control.guard import Guard
from pi0_ros.control.states import State
from pi0_ros.observation.finding import Finding
from pi0_ros.observation.observation import Observation
from pi0_ros.policy.policy import ActionChunk

STEP_NS = 20_000_000
LASTS_NS = 200_000_000  # of a chunk, at least; also three control periods
TAKEOVER = 'takeover'   # what plans serve that a person leads
APART_NS = 500_000_000  # that a stamp of the leader may be old, or ahead
LET_GO_NS = 1_000_000_000  # of silence, after which a switch was let go
NEAR = 0.1              # of a gripper's range, at which a leader has caught it
WAITS = Finding('takeover', 'a person has taken over: waiting for the leader', TAKEOVER)
SILENT = Finding('takeover_leader', 'the leader is silent: holding', TAKEOVER)
SWITCH = Finding('takeover_silent', 'the switch of who leads is silent: holding; press it again, '
                 'or publish false on it to give back', TAKEOVER)
LEADERS = Finding('takeover_leader', 'two leaders publish: stop one of them', TAKEOVER)
SWITCHES = Finding('takeover_leader', 'two switches publish: stop one of them', TAKEOVER)


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

        :param mode: RELATIVE to where the leader was when it was engaged, or absolute.
        :param while_led: INFER: the policy goes on deciding, for those who compare; or pause.
        :param timeout_ns: of the switch, and of the leader.
        """
        self._guard, self._mode, self._while_led = guard, mode, while_led
        self._timeout_ns = timeout_ns
        self.engaged, self.since_ns = False, 0
        self.count = 0  # of takeovers
        self.problem: Finding | None = None
        # On the steady clock: when the switch was pressed, the leader heard, a chunk taken.
        self._pressed_ns = self._heard_ns = self._taken_ns = 0
        self._pressed_before = False  # since before the robot was armed
        self._anew()

    def _anew(self) -> None:
        """Take where leader and robot are, when they go on, for the same place."""
        count = len(self._guard.pilot.joint_names)
        self._offset = np.full(count, np.nan)  # [D] robot less leader, of joints heard since
        self._side = np.zeros(count)           # [D] on which the leader is of a gripper
        self._caught = np.zeros(count)         # [D] where it was caught, and how far from there
        self._peak = np.zeros(count)           # it has been
        self._begun = False

    @property
    def infers(self) -> bool:
        """Return whether the policy should decide although nothing of it is executed."""
        return not self.engaged or self._while_led == INFER

    def press(self, pressed: bool, now_ns: int, steady_ns: int, switches: int = 1) -> None:
        """
        Press the switch, or let it go and give the robot back to the policy.

        What is pressed when the robot is armed must be let go before it counts: false, or a second
        of silence.

        :param switches: how many publish.
        """
        silent, let_go = self._silent(steady_ns), steady_ns - self._pressed_ns > LET_GO_NS
        self._pressed_ns = steady_ns if pressed else 0
        self._lose()
        if not pressed:  # whoever says so
            self._pressed_before = False
            self.release()
        elif self.engaged and switches > 1:
            self._hold(SWITCHES)
        elif not self._guard.pilot.enabled:
            self._pressed_before = True
        elif self.engaged:
            if silent or self.problem is SWITCHES:
                self._hold(WAITS)
        elif switches < 2 and (let_go or not self._pressed_before):
            self._pressed_before = False
            self.engaged, self.since_ns, self._heard_ns = True, now_ns, steady_ns
            self.count += 1
            self._guard.let_lead(True)
            self._hold(WAITS)

    def release(self) -> None:
        """Give the robot back: it comes to rest, and the policy begins from there."""
        if self.engaged:
            self._end()
            self._guard.pilot.stop()

    def _lose(self) -> None:
        """Let nobody lead a robot that was disarmed, nor when it is armed again meanwhile."""
        if self.engaged and not (self._guard.led and self._guard.pilot.enabled):
            self._end()
            self._pressed_before = True

    def _end(self) -> None:
        self.engaged, self.problem = False, None
        self._guard.let_lead(False)
        self._anew()

    def watch(self, steady_ns: int) -> None:
        """Hold when switch or leader are silent; nobody leads a robot that was disarmed."""
        self._lose()
        if not self.engaged:
            return
        if self._silent(steady_ns):
            if self.problem is not SWITCH:
                self._hold(SWITCH)
        elif steady_ns - self._heard_ns > self._timeout_ns and self.problem is None:
            self._hold(SILENT)

    def lead(self, names: Sequence[str], positions: Sequence[float], now_ns: int, steady_ns: int,
             stamp_ns: int = 0, leaders: int = 1) -> Finding | None:
        """
        Go where the leader is; return why not, or None. Nothing is done while nobody leads.

        :param names: of joints; those that are not commanded do not matter, and those that are
            missing stay. :param stamp_ns: of the message, 0 for none.
        :param leaders: how many publish.
        """
        guard, pilot = self._guard, self._guard.pilot
        self._lose()
        if not self.engaged or self._silent(steady_ns) or self.problem is SWITCHES:
            return None
        if steady_ns - self._heard_ns > self._timeout_ns and self._begun:
            self._hold(SILENT)
        self._heard_ns = steady_ns
        joints = guard.builder.joints.get()
        finding = LEADERS if leaders > 1 else (
            self._odd(names, positions, now_ns, stamp_ns) or guard.builder.check(now_ns)
            or guard.controllers.problem(now_ns))
        if finding or joints is None:
            return self._hold(finding or WAITS)
        if not self._begun and pilot.state is not State.STANDING or (
                0 < steady_ns - self._taken_ns < pilot.timing.period_ns * 9 // 10):
            return None  # it comes to rest first; and one in a period is enough
        stance = guard.stance(now_ns)
        if isinstance(stance, Finding):
            guard.disarm(stance)
            return stance
        here = pilot.plan.rest if stance is None else stance.positions
        wanted = self._wanted(dict(zip(names, positions)), here)
        steps = -(-max(LASTS_NS, 3 * pilot.timing.period_ns) // STEP_NS)
        chunk = ActionChunk(now_ns, STEP_NS, np.tile(wanted, (steps, 1)), TAKEOVER, offset=1)
        seen = Observation(joints.stamp_ns, joints.value, {}, {}, TAKEOVER)
        finding = guard.check(chunk, seen, now_ns)
        if finding:
            return self._hold(finding)
        try:
            dropped = pilot.accept(chunk, now_ns, pilot.epoch, stance, leads=True)
        except (ValueError, ArithmeticError) as error:
            return self._hold(Finding('chunk_not_finite', str(error), 'chunk'))
        self._taken_ns = steady_ns
        if dropped is None:
            self._begun, self.problem, guard.stopped_by = True, None, None
        return Finding('dropped', dropped, TAKEOVER) if dropped else None

    def _wanted(self, known: Mapping[str, float], here: np.ndarray) -> np.ndarray:
        """
        Return where the robot shall be, [D]: joints that are not heard stay.

        Grippers stay, too, until the leader's is near where the robot's is, or passes it, and then
        go as it goes: nothing is let go because somebody took over.
        """
        limits = self._guard.pilot.limits
        out = np.array(here, float)
        for column, name in enumerate(self._guard.pilot.joint_names):
            if name not in known:
                continue
            place = known[name]
            if limits.alone[column]:
                out[column] = self._grip(column, place, here[column])
                continue
            if np.isnan(self._offset[column]):
                self._offset[column] = here[column] - place if self._mode == RELATIVE else 0.0
            if not np.isnan(self._offset[column]):
                out[column] = place + self._offset[column]
        return out

    def _grip(self, column: int, place: float, here: float) -> float:
        """Return where a gripper shall be: it waits for the leader's, which takes it along."""
        limits, away = self._guard.pilot.limits, place - here
        width = limits.upper[column] - limits.lower[column]
        near = abs(away) <= (NEAR * width if np.isfinite(width) else 0.0)
        if np.isnan(self._offset[column]) and (near or away * self._side[column] < 0):
            self._offset[column] = -away if near else 0.0
            self._caught[column], self._peak[column] = place, 0.0
        self._side[column] = np.sign(away)
        rest = self._offset[column]
        if np.isnan(rest):
            return here
        # As the leader moves, and only then, what is left between them goes away.
        self._peak[column] = max(self._peak[column], abs(place - self._caught[column]))
        return place + np.sign(rest) * max(0.0, abs(rest) - self._peak[column])

    def _odd(self, names: Sequence[str], positions: Sequence[float], now_ns: int, stamp_ns: int
             ) -> Finding | None:
        """Return what is wrong with a message of the leader."""
        commanded, ago_s = self._guard.pilot.joint_names, (now_ns - stamp_ns) / 1e9
        text = ''
        if len(names) != len(positions):
            text = f'has {len(names)} names and {len(positions)} positions'
        elif not set(names) & set(commanded):
            text = (f"has {', '.join(names) or 'no joints'}, expected some of "
                    f"{', '.join(commanded)}")
        elif not np.isfinite(np.asarray(positions, float)).all():
            text = 'has a position that is not finite'
        elif stamp_ns and abs(now_ns - stamp_ns) > APART_NS:
            text = f"is stamped {abs(ago_s):.2f} s {'ago' if ago_s > 0 else 'ahead'}"
        return (Finding('takeover_leader', f'the leader {text}: holding', TAKEOVER) if text
                else None)

    def _silent(self, steady_ns: int) -> bool:
        return steady_ns - self._pressed_ns > self._timeout_ns

    def _hold(self, finding: Finding) -> Finding:
        """Come to rest; where the leader is when it goes on counts anew."""
        self.problem = finding
        self._anew()
        self._guard.stop(finding)
        return finding
