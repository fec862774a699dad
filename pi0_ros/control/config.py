# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What can be set of the control of a robot, and of its safety."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
import fnmatch
import math

from pi0_ros.control.controllers import Group, INTERFACES, STREAMS, TRAJECTORY
from pi0_ros.control.rules import GuardRules
from pi0_ros.control.timing import Timing
from pi0_ros.motion.handover import JACOBIANS, rtc_kind, STRATEGIES
from pi0_ros.motion.limits import Rules, TIGHTER
from pi0_ros.setting import setting

AUTO = 'auto'
MODES = RELATIVE, ABSOLUTE = 'relative', 'absolute'  # of who leads
INFER, PAUSE = 'infer', 'pause'
USUAL_UPDATE_HZ = 100.0  # of a controller, as long as nothing else is known: the slowest


@dataclass(frozen=True)
class ControlConfig:
    """How chunks become commands."""

    control_rate: float = setting(
        50.0, 'How often a trajectory is published. Any rate fits any action_rate.',
        unit='Hz', low=1.0, high=100.0)
    commands: tuple[str, ...] = setting(
        (), 'Where arm and gripper, or left and right, have controllers of their own: a name for '
        "each, and a block of that name for what it has. ['arm', 'gripper']. [] is one "
        'controller for all joints.')
    command_interface: str = setting(
        TRAJECTORY, 'Of the one controller, where commands names none. joint_trajectory: windows '
        'of the plan, for a joint_trajectory_controller. positions: where the plan is now '
        '(Float64MultiArray), for a forward_position_controller; joint_state_command the same as '
        'a JointState, with names; velocities: how fast it is, corrected by where the robot is, '
        'for a forward_velocity_controller. Those three have no end and no time, and need a '
        'control_rate of 20 Hz and more. gripper_command: goals of a gripper action.',
        choices=INTERFACES)
    handover: str = setting(
        AUTO, 'How a new chunk takes over. auto: rtc_trained where the checkpoint says that it '
        'was trained for that, else blend. blend over 0.1 s; rtc (real-time chunking): the '
        'network itself continues what is executed while it infers; rtc_trained the same in'
        ' the way a checkpoint was trained for; switch at once; ensemble averages all '
        'chunks as ACT does; synchronous stops, infers and plays a chunk whole. '
        'docs/control.md compares them.', choices=(AUTO, *STRATEGIES))
    jacobian: str = setting(
        'identity',
        'Of hand-over rtc: full differentiates the action expert, as the paper does, which '
        'takes longer; identity takes no gradient.', choices=JACOBIANS)
    replan_period: float = setting(
        0.3, 'A new chunk is asked for when the newest observation is older than this, at the '
        'latest at half a chunk, and earlier where inference is measured to take long. '
        'Shorter reacts faster and computes more; 0 infers without a break.',
        unit='s', low=0.0, high=10.0, dynamic=True)
    speed_scaling: str = setting(
        'auto', 'Where the controller says how fast its time passes, in per cent '
        '(std_msgs/Float64): the plan then passes as slowly. auto takes what '
        '~/controller_state says, and for a controller called scaled_..., as a UR has, the '
        'one topic that ends in /speed_scaling; none ignores topics.', unit='topic')
    realtime_priority: int = setting(
        10, 'SCHED_FIFO priority of the control thread, where the system grants it (rtprio in '
        "/etc/security/limits.conf); below the controller's 50. 0 asks for none.", low=0, high=49)

    takeover_mode: str = setting(
        'relative', 'How a person who takes over leads: relative to where the leader was then, '
        'or absolute, where the robot comes only to a leader within max_jump.',
        choices=MODES)
    takeover_policy: str = setting(
        'infer', 'What the policy does meanwhile: infer, so that what it would have done can be '
        'compared, or pause.', choices=(INFER, PAUSE))
    takeover_timeout: float = setting(
        0.3, 'For how long the switch of who leads (~/takeover_enable) may be silent.',
        unit='s', low=0.1, high=2.0)

    def decided(self, trained: bool) -> 'ControlConfig':
        """Return the same with a hand-over; ``trained``: for rtc_trained."""
        handover = 'rtc_trained' if trained else 'blend'
        return replace(self, handover=handover) if self.handover == AUTO else self

    def groups(self, joints: tuple[str, ...], blocks: Mapping[str, 'GroupConfig']
               ) -> tuple[Group, ...]:
        """
        Return the groups of the robot's controllers.

        :param joints: that are commanded. :param blocks: for each name in ``commands``.
        """
        if not self.commands:
            return (Group(interface=self.command_interface, joints=joints,
                          max_effort=GroupConfig.max_effort, dead_band=GroupConfig.dead_band),)
        return tuple(Group(name, **vars(blocks.get(name, GroupConfig())))
                     for name in self.commands)

    def timing(self, groups: Sequence[Group], update_rate_hz: float | None = None) -> Timing:
        """Return what shapes the commands in time, for a controller's update rate if known."""
        streams = [group.interface in STREAMS for group in groups]
        return Timing.at_rate(self.control_rate, self.replan_period, self.handover,
                              not all(streams), update_rate_hz or USUAL_UPDATE_HZ, any(streams))

    @property
    def rtc(self) -> str:
        """Return which of guidance.KINDS the hand-over wants, '' for none."""
        return rtc_kind(self.handover, self.jacobian)


