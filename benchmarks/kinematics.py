# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Inverse kinematics of chunks: time, accuracy, and how many are rejected.

    python benchmarks/kinematics.py [--chunks 1000] [--out out/kinematics.json]

Three real arms, whose facts are in test/arms.py; each chunk is 50 poses of the tool that random
joint motions made, half of them about a working posture, half from anywhere. One core. Beside it,
where they are installed, mink (on MuJoCo) and ikpy, from the same start, on the Panda, at the
same accuracy for the tool.
"""

import argparse
from collections.abc import Callable
import json
from pathlib import Path
import sys
import tempfile
import time

from machine import machine, percentiles
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / 'test'))

import arms  # noqa: E402, I100
from pi0_ros.kinematics.arm import Arm  # noqa: E402
from pi0_ros.kinematics.inverse import follow  # noqa: E402
from pi0_ros.kinematics.rotations import turn  # noqa: E402

MARGIN = 0.05  # rad, as position_margin
CLOSE = 5e-5, 4e-4  # m and rad, what ours looks for


def motion(name: str, arm: Arm, random: np.random.Generator, anywhere: bool
           ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return joints [50, n] of a random motion, and the poses of the tool."""
    lower, upper = (np.array(side) for side in arms.limits(name))
    lower, upper = lower + MARGIN, upper - MARGIN
    begin = random.uniform(lower, upper) if anywhere else np.clip(
        arms.AT_WORK[name] + random.normal(0, 0.3, len(lower)), lower, upper)
    speed, swing, bend = random.normal(0, 0.6, (3, len(lower)))
    at = np.linspace(0, 1, 50)[:, None]
    joints = np.clip(begin + speed * at + 0.3 * swing * np.sin(3 * at) + 0.2 * bend * at**2,
                     lower, upper)
    places, rotations = zip(*(arm.pose(row) for row in joints))
    return joints, np.array(places), np.array(rotations)


def ours(name: str, chunks: int) -> dict[str, object]:
    """Return figures for one arm."""
    arm = Arm(arms.urdf(name), arms.joints(name), *arms.HANDS[name])
    lower, upper = (np.array(side) for side in arms.limits(name))
    random, times, worst, rejected = np.random.default_rng(0), [], np.zeros(2), [0, 0]
    for number in range(chunks):
        joints, places, rotations = motion(name, arm, random, bool(number % 2))
        started = time.perf_counter()
        way = follow(arm, joints[0], places, rotations, lower + MARGIN, upper - MARGIN)
        times.append(1e3 * (time.perf_counter() - started))
        if way.problem:
            rejected[number % 2] += 1
            continue
        for row, place, rotation in zip(way.positions, places, rotations):
            here, turned = arm.pose(row)
            worst = np.maximum(worst, [1e3 * np.linalg.norm(here - place), np.degrees(
                np.linalg.norm(turn(turned @ rotation.T)))])
    return {'ms': percentiles(times), 'worst_mm': round(worst[0], 3),
            'worst_degrees': round(worst[1], 3), 'rejected_about_work': rejected[0],
            'rejected_from_anywhere': rejected[1], 'chunks': chunks}


def with_mink(chunks: list[tuple[np.ndarray, ...]]) -> list[float]:
    """Return milliseconds of every chunk."""
    import mink
    import mujoco
    text = arms.urdf('panda').replace('<robot name="panda">', '<robot name="panda"><mujoco>'
                                      '<compiler fusestatic="false" boundmass="1" '
                                      'boundinertia="1"/></mujoco>')
    model = mujoco.MjModel.from_xml_string(text)
    configuration, limits = mink.Configuration(model), [mink.ConfigurationLimit(model)]
    task = mink.FrameTask('panda_hand', 'body', 1.0, 1.0, lm_damping=1e-6)
    out = []
    for joints, places, rotations in chunks:
        configuration.update(np.append(joints[0], [0.0] * (model.nq - len(joints[0]))))
        started = time.perf_counter()
        for place, rotation in zip(places, rotations):
            task.set_target(mink.SE3.from_rotation_and_translation(
                mink.SO3.from_matrix(rotation), place))
            for _ in range(40):
                error = task.compute_error(configuration)
                if np.linalg.norm(error[:3]) < CLOSE[0] and np.linalg.norm(error[3:]) < CLOSE[1]:
                    break
                configuration.integrate_inplace(mink.solve_ik(
                    configuration, [task], 1.0, 'daqp', limits=limits), 1.0)
        out.append(1e3 * (time.perf_counter() - started))
    return out


