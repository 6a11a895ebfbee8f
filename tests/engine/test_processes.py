"""Trainings of several processes on CPUs: the same as one process, and over after a death."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from bnet_mm.checkpoint import read_checkpoint

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
WITH_FLOAT64 = {**os.environ, 'PYTHONPATH': str(Path(__file__).resolve().parent)}


@pytest.fixture
def repeatable_classifier(tiny_classifier, tmp_path):
    """The tiny classifier without anything random in it: whole batches decide its weights."""
    path = tmp_path / 'repeatable.py'
    path.write_text(
        f"""
_base_ = {str(tiny_classifier)!r}
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(32, 32)),
    dict(type='PackInputs'),
]
small = dict(dataset=dict(pipeline=pipeline))
train_dataloader = small
val_dataloader = small
test_dataloader = small
train_cfg = dict(max_epochs=3)
sync_bn = 'torch'
custom_imports = dict(imports=['bnet_mm', 'float64'])
custom_hooks = [dict(type='Float64InputHook')]
"""
    )
    return path


def command(config, work_dir, processes, *options):
    train = [str(ROOT / 'tools/train.py'), str(config), '--work-dir', str(work_dir)]
    if processes == 1:
        return [sys.executable, *train, *options]
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    return [
        *(sys.executable, '-m', 'torch.distributed.run', f'--nproc_per_node={processes}'),
        *(f'--master_port={port}', *train, '--launcher', 'pytorch', *options),
    ]


def run(*args):
    result = subprocess.run(
        command(*args), capture_output=True, text=True, timeout=400, env=WITH_FLOAT64
    )
    assert result.returncode == 0, result.stderr[-3000:]


def weights(work_dir, epoch=3):
    return read_checkpoint(work_dir / f'epoch_{epoch}.pth')['state_dict']


def worker(rank, parent):
    """Returns the process id of one of the workers that torchrun (`parent`) started."""
    for entry in Path('/proc').iterdir():
        try:
            child = int((entry / 'stat').read_text().rpartition(')')[2].split()[1]) == parent
            if child and f'\0RANK={rank}\0' in (entry / 'environ').read_text():
                return int(entry.name)
        except (OSError, ValueError, IndexError):
            continue
    return None


def test_two_processes_equal_one_and_a_death_costs_nothing(repeatable_classifier, tmp_path):
    """Trains with one process, with two, and with two of which one is killed after an epoch."""
    one, two, broken = tmp_path / 'one', tmp_path / 'two', tmp_path / 'broken'
    halves = '--cfg-options', 'train_dataloader.batch_size=5'
    run(repeatable_classifier, one, 1)
    run(repeatable_classifier, two, 2, *halves)
    expected, joined = weights(one), weights(two)
    moved = 0
    for name, value in expected.items():
        torch.testing.assert_close(joined[name], value, rtol=1e-6, atol=1e-8)
        if name.endswith('dw.weight'):
            moved += value[:, :, 0, 0].abs().sum()
    assert moved > 0  # the kernels have left Dirac

    with (tmp_path / 'log').open('w') as log:
        job = subprocess.Popen(
            command(repeatable_classifier, broken, 2, *halves),
            stdout=log,
            stderr=log,
            env=WITH_FLOAT64,
        )
    deadline = time.monotonic() + 200
    while not (broken / 'epoch_1.pth').exists():
        assert job.poll() is None, (tmp_path / 'log').read_text()[-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(worker(1, job.pid), signal.SIGKILL)
    assert job.wait(timeout=120) != 0
    assert 'Signal 9 (SIGKILL)' in (tmp_path / 'log').read_text()
    assert not (broken / 'epoch_3.pth').exists()
    run(repeatable_classifier, broken, 2, '--resume', *halves)
    resumed = weights(broken)
    assert all(torch.equal(resumed[name], value) for name, value in joined.items())


def test_other_launchers_need_a_gpu_and_say_so(tiny_classifier, run_tool):
    if torch.cuda.is_available():
        pytest.skip('this is the sentence of a machine without GPUs')
    slurm = {'SLURM_PROCID': '0'}
    result = run_tool(
        'train.py', tiny_classifier, '--launcher', 'slurm', env={**os.environ, **slurm}
    )
    assert result.returncode == 2
    assert '--launcher slurm needs an accelerator for each process' in result.stderr


def test_a_port_that_is_taken_is_named(tiny_config):
    with socket.socket() as taken:
        taken.bind(('', 0))
        taken.listen()
        port = taken.getsockname()[1]
        path = f'{Path(sys.executable).parent}:{os.environ["PATH"]}'
        result = subprocess.run(
            [ROOT / 'tools/dist_train.sh', tiny_config, '2'],
            env={**os.environ, 'PORT': str(port), 'PATH': path},
            capture_output=True,
            text=True,
        )
    assert result.returncode == 2
    assert f'port {port} is taken' in result.stderr and f'PORT={port + 1}' in result.stderr
