"""Folded models of torch's own modules: scripted, traced, quantized by what knows nothing of us."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from abilities import skip_without
from torch import nn
from torchvision import models

from bnet_mm import BNET, GNET, INET, enhance
from bnet_mm.deploy import fuse
from bnet_mm.errors import InputError

NETWORKS = {
    'torchvision': ('resnet18', 'mobilenet_v2', 'regnet_y_400mf', 'efficientnet_b0'),
    # Norms with activations, splits, gates, transitions, parallel branches.
    'timm': ('efficientnet_b0', 'res2net50_26w_4s', 'rexnet_100', 'densenet121', 'repvgg_a0'),
}


def ours(model: nn.Module) -> list[str]:
    return [n for n, m in model.named_modules() if type(m).__module__.startswith('bnet_mm')]


@pytest.mark.parametrize(
    ('library', 'name'), [(lib, name) for lib, names in NETWORKS.items() for name in names]
)
@torch.no_grad()
def test_networks_of_other_libraries(library, name, trained):
    torch.manual_seed(0)
    if library == 'timm':
        skip_without('timm')
        import timm

        network = timm.create_model(name, num_classes=5)
    else:
        network = getattr(models, name)(num_classes=5)
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', message='.* has no residual blocks')
        model = trained(enhance(network, k=3))
    plain = fuse(model, plain=True)
    assert ours(plain) == []
    x = torch.randn(2, 3, 64, 64)
    expected = model(x)
    got = plain(x)
    assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert torch.equal(torch.fx.symbolic_trace(plain)(x), got)
    if name in ('resnet18', 'efficientnet_b0'):
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', DeprecationWarning)
            torch.testing.assert_close(torch.jit.script(plain)(x), got)


@pytest.mark.parametrize('norm', [BNET(8, k=5, dilation=2), GNET(8, num_groups=2), INET(8)])
def test_what_follows_no_convolution_is_made_of_two_stock_modules(norm, trained):
    model = trained(nn.Sequential(nn.ReLU(), norm, nn.Conv2d(8, 4, 1)))
    nn.init.uniform_(norm.dw.weight)
    plain = fuse(model, torch.randn(2, 8, 9, 9), plain=True)
    assert ours(plain) == []
    assert [type(m) for m in plain[1]][1] is nn.Conv2d
    x = torch.randn(2, 8, 7, 9)
    torch.testing.assert_close(plain(x), model(x))


def test_what_has_no_stock_form_is_said(trained):
    model = trained(nn.Sequential(nn.Conv2d(3, 8, 3), BNET(8, k=3)))
    handle = model[1].register_forward_hook(lambda *args: None)
    left = fuse(model, plain=True).fusion.left
    assert left['1'].startswith('BNET has no form')
    handle.remove()
    folded = fuse(model)
    with pytest.raises(InputError, match=r'is folded already.*plain=True'):
        fuse(folded, plain=True)


def test_frozen_batch_norms_are_folded(trained):
    from torchvision.ops import FrozenBatchNorm2d

    network = models.resnet18(norm_layer=FrozenBatchNorm2d)
    for module in network.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.running_var.uniform_(0.5, 2)
            module.bias.uniform_(-0.5, 0.5)
    model = trained(enhance(network, k=3))
    for options in (dict(plain=True), {}):
        folded = fuse(model, **options)
        assert len(folded.fusion.folded) == 20 and folded.fusion.left == {}
        x = torch.randn(1, 3, 64, 64)
        torch.testing.assert_close(folded(x), model(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('before', [True, False])  # a norm that is folded, and one that is not
def test_torch_s_quantization_takes_norms_that_stay(before, trained):
    quantize = pytest.importorskip('torch.ao.quantization.quantize_fx')
    from torch.ao.quantization import get_default_qconfig_mapping

    layers = [nn.Conv2d(3, 8, 3), nn.ReLU(), BNET(8, k=3), nn.ReLU(), nn.Conv2d(8, 4, 1)]
    model = trained(nn.Sequential(*(layers[:1] + layers[2:] if before else layers)))
    images = torch.randn(8, 3, 32, 32)
    plain = fuse(model, images, plain=True)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        prepared = quantize.prepare_fx(plain, get_default_qconfig_mapping('x86'), (images,))
        prepared(images)
        quantized = quantize.convert_fx(prepared)
    expected, got = model(images), quantized(images)
    assert (got - expected).abs().mean() < 0.1 * expected.abs().mean()


def test_torch_s_quantization_takes_it(trained):
    quantize = pytest.importorskip('torch.ao.quantization.quantize_fx')
    from torch.ao.quantization import get_default_qconfig_mapping

    torch.manual_seed(0)
    model = trained(enhance(models.resnet18(num_classes=5), k=3))
    plain = fuse(model, plain=True)
    images = torch.randn(8, 3, 64, 64)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        prepared = quantize.prepare_fx(
            copy.deepcopy(plain), get_default_qconfig_mapping('x86'), (images,)
        )
        prepared(images)
        quantized = quantize.convert_fx(prepared)
    integer = [m for m in quantized.modules() if 'quantized' in type(m).__module__]
    assert len(integer) >= 28  # 20 convolutions and 8 kernels
    expected, got = model(images), quantized(images)
    assert (got - expected).abs().mean() < 0.1 * expected.abs().mean()
