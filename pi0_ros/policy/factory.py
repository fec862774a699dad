"""Makes the policy that the configuration names."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np

from pi0_ros.policy.mock import MockPolicy
from pi0_ros.policy.policy import Policy
from pi0_ros.policy.spec import LETTERBOXES, Choices

DEMO = Path(__file__).parents[1] / 'sim' / 'checkpoint'


def checkpoint_folder(name: str) -> Path:
    """Return the folder that a checkpoint parameter means; 'demo' is the one in the package."""
    return DEMO if name == 'demo' else Path(name).expanduser()


def make_policy(values: SimpleNamespace) -> Policy:
    """Return the policy for the node's parameters, not loaded yet.

    :raises CheckpointError: the checkpoint cannot be used.
    :raises ValueError: joints or cameras do not fit it.
    """
    joints = len(values.joint_names)
    if values.policy != 'pi0':
        return MockPolicy(
            values.policy.removeprefix('mock_'), amplitude=values.mock_amplitude,
            dt_ns=round(1e9 / values.action_rate) if values.action_rate else 20_000_000,
            delay_s=values.mock_delay,
            script=np.array(values.mock_script).reshape(-1, joints)
            if values.policy == 'mock_scripted' else None)
    from pi0_ros.policy.pi0 import Pi0Policy  # torch takes seconds to import, a mock needs none
    policy = Pi0Policy(
        checkpoint_folder(values.checkpoint),
        dt_ns=round(1e9 / values.action_rate) if values.action_rate else 0, device=values.device,
        dtype=values.dtype, steps=values.denoising_steps, seed=values.seed,
        threads=values.torch_threads,
        tokenizer=Path(values.tokenizer).expanduser() if values.tokenizer else None,
        choices=choices_from(values))
    _require_fit(policy, values)
    return policy


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
        unknown = [name for name in names if name not in values.joint_names]
        if unknown:
            raise ValueError(f"parameter 'relative_joints' names '{unknown[0]}', which is none of "
                             f"joint_names {', '.join(values.joint_names)}")
        relative = tuple(list(values.joint_names).index(name) for name in names)
    return Choices('' if values.letterbox == 'auto' else values.letterbox, relative, values.assets)


def _require_fit(policy: Policy, values: SimpleNamespace) -> None:
    spec, joints = policy.spec, values.joint_names
    if not spec.state_width == spec.action_width == len(joints):
        raise ValueError(
            f"parameter 'joint_names' has {len(joints)} joints, the checkpoint has "
            f'{spec.state_width} states and {spec.action_width} actions'
            + (f" named {', '.join(spec.action_names)}" if spec.action_names else ''))
    if spec.action_names and set(spec.action_names) == set(joints) \
            and spec.action_names != joints:
        raise ValueError(f"parameter 'joint_names' is {', '.join(joints)}, but the checkpoint's "
                         f"order is {', '.join(spec.action_names)}")
    unknown = [name for name in values.cameras if name and name not in spec.cameras]
    if unknown:
        raise ValueError(f"parameter 'cameras' names '{unknown[0]}', but the checkpoint's cameras "
                         f"are {', '.join(spec.cameras)}")
