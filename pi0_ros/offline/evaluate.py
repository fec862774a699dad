"""Verb ``evaluate``: compare what a policy would do with what was done in bags."""

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from tqdm import tqdm

from pi0_ros.offline import measures, moments
from pi0_ros.offline.bags import FULL, KEPT, Bags, add_bag_arguments
from pi0_ros.offline.execution import Execution
from pi0_ros.offline.params_file import read_all_parameters
from pi0_ros.offline.store import Store, write_whole
from pi0_ros.policy.factory import checkpoint_folder, make_local_policy
from pi0_ros.policy.provenance import configuration
from pi0_ros.policy.spec import CheckpointError

SHUFFLED = 'wrong instructions'


@dataclass(frozen=True)
class Run:
    """One checkpoint, with the right instructions or with wrong ones."""

    name: str
    values: SimpleNamespace
    asked: Callable[[str], str]
    variant: str = ''

    @property
    def folder(self) -> str:
        """Return the name of its output folder."""
        return self.name.replace(', ', '-').replace(' ', '_').replace('/', '_')


def parser() -> argparse.ArgumentParser:
    """Return the parser of the verb."""
    out = argparse.ArgumentParser(
        prog='pi0_ros evaluate', description='Compare what a policy would have done with what was '
        'done afterwards, at every moment of bags, and write a report. Needs no ROS. Interrupted, '
        'the same command goes on where it was.',
        epilog='Example: pi0_ros evaluate bags/* --checkpoint old=runs/1 --checkpoint new=runs/2 '
        '--params-file my_robot.yaml --remap camera_1:=/front/color/image_raw')
    out.add_argument('bags', nargs='+', type=Path, metavar='BAG',
                     help='folder of a rosbag2 recording, or a .mcap or .db3 file')
    out.add_argument('--checkpoint', action='append', metavar='[NAME=]DIR',
                     help="checkpoint folder, 'demo' for the one in the package; several are "
                     "compared (default: the parameter file's)")
    out.add_argument('--params-file', action='append', type=Path, metavar='YAML',
                     help='parameter file of the node; one for all checkpoints, or one each')
    out.add_argument('--every', type=float, default=0.5, metavar='SECONDS',
                     help='time between moments (default: 0.5)')
    out.add_argument('--samples', type=int, default=4, metavar='K',
                     help='chunks a moment, each from other noise (default: 4)')
    out.add_argument('--seed', type=int, default=0, help='of the noise (default: 0)')
    add_bag_arguments(out)
    out.add_argument('--shuffle-instructions', action='store_true',
                     help='evaluate each checkpoint also with wrong instructions, each another '
                     'one of the bags: a policy that listens gets worse')
    out.add_argument('--delay', type=float, default=0.1, metavar='SECONDS',
                     help='of an inference on the robot, for how chunks would have been joined '
                     '(default: 0.1)')
    out.add_argument('--out', type=Path, default=Path('evaluation'), metavar='DIR',
                     help='where the report goes (default: evaluation)')
    out.add_argument('--overwrite', action='store_true', help='begin anew if DIR holds another '
                     'evaluation')
    out.add_argument('--threads', type=int, default=os.cpu_count() or 1, metavar='N',
                     help='processor threads of torch (default: all)')
    out.add_argument('--reproduce', action='store_true',
                     help="decide again what the live node recorded on its topic ~/inference, and "
                     'compare bit for bit; nothing else is evaluated')
    out.add_argument('--records', type=Path, metavar='BAG',
                     help='for --reproduce: bag with ~/inference, where it is another one, as '
                     'replay.launch.py makes')
    return out


