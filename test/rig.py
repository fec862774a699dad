# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""A robot, its cameras, a policy and the guard on one synthetic clock, a millisecond a step."""

from dataclasses import replace

import numpy as np
from pi0_ros.control.controllers import Report
from pi0_ros.control.guard import Guard, GuardRules
from pi0_ros.control.pilot import ClockJump, Pilot, Timing
from pi0_ros.observation.buffers import JointBuffer, LatestBuffer
from pi0_ros.observation.finding import Finding
from pi0_ros.observation.observation import Freshness, ObservationBuilder
from pi0_ros.policy.policy import PolicyGone
from pi0_ros.sim.controller import (Settings, TrajectoryController, TrajectoryMessage,
                                    TrajectoryRejected)
from support import box, chunk, MS

NAMES = ('a', 'b')
ACCELERATION, VELOCITY, REACH = 5.0, 1.5, 2.0
START_MS = 1_000_000


class Rig:
    """Everything between an image and a joint. A test breaks what it likes by its attributes."""

    def __init__(self, policy='sine', infer_ms=60, rules=GuardRules(), strategy='blend',
                 settings=Settings(update_rate=1000.0), rate=50.0, tells=False):
        limits = box(2, -REACH, REACH, VELOCITY, ACCELERATION, 0.2, 0.3)
        self.joints, self.camera = JointBuffer(NAMES), LatestBuffer()
        builder = ObservationBuilder(self.joints, {'front': self.camera}, self._decode,
                                     Freshness(100 * MS, 200 * MS, 150 * MS))
        self.pilot = Pilot(NAMES, limits, Timing.at_rate(rate, 0.3, strategy))
        self.period = round(1000 / rate)
        self.guard = Guard(self.pilot, builder, rules)
        self.now = self.steady = START_MS  # the clock of stamps, and one that nobody sets
        self.offset = 0                    # of the clock of stamps
        self.clock_stands = self.node_dead = False
        self.feeds = {'joints', 'images'}
        self.image = np.zeros((4, 4, 3), np.uint8)
        self.image_stamp = self.joint_stamp = lambda now: now
        self.names, self.disturb = list(NAMES), lambda positions: positions
        self.policy, self.infer_ms, self.instruction = policy, infer_ms, 'go'
        self.said = {}  # what chunks say of themselves
        self.controller = TrajectoryController(NAMES, np.zeros(2), settings)
        self.tells = tells                 # whether the controller publishes its state
        self.blocked = None                # where a joint is held
        self.sag = np.zeros(2)             # that the joints hang below what is commanded
        self.late_ms, self.loses = 0, set()  # of messages, and which are lost
        self.rejected, self._mail = [], []
        self.path, self.commands, self.errors = [], [], []
        self._pending, self._tick_at = None, START_MS
        self.usual_ms = 60

    def _decode(self, image):
        if isinstance(image, Exception):
            raise image
        return image

    def measured(self):
        """Return where the joints are."""
        last = self.path[-1] if self.path else np.zeros(2)
        return last - self.sag if self.blocked is None else self.blocked

    def velocity(self):
        """Return how fast the joints are."""
        if len(self.path) < 2 or self.blocked is not None:
            return np.zeros(2)
        return (self.path[-1] - self.path[-2]) * 1e3

    def run(self, ms):
        """Let so many milliseconds pass."""
        for _ in range(ms):
            self.steady += 1
            if not self.clock_stands:
                self.now = self.steady + self.offset
            self._robot()
            if not self.node_dead:
                self._node()
        return self

    def _robot(self):
        now_ns, controller = self.now * MS, self.controller
        while self._mail and self._mail[0][0] <= self.steady:
            try:
                controller.accept(self._mail.pop(0)[1], now_ns)
            except TrajectoryRejected as error:
                self.rejected.append(str(error))
        if not self.clock_stands:
            controller.update(now_ns, self.measured(), self.velocity())
        self.path.append(controller.commanded.copy())
        if self.tells and controller.active and self.steady % 20 == 0:
            self.guard.controllers.each[0].hear(Report(
                now_ns, now_ns, NAMES, controller.reference, controller.speed_scaling))
        if 'joints' in self.feeds and self.steady % 10 == 0:
            try:
                self.joints.put(self.names, self.disturb(self.measured()),
                                self.joint_stamp(self.now) * MS, self.now * MS)
            except ValueError as error:
                self.errors.append(str(error))
        if 'images' in self.feeds and self.steady % 33 == 0:
            self.camera.put(self.image, self.image_stamp(self.now) * MS, self.now * MS)

    def _node(self):
        now_ns = self.now * MS
        self._think(now_ns)
        self.guard.watch(self.steady * MS, self.usual_ms * MS)
        if self.clock_stands or abs(self.now - self._tick_at) < self.period <= 10_000:
            return
        self._tick_at = self.now
        self.tick(now_ns)

    def tick(self, now_ns):
        """Let the control thread decide, and the policy begin."""
        try:
            window, wants = self.guard.tick(now_ns)
        except ClockJump:
            self.joints.clear()
            self.camera.clear()
            return
        if window is not None:
            self.commands.append((self.steady, window))
            if len(self.commands) not in self.loses:
                self._mail.append((self.steady + self.late_ms, TrajectoryMessage.of(window)))
        if wants and self.instruction and self._pending is None:
            epoch = self.pilot.epoch
            seen = self.guard.observe(now_ns, self.instruction)
            if not isinstance(seen, Finding):
                self.guard.begin(self.steady * MS)
                self._pending = self.steady + self.infer_ms, seen, epoch

    def _think(self, now_ns):
        if self._pending is None or self.steady < self._pending[0] or self.policy == 'hangs':
            return
        (_, seen, epoch), self._pending = self._pending, None
        try:
            decided = self.decide(seen)
        except PolicyGone as error:
            return self.guard.failed(str(error), now_ns, gone=True)
        except Exception as error:
            return self.guard.failed(repr(error), now_ns)
        self.guard.accept(decided, seen, now_ns, epoch)

    def decide(self, seen):
        """Return the chunk for an observation: a slow swing, or what the policy does wrong."""
        due = seen.t_obs_ns / MS + 20 * np.arange(51) - START_MS - self.offset
        swing = np.stack([0.3 * np.sin(due / 1000), 0.2 * np.sin(due / 700)], axis=1)
        back = np.exp(-(due - due[0]) / 500)[:, None]  # to the swing, from wherever the robot is
        values = (swing + back * (seen.state - swing[0]))[1:]
        if isinstance(self.policy, Exception):
            raise self.policy
        if callable(self.policy):
            values = self.policy(values)
        return replace(chunk(values, t_obs_ns=seen.t_obs_ns), **self.said)

    def arm(self):
        """Arm as the operator does; return why not, or None."""
        now_ns = self.now * MS
        refusal = self.guard.why_not(now_ns, self.guard.builder.check(now_ns))
        if refusal is None and not self.pilot.enabled:
            seen = self.guard.observe(now_ns, self.instruction)
            refusal = seen if isinstance(seen, Finding) else self.guard.unready(
                self.decide(seen), seen, now_ns)
        if refusal is None:
            self.guard.arm(now_ns)
        return refusal

    def start(self):
        """Bring the robot to where it moves."""
        self.run(100)
        assert self.arm() is None
        self.run(1500)
        assert self.moves()
        return self

    def moves(self, over_ms=300):
        """Return whether the robot moved in the last milliseconds."""
        return bool(np.ptp(np.array(self.path[-over_ms:]), axis=0).max() > 1e-3)

    def silent(self, over_ms=300):
        """Return whether nothing was commanded in the last milliseconds."""
        return not self.commands or self.commands[-1][0] <= self.steady - over_ms

    def accelerations(self, since=0):
        """Return how hard the controller was made to accelerate, at any time since."""
        path = np.array(self.path[since:])[::5]
        return np.abs(np.diff(path, 2, axis=0)) / 0.005**2
