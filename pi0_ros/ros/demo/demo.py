# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Verb ``demo``: a simulated robot takes three blocks that it is told to take.

Starts the simulated robot and the node as processes of their own, arms the robot, gives three
instructions through the instruction topic and watches what happens.
"""

import argparse
import json
import os
from pathlib import Path
import select
import sys

import numpy as np
from pi0_ros.ros.demo.observer import Observer, Run, Watched
from pi0_ros.ros.demo.processes import Children, private_environment
from pi0_ros.ros.demo.starting import grouped, start_processes, start_verbs
from pi0_ros.sim import arm
from pi0_ros.sim.controller import KINDS
from pi0_ros.sim.recording import plot_joints, Recording, write_animation
from pi0_ros.sim.world import COLOURS
import rclpy

PHRASES = ('pick up the {} block', 'now take the {} cube', 'grab the {} one please')
ATTEMPT_S, REST_S = 12.0, 0.7
BLOCKS = Watched(arm.JOINT_NAMES, [(f'{name}joint_trajectory', '')
                                   for name in ('', 'arm/', 'gripper/')],
                 [('joint_states', '')], ['overhead'])


class Demo(Run):
    """One run of the demo, from the first process to the last picture."""

    def __init__(self, args: argparse.Namespace, children: Children, observer: Observer) -> None:
        """Use ``children`` for processes and ``observer`` for topics."""
        super().__init__(children, observer)
        self.args = args

    def start(self) -> None:
        """
        Start robot and node, and arm the robot when both are ready.

        :raises RuntimeError: they did not become ready.
        """
        given = {'checkpoint': self.args.checkpoint} if self.args.checkpoint else {}
        if self.args.server:
            given |= {'policy': 'remote', 'server': self.args.server, 'server_schema': 'pi0_ros'}
        if self.args.groups or given:
            start_verbs(self.children, self.args.seed, self.args.delay, self.args.controller,
                        *(grouped() if self.args.groups else ()),
                        *(word for name, value in given.items()
                          for word in ('-p', f'{name}:={value}')),
                        sim=['-p', f'groups:={str(self.args.groups).lower()}'])
        else:
            start_processes(self.children, self.args.seed, self.args.delay, self.args.controller)
        self.observer.say('started the simulated robot and the node, loading the policy')
        self.arm()

    def attempt(self, colour: str, phrase: str) -> dict[str, object]:
        """Give one instruction, to a robot that is armed again if need be; return how it went."""
        observer = self.observer
        if observer.state == 'disarmed':  # one that did not follow, on a machine that was busy
            self.arm()
        instruction, began = phrase.format(colour), observer.elapsed()
        before = observer.taken
        observer.instruct(instruction)
        self.wait(lambda: observer.taken not in ('', before), ATTEMPT_S)
        success = observer.taken == colour and before != colour
        out = {'instruction': instruction, 'named': colour, 'taken': observer.taken,
               'success': success, 'seconds': round(observer.elapsed() - began, 2)}
        if not success:
            observer.say(f'failed: took {observer.taken or "nothing"}')
        self.wait(lambda: False, REST_S)
        return out

    def summary(self, episodes: list[dict]) -> dict[str, object]:
        """Return the figures of the run."""
        return {'episodes': len(episodes),
                'successes': sum(bool(episode['success']) for episode in episodes),
                'instructions': episodes, **self.figures()}

    def live(self) -> None:
        """Keep running so that a person can give instructions."""
        print('\nThe robot is armed. In another terminal, with ROS 2 at hand:\n'
              f"  export ROS_DOMAIN_ID={os.environ['ROS_DOMAIN_ID']} "
              'ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST\n'
              '  ros2 topic pub --once /instruction std_msgs/msg/String '
              '"{data: \'pick up the red block\'}"\n'
              'or type an instruction here. Ctrl-C ends it.\n', flush=True)
        self.observer.records = False
        while True:
            if not self.wait(lambda: bool(select.select([sys.stdin], [], [], 0)[0]), 60):
                continue
            line = sys.stdin.readline()
            if not line:  # no terminal: only the topic gives instructions
                self.wait(lambda: False, float('inf'))
            self.observer.instruct(line.strip())


def table(episodes: list[dict]) -> str:
    """Return the result as lines of text."""
    rows = [f'{"instruction":34} {"taken":8} {"seconds":>7}  result']
    rows += [f"{episode['instruction']:34} {episode['taken'] or 'nothing':8} "
             f"{episode['seconds']:7.1f}  {'ok' if episode['success'] else 'FAILED'}"
             for episode in episodes]
    return '\n'.join(rows)


def parser() -> argparse.ArgumentParser:
    """Return the command line of this verb."""
    out = argparse.ArgumentParser(prog='pi0_ros demo', description=__doc__)
    out.add_argument('--live', action='store_true',
                     help='keep running and take instructions from you')
    out.add_argument('--seed', type=int, default=7, help='of the block places (default: 7)')
    out.add_argument('--delay', type=float, default=0.0, metavar='S',
                     help='added to every inference (default: 0)')
    out.add_argument('--controller', choices=KINDS, default=KINDS[1],
                     help='whose joint_trajectory_controller the robot has, at 500 Hz (default: '
                          '%(default)s)')
    out.add_argument('--groups', action='store_true',
                     help='arm and gripper on controllers of their own, the gripper behind an '
                          'action where control_msgs is installed')
    out.add_argument('--checkpoint', type=Path, metavar='FOLDER',
                     help="of train, instead of the package's")
    out.add_argument('--server', metavar='ws://HOST:PORT',
                     help='let a server decide (pi0_ros serve --checkpoint demo)')
    out.add_argument('--robot', metavar='NAME', help='a robot in physics instead, so101 or aloha, '
                     'driven with its profile (needs requirements/mujoco.txt)')
    out.add_argument('--policy', metavar='NAME', help='with --robot: mock_sine, mock_scripted or '
                     'pi0 (default: one after another)')
    out.add_argument('--out', type=Path, default=Path('out/demo'),
                     help='folder for summary.json, pictures and logs (default: out/demo)')
    return out


def _try(args: argparse.Namespace) -> int:
    """Let a robot in physics be driven; return 0 if that went well."""
    try:
        from pi0_ros.ros.demo import trial
    except ImportError as error:
        if type(error).__name__ != 'NotInstalled':
            raise
        print(f'pi0_ros demo: {error}', file=sys.stderr)
        return 1
    for given, known, what in ((args.robot, trial.MODELS, 'robot'),
                               (args.policy, (None, *trial.POLICIES), 'policy')):
        if given not in known:
            parser().error(f"argument --{what}: unknown {what} '{given}', expected one of "
                           f"{', '.join(name for name in known if name)}")
    return trial.run(args)


def main(argv: list[str] | None = None) -> int:
    """Run the demo; return 0 if at least two of three blocks were taken."""
    args = parser().parse_args(argv)
    blocks = [f'--{name}' for name in ('live', 'delay', 'groups', 'checkpoint')
              if getattr(args, name)]
    if args.robot and blocks:
        parser().error(f'{blocks[0]} is of the demo with blocks, not of --robot')
    if args.policy and not args.robot:
        parser().error('--policy is of --robot, so101 or aloha; the demo with blocks has one')
    if args.robot:
        return _try(args)
    args.out.mkdir(parents=True, exist_ok=True)
    environment = private_environment()
    os.environ.update(environment)
    children = Children(environment, args.out)
    rclpy.init()
    observer = Observer(BLOCKS)
    demo = Demo(args, children, observer)
    episodes: list[dict] = []
    failed = False
    try:
        demo.start()
        if args.live:
            demo.live()
        order = np.random.default_rng(args.seed).permutation(COLOURS)
        for colour, phrase in zip(order, PHRASES):
            episodes.append(demo.attempt(str(colour), phrase))
        demo.wait(lambda: False, 1.1)  # the last diagnostics
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
    except RuntimeError as error:
        print(f'pi0_ros demo: {error}', file=sys.stderr)
        failed = True
    finally:
        children.end()
        observer.destroy_node()
        rclpy.try_shutdown()
    if args.live:
        return int(failed)
    code = report(args.out, demo.summary(episodes), observer.recording)
    return 1 if failed else code


def report(out: Path, summary: dict, recording: Recording) -> int:
    """Write and print the results; return the exit code."""
    try:
        (out / 'summary.json').write_text(json.dumps(summary, indent=2) + '\n')
        write_animation(recording, out / 'overhead.gif')
        plot_joints(recording, out / 'joints.png')
    except OSError as error:
        print(f"pi0_ros demo: cannot write to '{out}': {error}; make room, or give another folder "
              'with --out', file=sys.stderr)
        return 1
    print(f'\n{table(summary["instructions"])}\n')
    ticks, inference = summary['tick_interval_ms'], summary['inference_ms']
    print(f"{summary['successes']} of {summary['episodes']} taken\n"
          f"{summary['command_hz']} commands a second, {ticks['p50']:.2f} ms apart "
          f"(p99 {ticks['p99']:.2f}, max {ticks['max']:.2f}), {summary['missed_ticks']} missed\n"
          f"{summary['chunks']} chunks, inference {inference['p50']:.0f} ms "
          f"(p95 {inference['p95']:.0f})\n"
          f'see {out}/overhead.gif, {out}/joints.png, {out}/summary.json')
    return 0 if summary['successes'] >= 2 else 1
