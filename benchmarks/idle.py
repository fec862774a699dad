# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
What the machine does to a process that only sleeps, beside a node that is measured.

    python benchmarks/idle.py SECONDS [--priority 10]

Sleeps until ticks 20 ms apart and prints as JSON how late it was: no node can be better than that.
With the real-time priority where it is allowed, as the node's control thread; ticks are missed as
the node counts them. Stolen is what the host took of all cores meanwhile. It ends with its parent.
"""

import argparse
import json
import os
from pathlib import Path
import subprocess
import sys
import time

from machine import percentiles

PERIOD_S = 0.02
PRIORITY = 10  # the default of parameter realtime_priority


def start(seconds: float, priority: int = PRIORITY) -> subprocess.Popen:
    """Start it for ``seconds``; read what it found with :func:`found`."""
    return subprocess.Popen([sys.executable, __file__, str(seconds), '--priority', str(priority)],
                            stdout=subprocess.PIPE, text=True)


def found(process: subprocess.Popen) -> dict:
    """
    Wait for its end; return what it found.

    Ticks, how many were missed, when (s of time.monotonic), stolen_s, percentiles of lateness_ms.
    """
    return json.loads(process.communicate()[0])


def stolen_s() -> float:
    """Return what the host has taken of all cores since the machine started, s."""
    return int(Path('/proc/stat').read_text().split()[8]) / os.sysconf('SC_CLK_TCK')


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('seconds', type=float)
    parser.add_argument('--priority', type=int, default=PRIORITY)
    args = parser.parse_args()
    try:
        if args.priority:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(args.priority))
    except OSError:
        pass
    late, missed, missed_at, stolen = [], 0, [], stolen_s()
    parent, deadline = os.getppid(), time.monotonic() + PERIOD_S
    end = deadline + args.seconds
    while deadline < end and os.getppid() == parent:
        time.sleep(max(0.0, deadline - time.monotonic()))
        behind = time.monotonic() - deadline
        skipped = int(behind // PERIOD_S)
        late.append(1e3 * behind)
        if skipped:
            missed += skipped
            missed_at.append(deadline)
        deadline += PERIOD_S * (1 + skipped)
    print(json.dumps({'ticks': len(late), 'missed': missed, 'missed_at': missed_at,
                      'stolen_s': round(stolen_s() - stolen, 2),
                      'lateness_ms': percentiles(late)}))


if __name__ == '__main__':
    main()
