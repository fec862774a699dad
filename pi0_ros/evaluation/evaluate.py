# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Compares what a policy would do with what was done in bags."""

import argparse
from collections.abc import Mapping, Sequence
import dataclasses
from dataclasses import dataclass
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from pi0_ros.bags.bag import Bag, BagError
from pi0_ros.bags.bags import Bags, opened
from pi0_ros.bags.playback import counts_table
from pi0_ros.bags.routes import Wanted
from pi0_ros.bags.takeovers import spans
from pi0_ros.configuration.configuration import Configuration
from pi0_ros.evaluation import critical, measures, moments, ranking, takeovers
from pi0_ros.evaluation.execution import Execution
from pi0_ros.evaluation.store import Store, write_whole
from pi0_ros.policy.provenance import configuration
from pi0_ros.workers.factory import make_local_policy
from tqdm import tqdm

SHUFFLED = 'wrong instructions'


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


def decided_by(config: Configuration) -> dict[str, object]:
    """Return what a chunk follows from."""
    return configuration(config.policy, config.robot, config.control.handover,
                         config.control.jacobian)


def wrong_instructions(instructions: list[str]) -> Mapping[str, str]:
    """
    Return another one of ``instructions`` for each.

    :raises ValueError: there is only one.
    """
    known = sorted(set(instructions) - {''})
    if len(known) < 2:
        raise ValueError(f'--shuffle-instructions needs two instructions in the bags, found '
                         f"{', '.join(known) or 'none'}")
    return dict(zip(known, known[1:] + known[:1]))


def evaluate(run: Run, args: argparse.Namespace, bags: Bags, bar: tqdm) -> dict[str, Any]:
    """
    Evaluate one run; return its records, limits and inputs.

    :raises CheckpointError: the checkpoint cannot be used. :raises ValueError: it does not fit.
    """
    config = run.config.with_policy(torch_threads=args.threads)  # which round otherwise
    robot, control, safety, inputs = config.robot, config.control, config.safety, config.inputs
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
    key = json.loads(json.dumps(key, default=list))
    store = Store(args.out / run.folder, key, args.overwrite)
    executions: list[Execution] = []  # of each bag, with the description of its robot
    policy = make_local_policy(config.policy, robot, control.rtc, lambda: executions[-1].body())
    setting = moments.Setting(round(args.every * 1e9), args.seed, args.samples,
                              lambda text: run.asked.get(text, text))
    bar.set_description(run.name)
    try:
        policy.load()
        policy.warm_up()
        policy.ensure_loaded()
        health, limits, read = [], None, []
        for number, playback in enumerate(bags.playbacks()):
            execution = Execution(robot.commanded, control, safety, round(args.delay * 1e9))
            execution.describe(args.robot_description)
            executions.append(execution)
            for record in moments.records(number, playback, policy, execution, setting,
                                          store.known(number)):
                store.add(record)
                bar.update()
            bag = playback.bag
            limit_ns = inputs.oldest_ns
            health.append({
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
                    *playback.dropped(), execution.unlimited()]))})
            read.append((str(bag.path), counts_table(playback.counts())))
            if limits is None or limits.unknown:
                limits = execution.limits
        store.finish()
    finally:
        policy.close()
        store.close()
    return {'run': run, 'records': store.all(), 'limits': limits, 'health': health,
            'read': read,
            'engine': policy.describe()}


def evaluate_alone(job: tuple[Run, argparse.Namespace]) -> dict[str, Any]:
    """Evaluate one run in a process of its own, which opens the bags itself."""
    run, args = job
    with opened(args, Wanted.of(run.config)) as bags, tqdm(disable=True) as bar:
        return evaluate(run, args, bags, bar)


def _identity(config: Configuration) -> str:
    """Return a hash of what a server says of itself, so that another one's results are its own."""
    policy = make_local_policy(config.policy, config.robot, '')
    try:
        policy.ensure_loaded()
        return hashlib.sha256(policy.identity or b'').hexdigest()
    finally:
        policy.close()


