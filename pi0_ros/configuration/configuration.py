# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Everything that can be set: one configuration for each room, and what must fit together."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
import re

from pi0_ros.checkpoint.config import RobotConfig
from pi0_ros.checkpoint.mapping import NONE
from pi0_ros.control.config import AUTO, ControlConfig, GroupConfig, SafetyConfig
from pi0_ros.control.controllers import GRIPPER, Group, STREAMS
from pi0_ros.observation.config import InputConfig
from pi0_ros.policy.config import PolicyConfig
from pi0_ros.policy.factory import declares_training, in_numbers
from pi0_ros.setting import setting

SLOWEST_POSITIONS_HZ = 20
GROUP_NAME = re.compile(r'[A-Za-z]\w*(/[A-Za-z]\w*)*')


@dataclass(frozen=True)
class NodeConfig:
    """How the node starts, and what it shows."""

    autostart: bool = setting(
        True, 'Configure and activate without a lifecycle manager. The robot stays disarmed '
        'until ~/enable.')
    tool_link: tuple[str, ...] = setting(
        (), 'Links of robot_description whose way is shown on ~/preview. [] is the end of every '
        'arm: what its last joint that is no gripper moves, and what is fixed to that.')


@dataclass(frozen=True)
class Configuration:
    """What a node, or a verb, is told: a part for each room."""

    policy: PolicyConfig = field(default_factory=PolicyConfig)
    robot: RobotConfig = field(default_factory=RobotConfig)
    inputs: InputConfig = field(default_factory=InputConfig)
    control: ControlConfig = field(default_factory=ControlConfig)
    safety: SafetyConfig = field(default_factory=SafetyConfig)
    node: NodeConfig = field(default_factory=NodeConfig)
    blocks: Mapping[str, GroupConfig] = field(default_factory=dict)  # for control.commands

    @property
    def groups(self) -> tuple[Group, ...]:
        """Return which controller has which of the commanded joints."""
        return self.control.groups(self.robot.commanded, self.blocks)

    def with_policy(self, **changes: object) -> 'Configuration':
        """Return the same with another setting of the policy."""
        return replace(self, policy=replace(self.policy, **changes))

    def decided(self) -> 'Configuration':
        """
        Return the same with the hand-over that the checkpoint was trained for, if none is set.

        That one needs a joint for every action.
        """
        trained = (self.control.handover == AUTO and self.policy.has_checkpoint
                   and NONE not in self.robot.joint_names
                   and declares_training(self.policy.checkpoint))
        return replace(self, control=self.control.decided(trained))

    def problems(self) -> list[str]:
        """Return a sentence for everything that does not fit together."""
        robot, policy, safety = self.robot, self.policy, self.safety
        try:
            in_numbers(policy, robot)
        except ValueError as error:
            return [f'parameter {error}']
        joints, cameras = robot.commanded, [name for name in robot.cameras if name]
        out = []
        if not joints:
            out.append("parameter 'joint_names' is empty, expected the joints in the order of the "
                       "checkpoint's state")
        states = [name for name in robot.state_names if name != NONE]
        for kind, names in (('joint_names', joints), ('state_names', states),
                            ('cameras', cameras)):
            twice = sorted({name for name in names if list(names).count(name) > 1})
            if twice:
                out.append(f"parameter '{kind}' names '{twice[0]}' twice")
        if not cameras:
            out.append("parameter 'cameras' is empty, expected the checkpoint's camera for at "
                       'least one slot')
        inputs = ('joint_states', *(f'camera_{slot}' for slot in (1, 2, 3)))
        out += [f"parameter 'ignore_stamps' has '{name}', expected {', '.join(inputs)}"
                for name in self.inputs.ignore_stamps if name not in inputs]
        turns = self.inputs.rotate
        if len(turns) > 3 or not set(turns) <= {0, 90, 180, 270}:
            out.append(f"parameter 'rotate' is {list(turns)}, expected 0, 90, 180 or 270 for each "
                       'of at most 3 cameras')
        if len(robot.cameras) > 3:
            out.append(f"parameter 'cameras' has {len(robot.cameras)} entries, expected at most 3")
        out += self._group_problems()
        slow = [group.interface for group in self.groups if group.interface in STREAMS]
        if slow and self.control.control_rate < SLOWEST_POSITIONS_HZ:
            out.append(f"parameter 'control_rate' is {self.control.control_rate}, expected at "
                       f'least {SLOWEST_POSITIONS_HZ} Hz for interface {slow[0]}')
        if safety.auto_enable and not safety.dry_run:
            out.append("parameter 'auto_enable' is true, expected false without dry_run: a person "
                       'arms a robot')
        if policy.has_checkpoint and not policy.checkpoint:
            out.append("parameter 'checkpoint' is empty, expected a checkpoint folder, or 'demo'")
        if policy.policy == 'remote':
            out += [f"parameter '{name}' is empty, expected {what} with policy remote"
                    for name, what in (('server', 'ws://HOST:PORT'), (
                        'server_schema', 'what the server calls the parts of an observation'))
                    if not getattr(policy, name)]
            if policy.server_deadline >= safety.max_inference_time:
                out.append(f"parameter 'server_deadline' is {policy.server_deadline:g}, expected "
                           f"less than 'max_inference_time', {safety.max_inference_time:g}: what "
                           'takes so long is taken for a policy that hangs')
        if policy.policy == 'mock_scripted' and joints and len(policy.mock_script) % len(joints):
            out.append(f"parameter 'mock_script' has {len(policy.mock_script)} values, expected a "
                       f'multiple of the {len(joints)} joints')
        try:
            safety.limit_rules(joints)
        except ValueError as error:
            out.append(f'parameter {error}')
        return out

    def _group_problems(self) -> list[str]:
        """Return what is wrong with the division of the joints among controllers."""
        names, joints = self.control.commands, self.robot.commanded
        many = [f"a gripper_command has one joint, '{group.name or 'command_interface'}' has "
                f"{', '.join(group.joints)}" for group in self.groups
                if group.interface == GRIPPER and len(group.joints) > 1]
        if many:
            return many
        taken = {one.name for part in fields(self) if part.name != 'blocks'
                 for one in fields(getattr(self, part.name))}
        out = [f"parameter 'commands' has '{name}', expected a name like 'arm' or 'left/arm'"
               for name in names if not GROUP_NAME.fullmatch(name)]
        out += [f"parameter 'commands' has '{name}', which is a parameter: choose another name"
                for name in names if name in taken]
        out += [f"parameter 'commands' names '{name}' twice" for name in dict.fromkeys(names)
                if names.count(name) > 1]
        if not names or out or not joints:
            return out
        owners = {joint: [] for joint in joints}
        strange = []
        for group in self.groups:
            for joint in group.joints:
                (owners[joint] if joint in owners else strange).append(
                    group.name if joint in owners else joint)
        rows = [(group.name, ', '.join(group.joints) or 'no joint')
                for group in self.groups]
        rows += [('nobody', ', '.join(alone))] if (alone := [
            joint for joint, owner in owners.items() if not owner]) else []
        rows += [(' and '.join(owner), joint) for joint, owner in owners.items()
                 if len(owner) > 1]
        wrong = len(rows) > len(names) or any(not group.joints for group in self.groups)
        if wrong:
            out.append("parameter 'commands' must give every joint of the policy to one "
                       'controller:' + ''.join(f'\n  {who:20} {what}' for who, what in rows))
        if strange:
            out.append(f"the controllers in 'commands' have {', '.join(strange)}, which the "
                       f"policy does not command; it commands {', '.join(joints)}")
        return out
