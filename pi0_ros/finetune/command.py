# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""A fine-tuning as a command: what it says, and what it says of what goes wrong."""

import sys

from pi0_ros.dataset.reader import DataError
from pi0_ros.finetune.learner import count
from pi0_ros.finetune.settings import Settings
from pi0_ros.finetune.trainer import Trainer
from pi0_ros.weights.files import CheckpointError
import torch

GIB = 2**30


def train(settings: Settings, resume: bool = False) -> int:
    """Run a fine-tuning for the command line; return the exit code."""
    trainer = None
    try:
        trainer = Trainer(settings, resume)
        if trainer.beside.number == 0:
            print('\n'.join(trainer.told))
        trainer.run()
    except torch.cuda.OutOfMemoryError as error:
        text = str(error).split('. ')[0]
        print(f'pi0_ros train: {text}: {memory_advice(trainer, settings)}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        saved = settings.output / 'checkpoints' / 'last'
        print('\npi0_ros train: interrupted' + (
            f': the same command with --resume goes on from step {saved.resolve().name}'
            if saved.exists() else ', before the first checkpoint'), file=sys.stderr)
        return 130
    except (DataError, CheckpointError, ValueError, FloatingPointError, OSError) as error:
        print(f'pi0_ros train: {error}', file=sys.stderr)
        return 1
    if trainer.beside.number:
        return 0
    last = settings.output / 'checkpoints'
    best = f", the best {last / 'best' / 'pretrained_model'}" if trainer.held else ''
    print(f"{last / 'last' / 'pretrained_model'}{best}")
    return 0


def memory_advice(trainer: 'Trainer | None', settings: Settings) -> str:
    """Return which flags save how much memory, GiB, as far as that can be computed."""
    out = []
    if trainer is not None:
        numbers = count(trainer.learner.trained)
        frozen = sum(one.numel() for name, one in trainer.model.named_parameters()
                     if name.startswith('model.vlm.') and one.requires_grad)
        if frozen:
            out.append(f'--train-expert-only saves {12 * frozen / GIB:.1f} GiB of gradients and '
                       'optimiser state')
        if settings.dtype == 'float32':
            out.append(f'--dtype bfloat16 saves about {8 * numbers / GIB:.1f} GiB')
    if not settings.gradient_checkpointing:
        out.append('--gradient-checkpointing keeps the activations of one pair of layers instead '
                   'of all')
    if settings.batch_size > 1:
        out.append(f'--batch-size {settings.batch_size // 2} halves the activations')
    return '; '.join(out)
