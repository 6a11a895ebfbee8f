"""A classification run through the tools: trained, tested, compared, handed to a detector."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.registry import MODELS

from bnet_mm.analysis.runs import read_run
from bnet_mm.checkpoint import read_checkpoint

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """
_base_ = {base!r}
data_root = {data!r}
loader = dict(batch_size=10, num_workers=0, persistent_workers=False,
              dataset=dict(data_root=data_root))
train_dataloader = loader
val_dataloader = loader
test_dataloader = loader
model = dict(backbone=dict({backbone}))
train_cfg = dict(max_epochs=1, val_interval=1)
default_hooks = dict(checkpoint=dict(interval=1), logger=dict(interval=1))
{more}
"""


def test_from_images_to_a_detectors_backbone(demo_imagenet, tmp_path, run_tool):
    config = tmp_path / 'resnet18_bnet3_tiny.py'
    config.write_text(
        CONFIG.format(
            base=str(ROOT / 'configs/demo/resnet18_bnet3_demo.py'),
            data=str(demo_imagenet),
            backbone='',
            more='',
        )
    )
    run_tool('train.py', config, '--work-dir', 'run', '--seed', 3, check=True)
    run = read_run(tmp_path / 'run')
    assert (run.norm, run.seed, len(run.training)) == ('BNET-3', 3, 2)
    weights = tmp_path / 'run/epoch_1.pth'
    tested = run_tool('test.py', config, weights, check=True)
    assert f'accuracy/top1: {run.validation[1]["accuracy/top1"]:.4f}' in (
        tested.stdout + tested.stderr
    )
    __import__('mmdet.models')
    init_cfg = dict(type='Pretrained', checkpoint=str(weights))
    backbone = MODELS.build(
        dict(type='mmdet.ResNet', depth=18, norm_cfg=dict(type='BNET', k=3), init_cfg=init_cfg)
    )
    backbone.init_weights()
    trained = read_checkpoint(weights)['state_dict']
    own = backbone.state_dict()
    assert all(torch.equal(value, trained[f'backbone.{name}']) for name, value in own.items())


def test_switchable_norms_are_evaluated_with_the_average_of_batches(
    demo_imagenet, tmp_path, run_tool
):
    config = tmp_path / 'resnet18_snet3_tiny.py'
    hook = "dict(type='PreciseBNHook', num_samples=20, priority='ABOVE_NORMAL')"
    config.write_text(
        CONFIG.format(
            base=str(ROOT / 'configs/demo/resnet18_bnet3_demo.py'),
            data=str(demo_imagenet),
            backbone="norm_cfg=dict(_delete_=True, type='SNET', k=3), base_channels=8",
            more=f'custom_hooks = [{hook}]\nmodel.update(head=dict(in_channels=64))',
        )
    )
    result = run_tool('train.py', config, '--work-dir', 'run', check=True)
    # All of the network's norms; what they track is now the average, and not the momentum's.
    assert '21 BN found, run 2 iters' in result.stdout + result.stderr
    state = read_checkpoint(tmp_path / 'run/epoch_1.pth')['state_dict']
    variances = [v for k, v in state.items() if k.endswith('batch.running_var')]
    assert len(variances) == 21 and all(v.isfinite().all() for v in variances)
