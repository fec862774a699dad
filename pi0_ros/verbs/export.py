# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Verb ``export``: make a LeRobotDataset v3 of bags."""

import argparse
import itertools
import logging
from pathlib import Path
import sys

import numpy as np
from pi0_ros.bags import actions
from pi0_ros.bags import routes as topics
from pi0_ros.bags.bag import Bag, BagError
from pi0_ros.bags.bags import add_bag_arguments
from pi0_ros.bags.routes import Wanted
from pi0_ros.bags.stores import Address, address, FULL, here, KEPT
from pi0_ros.configuration.advice import advised
from pi0_ros.configuration.configuration import Configuration
from pi0_ros.configuration.file import read_all_parameters
from pi0_ros.dataset.episodes import ALL, CHOICES
from pi0_ros.dataset.export import export
from pi0_ros.dataset.video import CODECS
from pi0_ros.jobs import Runner

DEPTHS = ('16UC1', '32FC1', '16SC1')
NAMED_NS = 2 * 10**9  # in which every publisher of joint states has spoken


def parser() -> argparse.ArgumentParser:
    """Return the parser of the verb."""
    out = argparse.ArgumentParser(
        prog='pi0_ros export', description='Make a LeRobotDataset v3 of bags, resampled to a '
        'constant rate, to train with LeRobot. Needs no ROS. Interrupted, the same command goes '
        'on where it was.')
    out.add_argument('bags', nargs='+', type=address, metavar='BAG',
                     help='folder of a rosbag2 recording, or a .mcap or .db3 file; also what '
                     'fsspec reads, such as s3://BUCKET/BAG (docs/fleet.md)')
    out.add_argument('--dataset', type=Path, required=True, metavar='DIR',
                     help='folder to write, which must not exist')
    out.add_argument('--fps', type=int, required=True, metavar='N',
                     help='rate of frames and actions; the rate that the robot is controlled at '
                     'later, at most that of commands and cameras')
    out.add_argument('--params-file', type=Path, metavar='YAML',
                     help='parameter file of the node, for the names and order of joints and '
                     'cameras (default: those of the bag)')
    add_bag_arguments(out)
    out.add_argument('--episodes', default='', metavar='TOPIC',
                     help='every message on it begins another episode; of std_msgs/Bool, true '
                     'begins one and false ends it (default: an episode is what was done until '
                     'another instruction)')
    out.add_argument('--only', choices=CHOICES, default=ALL,
                     help='interventions: only what a person did who took over; successes: only '
                     'episodes that were judged so (what was discarded is left out anyway)')
    out.add_argument('--drop-before-takeover', type=float, default=0.0, metavar='SECONDS',
                     help='leave out what the policy did before a person took over: it led there')
    out.add_argument('--min-seconds', type=float, default=1.0, metavar='SECONDS',
                     help='shorter episodes are left out (default: 1)')
    out.add_argument('--codec', choices=tuple(CODECS), default='h264', help='of the videos')
    out.add_argument('--robot-type', default='unknown', help='name of the robot, for info.json')
    out.add_argument('--jobs', type=int, default=0, metavar='N',
                     help='bags at a time, each in a process (default: as many as there are cores '
                     'and memory for); the data set is the same, byte for byte')
    out.add_argument('--ray', default='', metavar='ADDRESS',
                     help="on a Ray cluster instead, whose machines see the same folders: 'auto' "
                     "for the one of this machine, 'local' for one of its own, ray://HOST:10001")
    out.add_argument('--overwrite', action='store_true',
                     help='begin anew where another export was interrupted')
    return out


def read_values(args: argparse.Namespace) -> Configuration:
    """Return the parameters, with joints and cameras of the first bag where no file has them."""
    if args.params_file:
        return read_all_parameters(args.params_file, policy='mock_hold')
    first: BagError | None = None
    for path in args.bags:
        try:
            return _values_of(args, path)
        except BagError as error:
            first = first or error
    raise first


