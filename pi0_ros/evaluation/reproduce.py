# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Decides again what a live node recorded on ~/inference, and compares bit for bit."""

import argparse
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
import sys
from typing import Any, TYPE_CHECKING

import numpy as np
from pi0_ros.bags.bag import Bag, BagError
from pi0_ros.bags.bags import Bags
from pi0_ros.bags.routes import Wanted
from pi0_ros.configuration.configuration import Configuration
from pi0_ros.evaluation.evaluate import write_json
from pi0_ros.evaluation.judge import decided_by
from pi0_ros.motion.limits import RobotLimits
from pi0_ros.observation.decoding import message_to_rgb, to_ns
from pi0_ros.observation.observation import Observation
from pi0_ros.policy.provenance import image_hash
from pi0_ros.policy.record import InferenceRecord
from pi0_ros.workers.factory import make_local_policy
from tqdm import tqdm

if TYPE_CHECKING:
    from pi0_ros.policy.pi0 import Pi0Policy  # torch takes seconds

PASSED_NS = 20 * 10**9  # of images, after which one of that stamp is not in the bag


def reproduce(config: Configuration, args: argparse.Namespace) -> int:
    """
    Run ``evaluate --reproduce``; return 0 if every inference came out the same.

    :raises ValueError: the bags hold no record, or the checkpoint does not fit.
    """
    with ExitStack() as stack:
        bags = Bags(args, Wanted.of(config), stack, needs_instruction=False)
        records = _records(bags, args.records, stack)
        _compare_configurations(records[0], config)
        limits = RobotLimits(config.robot.commanded,
                             config.safety.limit_rules(config.robot.commanded))
        urdf = args.robot_description or _description(bags)
        if urdf:
            limits.describe(urdf)
        policy = make_local_policy(config.policy, config.robot, config.control.rtc, limits.body)
        policy.load()
        policy.warm_up()
        try:
            rows = list(tqdm(_again(bags, records, policy), total=len(records),
                             unit='inference'))
        finally:
            policy.close()
    args.out.mkdir(parents=True, exist_ok=True)
    write_json({'inferences': rows}, args.out / 'reproduced.json')
    same = sum(row['same'] for row in rows)
    other = [row for row in rows if row['problem']]
    apart = [row['difference'] for row in rows if not row['same'] and not row['problem']]
    print(f'{same} of {len(rows)} came out the same, bit for bit')
    if apart:
        print(f'{len(apart)} differ, by {max(apart):.3g} at most')
    for problem in dict.fromkeys(row['problem'] for row in other):
        count = sum(row['problem'] == problem for row in other)
        print(f'{count} cannot be made again: {problem}')
    return 0 if same == len(rows) else 1


def _description(bags: Bags) -> str | None:
    """Return the last description of the robot in the bags."""
    out = None
    for bag, routes in zip(bags.bags, bags.routes):
        if routes.description:
            for _, _, message in bag.messages([routes.description]):
                out = message.data
    return out


def _records(bags: Bags, other: Path | None, stack: ExitStack) -> list[InferenceRecord]:
    """
    Return all records, of the bags or of another one; they hold no images.

    :raises BagError: there are none.
    """
    found = list(zip(bags.bags, (routes.inference for routes in bags.routes)))
    if other:
        bag = stack.enter_context(Bag(other))
        topics = [topic for topic in bag.topics if topic.endswith('/inference')]
        found = [(bag, topics[0] if len(topics) == 1 else '')]
    out = [InferenceRecord.from_json(message.data) for bag, topic in found if topic
           for _, _, message in bag.messages([topic])]
    if not out:
        raise BagError(f"bag '{found[0][0].path}' has no records of inferences: record the node's "
                       'topic ~/inference, as record.launch.py does, name it with --remap '
                       'inference:=TOPIC, or name the bag that has it with --records. It has:\n'
                       f'{found[0][0].table()}')
    return out


def _compare_configurations(record: InferenceRecord, config: Configuration) -> None:
    now, then = decided_by(config), record.configuration
    other = [f'{name} {then.get(name)!r}, here {now.get(name)!r}'
             for name in now | then if then.get(name) != now.get(name)]
    if other:
        print('warning: the live node had another configuration: ' + '; '.join(other),
              file=sys.stderr)


def _again(bags: Bags, records: list[InferenceRecord], policy: 'Pi0Policy'
           ) -> Iterator[dict[str, Any]]:
    """Make every inference again as soon as its images have been read."""
    wanted: dict[tuple[str, int], list[int]] = {}
    missing: list[set[str]] = []
    for index, record in enumerate(records):
        missing.append(set(record.image_stamps_ns))
        for name, stamp_ns in record.image_stamps_ns.items():
            wanted.setdefault((name, stamp_ns), []).append(index)
    found: dict[int, dict[str, Any]] = {}  # messages, until a record has all of its images
    for name, message in bags.images():
        stamp_ns = to_ns(message.header.stamp)
        for index in wanted.pop((name, stamp_ns), []):
            found.setdefault(index, {})[name] = message
            missing[index].discard(name)
            if not missing[index]:
                images = {camera: message_to_rgb(one)
                          for camera, one in found.pop(index).items()}
                yield _compare(records[index], images, policy)
        for index in [index for index in found
                      if records[index].t_obs_ns < stamp_ns - PASSED_NS]:
            del found[index]  # what it lacks does not come any more
    for record, lacks in zip(records, missing):
        if lacks:
            yield _row(record, f"no image of that stamp of {', '.join(sorted(lacks))}: "
                       'it was not recorded, or the camera sets no stamps')


def _compare(record: InferenceRecord, images: dict[str, np.ndarray], policy: 'Pi0Policy'
             ) -> dict[str, Any]:
    other = [name for name, image in images.items()
             if image_hash(image) != record.image_hashes.get(name)]
    if other:
        return _row(record, f"the image of {', '.join(other)} has other pixels than the live "
                    'node decoded')
    if record.seed is None:
        return _row(record, 'its noise was given from outside')
    seen = Observation(record.t_obs_ns, np.array(record.state), images, record.image_stamps_ns,
                       record.instruction)
    noise = np.random.default_rng((record.seed, record.number)).standard_normal(
        policy.noise_shape)
    chunk = policy.infer(seen, noise, record.given())
    before = np.array(record.positions)
    if before.shape != chunk.positions.shape:
        return _row(record, f'the chunk has shape {chunk.positions.shape}, the live one '
                    f'{before.shape}')
    return _row(record, '', bool((before == chunk.positions).all()),
                float(np.abs(before - chunk.positions).max()))


def _row(record: InferenceRecord, problem: str, same: bool = False, difference: float = 0.0
         ) -> dict[str, Any]:
    return {'number': record.number, 't_obs_ns': record.t_obs_ns, 'same': same,
            'difference': difference, 'problem': problem}
