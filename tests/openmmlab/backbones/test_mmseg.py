"""MMSegmentation's backbones and heads: BNET where it is asked for, the library's own elsewhere."""

from __future__ import annotations

import pytest
import torch
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from bnet_mm.engine.config import load_config
from bnet_mm.layers import BNET, SyncBNET


@pytest.fixture(autouse=True)
def mmseg_scope():
    init_default_scope('mmseg')


def build(type='ResNetV1c', depth=18, **kwargs):
    dilated = dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4), contract_dilation=True)
    torch.manual_seed(0)
    return MODELS.build(dict(type=f'mmseg.{type}', depth=depth, **dilated, **kwargs))


def outputs(backbone, x):
    backbone.eval()  # mmseg's train() and eval() return None
    return backbone(x)


def enhanced_names(model) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, BNET)]


@pytest.mark.parametrize(
    ('arch', 'positions', 'norms'),
    [
        (dict(type='ResNet', depth=50), 'C', 16),
        (dict(type='ResNetV1c', depth=18), 'C', 8),
        (dict(type='ResNetV1d', depth=50), 'B', 16),
        (dict(type='ResNeXt', depth=50), 'ABC', 48),
        (dict(type='ResNetV1c', depth=50), 'all', 55),
    ],
)
def test_one_line_places_bnet(arch, positions, norms):
    model = build(**arch, norm_cfg=dict(type='BNET', k=5, positions=positions, requires_grad=True))
    assert len(enhanced_names(model)) == norms
    if positions == 'C':
        last = 'bn2' if arch['depth'] == 18 else 'bn3'
        assert all(name.endswith(last) for name in enhanced_names(model))


@pytest.mark.parametrize('multi_grid', [None, (1, 2, 4)])
@pytest.mark.parametrize('type', ['ResNet', 'ResNetV1c', 'ResNetV1d'])
def test_dilated_stages_compute_what_the_baseline_does(type, multi_grid):
    grids = dict(type=type, depth=50, base_channels=8, stem_channels=8, multi_grid=multi_grid)
    bn = build(**grids, norm_cfg=dict(type='BN'))
    bnet = build(**grids, norm_cfg=dict(type='BNET', k=7))
    assert len(enhanced_names(bnet)) == 16
    bnet.load_state_dict(bn.state_dict(), strict=True)
    x = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    for a, b in zip(outputs(bnet.double(), x), outputs(bn.double(), x)):
        torch.testing.assert_close(a, b)


def test_synchronized_statistics_on_one_device_are_bnets():
    sync = build(norm_cfg=dict(type='SyncBNET', k=3), base_channels=8, stem_channels=8)
    local = build(norm_cfg=dict(type='BNET', k=3), base_channels=8, stem_channels=8)
    assert {type(sync.get_submodule(name)) for name in enhanced_names(sync)} == {SyncBNET}
    assert isinstance(sync.layer1[0].bn2.norm, nn.SyncBatchNorm)
    assert isinstance(sync.layer1[0].bn1, nn.SyncBatchNorm)
    local.load_state_dict(sync.state_dict(), strict=True)
    x = torch.randn(2, 3, 32, 32)
    reverted = revert_sync_batchnorm(sync)  # what the Runner does without processes
    for model in (reverted, local):
        model.train()
        model(x)[-1].square().mean().backward()
    torch.testing.assert_close(
        reverted.layer4[1].bn2.dw.weight.grad, local.layer4[1].bn2.dw.weight.grad
    )
    torch.testing.assert_close(
        reverted.layer4[1].bn2.norm.running_var, local.layer4[1].bn2.norm.running_var
    )


def segmentor(**options):
    cfg = load_config('configs/demo/pspnet_r18_bnet3_demo.py', options)
    torch.manual_seed(0)
    return MODELS.build(cfg.model)


def test_heads_keep_the_librarys_norm():
    model = segmentor()
    assert len(enhanced_names(model)) == 8
    assert all(name.startswith('backbone.layer') for name in enhanced_names(model))
    assert any(isinstance(m, nn.SyncBatchNorm) for m in model.decode_head.modules())
    assert any(isinstance(m, nn.SyncBatchNorm) for m in model.auxiliary_head.modules())


@pytest.mark.parametrize('head', ['PSPHead', 'ASPPHead'])
def test_heads_take_bnet_with_one_pixel_maps(head):
    options = {
        'model.decode_head.type': head,
        'model.decode_head.norm_cfg': dict(type='BNET', k=7, _delete_=True),
    }
    if head == 'ASPPHead':
        del_pool = {'model.decode_head.dilations': (1, 2)}
        options.update(del_pool)
    cfg = load_config('configs/demo/pspnet_r18_bnet3_demo.py', options)
    if head == 'ASPPHead':
        cfg.model.decode_head.pop('pool_scales')
    model = revert_sync_batchnorm(MODELS.build(cfg.model))
    in_head = [name for name in enhanced_names(model) if name.startswith('decode_head')]
    assert len(in_head) == (5 if head == 'PSPHead' else 4)
    smallest = []
    for name in in_head:
        model.get_submodule(name).register_forward_hook(
            lambda m, i, y: smallest.append(tuple(y.shape[2:]))
        )
    out = model.train()(torch.randn(2, 3, 64, 64), mode='tensor')
    assert (1, 1) in smallest
    assert out.isfinite().all()
    out.square().mean().backward()
    assert all(model.get_submodule(name).dw.weight.grad is not None for name in in_head)


def test_one_image_of_one_pixel_fails_as_batch_norm_does():
    for kind in ('BN', 'BNET'):
        model = segmentor(**{'model.decode_head.norm_cfg': dict(type=kind, _delete_=True)})
        model = revert_sync_batchnorm(model).train()
        with pytest.raises(ValueError, match='more than 1 value per channel'):
            model(torch.randn(1, 3, 64, 64), mode='tensor')
