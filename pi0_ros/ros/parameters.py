"""The node's parameters: declared, checked, documented and read from their table."""

import difflib
import fnmatch
import math
import textwrap
from types import SimpleNamespace
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node
from rclpy.parameter import Parameter

from pi0_ros.control.guard import GuardRules
from pi0_ros.control.limits import Rules, parse_tighter
from pi0_ros.policy.factory import complete
from pi0_ros.policy.mapping import NONE
from pi0_ros.ros.parameter_table import TABLE, Entry

SLOWEST_POSITIONS_HZ = 20


class ParameterError(Exception):
    """Parameters are wrong; the text has one sentence for each."""


BY_NAME = {entry.name: entry for entry in TABLE}
# Parameters of ROS itself that may be set on any node.
FOREIGN = ('use_sim_time', 'qos_overrides.', 'start_type_description_service')


def declare(node: Node) -> list[str]:
    """Declare the table on ``node``; return one sentence for every override that is wrong.

    The node must have been made with ``automatically_declare_parameters_from_overrides``, so that
    a wrong type or an unknown name is a sentence at configuration and not a crash before it.
    """
    problems = []
    for name in list(node._parameters):  # noqa: SLF001 - rclpy lists only by prefix
        if name not in BY_NAME and not name.startswith(FOREIGN):
            close = difflib.get_close_matches(name, BY_NAME, 1)
            hint = f", did you mean '{close[0]}'?" if close else ': see config/pi0.yaml'
            problems.append(f"parameter '{name}' is unknown{hint}")
    for entry in TABLE:
        value = entry.default
        if node.has_parameter(entry.name):
            given = node.get_parameter(entry.name).value
            node.undeclare_parameter(entry.name)
            problem = check(entry, given)
            if problem:
                problems.append(problem)
            else:
                value = float(given) if isinstance(value, float) else given
        node.declare_parameter(entry.name, value, descriptor(entry), ignore_override=True)
    return problems


def check(entry: Entry, value: Any) -> str | None:
    """Return a sentence naming parameter, value and rule if ``value`` breaks it, else None."""
    given = f"parameter '{entry.name}' is {value!r}"
    kind = type(entry.default)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if kind is list:
        if not hasattr(value, '__len__') or isinstance(value, (str, bytes)) or not all(
                isinstance(item, (type(entry.default[0]),)) for item in value):
            return f'{given}, expected a list of {_type_name(entry.default[0])}'
        return None
    if not isinstance(value, kind) or isinstance(value, bool) != (kind is bool):
        return f'{given}, expected {_type_name(entry.default)}'
    if entry.choices and value not in entry.choices:
        return f"{given}, expected one of {', '.join(entry.choices)}"
    if entry.low is not None and not (math.isfinite(value) and entry.low <= value <= entry.high):
        unit = f' {entry.unit}' if entry.unit else ''
        return f'{given}, expected {entry.low} to {entry.high}{unit}'
    return None


def _type_name(value: Any) -> str:
    return {str: 'text', float: 'numbers with a decimal point', int: 'a whole number',
            bool: 'true or false'}[type(value)]


def descriptor(entry: Entry) -> ParameterDescriptor:
    """Return what ``ros2 param describe`` shows."""
    out = ParameterDescriptor(description=f'{entry.description} [{entry.unit or "no unit"}]',
                              read_only=not entry.dynamic,
                              additional_constraints=', '.join(entry.choices))
    if isinstance(entry.default, float) and entry.low is not None:
        out.floating_point_range = [FloatingPointRange(from_value=entry.low,
                                                       to_value=entry.high)]
    elif type(entry.default) is int and entry.low is not None:
        out.integer_range = [IntegerRange(from_value=int(entry.low), to_value=int(entry.high))]
    return out


def read(node: Node, problems: list[str]) -> SimpleNamespace:
    """Return the values of all parameters, empty texts in lists removed from the end.

    :raises ParameterError: ``problems`` is not empty, or values do not fit together.
    """
    values = SimpleNamespace(**{entry.name: node.get_parameter(entry.name).value
                                for entry in TABLE})
    complete(values)
    values.relative_joints = tuple(values.relative_joints)
    values.known_instructions = tuple(text for text in values.known_instructions if text)
    problems = list(problems) + _cross_check(values)
    try:
        values.limit_rules = _limit_rules(values)
    except ValueError as error:
        problems.append(str(error))
    if problems:
        raise ParameterError('; '.join(problems))
    values.guard_rules = GuardRules(
        round(1e9 * values.max_chunk_age), round(1e9 * values.max_tracking_time),
        round(1e9 * (values.max_inference_time + values.added_delay)), values.max_rejections,
        values.allow_missing_limits, not values.dry_run)
    return values


