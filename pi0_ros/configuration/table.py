"""The table of the node's parameters: name, default, unit, range and reason of each."""

from dataclasses import dataclass
from typing import Any

from pi0_ros.checkpoint.fit import ADAPTATIONS
from pi0_ros.checkpoint.spec import COMPILE, ENGINES, LETTERBOXES
from pi0_ros.motion.handover import JACOBIANS, STRATEGIES
from pi0_ros.policy import mock
from pi0_ros.policy.factory import WORKERS

INTERFACES = ('trajectory', 'positions')
POLICIES = ('pi0', *(f'mock_{kind}' for kind in mock.KINDS))


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


TABLE = (
    Entry('policy', 'pi0', '', 'Who decides: PI0 from a checkpoint, or a mock that needs none, '
          'for bringing up a robot.', choices=POLICIES, group='Policy'),
    Entry('checkpoint', '', 'folder', "Checkpoint folder as training saved it; 'demo' is the "
          'small one for the simulated robot.', group='Policy'),
    Entry('tokenizer', '', 'folder', "Folder with PaliGemma's tokenizer.json, or a name in the "
          "hub's cache on this disk, for checkpoints without a tokenizer of their own. Nothing is "
          'fetched.', group='Policy'),
    Entry('device', 'auto', '', 'Where the network runs; auto takes the GPU if there is one.',
          choices=('auto', 'cpu', 'cuda'), group='Policy'),
    Entry('dtype', 'auto', '', 'Number format of the network; auto is bfloat16 on a GPU, float32 '
          'on a processor.', choices=('auto', 'float32', 'bfloat16'), group='Policy'),
    Entry('engine', 'auto', '', "Who computes: fast is this package's own path, reference "
          "transformers' code. auto checks the fast one against the reference at the start and "
          'falls back to it; fast refuses instead.', choices=ENGINES, group='Policy'),
    Entry('compile', 'auto', '', 'Let torch compile the fast path, which takes a minute at the '
          'start; auto compiles on a GPU.', choices=COMPILE, group='Policy'),
    Entry('denoising_steps', 0, 'steps', "Fewer are faster and rougher; 0 takes the checkpoint's.",
          0, 100, group='Policy'),
    Entry('chunk_length', 0, 'steps', "Of an action chunk; 0 takes the checkpoint's. openpi's "
          'training in PyTorch does not record it.', 0, 1000, group='Policy'),
    Entry('action_rate', 0.0, 'Hz', 'Control rate of the training data, which times the actions; '
          "0 takes the checkpoint's. A guess here makes the robot too fast or too slow.", 0.0,
          1000.0, group='Policy'),
    Entry('relative_joints', [''], '', "Joints whose actions are relative to the observation's "
          'state; [none] for none. Empty takes what the checkpoint records; openpi records '
          'nothing.', group='Policy'),
    Entry('letterbox', 'auto', '', "How images are fitted; auto takes the newest of the trainer's "
          'family. LeRobot 0.4.0 to 0.4.4 and 0.3 did it differently and left no trace of it.',
          choices=('auto', *LETTERBOXES), group='Policy'),
    Entry('assets', '', 'folder', "Below the checkpoint's assets/, for openpi checkpoints with "
          'more than one norm_stats.json.', group='Policy'),
    Entry('seed', 0, '', 'Of the noise that denoising starts from.', 0, 2**31 - 1, group='Policy'),
    Entry('worker', 'thread', '', 'Where the policy runs: in a thread of the node, or in a '
          'process of its own, whose Python code and whose crash leave the control loop alone.',
          choices=WORKERS, group='Policy'),
    Entry('torch_threads', 1, 'threads', 'Processor threads of torch. One leaves the other cores '
          'to the control loop; more make inference on a processor faster and unsteady.', 1, 256,
          group='Policy'),
    Entry('mock_amplitude', 0.1, 'rad or m', 'Swing of policy mock_sine.', 0.0, 1.0,
          group='Policy'),
    Entry('added_delay', 0.0, 's', 'Added to every inference: what a slower machine would do.',
          0.0, 10.0, dynamic=True, group='Policy'),
    Entry('mock_script', [0.0], 'rad or m', 'Poses of policy mock_scripted, one after another, '
          'each with a value per joint.', group='Policy'),
    Entry('joint_names', [''], '', "Joints in the order of the checkpoint's actions, and of its "
          "state unless state_names says otherwise. '-' stands for an action that no joint takes. "
          'Required: a permuted order is a different robot.', group='Inputs'),
    Entry('state_names', [''], '', "Joints in the order of the checkpoint's state, where it is "
          "not that of the actions. '-' stands for a joint that the robot does not have: the "
          'policy then reads the mean of its training.', group='Inputs'),
    Entry('conversions', [''], '', "Units, where the checkpoint's are not the robot's: 'JOINT: "
          "RULE, RULE', rules in their order: degree, sign -1, A B -> C D (what the robot calls A "
          "and B, the checkpoint calls C and D), offset X in the checkpoint's unit. JOINT may be "
          "a shell pattern; a name goes before a pattern. ['*: degree', 'gripper: 0.0 0.04 -> 0 "
          "100'].", group='Inputs'),
    Entry('adaptation', 'none', '', "openpi's adapt_to_pi: aloha flips and rescales the joints of "
          'one or two ALOHA arms as the pi0 base model has them, after conversions.',
          choices=ADAPTATIONS, group='Inputs'),
    Entry('cameras', [''], '', "The checkpoint's camera for each slot: the first entry is what "
          "topic camera_1/image_raw shows, and so on, at most three. '' leaves a slot empty.",
          group='Inputs'),
    Entry('image_transport', 'raw', '', 'Subscribe to image_raw or to image_raw/compressed.',
          choices=('raw', 'compressed'), group='Inputs'),
    Entry('max_joint_age', 0.1, 's', 'Joint states older than this stop the robot.', 0.01, 10.0,
          dynamic=True, group='Inputs'),
    Entry('max_image_age', 0.2, 's', 'A camera whose newest image is older than this stops the '
          'robot.', 0.01, 10.0, dynamic=True, group='Inputs'),
    Entry('max_skew', 0.2, 's', 'Images and joint states further apart than this stop the robot: '
          'raise it with max_image_age. A camera at 10 Hz with some latency is 0.15 s behind '
          'before anything is wrong.', 0.001, 10.0,
          dynamic=True, group='Inputs'),
    Entry('known_instructions', [''], 'patterns', 'Shell patterns such as *red*: an instruction '
          'that fits none is refused and the robot holds. Empty accepts all; a policy does '
          'something for any text, also for one it was never trained on.', dynamic=True,
          group='Inputs'),
    Entry('control_rate', 50.0, 'Hz', 'How often a trajectory is published. Any rate fits any '
          'action_rate.', 1.0, 100.0, group='Control'),
    Entry('command_interface', 'trajectory', '', 'trajectory: windows of the plan on '
          'joint_trajectory, for a joint_trajectory_controller. positions: where the plan is now '
          'on position_commands, without names or time, for a forward_position_controller; needs '
          'a control_rate of 20 Hz and more.', choices=INTERFACES, group='Control'),
    Entry('handover', 'blend', '', 'How a new chunk takes over: blend over 0.1 s; rtc (real-time '
          'chunking): the network itself continues what is executed while it infers; rtc_trained '
          'the same in the way a checkpoint was trained for; switch at once; ensemble averages '
          'all chunks as ACT does; synchronous stops, infers and plays a chunk whole. '
          'docs/control.md compares them.', choices=STRATEGIES, group='Control'),
    Entry('jacobian', 'identity', '', 'Of hand-over rtc: full differentiates the action expert, '
          'as the paper does, which takes longer; identity takes no gradient.',
          choices=JACOBIANS, group='Control'),
    Entry('replan_period', 0.3, 's', 'A new chunk is asked for when the newest observation is '
          'older than this, at the latest at half a chunk, and earlier where inference is '
          'measured to take long. Shorter reacts faster and computes more; 0 infers without a '
          'break.', 0.0, 10.0, dynamic=True, group='Control'),
    Entry('speed_scaling', 'auto', 'topic', 'Where the controller says how fast its time passes, '
          'in per cent (std_msgs/Float64): the plan then passes as slowly. auto takes what '
          '~/controller_state says, and for a controller called scaled_..., as a UR has, the one '
          'topic that ends in /speed_scaling; none ignores topics.', group='Control'),
    Entry('realtime_priority', 10, '', 'SCHED_FIFO priority of the control thread, where the '
          "system grants it (rtprio in /etc/security/limits.conf); below the controller's 50. 0 "
          'asks for none.', 0, 49, group='Control'),
    Entry('joint_limits', [''], '', "Limits that tighten those of robot_description, or stand in "
          "for it: 'JOINT: lower X, upper X, velocity X, acceleration X' in rad or m and seconds. "
          "JOINT may be a shell pattern. ['elbow: upper 1.5, velocity 1.0'].", group='Safety'),
    Entry('gripper_joints', [''], '', 'Joints that close on things, names or shell patterns: no '
          'margin, and no limit of jumps and tracking error, because a thing in the hand keeps '
          'them from where they are told to go and policies close them in one step.',
          group='Safety'),
    Entry('velocity_scale', 0.5, '', 'Share of the velocities of robot_description that is used. '
          'All joints are slowed by one factor.', 0.01, 1.0, group='Safety'),
    Entry('max_acceleration', 5.0, 'rad/s^2 or m/s^2', 'Of every joint; URDF has none. Stops are '
          'as fast as this allows.', 0.1, 1000.0, group='Safety'),
    Entry('acceleration_scale', 1.0, '', 'Share of max_acceleration, and of what joint_limits '
          'says, that is used; stops use all of it.', 0.01, 1.0, group='Safety'),
    Entry('position_margin', 0.05, 'rad or m', 'Kept from the position limits, at most 5 % of the '
          'range.', 0.0, 1.0, group='Safety'),
    Entry('max_jump', 0.2, 'rad', 'A chunk that begins further from where the robot is, or steps '
          'further, is rejected, and the robot is not armed for it. A prismatic joint: 10 % of '
          'its range.', 0.001, 10.0, group='Safety'),
    Entry('max_tracking_error', 0.3, 'rad', 'A robot that is further from where it is told to be, '
          'for longer than max_tracking_time, is disarmed. A prismatic joint: 15 % of its range.',
          0.001, 10.0, group='Safety'),
    Entry('max_tracking_time', 0.2, 's', 'See max_tracking_error.', 0.0, 10.0, group='Safety'),
    Entry('max_chunk_age', 0.5, 's', 'A chunk whose observation is older when it comes is '
          'rejected.', 0.05, 60.0, dynamic=True, group='Safety'),
    Entry('max_inference_time', 2.0, 's', 'An inference that takes longer, and longer than five '
          'times its usual time, disarms. A policy process is then killed.', 0.1, 600.0,
          group='Safety'),
    Entry('max_rejections', 3, '', 'Chunks in a row that are rejected, or inferences that fail, '
          'before a fault is latched.', 1, 100, group='Safety'),
    Entry('allow_missing_limits', False, '', 'Move joints whose limits neither robot_description '
          'nor joint_limits tells. They are then protected by their controller alone.',
          group='Safety'),
    Entry('dry_run', False, '', 'Do everything but command the robot: what would be commanded '
          'goes to ~/dry_run/joint_trajectory or ~/dry_run/position_commands.', group='Safety'),
    Entry('auto_enable', False, '', 'In a dry run, arm as soon as nothing forbids it, also again '
          'after a stop, a fault or a loop of the bag: for replays, where no operator is. Refused '
          'without dry_run.', group='Safety'),
    Entry('autostart', True, '', 'Configure and activate without a lifecycle manager. The robot '
          'stays disarmed until ~/enable.', group='Node'),
)
