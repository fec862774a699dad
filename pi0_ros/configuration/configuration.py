"""Everything that can be set: one configuration for each room, and what must fit together."""

from dataclasses import dataclass, field, replace

from pi0_ros.checkpoint.config import RobotConfig
from pi0_ros.checkpoint.mapping import NONE
from pi0_ros.control.config import ControlConfig, SafetyConfig
from pi0_ros.observation.config import InputConfig
from pi0_ros.policy.config import PolicyConfig
from pi0_ros.setting import setting

SLOWEST_POSITIONS_HZ = 20


@dataclass(frozen=True)
class NodeConfig:
    """How the node starts."""

    autostart: bool = setting(
        True, 'Configure and activate without a lifecycle manager. The robot stays disarmed '
        'until ~/enable.')


@dataclass(frozen=True)
class Configuration:
    """What a node, or a verb, is told: a part for each room."""

    policy: PolicyConfig = field(default_factory=PolicyConfig)
    robot: RobotConfig = field(default_factory=RobotConfig)
    inputs: InputConfig = field(default_factory=InputConfig)
    control: ControlConfig = field(default_factory=ControlConfig)
    safety: SafetyConfig = field(default_factory=SafetyConfig)
    node: NodeConfig = field(default_factory=NodeConfig)

    def with_policy(self, **changes: object) -> 'Configuration':
        """Return the same with another setting of the policy."""
        return replace(self, policy=replace(self.policy, **changes))

    def problems(self) -> list[str]:
        """Return a sentence for everything that does not fit together."""
        robot, policy, safety = self.robot, self.policy, self.safety
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
        if len(robot.cameras) > 3:
            out.append(f"parameter 'cameras' has {len(robot.cameras)} entries, expected at most 3")
        if (self.control.command_interface == 'positions'
                and self.control.control_rate < SLOWEST_POSITIONS_HZ):
            out.append(f"parameter 'control_rate' is {self.control.control_rate}, expected at "
                       f'least {SLOWEST_POSITIONS_HZ} Hz for command_interface positions')
        if safety.auto_enable and not safety.dry_run:
            out.append("parameter 'auto_enable' is true, expected false without dry_run: a person "
                       'arms a robot')
        if policy.policy == 'pi0' and not policy.checkpoint:
            out.append("parameter 'checkpoint' is empty, expected a checkpoint folder, or 'demo'")
        if policy.policy == 'mock_scripted' and joints and len(policy.mock_script) % len(joints):
            out.append(f"parameter 'mock_script' has {len(policy.mock_script)} values, expected a "
                       f'multiple of the {len(joints)} joints')
        try:
            safety.limit_rules(joints)
        except ValueError as error:
            out.append(f'parameter {error}')
        return out
