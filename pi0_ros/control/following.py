# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Whether the robot does what it is told, and where a motion of one that stands begins.

Three things can be asked: the joints, as they are measured; the controller, where it says what it
holds; and, of neither, how long a first piece must be to be safe whatever the controller holds.
"""

from collections import deque
from collections.abc import Callable

import numpy as np
from pi0_ros.control import safety
from pi0_ros.control.controllers import Controllers, Report, SILENT_NS, TRAJECTORY
from pi0_ros.control.pilot import Pilot, Stance
from pi0_ros.motion.limits import JointLimits
from pi0_ros.observation.buffers import Stamped
from pi0_ros.observation.finding import Finding

LAGS_NS = 50_000_000 * np.arange(7)  # that a robot may be behind what it is told
# Over which a robot must move that is told to.
HORIZONS_NS = (500_000_000, 1_000_000_000, 3_000_000_000)
FOLLOWS = 0.25          # of what it was told, that a robot must have moved at least
EVERY = 5               # joint states
HELD_SHARE = 0.4        # of the tracking limit, that a controller may hold joints away: arms sag
MARGIN_SHARE = 0.1      # of it, that a robot may have moved since it was measured
WAY_SHARE = 0.25        # of that, after which the way of a robot is remembered again
ENTERED = 2.1           # times the acceleration of the cubic, where a controller enters it late
SHORTEST_NS = 100_000_000   # of a first piece: several periods of any controller
SETTLE_NS = 500_000_000     # after the last command, before a robot is taken to stand
RESTS_NS = 50_000_000       # after its last message and that, a controller is at rest
AGREE_NS = 100_000_000      # for which a controller must have departed before that counts


class Follower:
    """Watches whether the robot follows; asked once a tick."""

    def __init__(self, pilot: Pilot, controllers: Controllers) -> None:
        """Begin without a past."""
        self._pilot, self._controllers = pilot, controllers
        self._goes = controllers.of_interface(TRAJECTORY)  # [D] in a first piece, to its end
        self._past: deque[tuple[int, np.ndarray, np.ndarray]] = deque(maxlen=300)
        self._seen = 0
        self._way: deque[tuple[np.ndarray, np.ndarray]] = deque(maxlen=300)  # told, and measured
        self._away_since_ns: int | None = None
        self._departed_since_ns: int | None = None
        self._rest: np.ndarray | None = None  # [D] measured, since it stands
        self._told: np.ndarray | None = None  # [D] where it stands, as far as it was told
        self._doubted = False  # whether the robot did not follow what it was told last
        self._spoke_ns = self._deaf_ns = 0

    def begin(self, measured: np.ndarray, now_ns: int) -> np.ndarray:
        """Forget the past; return where a robot that is armed at ``measured`` [D] stands."""
        self._past.clear()
        self._seen = 0
        self._away_since_ns = self._departed_since_ns = None
        self._rest = measured
        if self._doubted:
            self._told, self._doubted = None, False
            self._way.clear()
        if self._told is not None and self._pilot.limits.far(
                self._told, measured, safety.MOVED_SHARE).any():
            self._told = None
        held = self._held(now_ns)
        return np.where(np.isfinite(held), held, measured if self._told is None else self._told)

    def _held(self, now_ns: int) -> np.ndarray:
        """
        Return where controllers hold the robot [D], NaN where that is not known.

        By their own word, if that is from after the robot came to rest; until then, if one tells
        its state at all, it is where it was told to be.
        """
        out = np.full(len(self._pilot.joint_names), np.nan)
        at_rest_ns = self._spoke_ns + self._pilot.timing.lead_ns + RESTS_NS
        for controller, its in self._controllers:
            report = controller.reference(now_ns)
            if report is None:
                continue
            late = self._told is None or (report.stamp_ns or report.received_ns) >= at_rest_ns
            out[its] = report.reference if late else self._told[its]
        return out

    def doubt(self) -> None:
        """Count on nothing that the robot is told until it is armed again: it did not follow."""
        self._doubted = True

    def forget(self) -> None:
        """Forget where the robot stands: the clock jumped."""
        self._rest = self._told = None
        self._way.clear()
        self._deaf_ns = 0
        self._controllers.forget()

    def watch_rest(self, joints: Stamped | None, now_ns: int) -> None:
        """Remember the way of the robot, and where it was measured when it had come to rest."""
        if joints is not None:
            self._remember(joints)
        if self._pilot.speaking or joints is None:
            self._rest, self._spoke_ns = None, now_ns
            self.note_rest()
        elif self._rest is None and now_ns - self._spoke_ns > SETTLE_NS:
            self._rest = joints.value[:len(self._pilot.joint_names)]

    def _remember(self, joints: Stamped) -> None:
        told = self._pilot.told(np.array([joints.stamp_ns]))[0]
        step = WAY_SHARE * MARGIN_SHARE * _held(self._pilot.limits)
        if self._way and (np.abs(told - self._way[-1][0]) < step).all():
            told = self._way.pop()[0]
        self._way.append((told, joints.value[:len(told)]))

    def note_rest(self) -> None:
        """Remember where the newest message told the robot to rest."""
        newest = self._pilot.newest
        if newest is not None:  # positions alone have no end: they say where the robot is now
            self._told = np.where(self._pilot.streams, newest.start, newest.positions[-1])

    def _came(self, measured: np.ndarray) -> bool:
        """
        Return whether the robot, [D], was seen to go the last of the way it was told.

        Then its controller was on, and holds what it was told; how a robot that did not move is
        held nobody has seen. One whose controller is switched on sags, at most by ``HELD_SHARE``:
        a way that proves something is longer than that, and no joint falls short of it.
        """
        last, held = self._told, _held(self._pilot.limits)
        if last is None:
            return False
        short, arm = MARGIN_SHARE * held, ~self._pilot.limits.alone  # grippers hold things
        least = HELD_SHARE * held + 2 * short
        for told, joints in reversed(self._way.copy()):  # the control thread goes on meanwhile
            far = last - told
            if (np.abs(far) >= least)[arm].any():
                came = (measured - joints) * np.sign(far) >= np.abs(far) - short
                return bool(came[arm].all())
        return False

    def leans(self, measured: np.ndarray, now_ns: int) -> bool:
        """Return whether a stop is about to leave the robot [D] too far from where it is told."""
        pilot = self._pilot
        return (pilot.remaining_ns(now_ns) <= 2 * pilot.timing.period_ns
                and bool(pilot.limits.far(measured, pilot.plan.rest, 1.0).any()))

    def moved(self, measured: np.ndarray) -> Finding | None:
        """Return a joint [D] that somebody else has moved while the robot stands."""
        if self._rest is None:
            return None
        return safety.check_rest(measured, self._rest, self._pilot.limits,
                                 self._pilot.joint_names)

    def tracking(self, stamp_ns: int, measured: np.ndarray, now_ns: int, allowed_ns: int
                 ) -> Finding | None:
        """Return a joint [D] that is not where it was told to be for too long."""
        pilot = self._pilot
        finding = safety.check_tracking(measured, pilot.told(stamp_ns - LAGS_NS), pilot.limits,
                                        pilot.joint_names)
        if finding is None:
            self._away_since_ns = None
            return None
        if self._away_since_ns is None:
            self._away_since_ns = now_ns
        return finding if now_ns - self._away_since_ns >= allowed_ns else None

    def frozen(self, stamp_ns: int, measured: np.ndarray) -> Finding | None:
        """
        Return a joint that stands although it was told to move: its drive or controller is off.

        When that is switched on again, the plan would be far away.
        """
        past = self._past
        if past and stamp_ns <= past[-1][0]:
            return None
        past.append((stamp_ns, measured, self._pilot.told(np.array([stamp_ns]))[0]))
        self._seen += 1
        if self._seen % EVERY:
            return None
        stamps, joints, told = (np.array(column) for column in zip(*past))
        for horizon_ns in HORIZONS_NS:
            first = int(np.searchsorted(stamps, stamp_ns - horizon_ns))
            # What it was told in the last moments it may still have before it.
            last = int(np.searchsorted(stamps, stamp_ns - LAGS_NS[-1]))
            if stamps[0] > stamp_ns - horizon_ns // 2 or last - first < 2:
                continue
            finding = safety.check_follows(
                np.ptp(joints[first:], axis=0), np.ptp(told[first:last], axis=0), FOLLOWS,
                self._pilot.limits, self._pilot.joint_names)
            if finding:
                return finding
        return None

    def deaf(self, now_ns: int) -> None:
        """Note that joint states are late: a controller may seem silent for the same reason."""
        self._deaf_ns, self._departed_since_ns = now_ns, None

    def _was_deaf(self, now_ns: int) -> bool:
        """Return whether joint states were late just now: which message is next says nothing."""
        return 0 <= now_ns - self._deaf_ns <= SILENT_NS

    def unsure(self, now_ns: int) -> Finding | None:
        """Return a controller's silence that is no reason to disarm yet, but one to stand."""
        return self._controllers.silent(now_ns) if self._was_deaf(now_ns) else None

    def departed(self, now_ns: int) -> Finding | None:
        """Return a joint that a controller holds where nobody told it to, or its silence."""
        silent = None if self._was_deaf(now_ns) else self._controllers.silent(now_ns)
        if silent or not self._controllers.hears(now_ns):
            return silent
        if self._pilot.waits(now_ns):
            self._departed_since_ns = None
            return None  # it goes where the motion begins, in its own way
        finding = self._elsewhere(now_ns, lambda report: self._pilot.told(
            min(report.stamp_ns or now_ns, now_ns) - LAGS_NS), safety.REFERENCE_SHARE)
        if finding is None:
            self._departed_since_ns = None
            return None
        if self._departed_since_ns is None:
            self._departed_since_ns = now_ns
        return finding if now_ns - self._departed_since_ns >= AGREE_NS else None

    def apart(self, measured: np.ndarray, now_ns: int) -> Finding | None:
        """Return a joint [D] that a controller holds too far from where it is measured."""
        return self._elsewhere(now_ns, lambda report: measured[None], 1.0)

    def _elsewhere(self, now_ns: int, told: Callable[[Report], np.ndarray], share: float
                   ) -> Finding | None:
        """Return a joint that a controller does not hold where it is ``told``, [N, D]."""
        pilot = self._pilot
        for controller, its in self._controllers:
            report = controller.reference(now_ns)
            finding = None if report is None else safety.check_reference(
                report.reference, told(report)[:, its], pilot.limits.of(its),
                controller.joint_names, share)
            if finding:
                return finding
        return None

    def stance(self, measured: np.ndarray, now_ns: int) -> Stance:
        """
        Return where a robot that stands at ``measured`` [D] begins to move.

        Where the controller holds it, by its own word. Else where it was told to be, if it is
        there but for a little (grippers hold things), else where it is measured; and then the
        controller is given the time to come there, from wherever it holds, within the limits.
        """
        limits, told = self._pilot.limits, self._told
        held = self._held(now_ns)
        goes = self._goes & ~np.isfinite(held)
        if told is None:
            target, share = limits.clamp(measured), HELD_SHARE
            away = np.abs(target - measured)
        else:
            told = limits.nearest_turn(told[None], measured)[0]
            near = ~limits.far(told, measured, safety.MOVED_SHARE) | limits.alone
            target = limits.clamp(told if near.all() else np.where(limits.alone, told, measured))
            # It holds what it was told, or, restarted, what was measured then.
            away = np.maximum(np.abs(told - target), np.abs(measured - target))
            share = MARGIN_SHARE if self._came(measured) else HELD_SHARE
        target = np.where(np.isfinite(held), held, target)
        return Stance(target, first_piece_ns(limits, np.where(
            goes, away + share * _held(limits), 0.0)) + self._pilot.timing.lead_ns
            if goes.any() else 0)


def _held(limits: JointLimits) -> np.ndarray:
    """Return [D] of which the shares above are."""
    return np.where(np.isfinite(limits.tracking), limits.tracking, safety.GRIPPER_HELD)


def first_piece_ns(limits: JointLimits, away: np.ndarray) -> int:
    """
    Return how long a controller needs from rest to rest, within the limits.

    A cubic over the distance d in the time T accelerates with 6 d / T^2 and is as fast as
    1.5 d / T; jazzy's controller enters it two periods late, which doubles the first acceleration
    (docs/controller.md).

    :param away: [D] that it may have to go.
    """
    seconds = np.maximum(np.sqrt(ENTERED * 6 * away / limits.stopping),
                         1.5 * away / limits.velocity)
    return max(SHORTEST_NS, round(1e9 * float(seconds.max(initial=0.0))))
