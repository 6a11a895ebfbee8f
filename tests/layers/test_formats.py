"""Precisions, memory formats, and what compilers, exporters and copies make of the layer."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
import torch.fx.experimental.optimization
from abilities import needs_assignment, needs_custom_operators, needs_half_autocast, needs_torch_2
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from bnet_mm.layers import BNET

SIZES = pytest.mark.parametrize('k', [1, 3, 5, 7])


def trained(k=5, channels=6, **kwargs):
    torch.manual_seed(0)
    layer = BNET(channels, k=k, **kwargs)
    with torch.no_grad():
        layer.dw.weight.add_(0.2 * torch.randn_like(layer.dw.weight))
        layer.dw.bias.normal_()
        layer.norm.running_mean.normal_()
        layer.norm.running_var.uniform_(0.5, 2)
    return layer


@pytest.fixture
def x():
    return torch.randn(2, 6, 9, 11, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize(
    'dtype', [torch.bfloat16, pytest.param(torch.float16, marks=needs_half_autocast)]
)
@SIZES
def test_autocast_keeps_statistics_in_float32(training, dtype, k, x):
    layer = trained(k).train(training)
    exact = copy.deepcopy(layer)
    with torch.autocast('cpu', dtype=dtype):
        y = layer(x.to(dtype))
    assert y.dtype == dtype
    assert layer.norm.running_mean.dtype == torch.float32
    expected = exact(x.to(dtype).float())
    torch.testing.assert_close(layer.norm.running_var, exact.norm.running_var, rtol=1e-4, atol=1e-5)
    scale = 2e-2 if dtype == torch.bfloat16 else 3e-3
    assert (y.float() - expected).abs().max() < scale * expected.abs().max()


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@SIZES
def test_half_models_in_evaluation(dtype, k, x):
    layer = trained(k).eval()
    half = copy.deepcopy(layer).to(dtype)
    y = half(x.to(dtype))
    expected = layer(x)
    assert y.dtype == dtype
    assert (y.float() - expected).abs().max() < 2e-2 * expected.abs().max()


@pytest.mark.parametrize('training', [True, False])
@SIZES
def test_channels_last_goes_through(training, k, x):
    layer = trained(k).train(training)
    other = copy.deepcopy(layer).to(memory_format=torch.channels_last)
    a = x.clone().requires_grad_()
    b = x.clone().to(memory_format=torch.channels_last).requires_grad_()
    y, z = layer(a), other(b)
    assert z.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(z, y)
    y.square().sum().backward()
    z.square().sum().backward()
    torch.testing.assert_close(b.grad, a.grad, rtol=1e-4, atol=1e-4)
    expected = layer.dw.weight.grad  # sums of many terms, the largest of which tell the rounding
    rounding = 2e-6 * float(expected.abs().max())
    torch.testing.assert_close(other.dw.weight.grad, expected, rtol=1e-4, atol=rounding)


@pytest.mark.parametrize('stride', [(2, 3), (1, 2)])
@SIZES
def test_inputs_that_are_views(stride, k, x):
    layer = trained(k).eval()
    view = x[:, :, :: stride[0], :: stride[1]]
    assert not view.is_contiguous()
    torch.testing.assert_close(layer(view), layer(view.contiguous()))
    expanded = x[:1].expand(3, -1, -1, -1)
    torch.testing.assert_close(layer(expanded), layer(expanded.clone()))


@needs_torch_2
@pytest.mark.parametrize('training', [True, False])
@SIZES
def test_compiles_without_a_break(training, k, x):
    torch._dynamo.reset()  # it stops after a number of compilations of the same code
    layer = trained(k).train(training)
    compiled = torch.compile(copy.deepcopy(layer), fullgraph=True, backend='aot_eager')
    for size in ((9, 11), (5, 4)):
        part = x[:, :, : size[0], : size[1]]
        torch.testing.assert_close(compiled(part), layer(part))


@needs_custom_operators
@SIZES
def test_exports_with_free_sizes(k, x):
    layer = trained(k).eval()
    free = torch.export.Dim.DYNAMIC
    program = torch.export.export(layer, (x,), dynamic_shapes=({0: free, 2: free, 3: free},))
    for shape in ((3, 6, 20, 5), (1, 6, 2, 40)):
        other = torch.randn(shape)
        torch.testing.assert_close(program.module()(other), layer(other))


@SIZES
def test_traces(k, x):
    layer = trained(k).eval()
    with warnings.catch_warnings():
        warnings.simplefilter('error', torch.jit.TracerWarning)
        traced = torch.jit.trace(layer, x)
    other = torch.randn(1, 6, 4, 7)
    torch.testing.assert_close(traced(other), layer(other))


@SIZES
def test_symbolic_tracing_and_its_fusion_change_nothing(k):
    net = nn.Sequential(nn.Conv2d(3, 6, 3), trained(k), nn.ReLU()).eval()
    x = torch.randn(2, 3, 9, 9)
    traced = torch.fx.symbolic_trace(net)
    torch.testing.assert_close(traced(x), net(x))
    fused = torch.fx.experimental.optimization.fuse(net)
    torch.testing.assert_close(fused(x), net(x))
    conv, norm = copy.deepcopy(net[0]), net[1].norm
    statistics = norm.running_mean, norm.running_var, norm.eps
    # The inner norm shows the layer's centre taps as its weight, which are not applied in it.
    conv.weight, conv.bias = fuse_conv_bn_weights(conv.weight, conv.bias, *statistics, None, None)
    with_folded_statistics = nn.Sequential(conv, net[1].dw)
    torch.testing.assert_close(with_folded_statistics(x).relu(), net(x))


@needs_torch_2
@SIZES
def test_built_on_the_meta_device(k, x):
    with torch.device('meta'):
        empty = BNET(6, k=k)
    real = empty.to_empty(device='cpu')
    real.reset_parameters()
    torch.testing.assert_close(real(x), BNET(6, k=k)(x))


@needs_assignment
@SIZES
@pytest.mark.parametrize('norm', ['BNET', 'BN'])
def test_tensors_can_be_assigned(norm, k, x):
    source = trained(k) if norm == 'BNET' else nn.BatchNorm2d(6)
    with torch.device('meta'):
        empty = BNET(6, k=k)
    empty.load_state_dict(source.state_dict(), assign=True)
    torch.testing.assert_close(empty.eval()(x), source.eval()(x))


@needs_torch_2
@SIZES
def test_state_dict_keeps_variables_and_functional_calls_use_them(k, x):
    layer = trained(k).eval()
    state = layer.state_dict(keep_vars=True)
    assert state['dw.weight'] is layer.dw.weight
    doubled = {name: value * 2 if '.bias' in name else value for name, value in state.items()}
    y = torch.func.functional_call(layer, doubled, (x,))
    torch.testing.assert_close(y, layer(x) + layer.dw.bias.view(1, -1, 1, 1))


@pytest.mark.parametrize('training', [True, False])
@SIZES
def test_second_derivatives(training, k):
    layer = trained(k, channels=2).double().train(training)
    x = torch.randn(2, 2, 4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(layer, (x,))


@SIZES
def test_maps_without_pixels_pass_as_through_batch_norm(k):
    for shape in ((0, 6, 4, 4), (2, 6, 0, 4), (2, 6, 4, 0)):
        x = torch.randn(shape, requires_grad=True)
        layer = trained(k)
        mean = layer.norm.running_mean.clone()
        y = layer(x)
        assert y.shape == shape
        y.sum().backward()
        assert not layer.dw.weight.grad.any()
        assert torch.equal(layer.norm.running_mean, mean)