def _values_of(args: argparse.Namespace, path: Address) -> Configuration:
    """Return the joints and cameras of one bag."""
    remaps = topics.parse_remaps(args.remap)
    with Bag(here(path)) as bag:
        chosen = '/' + (args.actions.strip('/') or 'position_commands')
        if chosen in bag.topics and bag.topics[chosen].kind == actions.ARRAY and (
                bag.topics[chosen].count):
            raise BagError(f"'{chosen}' has positions without names: say with --params-file, as "
                           'joint_names, in which order')
        joints = remaps.get('joint_states', '/joint_states')
        if joints in bag.topics and bag.topics[joints].kind != topics.JOINTS:
            raise BagError(f"topic '{joints}' of bag '{bag.path}' is {bag.topics[joints].kind}, "
                           f'expected {topics.JOINTS}')
        known = dict.fromkeys(name for _, _, message in bag.messages(
            [joints], None, bag.begin_ns + NAMED_NS) for name in message.name)
        if not known:
            raise BagError(f"bag '{bag.path}' has no joint states on '{joints}': name the topic "
                           f'with --remap joint_states:=TOPIC. It has:\n{bag.table()}')
        depth = [topic for topic in bag.topics if _is_depth(bag, topic)]
        images = sorted({topic.removesuffix('/compressed') for topic, of in bag.topics.items()
                         if of.kind in (topics.RAW, topics.PACKED)} - set(depth))
        for topic in depth:
            print(f"note: '{topic}' holds depth images, no colours: it is left out")
        slots = [remaps[slot] for slot in topics.CAMERAS if slot in remaps] or images
    names = [topic.removesuffix('/image_raw').strip('/').replace('/', '_') for topic in slots]
    if not 0 < len(slots) <= len(topics.CAMERAS):
        raise BagError(f"bag '{bag.path}' has {len(slots)} image topics, expected 1 to 3: "
                       f"choose with --remap camera_1:=TOPIC. It has {', '.join(images)}")
    args.remap = args.remap + [f'{slot}:={topic}' for slot, topic in zip(topics.CAMERAS, slots)]
    return read_all_parameters(None, policy='mock_hold', joint_names=list(known),
                               cameras=names)


def _is_depth(bag: Bag, topic: str) -> bool:
    """Return whether the first image of a topic has one channel of distances."""
    if bag.topics[topic].kind != topics.RAW:
        return False
    return any(message.encoding in DEPTHS
               for _, _, message in itertools.islice(bag.messages([topic]), 1))


def main(argv: list[str] | None = None) -> int:
    """Run the verb."""
    args = parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format='pi0_ros export: %(message)s')
    if args.fps < 1 or args.jobs < 0 or not 0 <= args.min_seconds < np.inf or not (
            0 <= args.drop_before_takeover < 1e6):
        print('pi0_ros export: --fps must be positive, --min-seconds, --drop-before-takeover and '
              '--jobs not negative',
              file=sys.stderr)
        return 2
    args.dataset, args.bags = args.dataset.absolute(), [
        one.absolute() if isinstance(one, Path) else one for one in args.bags]
    try:
        config = read_values(args)
        told, failed = export(args, config.robot, config.inputs, Wanted.of(config),
                              Runner(args.jobs, args.ray))
        for text in told:
            print(f'note: {advised(text)}')
        for path, why in failed.items():
            print(f"pi0_ros export: '{path}' is not in it: {advised(why)}", file=sys.stderr)
        return 1 if failed else 0
    except OSError as error:
        print(f'pi0_ros export: {advised(error)}' + KEPT * (error.errno in FULL), file=sys.stderr)
    except ValueError as error:
        print(f'pi0_ros export: {advised(error)}', file=sys.stderr)
    except KeyboardInterrupt:
        print('\npi0_ros export: interrupted: the same command goes on from here',
              file=sys.stderr)
        return 130
    return 1
