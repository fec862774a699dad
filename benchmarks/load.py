# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Time and memory to load a full-size checkpoint, against transformers' from_pretrained.

    python benchmarks/load.py [--out out/load.json]

Writes a checkpoint of random bfloat16 weights at full width and depth (7 GB) to a temporary folder
and deletes it. Each loader runs in a process of its own, and in turn.
"""

import argparse
import json
from pathlib import Path
import subprocess
import sys
import tempfile

from machine import machine
from pi0_ros.weights.pi05 import PI05ForConditionalGeneration
from safetensors.torch import save_file
import torch
from transformers import PI0Config, PI0ForConditionalGeneration

LOADERS = {
    'pi0_ros': 'from pi0_ros.weights.loading import load_model\n'
               'load = lambda: load_model(folder, torch.bfloat16, torch.device("cpu"))',
    'from_pretrained': 'from transformers import PI0ForConditionalGeneration\n'
                       'load = lambda: PI0ForConditionalGeneration.from_pretrained('
                       'folder, dtype=torch.bfloat16)'}
CHILD = """
import json, re, sys, time, torch
from pathlib import Path
folder = Path(sys.argv[1])
{load}
def peak(name):
    return int(re.search(name + r':\\s*(\\d+)', Path('/proc/self/status').read_text())[1]) / 2**20
before, started = peak('VmRSS'), time.perf_counter()
model = load()
taken = time.perf_counter() - started
checksum = sum(float(p.flatten()[::4096].float().sum()) for p in model.parameters())
print(json.dumps(dict(seconds=taken, peak_gib=peak('VmHWM') - before,
                      anonymous_gib=peak('RssAnon'))))
"""


def write_checkpoint(folder: Path, network: str = 'pi0') -> float:
    """Write config.json and model.safetensors with LeRobot's names; return the size in GiB."""
    with torch.device('meta'):
        model = (PI05ForConditionalGeneration if network == 'pi05'
                 else PI0ForConditionalGeneration)(PI0Config())
    block = torch.randn(1 << 20).to(torch.bfloat16) * 0.02
    tensors = {}
    for name, value in model.state_dict().items():
        if name == 'model.dit.embed_tokens.weight':
            continue
        name = name.removeprefix('embed_action_time.')
        for ours, theirs in (
                ('model.vlm.vision_tower.',
                 'paligemma_with_expert.paligemma.model.vision_tower.vision_model.'),
                ('model.vlm.', 'paligemma_with_expert.paligemma.model.'),
                ('model.dit.', 'paligemma_with_expert.gemma_expert.model.')):
            name = name.replace(ours, theirs)
        count = value.numel()
        tensors['model.' + name] = block.repeat(-(-count // len(block)))[:count].reshape(
            value.shape).clone()
    save_file(tensors, folder / 'model.safetensors', metadata={'format': 'pt'})
    (folder / 'config.json').write_text(json.dumps({'type': network, 'chunk_size': 50}))
    return (folder / 'model.safetensors').stat().st_size / 2**30


def main() -> None:
    """Run both loaders, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rounds', type=int, default=2)
    parser.add_argument('--out', type=Path, default=Path('out/load.json'))
    args = parser.parse_args()
    rows: dict[str, list[dict]] = {name: [] for name in LOADERS}
    with tempfile.TemporaryDirectory() as folder:
        size = write_checkpoint(Path(folder))
        for _ in range(args.rounds):
            for name, code in LOADERS.items():
                child = subprocess.run([sys.executable, '-c', CHILD.format(load=code), folder],
                                       capture_output=True, text=True, check=True)
                rows[name].append(json.loads(child.stdout.splitlines()[-1]))
    print(f'file {size:.2f} GiB; {machine()}')
    print(f'{"loader":18}{"seconds":>16}{"peak GiB":>10}{"anonymous GiB after":>21}')
    for name, runs in rows.items():
        seconds = ' '.join(f'{run["seconds"]:.1f}' for run in runs)
        print(f'{name:18}{seconds:>16}{max(run["peak_gib"] for run in runs):10.2f}'
              f'{max(run["anonymous_gib"] for run in runs):21.2f}')
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({'machine': machine(), 'file_gib': size, **rows},
                                   indent=1) + '\n')


if __name__ == '__main__':
    main()