def compare(done: list[dict[str, Any]], names: tuple[str, ...], bags: Sequence[Bag],
            delay_s: float, labels: critical.Intervals | None = None) -> dict[str, Any]:
    """
    Return what all runs amount to, in one unit of error.

    :param labels: critical intervals, by the names of bags; None: where grippers move.
    :raises ValueError: not one moment could be compared.
    """
    out: dict[str, Any] = {'joint_names': list(names), 'runs': {}}
    for one in done:
        used = [record for record in one['records'] if not record['skipped']]
        if not used:
            why = {record['skipped']: record['why'] for record in one['records']}
            raise ValueError(f"no moment of '{one['run'].name}' could be compared: "
                             + ('; '.join(why.values()) or 'the bags are shorter than --every'))
        one['rows'] = measures.Rows(one['records'], one['limits'].turns)
    limits, extent = done[0]['limits'], np.max([one['rows'].extent() for one in done], axis=0)
    known = np.isfinite(limits.upper - limits.lower)
    ranges = np.where(known, limits.upper - limits.lower, np.maximum(extent, 1e-3))
    out['range_from'] = {name: 'limits' if known[index] else 'recorded'
                         for index, name in enumerate(names)}
    steps = {one['rows'].done.shape[1] * one['rows'].dt_s for one in done}
    notes = ['the chunks are of different lengths, ' + ', '.join(
        f'{one:.2f} s' for one in sorted(steps)) + ': errors of later steps are larger, so '
        'compare them at the same time ahead'] if len(steps) > 1 else []
    offsets = {one['rows'].offset for one in done}
    notes += ['the checkpoints were trained by two conventions: the first action is due with the '
              'observation (action_offset 0) in the ones, a period later in the others; each is '
              'compared with what was done when its actions are due'] if len(offsets) > 1 else []
    out['note'] = '; '.join(notes)
    for one in done:
        for number, health in enumerate(one['health']):
            health['error_share'] = one['rows'].bag_error(number, ranges)
        out['runs'][one['run'].name] = {
            'checkpoint': one['run'].config.policy.checkpoint, 'variant': one['run'].variant,
            'fingerprint': decided_by(one['run'].config)['checkpoint'],
            'params_file': one['run'].params_file, 'action_offset': one['rows'].offset,
            **measures.summarise(one['records'], one['rows'], names, ranges),
            'bags': one['health']}
        one['ranges'] = ranges
        one['critical'] = critical.episode_sums(
            one['records'], delay_s, one['limits'].alone, ranges, one['limits'].turns, labels,
            [(bag.name, bag.begin_ns) for bag in bags])
        total, steps = (sum(part[which] for part in one['critical'].values()) for which in (0, 1))
        out['runs'][one['run'].name]['critical'] = {
            'steps': steps, 'error_share': measures.number(np.sqrt(total / steps)) if steps
            else None, 'why': '' if steps else _uncritical(labels, one['limits'].alone)}
    led = [_led(bag, done[0]['health'][number]) for number, bag in enumerate(bags)]
    for one in done:
        one['led'] = takeovers.Led(one['rows'], ranges, led)
        out['runs'][one['run'].name]['takeovers'] = takeovers.compare(
            one['rows'], one['led'], [(bag.name, bag.begin_ns) for bag in bags], names)
    out['ranking'] = _ranking(done)
    return out


def _led(bag: Bag, health: dict[str, Any]) -> list[tuple[int, int]]:
    """Return when a person led; of a bag that does not tell of one node, nothing but a warning."""
    try:
        return spans(bag)
    except BagError as error:
        health['warnings'].append(f'takeovers are left out: {error}')
        return []


def _uncritical(labels: critical.Intervals | None, grippers: np.ndarray) -> str:
    """Return why nothing was critical."""
    if labels is not None:
        return 'none of the intervals of --critical was executed'
    return ('the gripper does not move in these bags' if grippers.any() else 'name the gripper in '
            "'gripper_joints' of the parameter file, or intervals with --critical")


