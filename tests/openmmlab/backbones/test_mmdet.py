"""MMDetection's backbones: BNET where it is asked for, the library's own network where not."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn

import bnet_mm  # noqa: F401  (registers BNET)
from bnet_mm.errors import InputError
from bnet_mm.layers import BNET
from bnet_mm.layers.depthwise import dirac_kernel


@pytest.fixture(autouse=True)
def mmdet_scope():
    init_default_scope('mmdet')


def build(type='ResNet', depth=18, **kwargs):
    return MODELS.build(dict(type=f'mmdet.{type}', depth=depth, **kwargs))


def outputs(backbone, x):
    backbone.eval()  # mmdet's train() and eval() return None
    return backbone(x)


def enhanced_names(model) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, BNET)]


@pytest.mark.parametrize(
    ('arch', 'positions', 'norms'),
    [
        (dict(type='ResNet', depth=18), None, 8),
        (dict(type='ResNet', depth=50), None, 16),
        (dict(type='ResNet', depth=50), 'A', 16),
        (dict(type='ResNet', depth=50), 'ABC', 48),
        (dict(type='ResNet', depth=50), 'all', 53),
        (dict(type='ResNeXt', depth=50, groups=32, base_width=4), 'C', 16),
        (dict(type='ResNetV1d', depth=50), 'C', 16),
    ],
)
def test_one_line_places_bnet(arch, positions, norms):
    norm_cfg = dict(type='BNET', k=5, requires_grad=True)
    if positions:
        norm_cfg['positions'] = positions
    names = enhanced_names(build(norm_cfg=norm_cfg, **arch))
    assert len(names) == norms
    if positions in (None, 'C'):
        last = 'bn2' if arch['depth'] == 18 else 'bn3'
        assert all(name.endswith(last) for name in names)


@pytest.mark.parametrize(
    ('arch', 'k', 'positions', 'params', 'macs'),
    [
        (dict(type='ResNet', depth=50), 7, 'C', 26.282e6, 4.360e9),
        (dict(type='ResNet', depth=50), 3, 'ABC', 25.738e6, 4.168e9),
        (dict(type='ResNet', depth=101), 5, 'C', 45.329e6, 8.025e9),
        (dict(type='ResNeXt', depth=50, groups=32, base_width=4), 3, 'C', 25.150e6, 4.280e9),
        (dict(type='ResNet', depth=18), 3, 'C', 11.705e6, 1.821e9),
    ],
)
def test_costs_are_the_papers(arch, k, positions, params, macs):
    flop_counter = pytest.importorskip('torch.utils.flop_counter')  # since torch 2.1
    with torch.device('meta'):
        backbone = build(norm_cfg=dict(type='BNET', k=k, positions=positions), **arch)
        with flop_counter.FlopCounterMode(display=False) as counter:
            features = outputs(backbone, torch.empty(1, 3, 224, 224))[-1].shape[1]
    classifier = features * 1000
    counted = sum(p.numel() for p in backbone.parameters()) + classifier + 1000
    assert counted == pytest.approx(params, rel=1e-3)
    assert counter.get_total_flops() / 2 + classifier == pytest.approx(macs, rel=1e-3)


PRINT_MODEL = """
import hashlib, sys, torch
if {imported}:
    import bnet_mm
from mmengine.registry import MODELS, init_default_scope
init_default_scope('mmdet')
for arch in (dict(type='ResNet', depth=18), dict(type='ResNeXt', depth=50), dict(type='ResNetV1d', depth=50)):
    torch.manual_seed(0)
    model = MODELS.build(dict(norm_cfg=dict(type='BN', requires_grad=True), frozen_stages=1, **arch))
    model.init_weights()
    model.train()
    outputs = model(torch.randn(2, 3, 64, 64))
    for name, value in (*model.state_dict().items(), *enumerate(outputs)):
        print('#', name, hashlib.sha256(value.detach().numpy().tobytes()).hexdigest())
    print('#', [base.__module__ for base in type(model).__mro__ if base.__module__.startswith('mmdet')][0])
