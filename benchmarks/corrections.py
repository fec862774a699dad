# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The loop closed: a weak checkpoint, a person who takes over, and what it learns from that.

    python benchmarks/corrections.py [--noise 0.16] [--interventions 50] [--steps 1000]

The weak checkpoint is the package's with noise on its weights. On the synthetic clock of the
closed loop, with the node's own guard, limiter and takeover, a scripted person watches: where the
block is not taken in four seconds, or another is held, he takes over (absolute mode), takes it,
and the recording is a bag as the node's would be. export and train make a checkpoint of the bags,
and both are judged on tables that nobody has seen.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from copy import deepcopy
import json
from pathlib import Path
import shutil
import subprocess
import sys

import cv2
from machine import machine
import numpy as np
from pi0_ros.control.leading import Leading
from pi0_ros.evaluation.ranking import wilson
from pi0_ros.policy.pi0 import Pi0Policy
from pi0_ros.sim import arm, expert, world
from pi0_ros.sim.demonstration import BagWriter, JPEG_QUALITY, START_NS, trajectory
from pi0_ros.sim.episodes import CAMERAS, FIRST_UNSEEN_SEED, FRAME_TICKS, run_episode, TICK_NS
from pi0_ros.sim.world import COLOURS
from ranking import perturbed
from tqdm import tqdm

ROOT = Path(__file__).parents[1]
PATIENCE_NS, LIMIT_S = 4_000_000_000, 25.0
SLOWLY = 0.7     # of the expert's pace: a robot at half its velocity keeps up, nearly
AHEAD = 0.12     # rad, that the person is ahead of the robot at most
STRING, BOOL = 'std_msgs/msg/String', 'std_msgs/msg/Bool'
STATES, COMMANDS = 'sensor_msgs/msg/JointState', 'trajectory_msgs/msg/JointTrajectory'
CORRECTED, JUDGED = 10_000, FIRST_UNSEEN_SEED + 5_000  # the first seeds


