# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What a person tells a node from a terminal: every key is a topic or a service of it."""

from collections.abc import Callable, Sequence
from pathlib import Path
import time

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from pi0_ros.control.leading import TAKEOVER
from pi0_ros.dataset.outcome import add_to_table, Outcome, TOPIC
from pi0_ros.ros.links import qos
from pi0_ros.ros.operate.screen import Part, Seen
from rclpy.node import Node
from rclpy.task import Future
from std_msgs.msg import Bool, String
from std_srvs.srv import SetBool, Trigger

FIRST_S = 0.7        # that a pressed key counts: terminals repeat it after that at the latest
AGAIN_S = 0.25       # that every repetition counts
SWITCH_S = 0.05      # between two messages of the dead man's switch
GIVEN_BACK = 3       # messages: the topic is best effort
LOOK_S = 1.0         # between two looks at who is there
UNUSED_S = 2.0       # after which the switch is taken off the network
JUDGED_S = 1.5       # in which a verdict comes back, if it ended an episode
OWN_EARS = 1         # on the stop: this screen shows what anybody presses


class Desk:
    """
    Watches one node and speaks to it.

    All callbacks run where ``node`` is spun. Times are of the steady clock.
    """

    def __init__(self, node: Node, name: str, instruction: str, prompts: Sequence[str],
                 table: Path | None) -> None:
        """
        Listen to the node ``name``, such as /pi0.

        :param instruction: topic that it hears instructions on.
        :param table: JSON file that what became of episodes is added to.
        """
        self._node, self._name, self._table = node, name, table
        self.seen = Seen(name, prompts, table.name if table else '')
        self._held_s, self._told_s, self._back, self._looked_s = 0.0, 0.0, 0, 0.0
        self._used_s = 0.0
        self._instructions = node.create_publisher(String, instruction, qos.INSTRUCTION)
        self._episodes = node.create_publisher(String, f'{name}/episode', qos.INSTRUCTION)
        self._stops = node.create_publisher(Bool, f'{name}/stop', qos.INSTRUCTION)
        self._switch = None  # only while it is used: two switches hold the robot
        self._judged_s: float | None = None
        self._enable = node.create_client(SetBool, f'{name}/enable')
        self._reset = node.create_client(Trigger, f'{name}/reset')
        node.create_subscription(DiagnosticStatus, f'{name}/status', self._on_status, qos.LATCHED)
        node.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)
        node.create_subscription(String, f'{name}/active_instruction', self._on_instruction,
                                 qos.LATCHED)
        node.create_subscription(String, f'{name}/{TOPIC}', self._on_result, qos.RECORD)
        node.create_subscription(Bool, f'{name}/stop', self._on_stop, qos.INSTRUCTION)

    # ---- what a person does ----

    def arm(self, on: bool) -> None:
        """Arm, or disarm."""
        self._ask(self._enable, SetBool.Request(data=on), 'arm' if on else 'disarm')

    def stop(self) -> None:
        """Press the stop."""
        self._stops.publish(Bool(data=True))
        heard = self._stops.get_subscription_count() > OWN_EARS
        self.say(1 if heard else 2, 'STOP' if heard else f'STOP: NOBODY HEARS {self._name}/stop: '
                 'use the emergency stop')

    @property
    def stopped(self) -> bool:
        """Return whether the node says that the stop stopped it."""
        return bool(self.seen.status and self.seen.status.values.get('reason') == 'operator_stop')

    def reset(self) -> None:
        """Release the stop; then clear the fault."""
        self._stops.publish(Bool(data=False))
        self._ask(self._reset, Trigger.Request(), 'reset')

    def judge(self, word: str, now_s: float, note: str = '') -> None:
        """End the episode with a word, and a note."""
        self._episodes.publish(String(data=f'{word}: {note}' if note else word))
        heard = self._episodes.get_subscription_count()
        self._judged_s = now_s if heard else None
        self.say(0 if heard else 2, f'{word} {note}'.strip() + (
            '' if heard else f': nobody hears {self._name}/episode'))

    def instruct(self, text: str) -> None:
        """Say an instruction, '' to hold."""
        heard = self._instructions.get_subscription_count()
        self._instructions.publish(String(data=text))
        self.say(0 if heard else 2, (f"say '{text}'" if text else 'hold') + (
            '' if heard else f': nobody hears {self._instructions.topic_name}'))

    def choose(self, number: int) -> None:
        """Say the instruction of that number, from 0, if there is one."""
        if 0 <= number < len(self.seen.prompts):
            self.seen.chosen = number
            self.instruct(self.seen.prompts[number])
        else:
            self.say(1, f'there is no instruction {number + 1}: give them as arguments')

    def choose_next(self) -> None:
        """Say the instruction after the last, the first after all."""
        self.choose((self.seen.chosen + 1) % max(len(self.seen.prompts), 1))

    def hold_takeover(self, now_s: float) -> None:
        """Take over as long as this is called again soon."""
        if self._switch is None:
            self._switch = self._node.create_publisher(
                Bool, f'{self._name}/takeover_enable', qos.NEWEST)
        others = self._node.count_publishers(f'{self._name}/takeover_enable') - 1
        if others > 0 and not self.seen.held:
            self.say(2, 'another switch publishes on takeover_enable: with two of them nobody '
                     'leads')
        self._held_s = max(self._held_s, now_s + (AGAIN_S if self.seen.held else FIRST_S))
        self._used_s, self._back = now_s, 0

    def give_back(self) -> None:
        """Let the policy go on."""
        if self._switch is None:
            self.say(1, 'give back: nobody took over here')
            return
        self._held_s, self._back = 0.0, GIVEN_BACK
        self.say(0, 'give back')

    def say(self, level: int, text: str) -> None:
        """Add a line to what was answered."""
        self.seen.answers.append((time.strftime('%H:%M:%S'), level, text))

    def work(self, now_s: float) -> None:
        """Keep the switch pressed, and look who is there; call it often."""
        self.seen.held = now_s < self._held_s
        if self._judged_s is not None and now_s - self._judged_s > JUDGED_S:
            self._judged_s = None
            self.say(1, 'no episode ended: one begins with an instruction while it is armed')
        led = self.seen.status is not None and self.seen.status.values.get('state') == TAKEOVER
        if self._switch and not (self.seen.held or self._back or led) and (
                now_s - self._used_s > UNUSED_S):
            self._node.destroy_publisher(self._switch)
            self._switch = None
        if self._switch and (self.seen.held or self._back) and now_s - self._told_s >= SWITCH_S:
            self._told_s, self._back = now_s, max(self._back - 1, 0)
            self._switch.publish(Bool(data=self.seen.held))
        if now_s - self._looked_s > LOOK_S:
            self._looked_s, self.seen.absent = now_s, self._absent()

    @property
    def armed(self) -> bool:
        """Return whether the node said so."""
        return bool(self.seen.status and self.seen.status.values.get('armed') == 'True')

    # ---- what the node says ----

    def _absent(self) -> str:
        """Return what may be wrong where the node is not heard, '' where it is there."""
        if self._enable.service_is_ready():
            return ''
        services = dict(self._node.get_service_names_and_types())
        others = sorted(name.removesuffix('/outcome') for name in services
                        if name.endswith('/outcome') and f"{name.removesuffix('/outcome')}/enable"
                        in services)
        return f"There is {', '.join(others)}: --node {others[0]}" if others else (
            'Is it started, with the same ROS_DOMAIN_ID and discovery range?')

    def _ask(self, client: object, request: object, what: str) -> None:
        if not client.service_is_ready():
            self.say(2, f'{what}: nobody offers {client.srv_name}')
            return
        self.say(0, f'{what} ...')
        client.call_async(request).add_done_callback(self._answered(what))

    def _answered(self, what: str) -> Callable[[Future], None]:
        def told(done: Future) -> None:
            if done.exception() is not None:
                self.say(2, f'{what}: {done.exception()}')
            elif done.result() is not None:
                answer = done.result()
                self.say(0 if answer.success else 2, f'{what}: {answer.message}')
        return told

    def _on_status(self, message: DiagnosticStatus) -> None:
        self.seen.status = _part(message)
        if self.armed:  # whoever pressed it: that node did not hear it, or is another by now
            self.seen.stop = False

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        prefix = self._name.lstrip('/') + ': '
        for one in message.status:
            if one.name.startswith(prefix):
                self.seen.parts[one.name.removeprefix(prefix)] = _part(one)
                self.seen.heard_s = time.monotonic()

    def _on_instruction(self, message: String) -> None:
        self.seen.instructed_s = time.monotonic()

    def _on_stop(self, message: Bool) -> None:
        self.seen.stop = message.data

    def _on_result(self, message: String) -> None:
        try:
            one = Outcome.from_json(message.data)
        except ValueError as error:
            self.say(2, str(error))
            return
        self.seen.outcomes.append(one)
        self._judged_s = None
        self.say(0, f"episode '{one.instruction}' of {one.duration_s:.1f} s: {one.outcome}")
        if self._table:
            try:
                add_to_table(self._table, one)
            except (OSError, ValueError) as error:
                self.say(2, f'{error}: this outcome is only on the topic')


def _part(message: DiagnosticStatus) -> Part:
    return Part(message.level[0], message.message,
                {pair.key: pair.value for pair in message.values})
