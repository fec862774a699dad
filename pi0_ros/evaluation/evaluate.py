# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Compares what a policy would do with what was done in bags."""

from collections.abc import Mapping, Sequence
import json
from pathlib import Path
from typing import Any

import numpy as np
from pi0_ros.bags.bag import Bag, BagError
from pi0_ros.bags.takeovers import spans
from pi0_ros.evaluation import critical, measures, ranking, takeovers
from pi0_ros.evaluation.judge import decided_by
from pi0_ros.evaluation.store import write_whole

SHUFFLED = 'wrong instructions'


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