def read_values(args: argparse.Namespace) -> list[tuple[str, SimpleNamespace]]:
    """Return name and parameters of every checkpoint.

    :raises ValueError: they do not fit together.
    """
    files, names = args.params_file or [None], args.checkpoint or ['']
    if len(files) not in (1, len(names)):
        raise ValueError(f'{len(files)} parameter files for {len(names)} checkpoints: give one, '
                         'or one for each')
    out: list[tuple[str, SimpleNamespace]] = []
    for number, given in enumerate(names):
        # A folder may have an = in its name: lr=1e-4.
        name, separator, folder = ('', '', given) if checkpoint_folder(given).exists() else (
            given.partition('='))
        name, folder = (name, folder) if separator else ('', given)
        path, instead = files[number % len(files)], {'checkpoint': folder} if folder else {}
        try:
            values = read_all_parameters(path, **instead)
        except ValueError as error:
            raise error if path else ValueError(
                f'{error}: give --params-file, for example config/sim.yaml for the demo '
                'checkpoint; `pi0_ros inspect` writes one to start from') from error
        if values.policy != 'pi0' or not values.checkpoint:
            raise ValueError('there is no checkpoint to evaluate: name one with --checkpoint')
        name = name if separator else checkpoint_folder(values.checkpoint).absolute().name
        name = name if values.checkpoint != 'demo' or separator else 'demo'
        taken = {one for one, _ in out}
        out.append((name if name not in taken else f'{name} {number + 1}', values))
    joints = {values.joint_names for _, values in out}
    if len(joints) > 1:
        raise ValueError('the checkpoints move different joints, which cannot be compared: '
                         + '; '.join(', '.join(one) for one in joints))
    return out


def wrong_instruction(instructions: list[str]) -> Callable[[str], str]:
    """Return a function to another one of ``instructions`` for each.

    :raises ValueError: there is only one.
    """
    known = sorted(set(instructions) - {''})
    if len(known) < 2:
        raise ValueError(f'--shuffle-instructions needs two instructions in the bags, found '
                         f"{', '.join(known) or 'none'}")
    following = dict(zip(known, known[1:] + known[:1]))
    return lambda text: following.get(text, text)


def evaluate(run: Run, args: argparse.Namespace, bags: Bags, bar: tqdm) -> dict[str, Any]:
    """Evaluate one run; return its records, limits and inputs.

    :raises CheckpointError: the checkpoint cannot be used. :raises ValueError: it does not fit.
    """
    values = run.values
    values.torch_threads = args.threads  # which round otherwise
    key = {'version': 1, 'configuration': configuration(values) | {'seed': 0},
           'control': {name: getattr(values, name) for name in (
               'control_rate', 'joint_limits', 'velocity_scale', 'max_acceleration',
               'acceleration_scale', 'position_margin', 'max_jump', 'max_chunk_age',
               'gripper_joints',
               'max_joint_age', 'max_image_age', 'max_skew')},
           'bags': [[bag.name, bag.begin_ns, bag.end_ns] for bag in bags.bags],
           'routes': [routes.roles for routes in bags.routes],
           'every': args.every, 'seed': args.seed, 'samples': args.samples, 'delay': args.delay,
           'instruction': args.instruction, 'variant': run.variant}
    key = json.loads(json.dumps(key, default=list))
    store = Store(args.out / run.folder, key, args.overwrite)
    policy = make_local_policy(values)
    setting = moments.Setting(round(args.every * 1e9), args.seed, args.samples, run.asked)
    bar.set_description(run.name)
    try:
        policy.load()
        policy.warm_up()
        health, limits = [], None
        for number, playback in enumerate(bags.playbacks(values)):
            execution = Execution(values, round(args.delay * 1e9))
            for record in moments.records(number, playback, policy, execution, setting,
                                          store.known(number)):
                store.add(record)
                bar.update()
            bag = playback.bag
            limit_ns = round(1e9 * max(values.max_joint_age, values.max_image_age))
            health.append({
                'bag': str(bag.path), 'seconds': bag.seconds,
                'topics': dict(playback.routes.cameras) | {
                    'joint_states': playback.routes.joints,
                    'instruction': playback.routes.instruction,
                    'actions': playback.routes.actions},
                'rate_hz': {name: round(one.rate_hz(), 2)
                            for name, one in playback.health.inputs.items()},
                'gap_p95_ms': {name: round(one.gap_ms(95), 1)
                               for name, one in playback.health.inputs.items()},
                'damage': bag.damage,
                'warnings': list(dict.fromkeys([
                    *bag.warnings, *playback.health.warnings(
                        playback.begin_ns or 0, playback.now_ns or 0, limit_ns),
                    *playback.dropped(), execution.unlimited()]))})
            if limits is None or limits.unknown:
                limits = execution.limits
        store.finish()
    finally:
        policy.close()
        store.close()
    return {'run': run, 'records': store.all(), 'limits': limits, 'health': health,
            'engine': policy.describe()}


