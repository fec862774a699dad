# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Verb ``serve``: decide for robots on other machines, over openpi's websocket protocol."""

import argparse
import asyncio
from concurrent.futures import ThreadPoolExecutor
import ipaddress
import logging
from pathlib import Path
import ssl
import sys
from typing import TYPE_CHECKING

from pi0_ros.checkpoint.spec import NETWORKS
from pi0_ros.configuration.advice import advised
from pi0_ros.remote import schemas
from pi0_ros.remote.link import read_key
from pi0_ros.remote.server import PolicyServer
from pi0_ros.verbs.served import make, until_told
from pi0_ros.weights.files import CheckpointError

if TYPE_CHECKING:
    from pi0_ros.policy.pi0 import Pi0Policy

log = logging.getLogger(__name__)
RTC = ('auto', 'none', 'identity', 'full', 'trained')


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
    out.add_argument('--replicas', type=int, default=0, metavar='N', choices=range(65),
                     help='processes that decide, through Ray Serve (requirements/ray.txt); '
                     'kill -HUP puts the checkpoint that --checkpoint names by then in the place '
                     'of the one before')
    out.add_argument('--ray', default='local', metavar='ADDRESS',
                     help="with --replicas, the Ray cluster: local (default) starts one here, "
                     'auto takes the one of this machine, HOST:6379 another')
    out.add_argument('--replica-gpus', type=float, default=-1.0, metavar='SHARE',
                     help='GPUs for each replica (default: 1 where the cluster has any); 0.5 '
                     'leaves room for the next checkpoint beside this one')
    out.add_argument('--relay', action='store_true',
                     help='with --replicas: pass all messages on; without it nodes of this '
                     'package are sent to their replica, on a port of its own')
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
        if args.replicas:
            from pi0_ros.verbs import replicas
            return asyncio.run(replicas.run(args, key, context))
        policy, server = thread.submit(make, args, key, thread).result()
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


async def _run(args: argparse.Namespace, policy: 'Pi0Policy', server: PolicyServer,
               context: ssl.SSLContext | None) -> int:
    listening = await server.listen(args.host, args.port, context)
    port = next(iter(listening.sockets)).getsockname()[1]
    spec, scheme = policy.spec, 'wss' if context else 'ws'
    log.info(f"{NETWORKS[spec.network]} '{spec.folder.name}' on {scheme}://{args.host}:{port}, "
             f'schema {args.schema}, engine {policy.report.path}, '
             f"real-time chunking {policy.rtc or 'none'}")
    await until_told()
    listening.close()
    await listening.wait_closed()
    policy.close()
    return 0
