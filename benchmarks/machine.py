# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Names the machine that a figure was measured on, and sums figures up."""

import os
from pathlib import Path
import platform
import re

import numpy as np


def machine() -> str:
    """Return processor, cores, memory and GPU in a few words."""
    cpu = re.search(r'model name\s*:\s*(.+)', Path('/proc/cpuinfo').read_text())
    memory = re.search(r'MemTotal:\s*(\d+)', Path('/proc/meminfo').read_text())
    gpu = 'no GPU'
    try:
        import torch
        if torch.cuda.is_available():
            gpu = torch.cuda.get_device_name()
    except ImportError:
        gpu = 'GPU unknown'
    return (f'{cpu.group(1) if cpu else platform.processor()}, {os.cpu_count()} cores, '
            f'{int(memory.group(1)) / 2**20:.0f} GiB, {gpu}, Python {platform.python_version()}')


def percentiles(values: list[float] | np.ndarray) -> dict[str, float]:
    """Return p50, p99, p99.9 and max."""
    values = np.asarray(values, float)
    if not len(values):
        return dict.fromkeys(('p50', 'p99', 'p99.9', 'max'), float('nan'))
    return {**{f'p{percent:g}': round(float(np.percentile(values, percent)), 4)
               for percent in (50, 99, 99.9)}, 'max': round(float(values.max()), 4)}
