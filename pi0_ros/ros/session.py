# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What a configured node holds: inputs, policy, control, and who watches over them."""

import contextlib
import gc
import threading
import time

from pi0_ros.configuration.advice import advised
from pi0_ros.configuration.configuration import Configuration
from pi0_ros.control.controllers import interfaces, STREAMS
from pi0_ros.control.guard import Guard, LED
from pi0_ros.control.leading import Leading
from pi0_ros.control.pilot import ClockJump, Pilot
from pi0_ros.control.states import State
from pi0_ros.kinematics.urdf import UrdfError
from pi0_ros.motion.limits import RobotLimits
from pi0_ros.observation.finding import Finding
from pi0_ros.observation.observation import Observation
from pi0_ros.policy.policy import ActionChunk, Leftover, Policy, PolicyGone, Unserved
from pi0_ros.policy.provenance import configuration, configuration_hash
from pi0_ros.policy.record import InferenceRecord
from pi0_ros.ros.asked import Asked
from pi0_ros.ros.control_loop import ControlLoop
from pi0_ros.ros.interrupt import trace
from pi0_ros.ros.latency import Latency
from pi0_ros.ros.links import conversions, qos
from pi0_ros.ros.links.commands import Commands
from pi0_ros.ros.links.controller_link import ControllerLinks
from pi0_ros.ros.links.followers import Followers
from pi0_ros.ros.links.inputs import Inputs
from pi0_ros.ros.links.leader import LeaderLink
from pi0_ros.ros.look_ahead import LookAhead
from pi0_ros.workers.factory import make_policy
from pi0_ros.workers.worker import PolicyWorker
from rclpy.lifecycle import LifecycleNode
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

STOP_TIMEOUT_S = 1.0         # after a stop should have ended
CLOSE_TIMEOUT_S = 10.0       # for an inference that is under way
THREAD_TIMEOUT_S = 2.0       # for a control thread that hangs
INACTIVE = Finding('inactive', 'the node was deactivated', 'node')


