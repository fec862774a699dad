# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
What joint_trajectory_controller makes of a smooth motion, kind by kind, in one run.

    python benchmarks/controller.py [--out out/controller.json] [--figure docs/controller.png]

The controller is sim/controller.py, which commands what the real one does (test/data/jtc). The
plan goes 0.6 rad there and back in 4 s (0.3 (1 - cos)), begins and ends at rest, at most 0.47
rad/s and 0.74 rad/s^2; 50 messages a second, the first two periods before the motion begins, as
the node publishes it. Peaks are those of the commanded positions, differences at the controller's
rate, as multiples of the plan's, the first and the last message included. Lag is the
shift that fits best, ripple what then is left of the velocity at most.
"""

import argparse
import json
from pathlib import Path

from machine import machine
import numpy as np
from pi0_ros.motion.limits import unlimited
from pi0_ros.motion.spline import cubic
from pi0_ros.motion.trajectory import window
from pi0_ros.sim.controller import (Settings, TrajectoryController, TrajectoryMessage,
                                    TrajectoryRejected)

OMEGA, REACH, SECONDS, BEGIN_NS = 2 * np.pi * 0.25, 0.3, 4.0, 10**12
TICK_NS, FOLLOW_NS, REST_NS, AHEAD_NS = 20_000_000, 125_000_000, 100_000_000, 20_000_000
SPEED, ACCELERATION = REACH * OMEGA, REACH * OMEGA**2
RATES = (100.0, 250.0, 500.0, 1000.0)
KINDS = (('humble', False), ('jazzy', False), ('master', False), ('master', True))
DELIVERIES = {'1 to 3 ms': (1e6, 3e6, 0.0), '0 to 15 ms': (0.0, 15e6, 0.0),
              '1 to 3 ms, 1 % lost': (1e6, 3e6, 0.01)}


def motion(times_ns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return planned positions and velocities, both [N, 1]."""
    at = np.clip((np.asarray(times_ns, float)[:, None] - BEGIN_NS) / 1e9, 0.0, SECONDS)
    return REACH * (1 - np.cos(OMEGA * at)), SPEED * np.sin(OMEGA * at)


KNOTS_NS = BEGIN_NS + np.arange(0, round(SECONDS * 1e9) + 1, 10_000_000)
KNOTS = KNOTS_NS, *motion(KNOTS_NS)


def published(now_ns: int) -> TrajectoryMessage:
    """Return what this package publishes: the plan at the stamp, in the past, in front."""
    return TrajectoryMessage.of(window(KNOTS, ('a',), now_ns, FOLLOW_NS, unlimited(1), REST_NS,
                                       now_ns))


def ten_points(now_ns: int) -> TrajectoryMessage:
    """Return what it published before: ten points, the first 20 ms after the stamp."""
    times = 20_000_000 * np.arange(1, 11)
    late = np.maximum(times - 100_000_000, 0)
    along = np.minimum(times, 100_000_000) + late - late**2 // 200_000_000
    positions, speeds = cubic(*KNOTS, now_ns + along)
    speeds = speeds * np.minimum(1.0, 2 - times / 100_000_000)[:, None]
    return TrajectoryMessage(now_ns, ['a'], times.tolist(), positions.tolist(), speeds.tolist())


def ahead(now_ns: int) -> TrajectoryMessage:
    """Return the published window, stamped so far ahead that it comes before its stamp."""
    return published(now_ns + AHEAD_NS + 5_000_000)


MESSAGES = {'published': published, 'ten points, before': ten_points, '25 ms ahead': ahead}


def follow(message, settings: Settings, delivery: tuple[float, float, float], seed: int = 0
           ) -> np.ndarray:
    """Return the commanded positions [T] of every update."""
    rng, period = np.random.default_rng(seed), settings.period_ns
    controller = TrajectoryController(('a',), np.zeros(1), settings)
    mail, out, velocity, newest = [], [], np.zeros(1), 0.0
    end = BEGIN_NS + round(SECONDS * 1e9) + 2 * TICK_NS
    for now in range(BEGIN_NS - 2 * TICK_NS, end, TICK_NS):
        newest = max(newest, now + rng.uniform(*delivery[:2]))
        if rng.random() >= delivery[2]:
            mail.append((newest, message(now)))
    now = BEGIN_NS - 60 * period - 2 * TICK_NS + int(rng.integers(period))
    while now < BEGIN_NS + (SECONDS + 0.5) * 1e9:
        now += period
        while mail and mail[0][0] <= now:
            try:
                controller.accept(mail.pop(0)[1], now)
            except TrajectoryRejected:
                pass
        before = controller.commanded
        velocity = (controller.update(now, before, velocity) - before) / (period / 1e9)
        out.append((now, controller.commanded[0]))
    return np.array(out)


