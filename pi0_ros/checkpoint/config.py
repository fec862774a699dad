# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What can be set of the robot, as the checkpoint sees it."""

from collections.abc import Mapping
from dataclasses import dataclass, fields

from pi0_ros.checkpoint.mapping import NONE
from pi0_ros.kinematics.hands import Hand, parse_hands
from pi0_ros.setting import setting

ADAPTATIONS = ('none', 'aloha')


@dataclass(frozen=True)
class RobotConfig:
    """The robot in the checkpoint's order. NONE stands for an action that no joint takes."""

    joint_names: tuple[str, ...] = setting(
        (), "Joints in the order of the checkpoint's actions, and of its state unless "
        "state_names says otherwise. '-' stands for an action that no joint takes, a link of "
        'end_effectors for all numbers of its pose. '
        'Required: a permuted order is a different robot.')
    state_names: tuple[str, ...] = setting(
        (), "Joints in the order of the checkpoint's state, where it is not that of the "
        "actions. '-' stands for a joint that the robot does not have: the policy then "
        'reads the mean of its training.')
    cameras: tuple[str, ...] = setting(
        (), "The checkpoint's camera for each slot: the first entry is what topic "
        "camera_1/image_raw shows, and so on, at most three. '' leaves a slot empty.")
    conversions: tuple[str, ...] = setting(
        (), "Units, where the checkpoint's are not the robot's: for a joint rules in "
        'their order: degree, sign -1, A B -> C D (what the robot calls A and B, the '
        "checkpoint calls C and D), offset X in the checkpoint's unit. The joint may be a shell"
        " pattern; a name goes before a pattern. 'state NAME' and 'action NAME' are for one of "
        "the two, where the checkpoint has them in different units. conversions: {'*': degree, "
        "gripper: '0.0 0.04 -> 0 100', roll: 'degree, sign -1'}", nested=())
    adaptation: str = setting(
        'none',
        "openpi's adapt_to_pi: aloha flips and rescales the joints of one or two ALOHA arms"
        ' as the pi0 base model has them, after conversions.', choices=ADAPTATIONS)
    end_effectors: tuple[str, ...] = setting(
        (), 'Tools whose poses stand in actions or state, each a link of robot_description: in '
        'which other link their poses are measured, which joints move them, in their order, and '
        'how rotations are written: axis_angle, rpy, rotation_6d (the first two columns), '
        'rotation_6d_rows, quaternion_xyzw or quaternion_wxyz; state_rotation where the state '
        "has another. end_effectors: {tool0: 'frame base_link, joints joint_1 joint_2 joint_3, "
        "rotation axis_angle'}", nested=())

    @property
    def hands(self) -> Mapping[str, Hand]:
        """
        Return the tools by their links.

        :raises ValueError: they are not told whole.
        """
        return parse_hands(self.end_effectors)

    @property
    def states(self) -> tuple[str, ...]:
        """Return the joint, or the tool, for every state."""
        return self.state_names or self.joint_names

    @property
    def commanded(self) -> tuple[str, ...]:
        """Return the joints that the policy moves."""
        return self._joints(self.joint_names)

    @property
    def observed(self) -> tuple[str, ...]:
        """Return all joints, the commanded ones first: the order of ``Observation.state``."""
        return tuple(dict.fromkeys((*self.commanded, *self.state_joints)))

    @property
    def state_joints(self) -> tuple[str, ...]:
        """Return the joints that the state is made of, in its order."""
        return self._joints(self.states)

    def _joints(self, names: tuple[str, ...]) -> tuple[str, ...]:
        hands = self.hands if self.end_effectors else {}
        return tuple(joint for name in names if name != NONE
                     for joint in (hands[name].joints if name in hands else (name,)))

    def in_numbers(self, steps: bool) -> 'RobotConfig':
        """
        Return the same with a name for each number of a pose, as the checkpoint has them.

        :param steps: whether actions are steps of tools, no poses.
        """
        if not self.end_effectors:
            return self
        hands = self.hands

        def named(names: tuple[str, ...], state: bool) -> tuple[str, ...]:
            return tuple(number for name in names for number in (
                hands[name].numbers(state, steps) if name in hands else (name,)))

        given = {one.name: getattr(self, one.name) for one in fields(self)} | {
            'joint_names': named(self.joint_names, False),
            'state_names': named(self.states, True), 'end_effectors': ()}
        return RobotInNumbers(**given, of_tools=frozenset(
            number for hand in hands.values() for state in (True, False)
            for number in hand.numbers(state, steps)))


@dataclass(frozen=True)
class RobotInNumbers(RobotConfig):
    """A robot with a name for each number of its tools' poses, as if these were joints."""

    of_tools: frozenset[str] = frozenset()
