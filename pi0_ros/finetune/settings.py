# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What a fine-tuning is."""

from dataclasses import asdict, dataclass
import json
from pathlib import Path
from typing import Any

DTYPES = 'float32', 'bfloat16', 'mixed'
# May differ when a training goes on: the numbers stay the same.
FREE = ('log_every', 'save_every', 'eval_every', 'eval_frames', 'workers', 'cache_gib',
        'device', 'threads', 'compile', 'gradient_checkpointing')


@dataclass(frozen=True)
class Settings:
    """What a fine-tuning is; the names are LeRobot's where it has them."""

    dataset: Path
    checkpoint: str
    output: Path
    steps: int = 30_000
    batch_size: int = 8
    seed: int = 1000
    learning_rate: float = 2.5e-5
    decay_rate: float = 2.5e-6
    warmup_steps: int = 1000
    decay_steps: int = 30_000
    train_expert_only: bool = False
    freeze_vision_encoder: bool = False
    gradient_checkpointing: bool = False
    dtype: str = 'float32'
    compile: bool = False  # noqa: A003
    chunk_size: int = 0
    relative_actions: bool | None = None
    relative_exclude_joints: tuple[str, ...] | None = None
    cameras: tuple[str, ...] = ()
    keep_statistics: bool = False
    lora_rank: int = 0
    gpus: int = 1
    trained_delay: int = 0
    tokenizer: str = ''
    held_out: float = 0.1
    eval_every: int = 1000
    eval_frames: int = 64
    save_every: int = 1000
    log_every: int = 10
    workers: int = 2
    cache_gib: float = 4.0
    device: str = 'auto'
    threads: int = 0

    def same(self) -> dict[str, Any]:
        """Return what must be equal for a training to go on to the same numbers."""
        told = json.loads(json.dumps(asdict(self), default=str))
        out = {name: value for name, value in told.items() if name not in FREE}
        return out | {'output': '', 'dataset': str(self.dataset.absolute())}
