"""MMAction2's backbones: norms inside ConvModule, torchvision's weights, partially frozen norms."""

from __future__ import annotations

import copy

import pytest
import torch
import torchvision
from mmengine.registry import MODELS, init_default_scope
from torch import nn

import bnet_mm
from bnet_mm.errors import InputError
from bnet_mm.layers import BNET
from bnet_mm.layers.depthwise import dirac_kernel

# What `torchvision://resnet50` downloads.
IMAGENET = torchvision.models.ResNet50_Weights.IMAGENET1K_V1.url.rpartition('/')[2]


@pytest.fixture(autouse=True)
def mmaction_scope():
    init_default_scope('mmaction')


@pytest.fixture(scope='module')
def resnet50():
    """A torchvision ResNet-50 with statistics and scales as after a training."""
    torch.manual_seed(0)
    model = torchvision.models.resnet50()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


@pytest.fixture
def downloaded(resnet50, tmp_path, monkeypatch):
    """Puts the file where torch.hub keeps what it has downloaded."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    folder = tmp_path / 'hub/checkpoints'
    folder.mkdir(parents=True)
    torch.save(resnet50.state_dict(), folder / IMAGENET)


def build(type='ResNet', depth=50, norm='BNET', **kwargs):
    norm_cfg = kwargs.pop('norm_cfg', dict(type=norm, k=5) if norm == 'BNET' else dict(type=norm))
    return MODELS.build(dict(type=f'mmaction.{type}', depth=depth, norm_cfg=norm_cfg, **kwargs))


def enhanced_names(model) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, BNET)]


@pytest.mark.parametrize(
    ('depth', 'positions', 'norms'),
    [(18, 'C', 8), (50, 'C', 16), (50, 'A', 16), (101, 'ABC', 99), (50, 'all', 53)],
)
def test_one_line_places_bnet(depth, positions, norms):
    names = enhanced_names(build(depth=depth, norm_cfg=dict(type='BNET', positions=positions)))
    assert len(names) == norms
    if positions == 'C':
        assert all(name.endswith('conv2.bn' if depth == 18 else 'conv3.bn') for name in names)


def assert_same_stages(backbone, source):
    """Checks that the four stages of both networks compute the same, in float64."""
    backbone.eval()
    source, x = copy.deepcopy(source).double(), torch.randn(2, 3, 64, 64, dtype=torch.float64)
    outputs = backbone.double()(x)
    x = source.maxpool(source.relu(source.bn1(source.conv1(x))))
    for i, ours in enumerate(outputs, 1):
        x = source.get_submodule(f'layer{i}')(x)
        torch.testing.assert_close(ours, x)


@pytest.mark.parametrize('norm', ['BNET', 'SyncBNET', 'BN'])
def test_torchvision_weights_compute_torchvisions_function(norm, resnet50, downloaded):
    backbone = build(norm=norm, pretrained='torchvision://resnet50', out_indices=(0, 1, 2, 3))
    backbone.init_weights()
    assert_same_stages(backbone, resnet50)


def test_each_scale_becomes_a_centre_tap(resnet50, downloaded):
    backbone = build(pretrained='torchvision://resnet50')
    backbone.init_weights()
    source = resnet50.layer2[1].bn3
    bnet = backbone.layer2[1].conv3.bn
    torch.testing.assert_close(bnet.dw.weight, dirac_kernel(source.weight.detach(), 5))
    torch.testing.assert_close(bnet.norm.running_var, source.running_var)


def test_weights_of_a_bnet_network_come_back(resnet50, tmp_path):
    source = bnet_mm.enhance(torchvision.models.resnet50(), k=5).eval()
    for module in source.modules():
        if isinstance(module, BNET):
            nn.init.normal_(module.dw.weight, std=0.1)
    torch.save(source.state_dict(), tmp_path / 'bnet.pth')
    backbone = build(pretrained=str(tmp_path / 'bnet.pth'), out_indices=(0, 1, 2, 3))
    backbone.init_weights()
    assert_same_stages(backbone, source)


def test_kernels_of_another_size_are_named(tmp_path):
    source = bnet_mm.enhance(torchvision.models.resnet50(), k=3)
    torch.save(source.state_dict(), tmp_path / 'bnet.pth')
    backbone = build(pretrained=str(tmp_path / 'bnet.pth'))
    with pytest.raises(InputError, match=r'has 3x3 kernels, the model k=5 at layer1\.0'):
        backbone.init_weights()


@pytest.mark.parametrize('norm', ['BNET', 'BN'])
def test_partial_bn_freezes_every_norm_but_the_first(norm):
    backbone = build(depth=18, norm=norm, partial_bn=True)
    backbone.train()
    stem, last = backbone.conv1.bn, backbone.layer4[1].conv2.bn
    assert stem.training and stem.weight.requires_grad
    frozen = last.norm if norm == 'BNET' else last
    assert not frozen.training
    assert not any(p.requires_grad for p in last.parameters())
    assert not any(p.requires_grad for p in backbone.layer1[0].conv1.bn.parameters())
    before = frozen.running_mean.clone()
    backbone(torch.randn(2, 3, 32, 32)).mean().backward()
    assert torch.equal(frozen.running_mean, before)
    backbone.eval()


def test_norm_eval_freezes_statistics_and_trains_kernels():
    backbone = build(depth=18, norm_eval=True, frozen_stages=1)
    backbone.train()
    assert not backbone.layer2[0].conv2.bn.norm.training
    assert backbone.layer2[0].conv2.bn.dw.weight.requires_grad
    assert not backbone.layer1[0].conv2.bn.dw.weight.requires_grad


def test_temporal_shift_network_loads_and_runs(resnet50, downloaded):
    shifted = build('ResNetTSM', pretrained='torchvision://resnet50', num_segments=4)
    baseline = build('ResNetTSM', norm='BN', pretrained='torchvision://resnet50', num_segments=4)
    assert len(enhanced_names(shifted)) == 16
    x = torch.randn(4, 3, 64, 64, dtype=torch.float64)
    outputs = []
    for model in (shifted, baseline):
        model.init_weights()
        model.eval()
        outputs.append(model.double()(x))
    torch.testing.assert_close(*outputs)
