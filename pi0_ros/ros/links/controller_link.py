# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What can be known of the controller: its parameters, what it holds, how fast its time passes."""

from collections.abc import Iterator
import math

import numpy as np
from pi0_ros.control.config import USUAL_UPDATE_HZ
from pi0_ros.control.controllers import Controller, Controllers, Report, TRAJECTORY
from pi0_ros.motion.limits import JointLimits
from pi0_ros.observation.decoding import to_ns
from pi0_ros.observation.finding import Finding
from pi0_ros.ros.links import qos
from pi0_ros.ros.links.commands import CommandPublisher, Commands
from pi0_ros.ros.links.managers import ControllerManagers
from rcl_interfaces.msg import ParameterType, ParameterValue
from rcl_interfaces.srv import GetParameters
from rclpy.client import Client
from rclpy.node import Node
from rclpy.task import Future
from std_msgs.msg import Float64

try:  # it comes with ros2_control, and is not needed without a controller
    from control_msgs.msg import JointTrajectoryControllerState
except ImportError:
    JointTrajectoryControllerState = None

AUTO, NONE = 'auto', 'none'
SCALED, SCALING = 'scaled', '/speed_scaling'  # in the names of UR's controller and its topic
OPTIONS = ('interpolate_from_desired_state', 'open_loop_control')
PARAMETERS = (*OPTIONS, 'allow_trajectory_replacement', 'update_rate', 'joints',
              'command_interfaces', 'constraints.goal_time')
AGAIN_AFTER = 5  # rounds of ``ask``
SLOWEST_UPDATE = 1.0  # Hz


def sentences(name: str, known: dict[str, object], limits: JointLimits, joints: tuple[str, ...],
              told: bool) -> list[str]:
    """
    Return one sentence for each setting of controller ``name`` that does not fit.

    :param known: what it answered, by parameter. :param told: whether its state is heard.
    """
    out = []
    if known.get('allow_trajectory_replacement'):
        out.append('has allow_trajectory_replacement true: it begins every message when that '
                   'comes and not when it is due, and the arm saws. Set it to false: ros2 param '
                   f'set {name} allow_trajectory_replacement false')
    has = set(known.get('joints') or joints)
    if has != set(joints):
        out.append(f"has joints {', '.join(sorted(has))}, commanded are {', '.join(joints)}: it "
                   'refuses every message')
    options = [known[option] for option in OPTIONS if option in known]
    if options and not any(options) and not told:
        out.append('has interpolate_from_desired_state false and its state is not heard (install '
                   'control_msgs): it begins every motion at the measured joints, and an arm that '
                   'sags drops. Set it to true (before ros2_controllers 4.22: open_loop_control)')
    loops = {'velocity', 'effort'} & set(known.get('command_interfaces') or ())
    if known.get('open_loop_control') and loops:
        out.append(f'has open_loop_control true, which turns its feedback off for {loops.pop()} '
                   'commands. Set it to false')
    for joint, tracking in zip(joints, limits.tracking):
        path = known.get(f'constraints.{joint}.trajectory') or math.inf
        if path < tracking < math.inf:
            out.append(f"gives up where joint '{joint}' is {path:g} from its path, before this "
                       f'node does ({tracking:g}), and then holds where it is measured. Raise '
                       f'constraints.{joint}.trajectory')
            break
    goals = [known.get(f'constraints.{joint}.goal') or 0.0 for joint in joints]
    if known.get('constraints.goal_time') and any(goals):
        out.append(f"has constraints.goal_time {known['constraints.goal_time']:g}: after that it "
                   'holds where the joints are measured, and a gripper loses what it grips. Set '
                   'it to 0')
    return [f"controller '{name}' {text}" for text in out]


