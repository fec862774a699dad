# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Makes a LeRobotDataset v3 of bags, one after another or several at a time.

Each bag becomes a part by itself; the data set is made of the parts in the order of the bags, so
that it is the same, byte for byte, whoever made which part and in whatever order.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
import itertools
import json
from pathlib import Path
from typing import Any

from pi0_ros.bags.bag import Bag, BagError, GROWS
from pi0_ros.bags.bags import Bags, opened
from pi0_ros.bags.playback import counts_table, Playback
from pi0_ros.bags.routes import Wanted
from pi0_ros.bags.stores import Address, FULL, named, on_disk
from pi0_ros.bags.takeovers import led_topic
from pi0_ros.checkpoint.config import RobotConfig
from pi0_ros.dataset.episodes import chosen, Frame, frames, INTERVENTIONS, judged, SUCCESSES
from pi0_ros.dataset.manifest import DONE, FAILED
from pi0_ros.dataset.outcome import FAILURE, Outcome, read, SUCCESS
from pi0_ros.dataset.part import Part
from pi0_ros.dataset.survey import Survey, survey
from pi0_ros.dataset.writer import DatasetWriter
from pi0_ros.jobs import Runner
from pi0_ros.observation.config import InputConfig
from tqdm import tqdm


@dataclass(frozen=True)
class Job:
    """One bag to make a part of, in any process."""

    args: argparse.Namespace  # of the verb, with this bag alone
    robot: RobotConfig
    inputs: InputConfig
    wanted: Wanted
    folder: Path              # of the part
    number: int
    marker: str
    sizes: Mapping[str, int]  # of its files, when it was surveyed
    shown: bool = False       # whether seconds are counted on the screen


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


def export(args: argparse.Namespace, robot: RobotConfig, inputs: InputConfig, wanted: Wanted,
           runner: Runner) -> tuple[list[str], dict[Address, str]]:
    """
    Write the data set; return what is to be told, and which bags are not in it, and why.

    :raises ValueError: it cannot be written as asked, or one bag alone cannot be used.
    """
    marker = '/' + args.episodes.strip('/') if args.episodes else ''
    bags, failed = survey(args, wanted, marker)
    _require_fit(args, bags)
    key = {'version': 4, 'fps': args.fps, 'states': robot.state_joints,
           'actions': robot.commanded, 'led': [bag.led for bag in bags], 'only': args.only,
           'drop': round(args.drop_before_takeover * args.fps),
           'outcomes': [[one.to_json() for one in bag.outcomes] for bag in bags],
           'bags': [[bag.name, bag.begin_ns, bag.end_ns, bag.size] for bag in bags],
           'routes': [bag.roles for bag in bags], 'marker': marker,
           'instruction': args.instruction, 'times': bags[0].times,
           'taken': json.loads(json.dumps(vars(wanted), default=_plain)),
           'shortest': args.min_seconds, 'codec': args.codec}
    writer = DatasetWriter(args.dataset, args.fps, robot.state_joints, robot.commanded,
                           [name for name in robot.cameras if name], args.codec, key,
                           args.overwrite, any(bag.led for bag in bags))
    try:
        alone = len(bags) + len(failed) == 1
        waiting = {number: Job(argparse.Namespace(**vars(args) | {'bags': [bag.path]}), robot,
                               inputs, wanted, writer.part(number), number, marker, bag.sizes,
                               alone)
                   for number, bag in enumerate(bags) if not writer.manifest.done(number)}
        for number, done, error in runner.run(
                make_part, waiting, {number: bags[number].size for number in waiting},
                lambda job: [writer.partial, *on_disk(job.args.bags)]):
            if error is None:
                writer.manifest.tell(number, DONE, **done)
            elif alone or getattr(error, 'errno', None) in FULL:
                raise error
            else:
                writer.manifest.tell(number, FAILED, reason=str(error))
        return _join(args, bags, failed, writer), failed
    finally:
        writer.close()


def _plain(value: object) -> object:
    """Return what JSON has no type for."""
    return sorted(value) if isinstance(value, frozenset) else (
        vars(value) if hasattr(value, '__dict__') else str(value))


def _require_fit(args: argparse.Namespace, bags: Sequence[Survey]) -> None:
    """
    Refuse what not all bags have alike, or none has.

    :raises BagError: the bags have not what is asked for.
    """
    if len({bag.offset for bag in bags}) > 1:
        raise BagError('some bags have commands and some have none: an action would be the '
                       'command of its frame in the ones, the next state in the others. Export '
                       'them apart, or take what the joints did in all: --actions joint_states')
    if not any(bag.led for bag in bags) and (
            args.only == INTERVENTIONS or args.drop_before_takeover):
        raise BagError('no bag tells when a person led (the topic led of the node): --only '
                       'interventions and --drop-before-takeover need that')
    if args.only == SUCCESSES and not any(bag.outcomes for bag in bags):
        raise BagError('no bag tells what became of its episodes (the topic episode_result of the '
                       'node): --only successes needs that')


