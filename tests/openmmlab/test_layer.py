"""The layer under what mmengine and mmcv do to every norm."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from mmcv.cnn import ConvModule, build_norm_layer, fuse_conv_bn
from mmengine.model import BaseModule, Sequential, revert_sync_batchnorm
from mmengine.model.utils import convert_sync_batchnorm
from mmengine.runner import load_state_dict
from torch import nn

import bnet_mm  # noqa: F401  (registers BNET)
from bnet_mm.errors import InputError
from bnet_mm.layers import BNET
from bnet_mm.layers.depthwise import dirac_kernel

SIZES = pytest.mark.parametrize('k', [1, 3, 5, 7])


def is_dirac(bnet: BNET) -> bool:
    return torch.equal(bnet.dw.weight, dirac_kernel(torch.ones(bnet.num_features), bnet.k))


@SIZES
def test_builds_by_name_with_the_name_of_a_batch_norm(k):
    name, layer = build_norm_layer(
        dict(type='BNET', k=k, eps=1e-3, requires_grad=False, _scope_='mmdet'), 64, postfix=1
    )
    assert (name, type(layer), layer.k, layer.norm.eps) == ('bn1', BNET, k, 1e-3)
    assert not any(p.requires_grad for p in layer.parameters())


@SIZES
def test_conversions_to_synchronized_statistics_and_back_keep_the_kernel(k):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), BNET(4, k=k))
    nn.init.normal_(model[1].dw.weight)
    x = torch.randn(2, 3, 6, 6)
    expected = model.eval()(x)
    converted = convert_sync_batchnorm(model).eval()  # mmengine's drops the mode, BN's too
    assert isinstance(converted[1].norm, nn.SyncBatchNorm)
    reverted = revert_sync_batchnorm(converted)
    torch.testing.assert_close(reverted(x), expected)
    reverted.train()(x).square().mean().backward()
    assert reverted[1].dw.weight.grad.abs().sum() > 0


@SIZES
def test_fusing_convolutions_and_norms_changes_nothing(k):
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1), BNET(4, k=k), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)
    ).eval()
    for module in (model[1].norm, model[3]):
        nn.init.normal_(module.running_mean)
        nn.init.uniform_(module.running_var, 0.5, 2)
    nn.init.normal_(model[1].dw.weight)
    x = torch.randn(2, 3, 6, 6)
    expected = model(x)
    torch.testing.assert_close(fuse_conv_bn(model)(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('times', [1, 2])
@SIZES
def test_initializers_leave_the_kernel_at_dirac(times, k):
    conv = ConvModule(3, 8, 3, norm_cfg=dict(type='BNET', k=k))
    init_cfg = [
        dict(type='Kaiming', layer='Conv2d'),
        dict(type='Constant', val=1, layer=['_BatchNorm', 'GroupNorm']),
    ]
    model = Sequential(conv, BNET(8, k=k), init_cfg=init_cfg)
    for _ in range(times):
        model._is_init = False
        model.init_weights()
    assert is_dirac(conv.bn)
    assert is_dirac(model[1])


@SIZES
def test_override_by_name_zeroes_the_norm(k):
    class Block(BaseModule):
        def __init__(self):
            super().__init__(dict(type='Constant', val=0, override=dict(name='norm3')))
            self.norm3 = BNET(4, k=k)

    block = Block()
    block.init_weights()
    assert not block.norm3(torch.randn(2, 4, 5, 5)).any()


@SIZES
def test_mmengines_own_loader_takes_batch_norm_weights(k):
    bn = nn.Sequential(nn.BatchNorm2d(4))
    nn.init.normal_(bn[0].weight)
    model = nn.Sequential(BNET(4, k=k))
    state = bn.state_dict()
    kept = list(state)
    load_state_dict(model, state, strict=True)
    assert list(state) == kept
    torch.testing.assert_close(model[0].dw.weight[:, 0, k // 2, k // 2], bn[0].weight)


@SIZES
@pytest.mark.parametrize('norm', ['BNET', 'SyncBNET'])
def test_the_norm_by_name_at_the_last_place_of_a_block(norm, k):
    """A `ConvModule` with each order of its parts, against the same with batch norm."""
    x = torch.randn(2, 3, 7, 6)
    for order in (('conv', 'norm', 'act'), ('norm', 'conv', 'act'), ('conv', 'act', 'norm')):
        torch.manual_seed(0)
        ours = ConvModule(3, 3, 3, norm_cfg=dict(type=norm, k=k), order=order)
        torch.manual_seed(0)
        theirs = ConvModule(3, 3, 3, norm_cfg=dict(type='BN'), order=order)
        torch.testing.assert_close(ours(x), theirs(x))


@SIZES
def test_mmcvs_own_synchronized_norm_is_refused_by_name(k, process_group):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), BNET(4, k=k))
    with pytest.raises(InputError, match=r"BNET cannot use mmcv's own .*say sync_bn='torch'"):
        convert_sync_batchnorm(model, implementation='mmcv')


@SIZES
@pytest.mark.parametrize('norm', ['BNET', 'SyncBNET'])
@pytest.mark.parametrize(
    ('conv', 'shape', 'sentence'),
    [
        (
            'Conv1d',
            (2, 3, 9),
            r'expected a 4-D input \(N, C, H, W\), got 3-D of shape \(2, 4, 9\)$',
        ),
        ('Conv3d', (2, 3, 5, 6, 7), r'got 5-D of shape \(2, 4, 5, 6, 7\); 3-D networks .* keep'),
    ],
)
def test_networks_of_other_than_images_are_refused_by_name(conv, shape, sentence, norm, k):
    module = ConvModule(3, 4, 1, conv_cfg=dict(type=conv), norm_cfg=dict(type=norm, k=k))
    for training in (True, False):
        with pytest.raises(InputError, match=f'{norm}: .*{sentence}'):
            module.train(training)(torch.randn(shape))


@SIZES
def test_deep_copies_and_pickles_compute_the_same(k):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), BNET(4, k=k)).eval()
    nn.init.normal_(model[1].dw.weight)
    x = torch.randn(2, 3, 6, 6)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other[1].dw.weight is not model[1].dw.weight
        torch.testing.assert_close(other(x), model(x))


@SIZES
def test_kernels_of_another_size_are_named_by_mmengines_loader(k, capsys):
    """Strict, it raises; not strict, it prints. Nothing of that norm is half loaded."""
    theirs = nn.Sequential(BNET(4, k=9))
    nn.init.normal_(theirs[0].dw.weight)
    nn.init.normal_(theirs[0].dw.bias)
    model = nn.Sequential(BNET(4, k=k))
    sentence = f'the checkpoint has 9x9 kernels, the model k={k}, at 0.dw.weight'
    with pytest.raises(RuntimeError, match=sentence):
        load_state_dict(model, theirs.state_dict(), strict=True)
    load_state_dict(model, theirs.state_dict(), strict=False)
    assert sentence in capsys.readouterr().out
    assert is_dirac(model[0])
    assert not model[0].dw.bias.any()
