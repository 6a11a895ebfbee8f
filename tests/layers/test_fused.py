"""The layer in one step and child by child: when, and that both compute the same."""

from __future__ import annotations

import copy
import os

import pytest
import torch
from abilities import needs_custom_operators, needs_torch_2
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bnet_mm.kernels import cpu
from bnet_mm.layers import BNET, DepthwiseTransform
from bnet_mm.layers.depthwise import depthwise_transform

# More for a thorough look: BNET_EXAMPLES=10000 pytest tests/layers/test_fused.py -k composed
EXAMPLES = int(os.environ.get('BNET_EXAMPLES', 100))


def layer(c=6, k=3, **kwargs) -> BNET:
    torch.manual_seed(0)
    bnet = BNET(c, k=k, **kwargs)
    with torch.no_grad():
        for tensor in (bnet.dw.weight, bnet.dw.bias, bnet.norm.running_mean):
            tensor.normal_()
        bnet.norm.running_var.uniform_(0.5, 2)
    return bnet


def results(bnet: BNET, x: torch.Tensor, grad: torch.Tensor) -> list[torch.Tensor]:
    x = x.detach().requires_grad_()
    y = bnet(x)
    y.backward(grad)
    gradients = [p.grad for p in bnet.parameters()]
    return [y.detach(), x.grad, *gradients, *(b.double() for b in bnet.buffers())]


@st.composite
def maps(draw) -> torch.Tensor:
    """Maps of one pixel and more, batches of none and more, dense and not."""
    n, c = draw(st.integers(0, 4)), draw(st.integers(1, 20) | st.sampled_from([48, 70]))
    h, w = draw(st.integers(1, 20)), draw(st.integers(1, 40))
    x = torch.randn(n, c, h * 2, w * 2, generator=torch.Generator().manual_seed(n + c + h + w))
    form = draw(st.sampled_from(['dense', 'channels_last', 'transposed', 'strided', 'expanded']))
    if form == 'strided':
        return x[:, :, ::2, 1::2]
    if form == 'transposed':
        return x[:, :, :h, :w].transpose(2, 3).contiguous().transpose(2, 3)
    if form == 'expanded':
        return x[:, :1, :h, :w].expand(n, c, h, w)
    x = x[:, :, :h, :w].contiguous()
    return x.contiguous(memory_format=torch.channels_last) if form == 'channels_last' else x


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    x=maps(),
    k=st.sampled_from([1, 3, 5, 7]),
    dilation=st.sampled_from([1, 1, 2, 3]),
    training=st.booleans(),
    tracked=st.booleans(),
    momentum=st.sampled_from([0.1, 1.0, None]),
)
def test_one_step_computes_what_the_composed_layer_does(
    x, k, dilation, training, tracked, momentum
):
    ours = layer(
        x.shape[1], k, dilation=dilation, track_running_stats=True, momentum=momentum
    ).train(training)
    if not tracked:
        ours = BNET(x.shape[1], k=k, dilation=dilation, track_running_stats=False).train(training)
    exact = copy.deepcopy(ours).double()
    exact.dw.register_forward_hook(lambda *_: None)
    grad = torch.randn(x.shape)
    assert exact.fallback_reason(x.double()) is not None
    try:
        expected = results(exact, x.double(), grad.double())
    except ValueError as error:
        with pytest.raises(ValueError, match='Expected more than 1 value per channel'):
            results(ours, x, grad)
        assert 'Expected more than 1 value per channel' in str(error)
        return
    values = results(ours, x, grad)
    assert values[0].dtype == values[1].dtype == torch.float32
    # Channels without variance divide by eps: what is left is rounding, times 300.
    if x.numel() and (not tracked or training):
        spread = x.double().var((0, 2, 3), correction=0).min()
        if spread < 1e-3:
            return
    for value, right in zip(values, expected):
        scale = float(right.abs().max()) if right.numel() else 0.0
        torch.testing.assert_close(value.double(), right, rtol=1e-3, atol=1e-4 * max(scale, 1))


