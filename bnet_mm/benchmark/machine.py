"""Describes the machine of a measurement."""

from __future__ import annotations

import datetime
import os
import platform
from pathlib import Path

import torch

from bnet_mm.kernels import cpu
from bnet_mm.kernels.versions import cpu_capability
from bnet_mm.version import __version__


def describe(device: str) -> dict[str, str | int]:
    """Returns processor, threads, versions and date, for tables and JSON."""
    facts = {
        'date': datetime.date.today().isoformat(),
        'cpu': _cpu_name(),
        'cores': os.cpu_count(),
        'threads': torch.get_num_threads(),
        'instructions': cpu_capability(),
        'cpu kernels': 'compiled' if cpu.library() is not None else 'not compiled',
        'torch': torch.__version__,
        'bnet_mm': __version__,
    }
    if torch.device(device).type == 'cuda':
        facts['gpu'] = torch.cuda.get_device_name(device)
        facts['cuda'] = torch.version.cuda
    return facts


def _cpu_name() -> str:
    info = Path('/proc/cpuinfo')
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith('model name'):
                return line.partition(':')[2].strip()
    return platform.processor() or platform.machine()
