"""The node's parameters: one table that declares, checks, documents and reads them."""

import difflib
import math
import textwrap
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node
from rclpy.parameter import Parameter

from pi0_ros.control.handover import JACOBIANS, STRATEGIES
from pi0_ros.policy import mock
from pi0_ros.policy.factory import WORKERS, complete
from pi0_ros.policy.fit import ADAPTATIONS
from pi0_ros.policy.mapping import NONE
from pi0_ros.policy.spec import COMPILE, ENGINES, LETTERBOXES
from pi0_ros.ros.commands import INTERFACES

SLOWEST_POSITIONS_HZ = 20
POLICIES = ('pi0', *(f'mock_{kind}' for kind in mock.KINDS))


class ParameterError(Exception):
    """Parameters are wrong; the text has one sentence for each."""


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
    Entry('max_skew', 0.15, 's', 'Images and joint states further apart than this stop the robot. '
          'A camera at 10 Hz is 0.1 s behind before anything is wrong.', 0.001, 10.0,
          dynamic=True, group='Inputs'),
    Entry('known_instructions', [''], 'patterns', 'Shell patterns such as *red*: an instruction '
          'that fits none is refused and the robot holds. Empty accepts all; a policy does '
          'something for any text, also for one it was never trained on.', dynamic=True,
          group='Inputs'),
    Entry('control_rate', 50.0, 'Hz', 'How often a trajectory is published. Any rate fits any '
          'action_rate.', 1.0, 100.0, group='Control'),
    Entry('command_interface', 'trajectory', '', 'trajectory: a window of the next 0.2 s on '
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
    Entry('realtime_priority', 10, '', 'SCHED_FIFO priority of the control thread, where the '
          "system grants it (rtprio in /etc/security/limits.conf); below the controller's 50. 0 "
          'asks for none.', 0, 49, group='Control'),
    Entry('allow_missing_limits', False, '', 'Move without position limits when no '
          'robot_description arrives. The robot is then protected by its controller alone.',
          group='Control'),
    Entry('autostart', True, '', 'Configure and activate without a lifecycle manager. The robot '
          'stays disarmed until ~/enable.', group='Node'),
)
BY_NAME = {entry.name: entry for entry in TABLE}
# Parameters of ROS itself that may be set on any node.
FOREIGN = ('use_sim_time', 'qos_overrides.', 'start_type_description_service')


def declare(node: Node) -> list[str]:
    """Declare the table on ``node``; return one sentence for every override that is wrong.

    The node must have been made with ``automatically_declare_parameters_from_overrides``, so that
    a wrong type or an unknown name is a sentence at configuration and not a crash before it.
    """
    problems = []
    for name in list(node._parameters):  # noqa: SLF001 - rclpy lists only by prefix
        if name not in BY_NAME and not name.startswith(FOREIGN):
            close = difflib.get_close_matches(name, BY_NAME, 1)
            hint = f", did you mean '{close[0]}'?" if close else ': see config/pi0.yaml'
            problems.append(f"parameter '{name}' is unknown{hint}")
    for entry in TABLE:
        value = entry.default
        if node.has_parameter(entry.name):
            given = node.get_parameter(entry.name).value
            node.undeclare_parameter(entry.name)
            problem = check(entry, given)
            if problem:
                problems.append(problem)
            else:
                value = float(given) if isinstance(value, float) else given
        node.declare_parameter(entry.name, value, descriptor(entry), ignore_override=True)
    return problems


def check(entry: Entry, value: Any) -> str | None:
    """Return a sentence naming parameter, value and rule if ``value`` breaks it, else None."""
    given = f"parameter '{entry.name}' is {value!r}"
    kind = type(entry.default)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if kind is list:
        if not hasattr(value, '__len__') or isinstance(value, (str, bytes)) or not all(
                isinstance(item, (type(entry.default[0]),)) for item in value):
            return f'{given}, expected a list of {_type_name(entry.default[0])}'
        return None
    if not isinstance(value, kind) or isinstance(value, bool) != (kind is bool):
        return f'{given}, expected {_type_name(entry.default)}'
    if entry.choices and value not in entry.choices:
        return f"{given}, expected one of {', '.join(entry.choices)}"
    if entry.low is not None and not (math.isfinite(value) and entry.low <= value <= entry.high):
        unit = f' {entry.unit}' if entry.unit else ''
        return f'{given}, expected {entry.low} to {entry.high}{unit}'
    return None


