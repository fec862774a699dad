"""Asks the controller whether it goes on from where it was told to be."""

from rcl_interfaces.msg import ParameterType
from rcl_interfaces.srv import GetParameters
from rclpy.client import Client
from rclpy.node import Node
from rclpy.task import Future

from pi0_ros.ros.commands import CommandPublisher

# Of joint_trajectory_controller: since ros2_controllers 4.22, and before.
PARAMETERS = ('interpolate_from_desired_state', 'open_loop_control')
AGAIN_AFTER = 5  # rounds of ``ask``


class ControllerCheck:
    """Asks each node that subscribes to the commands; ``warning`` is what to tell."""

    def __init__(self, node: Node, command: CommandPublisher) -> None:
        """Prepare; ``ask`` asks."""
        self._node, self._command = node, command
        self._clients: dict[str, Client] = {}
        self._answers: dict[str, dict[str, bool]] = {}
        self._rounds = 0
        self._told = ''

    @property
    def warning(self) -> str:
        """Return what is wrong with a controller's settings, empty if nothing is known to be."""
        for name, known in self._answers.items():
            if known and not any(known.values()):
                return (f"controller '{name}' has {next(iter(known))} false: it begins every "
                        'trajectory at the measured joints, and the robot saws or lags. Set '
                        'interpolate_from_desired_state to true (before ros2_controllers 4.22: '
                        'open_loop_control)')
        return ''

    def ask(self) -> None:
        """Ask whoever is there, every few rounds again; return at once."""
        if self._command.plain:
            return
        followers = self._command.followers()
        for name in set(self._clients) - set(followers):
            self._node.destroy_client(self._clients.pop(name))
            self._answers.pop(name, None)
        for name in followers:
            if name not in self._clients:
                self._clients[name] = self._node.create_client(
                    GetParameters, f'{name}/get_parameters')
            client = self._clients[name]
            due = name not in self._answers or self._rounds % AGAIN_AFTER == 0
            if due and client.service_is_ready():
                self._answers.setdefault(name, {})
                for parameter in PARAMETERS:  # one by one: an unknown one spoils the others
                    client.call_async(GetParameters.Request(names=[parameter])).add_done_callback(
                        lambda done, name=name, parameter=parameter:
                        self._answered(name, parameter, done))
        self._rounds += 1
        if self.warning and self.warning != self._told:
            self._node.get_logger().warning(self.warning)
        self._told = self.warning

    def _answered(self, name: str, parameter: str, done: Future) -> None:
        values = done.result().values if done.exception() is None and done.result() else []
        if name in self._answers and values and values[0].type == ParameterType.PARAMETER_BOOL:
            self._answers[name][parameter] = values[0].bool_value

    def close(self) -> None:
        """Take the clients back."""
        for client in self._clients.values():
            self._node.destroy_client(client)
        self._clients = {}
