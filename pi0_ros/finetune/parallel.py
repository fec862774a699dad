# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Several GPUs, by torchrun and accelerate: every process computes its share of a batch."""

from collections.abc import Callable, Sequence
import os
import subprocess
import sys

import torch
from torch import nn, Tensor

STARTED = 'PI0_ROS_TRAIN_PROCESS'  # in the environment of each process
MISSING = '--gpus needs accelerate, which is not installed: pip install -r requirements/train.txt'


class Alone:
    """One process: the whole batch."""

    count, number = 1, 0

    def prepare(self, loss: nn.Module) -> nn.Module:
        """Return what computes the loss."""
        return loss

    def share(self, rows: Sequence[int]) -> Sequence[int]:
        """Return which rows of a batch this process computes."""
        return rows

    backward: Callable[[Tensor], None] | None = None

    def mean(self, value: float) -> float:
        """Return the mean of what all processes have."""
        return value

    def wait(self) -> None:
        """Wait for the others."""


class Together(Alone):
    """One of several processes; gradients are averaged over all."""

    def __init__(self) -> None:
        """
        Find the others.

        :raises ValueError: accelerate is not installed.
        """
        try:
            from accelerate import Accelerator
            from accelerate.utils import DistributedDataParallelKwargs
        except ImportError as error:
            raise ValueError(MISSING) from error
        # Nobody reads what the last layer of images and text adds: it has no gradient.
        self._accelerator = Accelerator(cpu=os.environ[STARTED] == 'cpu', kwargs_handlers=[
            DistributedDataParallelKwargs(find_unused_parameters=True)])
        self.count = self._accelerator.num_processes
        self.number = self._accelerator.process_index
        self.device = self._accelerator.device
        self.backward = self._accelerator.backward

    def prepare(self, loss: nn.Module) -> nn.Module:
        """Return what computes the loss, and averages its gradients."""
        return self._accelerator.prepare_model(loss)

    def share(self, rows: Sequence[int]) -> Sequence[int]:
        """Return every n-th row, from this process's number on."""
        return rows[self.number::self.count]

    def mean(self, value: float) -> float:
        """Return the mean over all processes."""
        told = torch.tensor(value, device=self.device)
        return float(self._accelerator.reduce(told, 'mean'))

    def wait(self) -> None:
        """Wait until all are here."""
        self._accelerator.wait_for_everyone()


def here() -> Alone:
    """Return what this process is: alone, or one of several."""
    return Together() if os.environ.get(STARTED) else Alone()


def start(gpus: int, arguments: Sequence[str], cpu: bool = False) -> int:
    """
    Start so many processes of the verb; return the exit code.

    :param cpu: on processors, to try it.
    """
    try:
        import accelerate  # noqa: F401
    except ImportError:
        print(f'pi0_ros train: {MISSING}', file=sys.stderr)
        return 1
    words = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node',
             str(gpus), '-m', 'pi0_ros', 'train', *arguments]
    more = {'OMP_NUM_THREADS': '1', 'GLOO_SOCKET_IFNAME': 'lo'} if cpu else {}
    return subprocess.run(words, env=os.environ | more | {
        STARTED: 'cpu' if cpu else 'gpu'}).returncode
