# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Verb ``serve``: decide for robots on other machines, over openpi's websocket protocol."""

import argparse
import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
import contextlib
from dataclasses import replace
import ipaddress
import logging
from pathlib import Path
import signal
import ssl
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
from pi0_ros.checkpoint.mapping import JointMap
from pi0_ros.checkpoint.spec import NETWORKS, PolicySpec, POSITIONS
from pi0_ros.configuration.advice import advised
from pi0_ros.configuration.configuration import Configuration
from pi0_ros.configuration.file import read_parameters
from pi0_ros.observation.observation import Observation
from pi0_ros.policy.factory import checkpoint_folder, policy_class
from pi0_ros.policy.policy import ActionChunk
from pi0_ros.policy.provenance import fingerprint
from pi0_ros.remote import metadata, schemas
from pi0_ros.remote.link import read_key
from pi0_ros.remote.server import PolicyServer
from pi0_ros.verbs.infer import joint_map
from pi0_ros.weights.files import CheckpointError

if TYPE_CHECKING:
    from pi0_ros.policy.pi0 import Pi0Policy

log = logging.getLogger(__name__)
RTC = ('auto', 'none', 'identity', 'full', 'trained')
TIMED = 3  # batches of each size at the start, the first of which does not count
UNKNOWN_NS = 20_000_000  # a control period, where nobody says it; actions do not depend on it
# The checkpoint's camera for each of a schema's, as openpi's transforms have it.
OPENPI = {'cam_high': 'base_0_rgb', 'cam_left_wrist': 'left_wrist_0_rgb',
          'cam_right_wrist': 'right_wrist_0_rgb', 'exterior_image_1_left': 'base_0_rgb',
          'wrist_image_left': 'left_wrist_0_rgb', 'image': 'base_0_rgb',
          'wrist_image': 'left_wrist_0_rgb'}


def parser() -> argparse.ArgumentParser:
    """Return the command line of this verb."""
    out = argparse.ArgumentParser(
        prog='pi0_ros serve', description=__doc__,
        epilog='The protocol neither encrypts nor asks who is there: keep it on a network of '
               'your own, or behind a proxy that does. docs/remote.md tells more.')
    out.add_argument('--checkpoint', required=True, help="folder, or 'demo'")
    out.add_argument('--host', default='127.0.0.1',
                     help='address to listen on (default: 127.0.0.1, this machine alone)')
    out.add_argument('--port', type=int, default=8000, help='default: 8000')
    out.add_argument('--schema', choices=schemas.NAMES, default=schemas.OURS,
                     help='what clients call the parts of an observation: aloha, droid or libero '
                     "as openpi's clients do, pi0_ros for nodes of this package (default), custom "
                     'for server_map of the parameter file')
    out.add_argument('--params-file', type=Path, metavar='YAML',
                     help='parameter file of the node: what it says of the checkpoint; with a '
                     'schema other than pi0_ros also joints, conversions and adaptation, so that '
                     'state and actions are in units of the robot')
    out.add_argument('--camera', action='append', default=[], metavar='CLIENT=CHECKPOINT',
                     help="the checkpoint's camera for one of the schema's; repeatable; without "
                     "it equal names belong together, and openpi's names as openpi has them")
    out.add_argument('--rtc', choices=RTC, default='auto',
                     help='how chunks continue what a node of this package executes meanwhile; '
                     'auto: trained, if the checkpoint was trained for it, else identity')
    out.add_argument('--tokenizer', default='', help='folder with tokenizer.json, or a name in '
                     "the hub's cache on this disk")
    out.add_argument('--steps', type=int, default=0, choices=range(101), metavar='N',
                     help="denoising steps, at most 100 (default: the checkpoint's)")
    out.add_argument('--seed', type=int, default=0, help='of the noise, where no client sends one')
    out.add_argument('--threads', type=int, default=1, metavar='N',
                     help='processor threads of torch (default: 1)')
    out.add_argument('--dtype', choices=('auto', 'float32', 'bfloat16'), default='auto')
    out.add_argument('--device', choices=('auto', 'cpu', 'cuda'), default='auto')
    out.add_argument('--max-batch', type=int, default=1, metavar='N', choices=range(1, 65),
                     help='questions that are computed together where so many wait (default: 1)')
    out.add_argument('--max-wait-ms', type=float, default=0.0, metavar='MS',
                     help='with --max-batch: for which the first of them waits for others '
                     '(default: 0, those that are there)')
    out.add_argument('--max-waiting', type=int, default=64, metavar='N',
                     help='questions; whoever asks then is told at once that it is busy')
    out.add_argument('--api-key-file', default='', metavar='FILE',
                     help='one line that clients must know (Authorization: Api-Key ...)')
    out.add_argument('--insecure', action='store_true',
                     help='listen beyond this machine without a key')
    out.add_argument('--certificate', default='', metavar='FILE',
                     help='certificate chain, for wss://')
    out.add_argument('--certificate-key', default='', metavar='FILE', help='its private key')
    return out


