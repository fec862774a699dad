# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The table of the node's parameters: every setting of every room, flat, as ROS and files say it.

It is made of the configurations' fields; there is no other source.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from pi0_ros.checkpoint.layout_lerobot import IMAGES
from pi0_ros.configuration.configuration import Configuration
from pi0_ros.control.config import GroupConfig

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
    nested: tuple[str, ...] | None = None  # keys of a block for each joint; (): a text for it
    group: str = ''


def _entries(room: type, title: str) -> tuple[Entry, ...]:
    return tuple(Entry(one.name, list(one.default) or [''] if isinstance(one.default, tuple)
                       else one.default, **one.metadata, group=title) for one in fields(room))


PARTS = [part for part in fields(Configuration) if part.name in TITLES]
TABLE = tuple(entry for part in PARTS for entry in _entries(part.type, TITLES[part.name]))
BY_NAME = {entry.name: entry for entry in TABLE}
NESTED = {entry.name for entry in TABLE if entry.nested is not None}
BLOCK = {entry.name: entry for entry in _entries(GroupConfig, TITLES['control'])}


def blocks(names: Sequence[str]) -> tuple[Entry, ...]:
    """Return the parameters of the blocks of ``commands``, such as arm.interface."""
    return tuple(replace(entry, name=f'{name}.{entry.name}') for name in names if name
                 for entry in BLOCK.values())


def find(name: str) -> Entry | None:
    """Return the entry of a parameter, also of one in a block, None if there is none."""
    room, _, inner = name.partition('.')
    block, _, key = name.rpartition('.')
    entry = BY_NAME.get(room)
    if inner and entry and entry.nested is not None:
        joint = inner.rpartition('.')[0] if entry.nested else inner
        fits = joint and (not entry.nested or key in entry.nested)
        return replace(entry, name=name, default=0.0 if entry.nested else '', nested=None,
                       description=f'{entry.name} of {joint}') if fits else None
    if name in BY_NAME:
        return BY_NAME[name]
    return replace(BLOCK[key], name=name) if block and key in BLOCK else None


def _texts(entry: Entry, given: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what a block says, a text for each joint."""
    out: dict[str, list[str]] = {}
    for name, value in given.items():
        inner = name.removeprefix(f'{entry.name}.')
        if inner == name:
            continue
        joint, _, key = inner.rpartition('.') if entry.nested else (inner, '', '')
        out.setdefault(joint, []).append(f'{key} {float(value)!r}' if entry.nested else value)
    return tuple(f"{joint}: {', '.join(said)}" for joint, said in out.items())


def make(given: Mapping[str, Any]) -> Configuration:
    """
    Return the configuration of a value for each parameter, whether or not they fit together.

    Lists are tuples without empty texts; only slots of ``cameras`` may be empty. Cameras are
    called as the checkpoint calls them, without LeRobot's prefix.
    """
    def value(name: str) -> Any:
        entry = find(name)
        if entry.nested is not None:
            return _texts(entry, given)
        out = given.get(name, entry.default)
        if not isinstance(entry.default, list):
            return out
        if name == 'cameras':
            return tuple(camera.removeprefix(IMAGES) for camera in out)
        return tuple(item for item in out if item != '')

    return Configuration(**{
        part.name: part.type(**{one.name: value(one.name) for one in fields(part.type)})
        for part in PARTS}, blocks={
            name: GroupConfig(**{key: value(f'{name}.{key}') for key in BLOCK})
            for name in value('commands')})