@dataclass(frozen=True)
class GroupConfig:
    """The block of a controller: ``arm: {interface: ..., joints: [...]}``."""

    interface: str = setting(
        TRAJECTORY, 'How it is commanded, as command_interface.', choices=INTERFACES)
    joints: tuple[str, ...] = setting(
        (), 'What it has, of joint_names. Every joint belongs to one controller.')
    max_effort: float = setting(
        40.0, 'Of a gripper_command. 0 is no effort for some grippers, and the most for others.',
        unit='N or Nm', low=0.0, high=1000.0)
    dead_band: float = setting(
        0.002, 'Of a gripper_command: a goal is another when it differs by more.',
        unit='rad or m', low=0.0, high=1.0)
    sequential: bool = setting(
        False, 'Of a gripper_command: send a goal when the one before has ended, and take an '
        'abort for a thing in the hand: for servers that replace no goal and abort a grasp, such '
        'as franka_gripper.')
    topic: str = setting(
        '', "Its topic or action, such as franka_gripper/gripper_action; '' is NAME/joint_"
        'trajectory, NAME/commands, NAME/joint_command or NAME/gripper_cmd.', unit='topic')
    prefix: str = setting(
        '', 'What its own names of these joints lack: with left/ its controller and its '
        'joint_states call left/waist waist. For arms that have a namespace each.')
    joint_states: str = setting(
        '', 'Topic of the joint states of these joints alone, such as follower_left/joint_states. '
        "'' where joint_states has all.", unit='topic')
    max_joint_lag: float = setting(
        0.0, 'By how much these joints may be behind max_joint_age, for a gripper whose state '
        'comes seldom. An observation is stamped by the others.', unit='s', low=0.0, high=10.0)


