"""Where BNET goes in built networks, and what that costs."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from torch import nn

from bnet_mm import BNET, enhance
from bnet_mm.errors import InputError

# Parameters and multiply-accumulates at 224x224, computed from the architectures (convolutions and
# classifier; a k x k BNET adds k*k for each element of its output).
EXACT = {
    ('resnet50', None, None): (25.557e6, 4.089e9),
    ('resnet50', 3, 'C'): (25.678e6, 4.139e9),
    ('resnet50', 5, 'C'): (25.920e6, 4.227e9),
    ('resnet50', 7, 'C'): (26.282e6, 4.360e9),
    ('resnet50', 3, 'ABC'): (25.738e6, 4.168e9),
    ('resnet101', None, None): (44.549e6, 7.801e9),
    ('resnet101', 3, 'C'): (44.809e6, 7.882e9),
    ('resnet101', 5, 'C'): (45.329e6, 8.025e9),
    ('resnext50_32x4d', None, None): (25.029e6, 4.230e9),
    ('resnext50_32x4d', 3, 'C'): (25.150e6, 4.280e9),
    ('resnet18', None, None): (11.690e6, 1.814e9),
    ('resnet18', 3, 'C'): (11.705e6, 1.821e9),
    # BNET after the expansion: the paper's 330, 113 and 48 million.
    ('mobilenet_v2', 3, None): (3.562e6, 330.8e6),
    ('mobilenet_v2 0.5', 3, None): (1.997e6, 113.5e6),
    ('mobilenet_v2 0.25', 3, None): (1.534e6, 48.1e6),
}


@pytest.mark.parametrize(('arch', 'k', 'positions'), EXACT)
def test_parameters_and_macs_are_the_papers(arch, k, positions):
    flop_counter = pytest.importorskip('torch.utils.flop_counter')  # since torch 2.1
    with torch.device('meta'):
        name, _, width = arch.partition(' ')
        options = {'width_mult': float(width)} if width else {}
        model = torchvision.models.get_model(name, **options)
        if k is not None:
            enhance(model, k, positions)
        with flop_counter.FlopCounterMode(display=False) as counter:
            model.eval()(torch.empty(1, 3, 224, 224))
    params, macs = EXACT[arch, k, positions]
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(params, rel=1e-3)
    assert counter.get_total_flops() / 2 == pytest.approx(macs, rel=1e-3)


def build(library: str, arch: str) -> nn.Module:
    torch.manual_seed(0)
    if library == 'timm':
        return timm.create_model(arch)
    return torchvision.models.get_model(arch)


@pytest.mark.parametrize('library', ['timm', 'torchvision'])
@pytest.mark.parametrize(
    ('arch', 'positions', 'norms'),
    [
        ('resnet18', 'C', 8),
        ('resnet18', 'ABC', 16),
        ('resnet18', 'all', 20),
        ('resnet50', 'A', 16),
        ('resnet50', 'B', 16),
        ('resnet50', 'CA', 32),
        ('resnet50', 'all', 53),
    ],
)
def test_places_in_torch_models_and_computes_the_same(library, arch, positions, norms):
    model = build(library, arch).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.running_mean, std=0.1)
    x = torch.randn(1, 3, 64, 64)
    expected = model(x)
    assert enhance(model, 3, positions) is model
    assert sum(isinstance(m, BNET) for m in model.modules()) == norms
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-4)


def test_position_c_is_the_last_norm_of_each_block_and_nothing_else():
    model = enhance(build('torchvision', 'resnet50'), 3)
    enhanced = [name for name, m in model.named_modules() if isinstance(m, BNET)]
    assert len(enhanced) == 16
    assert all(name.endswith('.bn3') for name in enhanced)


@pytest.mark.parametrize(
    ('positions', 'norms', 'last'),
    [
        (None, 16, 'features.17.conv.0.1'),
        ('A', 16, 'features.17.conv.0.1'),
        ('B', 17, 'features.17.conv.1.1'),
        ('C', 17, 'features.17.conv.3'),
        ('ABC', 50, 'features.17.conv.3'),
        ('all', 52, 'features.18.1'),
    ],
)
def test_inverted_residual_blocks(positions, norms, last):
    model = build('torchvision', 'mobilenet_v2').eval()
    x = torch.randn(1, 3, 64, 64)
    expected = model(x)
    enhance(model, 3, positions)
    enhanced = [name for name, m in model.named_modules() if isinstance(m, BNET)]
    assert (len(enhanced), enhanced[-1]) == (norms, last)
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-4)


def test_the_expansion_is_found_among_squeeze_and_excitation():
    model = enhance(build('torchvision', 'mobilenet_v3_large'), 3)
    enhanced = [name for name, m in model.named_modules() if isinstance(m, BNET)]
    assert len(enhanced) == 14 and all(name.endswith('.block.0.1') for name in enhanced)


def test_carries_over_what_the_norm_had():
    model = build('torchvision', 'resnet18').double()
    norm = model.layer1[0].bn2
    norm.eps, norm.momentum = 1e-3, 0.05
    norm.weight.requires_grad = norm.bias.requires_grad = False
    norm.eval()
    enhance(model, 5)
    bnet = model.layer1[0].bn2
    assert (bnet.norm.eps, bnet.norm.momentum, bnet.norm.training) == (1e-3, 0.05, False)
    assert bnet.dw.weight.dtype == torch.float64
    assert not bnet.dw.weight.requires_grad
    assert model.layer1[1].bn2.dw.weight.requires_grad


def test_keeps_synchronized_statistics():
    model = nn.SyncBatchNorm.convert_sync_batchnorm(build('torchvision', 'resnet18'))
    enhance(model, 3)
    assert isinstance(model.layer1[0].bn2.norm, nn.SyncBatchNorm)
    assert not model.layer1[0].bn2.norm.affine


@pytest.mark.parametrize(
    ('model', 'positions', 'sentence'),
    [
        ('vgg11_bn', 'C', 'it has no residual blocks.*leave positions out, and all its 8 norms'),
        ('vgg11', 'all', r'it has no norm over maps of \(N, C, H, W\)$'),
        ('vgg11', 'C', 'it has no norm over maps'),
        ('resnet18', 'B', '8 of its 8 .* have no norm there, layer1.0, a BasicBlock, for one'),
    ],
)
def test_names_what_it_could_not_place(model, positions, sentence):
    with pytest.raises(InputError, match=sentence):
        enhance(build('torchvision', model), 3, positions)


def test_a_norm_that_does_more_than_normalize_is_named_and_nothing_is_changed():
    model = build('torchvision', 'resnet18')
    model.layer4[1].bn2 = nn.LocalResponseNorm(8)
    with pytest.raises(InputError, match=r'layer4\.1\.bn2 is a LocalResponseNorm'):
        enhance(model, 3)
    assert not any(isinstance(m, BNET) for m in model.modules())


@pytest.mark.parametrize(
    ('conv', 'norm'), [(nn.Conv1d, nn.BatchNorm1d), (nn.Conv3d, nn.BatchNorm3d)]
)
def test_norms_of_other_than_images_are_refused(conv, norm):
    model = nn.Sequential(conv(3, 4, 1), norm(4))
    with pytest.raises(InputError, match=f'1 is a {norm.__name__}, not a BatchNorm2d'):
        enhance(model, 3, 'all')
    with pytest.raises(InputError, match=f'1 is a {norm.__name__}, not a BatchNorm2d'):
        enhance(model, 3)


def test_enhancing_twice_is_refused():
    model = enhance(build('torchvision', 'resnet18'), 3)
    with pytest.raises(InputError, match='is enhanced already'):
        enhance(model, 5)


@pytest.mark.parametrize('positions', ['c', 'D', '', 'AA', 'All', 3, ('A', 'B')])
def test_typos_in_positions_are_named(positions):
    with pytest.raises(InputError, match='positions must be'):
        enhance(build('torchvision', 'resnet18'), 3, positions)
