"""What a joint_trajectory_controller makes of commands at 50 Hz, in both of its modes.

    python benchmarks/controller.py [--out out/controller.json]

The controller is the model of the simulated robot (``sim/controller.py``), with one joint that
follows its command with a lag of 40 ms. The plan is a sine of 1 rad and 0.25 Hz, whose speed is
1.57 rad/s at most. Gain and lag are those of the joint behind the plan, the peak speed is that of
what the controller commands.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from machine import machine

from pi0_ros.control.trajectory import rolling_window
from pi0_ros.sim.controller import TrajectoryController, TrajectoryMessage
from pi0_ros.sim.world import JOINT_LAG

OMEGA, PERIOD_NS, STEP_NS, SECONDS = 2 * np.pi * 0.25, 20_000_000, 2_000_000, 20


def plan(times_ns: np.ndarray) -> np.ndarray:
    """Return the planned positions [N, 1]."""
    return motion(times_ns)[0]


def motion(times_ns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return planned positions and velocities, both [N, 1]."""
    angle = OMEGA * np.asarray(times_ns, float)[:, None] / 1e9
    return np.sin(angle), OMEGA * np.cos(angle)


def window(now_ns: int) -> TrajectoryMessage:
    """Return what this package publishes."""
    out = rolling_window(motion, ('a',), now_ns, 200_000_000, 10)
    return TrajectoryMessage(now_ns, ['a'], out.times_ns.tolist(), out.positions.tolist(),
                             out.velocities.tolist())


def single(ahead_ns: int):
    """Return a way to publish one point, so far ahead, with stamp 0."""
    def message(now_ns: int) -> TrajectoryMessage:
        return TrajectoryMessage(0, ['a'], [ahead_ns], plan([now_ns + ahead_ns]).tolist(), [[]])
    return message


COMMANDS = {'ten points, stamped': window, 'one point, 20 ms ahead': single(20_000_000),
            'one point, 100 ms ahead': single(100_000_000)}


def follow(command, from_desired: bool) -> dict[str, float]:
    """Return gain, lag and peak speed of a controller that gets these commands."""
    joint, speed, now_ns = 0.0, 0.0, 0
    controller = TrajectoryController(('a',), np.zeros(1), from_desired)
    commanded, measured = [], []
    while now_ns < SECONDS * 10**9:
        if now_ns % PERIOD_NS == 0 and now_ns:
            controller.accept(command(now_ns), now_ns)
        now_ns += STEP_NS
        desired = controller.sample(now_ns, np.array([joint]), np.array([speed]))[0]
        moved = (desired - joint) * (1 - np.exp(-STEP_NS / 1e9 / JOINT_LAG))
        joint, speed = joint + moved, moved / (STEP_NS / 1e9)
        commanded.append(desired)
        measured.append(joint)
    settled = len(commanded) // 5
    values = np.array(measured)[settled:]
    times = STEP_NS / 1e9 * np.arange(settled + 1, len(commanded) + 1)
    basis = np.column_stack([np.sin(OMEGA * times), np.cos(OMEGA * times)])
    (sine, cosine), *_ = np.linalg.lstsq(basis, values, rcond=None)
    return {'gain': float(np.hypot(sine, cosine)),
            'lag_ms': float(-1e3 * np.arctan2(cosine, sine) / OMEGA),
            'peak_rad_s': float(np.abs(np.diff(commanded[settled:])).max() / (STEP_NS / 1e9))}


def main() -> None:
    """Print the table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, default=Path('out/controller.json'))
    args = parser.parse_args()
    rows = [{'from_desired_state': mode, 'command': name, **follow(command, mode)}
            for mode in (True, False) for name, command in COMMANDS.items()]
    print(f'{"interpolate_from_desired_state":32}{"command":26}{"gain":>7}{"lag, ms":>9}'
          f'{"peak, rad/s":>13}')
    for row in rows:
        print(f'{str(row["from_desired_state"]).lower():32}{row["command"]:26}{row["gain"]:7.3f}'
              f'{row["lag_ms"]:9.0f}{row["peak_rad_s"]:13.2f}')
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({'machine': machine(), 'rows': rows}, indent=1) + '\n')
    print(args.out)


if __name__ == '__main__':
    main()