class ControllerLink:
    """Asks each node that follows the commands, and listens to it."""

    def __init__(self, node: Node, command: CommandPublisher, controller: Controller,
                 scaling: str) -> None:
        """
        Prepare; ``ask`` asks.

        :param controller: that hears what is told. :param scaling: topic of the speed scaling in
            per cent, ``auto`` to look for one, ``none``.
        """
        self._node, self._command, self._controller = node, command, controller
        self._scaling = scaling
        self._asked = (*PARAMETERS, *(f'constraints.{joint}.{what}'
                                      for joint in controller.group.own
                                      for what in ('trajectory', 'goal')))
        self._clients: dict[str, Client] = {}
        self._answers: dict[str, dict[str, object]] = {}
        self._states: dict[str, object] = {}
        self._scaled: tuple[str, object] | None = None
        self._rounds = 0
        self._told: list[str] = []

    def warnings(self, limits: JointLimits) -> list[str]:
        """Return what is wrong with the controllers' settings, one sentence each."""
        return [text for name, known in self._answers.items()
                for text in sentences(name, known, limits, self._controller.group.own,
                                      self._controller.newest is not None)]

    def refusal(self) -> str | None:
        """
        Return why no robot may be moved through these controllers, or None.

        One that replaces trajectories commands up to 14 times the plan's velocity
        (docs/controller.md); there is no form of message that it plays as it is meant.
        """
        found = [name for name, known in self._answers.items()
                 if known.get('allow_trajectory_replacement')]
        return (f"controller '{found[0]}' has allow_trajectory_replacement true, with which it "
                f'saws: ros2 param set {found[0]} allow_trajectory_replacement false') if found \
            else None

    @property
    def update_rate(self) -> float | None:
        """Return the slowest update rate of the controllers, Hz; None while it is not known."""
        rates = [float(known['update_rate']) for known in self._answers.values()
                 if known.get('update_rate')]
        return max(SLOWEST_UPDATE, min(rates)) if rates else None

    def ask(self, limits: JointLimits) -> None:
        """Ask whoever is there, every few rounds again, and listen to it; return at once."""
        followers = self._command.followers()
        for name in set(self._clients) - set(followers):
            self._node.destroy_client(self._clients.pop(name))
            self._answers.pop(name, None)
            state = self._states.pop(name, None)
            if state is not None:
                self._node.destroy_subscription(state)
                self._controller.forget()
        for name in followers:
            self._listen(name)
            client = self._clients[name]
            due = name not in self._answers or self._rounds % AGAIN_AFTER == 0
            if due and client.service_is_ready():
                self._answers.setdefault(name, {})
                for parameter in self._asked:  # one by one: an unknown one spoils the others
                    client.call_async(GetParameters.Request(names=[parameter])).add_done_callback(
                        lambda done, name=name, parameter=parameter:
                        self._answered(name, parameter, done))
        self._rounds += 1
        self._find_scaling()
        warnings = self.warnings(limits)
        for text in warnings:
            if text not in self._told:
                self._node.get_logger().warning(text)
        self._told = warnings

    def _listen(self, name: str) -> None:
        if name in self._clients:
            return
        self._clients[name] = self._node.create_client(GetParameters, f'{name}/get_parameters')
        if JointTrajectoryControllerState is not None:
            self._states[name] = self._node.create_subscription(
                JointTrajectoryControllerState, f'{name}/controller_state', self.on_state,
                qos.STATE, event_callbacks=qos.HEARD)

    def on_state(self, message: object) -> None:
        """Take a JointTrajectoryControllerState; Humble calls the reference ``desired``."""
        received_ns = self._node.get_clock().now().nanoseconds
        point = getattr(message, 'reference', None)
        if point is None or not len(point.positions):
            point = getattr(message, 'desired', None)
        names = tuple(self._controller.group.prefix + name for name in message.joint_names)
        if point is None or len(point.positions) != len(names):
            return
        places = dict(zip(names, point.positions))
        mine = self._controller.joint_names
        reference = np.array([places.get(joint, np.nan) for joint in mine])
        if set(mine) == set(names) and not np.isfinite(reference).all():
            return
        self._controller.hear(Report(to_ns(message.header.stamp), received_ns, names, reference,
                                     float(getattr(message, 'speed_scaling_factor', 1.0))))

    def _find_scaling(self) -> None:
        if self._scaled is not None or self._scaling == NONE:
            return
        topic = self._scaling
        if topic == AUTO:
            scaled = [name for name in self._clients if SCALED in name]
            if not scaled:
                return  # what it says it does by ~/controller_state counts
            found = [name for name, kinds in self._node.get_topic_names_and_types()
                     if name.endswith(SCALING) and 'std_msgs/msg/Float64' in kinds]
            beside = scaled[0].rpartition('/')[0]  # of two robots, each has a namespace
            found = [name for name in found if name.startswith(f'{beside}/')] or found
            if len(found) > 1:
                self._node.get_logger().warning(
                    f"{', '.join(found)} tell a speed scaling: name one in parameter "
                    "'speed_scaling'", once=True)
            if len(found) != 1:
                return
            topic = found[0]
        self._scaled = topic, self._node.create_subscription(
            Float64, topic, self._on_scaling, qos.STATE, event_callbacks=qos.HEARD)
        self._node.get_logger().info(f"the controller's time passes as '{topic}' says, per cent")

    def _on_scaling(self, message: Float64) -> None:
        self._controller.hear_scaling(message.data / 100,
                                      self._node.get_clock().now().nanoseconds)

    def _answered(self, name: str, parameter: str, done: Future) -> None:
        values = done.result().values if done.exception() is None and done.result() else []
        if name in self._answers and values and values[0].type != (
                ParameterType.PARAMETER_NOT_SET):
            self._answers[name][parameter] = _value(values[0])

    def close(self) -> None:
        """Take clients and subscriptions back."""
        for client in self._clients.values():
            self._node.destroy_client(client)
        states = list(self._states.values()) + ([self._scaled[1]] if self._scaled else [])
        for subscription in states:
            self._node.destroy_subscription(subscription)
        self._clients, self._states, self._scaled = {}, {}, None


