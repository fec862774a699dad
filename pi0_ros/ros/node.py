# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The lifecycle node pi0: reads parameters, and opens and closes sessions."""

from collections.abc import Callable
import logging
import sys
import traceback

from pi0_ros.configuration.advice import advised
from pi0_ros.configuration.file import parameter_files, sections_missing
from pi0_ros.configuration.parameters import ParameterError
from pi0_ros.environment import missing
from pi0_ros.ros import parameters
from pi0_ros.ros.interrupt import INTERRUPT
from pi0_ros.ros.monitor import Monitor
from pi0_ros.ros.person import Operator
from pi0_ros.ros.session import Session
from pi0_ros.weights.files import CheckpointError
from rcl_interfaces.msg import ParameterDescriptor, SetParametersResult
from rclpy._rclpy_pybind11 import RCLError
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter


def _close(session: Session, monitor: Monitor | None) -> None:
    """Close the session, and after it, whatever became of that, who tells of it."""
    try:
        session.close()
    finally:
        if monitor is not None:
            monitor.close()


class _ToRos(logging.Handler):
    """Says through a node what the core logs."""

    def __init__(self, node: LifecycleNode) -> None:
        super().__init__(logging.INFO)
        self._log = node.get_logger()

    def emit(self, record: logging.LogRecord) -> None:
        text = advised(record.getMessage())
        if record.levelno >= logging.ERROR:  # rclpy wants one line of code for each severity
            self._log.error(text)
        elif record.levelno >= logging.WARNING:
            self._log.warning(text)
        else:
            self._log.info(text)


class Pi0Node(LifecycleNode):
    """Runs a policy on a robot. Starts disarmed; ``~/enable`` arms it."""

    def declare_parameters(self, namespace: str, parameters: list, ignore_override: bool = False
                           ) -> list:
        """Declare parameters; what has no value, as an empty list in a file, may get any."""
        return super().declare_parameters(namespace, [
            (name, value[0], ParameterDescriptor(dynamic_typing=True))
            if value and value[0] is None else (name, *value)
            for name, *value in parameters], ignore_override)

    def __init__(self, **kwargs: object) -> None:
        """Declare the parameters; ``configure`` reads them. Arguments go to LifecycleNode."""
        self.session: Session | None = None  # first of all: a signal may end this at any line
        self._monitor: Monitor | None = None
        self._handler: logging.Handler | None = None
        super().__init__('pi0', automatically_declare_parameters_from_overrides=True, **kwargs)
        self._problems = parameters.declare(self) + sections_missing(
            parameter_files(kwargs.get('cli_args') or sys.argv), self.get_fully_qualified_name())
        self.add_on_set_parameters_callback(self._validate_parameters)
        if hasattr(self, 'add_post_set_parameters_callback'):
            self.add_post_set_parameters_callback(self._apply_parameters)
        self.operator = Operator(self)
        core = logging.getLogger('pi0_ros')
        core.setLevel(logging.INFO)
        self._handler = _ToRos(self)
        core.addHandler(self._handler)

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Read parameters, subscribe, load the policy."""
        return self._guarded('configure', self._configure)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start the control thread; the robot stays disarmed."""
        def activate() -> None:
            super(Pi0Node, self).on_activate(state)
            self.session.activate()
            dry = 'in a dry run, ' if self.session.config.safety.dry_run else ''
            self.get_logger().info(
                f'active and {dry}disarmed; arm with: ros2 service call '
                f'{self.operator.own("enable")} std_srvs/srv/SetBool "{{data: true}}"')

        return self._guarded('activate', activate)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop the robot smoothly, then stop publishing."""
        def deactivate() -> None:
            self.session.deactivate()
            super(Pi0Node, self).on_deactivate(state)

        return self._guarded('deactivate', deactivate)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Give back what ``configure`` took."""
        return self._guarded('cleanup', self.close)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop and give everything back, from any state."""
        return self._guarded('shutdown', self.close)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Give everything back; the node can be configured again."""
        return self._guarded('recover from an error', self.close)

    def _LifecycleNodeMixin__change_state(self, transition_id: int  # noqa: N802
                                          ) -> TransitionCallbackReturn:
        """
        Refuse a transition that this state does not have; rclpy of Jazzy raises out of spin.

        So that who asks, such as nav2's lifecycle_manager, is answered, and the node lives on.
        """
        try:
            return super()._LifecycleNodeMixin__change_state(transition_id)
        except RCLError as error:
            self.get_logger().error(f'a transition is refused: {error}')
            return TransitionCallbackReturn.FAILURE

    def _guarded(self, name: str, action: Callable[[], None]) -> TransitionCallbackReturn:
        """Run a transition; rclpy would swallow what it raises."""
        try:
            action()
        except (ParameterError, CheckpointError, ValueError) as error:
            if name == 'configure':
                self.get_logger().error(f'cannot {name}: {advised(error)}')
                return TransitionCallbackReturn.FAILURE
            self.get_logger().error(f'cannot {name}: {error}\n{traceback.format_exc()}')
        except Exception as error:
            text = missing(error) if isinstance(error, ModuleNotFoundError) else None
            self.get_logger().error(f'cannot {name}: {text or error}'
                                    + ('' if text else f'\n{traceback.format_exc()}'))
        else:
            return TransitionCallbackReturn.SUCCESS
        return TransitionCallbackReturn.ERROR

    def _configure(self) -> None:
        asked = self.operator.asked
        session = Session(self, parameters.read(self, self._problems), asked)
        monitor = None
        try:
            monitor = Monitor(session, asked)
            with INTERRUPT.raising(True):
                session.load()
        except BaseException:
            _close(session, monitor)
            raise
        self.session, self._monitor = session, monitor
        monitor.news()
        self.operator.attach(session)

    @property
    def telling(self) -> bool:
        """Return whether a program has still to hear how its run ended."""
        return self.operator.telling

    def close(self) -> None:
        """Stop the robot, then give everything back; allowed in any state, and twice."""
        session = self.session
        if session:
            try:
                _close(session, self._monitor)
            finally:
                self.session = self._monitor = None
                self.operator.detach()

    def destroy_node(self) -> None:
        """Stop the robot and give everything back first."""
        self.close()
        if self._handler:
            logging.getLogger('pi0_ros').removeHandler(self._handler)
        super().destroy_node()

    def _validate_parameters(self, changed: list[Parameter]) -> SetParametersResult:
        problem = parameters.validate_change(changed, self.session is not None)
        if problem is None and not hasattr(self, 'add_post_set_parameters_callback'):
            self._apply_soon(changed)  # Humble, which only asks before
        return SetParametersResult(successful=problem is None, reason=problem or '')

    def _apply_soon(self, changed: list[Parameter]) -> None:
        """Apply a change from the executor, when it has been made."""
        def once() -> None:
            self.destroy_timer(timer)
            self._apply_parameters(changed)

        timer = self.create_timer(0.0, once, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _apply_parameters(self, changed: list[Parameter]) -> None:
        for one in changed:  # what was wrong at the start may be right now
            self._problems = [text for text in self._problems if f"'{one.name}'" not in text]
        if self.session:
            self.session.use(parameters.read(self, []))
