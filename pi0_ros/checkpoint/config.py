"""What can be set of the robot, as the checkpoint sees it."""

from dataclasses import dataclass

from pi0_ros.checkpoint.mapping import NONE
from pi0_ros.setting import setting

ADAPTATIONS = ('none', 'aloha')


@dataclass(frozen=True)
class RobotConfig:
    """The robot in the checkpoint's order. NONE stands for an action that no joint takes."""

    joint_names: tuple[str, ...] = setting(
        (), "Joints in the order of the checkpoint's actions, and of its state unless "
        "state_names says otherwise. '-' stands for an action that no joint takes. "
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
        " pattern; a name goes before a pattern. conversions: {'*': degree, gripper: '0.0 0.04 -> "
        "0 100', roll: 'degree, sign -1'}", nested=())
    adaptation: str = setting(
        'none',
        "openpi's adapt_to_pi: aloha flips and rescales the joints of one or two ALOHA arms"
        ' as the pi0 base model has them, after conversions.', choices=ADAPTATIONS)

    @property
    def states(self) -> tuple[str, ...]:
        """Return the joint for every state."""
        return self.state_names or self.joint_names

    @property
    def commanded(self) -> tuple[str, ...]:
        """Return the joints that the policy moves."""
        return tuple(name for name in self.joint_names if name != NONE)

    @property
    def observed(self) -> tuple[str, ...]:
        """Return all joints, the commanded ones first: the order of ``Observation.state``."""
        return self.commanded + tuple(name for name in self.states
                                      if name not in self.commanded and name != NONE)
