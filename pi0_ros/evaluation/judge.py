# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""One checkpoint on bags: all of them here, or one bag at a time in other processes."""

import argparse
from collections.abc import Callable, Mapping
import copy
import dataclasses
from dataclasses import dataclass
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from pi0_ros.bags.bags import Bags, opened
from pi0_ros.bags.playback import counts_table, Playback
from pi0_ros.bags.routes import Wanted
from pi0_ros.bags.stores import on_disk
from pi0_ros.configuration.configuration import Configuration
from pi0_ros.evaluation import moments
from pi0_ros.evaluation.execution import Execution
from pi0_ros.evaluation.store import Store
from pi0_ros.policy.provenance import configuration
from pi0_ros.workers.factory import make_local_policy

Part = dict[str, Any]  # what is found in one bag


@dataclass(frozen=True)
class Run:
    """One checkpoint, with the right instructions or with wrong ones."""

    name: str
    config: Configuration
    asked: Mapping[str, str]  # another instruction for the one that was given
    variant: str = ''
    params_file: str = ''  # its name, '' for none

    @property
    def folder(self) -> str:
        """Return the name of its output folder."""
        return self.name.replace(', ', '-').replace(' ', '_').replace('/', '_')

    def findable(self) -> 'Run':
        """Return it with a checkpoint that is found from whatever folder a process is in."""
        folder = Path(os.path.expanduser(self.config.policy.checkpoint))
        if not self.config.policy.has_checkpoint or not folder.is_dir():
            return self  # a name: every machine has a cache of its own
        return dataclasses.replace(self, config=self.config.with_policy(
            checkpoint=str(folder.absolute())))


def decided_by(config: Configuration) -> dict[str, object]:
    """Return what a chunk follows from."""
    return configuration(config.policy, config.robot, config.control.handover,
                         config.control.jacobian)


class Judge:
    """A policy, loaded, that decides at the moments of bags."""

    def __init__(self, run: Run, args: argparse.Namespace, server: str = '') -> None:
        """
        Load.

        :param server: what a server said of itself at first, hashed.
        :raises CheckpointError: the checkpoint cannot be used.
        """
        self._server = server
        # With as many threads as everywhere: they round otherwise.
        self.run, self._args = run, args
        self._config = config = run.config.with_policy(torch_threads=args.threads)
        self._executions: list[Execution] = []  # of each bag, with the description of its robot
        self._policy = make_local_policy(config.policy, config.robot, config.control.rtc,
                                         lambda: self._executions[-1].body())
        self._setting = moments.Setting(round(args.every * 1e9), args.seed, args.samples,
                                        lambda text: run.asked.get(text, text))
        try:
            self._policy.load()
            self._policy.warm_up()
            self._policy.ensure_loaded()
            self._require_same()
        except BaseException:
            self._policy.close()
            raise

    def judge(self, number: int, playback: Playback, known: dict[int, dict],
              keep: Callable[[dict[str, Any]], None]) -> Part:
        """
        Decide at every moment of a bag; return what else is found in it.

        :param number: of the bag. :param known: records that were made before.
        :param keep: is given each record as it is made.
        """
        config, args = self._config, self._args
        execution = Execution(config.robot.commanded, config.control, config.safety,
                              round(args.delay * 1e9))
        execution.describe(args.robot_description)
        self._executions.append(execution)
        for record in moments.records(number, playback, self._policy, execution, self._setting,
                                      known):
            keep(record)
        self._require_same()
        bag, limit_ns = playback.bag, config.inputs.oldest_ns
        health = {
            'bag': str(bag.path), 'seconds': bag.seconds,
            'topics': dict(playback.routes.cameras) | {
                'joint_states': playback.routes.roles['joints'],
                'instruction': playback.routes.instruction,
                'actions': playback.routes.roles['actions']},
            'rate_hz': {name: round(one.rate_hz(), 2)
                        for name, one in playback.health.inputs.items()},
            'gap_p95_ms': {name: round(one.gap_ms(95), 1)
                           for name, one in playback.health.inputs.items()},
            'messages': [dataclasses.asdict(one) | {'used': one.used}
                         for one in playback.counts()],
            'damage': bag.damage,
            'warnings': list(dict.fromkeys([
                *bag.warnings, *playback.health.warnings(
                    playback.begin_ns or 0, playback.now_ns or 0, limit_ns),
                *playback.dropped(), execution.unlimited()]))}
        return {'health': health, 'limits': execution.limits, 'engine': self._policy.describe(),
                'read': (str(bag.path), counts_table(playback.counts()))}

    def _require_same(self) -> None:
        if self._server and self._server != hashlib.sha256(self._policy.identity).hexdigest():
            raise ValueError(f"the server of '{self.run.name}' has another checkpoint than "
                             'before: begin anew with --overwrite')

    def close(self) -> None:
        """Free the network."""
        self._policy.close()


