# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
How fast bags are read, evaluated and exported, and with how much memory.

    python benchmarks/bags.py [--minutes 10] [--out OUT.json]

Generates a bag with three cameras (640x480 JPEG, 30 Hz), joint states at 100 Hz and commands at
50 Hz, and one a tenth as long. Each task runs in a process of its own on both: memory is constant
if it is the same for both. rosbags alone is the floor.
"""

import argparse
import json
import os
from pathlib import Path
import resource
import subprocess
import sys
import tempfile
import time

import cv2
import numpy as np

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'benchmarks')]

from machine import machine  # noqa: E402, I100
from pi0_ros.bags.bag import _store, Bag  # noqa: E402
from pi0_ros.sim import arm  # noqa: E402
from pi0_ros.sim.demonstration import BagWriter, START_NS, trajectory  # noqa: E402
from pi0_ros.sim.render import CAMERAS, render  # noqa: E402
from pi0_ros.sim.world import random_world  # noqa: E402

FRAMES = 20          # different ones of each camera
GRAIN = 3.0          # noise of a real sensor, grey levels: JPEGs of 640x480 become 42 kB
TASKS = ('rosbags', 'rosbags_messages', 'observations', 'export')
GOALS = {'observations': 20.0, 'export': 5.0}  # times real time


def generate(path: Path, seconds: float) -> None:
    """Write a bag of that length; the arm swings."""
    rng = np.random.default_rng(0)
    jpegs = {}
    for name in CAMERAS:
        jpegs[name] = []
        for _ in range(FRAMES):
            image = render(random_world(rng), name)[:, :, ::-1]
            noisy = np.clip(image + rng.normal(0, GRAIN, image.shape), 0, 255).astype(np.uint8)
            jpegs[name].append(cv2.imencode('.jpg', noisy, [cv2.IMWRITE_JPEG_QUALITY, 90])[1])
    out = BagWriter(path)
    for step in range(round(100 * seconds)):
        at_ns = START_NS + step * 10_000_000
        if step % 1000 == 0:
            out.write('/instruction', 'std_msgs/msg/String', at_ns,
                      data=f"pick up the {('red', 'green', 'blue')[step // 1000 % 3]} block")
        row = np.array([0.5, 1.2, -1.6, -0.8, 0.05]) + 0.2 * np.sin(step / 80 + np.arange(5))
        out.write('/joint_states', 'sensor_msgs/msg/JointState', at_ns, at_ns,
                  name=list(arm.JOINT_NAMES), position=row, velocity=np.zeros(0),
                  effort=np.zeros(0))
        if step % 2 == 0:
            out.write('/joint_trajectory', 'trajectory_msgs/msg/JointTrajectory', at_ns, at_ns,
                      joint_names=list(arm.JOINT_NAMES),
                      points=trajectory([(20_000_000, row)]))
        if step * 3 // 10 != (step - 1) * 3 // 10:
            for name in CAMERAS:
                out.write(f'/{name}/image_raw/compressed', 'sensor_msgs/msg/CompressedImage',
                          at_ns, at_ns, format='jpeg',
                          data=jpegs[name][step * 3 // 10 % FRAMES].ravel())
    out.close()


def perform(task: str, path: Path, scratch: Path) -> dict:
    """Do a task in this process; return what it took."""
    from pi0_ros.bags.playback import Playback
    from pi0_ros.bags.routes import resolve, Wanted
    from pi0_ros.configuration.file import read_all_parameters
    wanted = Wanted.of(read_all_parameters(None, policy='mock_hold', cameras=list(CAMERAS),
                                           joint_names=list(arm.JOINT_NAMES)))
    count, started, before = 0, time.perf_counter(), time.process_time()
    if task in ('rosbags', 'rosbags_messages'):
        from rosbags.rosbag2 import Reader
        with Reader(path) as reader:
            for connection, _, raw in reader.messages():
                if task == 'rosbags_messages':
                    _store.deserialize_cdr(raw, connection.msgtype)
                count += 1
    elif task == 'observations':
        with Bag(path) as bag:
            play = Playback(bag, resolve(bag, wanted, {}), wanted)
            for moment in play.moments(500_000_000):
                play.path.forget(moment.now_ns)
                if play.streams.builder.check(moment.now_ns) is None:
                    play.streams.builder.build(moment.now_ns, play.instruction)
                    count += 1
    else:
        from pi0_ros.verbs import export
        status = export.main([str(path), '--dataset', str(scratch / f'dataset_{path.name}'),
                              '--fps', '30'])
        assert status == 0
    with Bag(path) as bag:
        seconds = bag.seconds
    took = time.perf_counter() - started
    return {'seconds': took, 'times_real_time': seconds / took, 'count': count,
            'processor_s': time.process_time() - before,
            'peak_mib': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def evaluation(path: Path, scratch: Path) -> dict:
    """Evaluate the demo checkpoint; return how much of the time was inference, and memory."""
    import pyarrow.parquet
    started = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, '-m', 'pi0_ros', 'evaluate', str(path), '--checkpoint', 'demo',
         '--params-file', str(ROOT / 'config/sim.yaml'), '--threads', '1', '--every', '1', '--out',
         str(scratch / f'evaluation_{path.name}')], cwd=ROOT, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0
    took = time.perf_counter() - started
    times = pyarrow.parquet.read_table(
        scratch / f'evaluation_{path.name}/demo/latency.parquet')
    infer = sum(sum(row) for row in times['latency_ms'].to_pylist() if row) / 1e3
    return {'seconds': took, 'inference_s': infer, 'share': infer / took,
            'moments': times.num_rows, 'peak_mib': usage.ru_maxrss / 1024}


def main() -> None:
    """Generate, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--minutes', type=float, default=10.0)
    parser.add_argument('--out', type=Path, default=Path('out/bags.json'))
    parser.add_argument('--perform', nargs=3, metavar=('TASK', 'BAG', 'SCRATCH'),
                        help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.perform:
        print(json.dumps(perform(args.perform[0], *map(Path, args.perform[1:]))))
        return
    result: dict = {'machine': machine(), 'minutes': args.minutes}
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        bags = {name: scratch / name for name in ('short', 'long')}
        for name, minutes in (('short', args.minutes / 10), ('long', args.minutes)):
            generate(bags[name], 60 * minutes)
        size = sum(path.stat().st_size for path in bags['long'].iterdir())
        result['gigabytes'] = size / 1e9
        print(f"{result['machine']}; {args.minutes:g} minutes, {size / 1e9:.2f} GB")
        print(f"{'task':18}{'s':>8}{'x real time':>13}{'cpu s':>8}{'peak MiB':>10}"
              f"{'of 1/10':>9}{'goal':>7}")
        for task in TASKS:
            told = {}
            for name, path in bags.items():
                ended = subprocess.run(
                    [sys.executable, __file__, '--perform', task, str(path), folder], check=True,
                    env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
                told[name] = json.loads(ended.stdout.splitlines()[-1])
            result[task], one = told, told['long']
            goal = f'{GOALS[task]:.0f}x' if task in GOALS else ''
            print(f"{task:18}{one['seconds']:8.1f}{one['times_real_time']:13.1f}"
                  f"{one['processor_s']:8.1f}{one['peak_mib']:10.0f}"
                  f"{told['short']['peak_mib']:9.0f}{goal:>7}")
        told = {name: evaluation(path, scratch) for name, path in bags.items()}
        result['evaluation'], one = told, told['long']
        print(f"evaluation of {one['moments']} moments: {one['seconds']:.1f} s, "
              f"{100 * one['share']:.0f} % of it inference, peak {one['peak_mib']:.0f} MiB, of "
              f"1/10 {told['short']['peak_mib']:.0f}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + '\n')


if __name__ == '__main__':
    main()
