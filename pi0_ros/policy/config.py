# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What can be set of the policy."""

from dataclasses import dataclass

from pi0_ros.checkpoint.config import RobotConfig
from pi0_ros.checkpoint.spec import (ACTIONS, Choices, COMPILE, DELTA, ENGINES, LETTERBOXES,
                                     PI_ZERO, POSE, VELOCITIES)
from pi0_ros.kinematics.hands import PLACE
from pi0_ros.policy import mock
from pi0_ros.setting import setting

AXES = ('frame', 'tool')
SCHEMAS = ('aloha', 'droid', 'libero', 'pi0_ros', 'custom')  # as remote/schemas.py has them
WORKERS = ('thread', 'process')
CHECKPOINTS = ('pi0', PI_ZERO)  # policies that are read from a folder, which says what it is
POLICIES = (*CHECKPOINTS, 'remote', *(f'mock_{kind}' for kind in mock.KINDS))


@dataclass(frozen=True)
class PolicyConfig:
    """Who decides, and how."""

    policy: str = setting(
        'pi0',
        'Who decides: PI0 from a checkpoint; pi_zero_pytorch, a network of that library; remote, '
        "a server of openpi's protocol; or a mock that needs none, for bringing up a robot.",
        choices=POLICIES)
    checkpoint: str = setting(
        '', "Checkpoint folder as training saved it; 'demo' is the small one for the simulated "
        'robot.', unit='folder')
    tokenizer: str = setting(
        '', "Folder with PaliGemma's tokenizer.json, or a name in the hub's cache on this disk,"
        ' for checkpoints without a tokenizer of their own. Nothing is fetched.', unit='folder')
    device: str = setting(
        'auto', 'Where the network runs; auto takes the GPU if there is one.',
        choices=('auto', 'cpu', 'cuda'))
    dtype: str = setting(
        'auto',
        'Number format of the network; auto is bfloat16 on a GPU, float32 on a processor.',
        choices=('auto', 'float32', 'bfloat16'))
    engine: str = setting(
        'auto',
        "Who computes: fast is this package's own path, reference transformers' code. auto "
        'checks the fast one against the reference at the start and falls back to it; fast '
        'refuses instead.', choices=ENGINES)
    compile: str = setting(  # noqa: A003
        'auto',
        'Let torch compile the fast path, which takes half a minute at the first start; auto '
        'compiles on a GPU.', choices=COMPILE)
    denoising_steps: int = setting(
        0, "Fewer are faster and rougher; 0 takes the checkpoint's.",
        unit='steps', low=0, high=100)
    chunk_length: int = setting(
        0, "Of an action chunk; 0 takes the checkpoint's. openpi's training in PyTorch does "
        'not record it.', unit='steps', low=0, high=1000)
    action_rate: float = setting(
        0.0, 'Control rate of the training data, which times the actions; 0 takes the '
        "checkpoint's. A guess here makes the robot too fast or too slow.",
        unit='Hz', low=0.0, high=1000.0)
    action_offset: int = setting(
        -1, 'Periods after the observation at which the first action of a chunk is due: 0 where '
        'the training data has the command that was sent after the observation (recorded by '
        "LeRobot, ALOHA, openpi's examples), 1 where it has the next state; -1 takes the "
        "checkpoint's, which is 0 unless it says otherwise.",
        unit='periods', low=-1, high=10)
    actions: str = setting(
        'auto', 'What the actions mean, which no checkpoint records: positions of joints; '
        "velocities, as DROID's, which are added up from where the robot is; end_effector_pose, "
        'where the tools of end_effectors shall be, or end_effector_delta, steps from there, as '
        "LIBERO's. Asked for where they do not look like positions.", choices=('auto', *ACTIONS))
    velocity_of_training: float = setting(
        0.0, 'With actions velocities: what an action of 1 was. 1.0 where the data has rad/s; '
        "DROID's controller makes 0.2 rad of it in 1/15 s: 3.0.",
        unit='rad/s or m/s', low=0.0, high=100.0)
    position_joints: tuple[str, ...] = setting(
        (), 'With actions velocities: joints whose actions are positions all the same, such as '
        'the gripper; [none] if all are velocities.')
    step_of_training: float = setting(
        0.0, 'With actions end_effector_delta: how far the tool went in one period for a step of '
        '1. 1.0 where the data has metres that it went; less than what was asked for where, as in '
        'LIBERO, each goal is set from where the hand is and not reached: docs/tools.md.',
        unit='m', low=0.0, high=10.0)
    turn_of_training: float = setting(
        0.0, 'The same for a turn of 1.', unit='rad', low=0.0, high=10.0)
    step_axes: str = setting(
        'auto', 'With actions end_effector_delta: whose axes steps are along, those of the frame '
        "(LIBERO, BridgeData) or the tool's own; auto is refused.",
        choices=('auto', *AXES))
    tool_tolerance: float = setting(
        0.001, 'How far a tool of end_effectors may be from where the policy wants it; a chunk '
        'that the joints cannot follow so closely is dropped.', unit='m', low=0.0001, high=0.1)
    turn_tolerance: float = setting(
        0.0087, 'The same of its rotation. Wide, 3.2, it lets an arm of five joints do what it '
        'can.', unit='rad', low=0.001, high=3.2)
    relative_joints: tuple[str, ...] = setting(
        (), "Joints whose actions are relative to the observation's state; [none] for none. "
        'Empty takes what the checkpoint records; openpi records nothing.')
    letterbox: str = setting(
        'auto', "How images are fitted; auto takes the newest of the trainer's family. LeRobot "
        '0.4.0 to 0.4.4 and 0.3 did it differently and left no trace of it.',
        choices=('auto', *LETTERBOXES))
    state_in_prompt: str = setting(
        'auto', "Whether prompts of openpi's pi0.5 have the state in them; no where it was "
        'trained with discrete_state_input=False, which nothing records. auto is yes, with a '
        'warning.',
        choices=('auto', 'yes', 'no'))
    assets: str = setting(
        '', "Below the checkpoint's assets/, for openpi checkpoints with more than one "
        'norm_stats.json.', unit='folder')
    seed: int = setting(
        0, 'Of the noise that denoising starts from.', low=0, high=2147483647)
    worker: str = setting(
        'thread',
        'Where the policy runs: in a thread of the node, or in a process of its own, whose '
        'Python code and whose crash leave the control loop alone.', choices=WORKERS)
    torch_threads: int = setting(
        1, 'Processor threads of torch. One leaves the other cores to the control loop; more '
        'make inference on a processor faster and unsteady.', unit='threads', low=1, high=256)
    server: str = setting(
        '', 'With policy remote: where the server is, ws://HOST:8000, or wss:// behind a proxy '
        'that encrypts. The protocol itself does neither encrypt nor ask who is there.')
    server_schema: str = setting(
        '', 'What the server calls the parts of an observation: aloha, droid or libero as openpi '
        'has them, pi0_ros for a server of this package, custom for what server_map says.',
        choices=('', *SCHEMAS))
    server_map: tuple[str, ...] = setting(
        (), 'With server_schema custom: what is sent under which key, a dot for a map in a map: '
        "server_map: {image: 'camera front, hwc, 224x224', images: {wrist: 'camera wrist, chw, "
        "224x224, float32'}, joints: 'state, 0 to 5', gripper: 'state, 6 to 6', prompt: "
        'instruction}. docs/remote.md has all words.', nested=())
    server_deadline: float = setting(
        0.8, 'From asking the server to its answer. What comes later is not used: the connection '
        'is closed, the robot comes to rest at the end of its plan and goes on when the server '
        'answers again. Shorter than max_inference_time.', unit='s', low=0.01, high=600.0)
    server_raw_images: bool = setting(
        False, 'Send a server of this package images as they come, 2.8 MB for three of 640 x 480, '
        'instead of fitted to what the network reads, 0.45 MB. Fitted ones are rounded to whole '
        "grey levels, which only openpi's letterbox is anyway.")
    server_key_file: str = setting(
        '', 'File with the key that the server asks for, one line.', unit='file')
    server_ca: str = setting(
        '', "File with the certificate that signed the server's, for wss:// without one that the "
        'system knows.', unit='file')
    mock_amplitude: float = setting(
        0.1, 'Swing of policy mock_sine.', unit='rad or m', low=0.0, high=1.0)
    added_delay: float = setting(
        0.0, 'Added to every inference: what a slower machine would do.',
        unit='s', low=0.0, high=10.0, dynamic=True)
    mock_script: tuple[float, ...] = setting(
        (0.0,), 'Poses of policy mock_scripted, one after another, each with a value per joint.',
        unit='rad or m')

    @property
    def dt_ns(self) -> int:
        """Return the control period of the training data, 0 where the checkpoint knows it."""
        return round(1e9 / self.action_rate) if self.action_rate else 0

    @property
    def has_checkpoint(self) -> bool:
        """Return whether it is read from a folder."""
        return self.policy in CHECKPOINTS

    def choices(self, robot: RobotConfig) -> Choices:
        """
        Return what is said of the checkpoint.

        :param robot: with a name for every number of an action, see ``RobotConfig.in_numbers``.
        :raises ValueError: a joint is named that is none of ``joint_names``, the letterbox is
            unknown, or velocities or steps are not told whole.
        """
        action_names = robot.joint_names
        if self.letterbox not in ('auto', *LETTERBOXES):
            raise ValueError(f"'letterbox' is {self.letterbox!r}, expected one of auto, "
                             f"{', '.join(LETTERBOXES)}")

        def indices(setting_: str) -> tuple[int, ...] | None:
            given = getattr(self, setting_)
            if given == ('none',):
                return ()
            found = {name: [index for index, action in enumerate(action_names)
                            if action == name or action.startswith(f'{name}.')]
                     for name in given}
            unknown = [name for name in given if not found[name]]
            if unknown:
                raise ValueError(f"'{setting_}' names '{unknown[0]}', which is none of "
                                 f"joint_names {', '.join(action_names)}")
            return tuple(index for name in given for index in found[name]) if given else None

        positions = indices('position_joints')
        if self.actions == VELOCITIES and (positions is None or not self.velocity_of_training):
            raise ValueError("'actions' is velocities: set 'velocity_of_training' to what an "
                             'action of 1 was (1.0 where the data has rad/s, 3.0 for DROID), and '
                             "'position_joints' to the gripper, or to [none]")
        if self.actions != VELOCITIES and (positions is not None or self.velocity_of_training):
            raise ValueError("'velocity_of_training' and 'position_joints' are of 'actions' "
                             f'velocities, which is {self.actions}: set it, or leave them out')
        self._require_steps()
        return Choices('' if self.letterbox == 'auto' else self.letterbox,
                       indices('relative_joints'), self.assets, self.chunk_length,
                       '' if self.actions == 'auto' else self.actions,
                       {'yes': False, 'no': True}.get(self.state_in_prompt),
                       self.velocity_of_training, positions or (),
                       tuple((index, robot.states.index(name) if name in robot.states else -1)
                             for index, name in enumerate(action_names)
                             if self.actions in (POSE, DELTA)
                             and name in getattr(robot, 'of_tools', ())
                             and name.rpartition('.')[2] in PLACE))

    def _require_steps(self) -> None:
        """Refuse steps that are not told whole, and what is told of them where there are none."""
        told = bool(self.step_of_training and self.turn_of_training)
        if self.actions == DELTA and not (told and self.step_axes in AXES):
            raise ValueError("'actions' is end_effector_delta: set 'step_of_training' and "
                             "'turn_of_training' to how far the tool went in one period for an "
                             'action of 1 (1.0 where the data has the metres and radians that it '
                             "went), and 'step_axes' to frame or tool")
        if self.actions != DELTA and (self.step_of_training or self.turn_of_training
                                      or self.step_axes != 'auto'):
            raise ValueError("'step_of_training', 'turn_of_training' and 'step_axes' are of "
                             f"'actions' end_effector_delta, which is {self.actions}: set it, or "
                             'leave them out')
