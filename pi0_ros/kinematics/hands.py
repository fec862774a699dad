# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Tools whose poses a checkpoint speaks of, in place of joints."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
import re

from pi0_ros.kinematics.rotations import ROTATIONS

PLACE = ('x', 'y', 'z')
KEYS = ('frame', 'joints', 'rotation', 'state_rotation')
EXAMPLE = "'tool0: frame base_link, joints joint_1 joint_2 joint_3, rotation axis_angle'"


@dataclass(frozen=True)
class Hand:
    """One tool. Its pose is x, y, z in metres and a rotation, as ``rotations.py`` has them."""

    link: str                # the tool, a link of robot_description
    frame: str               # another: where poses are measured
    joints: tuple[str, ...]  # that move it
    rotation: str            # of actions: one of ROTATIONS
    state_rotation: str      # of the state

    def numbers(self, state: bool, steps: bool = False) -> tuple[str, ...]:
        """Return names for the numbers of its pose, or of a step, as in a state or an action."""
        turns = ROTATIONS[self.state_rotation if state else self.rotation]
        kind = 'step.' if steps and not state else ''
        return tuple(f'{self.link}.{kind}{name}' for name in (*PLACE, *turns))


def parse_hands(texts: Sequence[str]) -> Mapping[str, Hand]:
    """
    Return the tools by their links.

    A text is ``LINK: frame LINK, joints NAME NAME NAME, rotation KIND``; ``state_rotation KIND``
    where the state has another.

    :raises ValueError: a text says something else, or a joint moves two tools.
    """
    out: dict[str, Hand] = {}
    for text in texts:
        link, colon, rest = text.partition(':')
        link, said = link.strip(), {}
        for part in filter(None, re.split(r'\s*,\s*', rest.strip())):
            key, _, value = part.partition(' ')
            said[key] = value.strip()
        wrong = [key for key in said if key not in KEYS]
        missing = [key for key in KEYS[:3] if not said.get(key)]
        if not colon or not link or wrong or missing:
            why = (f'{wrong[0]!r} is none of {", ".join(KEYS)}' if wrong else
                   f"it lacks {', '.join(missing)}" if colon else 'it has no colon')
            raise ValueError(f"'end_effectors' has '{text}', expected {EXAMPLE}: {why}")
        kinds = said['rotation'], said.get('state_rotation', said['rotation'])
        for kind in kinds:
            if kind not in ROTATIONS:
                raise ValueError(f"'end_effectors' has rotation '{kind}' of '{link}', expected "
                                 f"one of {', '.join(ROTATIONS)}")
        hand = Hand(link, said['frame'], tuple(said['joints'].split()), *kinds)
        taken = [joint for other in (*out.values(), hand) for joint in other.joints]
        twice = sorted({joint for joint in taken if taken.count(joint) > 1})
        if twice or link in out:
            raise ValueError(f"'end_effectors' has '{(twice or [link])[0]}' twice")
        out[link] = hand
    return out
