"""The layer under what mmengine and mmcv do to every norm."""

import pytest
import torch
from mmcv.cnn import ConvModule, build_norm_layer, fuse_conv_bn
from mmengine.model import BaseModule, Sequential, revert_sync_batchnorm
from mmengine.model.utils import convert_sync_batchnorm
from mmengine.runner import load_state_dict
from torch import nn

import bnet_mm  # noqa: F401  (registers BNET)
from bnet_mm.norm import BNET
from bnet_mm.norm.depthwise import dirac_kernel


def is_dirac(bnet: BNET) -> bool:
    return torch.equal(bnet.dw.weight, dirac_kernel(torch.ones(bnet.num_features), bnet.k))


def test_builds_by_name_with_the_name_of_a_batch_norm():
    name, layer = build_norm_layer(
        dict(type='BNET', k=5, eps=1e-3, requires_grad=False, _scope_='mmdet'), 64, postfix=1
    )
    assert (name, type(layer), layer.k, layer.norm.eps) == ('bn1', BNET, 5, 1e-3)
    assert not any(p.requires_grad for p in layer.parameters())


def test_conversions_to_synchronized_statistics_and_back_keep_the_kernel():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), BNET(4, k=3))
    nn.init.normal_(model[1].dw.weight)
    x = torch.randn(2, 3, 6, 6)
    expected = model.eval()(x)
    converted = convert_sync_batchnorm(model).eval()  # mmengine's drops the mode, BN's too
    assert type(converted[1].norm) is nn.SyncBatchNorm
    reverted = revert_sync_batchnorm(converted)
    torch.testing.assert_close(reverted(x), expected)
    reverted.train()(x).square().mean().backward()
    assert reverted[1].dw.weight.grad.abs().sum() > 0


def test_fusing_convolutions_and_norms_changes_nothing():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1), BNET(4, k=3), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)
    ).eval()
    x = torch.randn(2, 3, 6, 6)
    expected = model(x)
    torch.testing.assert_close(fuse_conv_bn(model)(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('times', [1, 2])
def test_initializers_leave_the_kernel_at_dirac(times):
    conv = ConvModule(3, 8, 3, norm_cfg=dict(type='BNET', k=5))
    init_cfg = [
        dict(type='Kaiming', layer='Conv2d'),
        dict(type='Constant', val=1, layer=['_BatchNorm', 'GroupNorm']),
    ]
    model = Sequential(conv, BNET(8, k=3), init_cfg=init_cfg)
    for _ in range(times):
        model._is_init = False
        model.init_weights()
    assert is_dirac(conv.bn)
    assert is_dirac(model[1])


def test_override_by_name_zeroes_the_norm():
    class Block(BaseModule):
        def __init__(self):
            super().__init__(dict(type='Constant', val=0, override=dict(name='norm3')))
            self.norm3 = BNET(4, k=3)

    block = Block()
    block.init_weights()
    assert not block.norm3(torch.randn(2, 4, 5, 5)).any()


def test_mmengines_own_loader_takes_batch_norm_weights():
    bn = nn.Sequential(nn.BatchNorm2d(4))
    nn.init.normal_(bn[0].weight)
    model = nn.Sequential(BNET(4, k=3))
    state = bn.state_dict()
    kept = list(state)
    load_state_dict(model, state, strict=True)
    assert list(state) == kept
    torch.testing.assert_close(model[0].dw.weight[:, 0, 1, 1], bn[0].weight)
