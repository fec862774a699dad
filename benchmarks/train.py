# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
A step of fine-tuning, ours and LeRobot's own, on equal networks: images a second, and memory.

    python benchmarks/train.py [--lerobot PYTHON] [--size tiny|full] [--variants ...]

Loss, gradients, clipping and AdamW on a batch that lies where the network is; no data set is read.
Each runs in processes of its own, in turn. PYTHON is one that has LeRobot installed (0.6.1 was
tried), which needs Python 3.12; without it ours runs alone. full is PI0's published size with
random weights, for a GPU.
"""

import argparse
from collections.abc import Callable
import json
import os
from pathlib import Path
import re
import subprocess
import sys
import time

import torch

# width, expert, layers, MLPs of both, heads, width of a head, image encoder's width and layers
SIZES = {'tiny': (128, 64, 4, (512, 256), 8, 16, 128, 4),
         'full': (2048, 1024, 18, (16384, 4096), 8, 256, 1152, 27)}
VARIANTS = {'all': {}, 'expert only': {'expert_only': True},
            'frozen vision': {'freeze_vision': True}, 'checkpointing': {'checkpointing': True},
            'expert only, bfloat16': {'expert_only': True, 'dtype': 'bfloat16'},
            'all, bfloat16': {'dtype': 'bfloat16'},
            'all, bfloat16, checkpointing': {'dtype': 'bfloat16', 'checkpointing': True},
            'all, mixed': {'dtype': 'mixed'},
            'all, mixed, checkpointing': {'dtype': 'mixed', 'checkpointing': True}}
VOCABULARY, CHUNK, WIDTH, ACTIONS, TOKENS = 257152, 50, 32, 7, 48
CLIP, RATE, BETAS, DECAY = 1.0, 2.5e-5, (0.9, 0.95), 0.01


def batch(count: int, cameras: int, device: str) -> dict[str, torch.Tensor]:
    """Return inputs that both networks read."""
    dice = torch.Generator().manual_seed(0)
    ids = torch.randint(2, 2000, (count, TOKENS), generator=dice)
    out = {'images': torch.rand(count, cameras, 3, 224, 224, generator=dice) * 2 - 1, 'ids': ids,
           'state': torch.randn(count, WIDTH, generator=dice),
           'actions': torch.randn(count, CHUNK, WIDTH, generator=dice),
           'noise': torch.randn(count, CHUNK, WIDTH, generator=dice),
           'times': torch.rand(count, generator=dice)}
    return {name: value.to(device) for name, value in out.items()}


def ours(size: tuple, given: dict, device: str, expert_only: bool = False,
         freeze_vision: bool = False, checkpointing: bool = False, dtype: str = 'float32'
         ) -> tuple[Callable[[], object], int]:
    """Return one step, and how many parameters it trains."""
    from pi0_ros.finetune import flow
    from pi0_ros.finetune.learner import cast, count, freeze, Learner, Schedule
    from pi0_ros.training.model import architecture
    from transformers import PI0ForConditionalGeneration
    width, expert, layers, mlps, heads, head, image, image_layers = size
    config = architecture(
        width=width, expert_width=expert, layers=layers, heads=heads, head_dim=head,
        image_width=image, image_layers=image_layers, image_heads=16, image_size=224, patch=14,
        vocabulary=VOCABULARY, chunk=CHUNK)
    config.vlm_config.text_config.intermediate_size = mlps[0]
    config.dit_config.intermediate_size = mlps[1]
    config.vlm_config.vision_config.intermediate_size = 4304
    torch.manual_seed(0)
    with torch.device(device):
        model = PI0ForConditionalGeneration(config)
    if checkpointing:
        model.model.vlm.vision_tower.gradient_checkpointing_enable({'use_reentrant': False})
    freeze(model, expert_only, freeze_vision)
    learner = Learner(model, Schedule(30_000), computed=cast(model, dtype))
    model.train()
    if expert_only:
        model.model.vlm.eval()
    pieces = given['images'].shape[1] * 256
    ids = torch.cat([given['ids'].new_full((len(given['ids']), pieces), VOCABULARY),
                     given['ids']], 1)
    ready = flow.Batch(given['images'],
                       given['images'].new_ones(given['images'].shape[:2], dtype=torch.bool), ids,
                       torch.ones_like(ids), given['state'], given['actions'])
    times = given['times'][:, None].expand(-1, CHUNK)
    return lambda: learner.learn(lambda: flow.losses(
        model, ready, given['noise'], times, ACTIONS, checkpointing).mean())['loss'], count(
            learner.trained)


def lerobot(size: tuple, given: dict, device: str, expert_only: bool = False,
            freeze_vision: bool = False, checkpointing: bool = False, dtype: str = 'float32'
            ) -> tuple[Callable[[], object], int]:
    """Return one step of LeRobot's own network as its training does it, ``update_policy``."""
    from lerobot.policies.pi0 import modeling_pi0 as theirs
    from lerobot.policies.pi0.configuration_pi0 import PI0Config
    from transformers import PaliGemmaConfig
    width, expert, layers, mlps, heads, head, image, image_layers = size

    class Mapping(dict):
        def __missing__(self, name: str) -> object:
            return original[name]

    original = theirs.CONFIG_MAPPING
    theirs.CONFIG_MAPPING = Mapping(paligemma=lambda: PaliGemmaConfig(vision_config={
        'model_type': 'siglip_vision_model', 'hidden_size': image,
        'num_hidden_layers': image_layers, 'num_attention_heads': 16, 'patch_size': 14,
        'image_size': 224, 'vision_use_head': False}, projection_dim=width))
    theirs.get_gemma_config = lambda variant: theirs.GemmaConfig(
        width if variant == 'gemma_2b' else expert, layers, mlps[variant != 'gemma_2b'], heads, 1,
        head)
    torch.manual_seed(0)
    with torch.device(device):
        model = theirs.PI0Pytorch(PI0Config(
            dtype=dtype, freeze_vision_encoder=freeze_vision, train_expert_only=expert_only,
            device=device, chunk_size=CHUNK))
        core = model.paligemma_with_expert.paligemma.model
        if width != 2048:  # which the code has for the projector, whatever the variant
            core.multi_modal_projector.linear = torch.nn.Linear(image, width)
            core.multi_modal_projector.requires_grad_(not expert_only)
    if checkpointing:
        model.gradient_checkpointing_enable()
    model.train()
    trained = [one for one in model.parameters() if one.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=RATE, betas=BETAS, weight_decay=DECAY)
    cameras = given['images'].unbind(1)
    shown = [torch.ones(len(one), dtype=torch.bool, device=device) for one in cameras]
    mask = torch.ones_like(given['ids'], dtype=torch.bool)

    def step() -> float:
        loss = model.forward(list(cameras), shown, given['ids'], mask, given['state'],
                             given['actions'], given['noise'], given['times']
                             )[..., :ACTIONS].mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimiser.step()
        optimiser.zero_grad()
        return loss.item()

    return step, sum(one.numel() for one in trained)


