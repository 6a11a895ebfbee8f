"""A config in Python, of classes and without a default scope, through the tools."""

from __future__ import annotations

from pathlib import Path

import pytest

from bnet_mm.analysis.runs import read_run

pytestmark = pytest.mark.slow
CONFIG = Path(__file__).resolve().parents[2] / 'configs/demo/resnet18_bnet3_demo_python.py'


def test_trained_resumed_tested_examined_and_deployed(demo_imagenet, run_tool, tmp_path):
    options = [
        *(f'{loader}_dataloader.{entry}' for loader in ('train', 'val', 'test')
          for entry in (f'dataset.data_root={demo_imagenet}', 'num_workers=0')),
        'model.backbone.base_channels=8', 'model.backbone.stem_channels=8',
        'model.head.in_channels=64', 'train_cfg.val_interval=1',
    ]  # fmt: skip
    for epochs, more in ((1, []), (2, ['--resume'])):
        arguments = [CONFIG, '--work-dir', 'run', *more, '--cfg-options', *options]
        run_tool('train.py', *arguments, f'train_cfg.max_epochs={epochs}', check=True)
    weights = tmp_path / 'run/epoch_2.pth'
    assert read_run(tmp_path / 'run').norm == 'BNET-3'
    tested = run_tool('test.py', CONFIG, weights, '--cfg-options', *options, check=True)
    assert 'accuracy/top1' in tested.stdout + tested.stderr
    said = run_tool('doctor.py', CONFIG, weights, '--cfg-options', *options, check=True).stdout
    assert '8 BNET' in said
    run_tool('deploy.py', CONFIG, weights, 'out.pth', '--cfg-options', *options, check=True)
    assert (tmp_path / 'out.pth').is_file()
