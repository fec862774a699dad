"""What a configured node holds: inputs, policy, control, and the operator's topics."""

import fnmatch
import gc
import threading
import time
from types import SimpleNamespace

from rclpy.lifecycle import LifecycleNode
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger
from trajectory_msgs.msg import JointTrajectory

from pi0_ros.control.limits import limits_from_urdf, unlimited
from pi0_ros.control.pilot import ClockJump, Pilot, Timing
from pi0_ros.observation.observation import NotReady
from pi0_ros.policy.factory import make_policy
from pi0_ros.policy.policy import Policy, PolicyGone
from pi0_ros.policy.worker import PolicyWorker
from pi0_ros.ros import conversions, qos, status
from pi0_ros.ros.commands import CommandPublisher
from pi0_ros.ros.control_loop import ControlLoop
from pi0_ros.ros.inputs import Inputs, freshness

MAX_INSTRUCTION = 1000       # characters
MAX_BAD_CHUNKS = 3           # in a row, before a fault is latched
RETRY_NS = 100_000_000       # between inferences while one fails or an image cannot be read
IMAGE_PROBLEM_NS = 500_000_000
WATCH_PERIOD_S = 0.1
DISCOVERY_S = 1.0            # in which a missing input is not news
STOP_TIMEOUT_S = 1.0         # for the last commands of a stop; a simulated clock may stand still
CLOSE_TIMEOUT_S = 10.0       # for an inference that is under way