def evaluate(run: Run, args: argparse.Namespace, bags: Bags, tell: Callable[[], object]
             ) -> dict[str, Any]:
    """
    Evaluate one run here; return its records, limits and inputs.

    :param tell: is called at every moment.
    :raises CheckpointError: the checkpoint cannot be used. :raises ValueError: it does not fit.
    """
    store = store_of(run, args, bags)
    try:
        judge = Judge(run, args, store.key.get('server', ''))
        try:
            parts = [judge.judge(number, playback, store.known(number),
                                 lambda record: (store.add(record), tell()))
                     for number, playback in enumerate(bags.playbacks())]
        finally:
            judge.close()
        return together(run, store, parts)
    finally:
        store.close()


@dataclass(frozen=True)
class Job:
    """One bag of one run."""

    run: Run
    args: argparse.Namespace
    server: str             # what a server said of itself at first, hashed
    number: int             # of the bag
    known: dict[int, dict]  # records that were made before

    @property
    def paths(self) -> list[Path]:
        """Return what it reads, as far as it lies in a folder."""
        checkpoint = Path(self.run.config.policy.checkpoint)
        return [*on_disk([self.args.bags[self.number]]),
                *([checkpoint] if checkpoint.is_absolute() else [])]


_kept: list[Judge] = []  # of this process, one: loading and compiling take longer than a bag


def evaluate_bag(job: Job) -> tuple[list[dict[str, Any]], Part]:
    """Evaluate one bag in a process of its own; return its records, and what else is in it."""
    if not _kept or _kept[0].run.name != job.run.name:
        while _kept:
            _kept.pop().close()
        _kept.append(Judge(job.run, job.args, job.server))
    args = copy.copy(job.args)
    args.bags = [args.bags[job.number]]
    records: list[dict[str, Any]] = []
    with opened(args, Wanted.of(job.run.config)) as bags:
        part = _kept[0].judge(job.number, bags.playbacks()[0], job.known, records.append)
    return records, part


def store_of(run: Run, args: argparse.Namespace, bags: Bags) -> Store:
    """
    Return where the records of a run are kept, with those that were made before.

    :raises ValueError: there are those of another evaluation.
    """
    config = run.config.with_policy(torch_threads=args.threads)
    control, safety, inputs = config.control, config.safety, config.inputs
    key = {'version': 3, 'configuration': decided_by(config) | {'seed': 0},
           'control': {'control_rate': control.control_rate,
                       'action_offset': config.policy.action_offset} | {
               name: getattr(safety, name) for name in (
                   'velocity_scale', 'max_acceleration', 'acceleration_scale',
                   'position_margin', 'max_jump', 'max_chunk_age')} | {
               name: getattr(safety, name) for name in (
                   'joint_limits', 'replace_limits', 'gripper_joints')} | {
               name: getattr(inputs, name) for name in (
                   'max_joint_age', 'max_image_age', 'max_skew')},
           'bags': [[bag.name, bag.begin_ns, bag.end_ns] for bag in bags.bags],
           'routes': [routes.roles for routes in bags.routes],
           'every': args.every, 'seed': args.seed, 'samples': args.samples, 'delay': args.delay,
           'instruction': args.instruction, 'times': bags.times, 'variant': run.variant}
    if args.robot_description:
        key['robot_description'] = hashlib.sha256(args.robot_description.encode()).hexdigest()
    if config.policy.policy == 'remote':
        key['server'] = _identity(config)
    return Store(args.out / run.folder, json.loads(json.dumps(key, default=list)), args.overwrite)


def together(run: Run, store: Store, parts: list[Part]) -> dict[str, Any]:
    """Return what the bags of a run amount to, and write its tables."""
    store.finish()
    limits = next((part['limits'] for part in parts if not part['limits'].unknown),
                  parts[-1]['limits'])
    return {'run': run, 'records': store.all(), 'limits': limits,
            'health': [part['health'] for part in parts], 'read': [part['read'] for part in parts],
            'engine': parts[0]['engine']}


def _identity(config: Configuration) -> str:
    """Return a hash of what a server says of itself, so that another one's results are its own."""
    policy = make_local_policy(config.policy, config.robot, '')
    try:
        policy.ensure_loaded()
        return hashlib.sha256(policy.identity or b'').hexdigest()
    finally:
        policy.close()
