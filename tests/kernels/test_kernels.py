"""Every back end that is there against float64 (checks.py); and what is particular to the CPU's."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path

import checks
import pytest
import torch
from checks import BACKENDS, DTYPES, FORMATS, OFFSETS, SHAPES, SIZES, Case

from bnet_mm.kernels import cpu

MARKS = {
    'eager': (),
    'cpu': [pytest.mark.skipif(cpu.library() is None, reason='no compiler built the kernels')],
    'cuda': [
        pytest.mark.cuda,
        pytest.mark.skipif(not torch.cuda.is_available(), reason='torch finds no GPU'),
    ],
}
each_backend = pytest.mark.parametrize(
    'name', [pytest.param(name, marks=MARKS[name]) for name in BACKENDS]
)
each_format = pytest.mark.parametrize('memory_format', FORMATS)
if_compiled = pytest.mark.skipif(cpu.library() is None, reason='no compiler built the kernels')


@each_format
@pytest.mark.parametrize('dilation', [1, 2])
@pytest.mark.parametrize(
    ('name', 'dtype', 'k'),
    [
        pytest.param(name, dtype, k, marks=MARKS[name], id=f'{name}-{dtype}-{k}')
        for name in BACKENDS
        for dtype in DTYPES[name]
        for k in SIZES[name]
    ],
)
def test_passes(name, dtype, k, dilation, memory_format):
    with checks.memory_of_nan():
        for shape in (*SHAPES, *checks.OWN_SHAPES.get(name, ())):
            case = Case(shape, k, dilation, memory_format, dtype)
            found = list(checks.compare(*BACKENDS[name], case))
            assert len(found) > 20 and not checks.failures(found)


@each_backend
def test_a_mean_far_from_zero_costs_no_precision(name):
    for offset in OFFSETS[name]:
        assert not checks.failures(checks.far_means(*BACKENDS[name], offset))


@each_backend
def test_results_are_equal_to_the_bit(name):
    assert not checks.failures(checks.repeatability(*BACKENDS[name], DTYPES[name], times=2))


@pytest.mark.parametrize('spoilt', ['forward', 'backward_input', 'statistics'])
def test_an_error_is_found(monkeypatch, spoilt):
    right = getattr(checks.eager, spoilt)

    def wrong(*args):
        found = right(*args)
        return [t * 1.001 for t in found] if isinstance(found, tuple) else found * 1.001

    monkeypatch.setattr(checks.eager, spoilt, wrong)
    case = Case((2, 5, 9, 11), 3, 1, 'contiguous', torch.float32)
    assert checks.failures(checks.compare(checks.eager, 'cpu', case))


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_a_missing_gpu_is_said():
    command = [sys.executable, checks.__file__, '--device', 'cuda']
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2 and 'no GPU' in result.stderr


@if_compiled
@each_format
def test_the_number_of_threads_changes_nothing(memory_format):
    case = Case((2, 70, 37, 41), 5, 1, memory_format, torch.float32)
    x, grad, weight, bias = checks.draw(case)

    def run():
        y, mean, var, invstd = cpu.forward_training(x, weight, bias, checks.EPS, 1)
        return y, mean, var, *cpu.backward(grad, x, weight, mean, invstd, 1, False)

    threads = torch.get_num_threads()
    first = run()
    try:
        for number in (1, 2, 3, 5):
            torch.set_num_threads(number)
            for a, b in zip(first, run()):
                assert torch.equal(a, b)
    finally:
        torch.set_num_threads(threads)


@if_compiled
@each_format
@pytest.mark.parametrize('k', [3, 7])
@pytest.mark.parametrize('shape', [(1, 2, 371, 389), (16, 256, 3, 130)])
def test_large_maps_are_divided(shape, k, memory_format):
    """A plane into bands; the widest blocks of channels into strips."""
    for dilation in (1, 2):
        case = Case(shape, k, dilation, memory_format, torch.float32)
        assert not checks.failures(checks.compare(cpu, 'cpu', case))


@if_compiled
@pytest.mark.parametrize('name', cpu.LIBRARIES.values())
def test_the_library_of_each_instruction_set(name, monkeypatch):
    """Processors with more instructions run those with less."""
    found = [path for path in Path(cpu.__file__).parent.glob(f'{name}.*') if path.suffix == '.so']
    names, best = list(cpu.LIBRARIES.values()), Path(cpu.library()._name).name.partition('.')[0]
    if not found or names.index(name) < names.index(best):
        pytest.skip(f'{name} was not built, or does not run here')
    library = cpu._declared(ctypes.CDLL(str(found[0])))
    monkeypatch.setattr(cpu, '_function', lambda name: getattr(library, f'bnet_{name}'))
    for shape, memory_format in product(((2, 24, 9, 11), (2, 70, 6, 5)), FORMATS):
        for k, dtype in product((3, 5, 7), (torch.float32, torch.bfloat16)):
            case = Case(shape, k, 1, memory_format, dtype)
            assert not checks.failures(checks.compare(cpu, 'cpu', case))


@if_compiled
@each_format
@pytest.mark.parametrize('shape', [(3, 70, 37, 41), (2, 70, 6, 7), (1, 70, 5, 501), (9, 272, 4, 4)])
@pytest.mark.parametrize('k', [3, 7])
def test_what_is_not_finite_stays_in_its_channel(shape, k, memory_format):
    case = Case(shape, k, 1, memory_format, torch.float32)
    x, grad, weight, bias = checks.draw(case)

    def run(x):
        y, mean, var, invstd = cpu.forward_training(x, weight, bias, checks.EPS, 1)
        grad_x, *of_kernel = cpu.backward(grad, x, weight, mean, invstd, 1, False)
        maps = (t.transpose(0, 1) for t in (y, grad_x))
        return [t[[0, *range(2, shape[1])]] for t in (*maps, mean, var, *of_kernel)]

    spoilt = x.clone(memory_format=torch.preserve_format)
    spoilt[:, 1] = torch.inf
    for a, b in zip(run(x), run(spoilt)):
        assert torch.equal(a, b)


def test_kernels_are_there_where_they_could_be_compiled():
    # They are optional to install, so that a mistake in them would only show as slowness.
    if shutil.which('c++') is None or os.environ.get('BNET_KERNELS') == '0':
        pytest.skip('there is no compiler, or no kernels were asked for')
    assert cpu.library() is not None