class Session:
    """Everything between configure and cleanup.

    Callbacks run on the executor's thread, ``_tick`` on the control thread, ``_think`` on the
    policy thread. They share the pilot, which is made for it, and plain values that are replaced
    whole.
    """

    def __init__(self, node: LifecycleNode, values: SimpleNamespace) -> None:
        """Create topics and services on ``node``; ``load`` loads the policy.

        :raises CheckpointError: the checkpoint cannot be used.
        :raises ValueError: joints or cameras do not fit it.
        """
        self._node, self._values, self._log = node, values, node.get_logger()
        policy = make_policy(values)
        self.pilot = Pilot(values.joint_names, unlimited(len(values.joint_names)),
                           self._timing(values))
        self._policy = policy
        self._worker = PolicyWorker(policy, self._think, self._inference_failed)
        self._loop: ControlLoop | None = None
        self._limits_known = False
        self._instruction = self._refused = ''
        self._fault = self._image_problem = self._input_problem = ''
        self._bad_chunks = self._retry_ns = self._image_problem_ns = 0
        self._latency = status.Latency()
        self._news_from = float('inf')
        self._closing = threading.Event()
        self.inputs = Inputs(node, values)
        self._board = status.StatusBoard(node)
        self._command = CommandPublisher(node, values.command_interface)
        self._chunks = node.create_publisher(JointTrajectory, '~/action_chunk', 1)
        self._active_instruction = node.create_publisher(String, '~/active_instruction',
                                                         qos.LATCHED)
        self._subscriptions = [
            node.create_subscription(String, 'instruction', self._on_instruction,
                                     qos.INSTRUCTION),
            node.create_subscription(String, 'robot_description', self._on_description,
                                     qos.LATCHED)]
        self._services = [node.create_service(SetBool, '~/enable', self._on_enable),
                          node.create_service(Trigger, '~/reset', self._on_reset)]
        self._timers = [node.create_timer(WATCH_PERIOD_S, self._watch),
                        node.create_timer(1.0, self._diagnose)]

    @staticmethod
    def _timing(values: SimpleNamespace) -> Timing:
        return Timing.at_rate(values.control_rate, values.replan_period, values.handover,
                              values.command_interface == 'trajectory')

    def load(self) -> None:
        """Load the policy and warm it up; return when it is ready.

        :raises Exception: what the policy raised.
        """
        self._log.info(self.inputs.decoder.note)
        values, started = self._values, time.perf_counter()
        self._worker.start()
        gc.collect()
        gc.freeze()  # else a collection looks through all of torch, and the control thread waits
        what = values.checkpoint if values.policy == 'pi0' else values.policy
        self._log.info(
            f'policy {what} is ready after {time.perf_counter() - started:.1f} s; joints '
            f"{', '.join(values.joint_names)}; cameras {', '.join(self.inputs.cameras)}")
        self._news_from = time.monotonic() + DISCOVERY_S

    def activate(self) -> None:
        """Start the control thread; the robot stays disarmed."""
        self.pilot.forget_time()
        self._loop = ControlLoop(self._node.get_clock(), self.pilot.timing.period_ns, self._tick,
                                 lambda error: self._latch(f'control: {error!r}'),
                                 self._values.realtime_priority)
        self._loop.start()
        self._log.info(f'active and disarmed; arm with: ros2 service call {self._own("enable")} '
                       'std_srvs/srv/SetBool "{data: true}"')

    def deactivate(self) -> None:
        """Let the control thread publish a smooth stop, then end it."""
        loop, self._loop = self._loop, None
        if loop is None:
            return
        self.pilot.disable(self._now())
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
        self.inputs.close()
        node = self._node
        for destroy, entities in (
                (node.destroy_timer, self._timers),
                (node.destroy_subscription, self._subscriptions),
                (node.destroy_service, self._services),
                (node.destroy_publisher, (self._command.publisher, self._chunks,
                                          self._active_instruction, *self._board.publishers))):
            for entity in entities:
                destroy(entity)

    def apply(self, values: SimpleNamespace) -> None:
        """Use changed parameters."""
        self._values = values
        self.inputs.builder.freshness = freshness(values)
        self.pilot.timing = self._timing(values)

    # ---- the operator, on the executor's thread ----

    def _on_instruction(self, message: String) -> None:
        text = message.data.strip()
        self._refused = self._refusal(text) or ''
        if self._refused:
            self._log.warning(f'{self._refused}; holding')
            text = ''
        elif text != self._instruction:
            self._log.info(f"instruction: '{text}'" if text else 'empty instruction: holding')
        self._instruction = text
        if text:
            self.pilot.want_chunk(self._now())
        else:
            self.pilot.stop(self._now())
        self._active_instruction.publish(String(data=text))

    def _refusal(self, text: str) -> str | None:
        if len(text) > MAX_INSTRUCTION:
            return (f'instruction of {len(text)} characters is refused, at most '
                    f'{MAX_INSTRUCTION} are accepted')
        patterns = self._values.known_instructions
        if text and patterns and not any(fnmatch.fnmatchcase(text.lower(), pattern.lower())
                                         for pattern in patterns):
            return (f"unknown instruction '{text}', expected one that fits "
                    f"{', '.join(patterns)} (parameter 'known_instructions')")
        return None

    def _on_description(self, message: String) -> None:
        try:
            self.pilot.limits = limits_from_urdf(message.data, self._values.joint_names)
            self._limits_known = True
        except ValueError as error:
            self._log.error(str(error))

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response
                   ) -> SetBool.Response:
        now_ns = self._now()
        if not request.data:
            self.pilot.disable(now_ns)
            response.success, response.message = True, 'disarmed'
            self._log.info('disarmed')
            return response
        try:
            refusal = self._why_not_armed()
            observation = None if refusal else self.inputs.builder.build(now_ns, '')
        except NotReady as error:
            refusal = self.inputs.problem(now_ns) or str(error)
        if refusal:
            response.success, response.message = False, refusal
            self._log.warning(f'not armed: {refusal}')
            return response
        if not self.pilot.enabled:
            self.pilot.enable(observation.state[:len(self._values.joint_names)], now_ns)
        response.success = True
        response.message = 'armed' if self._instruction else 'armed, waiting for an instruction'
        self._log.info(response.message)
        return response

    def _why_not_armed(self) -> str | None:
        if self._loop is None:
            return 'the node is not active: activate it first'
        if self._fault:
            return f'fault: {self._fault}; remove its cause and call {self._own("reset")}'
        if not self._limits_known and not self._values.allow_missing_limits:
            return ("joint limits are unknown: publish robot_description, or set parameter "
                    "'allow_missing_limits'")
        if not self._command.followed():
            return (f"no controller subscribes to '{self._command.topic}': start it, or remap "
                    'the topic')
        if self.pilot.speaking and not self.pilot.enabled:
            return 'the robot is still stopping: try again'
        return None

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response
                  ) -> Trigger.Response:
        response.success = True
        response.message = f'cleared: {self._fault}' if self._fault else 'there was no fault'
        self._fault, self._bad_chunks = '', 0
        self._log.info(response.message)
        return response

    # ---- the control thread ----

    def _tick(self, now_ns: int) -> None:
        if self.pilot.enabled:
            if self._fault:
                self.pilot.disable(now_ns)
            elif self.inputs.problem(now_ns):
                self.pilot.stop(now_ns)
            else:
                self._wake_policy(now_ns)
        try:
            trajectory = self.pilot.tick(now_ns)
        except ClockJump as jump:
            self.inputs.clear()
            self._retry_ns = 0
            self._log.error(f'{jump}: disarmed')
            return
        if trajectory is not None:
            self._command.publish(trajectory)

    def _wake_policy(self, now_ns: int) -> None:
        if self._instruction and now_ns >= self._retry_ns and self.pilot.wants_chunk(now_ns):
            self._worker.wake()

    # ---- the policy thread ----

    def _think(self, policy: Policy) -> None:
        """Observe, infer and hand the chunk over."""
        epoch = self.pilot.queue.epoch  # first: whatever stops the robot from here on counts
        now_ns, instruction = self._now(), self._instruction
        if not (instruction and self.pilot.wants_chunk(now_ns)):
            return
        try:
            observation = self.inputs.builder.build(now_ns, instruction)
        except NotReady as error:
            self._image_problem, self._image_problem_ns = str(error), now_ns
            self._retry_ns = now_ns + RETRY_NS
            self.pilot.stop(now_ns)
            return
        self._image_problem = ''
        started = time.perf_counter()
        leftover = self.pilot.leftover(observation.t_obs_ns, instruction)
        chunk = policy.infer(observation, leftover=leftover)
        self._closing.wait(self._values.added_delay)
        self._latency.add(time.perf_counter() - started)
        dropped = self.pilot.accept(chunk, self._now(), epoch)
        self._bad_chunks = 0
        if instruction != self._instruction:
            self.pilot.want_chunk(self._now())
        if self._chunks.get_subscription_count():
            self._chunks.publish(conversions.chunk_message(chunk, self._values.joint_names))
        if dropped and self.pilot.enabled and self.pilot.queue.epoch == epoch:
            self._log.warning(f'chunk {chunk.number} dropped: {dropped}',
                              throttle_duration_sec=1.0)

    def _inference_failed(self, error: Exception) -> None:
        self._bad_chunks += 1
        self._retry_ns = self._now() + RETRY_NS
        text = f'{type(error).__name__}: {error}'
        if isinstance(error, PolicyGone):
            return self._latch(str(error))
        self._log.error(f'inference failed: {text}', throttle_duration_sec=1.0)
        if self._bad_chunks >= MAX_BAD_CHUNKS:
            self._latch(f'{MAX_BAD_CHUNKS} inferences in a row failed, the last with {text}')

    def _latch(self, reason: str) -> None:
        """Disarm until the operator resets; the first reason stays."""
        if not self._fault:
            self._fault = reason
            self._log.error(f'fault, disarmed: {reason}')
        self.pilot.disable(self._now())

    # ---- supervision, on the executor's thread ----

    def _watch(self) -> None:
        """Log inputs that fail or recover, and say what the node is doing."""
        now_ns = self._now()
        if self.pilot.enabled and self._loop is not None:
            self._wake_policy(now_ns)  # at low control rates ticks alone would be too seldom
        if now_ns - self._image_problem_ns > IMAGE_PROBLEM_NS:
            self._image_problem = ''  # nobody has tried to read an image since
        problem = self.inputs.problem(now_ns) or self._image_problem
        subject = ' '.join(problem.split()[:2]) if problem else ''
        if subject != self._input_problem and time.monotonic() > self._news_from:
            self._input_problem = subject
            if problem:
                self._log.warning(f'{problem}; holding')
            else:
                self._log.info('all inputs are fresh')
        self._board.show(*self._summary(problem), self._instruction)

    def _summary(self, problem: str | None) -> tuple[bytes, str, str]:
        """Return level, state and message of the status."""
        if self._fault:
            return status.ERROR, 'fault', self._fault
        if self._loop is None:
            return status.OK, 'inactive', 'activate the node to use it'
        if problem:
            return status.WARN, 'waiting', problem
        if not self.pilot.enabled:
            return status.OK, 'disarmed', f'call {self._own("enable")} to arm'
        state = 'moving' if self.pilot.speaking else 'holding'
        return (status.WARN if self._refused else status.OK, state,
                self._refused or self._instruction or 'waiting for an instruction')

    def _diagnose(self) -> None:
        others = self._node.count_publishers(self._command.topic) - 1
        if others > 0:
            self._log.warning(f"{others} other publisher(s) on '{self._command.topic}': two nodes "
                              'command one robot', throttle_duration_sec=5.0)
        self._board.diagnose(status.node_report(
            self._values, self._policy.describe(), self.pilot, self.inputs, self._loop,
            self._latency, self._fault, others, self._now()))

    def _now(self) -> int:
        return self._node.get_clock().now().nanoseconds

    def _own(self, name: str) -> str:
        return f'{self._node.get_fully_qualified_name()}/{name}'
