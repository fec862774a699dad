# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Verb ``train``: fine-tune a checkpoint on a LeRobotDataset, as LeRobot does.

The flags have LeRobot's names. OUTPUT/checkpoints/last/pretrained_model is the newest checkpoint,
best the one that was nearest to held-out episodes; LeRobot reads both, and so does the node.
"""

import argparse
from collections.abc import Sequence
from dataclasses import fields
import os
from pathlib import Path
import sys

from pi0_ros.finetune.settings import DTYPES, Settings

DEFAULTS = {one.name: one.default for one in fields(Settings)}


def parser() -> argparse.ArgumentParser:
    """Return the parser of the verb."""
    out = argparse.ArgumentParser(prog='pi0_ros train', description=__doc__,
                                  formatter_class=argparse.RawDescriptionHelpFormatter)

    def add(group: argparse._ArgumentGroup, name: str, text: str, **more: object) -> None:
        key = name.replace('-', '_')
        default = DEFAULTS[key]
        if default is False:
            group.add_argument(f'--{name}', action='store_true', help=text)
            return
        shown = ' '.join(default) if isinstance(default, tuple) else default
        group.add_argument(f'--{name}', default=default, **(
            {'type': type(default)} if 'nargs' not in more and 'type' not in more else {}),
            **more, help=f'{text} (default: {shown})' if shown not in ('', None) else text)

    group = out.add_argument_group('what')
    group.add_argument('--dataset', type=Path, required=True, metavar='DIR',
                       help="folder of a LeRobotDataset v3: of export, or LeRobot's")
    group.add_argument('--checkpoint', required=True, metavar='DIR',
                       help='to begin with: any that inspect reads')
    group.add_argument('--output', type=Path, required=True, metavar='DIR',
                       help='new folder for checkpoints and log.jsonl')
    group.add_argument('--resume', action='store_true',
                       help='go on with what is in --output, to the same numbers')
    add(group, 'cameras', 'of the data set, in the order of the slots', nargs='+', metavar='NAME')
    add(group, 'chunk-size', 'actions of a chunk; 0: those of the checkpoint', metavar='N')
    add(group, 'tokenizer', 'folder, for checkpoints that have none', metavar='DIR')

    group = out.add_argument_group('how')
    for name, text in (('steps', 'optimiser steps'), ('batch-size', 'observations of a step'),
                       ('seed', 'of the order, noise and flow times')):
        add(group, name, text, metavar='N')
    add(group, 'learning-rate', 'at its peak', metavar='R')
    add(group, 'decay-rate', 'at the end', metavar='R')
    add(group, 'warmup-steps', 'of a training of --decay-steps; scaled with it', metavar='N')
    add(group, 'decay-steps', 'until the rate is --decay-rate; fewer --steps scale it',
        metavar='N')
    add(group, 'train-expert-only', 'freeze images and text, train the action expert')
    add(group, 'freeze-vision-encoder', 'freeze the image encoder')
    add(group, 'lora-rank', 'train adapters of so many numbers (PEFT) beside the attention of the '
        'expert and the projections, and nothing else; 0: none', metavar='N')
    add(group, 'dtype', 'float32; bfloat16 as LeRobot, weights too; mixed: computed in bfloat16, '
        'trained weights in float32, so that small steps are not lost', choices=DTYPES)
    group.add_argument('--relative-actions', action=argparse.BooleanOptionalAction, default=None,
                       help='actions minus the state of the observation; statistics are computed '
                            'anew (default: as the checkpoint has it)')
    group.add_argument('--relative-exclude-joints', nargs='*', metavar='NAME', default=None,
                       help='parts of names of actions that stay absolute (default: those of the '
                            'checkpoint where it has relative ones, else gripper)')
    add(group, 'keep-statistics', "normalise by the checkpoint's statistics, not the data set's: "
        'for a few corrections, which would shift all that it knows')
    add(group, 'trained-delay', 'train for hand-over rtc_trained: half of the chunks begin with '
        'up to N given actions', metavar='N')

    group = out.add_argument_group('machine')
    add(group, 'gpus', 'processes, each on a GPU of its own with --batch-size of its own '
        '(accelerate)', metavar='N')
    add(group, 'gradient-checkpointing', 'compute activations again on the way back: less memory')
    add(group, 'compile', 'torch.compile the loss')
    add(group, 'device', 'auto, cpu, cuda, cuda:1', metavar='NAME')
    add(group, 'threads', 'of torch on a processor; 0: its own choice', metavar='N')
    add(group, 'workers', 'threads that make batches ahead', metavar='N')
    add(group, 'cache-gib', 'of fitted images that are kept, GiB; where all fit in, they are '
        'decoded first', metavar='X')

    group = out.add_argument_group('watching')
    add(group, 'held-out', 'share of the episodes, from ten on, that are not trained on',
        metavar='X')
    add(group, 'eval-every', 'steps between measures on them', metavar='N')
    add(group, 'eval-frames', 'moments of a measure', metavar='N')
    add(group, 'save-every', 'steps between checkpoints', metavar='N')
    add(group, 'log-every', 'steps between lines of log.jsonl', metavar='N')
    return out


def main(argv: Sequence[str] | None = None) -> int:
    """Run the verb."""
    given = vars(parser().parse_args(argv))
    from pi0_ros.finetune import parallel  # torch takes seconds, and a help text needs none
    from pi0_ros.finetune.command import train
    resume = given.pop('resume')
    if given['gpus'] > 1 and not os.environ.get(parallel.STARTED):
        words = list(sys.argv[1:] if argv is None else argv)
        return parallel.start(given['gpus'], words, given['device'] == 'cpu')
    settings = {name: tuple(value) if isinstance(value, list) else value
                for name, value in given.items()}
    return train(Settings(**settings), resume)
