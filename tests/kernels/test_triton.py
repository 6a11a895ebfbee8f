"""The Triton kernels, run in Triton's interpreter on a CPU, against float64 and autograd.

Triton reads TRITON_INTERPRET when it is imported, which other tests may have done, so that this
file runs itself in a process of its own.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from bnet_mm.kernels import triton as kernels
from bnet_mm.kernels.triton import backward_pass, forward_pass, launch, statistics_pass

pytest.importorskip('triton')

INTERPRETED = os.environ.get('TRITON_INTERPRET') == '1'
CHANNELS_LAST, NCHW = torch.channels_last, torch.contiguous_format
FORMATS = pytest.mark.parametrize('memory_format', [NCHW, CHANNELS_LAST], ids=['nchw', 'nhwc'])
EPS = 1e-5
COMPILED = {
    'statistics': (statistics_pass._statistics_kernel, statistics_pass.BLOCKS),
    'forward': (forward_pass._forward_kernel, forward_pass.BLOCKS),
    'backward_reduce': (backward_pass._backward_reduce_kernel, backward_pass.REDUCE_BLOCKS),
    'backward_input': (backward_pass._backward_input_kernel, forward_pass.BLOCKS),
}
OPTIONAL = 'mean', 'invstd', 'residual', 'mean_dy', 'mean_dy_xmu'
TENSORS = 'weight', 'bias', 'mean', 'invstd', 'mean_dy', 'mean_dy_xmu', 'partial'
# Errors are relative to the largest value: one rounding of the result, or sums in float32. Where a
# GPU rounds to bfloat16 the interpreter cuts off.
ROUNDING = {torch.float32: 2e-6, torch.float16: 6e-4, torch.bfloat16: 8e-3}
KERNELS = pytest.mark.parametrize(
    ('k', 'dilation'), [(1, 1), (3, 1), (5, 1), (7, 1), (3, 2), (7, 2)]
)


@pytest.mark.skipif(INTERPRETED, reason='this is the process of its own')
def test_in_the_interpreter():
    command = [sys.executable, '-m', 'pytest', '-n', '0', '-p', 'no:cacheprovider', __file__]
    result = subprocess.run(
        command,
        env={**os.environ, 'TRITON_INTERPRET': '1'},
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-3000:]


@pytest.mark.skipif(INTERPRETED, reason='the interpreter runs on a CPU')
def test_without_a_gpu_the_reason_is_said():
    reason = kernels.unsupported(torch.ones(1, 1, 1, 1), 3, 1)
    assert reason is not None and reason[-1] != '.'


@pytest.mark.skipif(INTERPRETED, reason='the interpreter compiles nothing')
@pytest.mark.parametrize('memory_format', ['nchw', 'nhwc'])
@pytest.mark.parametrize('name', COMPILED)
@pytest.mark.parametrize('absent', [(), OPTIONAL], ids=['all', 'least'])
def test_compiles_for_a_gpu(absent, name, memory_format):
    """The interpreter runs Python that the compiler does not take. Needs no GPU."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    kernel, blocks = COMPILED[name]
    sizes = zip(blocks.names, blocks.small[memory_format == 'nhwc'], strict=True)
    constants = dict(sizes, k=3, dilation=2, channels_last=memory_format == 'nhwc')
    constants.update(whole=False, relu=not absent, alignment=4, **dict.fromkeys(absent))
    signature = {}
    for parameter in kernel.params:
        if parameter.name in constants:
            signature[parameter.name] = 'constexpr'
        elif parameter.name in ('x', 'y', 'g', 'dx', 'residual'):
            signature[parameter.name] = '*bf16'
        elif parameter.name in TENSORS:
            signature[parameter.name] = '*fp32'
        else:
            signature[parameter.name] = 'i32'
    constants = {name: constants[name] for name, kind in signature.items() if kind == 'constexpr'}
    source = ASTSource(kernel, signature, constants)
    assert compile(source, target=GPUTarget('cuda', 90, 32)).asm['cubin']


def case(shape, k, memory_format=NCHW, dtype=torch.float32):
    """Returns x, kernel, bias and an output gradient."""
    torch.manual_seed(0)
    n, c, h, w = shape
    x = torch.randn(n, c, h, w) * (1 + torch.rand(c, 1, 1)) + torch.randn(c, 1, 1)
    weight, bias = torch.randn(c, 1, k, k) / k, torch.randn(c)
    tensors = x, torch.randn(n, c, h, w)
    x, g = (t.to(dtype).to(memory_format=memory_format) for t in tensors)
    return x, weight, bias, g


def exact_statistics(x):
    x = x.double()
    return x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)


