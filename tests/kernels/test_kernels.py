"""Every module of kernels against the paper's two lines in float64, by torch's own autograd."""

import os
import shutil

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bnet_mm.kernels import cpu, eager

MODULES = [
    eager,
    pytest.param(
        cpu, marks=pytest.mark.skipif(cpu.library() is None, reason='no compiler built the kernels')
    ),
]
# Largest error, as a share of the largest number, by what the map is stored in.
TOLERANCE = {torch.float64: 1e-11, torch.float32: 2e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}
# Rows shorter and longer than a vector and than a block of channels; one pixel; smaller than k.
SHAPES = [(2, 5, 9, 11), (1, 40, 17, 70), (3, 33, 1, 2), (5, 3, 1, 1)]
FORMATS = [torch.contiguous_format, torch.channels_last]
EPS = 1e-5


def two_lines(x: Tensor, weight: Tensor, bias: Tensor, grad: Tensor, dilation: int, statistics):
    x, weight, bias = (t.detach().double().requires_grad_() for t in (x, weight, bias))
    mean, var = statistics if statistics is not None else (None, None)
    if statistics is None:
        normalized = F.batch_norm(x, None, None, training=True, eps=EPS)
    else:
        normalized = F.batch_norm(x, mean.double(), var.double(), eps=EPS)
    padding = dilation * (weight.shape[-1] // 2)
    y = F.conv2d(normalized, weight, bias, 1, padding, dilation, weight.shape[0])
    y.backward(grad.double())
    return y.detach(), x.grad, weight.grad, bias.grad


def close(ours: Tensor, theirs: Tensor, dtype: torch.dtype) -> None:
    scale = theirs.abs().max().clamp_min(1e-3)
    assert (ours.double() - theirs).abs().max() <= TOLERANCE[dtype] * scale


@pytest.fixture
def arguments(shape, dtype, k, memory_format):
    generator = torch.Generator().manual_seed(k)

    def normal(*size):
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    number = cpu.acc_dtype(torch.empty(0, dtype=dtype))
    x, grad = (t.to(dtype).contiguous(memory_format=memory_format) for t in normal(2, *shape))
    x = x + 3  # so that sums of squares without a mean would cancel
    return x, normal(shape[1], 1, k, k).to(number), normal(shape[1]).to(number), grad


@pytest.mark.parametrize('memory_format', FORMATS, ids=['contiguous', 'channels_last'])
@pytest.mark.parametrize('dtype', TOLERANCE, ids=str)
@pytest.mark.parametrize('shape', SHAPES, ids=str)
@pytest.mark.parametrize(
    ('k', 'dilation'), [(1, 1), (3, 1), (3, 2), (5, 1), (7, 1), (7, 2), (9, 1)]
)
@pytest.mark.parametrize('module', MODULES, ids=lambda m: m.__name__.rpartition('.')[2])
def test_forward_and_backward(module, arguments, dtype, dilation, memory_format):
    x, weight, bias, grad = arguments
    count = x.numel() // x.shape[1]
    y, mean, var, invstd = module.forward_training(x, weight, bias, EPS, dilation)
    gradients = module.backward(grad, x, weight, mean, invstd, dilation, False)
    expected = two_lines(x, weight, bias, grad, dilation, None)
    if shape_has_variance(x):
        for ours, theirs in zip((y, *gradients), expected, strict=True):
            close(ours, theirs, dtype)
    assert y.is_contiguous(memory_format=memory_format)
    assert gradients[0].is_contiguous(memory_format=memory_format)
    close(mean, x.double().mean((0, 2, 3)), dtype)
    close(var, x.double().var((0, 2, 3), correction=0), dtype)

    # The pieces that synchronized statistics are made of.
    for ours, theirs in zip(module.statistics(x), (mean, var), strict=True):
        close(ours, theirs.double(), dtype)
    close(module.forward(x, weight, bias, mean, invstd, dilation), y.double(), dtype)
    grad_weight, grad_bias, sum_dy = module.backward_reduce(grad, x, weight, mean, invstd, dilation)
    product = (weight * grad_weight).sum((1, 2, 3))
    pieces = module.backward_input(
        grad, x, weight, mean, invstd, sum_dy / count, product / count, dilation
    )
    for ours, theirs in zip((pieces, grad_weight, grad_bias), gradients, strict=True):
        close(ours, theirs.double(), dtype)

    # Statistics that are constants.
    mean, var = mean + 0.5, var + 1
    invstd = (var + EPS).rsqrt()
    y = module.forward(x, weight, bias, mean, invstd, dilation)
    gradients = module.backward(grad, x, weight, mean, invstd, dilation, True)
    alone = module.backward_input(grad, x, weight, mean, invstd, None, None, dilation)
    expected = two_lines(x, weight, bias, grad, dilation, (mean, var))
    for ours, theirs in zip((y, *gradients, alone), (*expected, expected[1]), strict=True):
        close(ours, theirs, dtype)


def shape_has_variance(x: Tensor) -> bool:
    """Where values of a channel hardly differ, one divides by eps, and rounding is all there is."""
    return x.double().var((0, 2, 3), correction=0).min() > 1e-2


@pytest.mark.parametrize('memory_format', FORMATS, ids=['contiguous', 'channels_last'])
@pytest.mark.parametrize('module', MODULES, ids=lambda m: m.__name__.rpartition('.')[2])
def test_end_of_a_block(module, memory_format):
    x, residual = torch.randn(2, 2, 20, 7, 18).unbind()
    x = x.contiguous(memory_format=memory_format)
    weight, bias = torch.randn(20, 1, 5, 5), torch.randn(20)
    y = module.forward(x, weight, bias, None, None, 1, residual, True)
    expected = (F.conv2d(x, weight, bias, 1, 2, 1, 20) + residual).relu()
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.skipif(cpu.library() is None, reason='no compiler built the kernels')
@pytest.mark.parametrize('memory_format', FORMATS, ids=['contiguous', 'channels_last'])
def test_the_number_of_threads_changes_nothing(memory_format):
    x, grad = (
        t.contiguous(memory_format=memory_format) for t in torch.randn(2, 2, 70, 37, 41).unbind()
    )
    weight, bias = torch.randn(70, 1, 5, 5), torch.randn(70)

    def run():
        y, mean, var, invstd = cpu.forward_training(x, weight, bias, EPS, 1)
        return y, mean, var, *cpu.backward(grad, x, weight, mean, invstd, 1, False)

    threads = torch.get_num_threads()
    first = run()
    try:
        for number in (1, 2, 3, 5):
            torch.set_num_threads(number)
            for a, b in zip(first, run(), strict=True):
                assert torch.equal(a, b)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.skipif(cpu.library() is None, reason='no compiler built the kernels')
@pytest.mark.parametrize('memory_format', FORMATS, ids=['contiguous', 'channels_last'])
def test_a_mean_far_from_zero_costs_no_precision(memory_format):
    x = (torch.randn(2, 8, 50, 60, dtype=torch.float64) + 1000).float()
    mean, var = cpu.statistics(x.contiguous(memory_format=memory_format))
    torch.testing.assert_close(mean.double(), x.double().mean((0, 2, 3)), rtol=1e-6, atol=0)
    exact = x.double().var((0, 2, 3), correction=0)
    torch.testing.assert_close(var.double(), exact, rtol=1e-5, atol=0)


def test_kernels_are_there_where_they_could_be_compiled():
    # They are optional to install, so that a mistake in them would only show as slowness.
    if shutil.which('c++') is None or os.environ.get('BNET_KERNELS') == '0':
        pytest.skip('there is no compiler, or no kernels were asked for')
    assert cpu.library() is not None
