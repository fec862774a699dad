"""What a person tells the node: the instruction, to arm, to stop and to go on after a fault."""

import fnmatch
from typing import TYPE_CHECKING

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from std_msgs.msg import Bool, String
from std_srvs.srv import SetBool, Trigger

from pi0_ros.control.limits import make_limits
from pi0_ros.observation.finding import Finding
from pi0_ros.ros import qos

if TYPE_CHECKING:
    from pi0_ros.ros.session import Session

MAX_INSTRUCTION = 1000  # characters


class Operator:
    """Topics and services of the operator. All callbacks run on the executor's thread."""

    def __init__(self, session: 'Session') -> None:
        """Create them on the session's node."""
        node = session.node
        self._session, self._guard, self._log = session, session.guard, node.get_logger()
        self.instruction = self.refused = ''
        self._description: str | None = None  # that waits until the robot is disarmed
        self._active = node.create_publisher(String, '~/active_instruction', qos.LATCHED)
        self._subscriptions = [
            node.create_subscription(String, 'instruction', self._on_instruction,
                                     qos.INSTRUCTION),
            node.create_subscription(String, 'robot_description', self._on_description,
                                     qos.LATCHED),
            node.create_subscription(Bool, '~/stop', self._on_stop, qos.INSTRUCTION)]
        # Arming waits for an inference; whatever else comes goes on meanwhile.
        self._services = [
            node.create_service(SetBool, '~/enable', self._on_enable,
                                callback_group=MutuallyExclusiveCallbackGroup()),
            node.create_service(Trigger, '~/reset', self._on_reset)]

    def close(self) -> None:
        """Take them back."""
        node = self._session.node
        for subscription in self._subscriptions:
            node.destroy_subscription(subscription)
        for service in self._services:
            node.destroy_service(service)
        node.destroy_publisher(self._active)

    def own(self, name: str) -> str:
        """Return the full name of a topic or service of this node."""
        return f'{self._session.node.get_fully_qualified_name()}/{name}'

    def _on_instruction(self, message: String) -> None:
        session, text = self._session, message.data.strip()
        self.refused = self._refusal(text) or ''
        if self.refused:
            self._log.warning(f'{self.refused}; holding')
            text = ''
        elif text != self.instruction:
            self._log.info(f"instruction: '{text}'" if text else 'empty instruction: holding')
        self.instruction = text
        if text:
            session.pilot.want_chunk(session.now())
        else:
            session.pilot.stop(session.now())
        self._active.publish(String(data=text))

    def _refusal(self, text: str) -> str | None:
        if len(text) > MAX_INSTRUCTION:
            return (f'instruction of {len(text)} characters is refused, at most '
                    f'{MAX_INSTRUCTION} are accepted')
        if not text.replace('\n', ' ').isprintable():
            return f'instruction {text!r} is refused: it has characters that are no text'
        patterns = self._session.values.known_instructions
        if text and patterns and not any(fnmatch.fnmatchcase(text.lower(), pattern.lower())
                                         for pattern in patterns):
            return (f"unknown instruction '{text}', expected one that fits "
                    f"{', '.join(patterns)} (parameter 'known_instructions')")
        return None

    def _on_description(self, message: String) -> None:
        if self._session.pilot.enabled:
            self._log.warning('another robot_description: its limits count when the robot is '
                              'armed the next time')
        self._description = message.data
        if not self._session.pilot.enabled:
            self.take_limits()

    def take_limits(self) -> None:
        """Use the newest robot description."""
        values, text, self._description = self._session.values, self._description, None
        if text is None:
            return
        try:
            self._session.pilot.limits = make_limits(values.joint_names, values.limit_rules, text)
        except ValueError as error:
            self._session.pilot.limits = make_limits(values.joint_names, values.limit_rules)
            self._log.error(str(error))

    async def _on_enable(self, request: SetBool.Request, response: SetBool.Response
                         ) -> SetBool.Response:
        session = self._session
        if not request.data:
            self._guard.disarm(Finding('operator', 'disarmed by the operator'), session.now())
            response.success, response.message = True, 'disarmed'
            self._log.info('disarmed')
            return response
        if not session.pilot.enabled:
            self.take_limits()
        refusal = self._why_not()
        if not refusal and not session.pilot.enabled:
            refusal = await session.preview(self.instruction) or self._why_not()
        if refusal:
            response.success, response.message = False, str(refusal)
            self._log.warning(f'not armed: {refusal}')
            return response
        self._guard.arm(session.now())
        response.success = True
        response.message = 'armed' if self.instruction else 'armed, waiting for an instruction'
        self._log.info(response.message)
        return response

    def _why_not(self) -> Finding | str | None:
        """Return why the robot cannot be armed now, or None."""
        session = self._session
        if not session.active:
            return 'the node is not active: activate it first'
        if self._guard.fault:
            return (f'fault: {self._guard.fault}; remove its cause and call '
                    f'{self.own("reset")}')
        if not session.command.followed():
            return (f"no controller subscribes to '{session.command.topic}': start it, or remap "
                    'the topic')
        others = session.command.others()
        if others:
            return f"'{session.command.topic}' has {others} other publisher(s): stop them first"
        now_ns = session.now()
        return self._guard.why_not(now_ns, session.inputs.problem(now_ns))

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response
                  ) -> Trigger.Response:
        was = self._guard.fault
        refusal = self._guard.reset(self._session.steady())
        response.success = refusal is None
        response.message = (f'not cleared: {refusal}' if refusal else
                            f'cleared: {was}' if was else 'there was no fault')
        self._log.info(response.message)
        return response

    def _on_stop(self, message: Bool) -> None:
        if message.data != self._guard.stop_pressed:
            self._log.warning('stopped by the operator' if message.data else
                              f'the stop is released; go on with {self.own("reset")}')
        self._guard.press_stop(message.data, self._session.now())