def child(args: argparse.Namespace) -> dict[str, float]:
    """Measure one variant of one of them."""
    def peak() -> float:
        if args.device == 'cuda':
            return torch.cuda.max_memory_allocated() / 2**30
        return int(re.search(r'VmHWM:\s*(\d+)', Path('/proc/self/status').read_text())[1]) / 2**20

    torch.set_num_threads(args.threads)
    given = batch(args.batch_size, args.cameras, args.device)
    step, trained = {'ours': ours, 'lerobot': lerobot}[args.child](
        SIZES[args.size], given, args.device, **VARIANTS[args.variant])
    first = step()
    step()
    times = []
    for _ in range(args.steps):
        if args.device == 'cuda':
            torch.cuda.synchronize()
        started = time.perf_counter()
        last = step()
        times.append(time.perf_counter() - started)
    median = sorted(times)[len(times) // 2]
    return {'step_s': median, 'images_per_s': args.batch_size * args.cameras / median,
            'peak_gib': peak(), 'trained_millions': trained / 1e6, 'first_loss': first,
            'last_loss': last}


def main() -> None:
    """Run all in turn, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--lerobot', default='', metavar='PYTHON')
    parser.add_argument('--size', choices=tuple(SIZES), default='tiny')
    parser.add_argument('--variants', nargs='+', choices=tuple(VARIANTS),
                        default=['all', 'expert only', 'frozen vision', 'checkpointing'])
    parser.add_argument('--device', choices=('cpu', 'cuda'),
                        default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--batch-size', type=int, default=4)
    parser.add_argument('--cameras', type=int, default=2)
    parser.add_argument('--steps', type=int, default=8)
    parser.add_argument('--rounds', type=int, default=2)
    parser.add_argument('--threads', type=int, default=os.cpu_count())
    parser.add_argument('--out', type=Path, default=Path('out/train.json'))
    parser.add_argument('--child', choices=('ours', 'lerobot'), help=argparse.SUPPRESS)
    parser.add_argument('--variant', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(child(args)))
        return
    from machine import machine
    who = {'ours': sys.executable} | ({'lerobot': args.lerobot} if args.lerobot else {})
    same = [f'--{name}={getattr(args, name.replace("-", "_"))}' for name in (
        'size', 'device', 'batch-size', 'cameras', 'steps', 'threads')]
    print(f'{machine()}; torch {torch.__version__}; {args.size}, {args.device}, batches of '
          f'{args.batch_size}, {args.cameras} cameras, {args.threads} threads\n'
          f'{"":32}{"":10}{"step s":>9}{"images/s":>10}{"peak GiB":>10}{"trained":>10}')
    rows: dict[str, dict] = {}
    for variant in args.variants:
        names = [name for name in who if name == 'ours' or 'mixed' not in variant]
        runs: dict[str, list[dict]] = {name: [] for name in names}
        for _ in range(args.rounds):
            for name in names:
                done = subprocess.run([who[name], __file__, *same, f'--child={name}',
                                       f'--variant={variant}'], capture_output=True, text=True)
                said = done.stderr.strip().splitlines()
                runs[name].append(json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0
                                  else {'failed': said[-1] if said else str(done.returncode)})
        for name, of in runs.items():
            failed = [one['failed'] for one in of if 'failed' in one]
            best = {'failed': failed[0]} if failed else min(of, key=lambda one: one['step_s'])
            rows.setdefault(variant, {})[name] = best | {'runs': of}
            print(f'{variant:32}{name:10}' + (best['failed'][:90] if failed else (
                f'{best["step_s"]:9.3f}{best["images_per_s"]:10.1f}{best["peak_gib"]:10.2f}'
                f'{best["trained_millions"]:9.0f}M')), flush=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({
        'machine': machine(), 'torch': torch.__version__, 'settings': vars(args) | {
            'out': str(args.out)}, 'rows': rows}, indent=1) + '\n')


if __name__ == '__main__':
    main()
