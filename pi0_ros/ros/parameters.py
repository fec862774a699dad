# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The node's parameters: declared, read and changed."""

from pi0_ros.configuration.configuration import Configuration
from pi0_ros.configuration.parameters import check, finish, unknown
from pi0_ros.configuration.table import blocks, Entry, find, NESTED, TABLE
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node
from rclpy.parameter import Parameter


def declare(node: Node) -> list[str]:
    """
    Declare the table on ``node``; return one sentence for every override that is wrong.

    The node must have been made with ``automatically_declare_parameters_from_overrides``, so that
    a wrong type or an unknown name is a sentence at configuration and not a crash before it.
    """
    given = node.get_parameter('commands').value if node.has_parameter('commands') else None
    commands = [name for name in given if isinstance(name, str)] if isinstance(given, list) else []
    problems = [problem for name in list(node._parameters)  # noqa: SLF001 - lists by prefix only
                if (problem := unknown(name, commands))]
    for entry in (*TABLE, *blocks(commands)):
        value = entry.default
        if node.has_parameter(entry.name):
            given = node.get_parameter(entry.name).value
            if given is None and isinstance(value, list):
                given = type(value)()  # ROS has no type for an empty list
            node.undeclare_parameter(entry.name)
            problem = check(entry, given)
            if entry.nested is not None:
                problems += [problem] if problem else []
            elif problem:
                problems.append(problem)
            else:
                value = float(given) if isinstance(value, float) else given
                value = [''] if value == [] and isinstance(entry.default[0], str) else value
        if entry.nested is None:
            node.declare_parameter(entry.name, value, descriptor(entry), ignore_override=True)
    for name in list(node._parameters):  # noqa: SLF001
        entry = find(name)  # of a joint's block: it is there as it was given
        if entry is not None and '.' in name and name.partition('.')[0] in NESTED:
            problem = check(entry, node.get_parameter(name).value)
            problems += [problem] if problem else []
    return problems


def descriptor(entry: Entry) -> ParameterDescriptor:
    """Return what ``ros2 param describe`` shows."""
    out = ParameterDescriptor(description=f'{entry.description} [{entry.unit or "no unit"}]',
                              additional_constraints=', '.join(entry.choices))
    if isinstance(entry.default, float) and entry.low is not None:
        out.floating_point_range = [FloatingPointRange(from_value=entry.low,
                                                       to_value=entry.high)]
    elif type(entry.default) is int and entry.low is not None:
        out.integer_range = [IntegerRange(from_value=int(entry.low), to_value=int(entry.high))]
    return out


def read(node: Node, problems: list[str]) -> Configuration:
    """
    Return the configuration that all parameters make; see ``finish``.

    :raises ParameterError: ``problems`` is not empty, or values do not fit together.
    """
    names = [name for name in node.get_parameter('commands').value if name]
    inner = [name for name in node._parameters  # noqa: SLF001
             if '.' in name and name.partition('.')[0] in NESTED and (entry := find(name))
             and not check(entry, node.get_parameter(name).value)]
    return finish({name: node.get_parameter(name).value for name in (
        *(entry.name for entry in (*TABLE, *blocks(names))), *inner)
        if node.has_parameter(name)}, problems)


def validate_change(parameters: list[Parameter], configured: bool) -> str | None:
    """Return why a change is refused, or None. :param configured: whether the node is."""
    for parameter in parameters:
        if parameter.name == 'commands':
            return ("parameter 'commands' is fixed, with its blocks: say it where the node is "
                    'started')
        entry = find(parameter.name)
        problem = entry and check(entry, parameter.value)
        if entry and not problem and configured and not entry.dynamic:
            problem = (f"parameter '{entry.name}' is fixed while the node is configured: clean it "
                       'up, set the parameter, configure it')
        if problem:
            return problem
    return None
