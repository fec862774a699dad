"""Asks the controller whether it goes on from where it was told to be."""

from rcl_interfaces.msg import ParameterType
from rcl_interfaces.srv import GetParameters
from rclpy.client import Client
from rclpy.node import Node
from rclpy.task import Future

from pi0_ros.ros.commands import CommandPublisher

# Of joint_trajectory_controller: since ros2_controllers 4.22, and before.
PARAMETERS = ('interpolate_from_desired_state', 'open_loop_control')


class ControllerCheck:
    """Asks each node that subscribes to the commands once; ``warning`` is what to tell."""

    def __init__(self, node: Node, command: CommandPublisher) -> None:
        """Prepare; ``ask`` asks."""
        self._node, self._command = node, command
        self._clients: dict[str, Client] = {}
        self._answers: dict[str, dict[str, bool]] = {}
        self.warning = ''

    def ask(self) -> None:
        """Ask whoever has come since the last time; return at once."""
        if self._command.plain:
            return
        for info in self._node.get_subscriptions_info_by_topic(self._command.topic):
            name = f'{info.node_namespace.rstrip("/")}/{info.node_name}'
            if name not in self._clients:
                self._clients[name] = self._node.create_client(
                    GetParameters, f'{name}/get_parameters')
            if name not in self._answers and self._clients[name].service_is_ready():
                self._answers[name] = {}
                for parameter in PARAMETERS:  # one by one: an unknown one spoils the others
                    future = self._clients[name].call_async(
                        GetParameters.Request(names=[parameter]))
                    future.add_done_callback(
                        lambda done, name=name, parameter=parameter:
                        self._answered(name, parameter, done))

    def _answered(self, name: str, parameter: str, done: Future) -> None:
        values = done.result().values if done.exception() is None and done.result() else []
        if values and values[0].type == ParameterType.PARAMETER_BOOL:
            self._answers[name][parameter] = values[0].bool_value
        known = self._answers[name]
        if known and not any(known.values()):
            warning = (f"controller '{name}' has {next(iter(known))} false: it begins every "
                       'trajectory at the measured joints, and the robot saws or lags. Set '
                       'interpolate_from_desired_state to true (before ros2_controllers 4.22: '
                       'open_loop_control)')
            if warning != self.warning:
                self._node.get_logger().warning(warning)
            self.warning = warning
        elif any(known.values()):
            self.warning = ''

    def close(self) -> None:
        """Take the clients back."""
        for client in self._clients.values():
            self._node.destroy_client(client)
        self._clients = {}