"""  # noqa: E501


def test_plain_batch_norm_models_are_bit_identical_with_and_without_the_package():
    def printed(imported):
        lines = subprocess.run(
            [sys.executable, '-c', PRINT_MODEL.format(imported=imported)],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.splitlines()
        return [line for line in lines if line.startswith('#')]  # without the dated log

    with_package = printed(True)
    assert len(with_package) > 500
    assert with_package == printed(False)


def test_a_bnet_network_has_the_same_weights_elsewhere_under_the_same_seed():
    torch.manual_seed(0)
    bn = build(norm_cfg=dict(type='BN'))
    bn.init_weights()
    torch.manual_seed(0)
    bnet = build(norm_cfg=dict(type='BNET', k=5))
    bnet.init_weights()
    x = torch.randn(1, 3, 64, 64)
    for a, b in zip(outputs(bnet, x), outputs(bn, x)):
        torch.testing.assert_close(a, b)


def test_batch_norm_checkpoint_loads_strictly_with_identical_outputs():
    bn = build(depth=50, base_channels=8, stem_channels=8)
    for module in bn.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    bnet = build(depth=50, base_channels=8, stem_channels=8, norm_cfg=dict(type='BNET', k=7))
    bnet.load_state_dict(bn.state_dict(), strict=True)
    x = torch.randn(1, 3, 64, 64)
    for a, b in zip(outputs(bnet, x), outputs(bn, x)):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_pretrained_file_of_a_torchvision_model(tmp_path):
    import torchvision

    source = torchvision.models.resnet18()
    torch.save(source.state_dict(), tmp_path / 'resnet18.pth')
    backbone = build(
        norm_cfg=dict(type='BNET', k=5),
        init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'resnet18.pth')),
    )
    backbone.init_weights()
    torch.testing.assert_close(backbone.layer1[0].conv1.weight, source.layer1[0].conv1.weight)
    torch.testing.assert_close(
        backbone.layer4[1].bn2.dw.weight, dirac_kernel(source.layer4[1].bn2.weight.detach(), 5)
    )


def test_zero_init_residual_and_kaiming_leave_the_right_kernels():
    backbone = build(depth=50, norm_cfg=dict(type='BNET', k=3, positions='ABC'))
    backbone.init_weights()
    for name in enhanced_names(backbone):
        bnet = backbone.get_submodule(name)
        scale = 0.0 if name.endswith('bn3') else 1.0
        expected = dirac_kernel(torch.full((bnet.num_features,), scale), 3)
        assert torch.equal(bnet.dw.weight, expected), name


def test_frozen_statistics_and_stages():
    backbone = build(norm_cfg=dict(type='BNET', k=3), frozen_stages=1, norm_eval=True)
    backbone.train()
    assert not backbone.layer2[0].bn2.norm.training
    assert backbone.layer2[0].bn2.dw.weight.requires_grad
    assert not backbone.layer1[0].bn2.dw.weight.requires_grad
    before = backbone.layer2[0].bn2.norm.running_mean.clone()
    backbone(torch.randn(2, 3, 64, 64))[-1].mean().backward()
    assert torch.equal(backbone.layer2[0].bn2.norm.running_mean, before)


def test_positions_of_other_backbones():
    for positions, count in ((None, 16), ('C', 16), ('AC', 32)):
        norm_cfg = dict(type='BNET', k=3, positions=positions)
        assert len(enhanced_names(build('Res2Net', depth=50, norm_cfg=norm_cfg))) == count
    with pytest.raises(InputError, match='SSDVGG takes no norm_cfg'):
        build('SSDVGG', depth=16, norm_cfg=dict(type='BNET', k=3, positions='C'))


def test_stock_config_and_one_line():
    cfg = Config.fromfile('configs/faster_rcnn_r50_bnet5_fpn_1x.py')
    cfg.model.backbone.init_cfg = None
    model = MODELS.build(cfg.model)
    assert len(enhanced_names(model)) == 16
    # Table 5 says 41.9 M: it leaves out the frozen stem and first stage.
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trained == pytest.approx(41.9e6, rel=2e-3)
    model.train()
    assert not any(m.training for m in model.backbone.modules() if isinstance(m, nn.BatchNorm2d))
