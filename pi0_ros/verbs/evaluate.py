# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Verb ``evaluate``: compare what a policy would do with what was done in bags."""

import argparse
from contextlib import ExitStack
from dataclasses import replace
import importlib.metadata
import logging
import os
from pathlib import Path
import platform
import sys
from typing import Any

from pi0_ros import __version__
from pi0_ros.bags.bag import Bag
from pi0_ros.bags.bags import add_bag_arguments, Bags
from pi0_ros.bags.routes import Wanted
from pi0_ros.bags.stores import address, FULL, KEPT
from pi0_ros.configuration.advice import advised
from pi0_ros.configuration.configuration import Configuration
from pi0_ros.configuration.file import read_all_parameters, read_description, read_parameters
from pi0_ros.dataset.outcome import DISCARD, read
from pi0_ros.evaluation.critical import read_intervals, require_bags
from pi0_ros.evaluation.evaluate import (as_text, compare, SHUFFLED, with_outcomes, write_json,
                                         wrong_instructions)
from pi0_ros.evaluation.judge import evaluate, evaluate_bag, Job, Run, store_of, together
from pi0_ros.evaluation.ranking import read_outcomes, require_known
from pi0_ros.jobs import Runner
from pi0_ros.policy.factory import checkpoint_folder
from pi0_ros.policy.policy import Unserved
from pi0_ros.policy.provenance import fingerprint
from pi0_ros.remote.schemas import OURS
from pi0_ros.verbs.servers import is_server, of_server
from pi0_ros.weights.files import CheckpointError
from tqdm import tqdm


def parser() -> argparse.ArgumentParser:
    """Return the parser of the verb."""
    out = argparse.ArgumentParser(
        prog='pi0_ros evaluate', description='Compare what a policy would have done with what was '
        'done afterwards, at every moment of bags, and write a report. Needs no ROS. Interrupted, '
        'the same command goes on where it was.',
        epilog='Example: pi0_ros evaluate bags/* --checkpoint old=runs/1 --checkpoint new=runs/2 '
        '--params-file my_robot.yaml --remap camera_1:=/front/color/image_raw')
    out.add_argument('bags', nargs='+', type=address, metavar='BAG',
                     help='folder of a rosbag2 recording, or a .mcap or .db3 file')
    out.add_argument('--checkpoint', action='append', metavar='[NAME=]DIR',
                     help="checkpoint folder, 'demo' for the one in the package, or a server's "
                     'address, ws://HOST:PORT; several are compared (default: the parameter '
                     "file's)")
    out.add_argument('--params-file', action='append', type=Path, metavar='YAML',
                     help='parameter file of the node; one for all checkpoints, or one each')
    out.add_argument('--robot-description', type=read_description, metavar='URDF',
                     help='description of the robot, for bags that lack it')
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
    out.add_argument('--critical', type=Path, metavar='YAML',
                     help='where it matters, for every bag by its name: a list of [from, to], '
                     'seconds (default: half a second around every motion of a gripper)')
    out.add_argument('--outcomes', type=Path, metavar='FILE',
                     help='what became of runs on the robot: a bag with the topic episode_result '
                     'of the node, or CSV or JSON with checkpoint and success in every row: tells '
                     'which measure orders the checkpoints by success')
    out.add_argument('--out', type=Path, default=Path('evaluation'), metavar='DIR',
                     help='where the report goes (default: evaluation)')
    out.add_argument('--overwrite', action='store_true', help='begin anew if DIR holds another '
                     'evaluation')
    out.add_argument('--jobs', type=int, default=1, metavar='N',
                     help='bags at a time, each in a process with a model of its own '
                     '(default: 1); fewer --threads leave some to each')
    out.add_argument('--ray', default='', metavar='ADDRESS',
                     help='bags on a Ray cluster instead, whose machines see the same folders, '
                     'as of export')
    out.add_argument('--ray-gpus', type=float, default=0.0, metavar='N',
                     help='with --ray: GPUs of each process; 0.5 lets two share one')
    out.add_argument('--threads', type=int, default=os.cpu_count() or 1, metavar='N',
                     help='processor threads of torch (default: all)')
    out.add_argument('--reproduce', action='store_true',
                     help='decide again what the live node recorded on its topic ~/inference, and '
                     'compare bit for bit; nothing else is evaluated')
    out.add_argument('--records', type=Path, metavar='BAG',
                     help='for --reproduce: bag with ~/inference, where it is another one, as '
                     'replay.launch.py makes')
    return out


