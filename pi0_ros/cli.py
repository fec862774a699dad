# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The command line: one verb for each thing the package does."""

import argparse
import importlib
import os
import signal
import sys

from pi0_ros import environment

VERBS = {
    'node': ('pi0_ros.ros.main', 'node_main', 'run PI0 on a robot'),
    'sim': ('pi0_ros.ros.main', 'sim_main', 'run the simulated robot'),
    'demo': ('pi0_ros.ros.demo.demo', 'main', 'simulated robot, node and three instructions'),
    'operate': ('pi0_ros.ros.operate.operate', 'main', 'one screen for the person beside it'),
    'infer': ('pi0_ros.verbs.infer', 'main', 'decide one chunk from a file, without ROS'),
    'inspect': ('pi0_ros.verbs.look', 'main', 'tell what a checkpoint is and wants'),
    'evaluate': ('pi0_ros.verbs.evaluate', 'main', 'judge a policy by bags, without ROS'),
    'export': ('pi0_ros.verbs.export', 'main', 'make a LeRobot data set of bags, without ROS'),
    'serve': ('pi0_ros.verbs.serve', 'main', 'decide for robots on other machines'),
    'demonstrate': ('pi0_ros.sim.demonstration', 'main', 'write a bag to try these two on'),
    'train': ('pi0_ros.verbs.train', 'main', 'fine-tune a checkpoint on a data set'),
}
NEEDS_ROS = ('node', 'sim', 'demo', 'operate')
LISTEN = ('node', 'sim')  # take signals themselves, once they have imported all they need


def main(argv: list[str] | None = None) -> int:
    """Run ``pi0_ros VERB ARGUMENTS``; return the exit code."""
    parser = argparse.ArgumentParser(
        prog='pi0_ros', description='PI0, the vision-language-action policy, on a ROS 2 robot.',
        epilog='verbs:\n' + '\n'.join(f'  {verb:12}{text}' for verb, (_, _, text) in VERBS.items())
        + '\n\n`pi0_ros VERB --help` tells more.',
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('verb', choices=VERBS, metavar='VERB', help='what to do')
    parser.add_argument('arguments', nargs=argparse.REMAINDER, help='of the verb')
    given = parser.parse_args(argv)
    return run(given.verb, given.arguments)


def run(verb: str, arguments: list[str]) -> int:
    """Run one verb; return the exit code."""
    module, function, _ = VERBS[verb]
    taken = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if taken:  # nothing has begun that is to be ended in order
        signal.signal(signal.SIGINT, lambda number, frame: os._exit(0 if verb in LISTEN else 130))
    if verb in NEEDS_ROS:
        wrong = environment.problem()
        if wrong:
            print(f'pi0_ros {verb}: {wrong}', file=sys.stderr)
            return 1
        try:
            importlib.import_module('rclpy')
        except ImportError as error:
            print(f'pi0_ros {verb} needs ROS 2: source an installation, or use `make demo`, which '
                  f'installs what it needs ({error})', file=sys.stderr)
            return 1
    try:
        work = getattr(importlib.import_module(module), function)
        if taken and verb not in LISTEN:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return work(arguments)
    except KeyboardInterrupt:
        return 130
    except ModuleNotFoundError as error:
        text = environment.missing(error)
        if text is None:
            raise
        print(f'pi0_ros {verb}: {text}', file=sys.stderr)
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def node() -> int:
    """Run the verb node, as an executable of its own."""
    return run('node', sys.argv[1:])


def sim() -> int:
    """Run the verb sim, as an executable of its own."""
    return run('sim', sys.argv[1:])


def demo() -> int:
    """Run the verb demo, as an executable of its own."""
    return run('demo', sys.argv[1:])


def operate() -> int:
    """Run the verb operate, as an executable of its own."""
    return run('operate', sys.argv[1:])


def infer() -> int:
    """Run the verb infer, as an executable of its own."""
    return run('infer', sys.argv[1:])


def inspect() -> int:
    """Run the verb inspect, as an executable of its own."""
    return run('inspect', sys.argv[1:])


def evaluate() -> int:
    """Run the verb evaluate, as an executable of its own."""
    return run('evaluate', sys.argv[1:])


def export() -> int:
    """Run the verb export, as an executable of its own."""
    return run('export', sys.argv[1:])


def serve() -> int:
    """Run the verb serve, as an executable of its own."""
    return run('serve', sys.argv[1:])


def demonstrate() -> int:
    """Run the verb demonstrate, as an executable of its own."""
    return run('demonstrate', sys.argv[1:])


def train() -> int:
    """Run the verb train, as an executable of its own."""
    return run('train', sys.argv[1:])
