"""Residual networks of every library: all norms folded, the ends of their blocks joined."""

from __future__ import annotations

from copy import deepcopy
from importlib import import_module

import pytest
import torch
from mmcv.cnn import fuse_conv_bn
from mmengine.registry import MODELS
from torch import nn

import bnet_mm
from bnet_mm.deploy import fuse
from bnet_mm.deploy.structure import ResidualBlock
from bnet_mm.layers import EnhancedNorm


def built(library, **options):
    import_module(f'{library}.models')
    if library == 'mmaction':
        options['pretrained'] = None
    return MODELS.build(dict(dict(type=f'{library}.ResNet'), **options))


@pytest.mark.parametrize('positions', ['C', 'all'])
@pytest.mark.parametrize('name', ['resnet18', 'resnet50'])
def test_torchvision(name, positions, trained, equal):
    torchvision = pytest.importorskip('torchvision')
    model = getattr(torchvision.models, name)(num_classes=10)
    model = trained(bnet_mm.enhance(model, k=5, positions=positions))
    fused = fuse(model, shape=(40, 33))
    blocks, norms = (8, 20) if name == 'resnet18' else (16, 53)
    assert len(fused.fusion.folded) == norms and not fused.fusion.left
    assert len(fused.fusion.taps) == (norms if positions == 'all' else blocks)
    assert len(fused.fusion.ends) == blocks and not fused.fusion.apart
    equal(model, fused, 2, 3, 33, 47)
    equal(model, fuse_conv_bn(deepcopy(fused)), 2, 3, 33, 47)


@pytest.mark.parametrize('options', [{}, dict(stem_type='deep', avg_down=True), dict(aa_layer='x')])
def test_timm(options, trained, equal):
    timm = pytest.importorskip('timm')
    if 'aa_layer' in options:
        options = dict(aa_layer=timm.layers.BlurPool2d)
    for block in (timm.models.resnet.BasicBlock, timm.models.resnet.Bottleneck):
        model = timm.models.resnet.ResNet(block, (1, 1, 1, 1), num_classes=5, **options)
        model = trained(bnet_mm.enhance(model, k=3))
        fused = fuse(model, shape=(40, 33))
        assert len(fused.fusion.taps) == 4 and not fused.fusion.left
        strided = {'layer2.0', 'layer3.0', 'layer4.0'} if options.get('aa_layer') else set()
        assert set(fused.fusion.apart) == strided
        assert len(fused.fusion.ends) == 4 - len(strided)
        equal(model, fused, 2, 3, 33, 47)


def test_timm_with_attention_is_left_apart(trained, equal):
    timm = pytest.importorskip('timm')
    net = timm.models.resnet.ResNet(
        timm.models.resnet.BasicBlock, (1, 1, 1, 1), block_args=dict(attn_layer='se')
    )
    model = trained(bnet_mm.enhance(net, k=3))
    fused = fuse(model)
    assert set(fused.fusion.apart.values()) == {'it has se'} and not fused.fusion.ends
    assert len(fused.fusion.taps) == 4 and not fused.fusion.left
    equal(model, fused, 1, 3, 32, 32)


@pytest.mark.parametrize('depth', [18, 50])
@pytest.mark.parametrize('library', ['mmdet', 'mmseg', 'mmpretrain', 'mmaction'])
def test_libraries(library, depth, trained, equal):
    norm = dict(type='BNET', k=3, positions='ABC' if depth == 18 else 'C')
    options = {} if library == 'mmaction' else dict(base_channels=16, stem_channels=16)
    model = built(library, depth=depth, norm_cfg=norm, out_indices=(0, 1, 2, 3), **options)
    model = trained(model)
    fused = fuse(model, shape=(32, 32))
    assert not fused.fusion.left and not fused.fusion.apart
    assert len(fused.fusion.folded) == (20 if depth == 18 else 53)
    assert len(fused.fusion.ends) == (8 if depth == 18 else 16)
    equal(model, fused, 1, 3, 32, 41)
    equal(model, fuse_conv_bn(deepcopy(fused)), 1, 3, 32, 41)
    equal(model, fuse(fuse_conv_bn(deepcopy(model))), 1, 3, 32, 41)


