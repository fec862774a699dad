"""Verb ``export``: make a LeRobotDataset v3 of bags."""

import argparse
import itertools
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from tqdm import tqdm

from pi0_ros.offline import actions
from pi0_ros.offline import routes as topics
from pi0_ros.offline.bag import Bag, BagError
from pi0_ros.offline.bags import FULL, KEPT, Bags, add_bag_arguments
from pi0_ros.offline.dataset import DatasetWriter
from pi0_ros.offline.episodes import Frame, frames
from pi0_ros.offline.params_file import read_all_parameters
from pi0_ros.offline.playback import Playback
from pi0_ros.offline.video import CODECS
from pi0_ros.policy.mapping import NONE

NAMED_NS = 2 * 10**9  # in which every publisher of joint states has spoken


def parser() -> argparse.ArgumentParser:
    """Return the parser of the verb."""
    out = argparse.ArgumentParser(
        prog='pi0_ros export', description='Make a LeRobotDataset v3 of bags, resampled to a '
        'constant rate, to train with LeRobot. Needs no ROS. Interrupted, the same command goes '
        'on where it was.')
    out.add_argument('bags', nargs='+', type=Path, metavar='BAG',
                     help='folder of a rosbag2 recording, or a .mcap or .db3 file')
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
    out.add_argument('--min-seconds', type=float, default=1.0, metavar='SECONDS',
                     help='shorter episodes are left out (default: 1)')
    out.add_argument('--codec', choices=tuple(CODECS), default='h264', help='of the videos')
    out.add_argument('--robot-type', default='unknown', help='name of the robot, for info.json')
    out.add_argument('--overwrite', action='store_true',
                     help='begin anew where another export was interrupted')
    return out


def read_values(args: argparse.Namespace) -> SimpleNamespace:
    """Return the parameters, with joints and cameras of the first bag where no file has them."""
    if args.params_file:
        return read_all_parameters(args.params_file, policy='mock_hold')
    remaps = topics.parse_remaps(args.remap)
    with Bag(args.bags[0]) as bag:
        chosen = '/' + (args.actions.strip('/') or 'position_commands')
        if chosen in bag.topics and bag.topics[chosen].kind == actions.ARRAY and (
                bag.topics[chosen].count):
            raise BagError(f"'{chosen}' has positions without names: say with --params-file, as "
                           'joint_names, in which order')
        joints = remaps.get('joint_states', '/joint_states')
        known = dict.fromkeys(name for _, _, message in bag.messages(
            [joints], None, bag.begin_ns + NAMED_NS) for name in message.name)
        if not known:
            raise BagError(f"bag '{bag.path}' has no joint states on '{joints}': name the topic "
                           f'with --remap joint_states:=TOPIC. It has:\n{bag.table()}')
        images = sorted({topic.removesuffix('/compressed') for topic, of in bag.topics.items()
                         if of.kind in (topics.RAW, topics.PACKED)})
        slots = [remaps[slot] for slot in topics.CAMERAS if slot in remaps] or images
    names = [topic.removesuffix('/image_raw').strip('/').replace('/', '_') for topic in slots]
    if not 0 < len(slots) <= len(topics.CAMERAS):
        raise BagError(f"bag '{args.bags[0]}' has {len(slots)} image topics, expected 1 to 3: "
                       f"choose with --remap camera_1:=TOPIC. It has {', '.join(images)}")
    args.remap = args.remap + [f'{slot}:={topic}' for slot, topic in zip(topics.CAMERAS, slots)]
    return read_all_parameters(None, policy='mock_hold', joint_names=list(known),
                               cameras=names)


class Progress:
    """The bar: seconds of bags."""

    def __init__(self, bags: Bags) -> None:
        """Begin at nothing."""
        self._bar = tqdm(total=round(sum(bag.seconds for bag in bags.bags), 1), unit='s',
                         dynamic_ncols=True, bar_format='{desc}{percentage:3.0f}%|{bar}| '
                         '{n:.0f}/{total:.0f} s [{elapsed}<{remaining}]{postfix}')

    def watch(self, found: Iterator[Frame], bag: Bag, fps: int) -> Iterator[Frame]:
        """Pass frames on."""
        begin, seen = self._bar.n, 0.0
        for frame in found:
            seen += 1 / fps
            self._bar.n = begin + min(seen, bag.seconds)
            self._bar.update(0)
            yield frame
        self._bar.n = begin + bag.seconds
        self._bar.update(0)

    def close(self) -> None:
        """End the bar."""
        self._bar.close()


