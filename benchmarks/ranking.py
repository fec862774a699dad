# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Does an offline measure order checkpoints as success does? Demo weights with noise, closed loop.

    python benchmarks/ranking.py [--noises 0 0.01 ...] [--episodes 40] [--bags 6]

Every checkpoint is the package's with Gaussian noise on its weights, as large as a share of each
tensor's deviation. Success is counted in the simulator without ROS; the measures are those of
``evaluate`` on bags of other tables.
"""

import argparse
import json
from pathlib import Path
import shutil
import subprocess
import sys

from machine import machine
import numpy as np
from pi0_ros.evaluation.ranking import spearman
from pi0_ros.policy.factory import checkpoint_folder
from safetensors.numpy import load_file, save_file

ROOT = Path(__file__).parents[1]
NOISES = (0.0, 0.02, 0.04, 0.06, 0.08, 0.12)


def perturbed(folder: Path, noise: float) -> Path:
    """Write the demo checkpoint with noise on its weights."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(checkpoint_folder('demo'), folder)
    dice = np.random.default_rng(0)
    path = folder / 'model.safetensors'
    tensors = load_file(path)
    save_file({name: (one + noise * one.std() * dice.standard_normal(one.shape)).astype(one.dtype)
               for name, one in tensors.items()}, path)
    return folder


def run(*words: object) -> None:
    """Run a verb or a benchmark."""
    subprocess.run([sys.executable, *map(str, words)], cwd=ROOT, check=True)


def main() -> None:
    """Measure both, print the table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--noises', type=float, nargs='+', default=NOISES)
    parser.add_argument('--episodes', type=int, default=40)
    parser.add_argument('--bags', type=int, default=6)
    parser.add_argument('--out', type=Path, default=Path('out/ranking'))
    args = parser.parse_args()
    out = args.out.absolute()
    shutil.rmtree(out, ignore_errors=True)
    bags = [out / 'bags' / str(seed) for seed in range(args.bags)]
    (out / 'bags').mkdir(parents=True)
    for seed, bag in enumerate(bags):
        run('-m', 'pi0_ros', 'demonstrate', bag, '--seed', 900 + seed)
    names, rows = [f'noise_{noise:g}' for noise in args.noises], []
    for name, noise in zip(names, args.noises):
        folder = perturbed(out / name, noise)
        run('benchmarks/success.py', '--checkpoint', folder, '--episodes', args.episodes, '--out',
            out / f'{name}.json')
        taken = json.loads((out / f'{name}.json').read_text())['episodes']
        rows += [f"{name},{str(one['success']).lower()}" for one in taken]
    (out / 'runs.csv').write_text('\n'.join(['checkpoint,success', *rows]) + '\n')
    run('-m', 'pi0_ros', 'evaluate', *bags, '--params-file', 'config/sim.yaml', '--out',
        out / 'evaluation', '--outcomes', out / 'runs.csv', '--samples', 1,
        *(word for name in names for word in ('--checkpoint', f'{name}={out / name}')))
    found = json.loads((out / 'evaluation' / 'evaluation.json').read_text())
    table = {name: (found['outcomes']['runs'][name]['success'],
                    found['runs'][name]['critical']['error_share'],
                    found['runs'][name]['error_share']['policy']) for name in names}
    print(f'{machine()}; {args.episodes} episodes, {args.bags} bags\n'
          f"{'checkpoint':16}{'success':>9}{'critical %':>12}{'mean %':>9}")
    for name, (success, critical, mean) in table.items():
        print(f'{name:16}{success:9.2f}{100 * critical:12.2f}{100 * mean:9.2f}')
    success, *measures = zip(*table.values())
    for name, values in zip(('critical', 'mean'), measures):
        print(f'rank correlation of the {name} error with success: {spearman(values, success)}')
    (out / 'ranking.json').write_text(json.dumps({'machine': machine(), 'table': table}) + '\n')


if __name__ == '__main__':
    main()
