"""What a configured node holds: inputs, policy, control, and who watches over them."""

import gc
import threading
import time
from types import SimpleNamespace

from rclpy.lifecycle import LifecycleNode
from rclpy.task import Future
from trajectory_msgs.msg import JointTrajectory

from pi0_ros.control.guard import Guard
from pi0_ros.control.limits import make_limits
from pi0_ros.control.pilot import ClockJump, Pilot, Timing
from pi0_ros.observation.finding import Finding
from pi0_ros.observation.observation import Observation
from pi0_ros.policy.factory import make_policy
from pi0_ros.policy.policy import Policy, PolicyGone
from pi0_ros.policy.worker import PolicyWorker
from pi0_ros.ros import conversions, status
from pi0_ros.ros.commands import CommandPublisher
from pi0_ros.ros.control_loop import ControlLoop
from pi0_ros.ros.inputs import Inputs, freshness
from pi0_ros.ros.monitor import Monitor
from pi0_ros.ros.operator import Operator

DISCOVERY_S = 1.0            # in which a missing input is not news
STOP_TIMEOUT_S = 3.0         # for the last commands of a stop; a simulated clock may stand still
CLOSE_TIMEOUT_S = 10.0       # for an inference that is under way


class Session:
    """Everything between configure and cleanup.

    Callbacks run on the executor's thread, ``_tick`` on the control thread, ``_think`` on the
    policy thread. They share pilot and guard, which are made for it, and plain values that are
    replaced whole.
    """

    def __init__(self, node: LifecycleNode, values: SimpleNamespace) -> None:
        """Create topics and services on ``node``; ``load`` loads the policy.

        :raises CheckpointError: the checkpoint cannot be used.
        :raises ValueError: joints or cameras do not fit it.
        """
        self.node, self.values, self._log = node, values, node.get_logger()
        self.policy = make_policy(values)
        self.pilot = Pilot(values.joint_names, make_limits(values.joint_names, values.limit_rules),
                           self._timing(values))
        self._worker = PolicyWorker(self.policy, self._think, self._inference_failed)
        self.loop: ControlLoop | None = None
        self.latency = status.Latency()
        self._preview: Future | None = None
        self._closing = threading.Event()
        self.inputs = Inputs(node, values)
        self.guard = Guard(self.pilot, self.inputs.builder, values.guard_rules)
        self.command = CommandPublisher(node, values.command_interface, values.dry_run)
        self._chunks = node.create_publisher(JointTrajectory, '~/action_chunk', 1)
        self.operator = Operator(self)
        self._monitor = Monitor(self)

    @staticmethod
    def _timing(values: SimpleNamespace) -> Timing:
        return Timing.at_rate(values.control_rate, values.replan_period, values.handover,
                              values.command_interface == 'trajectory')

    @property
    def active(self) -> bool:
        """Return whether the control thread runs."""
        return self.loop is not None

    def load(self) -> None:
        """Load the policy and warm it up; return when it is ready.

        :raises Exception: what the policy raised.
        """
        self._log.info(self.inputs.decoder.note)
        values, started = self.values, time.perf_counter()
        self._worker.start()
        gc.collect()
        gc.freeze()  # else a collection looks through all of torch, and the control thread waits
        what = values.checkpoint if values.policy == 'pi0' else values.policy
        self._log.info(
            f'policy {what} is ready after {time.perf_counter() - started:.1f} s; joints '
            f"{', '.join(values.joint_names)}; cameras {', '.join(self.inputs.cameras)}")
        self._monitor.news_from = time.monotonic() + DISCOVERY_S

    def activate(self) -> None:
        """Start the control thread; the robot stays disarmed."""
        self.pilot.forget_time()
        self.loop = ControlLoop(self.node.get_clock(), self.pilot.timing.period_ns, self._tick,
                                self._control_failed, self.values.realtime_priority)
        self.loop.start()
        dry = 'in a dry run, ' if self.values.dry_run else ''
        self._log.info(f'active and {dry}disarmed; arm with: ros2 service call '
                       f'{self.operator.own("enable")} std_srvs/srv/SetBool "{{data: true}}"')

    def deactivate(self) -> None:
        """Let the control thread publish a smooth stop, then end it."""
        loop, self.loop = self.loop, None
        if loop is None:
            return
        self.guard.disarm(Finding('inactive', 'the node was deactivated'), self.now())
        self._answer(Finding('inactive', 'the node was deactivated'))
        deadline, pause = time.monotonic() + STOP_TIMEOUT_S, threading.Event()
        while self.pilot.speaking and time.monotonic() < deadline:
            pause.wait(self.pilot.timing.period_ns / 1e9)
        loop.stop()

    def close(self) -> None:
        """Stop moving, then publishing, then the policy; then forget the topics."""
        self._closing.set()
        self.deactivate()
        if not self._worker.close(CLOSE_TIMEOUT_S):
            self._log.error(f'the policy thread did not end within {CLOSE_TIMEOUT_S:.0f} s')
        gc.unfreeze()
        self._monitor.close()
        self.operator.close()
        self.inputs.close()
        for publisher in (self.command.publisher, self._chunks):
            self.node.destroy_publisher(publisher)

    def apply(self, values: SimpleNamespace) -> None:
        """Use changed parameters."""
        self.values = values
        self.inputs.builder.freshness = freshness(values)
        self.guard.rules = values.guard_rules
        self.pilot.timing = self._timing(values)

    # ---- the control thread ----

    def _tick(self, now_ns: int) -> None:
        try:
            trajectory, wants = self.guard.tick(now_ns)
        except ClockJump as jump:
            self.inputs.clear()
            self._log.error(f'{jump}: disarmed')
            return
        if wants and self.operator.instruction:
            self._worker.wake()
        if trajectory is not None:
            self.command.publish(trajectory)

    def wake_policy(self, now_ns: int) -> None:
        """Let the policy decide if that is wanted; at low control rates ticks are too seldom."""
        if self.pilot.enabled and self.operator.instruction and self.guard.wants_chunk(now_ns):
            self._worker.wake()

    def _control_failed(self, error: Exception) -> None:
        self._latch(Finding('control_failed', f'control: {error!r}', 'control'))

    # ---- the policy thread ----

    def _think(self, policy: Policy) -> None:
        """Observe, infer and hand the chunk over."""
        if self._preview is not None:
            return self._look_ahead(policy)
        epoch = self.pilot.queue.epoch  # first: whatever stops the robot from here on counts
        now_ns, instruction = self.now(), self.operator.instruction
        if not (instruction and self.guard.wants_chunk(now_ns)):
            return None
        observation = self.guard.observe(now_ns, instruction)
        if isinstance(observation, Finding):
            return None
        self.guard.begin(self.steady())
        started = time.perf_counter()
        leftover = self.pilot.leftover(observation)
        chunk = policy.infer(observation, leftover=leftover)
        self._closing.wait(self.values.added_delay)
        self.latency.add(time.perf_counter() - started, self.steady())
        dropped = self.guard.accept(chunk, observation, self.now(), epoch)
        if instruction != self.operator.instruction:
            self.pilot.want_chunk(self.now())
        formless = dropped and dropped.reason in ('chunk_shape', 'chunk_not_finite')
        if self._chunks.get_subscription_count() and not formless:
            self._chunks.publish(conversions.chunk_message(chunk, self.values.joint_names))
        if dropped and self.pilot.enabled and self.pilot.queue.epoch == epoch:
            self._log.warning(f'chunk {chunk.number} dropped: {dropped}',
                              throttle_duration_sec=1.0)
        return None

    def _look_ahead(self, policy: Policy) -> None:
        """Decide what would be done first, and answer whether that is near enough to arm."""
        observation = self.guard.observe(self.now(), self.operator.instruction)
        if isinstance(observation, Observation):
            self.guard.begin(self.steady())
            chunk = policy.infer(observation)
            self.guard.end()
            self._answer(self.guard.too_far(chunk, observation, self.now()))
        else:
            self._answer(observation)

    def preview(self, instruction: str) -> Future:
        """Return a future that tells why the robot should not be armed for what comes first.

        Without an instruction nothing comes yet, and only the images are looked at.
        """
        answer = Future()
        if instruction:
            self._preview = answer
            self._worker.wake()
        else:
            observation = self.guard.observe(self.now(), '')
            answer.set_result(observation if isinstance(observation, Finding) else None)
        return answer

    def _answer(self, finding: Finding | None) -> None:
        preview, self._preview = self._preview, None
        if preview is not None:
            preview.set_result(finding)

    def _inference_failed(self, error: Exception) -> None:
        text = f'{type(error).__name__}: {error}'
        gone = isinstance(error, PolicyGone)
        self.guard.end()
        if gone or self._preview is None:
            self.guard.failed(str(error) if gone else text, self.now(), gone)
        self._log.error(f'inference failed: {text}', throttle_duration_sec=1.0)
        self._answer(Finding('policy_failed', text, 'policy'))

    # ---- for those who watch ----

    def watch_policy(self) -> None:
        """Latch an inference that hangs."""
        self.guard.hung(self.now(), self.steady(), round(1e6 * self.latency.percentile(95)))
        if self.guard.fault:
            self._answer(self.guard.fault)

    def _latch(self, finding: Finding) -> None:
        self.guard.latch(finding, self.now())

    def now(self) -> int:
        """Return the time of the node's clock, nanoseconds."""
        return self.node.get_clock().now().nanoseconds

    @staticmethod
    def steady() -> int:
        """Return the time of a clock that nobody sets, nanoseconds."""
        return time.monotonic_ns()