class Session:
    """
    Everything between configure and cleanup.

    Callbacks run on the executor's thread, ``_tick`` on the control thread, ``_think`` on the
    policy thread. They share pilot and guard, which are made for it, and plain values that are
    replaced whole.
    """

    def __init__(self, node: LifecycleNode, config: Configuration, asked: Asked) -> None:
        """
        Create topics and services on ``node``; ``load`` loads the policy.

        :param asked: what a person asks for, meanwhile.
        :raises CheckpointError: the checkpoint cannot be used.
        :raises ValueError: joints or cameras do not fit it.
        """
        self.node, self.config, self._log = node, config, node.get_logger()
        self._asked = asked
        robot, control, safety = config.robot, config.control, config.safety
        self.limits = RobotLimits(robot.commanded, safety.limit_rules(robot.commanded))
        self.policy = make_policy(config.policy, robot, control.rtc, safety.max_inference_time,
                                  self.limits.body)
        decides = configuration(config.policy, robot, control.handover, control.jacobian)
        self._configuration = decides, configuration_hash(decides)
        self.fingerprint = decides['checkpoint']
        groups = config.groups
        self.pilot = Pilot(robot.commanded, self.limits.now, control.timing(groups),
                           interfaces(groups, robot.commanded, *STREAMS))
        self._changed: Configuration | None = None  # that the control thread shall take
        self._worker = PolicyWorker(self.policy, self._think, self._inference_failed)
        self.loop: ControlLoop | None = None
        self.latency = Latency()
        self.unserved: Finding | None = None  # why nobody answers, of a policy elsewhere
        self.armings, self.loading = 0, False  # loading: the policy, again
        self._closing = threading.Event()
        self.commands = Commands(node, groups, robot.commanded, safety.dry_run)
        self.inputs = Inputs(node, robot, config.inputs, groups)
        self.guard = Guard(self.pilot, self.inputs.builder,
                           safety.guard_rules(config.policy.added_delay), groups)
        self.decided: ActionChunk | None = None  # last, taken or not; for who looks
        self.look_ahead = LookAhead(self.guard, self._worker.wake, self.now, self.steady,
                                    self._show)
        self.leading = Leading(self.guard, control.takeover_mode, control.takeover_policy,
                               round(1e9 * control.takeover_timeout))
        self._leader = LeaderLink(node, self.leading, self.now, self.steady)
        self._followers = Followers(self.commands)
        self.link = ControllerLinks(node, self.commands, self.guard.controllers,
                                    control.speed_scaling)
        self._chunks, self._inferences = (
            node.create_publisher(*one, event_callbacks=qos.SAID) for one in (
                (JointTrajectory, '~/action_chunk', 1), (String, '~/inference', qos.RECORD)))

    @property
    def active(self) -> bool:
        """Return whether the control thread runs."""
        return self.loop is not None

    def load(self) -> None:
        """
        Load the policy and warm it up; return when it is ready.

        :raises Exception: what the policy raised.
        """
        self._log.info(self.inputs.decoder.note)
        config, started = self.config.policy, time.perf_counter()
        self._worker.start()
        gc.collect()
        gc.freeze()  # else a collection looks through all of torch, and the control thread waits
        what = config.checkpoint if config.has_checkpoint else config.policy
        self._log.info(
            f'policy {what} is ready after {time.perf_counter() - started:.1f} s; joints '
            f"{', '.join(self.pilot.joint_names)}; cameras {', '.join(self.inputs.cameras)}")

    def activate(self) -> None:
        """Start the control thread; the robot stays disarmed."""
        priority = self.config.control.realtime_priority
        self.pilot.forget_time()
        self.loop = ControlLoop(self.node.get_clock(), self.pilot.timing.period_ns, self._tick,
                                self._control_failed, priority)
        self.loop.start()
        if priority and not self.loop.realtime:
            self._log.info(f'the control thread has no real-time priority '
                           f'{priority}: the system does not grant it '
                           '(rtprio in /etc/security/limits.conf); it runs as other threads do')

    def deactivate(self) -> None:
        """Let the control thread publish a smooth stop, then end it, whatever fails meanwhile."""
        loop = self.loop
        if loop is None:
            return
        try:
            self.guard.disarm(INACTIVE)
            self.look_ahead.answer(INACTIVE)
            loop.leave_clock()  # of a simulator that only this thread could hear
            loop.wake()
            deadline, pause, stalled = time.monotonic() + STOP_TIMEOUT_S, threading.Event(), None
            while (self.pilot.speaking and not stalled and time.monotonic() < deadline
                   + self.pilot.remaining_ns(self.now()) / 1e9):
                pause.wait(min(self.pilot.timing.period_ns / 1e9, 0.05))
                stalled = loop.stalled()
            stalled = stalled or (loop.stalled() if self.pilot.speaking else None)
            if stalled:
                self._log.warning(f'deactivated while it moved: {stalled}')
        finally:
            self.loop = None
            if not loop.stop(THREAD_TIMEOUT_S):
                self._log.error(f'the control thread did not end within {THREAD_TIMEOUT_S:.0f} s: '
                                'a publisher hangs; the robot follows its last window to rest')
            self.commands.rest()
            self._leader.release()

    def close(self) -> None:
        """Stop moving, publishing, the policy, in this order and whatever fails; forget topics."""
        self._closing.set()
        with contextlib.ExitStack() as last_first:
            last_first.callback(self.commands.close)
            for publisher in (self._chunks, self._inferences):
                last_first.callback(self.node.destroy_publisher, publisher)
            for step in (self.inputs.close, self._leader.close, self.link.close, gc.unfreeze,
                         self._close_worker, self.deactivate):
                last_first.callback(step)

    def _close_worker(self) -> None:
        if not self._worker.close(CLOSE_TIMEOUT_S):
            self._log.error(f'the policy thread did not end within {CLOSE_TIMEOUT_S:.0f} s')

    def use(self, config: Configuration) -> None:
        """Use another configuration, from the next tick on; only what may change counts."""
        self.config = self._changed = config
        if not self.active:
            self._use_changes()

    def _use_changes(self) -> None:
        config, self._changed = self._changed, None
        if config is not None:
            self.inputs.builder.use(config.inputs.freshness)
            self.guard.use(config.safety.guard_rules(config.policy.added_delay))
            self.pilot.use(config.control.timing(config.groups, self.link.update_rate))

    # ---- the control thread ----

    def _tick(self, now_ns: int) -> None:
        self._use_changes()
        try:
            trajectory, wants = self.guard.tick(now_ns)
        except ClockJump as jump:
            self.inputs.clear()
            self._log.error(f'{jump}: disarmed')
            self.commands.rest()
            return
        if wants and self._asked.instruction and self.leading.infers:
            self._worker.wake()
        self.commands.tell(trajectory, self.pilot, self.inputs.joints.get())

    def wake_to_load(self) -> None:
        """Let a policy that has gone be loaded again."""
        if not self.policy.loaded:
            self.loading = True
            self._worker.wake()

    def wake_policy(self, now_ns: int) -> None:
        """Let the policy decide if that is wanted; at low control rates ticks are too seldom."""
        if self.pilot.enabled and self._asked.instruction and self._wants(now_ns):
            self._worker.wake()

    def _control_failed(self, error: BaseException) -> None:
        first = not self.guard.fault
        self.guard.latch(Finding('control_failed', f'control: {error!r}', 'control'))
        if first:
            self._log.error(f'control: {error!r}\n{trace(error)}')
        with contextlib.suppress(Exception):  # what turns must stop, if that can be told at all
            self.commands.rest()

    # ---- the policy thread ----

    def _think(self, policy: Policy) -> None:
        """Observe, infer and hand the chunk over."""
        self._load_again(policy)
        if self.look_ahead.asked is not None:
            return self.look_ahead.decide(policy)
        if not (self._asked.instruction and self._wants(self.now())):
            return None
        self.inputs.await_frame(lambda ns: self.pilot.lasts(self.now(), ns), self._closing)
        epoch = self.pilot.epoch  # first: whatever stops the robot from here on counts
        now_ns, instruction = self.now(), self._asked.instruction
        if not (instruction and self._wants(now_ns)):
            return None
        observation = self.guard.observe(now_ns, instruction)
        if isinstance(observation, Finding):
            return None
        self.guard.begin(self.steady())
        started = time.perf_counter()
        leftover = self.pilot.leftover(observation)
        self.decided = chunk = policy.infer(observation, leftover=leftover)
        self.unserved = None
        self._closing.wait(self.config.policy.added_delay)
        self.latency.add(time.perf_counter() - started, self.steady())
        if chunk.preview and self.guard.first and not self.leading.engaged:
            self._log.info(chunk.preview)
        dropped = self.guard.accept(chunk, observation, self.now(), epoch)
        if instruction != self._asked.instruction:
            self.pilot.want_chunk()
        formless = dropped and dropped.reason in ('chunk_shape', 'chunk_not_finite')
        if self._chunks.get_subscription_count() and not formless:
            self._chunks.publish(conversions.chunk_message(chunk, self.pilot.joint_names))
        if self._inferences.get_subscription_count():
            self._record(observation, leftover, chunk)
        if dropped and dropped is not LED and self.pilot.enabled and self.pilot.epoch == epoch:
            self._log.warning(f'chunk {chunk.number} dropped: {advised(dropped)}',
                              throttle_duration_sec=1.0)
        return None

    def _wants(self, now_ns: int) -> bool:
        return self.leading.infers and self.guard.wants_chunk(now_ns)

    def _record(self, seen: Observation, leftover: Leftover | None, chunk: ActionChunk) -> None:
        """Publish what the chunk can be decided from again."""
        self._inferences.publish(String(data=InferenceRecord.of(
            seen, leftover, chunk, self.config.control.handover,
            self.policy.describe().get('engine', ''), *self._configuration).to_json()))

    def _load_again(self, policy: Policy) -> None:
        """Load a policy that has gone; whoever asks to arm meanwhile is told so."""
        self.loading = not policy.loaded
        try:
            if self.unserved or not policy.loaded:
                policy.ensure_loaded()
            self.unserved = None
        finally:
            self.loading = False

    def _inference_failed(self, error: BaseException) -> None:
        if isinstance(error, Unserved):
            self.unserved = error.finding
            self.guard.unserved(error.finding, self.now(), error.fresh)
            self.look_ahead.answer(error.finding)
            return
        text, gone = f'{type(error).__name__}: {error}', isinstance(error, PolicyGone)
        self._log.error(
            f'inference failed: {advised(text)}' + ('' if gone else f'\n{trace(error)}'),
            throttle_duration_sec=1.0)
        self.guard.failed(str(error) if gone else text, self.now(), gone)
        self.urgent()

    # ---- for those who watch ----

    def _show(self, chunk: ActionChunk) -> None:
        self.decided = chunk

    def arm(self) -> Finding | None:
        """Arm, and remember who follows; return why that cannot be done, or None."""
        if not self._followers.remember():
            self.guard.controllers.forget()
        self.commands.begin()
        self.armings += 1
        return self.guard.arm(self.now())

    def tools(self) -> Finding | None:
        """Return why the robot's description does not have the policy's tools, or None."""
        try:
            getattr(self.policy, 'check', lambda: None)()
        except UrdfError as error:
            return Finding(error.reason, str(error), 'robot_description')
        return None

    def problem(self) -> Finding | None:
        """Return what is wrong with the inputs, or with the clock that they are measured by."""
        now_ns = self.now()
        return (self.inputs.problem(now_ns) or self.guard.image_problem(now_ns)
                or self.unserved)

    def watch(self) -> None:
        """Latch an inference that hangs; disarm when nobody follows, or another commands too."""
        self.leading.watch(self.steady())
        self._leader.tell()
        self.guard.watch(self.steady(), round(1e6 * self.latency.percentile(95)))
        stalled = self.loop.stalled() if self.loop is not None else None
        if stalled:
            self.guard.latch(stalled)
            self.pilot.give_up()
            self.commands.rest()
        if self.config.policy.policy == 'remote' and (self.unserved or not self.policy.loaded):
            self._worker.wake()  # a server is looked for all the time
        if self.pilot.state is not State.ARMING:
            self.look_ahead.answer(self.guard.fault or self.guard.stopped_by or INACTIVE)
        if not (self.active and self.pilot.enabled) or self.config.safety.dry_run:
            return
        finding = self._followers.problem() or self.link.inactive()
        if finding:
            self.guard.disarm(finding)
            self.urgent()

    def urgent(self) -> None:
        """Let the control thread tell at once what it was asked to do."""
        loop = self.loop
        if loop is not None:
            loop.wake()

    def ask_controller(self) -> None:
        """Ask the controllers about their settings, and go by their update rate."""
        self.link.ask(self.pilot.limits)
        if self.link.has_another_rate():
            self.use(self.config)

    def now(self) -> int:
        """Return the time of the node's clock, nanoseconds."""
        return self.node.get_clock().now().nanoseconds

    @staticmethod
    def steady() -> int:
        """Return the time of a clock that nobody sets, nanoseconds."""
        return time.monotonic_ns()