def with_ikpy(chunks: list[tuple[np.ndarray, ...]]) -> list[float]:
    """Return milliseconds of every chunk."""
    from ikpy.chain import Chain
    with tempfile.NamedTemporaryFile('w', suffix='.urdf') as file:
        file.write(arms.urdf('panda'))
        file.flush()
        chain = Chain.from_urdf_file(file.name, base_elements=['panda_link0'])
    count = len(chain.links)
    chain.active_links_mask = np.array([False] + [True] * 7 + [False] * (count - 8))
    out = []
    for joints, places, rotations in chunks:
        last = np.zeros(count)
        last[1:8] = joints[0]
        # The chain ends at a finger, 58.4 mm in front of the hand.
        started = time.perf_counter()
        for place, rotation in zip(places, rotations):
            target = np.eye(4)
            target[:3, :3], target[:3, 3] = rotation, place + rotation @ [0, 0, 0.0584]
            last = chain.inverse_kinematics_frame(target, initial_position=last,
                                                  orientation_mode='all')
        out.append(1e3 * (time.perf_counter() - started))
    return out


def rivals(count: int) -> dict[str, dict[str, float]]:
    """Return milliseconds a chunk of those that are installed, ours beside them."""
    arm, random = Arm(arms.urdf('panda'), arms.joints('panda'), *arms.HANDS['panda']), \
        np.random.default_rng(1)
    chunks = [motion('panda', arm, random, False) for _ in range(count)]
    lower, upper = (np.array(side) for side in arms.limits('panda'))

    def own(chunks: list[tuple[np.ndarray, ...]]) -> list[float]:
        out = []
        for joints, places, rotations in chunks:
            started = time.perf_counter()
            follow(arm, joints[0], places, rotations, lower, upper)
            out.append(1e3 * (time.perf_counter() - started))
        return out

    each: dict[str, Callable] = {'pi0_ros': own, 'mink': with_mink, 'ikpy': with_ikpy}
    out = {}
    for name, run in each.items():
        try:
            out[name] = percentiles(run(chunks))
        except ImportError as error:
            print(f'{name}: {error}')
    return out


def main() -> None:
    """Time all, print the tables, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--chunks', type=int, default=1000)
    parser.add_argument('--rivals', type=int, default=20, help='chunks for the comparison')
    parser.add_argument('--out', type=Path, default=Path('out/kinematics.json'))
    args = parser.parse_args()
    result = {'machine': machine(), 'arms': {name: ours(name, args.chunks) for name in arms.ARMS},
              'rivals': rivals(args.rivals)}
    print(f"{result['machine']}; a chunk of 50 poses\n")
    print('| arm | ms p50 | ms p99 | worst mm | worst degrees | rejected about work | from '
          'anywhere |\n|---|---|---|---|---|---|---|')
    for name, one in result['arms'].items():
        print(f"| {name} | {one['ms']['p50']:.1f} | {one['ms']['p99']:.1f} | {one['worst_mm']} | "
              f"{one['worst_degrees']} | {one['rejected_about_work']} of {one['chunks'] // 2} | "
              f"{one['rejected_from_anywhere']} of {one['chunks'] // 2} |")
    print('\n| Panda | ms p50 | ms p99 |\n|---|---|---|')
    for name, one in result['rivals'].items():
        print(f"| {name} | {one['p50']:.1f} | {one['p99']:.1f} |")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=2) + '\n')


if __name__ == '__main__':
    main()