def _ranking(done: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the order of the checkpoints by their critical error, or by the mean one."""
    done = [one for one in done if not one['run'].variant]
    if len(done) < 2:
        return None
    by_critical = all(one['critical'] for one in done)
    found: dict[str, dict[critical.Episode, tuple[float, int]]] = {}
    for one in done:
        mine = found[one['run'].name] = dict(one['critical']) if by_critical else {}
        if not by_critical:
            names = [name for name, record in zip(critical.episodes(one['records']),
                                                  one['records']) if not record['skipped']]
            for name, error in zip(names, one['rows'].moment_errors(one['ranges']).tolist()):
                before = mine.get(name, (0.0, 0))
                mine[name] = before[0] + error, before[1] + 1
    ranked = ranking.rank(found)
    if by_critical:
        for one in ranked['order']:  # of squares, told as shares of the range
            one |= {part: measures.number(np.sqrt(one[part])) for part in ('value', 'low', 'high')}
    return {'by': 'critical error' if by_critical else 'mean error', **ranked}


def with_outcomes(result: dict[str, Any], outcomes: dict[str, list[float]]) -> None:
    """
    Add what became of runs on the robot, and how well each measure agrees with that.

    :raises ValueError: they are of other checkpoints.
    """
    result['outcomes'] = ranking.judge(outcomes, {
        name: {'critical error': run['critical']['error_share'],
               'mean error': run['error_share']['policy'],
               'chunks that limits change': run['safety']['changed_share']}
        for name, run in result['runs'].items() if not run['variant']})


def write_json(value: dict[str, Any], path: Path) -> None:
    """Write JSON for people to read, too."""
    write_whole(path, (json.dumps(value, indent=1) + '\n').encode())


def as_text(result: dict[str, Any]) -> str:
    """Return the summary for people."""
    lines = []
    for name, run in result['runs'].items():
        share = run['error_share']
        lines += ['', f"{name}: {run['compared']} of {run['moments']} moments compared"
                  + ''.join(f', {count} {reason}' for reason, count in run['skipped'].items()),
                  f"  mean error {100 * share['policy']:.2f} % of the range; hold still "
                  f"{100 * share['hold_still']:.2f} %, last velocity "
                  f"{100 * share['last_velocity']:.2f} %",
                  f"  {'joint':24}{'mean':>9}{'p95':>9}{'max':>9}{'still':>9}{'direction':>11}"]
        for joint, one in run['joints'].items():
            agree = one['direction']['agree']
            lines.append(f'  {joint:24}' + ''.join(f'{value:9.4f}' for value in (
                *(one['policy'][part] for part in ('mean', 'p95', 'max')),
                one['hold_still']['mean'])) + (f'{100 * agree:10.0f}%' if agree is not None
                                               else f"{'-':>11}"))
        decisive = run['critical']
        lines += [f"  critical error {100 * decisive['error_share']:.2f} % of the range, of "
                  f"{decisive['steps']} steps" if decisive['steps'] else
                  f"  no critical error: {decisive['why']}",
                  f"  {100 * run['safety']['changed_share']:.0f} % of the chunks are clamped, "
                  'slowed or refused']
        lines += [f'  {what} chunks: {one["chunks"]}, ' + ', '.join(
            f'{joint} {count}' for joint, count in one['joints'].items())
            for what in ('clamped', 'slowed') if (one := run['safety'][what])['chunks']]
        lines += takeovers.as_text(run['takeovers'])
        lines += [f'  warning: {text}' for bag in run['bags']
                  for text in (*bag['warnings'], bag['damage']) if text]
    lines += _ranked(result)
    lines += [f"\nnote: {result['note']}"] if result['note'] else []
    return '\n'.join(lines)


def _ranked(result: dict[str, Any]) -> list[str]:
    """Return the ranking and the outcomes for people."""
    lines, found, outcomes = [], result['ranking'], result.get('outcomes')
    if found and found['order']:
        lines += ['', f"ranking by {found['by']}, {found['episodes']} episodes (95 % of "
                  f'{ranking.DRAWS} draws of them):']
        for place, one in enumerate(found['order'], 1):
            after = one['better_than_next']
            text = '' if after is None else f', before the next in {100 * after:.0f} %'
            lines.append(f"  {place}. {one['name']:24}{100 * one['value']:7.2f} %  "
                         f"[{100 * one['low']:.2f}, {100 * one['high']:.2f}]  best in "
                         f"{100 * one['best']:.0f} %{text}")
        if found['dropped']:
            lines.append(f"  {found['dropped']} more episodes do not count: not all have them")
        if found['episodes'] < 2:
            lines.append('  of one episode: nothing can be said of how sure that is')
    if outcomes:
        lines += ['', 'on the robot:'] + [
            f"  {name:26}{100 * one['success']:5.0f} % of {one['trials']} "
            f"[{100 * one['low']:.0f}, {100 * one['high']:.0f}]"
            for name, one in outcomes['runs'].items()]
        lines += [f"  not evaluated here: {', '.join(outcomes['unknown'])}"] if (
            outcomes['unknown']) else []
        lines += [f'  rank correlation of {kind} with success: {value:+.2f} (-1 would be right)'
                  for kind, value in outcomes['spearman'].items() if value is not None]
    return lines
