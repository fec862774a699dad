"""Names the machine that a figure was measured on."""

import os
import platform
import re
from pathlib import Path


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
