"""Makes the policy that the configuration names."""

import logging
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from pi0_ros.checkpoint.fit import Robot, fit, table, unfed
from pi0_ros.checkpoint.layout_lerobot import IMAGES
from pi0_ros.checkpoint.mapping import NONE
from pi0_ros.checkpoint.spec import LETTERBOXES, Choices
from pi0_ros.policy.mock import MockPolicy
from pi0_ros.policy.policy import Policy
from pi0_ros.policy.process import RemotePolicy

log = logging.getLogger(__name__)
WORKERS = ('thread', 'process')
DEMO = Path(__file__).parents[1] / 'sim' / 'checkpoint'


def checkpoint_folder(name: str) -> Path:
    """Return the folder that a checkpoint parameter means; 'demo' is the one in the package."""
    return DEMO if name == 'demo' else Path(os.path.expanduser(name))


def make_policy(values: SimpleNamespace) -> Policy:
    """Return the policy for the node's parameters, in a process of its own if they say so.

    :raises CheckpointError: the checkpoint cannot be used.
    :raises ValueError: joints or cameras do not fit it.
    """
    return RemotePolicy(values) if values.worker == 'process' else make_local_policy(values)


def make_local_policy(values: SimpleNamespace) -> Policy:
    """Return the policy for the node's parameters, not loaded yet.

    :raises CheckpointError: the checkpoint cannot be used.
    :raises ValueError: joints or cameras do not fit it.
    """
    joints = len(values.joint_names)
    if values.policy != 'pi0':
        return MockPolicy(
            values.policy.removeprefix('mock_'), joints=joints, amplitude=values.mock_amplitude,
            dt_ns=round(1e9 / values.action_rate) if values.action_rate else 20_000_000,
            script=np.array(values.mock_script).reshape(-1, joints)
            if values.policy == 'mock_scripted' else None)
    from pi0_ros.policy.pi0 import Pi0Policy  # torch takes seconds to import, a mock needs none
    policy = Pi0Policy(
        checkpoint_folder(values.checkpoint),
        dt_ns=round(1e9 / values.action_rate) if values.action_rate else 0, device=values.device,
        dtype=values.dtype, steps=values.denoising_steps, seed=values.seed,
        threads=values.torch_threads,
        tokenizer=values.tokenizer, choices=choices_from(values), engine=values.engine,
        compiled=values.compile, rtc=rtc_kind(values.handover, values.jacobian))
    robot = robot_from(values)
    policy.joints = fit(policy.spec, robot)
    if policy.rtc == 'trained' and NONE in robot.action_names:
        raise ValueError("hand-over 'rtc_trained' needs a joint for every action, but joint_names "
                         f"has '{NONE}', which the network would be given a guess for: set "
                         "'handover' to rtc")
    policy.cameras = tuple(name for name in policy.spec.cameras if name in robot.cameras)
    log.info(f'{policy.spec.layout} checkpoint ({policy.spec.trainer}) and this robot:\n'
             + table(policy.spec, robot))
    if unfed(policy.spec, robot):
        log.warning("no slot feeds the checkpoint's cameras "
                    f"{', '.join(unfed(policy.spec, robot))}: the policy decides without them, "
                    'which is right only if it was trained so')
    return policy


def rtc_kind(handover: str, jacobian: str) -> str:
    """Return which of guidance.KINDS a hand-over wants."""
    return {'rtc': jacobian, 'rtc_trained': 'trained'}.get(handover, '')


def complete(values: SimpleNamespace) -> SimpleNamespace:
    """Return parameters with what follows from them.

    Empty texts are gone; ``joint_names`` are the commanded joints, ``action_names`` those with
    gaps, ``observed_names`` all, in the order of ``Observation.state``.
    """
    values.cameras = tuple(name.removeprefix(IMAGES) for name in values.cameras)
    for name in ('joint_names', 'state_names', 'conversions'):
        setattr(values, name, tuple(text for text in getattr(values, name) if text))
    values.action_names = values.joint_names
    robot = Robot(values.action_names, values.state_names)
    values.joint_names, values.observed_names = robot.commanded, robot.observed
    return values


def robot_from(values: SimpleNamespace) -> Robot:
    """Return what the parameters say of the robot."""
    return Robot(values.action_names, values.state_names, values.cameras, values.conversions,
                 values.adaptation)


def choices_from(values: SimpleNamespace) -> Choices:
    """Return what the parameters say of the checkpoint.

    :raises ValueError: ``relative_joints`` names a joint that is none of ``joint_names``, or the
        letterbox is unknown.
    """
    if values.letterbox not in ('auto', *LETTERBOXES):
        raise ValueError(f"parameter 'letterbox' is {values.letterbox!r}, expected one of auto, "
                         f"{', '.join(LETTERBOXES)}")
    relative = None
    names = [name for name in values.relative_joints if name]
    if names == ['none']:
        relative = ()
    elif names:
        unknown = [name for name in names if name not in values.action_names]
        if unknown:
            raise ValueError(f"parameter 'relative_joints' names '{unknown[0]}', which is none of "
                             f"joint_names {', '.join(values.action_names)}")
        relative = tuple(values.action_names.index(name) for name in names)
    return Choices('' if values.letterbox == 'auto' else values.letterbox, relative, values.assets,
                   values.chunk_length)
