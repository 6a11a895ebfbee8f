"""Models of the libraries beside the paper's: what frameworks do to norms leaves BNET whole."""

from __future__ import annotations

import copy

import pytest
import torch
from abilities import needs_mmaction, skip_without
from mmcv.cnn import fuse_conv_bn
from mmengine.model import convert_sync_batchnorm, revert_sync_batchnorm
from torch import nn

from bnet_mm.analysis.doctor import examine
from bnet_mm.engine.config import load_config
from bnet_mm.errors import InputError
from bnet_mm.layers import EnhancedNorm
from bnet_mm.openmmlab.models import build_model

BNET3 = "norm_cfg=dict(type='BNET', k=3)"
MODELS = {
    'HRNet': ('mmdet::hrnet/faster-rcnn_hrnetv2p-w18-1x_coco.py', 108),
    'Cascade R-CNN': ('mmdet::cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py', 16),
    'RepPoints': ('mmdet::reppoints/reppoints-moment_r50_fpn_1x_coco.py', 16),
    'UPerNet': ('mmseg::upernet/upernet_r50_4xb2-40k_cityscapes-512x1024.py', 16),
    'TSM': (
        'mmaction::recognition/tsm/tsm_imagenet-pretrained-r50_8xb16-1x1x8-50e_kinetics400-rgb.py',
        16,
    ),
}
I3D = 'mmaction::recognition/i3d/i3d_imagenet-pretrained-r50_8xb8-32x2x1-100e_kinetics400-rgb.py'


def config(base, tmp_path):
    source = {
        'mmdet': 'init_cfg=None',
        'mmseg': '',
        'mmaction': 'pretrained=None, pretrained2d=False',
    }[base.partition(':')[0]]
    skip_without(base.partition(':')[0])
    whole = 'pretrained=None, ' if base.startswith('mmseg') else ''
    path = tmp_path / 'model.py'
    path.write_text(f'_base_ = {base!r}\nmodel = dict({whole}backbone=dict({BNET3}, {source}))\n')
    return load_config(path)


def kernels(model):
    return [m for m in model.modules() if isinstance(m, EnhancedNorm)]


def stages(model, images):
    model.eval()
    model.backbone.eval()
    with torch.no_grad():
        out = model.backbone(images)
    return out if isinstance(out, (tuple, list)) else [out]


@pytest.mark.parametrize('name', MODELS)
def test_conversions_fusion_and_initializers(name, tmp_path):
    base, count = MODELS[name]
    cfg = config(base, tmp_path)
    model = build_model(cfg)
    assert len(kernels(model)) == count
    for _ in range(2):
        model.backbone.init_weights()
    zeroed = 0  # zero_init_residual is on for some
    for bnet in kernels(model.backbone):
        outside = bnet.dw.weight.detach().clone()
        outside[:, :, 1, 1] = 0
        assert not outside.any()
        zeroed += not bnet.dw.weight.any()
    assert zeroed in (0, count) or name == 'HRNet'

    torch.manual_seed(0)
    for bnet in kernels(model):
        nn.init.normal_(bnet.dw.weight, std=0.2)
        nn.init.normal_(bnet.norm.running_mean, std=0.2)
    images = torch.randn(8 if name == 'TSM' else 1, 3, 64, 64)
    expected = stages(model, images)
    whole = copy.deepcopy(model)
    for change in (
        lambda m: revert_sync_batchnorm(convert_sync_batchnorm(m)),
        lambda m: revert_sync_batchnorm(nn.SyncBatchNorm.convert_sync_batchnorm(m)),
        fuse_conv_bn,
        copy.deepcopy,
    ):
        changed = change(copy.deepcopy(whole))
        assert len(kernels(changed)) == count
        for ours, theirs in zip(stages(changed, images), expected):
            scale = 1e-3 * theirs.abs().max().item()  # of a random network
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=max(scale, 1e-3))

    found = examine(cfg)
    assert len(found.norms) == count
    assert all(norm.group is not None for norm in found.norms)
    if name == 'TSM':
        assert {norm.weight_decay for norm in found.norms} == {0}


@needs_mmaction
def test_three_dimensional_networks_are_refused_by_name(tmp_path):
    with pytest.raises(InputError, match=r'ResNet3d computes on clips, in 3-D'):
        examine(config(I3D, tmp_path))