def read_values(args: argparse.Namespace) -> list[tuple[str, Configuration]]:
    """
    Return name and parameters of every checkpoint.

    :raises ValueError: they do not fit together.
    """
    files, names = args.params_file or [None], args.checkpoint or ['']
    if len(files) not in (1, len(names)):
        raise ValueError(f'{len(files)} parameter files for {len(names)} checkpoints: give one, '
                         'or one for each')
    out: list[tuple[str, Configuration]] = []
    for number, given in enumerate(names):
        # A folder may have an = in its name: lr=1e-4.
        name, separator, folder = ('', '', given) if is_server(given) or checkpoint_folder(
            given).exists() else given.partition('=')
        name, folder = (name, folder) if separator else ('', given)
        path, instead = files[number % len(files)], {'checkpoint': folder} if folder else {}
        if is_server(folder):
            instead = {'policy': 'remote', 'server': folder, 'server_schema': read_parameters(
                path).policy.server_schema or OURS}
        try:
            config = read_all_parameters(path, **instead)
            if config.policy.policy == 'remote':
                config = of_server(config, config.policy.server)
        except ValueError as error:
            raise error if path else ValueError(
                f'{error}: give --params-file, for example config/sim.yaml for the demo '
                'checkpoint; `pi0_ros inspect` writes one to start from') from error
        remote = config.policy.policy == 'remote'
        if not remote and not (
                config.policy.has_checkpoint and config.policy.checkpoint):
            raise ValueError('there is no checkpoint to evaluate: name one with --checkpoint')
        if not separator:
            name = (config.policy.server.partition('://')[2].strip('/').replace(':', '_')
                    if remote else 'demo' if config.policy.checkpoint == 'demo' else
                    checkpoint_folder(config.policy.checkpoint).absolute().name)
        taken = {one for one, _ in out}
        out.append((name if name not in taken else f'{name} {number + 1}', config))
    joints = {config.robot.commanded for _, config in out}
    if len(joints) > 1:
        raise ValueError('the checkpoints move different joints, which cannot be compared: '
                         + '; '.join(', '.join(one) for one in joints))
    return out


def main(argv: list[str] | None = None) -> int:
    """Run the verb."""
    args = parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format='pi0_ros evaluate: %(message)s')
    if not (0.001 <= args.every < 1e6 and 0 <= args.delay < 1e3) or min(
            args.samples, args.threads, args.seed + 1, args.jobs) < 1 or not (
            0 <= args.ray_gpus <= 64):
        print('pi0_ros evaluate: --every must be at least 0.001, --samples, --threads and '
              '--jobs 1, --delay, --seed and --ray-gpus not negative', file=sys.stderr)
        return 2
    args.out, args.bags = args.out.absolute(), [
        one.absolute() if isinstance(one, Path) else one for one in args.bags]
    try:
        if args.reproduce:
            return _reproduce(args)
        return _run(args)
    except OSError as error:
        print(f'pi0_ros evaluate: {advised(error)}' + KEPT * (error.errno in FULL),
              file=sys.stderr)
    except (CheckpointError, ValueError, Unserved) as error:
        print(f'pi0_ros evaluate: {advised(error)}', file=sys.stderr)
    except KeyboardInterrupt:
        print('\npi0_ros evaluate: interrupted: the same command goes on from here',
              file=sys.stderr)
        return 130
    return 1


def _outcomes(path: Path, given: list[tuple[str, Configuration]]) -> dict[str, list[float]]:
    """
    Return successes by checkpoint; of a bag, those are told apart by their fingerprints.

    What a person took part in is no success of a checkpoint.
    """
    told: dict[str, list[float]] = {}
    if path.is_dir() or path.suffix in ('.mcap', '.db3'):
        with Bag(path) as bag:
            for one in read(bag):
                if one.outcome != DISCARD:
                    told.setdefault(one.checkpoint, []).append(float(one.succeeded))
        if not told:
            raise ValueError(f"bag '{path}' does not tell what became of its episodes (the topic "
                             'episode_result of the node)')
    else:
        told = read_outcomes(path)
    names: dict[str, list[str]] = {}
    for name, config in given if set(told) - {name for name, _ in given} else ():
        if config.policy.has_checkpoint:
            folder = checkpoint_folder(config.policy.checkpoint)
            names.setdefault(fingerprint(folder), []).append(name)
    out: dict[str, list[float]] = {}
    for key, successes in told.items():
        name, *more = names.get(key, [key or 'without a checkpoint'])
        if more:
            raise ValueError(f"'{name}' and '{more[0]}' are the same checkpoint, which '{path}' "
                             "does not tell apart: give a table with the checkpoints' names")
        out.setdefault(name, []).extend(successes)
    return out


