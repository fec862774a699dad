"""A parameter file of the node, read without ROS."""

from pathlib import Path

import yaml

from pi0_ros.configuration.configuration import Configuration
from pi0_ros.configuration.parameters import FOREIGN, ParameterError, check, finish, unknown
from pi0_ros.configuration.table import BY_NAME, TABLE, make


def read_parameters(path: Path | None) -> Configuration:
    """Return what a parameter file says, the node's defaults for the rest.

    :raises ValueError: the file holds no ros__parameters, or a value is wrong or unknown.
    """
    out = make(_values(path))
    for name in ('state_names', 'conversions'):
        if getattr(out.robot, name) and not out.robot.joint_names:
            raise ValueError(f"parameter '{name}' in '{path}' needs joint_names, too")
    if out.robot.adaptation != 'none' and not out.robot.joint_names:
        raise ValueError(f"parameter 'adaptation' in '{path}' needs joint_names, too")
    return out


def read_all_parameters(path: Path | None, **instead: object) -> Configuration:
    """Return the same, checked as the node checks it.

    :param instead: values that go before those of the file.
    :raises ValueError: also if values do not fit together, as the node says it.
    """
    try:
        return finish(_values(path) | instead)
    except ParameterError as error:
        raise ValueError(f"'{path}': {error}" if path else str(error)) from error


def _values(path: Path | None) -> dict:
    given = _content(path) if path else {}
    problems = [unknown(str(name)) for name in given
                if name not in BY_NAME and not str(name).startswith(FOREIGN)]
    out = {entry.name: entry.default for entry in TABLE}
    for name, value in given.items():
        if name in BY_NAME:
            problem = check(BY_NAME[name], value)
            problems += [problem] if problem else []
            out[name] = float(value) if isinstance(out[name], float) and not problem else value
    if problems:
        raise ValueError(f"'{path}': " + '; '.join(problems))
    return out


def _content(path: Path) -> dict:
    """Return the parameters of the one section that speaks of a policy."""
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"'{path}' cannot be read: {error}") from error
    found: list[dict] = []

    def look(value: object) -> None:
        if isinstance(value, dict):
            for name, inner in value.items():
                if name == 'ros__parameters' and isinstance(inner, dict):
                    found.append(inner)
                else:
                    look(inner)

    look(content)
    # 'seed' is a parameter of the simulated robot, too.
    found = [section for section in found if set(section) & set(BY_NAME) - {'seed'}] or found
    if len(found) != 1:
        raise ValueError(f"'{path}' has {len(found)} sections ros__parameters that speak of a "
                         'policy, expected one')
    return found[0]
