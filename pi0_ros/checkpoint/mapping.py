# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Between the robot's joints and the positions of a checkpoint's state and action."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
import fnmatch
import math
import re

import numpy as np

NONE = '-'  # stands for a position of the checkpoint that no joint of the robot takes
NUMBER = r'[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?'
RANGES = re.compile(rf'({NUMBER})\s+({NUMBER})\s*->\s*({NUMBER})\s+({NUMBER})')
KINDS = ('state', 'action')
OFFSET = re.compile(rf'offset\s+({NUMBER})')

# openpi's aloha_policy.py: signs of one arm, and the gripper's linkage.
ALOHA_SIGNS = np.array([1, -1, -1, 1, 1, 1, 1.0])
ALOHA_OPENING_M = (0.01844, 0.05800)
ALOHA_ARM_M, ALOHA_HORN_M = 0.036, 0.022
ALOHA_STATE_RAD = (0.5476, 1.6296)
ALOHA_ACTION_RAD = (-0.6213, 1.4910)


@dataclass(frozen=True)
class Conversion:
    """``checkpoint = robot * scale + offset``."""

    scale: float = 1.0
    offset: float = 0.0


def parse_conversions(texts: Sequence[str], joints: Sequence[str], of: str = 'state',
                      numbers: Collection[str] = ()) -> dict[str, Conversion]:
    """
    Return the conversion of every joint that ``texts`` names.

    :param of: state or action; a text that begins with the other one does not count.
    :param numbers: those of ``joints`` that are numbers of a tool's pose, such as tool0.x: a
        pattern means them only where it names the tool.

    A text is ``JOINT: RULE, RULE``; the joint may be a shell pattern, and a name goes before a
    pattern. Rules apply in their order: ``degree`` (the checkpoint has degrees, the robot
    radians), ``sign -1``, ``A B -> C D`` (what the robot calls A and B, the checkpoint calls C and
    D), ``offset X`` (added, in the checkpoint's unit).

    :raises ValueError: a text is none of these, names no joint, or two texts name one joint.
    """
    ranks: list[dict[str, Conversion]] = [{} for _ in range(4)]
    for text in texts:
        name, separator, rules = text.partition(':')
        kind, _, rest = name.strip().partition(' ')
        own = kind in KINDS and bool(rest)
        name = rest.strip() if own else name.strip()
        if not separator:
            raise ValueError(f"'conversions' has '{text}', expected 'JOINT: RULE', for "
                             "example 'elbow: degree' or 'gripper: 0.0 0.04 -> 0 100'")
        conversion = Conversion()
        for rule in rules.split(','):
            conversion = _apply(conversion, rule.strip(), text)
        found = [joint for joint in joints if fnmatch.fnmatchcase(joint, name)
                 and (joint not in numbers or joint.rpartition('.')[0] in name)]
        if not found:
            raise ValueError(f"'conversions' names joint '{name}', which is none of "
                             f"{', '.join(joints)}")
        if own and kind != of:
            continue
        target = ranks[2 * (name in joints) + own]
        for joint in found:
            if joint in target:
                raise ValueError(f"'conversions' names joint '{joint}' twice")
            target[joint] = conversion
    return {joint: one for rank in ranks for joint, one in rank.items()}


def _apply(before: Conversion, rule: str, text: str) -> Conversion:
    factor, shift = 1.0, 0.0
    ranges, offset = RANGES.fullmatch(rule), OFFSET.fullmatch(rule)
    if rule == 'degree':
        factor = 180 / math.pi
    elif rule == 'sign -1':
        factor = -1.0
    elif ranges:
        a, b, c, d = map(float, ranges.groups())
        if a == b or c == d:
            raise ValueError(f"'conversions' has '{text}': a range without length "
                             'cannot be converted')
        factor = (d - c) / (b - a)
        shift = c - a * factor
    elif offset:
        shift = float(offset.group(1))
    else:
        raise ValueError(f"'conversions' has rule '{rule}' in '{text}', expected "
                         'degree, sign -1, A B -> C D, or offset X')
    return Conversion(before.scale * factor, before.offset * factor + shift)