@pytest.mark.parametrize(
    'options',
    [
        dict(type='mmdet.ResNeXt', depth=50, groups=4, base_width=4, num_stages=2),
        dict(type='mmseg.ResNetV1c', depth=18, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)),
        dict(type='mmpretrain.ResNetV1d', depth=50),
        dict(type='mmaction.ResNetTSM', depth=50, num_segments=2, pretrained=None),
    ],
    ids=lambda options: options['type'],
)
def test_their_relatives(options, trained, equal):
    library = options['type'].split('.')[0]
    if 'num_stages' in options:
        options = dict(options, strides=(1, 2), dilations=(1, 1), out_indices=(0, 1))
    model = built(library, **options, norm_cfg=dict(type='BNET', k=5))
    if hasattr(model, 'make_temporal_shift'):
        model.make_temporal_shift()
    fused = fuse(trained(model), torch.randn(2, 3, 32, 33))
    assert not fused.fusion.left and not fused.fusion.apart
    assert len(fused.fusion.ends) == len(fused.fusion.taps) > 1
    equal(model, fused, 2, 3, 32, 41)


def test_plugins_drop_path_and_activations_are_left_apart(trained, equal):
    plugin = dict(cfg=dict(type='ContextBlock', ratio=0.25), position='after_conv3')
    small = dict(depth=50, base_channels=8, stem_channels=8, norm_cfg=dict(type='BNET', k=3))
    cases = [
        (built('mmdet', plugins=[plugin], **small), 'it has plugins'),
        (built('mmpretrain', drop_path_rate=0.5, **small), 'it has drop_path'),
    ]
    for model, reason in cases:
        fused = fuse(trained(model))
        assert reason in fused.fusion.apart.values() and not fused.fusion.left
        equal(model, fused, 1, 3, 32, 41)


def test_a_block_of_its_own_kind_is_left_apart(trained, equal):
    models = pytest.importorskip('torchvision').models

    class BasicBlock(models.resnet.BasicBlock):
        def forward(self, x):
            return super().forward(x) * 2

    model = models.ResNet(BasicBlock, [1, 1, 1, 1], num_classes=4)
    model.layer2[0].__class__ = models.resnet.BasicBlock
    model.layer3[0].__class__ = models.resnet.BasicBlock
    model.layer4[0].__class__ = models.resnet.BasicBlock
    model.layer3[0].relu = nn.LeakyReLU(0.1)
    model.layer4[0].register_forward_hook(lambda module, args, output: output + 1)
    model = trained(bnet_mm.enhance(model, k=3))
    fused = fuse(model)
    assert fused.fusion.ends == ['layer2.0']
    assert fused.fusion.apart == {
        'layer1.0': 'BasicBlock has a forward of its own',
        'layer3.0': 'it does not end in a ReLU',
        'layer4.0': 'it has hooks',
    }
    equal(model, fused, 1, 3, 32, 41)


def test_no_block_of_the_library_has_changed(trained):
    models = pytest.importorskip('torchvision').models
    before = models.resnet.BasicBlock.forward
    model = trained(bnet_mm.enhance(models.resnet18(num_classes=2), k=3))
    fused = fuse(model)
    assert models.resnet.BasicBlock.forward is before
    assert not any(isinstance(module, ResidualBlock) for module in model.modules())
    assert not any(isinstance(module, EnhancedNorm) for module in fused.modules())
    assert isinstance(fused.layer1[0], ResidualBlock)
    # Same names: what is known of a block's tensors stays true.
    assert {'layer1.0.conv2.bias', 'layer1.0.bn2.weight'} <= set(fused.state_dict())
