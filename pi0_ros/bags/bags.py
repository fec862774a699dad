# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The bags of one command, open, with the topics of each."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager, ExitStack
from dataclasses import replace
from typing import Any

from pi0_ros.bags.bag import Bag
from pi0_ros.bags.playback import Playback
from pi0_ros.bags.routes import CAMERAS, NAMES, parse_remaps, resolve, Wanted
from pi0_ros.bags.stores import here
from pi0_ros.observation.config import InputConfig
from pi0_ros.observation.decoding import turned


def add_bag_arguments(out: argparse.ArgumentParser) -> None:
    """Add what says which topic is what."""
    out.add_argument('-r', '--remap', action='append', default=[], metavar='INPUT:=TOPIC',
                     help='topic of the bag for an input of the node, as in pi0.launch.py: '
                     + ', '.join(NAMES))
    out.add_argument('--actions', default='', metavar='TOPIC',
                     help='what was commanded: JointTrajectory, JointState or Float64MultiArray '
                     '(default: joint_trajectory or position_commands if recorded, else what the '
                     "joints did; 'joint_states' takes that in any case)")
    out.add_argument('--time', choices=('receipt', 'stamps'), default='receipt',
                     help='when messages came: as recorded, or by their stamps, for a recorder '
                     'that stalled (default: receipt, as for the live node)')
    out.add_argument('--ignore-stamps', action='append', default=[], metavar='INPUT',
                     choices=(*CAMERAS, 'joint_states'),
                     help='of this input the time of receipt counts, not its stamps: for a '
                     'camera with a clock of its own')
    out.add_argument('--instruction', default='', metavar='TEXT',
                     help="what to do, instead of the bag's instructions")


class Bags:
    """All bags, open, with the topics of each."""

    def __init__(self, args: argparse.Namespace, wanted: Wanted, stack: ExitStack,
                 needs_instruction: bool = True) -> None:
        """
        Open them.

        :raises BagError: one cannot be read, or lacks a topic.
        """
        remaps, self._instruction = parse_remaps(args.remap), args.instruction
        unstamped = InputConfig(ignore_stamps=tuple(args.ignore_stamps)).unstamped(wanted.cameras)
        self._wanted = wanted = replace(wanted, unstamped=wanted.unstamped | unstamped)
        self._by_stamps = args.time == 'stamps'
        self.bags = [stack.enter_context(Bag(here(path))) for path in args.bags]
        self.routes = [resolve(bag, wanted, remaps, args.actions,
                               needs_instruction and not args.instruction) for bag in self.bags]

    @property
    def times(self) -> list:
        """Return what the times of messages follow from."""
        return [self._by_stamps, sorted(self._wanted.unstamped)]

    def instructions(self) -> list[str]:
        """Return every instruction that was given, in order."""
        out = []
        for bag, routes in zip(self.bags, self.routes):
            if routes.instruction:
                out += [message.data.strip() for _, _, message
                        in bag.messages([routes.instruction])]
        return [self._instruction] if self._instruction else out

    def describe(self) -> str:
        """Return which topic of which bag is what."""
        return '\n'.join(f'{bag.path} ({bag.seconds:.1f} s)\n{routes.table(bag)}'
                         + ''.join(f'\n  note: {note}' for note in routes.notes)
                         for bag, routes in zip(self.bags, self.routes))

    def images(self) -> Iterator[tuple[str, Any]]:
        """Yield camera and message of every image of all bags."""
        for bag, routes in zip(self.bags, self.routes):
            camera = {topic: name for name, topic in routes.cameras.items()}
            for topic, _, message in bag.messages(camera):
                name = camera[topic]
                yield name, turned(message, routes.turns.get(name, 0))

    def playbacks(self) -> list[Playback]:
        """Return a playback of every bag, from its begin."""
        return [Playback(bag, routes, self._wanted, self._instruction, self._by_stamps)
                for bag, routes in zip(self.bags, self.routes)]


@contextmanager
def opened(args: argparse.Namespace, wanted: Wanted) -> Iterator[Bags]:
    """Open the bags of a command for a while."""
    with ExitStack() as stack:
        yield Bags(args, wanted, stack)