def _evaluated(args: argparse.Namespace, runs: list[tuple[Run, Bags]]) -> list[dict[str, Any]]:
    """Return what each run found: here, or one bag of one checkpoint at a time elsewhere."""
    counts = [int(bag.seconds / args.every) for bag in runs[0][1].bags]
    if not args.ray and (args.jobs == 1 or len(runs) * len(counts) == 1):
        with tqdm(total=len(runs) * sum(counts), unit='moment', dynamic_ncols=True) as bar:
            out = []
            for run, of in runs:
                bar.set_description(run.name)
                out.append(evaluate(run, args, of, bar.update))
            return out
    with ExitStack() as stack:
        stores = [store_of(run, args, of) for run, of in runs]
        for store in stores:
            stack.callback(store.close)
        # A worker that goes on with the next bag of a checkpoint keeps the network.
        jobs = dict(enumerate(Job(run.findable(), args, store.key.get('server', ''), number,
                                  store.known(number))
                              for (run, _), store in zip(runs, stores)
                              for number in range(len(counts))))
        parts: dict[int, dict[str, Any]] = {}
        failed: list[Exception] = []
        for key, out, error in Runner(args.jobs, args.ray, 'moment', args.ray_gpus).run(
                evaluate_bag, jobs, {key: counts[job.number] for key, job in jobs.items()},
                lambda job: job.paths):
            if error:  # what others find is kept
                failed.append(error)
                continue
            records, parts[key] = out
            for record in records:
                stores[key // len(counts)].add(record)
        if failed:
            raise failed[0]
        return [together(run, store, [parts[number * len(counts) + bag]
                                      for bag in range(len(counts))])
                for number, ((run, _), store) in enumerate(zip(runs, stores))]


def _run(args: argparse.Namespace) -> int:
    given = read_values(args)
    labels = read_intervals(args.critical) if args.critical else None
    outcomes = _outcomes(args.outcomes, given) if args.outcomes else None
    with ExitStack() as stack:
        if outcomes:
            require_known(outcomes, [name for name, _ in given])
        bags = [Bags(args, Wanted.of(config), stack) for _, config in given]
        if labels:
            require_bags(labels, [bag.name for bag in bags[0].bags])
        print(bags[0].describe())
        files = [path.name for path in args.params_file or []] or ['']
        runs = [(Run(name, config, {}, '', files[number % len(files)]), of)
                for number, ((name, config), of) in enumerate(zip(given, bags))]
        if args.shuffle_instructions:
            wrong = wrong_instructions(bags[0].instructions())
            runs += [(replace(run, name=f'{run.name}, {SHUFFLED}', asked=wrong, variant=SHUFFLED),
                      of) for run, of in runs]
        done = _evaluated(args, runs)
        result = compare(done, given[0][1].robot.commanded, bags[0].bags, args.delay, labels)
        if outcomes:
            with_outcomes(result, outcomes)
        result['settings'] = {'every_s': args.every, 'samples': args.samples, 'seed': args.seed,
                              'delay_s': args.delay, 'time': args.time}
        result['versions'] = {'pi0_ros': __version__, 'Python': platform.python_version(), **{
            name: importlib.metadata.version(name) for name in ('torch', 'transformers', 'numpy')}}
        write_json(result, args.out / 'evaluation.json')
        print(as_text(result))
        for path, table in done[0]['read']:
            print(f'\nmessages of {path}\n{table}')
        from pi0_ros.evaluation.report import write_report
        write_report(result, done, bags[0], args.out)
    print(f"\nreport: {args.out / 'report.html'}")
    return 0


def _reproduce(args: argparse.Namespace) -> int:
    from pi0_ros.evaluation.reproduce import reproduce
    given = read_values(args)
    if len(given) > 1:
        raise ValueError('--reproduce takes one checkpoint: that of the live node')
    return reproduce(given[0][1], args)
