"""A training that was killed goes on and ends where an uninterrupted one ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from bnet_mm.checkpoint import read_checkpoint

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent.parent


def weights(work_dir, name) -> dict:
    return read_checkpoint(work_dir / name)['state_dict']


def assert_equal(a: dict, b: dict) -> None:
    assert a.keys() == b.keys()
    different = [key for key in a if not torch.equal(a[key], b[key])]
    assert not different, f'{len(different)} of {len(a)} tensors differ: {different[:3]}'


def kill_after(command, cwd, ready) -> None:
    """Runs a training in a process group of its own and kills it once `ready()` holds."""
    process = subprocess.Popen(
        command, cwd=cwd, start_new_session=True, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.time() + 300
    while not ready():
        assert process.poll() is None, 'the training ended before it was killed'
        assert time.time() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


# By library: options, and the first and the last checkpoint.
TRAININGS = {
    'tiny_config': (['train_cfg.max_epochs=3', 'train_cfg.val_interval=1'], 'epoch_{}.pth', 1, 3),
    'tiny_segmentor': (['train_cfg.max_iters=6', 'train_cfg.val_interval=2'], 'iter_{}.pth', 2, 6),
    'tiny_classifier': (['train_cfg.max_epochs=4'], 'epoch_{}.pth', 1, 4),
}


@pytest.mark.parametrize(
    ('config', 'workers'), [('tiny_config', 2), ('tiny_segmentor', 0), ('tiny_classifier', 1)]
)
def test_killed_and_resumed_equals_uninterrupted(config, workers, request, tmp_path, run_tool):
    options, name, first, last = TRAININGS[config]
    first, last = name.format(first), name.format(last)
    loaders = [f'train_dataloader.num_workers={workers}', 'val_dataloader.num_workers=0']
    loaders.append(f'train_dataloader.persistent_workers={workers == 1}')
    config = request.getfixturevalue(config)
    arguments = [config, '--seed', 3, '--cfg-options', *options, *loaders]
    run_tool('train.py', *arguments, '--work-dir', tmp_path / 'whole', check=True)
    kill_after(
        [sys.executable, ROOT / 'tools/train.py', *map(str, arguments), '--work-dir', 'killed'],
        tmp_path,
        (tmp_path / 'killed' / first).is_file,
    )
    assert not (tmp_path / 'killed' / last).exists()
    result = run_tool('train.py', *arguments, '--work-dir', 'killed', '--resume', check=True)
    assert 'resumed from' in result.stdout + result.stderr
    assert_equal(weights(tmp_path / 'killed', last), weights(tmp_path / 'whole', last))
