"""The Triton kernels, run in Triton's interpreter on a CPU, against float64 and autograd.

Triton reads TRITON_INTERPRET when it is imported, which other tests may have done, so that this
file runs itself in a process of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import checks
import pytest
import torch
from abilities import needs_new_triton
from checks import Case

from bnet_mm.kernels import triton as kernels
from bnet_mm.kernels.triton import backward_pass, forward_pass, launch, statistics_pass

pytest.importorskip('triton')

INTERPRETED = os.environ.get('TRITON_INTERPRET') == '1'
FORMATS = pytest.mark.parametrize('memory_format', checks.FORMATS)
COMPILED = {
    'statistics': (statistics_pass._statistics_kernel, statistics_pass.BLOCKS),
    'forward': (forward_pass._forward_kernel, forward_pass.BLOCKS),
    'backward_reduce': (backward_pass._backward_reduce_kernel, backward_pass.REDUCE_BLOCKS),
    'backward_input': (backward_pass._backward_input_kernel, forward_pass.BLOCKS),
}
OPTIONAL = 'mean', 'invstd', 'residual', 'mean_dy', 'mean_dy_xmu'
TENSORS = 'weight', 'bias', 'mean', 'invstd', 'mean_dy', 'mean_dy_xmu', 'partial'
KERNELS = pytest.mark.parametrize(
    ('k', 'dilation'), [(1, 1), (3, 1), (5, 1), (7, 1), (3, 2), (7, 2)]
)


@needs_new_triton
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


@needs_new_triton
@pytest.mark.skipif(INTERPRETED, reason='the interpreter compiles nothing')
@FORMATS
@pytest.mark.parametrize('name', COMPILED)
@pytest.mark.parametrize('absent', [(), OPTIONAL], ids=['all', 'least'])
def test_compiles_for_a_gpu(absent, name, memory_format):
    """The interpreter runs Python that the compiler does not take. Needs no GPU."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    kernel, blocks = COMPILED[name]
    sizes = zip(blocks.names, blocks.small[memory_format == 'channels_last'])
    constants = dict(sizes, k=3, dilation=2, channels_last=memory_format == 'channels_last')
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


def compare(shape, k, dilation=1, memory_format='contiguous', dtype=torch.float32):
    """Asserts that all passes over such a feature map agree with float64."""
    with checks.memory_of_nan():
        found = list(checks.compare(kernels, 'cpu', Case(shape, k, dilation, memory_format, dtype)))
    assert len(found) > 20 and not checks.failures(found)


class TestInInterpreter:
    __test__ = INTERPRETED

    @FORMATS
    @KERNELS
    def test_passes(self, k, dilation, memory_format):
        compare((1, 3, 9, 5), k, dilation, memory_format)

    @FORMATS
    @pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
    def test_half_precision(self, dtype, memory_format, monkeypatch):
        # Where a GPU rounds to bfloat16 the interpreter cuts off.
        monkeypatch.setitem(checks.ROUNDING, torch.bfloat16, 8e-3)
        compare((1, 3, 9, 5), 5, 1, memory_format, dtype)

    @FORMATS
    @pytest.mark.parametrize('shape', [(2, 3, 1, 1), (3, 1, 4, 1), (3, 9, 2, 3), (1, 2, 40, 3)])
    def test_shapes(self, shape, memory_format):
        compare(shape, 3, 2, memory_format)

    @FORMATS
    def test_sums_over_several_programs(self, memory_format, monkeypatch):
        monkeypatch.setattr(statistics_pass, 'splits_of', lambda *_: 3)
        compare((3, 5, 9, 7), 3, 1, memory_format)

    @FORMATS
    def test_statistics_far_from_zero(self, memory_format, monkeypatch):
        monkeypatch.setattr(statistics_pass, 'splits_of', lambda *_: 3)
        x = torch.randn(4, 3, 8, 9) + torch.tensor([1e4, -1e3, 0.0])[:, None, None]
        x[0, :, :4] += 50  # the pixels that each program's pivot comes from are not typical
        x = x.contiguous(memory_format=checks.FORMATS[memory_format])
        mean, var = kernels.statistics(x)
        expected_mean, expected_var = checks.moments(x)
        torch.testing.assert_close(mean.double(), expected_mean, rtol=1e-6, atol=1e-5)
        torch.testing.assert_close(var.double(), expected_var, rtol=1e-5, atol=0)

    @FORMATS
    def test_relu_lets_nan_through(self, memory_format):
        x, _, weight, bias = checks.draw(Case((1, 2, 3, 3), 3, 1, memory_format, torch.float32))
        x[0, 1, 2, 2] = torch.nan
        y = kernels.forward(x, weight, bias, None, None, 1, relu=True)
        expected = checks.convolve(x, weight, bias, 1).relu()
        torch.testing.assert_close(y, expected, equal_nan=True)

    def test_gradient_in_another_format_and_weights_in_half(self):
        x, g, weight, bias = checks.draw(Case((2, 6, 5, 7), 3, 1, 'contiguous', torch.float32))
        weight, bias = weight.half(), bias.half()
        g = g.contiguous(memory_format=torch.channels_last)
        exact = checks.exact(x, g, weight, bias, 1, None)
        y, mean, _, invstd = kernels.forward_training(x, weight, bias, checks.EPS, 1, g)
        torch.testing.assert_close(y.double(), exact.y + g, rtol=0, atol=2e-5)
        found = kernels.backward(g, x, weight, mean, invstd, 1, False)
        for gradient, expected in zip(found, exact[1:4]):
            torch.testing.assert_close(gradient.double(), expected, rtol=0, atol=1e-4)

    @FORMATS
    @pytest.mark.parametrize('shape', [(0, 3, 4, 5), (2, 3, 0, 5)])
    def test_nothing_is_launched_for_empty_maps(self, shape, memory_format, monkeypatch):
        for module in (launch, statistics_pass, backward_pass):
            monkeypatch.setattr(module, 'launch', None)
        x = torch.ones(shape).to(memory_format=checks.FORMATS[memory_format])
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
        x = torch.ones(2, 3, 4, 5).to(memory_format=checks.FORMATS[memory_format])
        assert kernels.unsupported(x, 7, 2) is None
