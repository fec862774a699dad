# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The tests on a machine that is busy: random processes of theirs stand still for a moment.

    python test/stops.py [--longest 0.5] [--every 2] [--seed 0] [arguments of pytest]

What fails then waits for the wrong thing, or not long enough: a test, or the package.
"""

import argparse
from contextlib import suppress
import os
from pathlib import Path
import random
import signal
import subprocess
import sys
import threading


def descendants(root: int) -> list[int]:
    """Return the numbers of all processes that a process has started, and those of these."""
    parents = {}
    for stat in Path('/proc').glob('[0-9]*/stat'):
        with suppress(OSError):  # it has ended
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(')')[2].split()[1])
    out: list[int] = []
    found = [root]
    while found:
        found = [process for process, parent in parents.items() if parent in found]
        out += found
    return sorted(out)


def main() -> int:
    """Run pytest, and stop what it runs, until it ends."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument('--longest', type=float, default=0.5, help='s, of a stop')
    parser.add_argument('--every', type=float, default=2.0, help='s, between stops on average')
    parser.add_argument('--seed', type=int, default=0, help='of the stops; tests have their own')
    args, words = parser.parse_known_args()
    dice, over, stops = random.Random(args.seed), threading.Event(), 0
    tests = subprocess.Popen([sys.executable, '-m', 'pytest', *words])
    threading.Thread(target=lambda: (tests.wait(), over.set()), daemon=True).start()
    while not over.wait(dice.expovariate(1 / args.every)):
        running = descendants(tests.pid)
        if not running:
            continue
        process = dice.choice(running)
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGSTOP)
            try:
                over.wait(dice.uniform(0.05, args.longest))
            finally:
                os.kill(process, signal.SIGCONT)
            stops += 1
    print(f'{stops} stops')
    return tests.returncode


if __name__ == '__main__':
    sys.exit(main())