def _type_name(value: Any) -> str:
    return {str: 'text', float: 'numbers with a decimal point', int: 'a whole number',
            bool: 'true or false'}[type(value)]


def descriptor(entry: Entry) -> ParameterDescriptor:
    """Return what ``ros2 param describe`` shows."""
    out = ParameterDescriptor(description=f'{entry.description} [{entry.unit or "no unit"}]',
                              read_only=not entry.dynamic,
                              additional_constraints=', '.join(entry.choices))
    if isinstance(entry.default, float) and entry.low is not None:
        out.floating_point_range = [FloatingPointRange(from_value=entry.low,
                                                       to_value=entry.high)]
    elif type(entry.default) is int and entry.low is not None:
        out.integer_range = [IntegerRange(from_value=int(entry.low), to_value=int(entry.high))]
    return out


def read(node: Node, problems: list[str]) -> SimpleNamespace:
    """Return the values of all parameters, empty texts in lists removed from the end.

    :raises ParameterError: ``problems`` is not empty, or values do not fit together.
    """
    values = SimpleNamespace(**{entry.name: node.get_parameter(entry.name).value
                                for entry in TABLE})
    complete(values)
    values.relative_joints = tuple(values.relative_joints)
    values.known_instructions = tuple(text for text in values.known_instructions if text)
    problems = list(problems) + _cross_check(values)
    if problems:
        raise ParameterError('; '.join(problems))
    return values


def _cross_check(values: SimpleNamespace) -> list[str]:
    problems = []
    joints, cameras = values.joint_names, [name for name in values.cameras if name]
    if not joints:
        problems.append("parameter 'joint_names' is empty, expected the joints in the order of "
                        "the checkpoint's state")
    states = [name for name in values.state_names if name != NONE]
    for kind, names in (('joint_names', joints), ('state_names', states), ('cameras', cameras)):
        twice = sorted({name for name in names if list(names).count(name) > 1})
        if twice:
            problems.append(f"parameter '{kind}' names '{twice[0]}' twice")
    if not cameras:
        problems.append("parameter 'cameras' is empty, expected the checkpoint's camera for "
                        'at least one slot')
    if len(values.cameras) > 3:
        problems.append(f"parameter 'cameras' has {len(values.cameras)} entries, expected at most "
                        '3')
    if values.command_interface == 'positions' and values.control_rate < SLOWEST_POSITIONS_HZ:
        problems.append(f"parameter 'control_rate' is {values.control_rate}, expected at least "
                        f'{SLOWEST_POSITIONS_HZ} Hz for command_interface positions')
    if values.policy == 'pi0' and not values.checkpoint:
        problems.append("parameter 'checkpoint' is empty, expected a checkpoint folder, or 'demo'")
    if values.policy == 'mock_scripted' and joints and len(values.mock_script) % len(joints):
        problems.append(f"parameter 'mock_script' has {len(values.mock_script)} values, expected "
                        f'a multiple of the {len(joints)} joints')
    return problems


def validate_change(parameters: list[Parameter]) -> str | None:
    """Return why a change at run time is refused, or None."""
    for parameter in parameters:
        entry = BY_NAME.get(parameter.name)
        problem = entry and check(entry, parameter.value)
        if problem:
            return problem
    return None


def as_yaml() -> str:
    """Return the text of ``config/pi0.yaml``: every parameter with default, unit and reason."""
    lines = ['# Every parameter of the node pi0, with its default. Copy this file, keep what you',
             '# change, and start with: ros2 launch pi0_ros pi0.launch.py params_file:=YOUR.yaml',
             '/**:', '  ros__parameters:']
    group = ''
    for entry in TABLE:
        if entry.group != group:
            group = entry.group
            lines += ['', f'    # ---- {group} ----']
        lines += [f'    # {line}' for line in textwrap.wrap(_comment(entry), 92)]
        lines.append(f'    {entry.name}: {_yaml_value(entry.default)}')
    return '\n'.join(lines) + '\n'


def _comment(entry: Entry) -> str:
    facts = [entry.unit] if entry.unit else []
    if entry.choices:
        facts.append('one of ' + ', '.join(entry.choices))
    if entry.low is not None:
        facts.append(f'{entry.low} to {entry.high}')
    facts.append('may change while running' if entry.dynamic else 'read-only')
    return f'{entry.description} [{"; ".join(facts)}]'


def _yaml_value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"'{value}'"
    if isinstance(value, list):
        return '[' + ', '.join(_yaml_value(item) for item in value) + ']'
    return repr(value)