@dataclass(frozen=True)
class JointMap:
    """Which joint is which position of the checkpoint, and in which units."""

    rows: np.ndarray           # [state_width] index into Observation.state, -1: no such joint
    columns: np.ndarray        # [D] index into the checkpoint's action for each commanded joint
    state_scale: np.ndarray    # [state_width]
    state_offset: np.ndarray   # [state_width]
    action_scale: np.ndarray   # [D]
    action_offset: np.ndarray  # [D]
    aloha: int = 0             # so many joints, 7 or 14, as openpi's adapt_to_pi has them

    @classmethod
    def identity(cls, state_width: int, action_width: int) -> 'JointMap':
        """Return the map for a robot that speaks as the checkpoint does."""
        return cls(np.arange(state_width), np.arange(action_width), np.ones(state_width),
                   np.zeros(state_width), np.ones(action_width), np.zeros(action_width))

    def state_in(self, observed: np.ndarray, missing: np.ndarray) -> np.ndarray:
        """
        Return the checkpoint's raw state [state_width] for the robot's joints.

        :param observed: positions of all configured joints, radians or metres.
        :param missing: [state_width] what stands in for joints that the robot does not have.
        """
        state = observed[self.rows] * self.state_scale + self.state_offset
        if self.aloha:
            state[:self.aloha] = aloha_state(state[:self.aloha])
        return np.where(self.rows < 0, missing, state)

    def actions_out(self, actions: np.ndarray) -> np.ndarray:
        """Return positions [T, D] of the commanded joints for absolute actions [T, width]."""
        if self.aloha:
            actions = aloha_actions(actions[:, :self.aloha])
        return (actions[:, self.columns] - self.action_offset) / self.action_scale

    def actions_in(self, positions: np.ndarray, width: int) -> np.ndarray:
        """
        Return absolute actions [T, width] for positions [T, D]: the inverse of ``actions_out``.

        What no joint takes is not a number.
        """
        out = np.full((len(positions), self.aloha or width), np.nan)
        out[:, self.columns] = positions * self.action_scale + self.action_offset
        if self.aloha:
            out = aloha_given(out)
        return np.pad(out, ((0, 0), (0, width - out.shape[1])), constant_values=np.nan)


def aloha_state(state: np.ndarray) -> np.ndarray:
    """
    Return an ALOHA robot's state as the pi0 base model has it (``_decode_state``).

    :param state: [7 or 14]: six joints in radians and a gripper from 0 to 1, once or twice.
    """
    arms = state.reshape(-1, 7) * ALOHA_SIGNS
    low, high = ALOHA_OPENING_M
    opening = arms[:, 6] * (high - low) + low
    sine = (ALOHA_HORN_M**2 + opening**2 - ALOHA_ARM_M**2) / (2 * ALOHA_HORN_M * opening)
    low, high = ALOHA_STATE_RAD
    arms[:, 6] = (np.arcsin(np.clip(sine, -1, 1)) - low) / (high - low)
    return arms.ravel()


def aloha_actions(actions: np.ndarray) -> np.ndarray:
    """
    Return the pi0 base model's actions as an ALOHA robot has them (``_encode_actions``).

    :param actions: [T, 7 or 14] absolute. States and actions of the gripper differ on purpose.
    """
    arms = actions.reshape(len(actions), -1, 7) * ALOHA_SIGNS
    low, high = ALOHA_ACTION_RAD
    arms[..., 6] = (arms[..., 6] + ALOHA_STATE_RAD[0] - low) / (high - low)
    return arms.reshape(actions.shape)


def aloha_given(actions: np.ndarray) -> np.ndarray:
    """
    Return an ALOHA robot's actions as the pi0 base model has them: undoes ``aloha_actions``.

    :param actions: [T, 7 or 14] absolute.
    """
    arms = actions.reshape(len(actions), -1, 7).copy()
    low, high = ALOHA_ACTION_RAD
    arms[..., 6] = arms[..., 6] * (high - low) + low - ALOHA_STATE_RAD[0]
    return (arms * ALOHA_SIGNS).reshape(actions.shape)
