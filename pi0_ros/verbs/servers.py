# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Servers in place of checkpoints, on the command line."""

from typing import Any

import numpy as np
from pi0_ros.checkpoint.config import RobotConfig
from pi0_ros.configuration.configuration import Configuration
from pi0_ros.observation.observation import Observation
from pi0_ros.remote import metadata, schemas
from pi0_ros.remote.client import RemotePolicy, USUAL_PROMPT
from pi0_ros.remote.link import Link, read_key

CONNECT_S = 10.0
OFFLINE_S = 600.0  # nothing moves: a deadline would only be in the way


def is_server(name: str) -> bool:
    """Return whether a name is a server's address and no folder."""
    return name.startswith(('ws://', 'wss://'))


def of_server(config: Configuration, address: str) -> Configuration:
    """Return the same with a server in place of a checkpoint."""
    return config.with_policy(
        policy='remote', server=address, server_deadline=OFFLINE_S,
        server_schema=config.policy.server_schema or schemas.OURS)


def metadata_of(config: Configuration) -> dict[Any, Any]:
    """
    Return what a server says of itself.

    :raises ServerError: there is none. :raises ValueError: the key cannot be read.
    """
    policy = config.policy
    link = Link(policy.server, read_key(policy.server_key_file), policy.server_ca)
    try:
        return link.connect(CONNECT_S)
    finally:
        link.close()


def connected(config: Configuration) -> RemotePolicy:
    """
    Return a policy that is loaded; without joint_names the robot speaks as the server does.

    :raises ServerError: there is no server. :raises ValueError: it does not fit.
    """
    robot = config.robot
    if robot.end_effectors:
        raise ValueError("parameter 'end_effectors' is for the node and for evaluate: leave it "
                         'out here')
    if not robot.joint_names:
        ours = metadata.read(metadata_of(config))
        if ours is None:
            raise ValueError(f"server '{config.policy.server}' does not say what its actions are: "
                             'give --params-file with joint_names, cameras, server_schema and '
                             'action_rate')
        spec = ours[0]
        actions = spec.action_names or tuple(map(str, range(spec.action_width)))
        states = spec.state_names or (
            actions if spec.state_width == spec.action_width else
            tuple(f'state {index}' for index in range(spec.state_width)))
        robot = RobotConfig(actions, states, spec.cameras[:3])
        if not spec.dt_s and not config.policy.action_rate:
            config = config.with_policy(action_rate=50.0)  # the numbers do not depend on it
    policy = RemotePolicy(config.policy, robot)
    policy.ensure_loaded()
    return policy


def describe(address: str, config: Configuration) -> str:
    """
    Return what a server says of itself, and, where it is told how to ask, how it answers.

    :raises ServerError: there is none, or it answers wrongly.
    """
    config = of_server(config, address)
    said = metadata_of(config)
    ours = metadata.read(said)
    lines = [('server', address)]
    if ours:
        spec, more = ours
        rate = f'{more["action_rate"]:g} Hz' if more['action_rate'] else 'a rate it does not know'
        lines += [
            ('checkpoint', f'{spec.folder.name}, {spec.network}, trained by {spec.trainer}'),
            ('cameras', ', '.join(spec.cameras) + f'; letterbox {spec.letterbox}'),
            ('state', ', '.join(spec.state_names or ()) or f'{spec.state_width} numbers'),
            ('actions', ', '.join(spec.action_names or ()) or f'{spec.action_width} numbers'),
            ('chunk', f'{spec.chunk_length} steps at {rate}'),
            ('chunking', more['rtc'] or 'none')]
    else:
        lines += [(str(key), f'{value!r:.200}') for key, value in said.items()]
        lines += [] if said else [('metadata', 'none')]
    if ours or config.robot.joint_names:
        policy = connected(config)
        height, width = policy.spec.image_size
        chunk = policy.infer(Observation(
            0, np.zeros(policy.observed),
            {name: np.full((height, width, 3), 128, np.uint8) for name in policy.cameras}, {},
            USUAL_PROMPT))
        told = policy.describe()
        policy.close()
        lines += [('answer', f'{len(chunk.positions)} steps of {chunk.positions.shape[1]} joints; '
                   f"server {told['server_infer_ms']} ms, network {told['server_network_ms']} ms, "
                   f"{told['sent_bytes']} bytes asked")]
    else:
        lines += [('answer', 'not asked for: give --params-file with joint_names, cameras, '
                   'server_schema and action_rate')]
    return '\n'.join(f'{name:11} {value}' for name, value in lines) + '\n'