def _limit_rules(values: SimpleNamespace) -> Rules:
    joints = values.joint_names
    grippers = tuple(name for name in values.gripper_joints if name)
    lost = [name for name in grippers if joints and not fnmatch.filter(joints, name)]
    if lost:
        raise ValueError(f"parameter 'gripper_joints' names joint '{lost[0]}', which is none of "
                         f"{', '.join(joints)}")
    tighter = [text for text in values.joint_limits if text]
    return Rules(values.velocity_scale, values.acceleration_scale, values.max_acceleration,
                 values.position_margin, values.max_jump, values.max_tracking_error, grippers,
                 parse_tighter(tighter, joints) if joints else {})


def _cross_check(values: SimpleNamespace) -> list[str]:
    problems = []
    joints, cameras = values.joint_names, [name for name in values.cameras if name]
    if not joints:
        problems.append("parameter 'joint_names' is empty, expected the joints in the order of "
                        "the checkpoint's state")
    states = [name for name in values.state_names if name != NONE]
    for kind, names in (('joint_names', joints), ('state_names', states), ('cameras', cameras)):
        twice = sorted({name for name in names if list(names).count(name) > 1})
        if twice:
            problems.append(f"parameter '{kind}' names '{twice[0]}' twice")
    if not cameras:
        problems.append("parameter 'cameras' is empty, expected the checkpoint's camera for "
                        'at least one slot')
    if len(values.cameras) > 3:
        problems.append(f"parameter 'cameras' has {len(values.cameras)} entries, expected at most "
                        '3')
    if values.command_interface == 'positions' and values.control_rate < SLOWEST_POSITIONS_HZ:
        problems.append(f"parameter 'control_rate' is {values.control_rate}, expected at least "
                        f'{SLOWEST_POSITIONS_HZ} Hz for command_interface positions')
    if values.policy == 'pi0' and not values.checkpoint:
        problems.append("parameter 'checkpoint' is empty, expected a checkpoint folder, or 'demo'")
    if values.policy == 'mock_scripted' and joints and len(values.mock_script) % len(joints):
        problems.append(f"parameter 'mock_script' has {len(values.mock_script)} values, expected "
                        f'a multiple of the {len(joints)} joints')
    return problems


def validate_change(parameters: list[Parameter]) -> str | None:
    """Return why a change at run time is refused, or None."""
    for parameter in parameters:
        entry = BY_NAME.get(parameter.name)
        problem = entry and check(entry, parameter.value)
        if problem:
            return problem
    return None


def as_yaml() -> str:
    """Return the text of ``config/pi0.yaml``: every parameter with default, unit and reason."""
    lines = ['# Every parameter of the node pi0, with its default. Copy this file, keep what you',
             '# change, and start with: ros2 launch pi0_ros pi0.launch.py params_file:=YOUR.yaml',
             '/**:', '  ros__parameters:']
    group = ''
    for entry in TABLE:
        if entry.group != group:
            group = entry.group
            lines += ['', f'    # ---- {group} ----']
        lines += [f'    # {line}' for line in textwrap.wrap(_comment(entry), 92)]
        lines.append(f'    {entry.name}: {_yaml_value(entry.default)}')
    return '\n'.join(lines) + '\n'


def _comment(entry: Entry) -> str:
    facts = [entry.unit] if entry.unit else []
    if entry.choices:
        facts.append('one of ' + ', '.join(entry.choices))
    if entry.low is not None:
        facts.append(f'{entry.low} to {entry.high}')
    facts.append('may change while running' if entry.dynamic else 'read-only')
    return f'{entry.description} [{"; ".join(facts)}]'


def _yaml_value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"'{value}'"
    if isinstance(value, list):
        return '[' + ', '.join(_yaml_value(item) for item in value) + ']'
    return repr(value)
