# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Whether the controllers are active, as controller managers of ros2_control tell it."""

from pi0_ros.control.controllers import GRIPPER
from pi0_ros.observation.finding import Finding
from pi0_ros.ros.links.commands import Commands
from rclpy.client import Client
from rclpy.node import Node
from rclpy.task import Future

try:  # it comes with ros2_control
    from controller_manager_msgs.srv import ListControllers
except ImportError:
    ListControllers = None

KIND, ACTIVE = 'controller_manager_msgs/srv/ListControllers', 'active'
USUAL = '/controller_manager'
PATIENCE = 5  # rounds that an answer is waited for


class ControllerManagers:
    """
    Asks every controller manager that there is for its controllers.

    One that is inactive may still subscribe to its topic, and takes no message.
    """

    def __init__(self, node: Node, commands: Commands) -> None:
        """Prepare; ``ask`` asks."""
        self._node, self._commands = node, commands
        self._clients: dict[str, Client] = {}
        self._waiting: dict[str, tuple[Future, int]] = {}
        self._states: dict[str, dict[str, str]] = {}  # of a manager: its controllers' states

    def ask(self) -> None:
        """Ask whoever is there; return at once."""
        if ListControllers is None:
            return
        there = {name.rpartition('/')[0]: name
                 for name, kinds in self._node.get_service_names_and_types() if KIND in kinds}
        for manager in set(self._clients) - set(there):
            self._forget(manager)
        for manager, service in there.items():
            if manager not in self._clients:
                self._clients[manager] = self._node.create_client(ListControllers, service)
            asked, rounds = self._waiting.get(manager, (None, 0))
            if asked is not None and not asked.done():
                if rounds < PATIENCE:
                    self._waiting[manager] = asked, rounds + 1
                    continue
                self._clients[manager].remove_pending_request(asked)
            if self._clients[manager].service_is_ready():
                asked = self._clients[manager].call_async(ListControllers.Request())
                self._waiting[manager] = asked, 0
                asked.add_done_callback(lambda done, manager=manager: self._hear(manager, done))

    def _hear(self, manager: str, done: Future) -> None:
        if manager not in self._clients or done.exception() is not None or not done.result():
            return
        space = manager.rpartition('/')[0]
        self._states[manager] = {f'{space}/{controller.name}': controller.state
                                 for controller in done.result().controller}

    def problem(self) -> Finding | None:
        """Return which controller that follows the commands is not active, or None."""
        for each in self._commands:
            for manager, states in self._states.items():
                for name in {_controller(each, name) for name in each.followers()} & set(states):
                    if states[name] != ACTIVE:
                        where = '' if manager == USUAL else f' -c {manager}'
                        return Finding(
                            'controller_inactive', f"controller '{name}' is {states[name]} and "
                            'takes no command: ros2 control switch_controllers --activate '
                            f"{name.rpartition('/')[2]}{where}, then arm", name)
        return None

    def _forget(self, manager: str) -> None:
        self._node.destroy_client(self._clients.pop(manager))
        self._waiting.pop(manager, None)
        self._states.pop(manager, None)

    def close(self) -> None:
        """Take the clients back."""
        for manager in list(self._clients):
            self._forget(manager)


def _controller(command: object, follower: str) -> str:
    """Return the node of a follower: an action server's name has its action's behind it."""
    return follower.rpartition('/')[0] if command.group.interface == GRIPPER else follower
