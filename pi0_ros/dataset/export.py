# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Makes a LeRobotDataset v3 of bags."""

import argparse
from collections.abc import Iterator
import itertools

from pi0_ros.bags.bag import Bag, BagError
from pi0_ros.bags.bags import Bags
from pi0_ros.bags.playback import counts_table, Playback
from pi0_ros.bags.takeovers import led_topic
from pi0_ros.checkpoint.config import RobotConfig
from pi0_ros.dataset.episodes import (action_offset, chosen, Frame, frames, INTERVENTIONS, judged,
                                      SUCCESSES)
from pi0_ros.dataset.outcome import FAILURE, Outcome, read, SUCCESS
from pi0_ros.dataset.writer import DatasetWriter
from pi0_ros.observation.config import InputConfig
from tqdm import tqdm


class Progress:
    """The bar: seconds of bags."""

    def __init__(self, bags: Bags) -> None:
        """Begin at nothing."""
        self._bar = tqdm(total=max(sum(bag.seconds for bag in bags.bags), 1e-9), unit='s',
                         dynamic_ncols=True, bar_format='{desc}{percentage:3.0f}%|{bar}| '
                         '{n:.0f}/{total:.0f} s [{elapsed}<{remaining}]{postfix}')

    def watch(self, found: Iterator[Frame], bag: Bag, fps: int) -> Iterator[Frame]:
        """Pass frames on."""
        begin, seen = self._bar.n, 0.0
        for frame in found:
            seen += 1 / fps
            self._bar.n = min(begin + min(seen, bag.seconds), self._bar.total)
            self._bar.update(0)
            yield frame
        self._bar.n = min(begin + bag.seconds, self._bar.total)
        self._bar.update(0)

    def close(self) -> None:
        """End the bar."""
        self._bar.close()


def export(args: argparse.Namespace, robot: RobotConfig, inputs: InputConfig, bags: Bags
           ) -> list[str]:
    """
    Write the data set; return what is to be told.

    :raises ValueError: it cannot be written as asked.
    """
    state_names = robot.state_joints  # a tool's pose comes from these
    order = [robot.observed.index(name) for name in state_names]
    marker = '/' + args.episodes.strip('/') if args.episodes else ''
    for bag in bags.bags:
        if marker and marker not in bag.topics:
            raise BagError(f"bag '{bag.path}' has no topic '{marker}', which --episodes names. It "
                           f'has:\n{bag.table()}')
        if marker and not bag.knows(marker):
            raise BagError(f"topic '{marker}' is {bag.topics[marker].kind}, expected a standard "
                           'type, such as std_msgs/msg/Bool')
    offsets = {action_offset(routes) for routes in bags.routes}
    if len(offsets) > 1:
        raise BagError('some bags have commands and some have none: an action would be the '
                       'command of its frame in the ones, the next state in the others. Export '
                       'them apart, or take what the joints did in all: --actions joint_states')
    offset = offsets.pop()
    led = [led_topic(bag) for bag in bags.bags]
    if not any(led) and (args.only == INTERVENTIONS or args.drop_before_takeover):
        raise BagError('no bag tells when a person led (the topic led of the node): --only '
                       'interventions and --drop-before-takeover need that')
    outcomes = [read(bag) for bag in bags.bags]
    if not any(outcomes) and args.only == SUCCESSES:
        raise BagError('no bag tells what became of its episodes (the topic episode_result of the '
                       'node): --only successes needs that')
    drop = round(args.drop_before_takeover * args.fps)
    key = {'version': 3, 'fps': args.fps, 'states': state_names, 'actions': robot.commanded,
           'led': led, 'only': args.only, 'drop': drop,
           'outcomes': [[one.to_json() for one in told] for told in outcomes],
           'bags': [[bag.name, bag.begin_ns, bag.end_ns] for bag in bags.bags],
           'routes': [routes.roles for routes in bags.routes], 'marker': marker,
           'fresh': [inputs.max_joint_age, inputs.max_image_age, inputs.max_skew],
           'instruction': args.instruction, 'times': bags.times,
           'shortest': args.min_seconds, 'codec': args.codec}
    writer = DatasetWriter(args.dataset, args.fps, state_names, robot.commanded,
                           [name for name in robot.cameras if name], args.codec, key,
                           args.overwrite, any(led))
    progress, told, counted, seen = Progress(bags), [], [], 0
    try:
        for number, playback in enumerate(bags.playbacks()):
            found = progress.watch(frames(playback, args.fps, marker, led[number]), playback.bag,
                                   args.fps)
            met: set[Outcome] = set()
            found = chosen(judged(found, outcomes[number], args.only, met,
                                  bool(args.instruction)), args.only, drop)
            for episode in _episodes(found):
                first = next(episode)
                source = {'bag': number, 'at_ns': first.at_ns}
                if seen < len(writer.episodes) and writer.episodes[seen]['source'] == source:
                    seen += 1
                    for _ in episode:
                        pass  # it was written before
                    continue
                seen += _write(writer, first, episode, source, order, args, told)
            told += [f'{count} frames of {playback.bag.name} left out: {reason}' + (
                f' ({playback.why[reason]})' if reason in playback.why else '')
                     for reason, count in sorted(playback.left_out.items())]
            told += [f"no frame is of the episode '{one.instruction}' of {one.duration_s:.1f} "
                     f's, judged {one.outcome}, in {playback.bag.name}: nothing of it is left, or '
                     'the node and the recorder had other clocks'
                     for one in outcomes[number] if one not in met]
            limit_ns = inputs.oldest_ns
            told += [*playback.dropped(), *_too_fast(playback, args.fps),
                     *playback.bag.warnings, *playback.health.warnings(
                playback.begin_ns or 0, playback.now_ns or 0, limit_ns)]
            counted.append((playback.bag, playback.counts()))
            if playback.bag.damage:
                told.append(f'{playback.bag.damage}; what came before is exported')
    finally:
        writer.drop()
        progress.close()
    try:
        if seen != len(writer.episodes):
            raise ValueError(f"'{writer.partial}' has {len(writer.episodes)} episodes, of which "
                             f'{seen} were found again: say --overwrite')
        folder = writer.finish(args.robot_type, offset)
    except ValueError as error:
        writer.give_up()
        raise ValueError('; '.join([str(error), *told])) from error
    for bag, counts in counted:
        print(f'messages of {bag.path}\n{counts_table(counts)}')
    tasks = list(dict.fromkeys(one['task'] for one in writer.episodes))
    if offset:
        told.append('no commands were recorded, so an action is the next state: a policy that is '
                    "trained on it needs 'action_offset' 1 (meta/pi0_ros.json says so). Fingers "
                    'that hold something are measured where it stops them: what is learnt from '
                    'that does not press. Record the commands, too (docs/finetune.md)')
    print(f'{folder}: {len(writer.episodes)} episodes, {writer.frames} frames, '
          f'{writer.frames / args.fps:.1f} s; tasks: ' + '; '.join(tasks))
    verdicts = [one['success'] for one in writer.episodes if one['success'] is not None]
    if verdicts:
        print(f'{sum(verdicts)} of {len(verdicts)} episodes that somebody judged are successes')
    if any(led):
        print(f"{sum(one['led'] for one in writer.episodes)} frames are marked as led by a person")
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
        writer.finish_episode(source, first.task, first.outcome and {
            SUCCESS: True, FAILURE: False}.get(first.outcome.outcome))
    except ValueError as error:
        writer.drop()
        for _ in rest:
            pass
        told.append(f"an episode is left out ('{first.task}'): {error}")
        return False
    return True
