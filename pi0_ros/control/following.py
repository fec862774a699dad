"""Whether the robot does what it is told, and where a motion of one that stands begins.

Three things can be asked: the joints, as they are measured; the controller, where it says what it
holds; and, of neither, how long a first piece must be to be safe whatever the controller holds.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np

from pi0_ros.control import safety
from pi0_ros.control.pilot import Pilot, Stance
from pi0_ros.motion.limits import JointLimits
from pi0_ros.observation.buffers import Stamped
from pi0_ros.observation.finding import Finding

LAGS_NS = 50_000_000 * np.arange(7)  # that a robot may be behind what it is told
# Over which a robot must move that is told to.
HORIZONS_NS = (500_000_000, 1_000_000_000, 3_000_000_000)
FOLLOWS = 0.25          # of what it was told, that a robot must have moved at least
EVERY = 5               # ticks
HELD_SHARE = 0.4        # of the tracking limit, that a controller may hold joints away: arms sag
MARGIN_SHARE = 0.1      # of it, that a robot may have moved since it was measured
WAY_SHARE = 0.25        # of that, after which the way of a robot is remembered again
ENTERED = 2.1           # times the acceleration of the cubic, where a controller enters it late
SHORTEST_NS = 100_000_000   # of a first piece: several periods of any controller
SETTLE_NS = 500_000_000     # after the last command, before a robot is taken to stand
SILENT_NS = 200_000_000     # for which a controller that tells its state may say nothing
CLOCKS_APART_NS = 100_000_000
SCALING_NS = 1_000_000_000  # for which a topic of the speed scaling may be silent
SLOWEST_REPORT = 5          # periods of its state, after which it is no news any more
RESTS_NS = 50_000_000       # after its last message and that, a controller is at rest
AGREE_NS = 100_000_000      # for which a controller must have departed before that counts


@dataclass(frozen=True)
class Report:
    """What a controller says of itself (control_msgs/JointTrajectoryControllerState)."""

    stamp_ns: int
    received_ns: int
    joint_names: tuple[str, ...]
    reference: np.ndarray       # [D] positions it commands, in the order of the robot's joints
    speed_scaling: float = 1.0  # of its time


class Controller:
    """The newest report of the controller. One thread may put while another asks."""

    def __init__(self, joint_names: tuple[str, ...]) -> None:
        """Begin without one."""
        self.joint_names = joint_names
        self._reports: deque[Report] = deque(maxlen=8)
        self._scaling: tuple[int, float] | None = None  # told by a topic of its own

    def hear(self, report: Report) -> None:
        """Take a report."""
        self._reports.append(report)

    def hear_scaling(self, factor: float, received_ns: int) -> None:
        """Take how fast the controller's time passes, 1 for full speed, by a topic of its own."""
        self._scaling = received_ns, factor

    def forget(self) -> None:
        """Forget all: another controller, or the clock jumped."""
        self._reports.clear()
        self._scaling = None

    @property
    def newest(self) -> Report | None:
        """Return the newest report."""
        return self._reports[-1] if self._reports else None

    def reference(self, now_ns: int) -> Report | None:
        """Return the newest report if it is news and about these joints."""
        reports = list(self._reports.copy())
        if not reports or set(reports[-1].joint_names) != set(self.joint_names):
            return None
        late_ns = now_ns - reports[-1].received_ns
        return reports[-1] if late_ns <= self._allowed_ns(reports) else None

    @staticmethod
    def _allowed_ns(reports: list[Report]) -> int:
        periods = np.diff([report.received_ns for report in reports])
        return max(SILENT_NS, SLOWEST_REPORT * int(np.median(periods)) if len(periods) else 0)

    def silent(self, now_ns: int) -> Finding | None:
        """Return that a controller which has told its state does not tell it any more."""
        reports = list(self._reports.copy())
        if not reports or now_ns - reports[-1].received_ns <= self._allowed_ns(reports):
            return None
        return Finding('controller_silent', 'the controller has not told its state for '
                       f'{(now_ns - reports[-1].received_ns) / 1e9:.2f} s: it was switched off, '
                       'or has ended; start it, then arm again', 'controller')

    def scaling(self, now_ns: int) -> float:
        """Return how fast its time passes; 1 where nobody says."""
        if self._scaling is not None:
            return self._scaling[1]
        report = self.reference(now_ns)
        return report.speed_scaling if report else 1.0

    def problem(self, now_ns: int) -> Finding | None:
        """Return why a robot on this controller cannot be commanded, or None."""
        factor, newest = self.scaling(now_ns), self.newest
        if not 0.0 <= factor <= safety.FULL_SPEED:
            return Finding('speed_scaling', f'the controller says that its speed is scaled to '
                           f'{100 * factor:.0f} %, expected 0 to 100', 'controller', factor, 1.0)
        if self._scaling is not None and now_ns - self._scaling[0] > SCALING_NS:
            return Finding('speed_scaling', 'the speed scaling of the controller has not been '
                           f'told for {(now_ns - self._scaling[0]) / 1e9:.1f} s', 'controller')
        if newest is None:
            return None
        mine = set(self.joint_names)
        other = sorted(mine.symmetric_difference(newest.joint_names))
        if other:
            return Finding('controller_joints', 'the controller has joints '
                           f"{', '.join(newest.joint_names)}, commanded are "
                           f"{', '.join(self.joint_names)}: it refuses every message",
                           ', '.join(other))
        ahead_ns = newest.stamp_ns - newest.received_ns
        if newest.stamp_ns and abs(ahead_ns) > CLOCKS_APART_NS:
            way = 'ahead of' if ahead_ns > 0 else 'behind'
            return Finding('controller_clock', "the controller's clock is "
                           f'{abs(ahead_ns) / 1e9:.2f} s {way} this one: it would refuse '
                           'commands, or be late; synchronise the machines, or let both use '
                           'simulated time', 'controller', abs(ahead_ns) / 1e9,
                           CLOCKS_APART_NS / 1e9)
        return None


