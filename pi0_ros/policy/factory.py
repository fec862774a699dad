# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Makes the policy that the configuration names."""

from collections.abc import Callable
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pi0_ros.checkpoint.config import RobotConfig
from pi0_ros.checkpoint.fit import fit, table, unfed
from pi0_ros.checkpoint.mapping import NONE
from pi0_ros.checkpoint.reader import read, trained_delay
from pi0_ros.checkpoint.spec import DELTA, NETWORKS, PI_ZERO, PolicySpec
from pi0_ros.kinematics.arm import MISSING, pinocchio
from pi0_ros.kinematics.urdf import UrdfError
from pi0_ros.policy.config import CHECKPOINTS, PolicyConfig
from pi0_ros.policy.hands import HandPolicy, require, Seen
from pi0_ros.policy.mock import MockPolicy
from pi0_ros.policy.policy import Body, Policy
from pi0_ros.weights.files import CheckpointError, read_json
from pi0_ros.weights.places import locate

if TYPE_CHECKING:
    from pi0_ros.policy.pi0 import Pi0Policy

log = logging.getLogger(__name__)
DECIDE = (*CHECKPOINTS, 'remote')  # policies that may speak of poses of tools
DEMO = Path(__file__).parents[1] / 'sim' / 'checkpoint'


def checkpoint_folder(name: str) -> Path:
    """Return the folder that is meant; 'demo' is the one in the package, see ``locate``."""
    return DEMO if name == 'demo' else locate(name)


def declares_training(name: str) -> bool:
    """
    Return whether a checkpoint says that it was trained for hand-over rtc_trained.

    What cannot be read says nothing here; who loads it is told.
    """
    try:
        return trained_delay(read_json(checkpoint_folder(name) / 'config.json')) > 0
    except (CheckpointError, ValueError, OSError):
        return False


def make_inner(config: PolicyConfig, robot: RobotConfig, rtc: str = '') -> Policy:
    """
    Return the policy that is configured, in this process and not loaded yet.

    Without what stands between poses and joints.

    :param robot: as ``in_numbers`` returns it.
    :raises CheckpointError: the checkpoint cannot be used.
    :raises ValueError: joints or cameras do not fit it.
    """
    joints = len(robot.commanded)
    if not config.has_checkpoint:
        return MockPolicy(
            config.policy.removeprefix('mock_'), joints=joints, amplitude=config.mock_amplitude,
            dt_ns=config.dt_ns or 20_000_000, script=np.array(config.mock_script).reshape(
                -1, joints) if config.policy == 'mock_scripted' else None)
    return _of_checkpoint(config, robot, rtc)


def in_numbers(config: PolicyConfig, robot: RobotConfig) -> RobotConfig:
    """
    Return the robot with a name for each number of a tool's pose, as the network has them.

    :raises ValueError: tools and actions do not fit together.
    """
    if config.policy not in DECIDE:
        return robot
    require(config, robot)
    return robot.in_numbers(config.actions == DELTA)


def with_hands(inner: Policy, config: PolicyConfig, robot: RobotConfig,
               body: Callable[[], Body] | None = None, spec: PolicySpec | None = None) -> Policy:
    """
    Return a policy that speaks of joints, for one that may speak of poses of tools.

    :param body: tells what is known of the robot, whenever it is asked; poses need it.
    :param spec: of the checkpoint, where it has been read already.
    """
    numbers = in_numbers(config, robot)
    if numbers is robot:
        return inner
    if pinocchio is None:
        raise UrdfError('no_pinocchio', MISSING)
    if config.has_checkpoint:
        spec = spec or read(checkpoint_folder(config.checkpoint), config.choices(numbers))
    none, seen = np.zeros(0), None if spec is None else Seen.of(spec, fit(spec, numbers), numbers)
    return HandPolicy(inner, config, robot, seen, body or (lambda: Body(None, none, none)))


def policy_class(folder: Path) -> type['Pi0Policy']:
    """Return the class whose objects decide with the checkpoint in ``folder``."""
    # torch takes seconds to import, a mock needs none
    path = folder / 'config.json'
    if path.exists() and read_json(path).get('type') == PI_ZERO:
        from pi0_ros.policy.pi_zero import PiZeroPolicy
        return PiZeroPolicy
    from pi0_ros.policy.pi0 import Pi0Policy
    return Pi0Policy


def require_every_joint(spec: PolicySpec, robot: RobotConfig, rtc: str) -> None:
    """
    Refuse a hand-over that gives the network whole actions, where some have no joint.

    :raises ValueError: it would be given a guess.
    """
    every = spec.network == PI_ZERO  # guides all actions or none
    if NONE in robot.joint_names and rtc and (rtc == 'trained' or every):
        raise ValueError(f"hand-over '{'rtc_trained' if rtc == 'trained' else 'rtc'}' needs a "
                         f"joint for every action, but joint_names has '{NONE}', which the "
                         "network would be given a guess for: set 'handover' to "
                         f"{'blend' if every else 'rtc'}")


def _of_checkpoint(config: PolicyConfig, robot: RobotConfig, rtc: str) -> 'Pi0Policy':
    folder = checkpoint_folder(config.checkpoint)
    policy = policy_class(folder)(
        folder, dt_ns=config.dt_ns, offset=config.action_offset,
        device=config.device,
        dtype=config.dtype, steps=config.denoising_steps, seed=config.seed,
        threads=config.torch_threads, tokenizer=config.tokenizer,
        choices=config.choices(robot), engine=config.engine, compiled=config.compile,
        rtc=rtc)
    if config.policy == PI_ZERO and policy.spec.network != PI_ZERO:
        raise CheckpointError(f"checkpoint '{folder}' is {NETWORKS[policy.spec.network]}: set "
                              "'policy' to pi0")
    policy.joints = fit(policy.spec, robot)
    require_every_joint(policy.spec, robot, policy.rtc)
    every = policy.spec.network == PI_ZERO
    fed = {policy.spec.camera(name) for name in robot.cameras}
    policy.cameras = tuple(name for name in policy.spec.cameras if name in fed)
    log.info(f'{policy.spec.layout} checkpoint ({policy.spec.trainer}) and this robot:\n'
             + table(policy.spec, robot))
    if unfed(policy.spec, robot) and every:
        raise ValueError("no slot feeds the checkpoint's cameras "
                         f"{', '.join(unfed(policy.spec, robot))}, and a network of "
                         'pi-zero-pytorch cannot do without: set \'cameras\'')
    if unfed(policy.spec, robot):
        log.warning("no slot feeds the checkpoint's cameras "
                    f"{', '.join(unfed(policy.spec, robot))}: the policy decides without them, "
                    'which is right only if it was trained so')
    return policy