@dataclass(frozen=True)
class SafetyConfig:
    """What a policy is allowed."""

    joint_limits: tuple[str, ...] = setting(
        (), 'Limits that tighten those of robot_description, or stand in for it: for a joint, or '
        'a shell pattern of joints, lower, upper, velocity, acceleration in rad or m and seconds. '
        'joint_limits: {elbow: {upper: 1.5, velocity: 1.0}}', nested=TIGHTER)
    replace_limits: tuple[str, ...] = setting(
        (), 'Limits that count in place of those of robot_description, also where they are '
        'looser, as joint_limits has them: for a description that is wrong. Each is told with the '
        'number that it replaces whenever the description comes. replace_limits: {elbow: {upper: '
        '2.618}}', nested=TIGHTER)
    gripper_joints: tuple[str, ...] = setting(
        (), 'Joints that close on things, names or shell patterns: no margin, and no limit of '
        'jumps and tracking error, because a thing in the hand keeps them from where they '
        'are told to go and policies close them in one step.')
    velocity_scale: float = setting(
        0.5, 'Share of the velocities of robot_description that is used. All joints are slowed '
        'by one factor.', low=0.01, high=1.0)
    max_acceleration: float = setting(
        5.0, 'Of every joint; URDF has none. Stops are as fast as this allows.',
        unit='rad/s^2 or m/s^2', low=0.1, high=1000.0)
    acceleration_scale: float = setting(
        1.0, 'Share of max_acceleration, and of what joint_limits says, that is used; stops use '
        'all of it.', low=0.01, high=1.0)
    position_margin: float = setting(
        0.05, 'Kept from the position limits, at most 5 % of the range.',
        unit='rad or m', low=0.0, high=1.0)
    max_jump: float = setting(
        0.2, 'A chunk that begins further from where the robot is, or steps further, is '
        'rejected, and the robot is not armed for it. A prismatic joint: 10 % of its range.',
        unit='rad', low=0.001, high=10.0)
    max_tracking_error: float = setting(
        0.3, 'A robot that is further from where it is told to be, for longer than '
        'max_tracking_time, is disarmed. A prismatic joint: 15 % of its range.',
        unit='rad', low=0.001, high=10.0)
    max_tracking_time: float = setting(
        0.2, 'See max_tracking_error.', unit='s', low=0.0, high=10.0)
    max_chunk_age: float = setting(
        0.5, 'A chunk whose observation is older when it comes is rejected.',
        unit='s', low=0.05, high=60.0, dynamic=True)
    max_inference_time: float = setting(
        2.0, 'An inference that takes longer, and longer than five times its usual time, '
        'disarms. A policy process is then killed.', unit='s', low=0.1, high=600.0)
    max_rejections: int = setting(
        3, 'Chunks in a row that are rejected, or inferences that fail, before a fault is '
        'latched.', low=1, high=100)
    allow_missing_limits: bool = setting(
        False, 'Move joints whose limits neither robot_description nor joint_limits tells. They '
        'are then protected by their controller alone.')
    dry_run: bool = setting(
        False, 'Do everything but command the robot: what would be commanded goes to '
        '~/dry_run/joint_trajectory or ~/dry_run/position_commands.')
    auto_enable: bool = setting(
        False,
        'In a dry run, arm as soon as nothing forbids it, also again after a stop, a fault '
        'or a loop of the bag: for replays, where no operator is. Refused without dry_run.')

    def limit_rules(self, joints: Sequence[str]) -> Rules:
        """
        Return what is allowed beside the URDF.

        :raises ValueError: a name or a limit is none of ``joints``, or no limit.
        """
        lost = [name for name in self.gripper_joints
                if joints and not fnmatch.filter(joints, name)]
        if lost:
            raise ValueError(f"'gripper_joints' names joint '{lost[0]}', which is none of "
                             f"{', '.join(joints)}")
        return Rules(self.velocity_scale, self.acceleration_scale, self.max_acceleration,
                     self.position_margin, self.max_jump, self.max_tracking_error,
                     self.gripper_joints,
                     parse_tighter(self.joint_limits, joints) if joints else {},
                     parse_tighter(self.replace_limits, joints, 'replace_limits')
                     if joints else {})

    def guard_rules(self, added_delay_s: float = 0.0) -> GuardRules:
        """Return what the guard goes by. :param added_delay_s: to every inference."""
        return GuardRules(
            round(1e9 * self.max_chunk_age), round(1e9 * self.max_tracking_time),
            round(1e9 * (self.max_inference_time + added_delay_s)), self.max_rejections,
            self.allow_missing_limits, not self.dry_run)


def parse_tighter(texts: Sequence[str], joints: Sequence[str], setting: str = 'joint_limits'
                  ) -> dict[str, dict[str, float]]:
    """
    Return the limits that ``texts`` set, by joint; ``JOINT: lower -1.5, velocity 1.0``.

    JOINT may be a shell pattern; where several fit, the tightest counts.

    :raises ValueError: a text is none of these, or names no joint.
    """
    out: dict[str, dict[str, float]] = {}
    for text in texts:
        pattern, _, values = text.partition(':')
        found = fnmatch.filter(joints, pattern.strip())
        if not found:
            raise ValueError(f"'{setting}' names joint '{pattern.strip()}', which is none of "
                             f"{', '.join(joints)}")
        for value in values.split(','):
            key, number = _value(value, text, setting)
            for joint in found:
                pick = max if key == 'lower' else min
                old = out.setdefault(joint, {})
                old[key] = pick(number, old.get(key, number))
    return out


def _value(value: str, text: str, setting: str) -> tuple[str, float]:
    words = value.split()
    try:
        key, number = words[0], float(words[1])
    except (IndexError, ValueError):
        key, number = '', math.nan
    if len(words) != 2 or key not in TIGHTER or not math.isfinite(number) or (
            key in TIGHTER[2:] and number <= 0):
        raise ValueError(f"'{setting}' has '{text}', expected 'JOINT: KEY NUMBER, KEY NUMBER' "
                         f"with keys {', '.join(TIGHTER)}, velocity and acceleration above 0")
    return key, number
