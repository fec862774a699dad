# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What a checkpoint wants beside what the configuration gives."""

from collections.abc import Mapping, Sequence

import numpy as np
from pi0_ros.checkpoint.config import ADAPTATIONS, RobotConfig
from pi0_ros.checkpoint.mapping import Conversion, JointMap, KINDS, NONE, parse_conversions
from pi0_ros.checkpoint.spec import PolicySpec

SLOTS = 3  # cameras
ARM = 7  # joints and gripper of an ALOHA arm


def fit(spec: PolicySpec, robot: RobotConfig) -> JointMap:
    """
    Return the map between the robot's joints and the checkpoint.

    :raises ValueError: they do not fit; the text has every reason and a table of both sides.
    """
    problems = _cameras(spec, robot) + _twice(robot)
    _count(problems, 'joint_names', len(robot.joint_names), spec.action_width,
           None if spec.widths_recorded else spec.action.middle)
    _count(problems, 'state_names' if robot.state_names else 'joint_names', len(robot.states),
           spec.state_width, None if spec.widths_recorded else spec.state.middle)
    for setting, wanted, given in (('joint_names', spec.action_names, robot.joint_names),
                                   ('state_names', spec.state_names, robot.states)):
        _order(problems, setting, wanted, given)
    relative = np.flatnonzero(spec.relative[:len(robot.joint_names)])
    for index in relative:
        state = robot.states[index] if index < len(robot.states) else 'nothing'
        if state != robot.joint_names[index]:
            problems.append(f"action {index} ('{robot.joint_names[index]}') is relative to state "
                            f"{index}, which is '{state}': both must be the same joint")
    if robot.adaptation == 'aloha' and not (
            len(robot.joint_names) == len(robot.states) and len(robot.states) in (ARM, 2 * ARM)):
        problems.append(f"'adaptation' is aloha, which takes {ARM} or {2 * ARM} joints, "
                        f'but there are {len(robot.states)} states and '
                        f'{len(robot.joint_names)} actions')
    if robot.adaptation == 'aloha' and spec.velocity is not None:
        problems.append("'adaptation' is aloha and 'actions' is velocities: openpi adapts "
                        'positions only')
    try:
        of_states, of_actions = (parse_conversions(robot.conversions, robot.observed, kind,
                                                   getattr(robot, 'of_tools', ()))
                                 for kind in KINDS)
    except ValueError as error:
        problems.append(str(error))
    if problems:
        raise ValueError('the configuration does not fit the checkpoint: '
                         + '; '.join(dict.fromkeys(problems)) + '\n' + table(spec, robot))
    row = {name: index for index, name in enumerate(robot.observed)}
    surplus = spec.state_width - len(robot.states)
    commanded = [i for i, name in enumerate(robot.joint_names) if name != NONE]

    def numbers(of: Mapping[str, Conversion], names: Sequence[str]
                ) -> tuple[np.ndarray, np.ndarray]:
        each = [of.get(name, Conversion()) for name in names]
        return np.array([one.scale for one in each]), np.array([one.offset for one in each])

    states = (*robot.states, *[NONE] * surplus)
    return JointMap(np.array([row.get(name, -1) for name in states]), np.array(commanded),
                    *numbers(of_states, states), *numbers(of_actions, robot.commanded),
                    len(robot.states) if robot.adaptation == 'aloha' else 0)


def _count(problems: list[str], setting: str, given: int, wanted: int,
           padded: np.ndarray | None) -> None:
    """Refuse a wrong number of joints; statistics that end in padding may be longer."""
    if given == wanted or (padded is not None and given < wanted and not padded[given:].any()):
        return
    kind = 'actions' if setting == 'joint_names' else 'states'
    problems.append(f"'{setting}' has {given} joints, the checkpoint has {wanted} "
                    f"{kind} ('{NONE}' stands for one that the robot does not have)")


def plain(name: str) -> str:
    """Return a joint or camera name as people mean it: without LeRobot's .pos, in lower case."""
    return name.lower().removesuffix('.pos')


