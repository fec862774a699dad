# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Makes the policy that the configuration names, where it says that it runs."""

from collections.abc import Callable

from pi0_ros.checkpoint.config import RobotConfig
from pi0_ros.policy import factory
from pi0_ros.policy.config import PolicyConfig
from pi0_ros.policy.factory import in_numbers, with_hands
from pi0_ros.policy.policy import Body, Policy
from pi0_ros.workers.process import ProcessPolicy


def make_policy(config: PolicyConfig, robot: RobotConfig, rtc: str = '', hang_s: float = 2.0,
                body: Callable[[], Body] | None = None) -> Policy:
    """
    Return the policy that is configured, in a process of its own if it says so.

    :param rtc: one of guidance.KINDS that the hand-over wants, '' for none.
    :param hang_s: that an inference may take in a process, before that is killed.
    :param body: see ``with_hands``.
    :raises CheckpointError: the checkpoint, or what is said of a server, cannot be used.
    :raises ValueError: joints or cameras do not fit it.
    """
    if config.worker == 'process':
        return with_hands(ProcessPolicy(config, in_numbers(config, robot), rtc, hang_s), config,
                          robot, body)
    return make_local_policy(config, robot, rtc, body)


def make_local_policy(config: PolicyConfig, robot: RobotConfig, rtc: str = '',
                      body: Callable[[], Body] | None = None) -> Policy:
    """Return the same in this process, not loaded yet."""
    inner = make_inner(config, in_numbers(config, robot), rtc)
    return with_hands(inner, config, robot, body, getattr(inner, 'spec', None))


def make_inner(config: PolicyConfig, robot: RobotConfig, rtc: str = '') -> Policy:
    """
    Return the same without what stands between poses and joints.

    :param robot: as ``in_numbers`` returns it.
    """
    if config.policy != 'remote':
        return factory.make_inner(config, robot, rtc)
    from pi0_ros.remote.client import RemotePolicy  # the others need no websockets
    return RemotePolicy(config, robot, rtc)
