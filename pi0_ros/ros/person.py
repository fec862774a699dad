# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What a person tells the node: the instruction, to arm, to stop and to go on after a fault."""

from dataclasses import replace
import fnmatch

from pi0_ros.configuration.advice import advised
from pi0_ros.control.states import State
from pi0_ros.dataset import outcome
from pi0_ros.dataset.outcome import Outcome
from pi0_ros.observation.finding import Finding
from pi0_ros.ros.asked import Asked, Preview
from pi0_ros.ros.links import qos
from pi0_ros.ros.links.descriptions import publishers
from pi0_ros.ros.links.run_server import RunServer, Situation
from pi0_ros.ros.session import Session
from pi0_ros.ros.status import situation
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode
from std_msgs.msg import Bool, String
from std_srvs.srv import SetBool, Trigger

MAX_INSTRUCTION = 1000  # characters
NOT_ARMED = Finding('not_armed', 'not armed', 'operator')
AUTO_PERIOD_S = 0.5     # between two attempts to arm a dry run
EPISODE_PERIOD_S = 0.1  # in which it is noticed that the robot was disarmed or armed


class Operator:
    """
    Topics and services of the operator, as long as the node lives.

    All callbacks run on the executor's thread. A session is there while the node is configured.
    """

    def __init__(self, node: LifecycleNode) -> None:
        """Create them on ``node``."""
        self._node, self._log = node, node.get_logger()
        self._session: Session | None = None
        self.asked = Asked()
        self._disarmed = False  # by a person
        self._description: str | None = None
        self._preview: Preview | None = None
        self._told = ''  # where the tools would go first
        self._episode: Outcome | None = None  # that nobody has judged yet; end_ns -1: it goes on
        self._armings = 0  # when that began; its takeovers are counted from there until it ends
        self._active, self._results = (
            node.create_publisher(String, f'~/{name}', profile, event_callbacks=qos.SAID)
            for name, profile in (('active_instruction', qos.LATCHED),
                                  (outcome.TOPIC, qos.RECORD)))
        node.create_subscription(String, 'instruction', self._on_instruction, qos.INSTRUCTION)
        node.create_subscription(String, '~/episode', self._on_episode, qos.INSTRUCTION)
        node.create_subscription(String, 'robot_description', self._on_description, qos.LATCHED)
        for profile in (qos.STOP, qos.INSTRUCTION):  # best effort hears all, reliable loses none
            node.create_subscription(Bool, '~/stop', self._on_stop, profile)
        # Arming waits for an inference; whatever else comes goes on meanwhile, disarming too.
        node.create_service(SetBool, '~/enable', self._on_enable,
                            callback_group=ReentrantCallbackGroup())
        node.create_service(Trigger, '~/reset', self._on_reset)
        node.create_service(SetBool, '~/outcome', self._on_outcome)
        self._runs = RunServer(node, self.asked, self._refusal, self._instruct, self._situation)
        node.create_timer(AUTO_PERIOD_S, self._auto, callback_group=ReentrantCallbackGroup(),
                          clock=Clock(clock_type=ClockType.STEADY_TIME))
        node.create_timer(EPISODE_PERIOD_S, self._follow_episode,
                          clock=Clock(clock_type=ClockType.STEADY_TIME))

    def attach(self, session: Session) -> None:
        """Speak to ``session`` from now on."""
        self._session = session
        self._take_limits()
        if self.asked.stop:
            session.guard.press_stop(True)

    def detach(self) -> None:
        """Speak to nobody: an instruction does not outlive what it was given to."""
        self._session = self._episode = None
        self._runs.close()
        self.asked.instruction = self.asked.refused = ''
        self._active.publish(String(data=''))

    @property
    def telling(self) -> bool:
        """Return whether a run has ended, or ends, and its client has not heard so yet."""
        return bool(self._runs.telling)

    def _situation(self) -> Situation | None:
        return situation(self._session, self.asked) if self._session else None

    def own(self, name: str) -> str:
        """Return the full name of a topic or service of this node."""
        return f'{self._node.get_fully_qualified_name()}/{name}'

    def _on_instruction(self, message: String) -> None:
        self._instruct(message.data)

    def _instruct(self, said: str, anew: bool = False) -> None:
        """
        Follow an instruction, '' to hold; what is refused is told, and holds.

        :param anew: whether an episode begins with it, even if it is the same.
        """
        session, text = self._session, said.strip()
        if session is None:
            self._log.warning('the instruction is dropped: the node is not configured')
            return
        self.asked.number += 1
        refused = self._refusal(text) or ''
        if refused and refused != self.asked.refused:
            self._log.warning(f'{refused}; holding')
        elif text != self.asked.instruction and not refused:
            self._log.info(f"instruction: '{text}'" if text else 'empty instruction: holding')
        self.asked.refused, before = refused, self.asked.instruction
        self.asked.instruction = text = '' if refused else text
        self._follow_episode(anew)
        if not text:
            session.guard.hold('refused' if refused else 'no_instruction')
            session.urgent()
        elif text != before:
            session.pilot.want_chunk()
        self._active.publish(String(data=text))

    def _follow_episode(self, anew: bool = False) -> None:
        """Begin an episode when an armed robot is instructed; end it when it holds, or disarms."""
        session, episode = self._session, self._episode
        if session is None:
            return
        text, now_ns = self.asked.instruction if session.pilot.enabled else '', session.now()
        goes_on = episode is not None and episode.end_ns < 0
        if text and (anew or not goes_on or episode.instruction != text
                     or self._armings != session.armings):
            self._armings, leading = session.armings, session.leading
            self._episode = Outcome(text, '', '', now_ns, -1, leading.count - leading.engaged,
                                    session.fingerprint)
        elif goes_on and not text:
            self._episode = replace(episode, end_ns=now_ns,
                                    takeovers=session.leading.count - episode.takeovers)

    def _judge(self, word: str, note: str = '') -> str:
        """End the episode, and the run that it is; return what came of it, '' without one."""
        self._follow_episode()
        begun, session = self._episode, self._session
        ran = self._runs.judge({outcome.SUCCESS: True, outcome.FAILURE: False}.get(word))
        if session is None:
            return ''
        if self.asked.instruction and (ran or begun):
            self._instruct('')  # which ends it
        episode, self._episode = self._episode, None
        if episode is None:
            return 'the run has ended' if ran else ''
        done = replace(episode, outcome=word, note=note)
        self._results.publish(String(data=done.to_json()))
        told = (f"episode '{done.instruction}' of {done.duration_s:.1f} s: {word}"
                + (f' ({note})' if note else ''))
        self._log.info(told)
        return told

    def _on_episode(self, message: String) -> None:
        try:
            word, note = outcome.parse(message.data)
        except ValueError as error:
            self._log.warning(f"{self.own('episode')}: {error}")
            return
        if not self._judge(word, note):
            self._log.warning(f"{self.own('episode')}: no episode to end: it begins with an "
                              'instruction')

    def _on_outcome(self, request: SetBool.Request, response: SetBool.Response
                    ) -> SetBool.Response:
        told = self._judge(outcome.SUCCESS if request.data else outcome.FAILURE)
        response.success = bool(told)
        response.message = told or 'no episode to end: it begins with an instruction, or a run'
        return response

    def _refusal(self, text: str) -> str | None:
        if len(text) > MAX_INSTRUCTION:
            return (f'instruction of {len(text)} characters is refused, at most '
                    f'{MAX_INSTRUCTION} are accepted')
        if not text.replace('\n', ' ').isprintable():
            return f'instruction {text!r} is refused: it has characters that are no text'
        patterns = self._session.config.inputs.known_instructions
        if text and patterns and not any(fnmatch.fnmatchcase(text.lower(), pattern.lower())
                                         for pattern in patterns):
            return (f"unknown instruction '{text}', expected one that fits "
                    f"{', '.join(patterns)} (parameter 'known_instructions')")
        return None

    def _on_description(self, message: String) -> None:
        self._description = message.data
        if self._session and self._session.pilot.enabled:
            self._log.warning('another robot_description: its limits count when the robot is '
                              'armed the next time')
        else:
            self._take_limits()

    def _take_limits(self) -> None:
        """Use the newest robot description."""
        session, text = self._session, self._description
        if session is None or text is None:
            return
        if not session.limits.describe(text):
            if text != session.limits.text:
                names, _ = publishers(self._node, 'robot_description')
                self._log.warning("that robot_description is not this robot's; on the topic "
                                  f"publish {', '.join(names)}: remap the other")
                self._description = session.limits.text
            return
        if session.limits.problem:
            self._log.error(advised(session.limits.problem))
        session.pilot.take_limits(session.limits.now)

    async def _on_enable(self, request: SetBool.Request, response: SetBool.Response
                         ) -> SetBool.Response:
        self._disarmed = not request.data
        if not request.data:
            response.success, response.message = True, self._disarm()
        elif self._preview is not None:
            response.message = 'arming is under way already'
        else:
            refusal = await self._arm()
            session = self._session
            response.success = refusal is None
            response.message = advised(refusal) if refusal else self._armed(session)
        return response

    def _disarm(self) -> str:
        finding = Finding('operator', 'disarmed by the operator', 'operator')
        if self._preview:
            self._preview.answer(finding)
        if self._session:
            self._session.guard.disarm(finding)
            self._session.urgent()
        self._log.info('disarmed')
        return 'disarmed'

    def _armed(self, session: Session) -> str:
        problem = session.inputs.problem(session.now())
        text = (f'armed, but waiting: {advised(problem)}' if problem else
                'armed' if self.asked.instruction else 'armed, waiting for an instruction')
        followers = [] if session.config.safety.dry_run else session.commands.followers()
        verb = 'follows' if len(followers) == 1 else 'follow'
        text = f"{text}; {', '.join(followers)} {verb}" if followers else text
        return f'{text}; {self._told}' if self._told else text

    async def _auto(self) -> None:
        """Arm a dry run that is to arm itself; what a person said goes before that."""
        session = self._session
        if (session is None or not (session.config.safety.auto_enable and session.active)
                or session.pilot.enabled or self._preview is not None or not self.asked.instruction
                or self._disarmed or self.asked.stop):
            return
        fault = session.guard.fault
        if fault and (fault.reason == 'operator_stop'
                      or session.guard.reset(session.steady(), fault) is not None):
            return
        if fault:
            self._log.warning(f'dry run: going on after {advised(fault)}')
        await self._arm(quiet=True)

    async def _arm(self, quiet: bool = False) -> Finding | str | None:
        """
        Arm; return why not, or None. An armed robot stays armed.

        :param quiet: whether a refusal is no news.
        """
        session = self._session
        if session and session.pilot.enabled and not session.guard.fault:
            return None
        self._take_limits()
        refusal = self._why_not()
        if not refusal:
            session.ask_controller()
            try:
                session.guard.begin_arming(session.steady())
            except RuntimeError as error:  # something was latched just now
                refusal = session.guard.fault or str(error)
            else:
                refusal = await self._look_ahead(session) or session.arm()
        if session and session.pilot.state is State.ARMING:
            session.guard.disarm(NOT_ARMED)
        if refusal and not quiet:
            self._log.warning(f'not armed: {advised(refusal)}')
        elif not refusal:
            self._log.info(self._armed(session))
        return refusal

    async def _look_ahead(self, session: Session) -> Finding | str | None:
        """Return why the robot must not be armed for what comes first, or None."""
        refusal, looked_at = None, None
        while not refusal and self.asked.instruction != looked_at:
            looked_at = self.asked.instruction
            self._preview = session.look_ahead.ask(looked_at)
            refusal = await self._preview.future
            self._told, self._preview = self._preview.told, None
            if not refusal and session.pilot.state is not State.ARMING:
                refusal = session.guard.fault or session.guard.stopped_by or NOT_ARMED
            refusal = refusal or self._why_not()
        return refusal

    def _why_not(self) -> Finding | str | None:
        """Return why the robot cannot be armed now, or None."""
        session = self._session
        if session is None or not session.active:
            return 'the node is not active: activate it first'
        guard = session.guard
        if guard.fault:
            return (f'fault: {advised(guard.fault)}; remove its cause and call '
                    f'{self.own("reset")}')
        if session.loading or not session.policy.loaded:
            if session.unserved:
                return session.unserved
            session.wake_to_load()
            return 'the policy is being loaded again: try again when the status says so'
        missing = session.commands.missing()
        if missing:
            return missing
        for who, topic in session.commands.others():
            return f"{who} also publishes on '{topic}': stop it first"
        refusal = session.link.refusal() or guard.why_not(
            session.now(), session.problem()) or session.tools()
        if getattr(refusal, 'reason', '') == 'limits_unknown' and self._description is None:
            _, unheard = publishers(self._node, 'robot_description')
            if unheard:
                return (f"{advised(refusal)}. {', '.join(unheard)} publishes robot_description "
                        'with durability volatile, which cannot be heard: transient_local is '
                        'expected, as robot_state_publisher has it')
        return refusal

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response
                  ) -> Trigger.Response:
        session = self._session
        if session is None:
            response.message = 'the node is not configured'
            return response
        was = session.guard.fault
        refusal = session.guard.reset(session.steady(), was) if was else None
        session.wake_to_load()
        response.success = refusal is None
        response.message = (f'not cleared: {advised(refusal)}' if refusal else
                            f'cleared: {was}' if was else 'there was no fault')
        self._log.info(response.message)
        return response

    def _on_stop(self, message: Bool) -> None:
        if message.data != self.asked.stop:
            self._log.warning('stopped by the operator' if message.data else
                              f'the stop is released; go on with {self.own("reset")}')
        news, self.asked.stop = message.data != self.asked.stop, message.data
        if self._session and (news or message.data):
            self._session.guard.press_stop(message.data)
            if news and message.data:
                self._session.urgent()