def _join(args: argparse.Namespace, bags: Sequence[Survey], failed: dict[Address, str],
          writer: DatasetWriter) -> list[str]:
    """Make the data set of the parts; return what is to be told."""
    alone = len(bags) + len(failed) == 1
    told, counts, became = [], [], [{'bag': named(path), 'failed': why}
                                    for path, why in failed.items()]
    for number, bag in enumerate(bags):
        row = writer.manifest.done(number)
        if row is None:
            failed[bag.path] = writer.manifest.bags[number]['reason']
            became.append({'bag': bag.name, 'failed': failed[bag.path]})
            continue
        before = len(writer.episodes)
        told += row['told'] + writer.take(number)
        counts.append(f"messages of {bag.path}\n{row['counts']}")
        became.append({'bag': bag.name, 'episodes': len(writer.episodes) - before})
    offset = bags[0].offset
    try:
        folder = writer.finish(args.robot_type, offset, () if alone else became)
    except ValueError as error:
        writer.give_up()
        again = ['what failed is tried again by the same command'] if failed else []
        raise ValueError('; '.join([str(error), *told, *failed.values(), *again])) from error
    print('\n'.join(counts))
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
    if any(bag.led for bag in bags):
        print(f"{sum(one['led'] for one in writer.episodes)} frames are marked as led by a person")
    return told


def make_part(job: Job) -> dict[str, Any]:
    """
    Make the part of one bag, or what is missing of it; return what is to be told.

    :raises BagError: the bag cannot be read. :raises OSError: the disk is full.
    """
    args, told, seen = job.args, [], 0
    with opened(args, job.wanted) as bags:
        playback, bag = bags.playbacks()[0], bags.bags[0]
        if bag.sizes != job.sizes:
            raise BagError(f"bag '{bag.path}' was written to since it was looked at: {GROWS}")
        led, outcomes = led_topic(bag), read(bag)
        met: set[Outcome] = set()
        order = [job.robot.observed.index(name) for name in job.robot.state_joints]
        part = Part(job.folder, args.fps, [name for name in job.robot.cameras if name],
                    args.codec)
        progress = Progress(bags) if job.shown else None
        try:
            found = frames(playback, args.fps, job.marker, led)
            found = progress.watch(found, bag, args.fps) if progress else found
            found = judged(found, outcomes, args.only, met, bool(args.instruction))
            for episode in _episodes(chosen(found, args.only, round(
                    args.drop_before_takeover * args.fps))):
                first = next(episode)
                source = {'bag': job.number, 'at_ns': first.at_ns}
                if seen < len(part.episodes) and part.episodes[seen]['source'] == source:
                    seen += 1
                    for _ in episode:
                        pass  # it was written before
                    continue
                seen += _write_episode(part, first, episode, source, order, args, told)
        finally:
            part.drop()
            if progress:
                progress.close()
        if seen != len(part.episodes):
            raise ValueError(f"'{job.folder}' has {len(part.episodes)} episodes, of which "
                             f'{seen} were found again: say --overwrite')
        told += [f'{count} frames of {bag.name} left out: {reason}' + (
            f' ({playback.why[reason]})' if reason in playback.why else '')
                 for reason, count in sorted(playback.left_out.items())]
        told += [f"no frame is of the episode '{one.instruction}' of {one.duration_s:.1f} "
                 f's, judged {one.outcome}, in {bag.name}: nothing of it is left, or '
                 'the node and the recorder had other clocks'
                 for one in outcomes if one not in met]
        told += [*playback.dropped(), *_too_fast(playback, args.fps), *bag.warnings,
                 *playback.health.warnings(playback.begin_ns or 0, playback.now_ns or 0,
                                           job.inputs.oldest_ns)]
        if bag.damage:
            told.append(f'{bag.damage}; what came before is exported')
        return {'told': told, 'counts': counts_table(playback.counts()),
                'episodes': len(part.episodes)}


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


def _write_episode(part: Part, first: Frame, rest: Iterator[Frame], source: dict,
                   order: list[int], args: argparse.Namespace, told: list[str]) -> bool:
    """Write an episode; return False if it is left out."""
    count = 0
    try:
        for frame in itertools.chain([first], rest):
            part.add(frame, frame.state[order])
            count += 1
        if count < max(2, round(args.min_seconds * args.fps)):
            part.drop()
            told.append(f"an episode of {count / args.fps:.1f} s is left out ('{first.task}'): "
                        'shorter than --min-seconds')
            return False
        part.finish_episode(source, first.task, first.outcome and {
            SUCCESS: True, FAILURE: False}.get(first.outcome.outcome))
    except BagError:  # it is not this episode
        raise
    except ValueError as error:
        part.drop()
        for _ in rest:
            pass
        told.append(f"an episode is left out ('{first.task}'): {error}")
        return False
    return True
