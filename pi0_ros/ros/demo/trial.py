# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The demo with ``--robot``: a robot in physics, driven with its profile by three policies.

For each policy the robot and the node are started anew: ``mock_sine`` swings every joint,
``mock_scripted`` takes the thing on the table, and ``pi0`` is a network that knows nothing of the
robot. The robot's time may be slower than real time.
"""

import argparse
from collections.abc import Callable
import dataclasses
import json
import os
from pathlib import Path
import sys
import time

import cv2
import numpy as np
from pi0_ros.checkpoint.mapping import Conversion, parse_conversions
from pi0_ros.configuration.file import read_all_parameters
from pi0_ros.physics.grasp import grasp
from pi0_ros.physics.models import Model, MODELS
from pi0_ros.physics.robot import PhysicsRobot
from pi0_ros.physics.untrained import write_untrained
from pi0_ros.ros.demo.observer import Observer, Run, Watched
from pi0_ros.ros.demo.processes import Children, private_environment, share_file
from pi0_ros.ros.links.gripper import actions
from pi0_ros.sim.recording import plot_joints, Recording, write_animation
import rclpy

POLICIES = ('mock_sine', 'mock_scripted', 'pi0')
MOVES_S = {'mock_sine': 8.0, 'mock_scripted': 14.0, 'pi0': 6.0}
SPREAD = 0.1  # of the states that the untrained checkpoint thinks it knows, rad or m
WAIT_S = 400.0  # for that, of real time


def watched(model: Model) -> Watched:
    """Return what is heard of a robot."""
    return Watched(
        model.names,
        [(f'{group.name}/joint_trajectory', group.prefix) for group in model.groups],
        list(dict.fromkeys((group.joint_states, group.prefix) for group in model.groups)),
        list(model.cameras), model.namespace, own_time=True)


def untrained(model: Model, profile: Path, folder: Path) -> Path:
    """Write a checkpoint for a robot in the units of its profile; return its folder."""
    config = read_all_parameters(profile, policy='mock_hold')
    units = parse_conversions(config.robot.conversions, model.names)
    scale, offset = np.array([dataclasses.astuple(units.get(name, Conversion()))
                              for name in model.names]).T
    return write_untrained(folder, model.names, list(model.cameras),
                           np.array(model.home) * scale + offset, SPREAD * np.abs(scale))


def node_arguments(model: Model, policy: str, profile: Path, seed: int, out: Path) -> list[str]:
    """Return the arguments of the node for a robot and a policy."""
    given = {'use_sim_time': 'true', 'policy': policy}
    if policy == 'mock_scripted':
        robot = PhysicsRobot(model, seed)
        given['mock_script'] = str([round(float(x), 5) for x in grasp(robot).ravel()])
    elif policy == 'pi0':
        given |= {'checkpoint': str(untrained(model, profile, out / 'checkpoint')),
                  'action_rate': '20.0', 'adaptation': 'none'}
    if actions is None:
        given |= {f'{group.name}.{what}': how for group in model.groups if group.gripper
                  for what, how in (('interface', 'joint_trajectory'), ('dead_band', '0.0'))}
    return ['--ros-args', '--params-file', str(profile), '-r', f'__ns:=/{model.namespace}',
            *(word for name, value in given.items() for word in ('-p', f'{name}:={value}')),
            *(word for number, name in enumerate(model.cameras, 1)
              for word in ('-r', f'camera_{number}/image_raw:={name}/image_raw'))]


class Trial(Run):
    """One policy on one robot."""

    def start(self, model: Model, policy: str, seed: int, out: Path, width: int) -> None:
        """
        Start robot and node, and arm the robot.

        :raises RuntimeError: they did not become ready.
        """
        self.children.start('sim', [
            sys.executable, '-m', 'pi0_ros', 'sim', '--robot', model.name, '--ros-args',
            '-p', f'seed:={seed}', '-p', f'width:={width}'])
        profile = share_file(f'robots/{model.name}.yaml')
        self.children.start_verb('node', node_arguments(model, policy, profile, seed, out))
        self.arm()

    def move(self, seconds: float) -> None:
        """Let the policy work for some of the robot's time."""
        until = self.observer.elapsed() + seconds
        if not self.wait(lambda: self.observer.elapsed() > until, WAIT_S):
            raise RuntimeError(f'{seconds:.0f} s of the robot took more than {WAIT_S:.0f} s')


def run(args: argparse.Namespace) -> int:
    """Run the trials; return 0 if none failed."""
    model = MODELS[args.robot]
    failed = False
    for policy in [args.policy] if args.policy else POLICIES:
        out = args.out / args.robot / policy
        try:
            summary, _ = trial(model, policy, args.seed, out)
        except (RuntimeError, OSError, ImportError) as error:
            print(f'pi0_ros demo: {error}', file=sys.stderr)
            failed = True
            continue
        ticks = summary['tick_interval_ms']
        print(f"{summary['command_hz']} commands a second, {ticks['p50']:.2f} ms apart (p99 "
              f"{ticks['p99']:.2f}), {summary['missed_ticks']} missed; {summary['chunks']} "
              f"chunks, {summary['speed']:.2f} of real time; took: "
              f"{summary['taken'] or 'nothing'}; see {out}/joints.png\n")
        failed |= summary['faults'] > 0 or policy == 'mock_scripted' and not summary['taken']
    return int(failed)


def trial(model: Model, policy: str, seed: int, out: Path,
          act: Callable[[Trial], None] | None = None, width: int = 320
          ) -> tuple[dict[str, object], Recording]:
    """
    Let one policy move one robot, and write pictures of it; return the figures and all else.

    :param act: what is done once the robot is armed, instead of waiting.
    :raises RuntimeError: robot or node did not become ready, or ended.
    """
    out.mkdir(parents=True, exist_ok=True)
    children = Children(private_environment(), out)
    os.environ.update(children.environment)  # what is heard here stays on this host, too
    context = rclpy.Context()
    rclpy.init(context=context)
    observer = Observer(watched(model), context=context)
    work = Trial(children, observer)
    try:
        observer.say(f'{model.name} with {policy}')
        work.start(model, policy, seed, out, width)
        observer.instruct('take the block')
        began = time.monotonic()
        before_s = observer.elapsed()
        act(work) if act else work.move(MOVES_S[policy])
        passed_s = time.monotonic() - began
        summary = {'robot': model.name, 'policy': policy, 'taken': observer.taken,
                   'faults': observer.faults, 'windows_end_s': observer.windows_end_s,
                   'speed': round((observer.elapsed() - before_s) / passed_s, 2),
                   **work.figures()}
    finally:
        children.end()
        observer.destroy_node()
        context.try_shutdown()
    (out / 'summary.json').write_text(json.dumps(summary, indent=2) + '\n')
    plot_joints(observer.recording, out / 'joints.png',
                [name for name in model.names if name.endswith('finger')])
    write_animation(observer.recording, out / f'{observer.cameras[0]}.gif')
    pictures = np.hstack([observer.pictures[name] for name in observer.cameras])
    cv2.imwrite(str(out / 'cameras.png'), pictures[:, :, ::-1])
    return summary, observer.recording
