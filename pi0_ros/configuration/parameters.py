# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The node's parameters without ROS: checked, and documented."""

from collections.abc import Mapping, Sequence
import difflib
import math
import textwrap
from typing import Any

from pi0_ros.configuration.configuration import Configuration
from pi0_ros.configuration.table import BLOCK, BY_NAME, Entry, find, make, TABLE

# Parameters of ROS itself that may be set on any node.
FOREIGN = ('use_sim_time', 'qos_overrides.', 'start_type_description_service')


class ParameterError(Exception):
    """Parameters are wrong; the text has one sentence for each."""


def unknown(name: str, commands: Sequence[str] = ()) -> str | None:
    """
    Return a sentence for a parameter that there is none of, None if there is one.

    :param commands: the names that have blocks.
    """
    block, _, key = name.rpartition('.')
    room = BY_NAME.get(name.partition('.')[0])
    if room and room.nested is not None and room.name != name:
        return None if find(name) else (
            f"parameter '{name}' is unknown, '{room.name}' has for a joint "
            f"{', '.join(room.nested) or 'one text'}")
    if name in BY_NAME or name.startswith(FOREIGN) or block in commands and key in BLOCK:
        return None
    if block in commands:
        return f"parameter '{name}' is unknown, a controller has {', '.join(BLOCK)}"
    if find(name) is not None:
        return (f"parameter '{name}' is of a controller that 'commands' does not name: it names "
                f"{', '.join(commands) or 'none'}")
    close = difflib.get_close_matches(name, BY_NAME, 1)
    return f"parameter '{name}' is unknown" + (
        f", did you mean '{close[0]}'?" if close else ': see config/pi0.yaml')


def check(entry: Entry, value: Any) -> str | None:
    """Return a sentence naming parameter, value and rule if ``value`` breaks it, else None."""
    given = f"parameter '{entry.name}' is {value!r}"
    if entry.nested is not None:
        empty = value is None or hasattr(value, '__len__') and not any(value)
        inner = '{upper: 1.5}' if entry.nested else 'degree'
        return None if empty else (f'{given}, expected a block for each joint: '
                                   f'{entry.name}: {{elbow: {inner}}}')
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


def finish(given: Mapping[str, Any], problems: Sequence[str] = ()) -> Configuration:
    """
    Return the configuration of a value for every entry of TABLE.

    :param problems: sentences on what was given so far.
    :raises ParameterError: ``problems`` is not empty, or values do not fit together.
    """
    configuration = make(given)
    problems = [*problems, *configuration.problems()]
    if problems:
        raise ParameterError('; '.join(problems))
    return configuration.decided()


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
        if entry.nested is None:
            lines.append(f'    {entry.name}: {_yaml_value(entry.default)}')
        if entry.name == 'commands':
            lines += _block()
    return '\n'.join(lines) + '\n'


def _block() -> list[str]:
    lines = ['    # The block of a controller, for every name in commands:', '    # arm:']
    for entry in BLOCK.values():
        lines += [f'    #   # {line}' for line in textwrap.wrap(_comment(entry), 86)]
        lines.append(f'    #   {entry.name}: {_yaml_value(entry.default)}')
    return lines


def _comment(entry: Entry) -> str:
    facts = [entry.unit] if entry.unit else []
    if entry.choices:
        facts.append('one of ' + ', '.join(entry.choices))
    if entry.low is not None:
        facts.append(f'{entry.low} to {entry.high}')
    facts.append('may change while running' if entry.dynamic else
                 'fixed while configured')
    return f'{entry.description} [{"; ".join(facts)}]'


def _yaml_value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"'{value}'"
    if isinstance(value, list):
        return '[' + ', '.join(_yaml_value(item) for item in value) + ']'
    return repr(value)
