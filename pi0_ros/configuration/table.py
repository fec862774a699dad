"""The table of the node's parameters: every setting of every room, flat, as ROS and files say it.

It is made of the configurations' fields; there is no other source.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from pi0_ros.checkpoint.layout_lerobot import IMAGES
from pi0_ros.configuration.configuration import Configuration

TITLES = {'policy': 'Policy', 'robot': 'Robot', 'inputs': 'Inputs', 'control': 'Control',
          'safety': 'Safety', 'node': 'Node'}


@dataclass(frozen=True)
class Entry:
    """One parameter. ``default`` also gives the type; an empty list is written as ['']."""

    name: str
    default: Any
    unit: str
    description: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    dynamic: bool = False
    group: str = ''


def _entries() -> tuple[Entry, ...]:
    out = []
    for part in fields(Configuration):
        for one in fields(part.type):
            default = list(one.default) or [''] if isinstance(one.default, tuple) else one.default
            out.append(Entry(one.name, default, **one.metadata, group=TITLES[part.name]))
    return tuple(out)


TABLE = _entries()
BY_NAME = {entry.name: entry for entry in TABLE}


def make(given: Mapping[str, Any]) -> Configuration:
    """Return the configuration of a value for each parameter, whether or not they fit together.

    Lists are tuples without empty texts; only slots of ``cameras`` may be empty. Cameras are
    called as the checkpoint calls them, without LeRobot's prefix.
    """
    def value(name: str) -> Any:
        out = given[name]
        if not isinstance(BY_NAME[name].default, list):
            return out
        if name == 'cameras':
            return tuple(camera.removeprefix(IMAGES) for camera in out)
        return tuple(item for item in out if item != '')

    return Configuration(**{
        part.name: part.type(**{one.name: value(one.name) for one in fields(part.type)})
        for part in fields(Configuration)})
