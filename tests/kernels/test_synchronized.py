"""BNET over several processes, on CPUs with gloo, started as users start them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


@pytest.mark.parametrize('processes', [2, 4])
def test_processes_agree_with_one_on_the_joined_batch(processes):
    result = subprocess.run(
        [
            *(sys.executable, '-m', 'torch.distributed.run', '--standalone'),
            *(f'--nproc_per_node={processes}', str(HERE / 'layer_worker.py')),
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stderr.count('agreed') == processes