class Follower:
    """Watches whether the robot follows; asked once a tick."""

    def __init__(self, pilot: Pilot, controller: Controller) -> None:
        """Begin without a past."""
        self._pilot, self._controller = pilot, controller
        self._past: deque[tuple[int, np.ndarray, np.ndarray]] = deque(maxlen=300)
        self._way: deque[tuple[np.ndarray, np.ndarray]] = deque(maxlen=300)  # told, and measured
        self._away_since_ns: int | None = None
        self._departed_since_ns: int | None = None
        self._rest: np.ndarray | None = None  # [D] measured, since it stands
        self._told: np.ndarray | None = None  # [D] where it stands, as far as it was told
        self._doubted = False  # whether the robot did not follow what it was told last
        self._spoke_ns = 0

    def begin(self, measured: np.ndarray, now_ns: int) -> np.ndarray:
        """Forget the past; return where a robot that is armed at ``measured`` [D] stands."""
        self._past.clear()
        self._away_since_ns = self._departed_since_ns = None
        self._rest = measured
        if self._doubted:
            self._told, self._doubted = None, False
            self._way.clear()
        if self._told is not None and self._pilot.limits.far(
                self._told, measured, safety.MOVED_SHARE).any():
            self._told = None
        held = self._held(now_ns)
        return held if held is not None else measured if self._told is None else self._told

    def _held(self, now_ns: int) -> np.ndarray | None:
        """Return where the controller holds the robot [D], None where that is not known.

        By its own word, if that is from after the robot came to rest; until then, if it tells its
        state at all, it is where it was told to be.
        """
        report = self._controller.reference(now_ns)
        if report is None:
            return None
        at_rest_ns = self._spoke_ns + self._pilot.timing.lead_ns + RESTS_NS
        if self._told is None or (report.stamp_ns or report.received_ns) >= at_rest_ns:
            return report.reference
        return self._told

    def doubt(self) -> None:
        """Count on nothing that the robot is told until it is armed again: it did not follow."""
        self._doubted = True

    def forget(self) -> None:
        """Forget where the robot stands: the clock jumped."""
        self._rest = self._told = None
        self._way.clear()
        self._controller.forget()

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
            self._told = newest.positions[-1] if self._pilot.timing.coasts else newest.start

    def _came(self, measured: np.ndarray) -> bool:
        """Return whether the robot, [D], was seen to go the last of the way it was told.

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
        """Return a joint that stands although it was told to move: its drive or controller is off.

        When that is switched on again, the plan would be far away.
        """
        past = self._past
        if past and stamp_ns <= past[-1][0]:
            return None
        past.append((stamp_ns, measured, self._pilot.told(np.array([stamp_ns]))[0]))
        if len(past) % EVERY and len(past) < past.maxlen:
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

    def departed(self, now_ns: int) -> Finding | None:
        """Return a joint that the controller holds where nobody told it to, or its silence."""
        report = self._controller.reference(now_ns)
        if report is None:
            return self._controller.silent(now_ns)
        if self._pilot.waits(now_ns):
            self._departed_since_ns = None
            return None  # it goes where the motion begins, in its own way
        finding = safety.check_reference(
            report.reference, self._pilot.told(min(report.stamp_ns or now_ns, now_ns) - LAGS_NS),
            self._pilot.limits, self._pilot.joint_names)
        if finding is None:
            self._departed_since_ns = None
            return None
        if self._departed_since_ns is None:
            self._departed_since_ns = now_ns
        return finding if now_ns - self._departed_since_ns >= AGREE_NS else None

    def apart(self, measured: np.ndarray, now_ns: int) -> Finding | None:
        """Return a joint [D] that the controller holds too far from where it is measured."""
        report = self._controller.reference(now_ns)
        return None if report is None else safety.check_reference(
            measured, report.reference[None], self._pilot.limits, self._pilot.joint_names, 1.0)

    def stance(self, measured: np.ndarray, now_ns: int) -> Stance:
        """Return where a robot that stands at ``measured`` [D] begins to move.

        Where the controller holds it, by its own word. Else where it was told to be, if it is
        there but for a little (grippers hold things), else where it is measured; and then the
        controller is given the time to come there, from wherever it holds, within the limits.
        """
        limits, told = self._pilot.limits, self._told
        held = self._held(now_ns)
        if held is not None:
            return Stance(held)
        if told is None:
            target = limits.clamp(measured)
            return Stance(target, first_piece_ns(limits, HELD_SHARE * _held(limits) + np.abs(
                target - measured)) + self._pilot.timing.lead_ns)
        told = limits.nearest_turn(told[None], measured)[0]
        near = ~limits.far(told, measured, safety.MOVED_SHARE) | limits.alone
        target = limits.clamp(told if near.all() else np.where(limits.alone, told, measured))
        # It holds what it was told, or, restarted, what was measured then.
        away = np.maximum(np.abs(told - target), np.abs(measured - target))
        share = MARGIN_SHARE if self._came(measured) else HELD_SHARE
        return Stance(target, first_piece_ns(limits, away + share * _held(limits))
                      + self._pilot.timing.lead_ns)


def _held(limits: JointLimits) -> np.ndarray:
    """Return [D] of which the shares above are."""
    return np.where(np.isfinite(limits.tracking), limits.tracking, safety.GRIPPER_HELD)


def first_piece_ns(limits: JointLimits, away: np.ndarray) -> int:
    """Return how long a controller needs from rest to rest, within the limits.

    A cubic over the distance d in the time T accelerates with 6 d / T^2 and is as fast as
    1.5 d / T; jazzy's controller enters it two periods late, which doubles the first acceleration
    (docs/controller.md).

    :param away: [D] that it may have to go.
    """
    seconds = np.maximum(np.sqrt(ENTERED * 6 * away / limits.stopping),
                         1.5 * away / limits.velocity)
    return max(SHORTEST_NS, round(1e9 * float(seconds.max(initial=0.0))))