def main(argv: list[str] | None = None) -> int:
    """Run the verb."""
    args = parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format='pi0_ros serve: %(message)s')
    logging.getLogger('websockets').setLevel(logging.CRITICAL)
    thread = ThreadPoolExecutor(1, 'inference')
    if not 0 <= args.max_wait_ms < 1e4 or args.max_waiting < 1:
        print('pi0_ros serve: --max-wait-ms must be 0 to 10000, --max-waiting at least 1',
              file=sys.stderr)
        return 2
    try:
        key, context = read_key(args.api_key_file), _context(args)
        _require_key(args, key)
        policy, server = thread.submit(_make, args, key, thread).result()
        return asyncio.run(_run(args, policy, server, context))
    except (CheckpointError, ValueError, OSError) as error:
        print(f'pi0_ros serve: {advised(error)}', file=sys.stderr)
        return 1
    finally:
        thread.shutdown(cancel_futures=True)


def _context(args: argparse.Namespace) -> ssl.SSLContext | None:
    if not args.certificate:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(args.certificate, args.certificate_key or None)
    return context


def _require_key(args: argparse.Namespace, key: str) -> None:
    try:
        local = ipaddress.ip_address(args.host).is_loopback
    except ValueError:
        local = args.host == 'localhost'
    if not (local or key or args.insecure):
        raise ValueError(f'--host {args.host} listens beyond this machine, where anybody may ask: '
                         'give --api-key-file, or --insecure if nobody else is on that network')


def _make(args: argparse.Namespace, key: str, thread: ThreadPoolExecutor
          ) -> tuple['Pi0Policy', PolicyServer]:
    """Return the policy, loaded, and what serves it; called in the thread that infers."""
    config = read_parameters(args.params_file)
    if config.robot.end_effectors:
        raise ValueError("parameter 'end_effectors' is for the robot's machine, which has its "
                         'description: leave it out here')
    policy = _policy(args, config)
    schema = (schemas.ours(policy.spec.cameras) if args.schema == schemas.OURS else
              schemas.named(args.schema, config.policy.server_map))
    cameras = _cameras(schema, policy.spec, args.camera)
    policy.cameras = tuple(name for name in policy.spec.cameras if name in cameras.values())
    width, reads = policy.spec.state_width, _of_any_width(policy)
    if args.schema != schemas.OURS and config.robot.joint_names:
        width, reads = _of_robot(policy, config)
    policy.load()
    policy.warm_up()
    _warm_together(policy, args.max_batch)
    rate = 0.0 if policy.dt_ns == UNKNOWN_NS and not policy.spec.dt_s and not \
        config.policy.action_rate else 1e9 / policy.dt_ns
    described = (metadata.describe(policy.spec, rate, policy.offset, policy.rtc,
                                   policy.noise_shape, fingerprint(policy.spec.folder))
                 if args.schema == schemas.OURS else {})
    return policy, PolicyServer(
        _decides(policy, reads), described, schema, cameras, width, thread, key,
        not policy.spec.widths_recorded, args.max_batch, args.max_wait_ms / 1e3,
        args.max_waiting)


def _warm_together(policy: 'Pi0Policy', most: int) -> None:
    """
    Compute batches of some sizes, so that no robot waits for the first, and time them.

    Few questions may be sooner ready one after another, because that way has the engine.
    """
    height, width = policy.spec.image_size
    images = {name: np.full((height, width, 3), 128, np.uint8) for name in policy.cameras}
    seen = Observation(0, policy.spec.state.middle, images, {}, 'pick up the red block')
    if most == 1 or not policy.together:
        return
    joints, seconds = policy.joints, {}
    policy.joints = JointMap.identity(policy.spec.state_width, policy.spec.action_width)
    for count in sorted({1, most, *(2**power for power in range(1, 7) if 2**power <= most)}):
        taken = []
        for _ in range(TIMED):
            begun = [policy.begin(seen, np.zeros(policy.noise_shape), keep=True)
                     for _ in range(count)]
            began = time.perf_counter()
            policy.infer_together(begun)
            taken.append(time.perf_counter() - began)
        seconds[count] = min(taken[1:])
    policy.joints = joints
    policy.together.learn(seconds)
    log.info('questions at once: ' + ', '.join(
        f"{count} in {1e3 * one:.0f} ms{'' if policy.together.pays(count) else ' (in turn)'}"
        for count, one in seconds.items()))