def compare(done: list[dict[str, Any]], names: tuple[str, ...]) -> dict[str, Any]:
    """Return what all runs amount to, in one unit of error.

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
    out['note'] = ('the chunks are of different lengths, ' + ', '.join(
        f'{one:.2f} s' for one in sorted(steps)) + ': errors of later steps are larger, so '
        'compare them at the same time ahead') if len(steps) > 1 else ''
    for one in done:
        bags, errors = one['rows'].bags(), one['rows'].moment_errors(ranges)
        for number, health in enumerate(one['health']):
            share = errors[bags == number]
            health['error_share'] = float(f'{share.mean():.6g}') if len(share) else None
        out['runs'][one['run'].name] = {
            'checkpoint': one['run'].values.checkpoint, 'variant': one['run'].variant,
            **measures.summarise(one['records'], one['rows'], names, ranges),
            'bags': one['health']}
        one['ranges'] = ranges
    return out


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
            lines.append(f"  {joint:24}" + ''.join(f'{value:9.4f}' for value in (
                *(one['policy'][part] for part in ('mean', 'p95', 'max')),
                one['hold_still']['mean'])) + (f'{100 * agree:10.0f}%' if agree is not None
                                               else f"{'-':>11}"))
        lines += [f'  warning: {text}' for bag in run['bags']
                  for text in (*bag['warnings'], bag['damage']) if text]
    lines += [f"\nnote: {result['note']}"] if result['note'] else []
    return '\n'.join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run the verb."""
    args = parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format='pi0_ros evaluate: %(message)s')
    if not (0.001 <= args.every < 1e6 and 0 <= args.delay < 1e3) or min(
            args.samples, args.threads, args.seed + 1) < 1:
        print('pi0_ros evaluate: --every must be at least 0.001, --samples and --threads 1, '
              '--delay and --seed not negative', file=sys.stderr)
        return 2
    try:
        if args.reproduce:
            from pi0_ros.offline.reproduce import reproduce
            return reproduce(args)
        return _run(args)
    except OSError as error:
        print(f'pi0_ros evaluate: {error}' + KEPT * (error.errno in FULL), file=sys.stderr)
    except (CheckpointError, ValueError) as error:
        print(f'pi0_ros evaluate: {error}', file=sys.stderr)
    except KeyboardInterrupt:
        print('\npi0_ros evaluate: interrupted: the same command goes on from here',
              file=sys.stderr)
        return 130
    return 1


def _run(args: argparse.Namespace) -> int:
    given = read_values(args)
    with ExitStack() as stack:
        bags = [Bags(args, values, stack) for _, values in given]
        print(bags[0].describe())
        runs = [(Run(name, values, lambda text: text), of)
                for (name, values), of in zip(given, bags)]
        if args.shuffle_instructions:
            wrong = wrong_instruction(bags[0].instructions())
            runs += [(Run(f'{name}, {SHUFFLED}', values, wrong, SHUFFLED), of)
                     for (name, values), of in zip(given, bags)]
        total = len(runs) * sum(int(bag.seconds / args.every) for bag in bags[0].bags)
        with tqdm(total=total, unit='moment', dynamic_ncols=True) as bar:
            done = [evaluate(run, args, of, bar) for run, of in runs]
        result = compare(done, given[0][1].joint_names)
        result['settings'] = {'every_s': args.every, 'samples': args.samples, 'seed': args.seed,
                              'delay_s': args.delay}
        write_json(result, args.out / 'evaluation.json')
        print(as_text(result))
        from pi0_ros.offline.report import write_report
        write_report(result, done, bags[0], args.out)
    print(f"\nreport: {args.out / 'report.html'}")
    return 0
