"""The node's parameters without ROS: checked, documented, and what follows from them."""

import difflib
import fnmatch
import math
import textwrap
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from pi0_ros.checkpoint.mapping import NONE
from pi0_ros.configuration.table import TABLE, Entry
from pi0_ros.control.guard import GuardRules
from pi0_ros.motion.limits import TIGHTER, Rules
from pi0_ros.policy.factory import complete

SLOWEST_POSITIONS_HZ = 20
BY_NAME = {entry.name: entry for entry in TABLE}
# Parameters of ROS itself that may be set on any node.
FOREIGN = ('use_sim_time', 'qos_overrides.', 'start_type_description_service')


class ParameterError(Exception):
    """Parameters are wrong; the text has one sentence for each."""


def unknown(name: str) -> str:
    """Return a sentence for a parameter that there is none of."""
    close = difflib.get_close_matches(name, BY_NAME, 1)
    return f"parameter '{name}' is unknown" + (
        f", did you mean '{close[0]}'?" if close else ': see config/pi0.yaml')


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


def finish(given: dict[str, Any], problems: list[str] = []) -> SimpleNamespace:
    """Return the values of all parameters with what follows from them.

    Empty texts are gone from the end of lists; ``limit_rules`` and ``guard_rules`` are those of
    the safety checks.

    :param given: a value for every entry of TABLE. :param problems: sentences on it so far.
    :raises ParameterError: ``problems`` is not empty, or values do not fit together.
    """
    values = complete(SimpleNamespace(**given))
    values.relative_joints = tuple(values.relative_joints)
    values.known_instructions = tuple(text for text in values.known_instructions if text)
    problems = [*problems, *_cross_check(values)]
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


def parse_tighter(texts: Sequence[str], joints: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return the limits that ``texts`` set, by joint; ``JOINT: lower -1.5, velocity 1.0``.

    JOINT may be a shell pattern; where several fit, the tightest counts.

    :raises ValueError: a text is none of these, or names no joint.
    """
    out: dict[str, dict[str, float]] = {}
    for text in texts:
        pattern, _, values = text.partition(':')
        found = fnmatch.filter(joints, pattern.strip())
        if not found:
            raise ValueError(f"parameter 'joint_limits' names joint '{pattern.strip()}', which is "
                             f"none of {', '.join(joints)}")
        for value in values.split(','):
            key, number = _value(value, text)
            for joint in found:
                pick = max if key == 'lower' else min
                old = out.setdefault(joint, {})
                old[key] = pick(number, old.get(key, number))
    return out


def _value(value: str, text: str) -> tuple[str, float]:
    words = value.split()
    try:
        key, number = words[0], float(words[1])
    except (IndexError, ValueError):
        key, number = '', math.nan
    if len(words) != 2 or key not in TIGHTER or not math.isfinite(number) or (
            key in TIGHTER[2:] and number <= 0):
        raise ValueError(f"parameter 'joint_limits' has '{text}', expected 'JOINT: KEY NUMBER, "
                         f"KEY NUMBER' with keys {', '.join(TIGHTER)}, velocity and acceleration "
                         'above 0')
    return key, number


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
    if values.auto_enable and not values.dry_run:
        problems.append("parameter 'auto_enable' is true, expected false without dry_run: a "
                        'person arms a robot')
    if values.policy == 'pi0' and not values.checkpoint:
        problems.append("parameter 'checkpoint' is empty, expected a checkpoint folder, or 'demo'")
    if values.policy == 'mock_scripted' and joints and len(values.mock_script) % len(joints):
        problems.append(f"parameter 'mock_script' has {len(values.mock_script)} values, expected "
                        f'a multiple of the {len(joints)} joints')
    return problems


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