def test_the_layer_says_how_it_computes():
    x = torch.randn(2, 6, 8, 8)
    ours = layer()
    assert ours.fallback_reason(x) is None
    fast = ours.computed_by(x)
    if cpu.library() is not None:
        assert fast == 'compiled CPU kernels'
    assert 'less than two values' in ours.fallback_reason(x[:1, :, :1, :1])
    assert 'float64' in ours.fallback_reason(x.double())
    with torch.autograd.forward_ad.dual_level():
        assert 'special' in ours.fallback_reason(x)
    handle = ours.norm.register_forward_hook(lambda *_: None)
    assert 'hooks' in ours.fallback_reason(x)
    assert ours.computed_by(x).startswith('norm, then depthwise convolution: there are hooks')
    handle.remove()
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    assert 'hooks' in ours.fallback_reason(x)
    handle.remove()
    assert ours.fallback_reason(x) is None
    ours.norm = nn.GroupNorm(2, 6, affine=False)
    assert 'GroupNorm' in ours.fallback_reason(x)


def test_hooks_on_the_children_see_their_maps():
    ours, x = layer(), torch.randn(2, 6, 8, 8)
    expected = copy.deepcopy(ours)(x)
    seen = []
    for child in (ours.norm, ours.dw):
        child.register_forward_hook(lambda module, args, output: seen.append(output))
    torch.testing.assert_close(ours(x), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(seen[1], expected, rtol=1e-4, atol=1e-5)
    assert len(seen) == 2


def test_operations_are_counted():
    flop_counter = pytest.importorskip('torch.utils.flop_counter')  # since torch 2.1
    with flop_counter.FlopCounterMode(display=False) as counter, torch.no_grad():
        layer()(torch.randn(2, 6, 8, 8))
    assert counter.get_total_flops() == 2 * 2 * 6 * 8 * 8 * 3 * 3


def test_a_scale_of_the_norms_own_is_used():
    ours, x = layer().eval(), torch.randn(2, 6, 8, 8)
    scaled = nn.BatchNorm2d(6).eval()
    nn.init.normal_(scaled.weight)
    ours.norm = scaled
    torch.testing.assert_close(ours(x), ours.dw(scaled(x)), rtol=1e-4, atol=1e-5)
    assert 'scale' in ours.fallback_reason(x)


def test_a_replaced_transform_is_used():
    class Doubled(DepthwiseTransform):
        def forward(self, input):
            return 2 * super().forward(input)

    ours, x = layer(), torch.randn(2, 6, 8, 8)
    expected = 2 * copy.deepcopy(ours)(x)
    doubled = Doubled(6, 3)
    doubled.load_state_dict(ours.dw.state_dict())
    ours.dw = doubled
    torch.testing.assert_close(ours(x), expected, rtol=1e-4, atol=1e-5)


@needs_torch_2
@pytest.mark.parametrize('mode', ['grad', 'vmap', 'jvp'])
def test_torch_func(mode):
    ours, x = layer().double().eval(), torch.randn(3, 2, 6, 5, 5, dtype=torch.float64)

    def f(x):
        return ours(x).square().sum()

    if mode == 'grad':
        leaf = x[0].clone().requires_grad_()
        f(leaf).backward()
        torch.testing.assert_close(torch.func.grad(f)(x[0]), leaf.grad)
    elif mode == 'vmap':
        each = torch.stack([f(part) for part in x])
        torch.testing.assert_close(torch.func.vmap(f)(x), each)
    else:
        _, slope = torch.func.jvp(f, (x[0],), (x[1],))
        torch.testing.assert_close(slope, (torch.func.grad(f)(x[0]) * x[1]).sum())


@pytest.mark.parametrize('training', [True, False])
def test_gradcheck(training):
    ours = layer(3, 5).double().train(training)
    x = torch.randn(2, 3, 4, 6, dtype=torch.float64, requires_grad=True)
    assert ours.fallback_reason(x) is None
    assert torch.autograd.gradcheck(ours, (x,))


def test_transform_for_inference_is_torchs_convolution():
    x, residual = torch.randn(2, 2, 8, 9, 7).unbind()
    transform = layer(8, 5).dw
    arguments = transform.weight, transform.bias, 1, residual, True
    slow = depthwise_transform(x, *arguments)
    assert slow.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(depthwise_transform(x, *arguments), slow, rtol=1e-5, atol=1e-4)
        # What the kernels were not made for is torch's to do, or to refuse.
        torch.testing.assert_close(
            depthwise_transform(x, transform.weight, transform.bias, 1, residual[:1, :, :1, :1]),
            transform(x) + residual[:1, :, :1, :1],
        )
        with pytest.raises(RuntimeError, match='channels'):
            depthwise_transform(x[:, :4], *arguments[:2])


@needs_custom_operators
@pytest.mark.parametrize('training', [True, False])
def test_compiled_code_holds_one_operator(training):
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    ours, x = layer().train(training), torch.randn(2, 6, 8, 8)
    expected = copy.deepcopy(ours)(x)
    torch.testing.assert_close(torch.compile(ours, backend=backend, fullgraph=True)(x), expected)
    # In training the passes are graphs of their own, inside of an autograd function's.
    code = ''.join(m.code for m in graphs[0].modules() if isinstance(m, torch.fx.GraphModule))
    assert f'bnet_mm.{"training" if training else "frozen"}' in code
    assert 'conv2d' not in code


@needs_custom_operators
def test_compiled_inference_is_left_to_the_compiler():
    """Norm and convolution one by one, which it fuses with what is around them."""
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    ours, x = layer().eval(), torch.randn(2, 6, 8, 8)
    with torch.no_grad():
        found = torch.compile(ours, backend=backend, fullgraph=True)(x)
        torch.testing.assert_close(found, ours(x))
    assert 'bnet_mm.' not in graphs[0].code and 'conv2d' in graphs[0].code


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.bfloat16])
def test_inference_stays_out_of_autograd(dtype):
    ours, x = layer().eval().to(dtype), torch.randn(2, 6, 8, 8, dtype=dtype)
    residual = torch.randn_like(x)
    recorded, joined = ours(x.clone().requires_grad_()), ours.end_of_block(x, residual)
    assert recorded.requires_grad and joined.requires_grad
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert torch.equal(ours(x), recorded) and not ours(x).requires_grad
            assert torch.equal(ours.end_of_block(x, residual), joined)
    ours.requires_grad_(False)
    assert ours(x).grad_fn is None and torch.equal(ours(x), recorded)
    assert ours.end_of_block(x, residual.requires_grad_()).requires_grad


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('value', [1e2, 100.1, -333.3, 1e4])
@pytest.mark.parametrize('spread', [0, 1e-3])
def test_channels_far_from_zero_are_as_exact_as_with_batch_norm(value, spread, memory_format):
    x = value + spread * torch.randn(4, 6, 33, 35, generator=torch.Generator().manual_seed(0))
    x = x.contiguous(memory_format=memory_format)
    exact = torch.nn.BatchNorm2d(6).double()(x.double())
    errors = [
        (norm(x) - exact).abs().max().item() for norm in (BNET(6, k=3), torch.nn.BatchNorm2d(6))
    ]
    assert errors[0] <= errors[1] + 1e-6


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('shape', [(16, 2048, 7, 7), (2, 64, 24, 24)])
@pytest.mark.parametrize('k', [3, 5, 7])
def test_inference_is_the_same_by_torch(shape, k, memory_format):
    """Which of the two computes goes by the size; what is said of it is what is done."""
    ours = layer(shape[1], k).eval()
    x = torch.randn(shape).contiguous(memory_format=memory_format)
    with torch.no_grad():
        expected = ours.dw(ours.norm(x))
        found = ours(x)
        told = 'faster in inference' in ours.computed_by(x)
        with torch.profiler.profile() as profile:
            ours(x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert found.is_contiguous(memory_format=memory_format)
    assert told == any('conv2d' in event.key for event in profile.key_averages())