def convolve(x, weight, bias, dilation):
    padding = dilation * (weight.shape[-1] // 2)
    return F.conv2d(x, weight, bias, 1, padding, dilation, weight.shape[0])


def normalize(x, mean, invstd):
    return (x - mean[:, None, None]) * invstd[:, None, None]


def float_statistics(x):
    mean, var = exact_statistics(x)
    return mean.float(), (var + EPS).rsqrt().float()


def relative(actual, expected):
    assert actual.shape == expected.shape
    return ((actual.double() - expected).abs().max() / expected.abs().max()).item()


class TestInInterpreter:
    __test__ = INTERPRETED

    @FORMATS
    @pytest.mark.parametrize('dtype', ROUNDING)
    @pytest.mark.parametrize('shape', [(2, 6, 9, 11), (3, 5, 1, 1), (1, 3, 1, 40)])
    def test_statistics(self, shape, dtype, memory_format):
        x = case(shape, 1, memory_format, dtype)[0]
        mean, var = kernels.statistics(x)
        for actual, expected in zip((mean, var), exact_statistics(x), strict=True):
            assert actual.dtype == torch.float32
            assert (actual - expected).abs().max() < 1e-6 * (1 + expected.abs().max())

    @FORMATS
    def test_statistics_far_from_zero(self, memory_format, monkeypatch):
        monkeypatch.setattr(statistics_pass, 'splits_of', lambda *_: 3)
        x = torch.randn(4, 3, 8, 9) + torch.tensor([1e4, -1e3, 0.0])[:, None, None]
        x[0, :, :4] += 50  # the pixels that each program's pivot comes from are not typical
        x = x.to(memory_format=memory_format)
        mean, var = kernels.statistics(x)
        expected_mean, expected_var = exact_statistics(x)
        torch.testing.assert_close(mean.double(), expected_mean, rtol=1e-6, atol=1e-5)
        torch.testing.assert_close(var.double(), expected_var, rtol=1e-5, atol=0)

    @FORMATS
    @KERNELS
    def test_forward(self, k, dilation, memory_format):
        x, weight, bias, _ = case((1, 3, 9, 5), k, memory_format)
        mean, invstd = float_statistics(x)
        expected = convolve(
            normalize(x.double(), mean, invstd), weight.double(), bias.double(), dilation
        )
        y = kernels.forward(x, weight, bias, mean, invstd, dilation)
        assert y.stride() == x.stride()
        assert relative(y, expected) < ROUNDING[x.dtype]

    @FORMATS
    @pytest.mark.parametrize('relu', [False, True])
    def test_end_of_a_block(self, relu, memory_format):
        x, weight, bias, residual = case((2, 3, 5, 6), 3, memory_format)
        expected = convolve(x.double(), weight.double(), bias.double(), 1) + residual
        expected = expected.relu() if relu else expected
        y = kernels.forward(x, weight, bias, None, None, 1, residual, relu)
        assert relative(y, expected) < ROUNDING[x.dtype]

    @FORMATS
    def test_relu_lets_nan_through(self, memory_format):
        x, weight, bias, _ = case((1, 2, 3, 3), 3, memory_format)
        x[0, 1, 2, 2] = torch.nan
        y = kernels.forward(x, weight, bias, None, None, 1, relu=True)
        expected = convolve(x, weight, bias, 1).relu()
        torch.testing.assert_close(y, expected, equal_nan=True)

    @FORMATS
    @KERNELS
    def test_backward(self, k, dilation, memory_format):
        check_backward(*case((1, 3, 9, 5), k, memory_format), dilation, False)

    @FORMATS
    def test_backward_of_frozen_statistics(self, memory_format):
        check_backward(*case((2, 3, 5, 6), 3, memory_format), 1, True)

    @FORMATS
    @pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
    def test_half_precision(self, dtype, memory_format):
        x, weight, bias, g = case((1, 3, 9, 5), 5, memory_format, dtype)
        mean, invstd = float_statistics(x)
        y = kernels.forward(x, weight, bias, mean, invstd, 1)
        assert y.dtype == dtype
        expected = convolve(normalize(x.double(), mean, invstd), weight.double(), bias.double(), 1)
        assert relative(y, expected) < ROUNDING[dtype]
        check_backward(x, weight, bias, g, 1, False)

    @FORMATS
    @pytest.mark.parametrize('shape', [(2, 3, 1, 1), (1, 1, 4, 1), (3, 9, 2, 3), (1, 2, 40, 3)])
    def test_shapes(self, shape, memory_format):
        check_backward(*case(shape, 3, memory_format), 2, False)

    @FORMATS
    def test_sums_over_several_programs(self, memory_format, monkeypatch):
        expected = case((3, 5, 9, 7), 3, memory_format)
        monkeypatch.setattr(statistics_pass, 'splits_of', lambda *_: 3)
        check_backward(*expected, 1, False)

    def test_gradient_in_another_format_and_weights_in_half(self):
        x, weight, bias, g = case((2, 6, 5, 7), 3)
        weight, bias = weight.half(), bias.half()
        check_backward(x, weight, bias, g.to(memory_format=CHANNELS_LAST), 1, False)
        residual = g.to(memory_format=CHANNELS_LAST)
        y = kernels.forward(x, weight, bias, None, None, 1, residual)
        expected = convolve(x.double(), weight.double(), bias.double(), 1) + residual
        assert relative(y, expected) < ROUNDING[x.dtype]

    @FORMATS
    @pytest.mark.parametrize('shape', [(0, 3, 4, 5), (2, 3, 0, 5)])
    def test_nothing_is_launched_for_empty_maps(self, shape, memory_format, monkeypatch):
        for module in (launch, statistics_pass, backward_pass):
            monkeypatch.setattr(module, 'launch', None)
        x = torch.ones(shape).to(memory_format=memory_format)
        weight, one = torch.ones(3, 1, 3, 3), torch.ones(3)
        assert [t.tolist() for t in kernels.statistics(x)] == [[0] * 3] * 2
        assert kernels.forward(x, weight, one, one, one, 1).shape == shape
        assert kernels.backward_input(x, x, weight, one, one, one, one, 1).shape == shape
        sums = kernels.backward_reduce(x, x, weight, one, one, 1)
        assert [t.shape for t in sums] == [(3, 1, 3, 3), (3,), (3,)]
        assert not any(t.any() for t in sums)

    @pytest.mark.parametrize(
        ('x', 'k', 'dilation', 'reason'),
        [
            (torch.ones(1, 2, 3, 3), 9, 1, 'k = 9'),
            (torch.ones(1, 2, 3, 3), 3, 3, 'dilation 3'),
            (torch.ones(1, 2, 3, 3).double(), 3, 1, 'float64'),
            (torch.ones(2, 3, 3), 3, 1, '3 dimensions'),
            (torch.ones(1, 2, 6, 6)[:, :, ::2], 3, 1, 'contiguous'),
            (torch.ones(1).half().expand(1, 2, 3, 3), 3, 1, 'contiguous'),
            (torch.empty(1, 1, 2**15, 2**15, device='meta'), 3, 1, 'values per channel'),
        ],
    )
    def test_reasons(self, x, k, dilation, reason):
        assert reason in kernels.unsupported(x, k, dilation)

    @FORMATS
    def test_no_reason(self, memory_format):
        x = torch.ones(2, 3, 4, 5).to(memory_format=memory_format)
        assert kernels.unsupported(x, 7, 2) is None


def check_backward(x, weight, bias, g, dilation, frozen):
    """Compares both passes with autograd's gradients in float64."""
    mean, invstd = float_statistics(x)
    exact, kernel, shift = (t.double().requires_grad_() for t in (x, weight, bias))
    if frozen:
        normalized = normalize(exact, mean, invstd)
    else:
        normalized = F.batch_norm(exact, None, None, training=True, eps=EPS)
    normalized.retain_grad()
    convolve(normalized, kernel, shift, dilation).backward(g.double())
    of_normalized = normalized.grad.sum((0, 2, 3))

    grad_weight, grad_bias, sum_dy = kernels.backward_reduce(g, x, weight, mean, invstd, dilation)
    # Sums cancel: their scale is that of what is summed.
    scale = g.double().abs().sum((0, 2, 3)).max()
    for actual, expected in (
        (grad_weight, kernel.grad),
        (grad_bias, shift.grad),
        (sum_dy, of_normalized),
    ):
        assert actual.shape == expected.shape and actual.dtype == torch.float32
        assert (actual - expected).abs().max() < 2e-6 * scale

    mean_dy = mean_dy_xmu = None
    if not frozen:
        count = x.numel() // x.shape[1]
        mean_dy = sum_dy / count
        mean_dy_xmu = (weight * grad_weight).sum((1, 2, 3)) / count
    dx = kernels.backward_input(g, x, weight, mean, invstd, mean_dy, mean_dy_xmu, dilation)
    assert dx.dtype == x.dtype and dx.stride() == x.stride()
    scale = (invstd.max() * weight.abs().sum((1, 2, 3)).max() * g.abs().max()).double()
    assert (dx - exact.grad).abs().max() < ROUNDING[x.dtype] * scale
