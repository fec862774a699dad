# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""A parameter file of the node, read without ROS."""

from argparse import ArgumentTypeError
from collections.abc import Sequence
from pathlib import Path
import re

from pi0_ros.configuration.configuration import Configuration
from pi0_ros.configuration.parameters import check, finish, ParameterError, unknown
from pi0_ros.configuration.table import find, make, TABLE
from pi0_ros.kinematics.urdf import parse
import yaml


def read_parameters(path: Path | None) -> Configuration:
    """
    Return what a parameter file says, the node's defaults for the rest.

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
    """
    Return the same, checked as the node checks it.

    :param instead: values that go before those of the file.
    :raises ValueError: also if values do not fit together, as the node says it.
    """
    try:
        return finish(_values(path) | instead)
    except ParameterError as error:
        raise ValueError(f"'{path}': {error}" if path else str(error)) from error


def read_description(name: str) -> str:
    """
    Return a robot's description from a file, for a command line.

    :raises ArgumentTypeError: it cannot be read, or is none.
    """
    try:
        text = Path(name).read_text()
        parse(text)
    except (OSError, ValueError) as error:
        raise ArgumentTypeError(f"'{name}': {error}") from error
    return text


def _values(path: Path | None) -> dict:
    given = _content(path) if path else {}
    names = given.get('commands')
    names = [str(name) for name in names] if isinstance(names, list) else []
    problems = [problem for name in given if (problem := unknown(name, names))]
    out = {entry.name: entry.default for entry in TABLE if entry.nested is None}
    for name, value in given.items():
        entry = find(name)
        if entry is not None:
            problem = check(entry, value)
            problems += [problem] if problem else []
            if entry.nested is None:
                out[name] = (float(value) if isinstance(entry.default, float) and not problem
                             else value)
    if problems:
        raise ValueError(f"'{path}': " + '; '.join(problems))
    return out


def parameter_files(argv: Sequence[str]) -> list[Path]:
    """Return the files that are given as ``--params-file`` on a command line of ROS."""
    return [Path(given) for word, given in zip(argv, argv[1:]) if word == '--params-file']


def sections_missing(files: Sequence[Path], node: str) -> list[str]:
    """
    Return a sentence if none of the files speaks of a node, [] if one does, or there are none.

    :param node: its full name, such as /arm_a/pi0.
    """
    told = []
    for path in files:
        if path.name.startswith('launch_params_'):
            continue  # as launch writes what is said to it
        try:
            sections = _sections(path)
        except ValueError as error:
            told.append(str(error))
            continue
        if any(_speaks_of(name, node) and set(section) - {'use_sim_time'}
               for name, section in sections.items()):
            return []
        told.append(f"'{path}' has {', '.join(sections) or 'no section ros__parameters'}")
    return [f"no parameter file has a section for '{node}' or '/**': {'; '.join(told)}"
            ] if told else []


def _speaks_of(section: str, node: str) -> bool:
    """Return whether a section is for a node; * stands for one part of a name, ** for several."""
    pattern = re.escape('/' + section.strip('/'))
    pattern = pattern.replace(r'/\*\*', r'(/[^/]+)*').replace(r'\*', r'[^/]+')
    return re.fullmatch(pattern, node) is not None


def _sections(path: Path) -> dict[str, dict]:
    """
    Return the sections of a file by the names of nodes that they are for.

    :raises ValueError: it cannot be read.
    """
    if not path.is_file():
        raise ValueError(f"'{path}' does not exist")
    try:
        content = _Loader(path.read_text()).get_single_data()
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"'{path}' cannot be read: {' '.join(str(error).split())}") from error
    found: dict[str, dict] = {}

    def look(value: object, name: str) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                if key == 'ros__parameters' and isinstance(inner, dict):
                    found[name] = found.get(name, {}) | inner
                else:
                    look(inner, '/'.join((name, str(key).strip('/'))))

    look(content, '')
    return found


def _content(path: Path) -> dict:
    """Return the parameters of the node: those for all nodes, and those for one of them."""
    found = _sections(path)
    # 'seed' is a parameter of the simulated robot, too.
    of_policy = {name: section for name, section in found.items()
                 if any(find(entry) for entry in set(_flat(section)) - {'seed'})}
    found = of_policy or found
    every = [section for name, section in found.items() if name == '/**']
    own = [section for name, section in found.items() if name != '/**']
    if not found or len(own) > 1:
        raise ValueError(f"'{path}' has {len(found)} sections ros__parameters that speak of a "
                         f"policy ({', '.join(found) or 'none'}), expected one, or '/**' and one")
    out: dict = {}
    for section in (*every, *own):
        out |= _flat(section)
    return out


def _flat(content: dict, prefix: str = '') -> dict:
    """Return the parameters with the names that ROS gives them: those of a block with its name."""
    out: dict = {}
    for key, value in content.items():
        name = f'{prefix}{key}'
        out |= _flat(value, f'{name}.') if isinstance(value, dict) else {name: value}
    return out


class _Loader(yaml.SafeLoader):
    """YAML as ROS reads it: 1e3 is a number, too."""


_Loader.add_implicit_resolver('tag:yaml.org,2002:float', re.compile(
    r'^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$'), list('-+.0123456789'))