def _policy(args: argparse.Namespace, config: Configuration) -> 'Pi0Policy':
    from pi0_ros.checkpoint.reader import read
    folder, choices = checkpoint_folder(args.checkpoint), config.policy.choices(config.robot)
    # What they mean is the robot's business: velocities go out as velocities, as openpi's do.
    choices = replace(choices, actions=POSITIONS, velocity=0.0, positions=(), places=())
    spec = read(folder, choices)
    rtc = {'none': '', 'auto': 'trained' if spec.trained_delay else 'identity'}.get(
        args.rtc, args.rtc) if args.schema == schemas.OURS else ''
    return policy_class(folder)(
        folder, dt_ns=config.policy.dt_ns or (0 if spec.dt_s else UNKNOWN_NS),
        offset=config.policy.action_offset, device=args.device, dtype=args.dtype,
        steps=args.steps or config.policy.denoising_steps, seed=args.seed, threads=args.threads,
        tokenizer=args.tokenizer or config.policy.tokenizer, choices=choices,
        engine=config.policy.engine, compiled=config.policy.compile, rtc=rtc)


def _decides(policy: 'Pi0Policy', reads: Callable[[Observation], Observation]
             ) -> Callable[..., list['ActionChunk | Exception']]:
    """
    Return what decides for several questions; what does not fit fails alone.

    :param reads: returns an observation as the policy reads it, whose joints it sets.
    """
    def decide(asked: Sequence[tuple]) -> list['ActionChunk | Exception']:
        out: list[ActionChunk | Exception | None] = [None] * len(asked)
        begun = {}
        for number, (seen, *given) in enumerate(asked):
            try:
                begun[number] = policy.begin(reads(seen), *given, keep=len(asked) > 1)
            except ValueError as error:
                out[number] = error
        if begun:
            for number, chunk in zip(begun, policy.infer_together(list(begun.values()))):
                out[number] = chunk
        return out

    return decide


def _of_any_width(policy: 'Pi0Policy') -> Callable[[Observation], Observation]:
    """Return what reads an observation, also one without the padding that statistics have."""
    whole = policy.joints

    def read(seen: Observation) -> Observation:
        count, width = len(seen.state), len(whole.rows)
        policy.joints = whole
        if count == width:
            return seen
        policy.joints = replace(whole, rows=np.where(np.arange(width) < count, whole.rows, -1))
        needed = max(count, len(whole.columns))
        return replace(seen, state=np.pad(seen.state, (0, max(0, needed - count))))

    return read


def _of_robot(policy: 'Pi0Policy', config: Configuration
              ) -> tuple[int, Callable[[Observation], Observation]]:
    """Return how many numbers a state has, and what reads it, in units of the robot."""
    names = config.robot.states
    policy.joints, _ = joint_map(policy.spec, config.robot, np.zeros(len(names)))

    def read(seen: Observation) -> Observation:
        _, state = joint_map(policy.spec, config.robot, seen.state)
        return replace(seen, state=state)

    return len(names), read


def _cameras(schema: schemas.Schema, spec: PolicySpec, given: list[str]) -> Mapping[str, str]:
    """
    Return the checkpoint's camera for each of the schema's that it has.

    :raises ValueError: one that is given is not there, or the checkpoint gets no image at all.
    """
    out = {}
    said = dict(pair.partition('=')[::2] for pair in given)
    for name, camera in said.items():
        if name not in schema.cameras or spec.camera(camera) not in spec.cameras:
            raise ValueError(f"--camera '{name}={camera}': clients have "
                             f"{', '.join(schema.cameras)}, the checkpoint "
                             f"{', '.join(spec.cameras)}")
    for name in schema.cameras:
        for candidate in (said.get(name), name, OPENPI.get(name)):
            if candidate and spec.camera(candidate) in spec.cameras:
                out[name] = spec.camera(candidate)
                break
    log.info('cameras: ' + ', '.join(f'{name} is {camera}' for name, camera in out.items()))
    left = [name for name in spec.cameras if name not in out.values()]
    unsaid = [name for name in schema.cameras if name not in out]
    if out and left and unsaid:
        log.warning(f"nobody feeds the checkpoint's {', '.join(left)}, and clients' "
                    f"{', '.join(unsaid)} go nowhere: --camera CLIENT=CHECKPOINT connects them")
    if not out or len(set(out.values())) < len(out):
        raise ValueError(f"clients call cameras {', '.join(schema.cameras)}, the checkpoint "
                         f"{', '.join(spec.cameras)}: say which is which with --camera "
                         'CLIENT=CHECKPOINT')
    return out


async def _run(args: argparse.Namespace, policy: 'Pi0Policy', server: PolicyServer,
               context: ssl.SSLContext | None) -> int:
    listening = await server.listen(args.host, args.port, context)
    port = next(iter(listening.sockets)).getsockname()[1]
    spec, scheme = policy.spec, 'wss' if context else 'ws'
    log.info(f"{NETWORKS[spec.network]} '{spec.folder.name}' on {scheme}://{args.host}:{port}, "
             f'schema {args.schema}, engine {policy.report.path}, '
             f"real-time chunking {policy.rtc or 'none'}")
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError, ValueError):
            loop.add_signal_handler(number, ended.set)
    await ended.wait()
    listening.close()
    await listening.wait_closed()
    policy.close()
    return 0