def export(args: argparse.Namespace, values: SimpleNamespace, bags: Bags) -> list[str]:
    """Write the data set; return what is to be told.

    :raises ValueError: it cannot be written as asked.
    """
    state_names = tuple(name for name in (values.state_names or values.joint_names)
                        if name != NONE)
    order = [values.observed_names.index(name) for name in state_names]
    marker = '/' + args.episodes.strip('/') if args.episodes else ''
    for bag in bags.bags:
        if marker and marker not in bag.topics:
            raise BagError(f"bag '{bag.path}' has no topic '{marker}', which --episodes names. It "
                           f'has:\n{bag.table()}')
        if marker and not bag.knows(marker):
            raise BagError(f"topic '{marker}' is {bag.topics[marker].kind}, expected a standard "
                           'type, such as std_msgs/msg/Bool')
    key = {'version': 1, 'fps': args.fps, 'states': state_names, 'actions': values.joint_names,
           'bags': [[bag.name, bag.begin_ns, bag.end_ns] for bag in bags.bags],
           'routes': [routes.roles for routes in bags.routes], 'marker': marker,
           'fresh': [values.max_joint_age, values.max_image_age, values.max_skew],
           'instruction': args.instruction, 'shortest': args.min_seconds, 'codec': args.codec}
    writer = DatasetWriter(args.dataset, args.fps, state_names, values.joint_names,
                           [name for name in values.cameras if name], args.codec, key,
                           args.overwrite)
    progress, told, seen = Progress(bags), [], 0
    try:
        for number, playback in enumerate(bags.playbacks(values)):
            found = progress.watch(frames(playback, args.fps, marker), playback.bag, args.fps)
            for episode in _episodes(found):
                first = next(episode)
                source = {'bag': number, 'at_ns': first.at_ns}
                if seen < len(writer.episodes) and writer.episodes[seen]['source'] == source:
                    seen += 1
                    for _ in episode:
                        pass  # it was written before
                    continue
                seen += _write(writer, first, episode, source, order, args, told)
            told += [f'{count} frames of {playback.bag.name} left out: {reason}'
                     for reason, count in sorted(playback.left_out.items())]
            limit_ns = round(1e9 * max(values.max_joint_age, values.max_image_age))
            told += [*playback.dropped(), *_too_fast(playback, args.fps),
                     *playback.bag.warnings, *playback.health.warnings(
                playback.begin_ns or 0, playback.now_ns or 0, limit_ns)]
            if playback.bag.damage:
                told.append(f'{playback.bag.damage}; what came before is exported')
    finally:
        writer.drop()
        progress.close()
    try:
        if seen != len(writer.episodes):
            raise ValueError(f"'{writer.partial}' has {len(writer.episodes)} episodes, of which "
                             f'{seen} were found again: say --overwrite')
        folder = writer.finish(args.robot_type)
    except ValueError as error:
        writer.give_up()
        raise ValueError('; '.join([str(error), *told])) from error
    tasks = list(dict.fromkeys(one['task'] for one in writer.episodes))
    print(f'{folder}: {len(writer.episodes)} episodes, {writer.frames} frames, '
          f'{writer.frames / args.fps:.1f} s; tasks: ' + '; '.join(tasks))
    return told


def _too_fast(playback: Playback, fps: int) -> list[str]:
    """Return a sentence for every input that is slower than the frames."""
    return [f'{name}: {one.rate_hz():.1f} Hz is less than --fps {fps}: frames repeat it'
            for name, one in playback.health.inputs.items()
            if one.count and one.rate_hz() < 0.95 * fps]


def _episodes(found: Iterator[Frame]) -> Iterator[Iterator[Frame]]:
    """Yield an iterator for every episode, to be used up before the next is asked for."""
    ahead = next(found, None)

    def one() -> Iterator[Frame]:
        nonlocal ahead
        yield ahead
        for ahead in found:
            if ahead.begins:
                return
            yield ahead
        ahead = None

    while ahead is not None:
        yield one()


def _write(writer: DatasetWriter, first: Frame, rest: Iterator[Frame], source: dict,
           order: list[int], args: argparse.Namespace, told: list[str]) -> bool:
    """Write an episode; return False if it is left out."""
    count = 0
    try:
        for frame in itertools.chain([first], rest):
            writer.add(frame, frame.state[order])
            count += 1
        if count < max(2, round(args.min_seconds * args.fps)):
            writer.drop()
            told.append(f"an episode of {count / args.fps:.1f} s is left out ('{first.task}'): "
                        'shorter than --min-seconds')
            return False
        writer.finish_episode(source, first.task)
    except ValueError as error:
        writer.drop()
        for _ in rest:
            pass
        told.append(f"an episode is left out ('{first.task}'): {error}")
        return False
    return True


def main(argv: list[str] | None = None) -> int:
    """Run the verb."""
    args = parser().parse_args(argv)
    if args.fps < 1 or args.min_seconds < 0 or not np.isfinite(args.min_seconds):
        print('pi0_ros export: --fps must be positive, --min-seconds not negative',
              file=sys.stderr)
        return 2
    try:
        values = read_values(args)
        with ExitStack() as stack:
            bags = Bags(args, values, stack)
            print(bags.describe())
            for text in export(args, values, bags):
                print(f'note: {text}')
    except OSError as error:
        print(f'pi0_ros export: {error}' + KEPT * (error.errno in FULL), file=sys.stderr)
    except ValueError as error:
        print(f'pi0_ros export: {error}', file=sys.stderr)
    except KeyboardInterrupt:
        print('\npi0_ros export: interrupted: the same command goes on from here',
              file=sys.stderr)
        return 130
    else:
        return 0
    return 1