class Person:
    """Watches, takes over, and keeps what was seen and done."""

    def __init__(self, helps: bool) -> None:
        self._helps, self.leads, self.led_ns = helps, False, None
        self.rows: list[tuple] = []

    def begin(self, robot, guard, named) -> None:
        self.robot, self.named = robot, np.array([COLOURS.index(named)])
        self._leading = Leading(guard, 'absolute', 'pause')
        self._table = self._command = None

    def watch(self, now_ns: int, command: np.ndarray | None, _: object) -> None:
        """Keep what was commanded at the tick that was worked for."""
        self.rows[-1] += (command,)

    def work(self, now_ns: int) -> None:
        robot = self.robot
        images = {name: cv2.imencode('.jpg', robot.image(name)[:, :, ::-1], [
            cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].ravel() for name in CAMERAS} if (
                len(self.rows) % FRAME_TICKS == 0) else {}
        wrong = robot.held is not None and COLOURS.index(robot.held) != self.named[0]
        if self._helps and not self.leads and (wrong or now_ns > PATIENCE_NS):
            self.leads, self.led_ns = True, now_ns
        if self.leads:
            self._leading.press(True, now_ns, now_ns)
            self._lead(now_ns)
            self._leading.watch(now_ns)
        self.rows.append((now_ns, robot.joints.copy(), images, self.leads))

    def _lead(self, now_ns: int) -> None:
        """Move the leader arm, which is another simulated one before the same table."""
        robot = self.robot
        if self._table is None:
            if np.abs(robot.velocity).max() > 1e-3:
                return  # it comes to rest first
            self._table = deepcopy(robot.world)
            self._command = self._table.joints.copy()
        if np.abs(robot.joints - self._table.joints[0])[:-1].max() < AHEAD:
            step_s = SLOWLY * TICK_NS / 1e9
            self._command = expert.advance(self._table, self._command, self.named, step_s)
            world.step(self._table, self._command, step_s)
        # Nothing stands between the leader's own fingers: they close where he wants them.
        wanted = [*self._table.joints[0, :-1].tolist(), float(self._command[0, -1])]
        self._leading.lead(list(arm.JOINT_NAMES), wanted, now_ns, now_ns)

    def write(self, path: Path, instruction: str) -> None:
        """Write a bag of it."""
        out = BagWriter(path)
        begin_ns, led = self.rows[0][0], None
        out.write('/instruction', STRING, START_NS, data=instruction)
        out.write('/pi0/status', STRING, START_NS, data='')
        for now_ns, joints, images, leads, command in self.rows:
            at_ns = START_NS + now_ns - begin_ns
            if leads != led:
                led = leads
                out.write('/pi0/led', BOOL, at_ns, data=leads)
            for name, jpeg in images.items():
                out.write(f'/{name}/image_raw/compressed', 'sensor_msgs/msg/CompressedImage',
                          at_ns + 10**5, at_ns, format='jpeg', data=jpeg)
            out.write('/joint_states', STATES, at_ns + 2 * 10**5, at_ns,
                      name=list(arm.JOINT_NAMES), position=joints, velocity=np.zeros(5),
                      effort=np.zeros(0))
            if command is not None:
                out.write('/joint_trajectory', COMMANDS, at_ns + 3 * 10**5, at_ns,
                          joint_names=list(arm.JOINT_NAMES), points=trajectory([(0, command)]))
        out.close()


def correct(folder: Path, checkpoint: Path, wanted: int) -> dict:
    """Write bags until so many interventions are recorded; return what happened."""
    policy = Pi0Policy(checkpoint, threads=2)
    policy.load()
    policy.warm_up()
    told = {'episodes': 0, 'alone': 0, 'interventions': 0, 'in_vain': 0}
    bar = tqdm(total=wanted, unit='intervention')
    while told['interventions'] < wanted:
        person, seed = Person(True), CORRECTED + told['episodes']
        episode = run_episode(policy, seed, helper=person, watch=person.watch,
                              limit_s=LIMIT_S)
        told['episodes'] += 1
        if person.led_ns is None:
            told['alone'] += 1
        elif person.robot.taken != episode.named:
            told['in_vain'] += 1
            continue
        else:
            told['interventions'] += 1
            bar.update()
        person.write(folder / f'{seed}', f'pick up the {episode.named} block')
    bar.close()
    return told


def judge(checkpoint: Path, seeds: range) -> list[bool]:
    """Return of which tables the named block was taken, and no other."""
    policy = Pi0Policy(checkpoint, threads=1)
    policy.load()
    policy.warm_up()
    return [run_episode(policy, seed).success for seed in seeds]


def success(checkpoint: Path, episodes: int, workers: int) -> list[bool]:
    """Return successes over as many tables, by several processes."""
    parts = np.array_split(np.arange(JUDGED, JUDGED + episodes), 2 * workers)
    with ProcessPoolExecutor(workers) as pool:
        jobs = [pool.submit(judge, checkpoint, [int(one) for one in part]) for part in parts]
        return [value for job in jobs for value in job.result()]


def run(*words: object) -> None:
    """Run a verb."""
    subprocess.run([sys.executable, '-m', 'pi0_ros', *map(str, words)], cwd=ROOT, check=True)


def main() -> None:
    """Weaken, correct, export, train, judge; print the table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--noise', type=float, default=0.16)
    parser.add_argument('--interventions', type=int, default=50)
    parser.add_argument('--steps', type=int, default=1000)
    parser.add_argument('--batch-size', type=int, default=16)
    parser.add_argument('--learning-rate', type=float, default=3e-4)
    parser.add_argument('--episodes', type=int, default=200)
    parser.add_argument('--workers', type=int, default=2)
    parser.add_argument('--only', choices=('all', 'interventions'), default='all',
                        help='what is trained on: all but what led to a takeover, or what the '
                        'person did')
    parser.add_argument('--actions', default='', metavar='TOPIC',
                        help='what is learnt: as of export, what was commanded if left out; '
                        'joint_states for where the joints were measured')
    parser.add_argument('--again', action='store_true',
                        help='train and judge anew on what was recorded in --out')
    parser.add_argument('--out', type=Path, default=Path('out/corrections'))
    args = parser.parse_args()
    out = args.out.absolute()
    weak, recorded = out / 'weak', out / 'recorded.json'
    if not args.again:
        shutil.rmtree(out, ignore_errors=True)
        (out / 'bags').mkdir(parents=True)
        perturbed(weak, args.noise)
        recorded.write_text(json.dumps(correct(out / 'bags', weak, args.interventions)))
    told = json.loads(recorded.read_text())
    for folder in (out / 'set', out / 'train'):
        shutil.rmtree(folder, ignore_errors=True)
    only = ['--only', 'interventions'] if args.only == 'interventions' else [
        '--drop-before-takeover', LIMIT_S]
    run('export', *sorted((out / 'bags').iterdir()), '--dataset', out / 'set', '--fps', 50,
        '--params-file', 'config/sim.yaml', *only,
        *(['--actions', args.actions] if args.actions else []))
    frames = json.loads((out / 'set' / 'meta' / 'info.json').read_text())
    run('train', '--dataset', out / 'set', '--checkpoint', weak, '--output', out / 'train',
        '--steps', args.steps, '--batch-size', args.batch_size, '--learning-rate',
        args.learning_rate, '--keep-statistics', '--held-out', 0, '--save-every', args.steps,
        '--threads', 2)
    after = out / 'train' / 'checkpoints' / 'last' / 'pretrained_model'
    rows = {name: success(path, args.episodes, args.workers)
            for name, path in (('weak', weak), ('corrected', after))}
    print(f"{machine()}; noise {args.noise}, {told['episodes']} episodes, {told['alone']} alone, "
          f"{told['interventions']} interventions, {told['in_vain']} in vain; "
          f"{frames['total_episodes']} episodes of {frames['total_frames']} frames; {args.steps} "
          f'steps of {args.batch_size} at {args.learning_rate:g}')
    for name, taken in rows.items():
        low, high = wilson(sum(taken), len(taken))
        print(f'{name:12}{sum(taken):5d} of {len(taken)}  [{100 * low:.0f}, {100 * high:.0f}] %')
    (out / 'corrections.json').write_text(json.dumps({
        'machine': machine(), 'settings': vars(args), 'told': told,
        'frames': frames['total_frames'], 'success': rows}, default=str) + '\n')


if __name__ == '__main__':
    main()
