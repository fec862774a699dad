"""A parameter file of the node, read without ROS."""

import difflib
from pathlib import Path
from types import SimpleNamespace

import yaml

from pi0_ros.policy.factory import complete
from pi0_ros.policy.fit import ADAPTATIONS

# What the file may say of checkpoint and robot; the defaults are the node's.
READ = {'joint_names': (), 'state_names': (), 'conversions': (), 'relative_joints': (),
        'cameras': (), 'adaptation': 'none', 'letterbox': 'auto', 'assets': '', 'tokenizer': '',
        'chunk_length': 0, 'denoising_steps': 0}


def read_parameters(path: Path | None) -> SimpleNamespace:
    """Return what a parameter file says of checkpoint and robot, the node's defaults for the rest.

    :raises ValueError: the file holds no ros__parameters, or a value is of another type.
    """
    out = dict(READ)
    for name, value in (_content(path) if path else {}).items():
        if name not in READ:
            close = difflib.get_close_matches(str(name), READ, 1, 0.85)
            if close:
                raise ValueError(f"parameter '{name}' in '{path}' is unknown, did you mean "
                                 f"'{close[0]}'?")
            continue
        out[name] = _typed(name, value, READ[name])
    values = SimpleNamespace(**out)
    if values.adaptation not in ADAPTATIONS:
        raise ValueError(f"parameter 'adaptation' is {values.adaptation!r}, expected one of "
                         f"{', '.join(ADAPTATIONS)}")
    for name in ('state_names', 'conversions'):
        if getattr(values, name) and not values.joint_names:
            raise ValueError(f"parameter '{name}' in '{path}' needs joint_names, too")
    if values.adaptation != 'none' and not values.joint_names:
        raise ValueError(f"parameter 'adaptation' in '{path}' needs joint_names, too")
    return complete(values)


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
    found = [section for section in found if set(section) & {*READ, 'checkpoint'}] or found
    if len(found) != 1:
        raise ValueError(f"'{path}' has {len(found)} sections ros__parameters that speak of a "
                         'policy, expected one')
    return found[0]


def _typed(name: str, value: object, default: object) -> object:
    if isinstance(default, tuple):
        if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
            raise ValueError(f"parameter '{name}' is {value!r}, expected a list of text")
        return tuple(value)
    if type(value) is not type(default):
        kind = 'text' if isinstance(default, str) else 'a whole number'
        raise ValueError(f"parameter '{name}' is {value!r}, expected {kind}")
    return value
