# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Time to prepare three 640x480 cameras, a state and an unchanged instruction for the network.

    python benchmarks/preprocess.py [--rounds 50] [--out out/preprocess.json]

One core. Beside it, in the same run and in turn: what openpi does with Pillow, and what
transformers' PI0ImageProcessor does (bicubic with antialias, top left, on grey), in torch. The
rivals only fit the images. Warm: called ten times in a row, as when a decoder has just written the
images; cold: the first call after the others, when they come from memory.
"""

import argparse
from dataclasses import replace
import json
from pathlib import Path
import time

import cv2
from machine import machine
import numpy as np
from pi0_ros.observation.observation import Observation
from pi0_ros.policy.pi0 import Pi0Policy
from pi0_ros.policy.pixels import Pixels
from PIL import Image
import torch
from torch.nn import functional as F

FIXTURE = Path(__file__).parents[1] / 'test' / 'data' / 'lerobot_mean_std' / 'checkpoint'
CAMERAS = ('a', 'b', 'c')
TARGET = 168, 224  # height, width of a 480 x 640 image in 224 x 224


def pillow(images: dict[str, np.ndarray]) -> None:
    """Fit as openpi's image_tools.resize_with_pad does, then scale."""
    out = []
    for image in images.values():
        resized = Image.fromarray(image).resize(TARGET[::-1], Image.Resampling.BILINEAR)
        canvas = Image.new('RGB', (224, 224), 0)
        canvas.paste(resized, (0, 28))
        out.append(np.asarray(canvas, np.float32).transpose(2, 0, 1) / 127.5 - 1)
    torch.from_numpy(np.stack(out))


def transformers(images: dict[str, np.ndarray]) -> None:
    """Fit as transformers' PI0ImageProcessor does, which itself needs torchvision."""
    batch = torch.from_numpy(np.stack(list(images.values()))).permute(0, 3, 1, 2)
    resized = F.interpolate(batch.float(), TARGET, mode='bicubic', antialias=True)
    F.pad((resized.clamp(0, 255).round() / 255 - 0.5) / 0.5, (0, 0, 0, 56))


def main() -> None:
    """Time all, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rounds', type=int, default=50)
    parser.add_argument('--out', type=Path, default=Path('out/preprocess.json'))
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    rng = np.random.default_rng(0)
    images = {name: cv2.GaussianBlur(rng.integers(0, 256, (480, 640, 3), np.uint8), (9, 9), 0)
              for name in CAMERAS}
    ways = {}
    for letterbox in ('lerobot', 'openpi', 'transformers'):
        policy = Pi0Policy(FIXTURE, dt_ns=1, device='cpu', dtype='float32')
        policy.load()
        policy.spec = replace(policy.spec, cameras=CAMERAS)
        policy.cameras = CAMERAS
        policy._pixels = Pixels(224, 224, letterbox, policy.device)
        seen = Observation(0, np.zeros(policy.spec.state_width), images, {}, 'fold the shirt')
        ways[f'pi0_ros, everything, letterbox {letterbox}'] = (
            lambda policy=policy, seen=seen: policy.prepare(seen))
    ways['Pillow as openpi, images only'] = lambda: pillow(images)
    ways['torch as transformers, images only'] = lambda: transformers(images)
    times: dict[str, list[list[float]]] = {name: [] for name in ways}
    for _ in range(args.rounds):
        for name, way in ways.items():
            row = []
            for _ in range(10):
                started = time.perf_counter()
                way()
                row.append(1e3 * (time.perf_counter() - started))
            times[name].append(row)
    print(f'three 640x480 cameras, one core; {machine()}')
    print(f"{'ms':45}{'warm p50':>10}{'p5':>8}{'p95':>8}{'cold p50':>10}")
    rows = {}
    for name, values in times.items():
        warm, cold = np.array(values)[:, 1:], np.array(values)[:, 0]
        rows[name] = dict(zip(('p50', 'p5', 'p95', 'cold_p50'),
                              (*np.percentile(warm, (50, 5, 95)), np.median(cold))))
        print('{:45}{:10.3f}{:8.3f}{:8.3f}{:10.3f}'.format(name, *rows[name].values()))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({'machine': machine(), 'ms': rows}, indent=1) + '\n')


if __name__ == '__main__':
    main()