class ControllerLinks:
    """The links to all controllers that take trajectories; the others have nothing to tell."""

    def __init__(self, node: Node, commands: Commands, controllers: Controllers, scaling: str
                 ) -> None:
        """Prepare; see ControllerLink."""
        self._each = [(ControllerLink(node, command, controller, scaling), its)
                      for command, (controller, its) in zip(commands, controllers)
                      if command.group.interface == TRAJECTORY]
        self._managers = ControllerManagers(node, commands)
        self._rate: float | None = None

    def __iter__(self) -> Iterator[ControllerLink]:
        """Return the links."""
        return iter(link for link, _ in self._each)

    def ask(self, limits: JointLimits) -> None:
        """Ask all of them; return at once."""
        for link, its in self._each:
            link.ask(limits.of(its))
        self._managers.ask()

    def warnings(self, limits: JointLimits) -> list[str]:
        """Return what is wrong with the controllers' settings, one sentence each."""
        return [text for link, its in self._each for text in link.warnings(limits.of(its))]

    def refusal(self) -> Finding | str | None:
        """Return why no robot may be moved through these controllers, or None."""
        return next(filter(None, (link.refusal() for link in self)), None) or self.inactive()

    def inactive(self) -> Finding | None:
        """Return which controller is not active, as its manager tells, or None."""
        return self._managers.problem()

    @property
    def update_rate(self) -> float | None:
        """Return the slowest update rate, Hz, None while none is known; unknown ones are usual."""
        rates = [link.update_rate for link in self]
        return min(rate or USUAL_UPDATE_HZ for rate in rates) if any(rates) else None

    def has_another_rate(self) -> bool:
        """Return whether the update rate is another than when this was asked last."""
        before, self._rate = self._rate, self.update_rate
        return before != self._rate

    def close(self) -> None:
        """Take clients and subscriptions back."""
        for link in self:
            link.close()
        self._managers.close()


def _value(value: ParameterValue) -> object:
    """Return the content of a parameter."""
    return {ParameterType.PARAMETER_BOOL: value.bool_value,
            ParameterType.PARAMETER_INTEGER: value.integer_value,
            ParameterType.PARAMETER_DOUBLE: value.double_value,
            ParameterType.PARAMETER_STRING_ARRAY: list(value.string_array_value),
            }.get(value.type)
