"""A classification run through the tools: trained, tested, compared, handed to a detector."""

from __future__ import annotations

import pytest
import torch
from mmengine.registry import MODELS

from bnet_mm.analysis.runs import read_run
from bnet_mm.checkpoint import read_checkpoint

pytestmark = pytest.mark.slow


def test_from_images_to_a_detectors_backbone(tiny_classifier, tmp_path, run_tool):
    run_tool('train.py', tiny_classifier, '--work-dir', 'run', '--seed', 3, check=True)
    run = read_run(tmp_path / 'run')
    assert (run.norm, run.seed, len(run.training)) == ('BNET-3', 3, 2)
    weights = tmp_path / 'run/epoch_1.pth'
    tested = run_tool('test.py', tiny_classifier, weights, check=True)
    assert f'accuracy/top1: {run.validation[1]["accuracy/top1"]:.4f}' in (
        tested.stdout + tested.stderr
    )
    __import__('mmdet.models')
    init_cfg = dict(type='Pretrained', checkpoint=str(weights))
    backbone = MODELS.build(
        dict(
            **dict(type='mmdet.ResNet', depth=18, base_channels=8, stem_channels=8),
            **dict(norm_cfg=dict(type='BNET', k=3), init_cfg=init_cfg),
        )
    )
    backbone.init_weights()
    trained = read_checkpoint(weights)['state_dict']
    own = backbone.state_dict()
    assert all(torch.equal(value, trained[f'backbone.{name}']) for name, value in own.items())


def test_switchable_norms_are_evaluated_with_the_average_of_batches(
    tiny_classifier, tmp_path, run_tool
):
    config = tmp_path / 'resnet18_snet3_tiny.py'
    hook = "dict(type='PreciseBNHook', num_samples=20, priority='ABOVE_NORMAL')"
    config.write_text(
        f"""
_base_ = {str(tiny_classifier)!r}
model = dict(backbone=dict(norm_cfg=dict(_delete_=True, type='SNET', k=3)))
custom_hooks = [{hook}]
"""
    )
    result = run_tool('train.py', config, '--work-dir', 'run', check=True)
    # All of the network's norms; what they track is now the average, and not the momentum's.
    assert '20 BN found, run 2 iters' in result.stdout + result.stderr
    state = read_checkpoint(tmp_path / 'run/epoch_1.pth')['state_dict']
    variances = [v for k, v in state.items() if k.endswith('batch.running_var')]
    assert len(variances) == 20 and all(v.isfinite().all() for v in variances)
