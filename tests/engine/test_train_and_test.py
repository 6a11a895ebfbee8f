"""One run of the launchers on a tiny detector: what they print and leave behind."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from bnet_mm.checkpoint import read_checkpoint

pytestmark = pytest.mark.slow


def test_training_reports_evaluates_and_its_checkpoint_is_tested(tiny_config, run_tool, tmp_path):
    options = ['train_cfg.max_epochs=1', 'train_cfg.val_interval=1']
    trained = run_tool(
        'train.py', tiny_config, '--work-dir', 'run', '--seed', 0, '--cfg-options', *options,
        check=True,
    )  # fmt: skip
    log = trained.stdout + trained.stderr
    assert 'Norms: 8 BNET-5 (backbone.layer1.0.bn2 ... backbone.layer4.1.bn2); plain: 12' in log
    assert 'Training: 8 of 8 BNET kernels; batch statistics frozen in 0 of 20 norms' in log
    assert 'Weights: all from random values' in log
    assert 'Evaluating bbox' in log
    assert 'eta:' in log

    checkpoint = tmp_path / 'run/epoch_1.pth'
    kernels = {
        name: value
        for name, value in read_checkpoint(checkpoint)['state_dict'].items()
        if name.endswith('dw.weight')
    }
    assert len(kernels) == 8
    assert all(value.shape[2:] == (5, 5) for value in kernels.values())

    tested = run_tool(
        'test.py', tiny_config, checkpoint, '--work-dir', 'tested', '--out', 'found.pkl',
        '--show-dir', 'shown', check=True,
    )  # fmt: skip
    assert 'Evaluating bbox' in tested.stdout + tested.stderr
    assert len(pickle.loads((tmp_path / 'found.pkl').read_bytes())) == 4
    assert list((tmp_path / 'tested').rglob('shown/*.jpg'))

    flipped = run_tool('test.py', tiny_config, checkpoint, '--tta', check=True)
    assert 'Evaluating bbox' in flipped.stdout + flipped.stderr


def test_without_validation_no_validation_data_is_needed(tiny_config, run_tool):
    options = ['train_cfg.max_epochs=1', 'val_dataloader.dataset.data_root=gone']
    run_tool(
        'train.py', tiny_config, '--no-validate', '--cfg-options', *options, check=True
    )  # fmt: skip


def test_out_wants_a_pickle(tiny_config, run_tool):
    result = run_tool('test.py', tiny_config, 'x.pth', '--out', 'found.json')
    assert result.returncode == 2
    assert '--out found.json: predictions are pickled' in result.stderr


def test_runs_on_real_photos(real_data, tiny_config, run_tool, tmp_path):
    """Three steps and an evaluation on photos, with nothing but options to the config."""
    bccd = real_data / 'bccd'
    classes = "('RBC','WBC','Platelets')"
    options = [
        f'data_root={bccd}',
        'model.roi_head.bbox_head.num_classes=3',
        'train_dataloader.dataset.ann_file=annotations/train.json',
        'train_dataloader.dataset.data_prefix.img=train/',
        f'val_evaluator.ann_file={bccd}/annotations/val.json',
        'train_cfg.type=IterBasedTrainLoop',
        'train_cfg.max_iters=3',
        'train_cfg.val_interval=3',
    ]
    for loader in ('val_dataloader', 'test_dataloader'):
        options += [
            f'{loader}.dataset.ann_file=annotations/val.json',
            f'{loader}.dataset.data_prefix.img=val/',
        ]
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        options.append(f'{loader}.dataset.metainfo.classes={classes}')
    result = run_tool(
        'train.py', tiny_config, '--work-dir', 'run', '--cfg-options', *options, check=True
    )
    assert 'Evaluating bbox' in result.stdout + result.stderr
    assert (tmp_path / 'run/iter_3.pth').is_file()


def test_one_line_works_with_mmdets_own_launcher(tiny_config, tmp_path):
    import mmdet

    config = tmp_path / 'own.py'
    config.write_text(
        f'_base_ = {str(tiny_config)!r}\n'
        "custom_imports = dict(imports=['bnet_mm'])\n"
        'model = dict(backbone=dict(norm_cfg=dict(k=3)))\n'
        'train_cfg = dict(max_epochs=1)\n'
    )
    tool = Path(mmdet.__file__).parent / '.mim/tools/train.py'
    subprocess.run(
        [sys.executable, tool, config, '--work-dir', 'run'],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    state = read_checkpoint(tmp_path / 'run/epoch_1.pth')['state_dict']
    assert state['backbone.layer1.0.bn2.dw.weight'].shape == (8, 1, 3, 3)
    assert 'backbone.layer1.0.bn1.weight' in state