def _twice(robot: RobotConfig) -> list[str]:
    """Return a sentence for every name that is given twice, and for what is no adaptation."""
    out = []
    for setting, names in (('joint_names', robot.joint_names),
                           ('state_names', robot.state_names), ('cameras', robot.cameras)):
        out += [f"'{setting}' names '{name}' twice" for name in dict.fromkeys(names)
                if name not in ('', NONE) and list(names).count(name) > 1]
    if len(robot.cameras) > SLOTS:
        out.append(f"'cameras' has {len(robot.cameras)} entries, expected at most "
                   f'{SLOTS}')
    if robot.adaptation not in ADAPTATIONS:
        out.append(f"'adaptation' is {robot.adaptation!r}, expected one of "
                   f"{', '.join(ADAPTATIONS)}")
    return out


def _order(problems: list[str], setting: str, wanted: Sequence[str] | None,
           given: Sequence[str]) -> None:
    """Refuse a name that the checkpoint has at another position."""
    exact = {name: index for index, name in enumerate(wanted or ())}
    loose = {plain(name): index for name, index in exact.items()}
    for index, name in enumerate(given):
        at = exact.get(name, loose.get(plain(name), index) if len(loose) == len(exact) else index)
        if at != index:
            problems.append(f"'{setting}' has '{name}' at position {index}, the "
                            f'checkpoint has it at {at}')


def _cameras(spec: PolicySpec, robot: RobotConfig) -> list[str]:
    out = []
    called: dict[str, str] = {}
    for name in filter(None, robot.cameras):
        other = called.setdefault(spec.camera(name), name)
        if other != name:
            out.append(f"'cameras' names '{other}' and '{name}', which are one camera: training "
                       'renamed it')
    for name in robot.cameras:
        if name and spec.camera(name) not in spec.cameras:
            close = [camera for camera in spec.cameras if plain(camera) == plain(name)]
            hint = f", did you mean '{close[0]}'?" if close else ''
            if name in spec.renamed:
                hint = f"; training renamed '{name}' to '{spec.renamed[name]}'"
            out.append(f"'cameras' names '{name}', but the checkpoint's cameras are "
                       f"{', '.join(spec.cameras)}{hint}")
    return out


def unfed(spec: PolicySpec, robot: RobotConfig) -> tuple[str, ...]:
    """Return the checkpoint's cameras that no slot feeds."""
    fed = {spec.camera(name) for name in robot.cameras}
    return tuple(name for name in spec.cameras if name not in fed)


def table(spec: PolicySpec, robot: RobotConfig) -> str:
    """Return states, actions and cameras of the checkpoint beside those of the configuration."""
    height = max(spec.state_width, spec.action_width, len(robot.states), len(robot.joint_names))

    def column(width: int, names: Sequence[str] | None) -> list[str]:
        out = [names[i] if names else str(i) for i in range(width)]
        return out + [''] * (height - width)

    rows = [('', 'checkpoint state', 'state_names' if robot.state_names else 'joint_names',
             'checkpoint action', 'joint_names')]
    rows += list(zip(map(str, range(height)), column(spec.state_width, spec.state_names),
                     column(len(robot.states), robot.states),
                     column(spec.action_width, spec.action_names),
                     column(len(robot.joint_names), robot.joint_names)))
    slots = {spec.camera(name): f'camera_{slot}' for slot, name in enumerate(robot.cameras, 1)
             if name}
    cameras = [('', 'checkpoint camera', 'slot')]
    cameras += [('', name, slots.pop(name, NONE)) for name in spec.cameras]
    cameras += [('', f'(none is {name!r})', slot) for name, slot in slots.items()]
    return _aligned(rows) + '\n' + _aligned(cameras)


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(cell) for cell in column) for column in zip(*rows)]
    return '\n'.join('  ' + '  '.join(cell.ljust(width) for cell, width in zip(row, widths))
                     .rstrip() for row in rows)
