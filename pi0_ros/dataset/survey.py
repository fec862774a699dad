# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What each bag has, seen one after the other: a month of them cannot be open at once."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pi0_ros.bags.bag import Bag, BagError
from pi0_ros.bags.bags import opened
from pi0_ros.bags.routes import Wanted
from pi0_ros.bags.stores import Address
from pi0_ros.bags.takeovers import led_topic
from pi0_ros.dataset.episodes import action_offset
from pi0_ros.dataset.outcome import Outcome, read


@dataclass(frozen=True)
class Survey:
    """What is known of a bag before it is read."""

    path: Address
    name: str
    begin_ns: int
    end_ns: int
    size: int                     # bytes on the disk
    roles: Mapping[str, object]   # which topic is what
    offset: int                   # periods after its frame, at which an action is due
    led: str                      # topic of who leads, '' if none tells
    outcomes: tuple[Outcome, ...]
    times: list                   # what the times of messages follow from
    sizes: Mapping[str, int]      # of the files that hold messages


def survey(args: argparse.Namespace, wanted: Wanted, marker: str = ''
           ) -> tuple[list[Survey], dict[Address, str]]:
    """
    Return what the bags have, and which cannot be used, with the reason.

    :param marker: a topic that each must have, '' for none.
    :raises BagError: none can be used.
    """
    found, failed, first = [], {}, None
    for path in args.bags:
        alone = argparse.Namespace(**vars(args) | {'bags': [path]})
        try:
            with opened(alone, wanted) as bags:
                bag, routes = bags.bags[0], bags.routes[0]
                _require_marker(bag, marker)
                print(bags.describe())
                found.append(Survey(
                    path, bag.name, bag.begin_ns, bag.end_ns, _size(bag.path), routes.roles,
                    action_offset(routes), led_topic(bag), tuple(read(bag)), bags.times,
                    bag.sizes))
        except (BagError, OSError) as error:
            failed[path], first = str(error), first or error
    if not found:
        raise first
    return found, failed


def _require_marker(bag: Bag, marker: str) -> None:
    if marker and marker not in bag.topics:
        raise BagError(f"bag '{bag.path}' has no topic '{marker}', which --episodes names. It "
                       f'has:\n{bag.table()}')
    if marker and not bag.knows(marker):
        raise BagError(f"topic '{marker}' is {bag.topics[marker].kind}, expected a standard "
                       'type, such as std_msgs/msg/Bool')


def _size(path: Path) -> int:
    files = [path] if path.is_file() else path.rglob('*')
    return max(1, sum(one.stat().st_size for one in files if one.is_file()))