def measure(path: np.ndarray, settings: Settings) -> dict[str, float]:
    """Return what is commanded, in multiples of the plan's, and how far behind."""
    step = settings.period_ns / 1e9
    speed = np.diff(path[:, 1]) / step
    lags = np.arange(-12, 60) * 1e6
    off = [np.abs(np.interp(path[:, 0] - lag, KNOTS[0], KNOTS[1][:, 0]) - path[:, 1]).mean()
           for lag in lags]
    lag = lags[int(np.argmin(off))]
    planned = np.diff(np.interp(path[:, 0] - lag, KNOTS[0], KNOTS[1][:, 0])) / step
    return {'velocity': float(np.abs(speed).max() / SPEED),
            'acceleration': float(np.abs(np.diff(speed)).max() / step / ACCELERATION),
            'lag_ms': float(lag / 1e6), 'ripple_rad_s': float(np.abs(speed - planned).max())}


def draw(path: Path) -> None:
    """Draw the commanded velocity before and after."""
    import matplotlib
    matplotlib.use('Agg')
    import matplotlib.pyplot as plt
    figure, axes = plt.subplots(2, 2, figsize=(10, 5), sharex=True, sharey=True)
    for row, (name, message) in zip(axes, list(MESSAGES.items())[1::-1]):
        for axis, kind in zip(row, ('humble', 'jazzy')):
            settings = Settings(kind, True, 500.0)
            out = follow(message, settings, DELIVERIES['1 to 3 ms'])
            seconds = (out[1:, 0] - BEGIN_NS) / 1e9
            axis.plot(seconds, np.diff(out[:, 1]) * 500, lw=0.8, color='#c44e52' if
                      'before' in name else '#4c72b0')
            axis.set_title(f'{kind}, 500 Hz: {name}', fontsize=10)
            axis.set_xlim(0.4, 0.9)
            axis.grid(alpha=0.3)
    for axis in axes[:, 0]:
        axis.set_ylabel('commanded, rad/s')
    for axis in axes[1]:
        axis.set_xlabel('s')
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Print the table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, default=Path('out/controller.json'))
    parser.add_argument('--figure', type=Path, help='draw the commanded velocity there')
    args = parser.parse_args()
    rows = []
    head = f'{"controller":24}{"option":8}{"message":20}{"delivery":22}'
    print(head + ''.join(f'{rate:>8.0f} Hz' for rate in RATES) + '   lag, ms  ripple, rad/s')
    for kind, replaces in KINDS:
        for option in (True, False):
            for name, message in MESSAGES.items():
                if name == '25 ms ahead' and not replaces:
                    continue
                for delivery, given in DELIVERIES.items():
                    found = []
                    for rate in RATES:
                        settings = Settings(kind, option, rate,
                                            allow_trajectory_replacement=replaces)
                        found.append(measure(follow(message, settings, given), settings))
                    label = f'{kind}, replacing' if replaces else kind
                    rows.append({'controller': label, 'from_desired_state': option,
                                 'message': name, 'delivery': delivery,
                                 'rates': dict(zip(map(str, RATES), found))})
                    print(f'{label:24}{str(option).lower():8}{name:20}{delivery:22}' + ''.join(
                        f'{one["velocity"]:5.2f}{one["acceleration"]:6.1f}' for one in found)
                        + f'{found[2]["lag_ms"]:8.0f}{found[2]["ripple_rad_s"]:12.3f}')
    print("a cell: peak velocity and acceleration commanded, in multiples of the plan's")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({'machine': machine(), 'rows': rows}, indent=1) + '\n')
    print(args.out)
    if args.figure:
        draw(args.figure)


if __name__ == '__main__':
    main()
