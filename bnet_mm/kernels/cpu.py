"""The back end compiled for CPUs (csrc/), called through its C interface.

It is optional: without a compiler the package installs all the same, and the layer computes by
`bnet_mm.kernels.eager`. One library per instruction set is built, the best that runs is loaded.
Feature maps are contiguous or channels_last, and copied where they are neither.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from functools import lru_cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import torch
from torch import Tensor

from bnet_mm.kernels.eager import acc_dtype, dense
from bnet_mm.kernels.versions import cpu_capability

# As `cpu_capability` calls the instruction sets, best first; the last is for
# processors that are not x86.
LIBRARIES = {'AVX512': '_cpu_avx512', 'AVX2': '_cpu_avx2', 'DEFAULT': '_cpu'}
name = 'compiled CPU kernels'
TYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
_RELU, _VARIANCE = 1, 2
_REDUCE, _INPUT, _FROZEN = 1, 2, 4
# `Call` in csrc/kernels.cpp: sizes, pointers, flags, eps.
_TENSORS = 11
_CALL = struct.Struct(f'=9q{_TENSORS}Qqd')


@lru_cache(maxsize=None)
def library() -> ctypes.CDLL | None:
    """Returns the loaded library, or None where none was built that runs on this CPU."""
    names = list(LIBRARIES.values())
    names = names[names.index(LIBRARIES.get(cpu_capability(), '_cpu')) :]
    for name in names:
        for suffix in EXTENSION_SUFFIXES:
            path = Path(__file__).with_name(name + suffix)
            if path.exists():
                return _declared(ctypes.CDLL(str(path)))
    return None


def _declared(kernels: ctypes.CDLL) -> ctypes.CDLL:
    for function in ('statistics', 'forward', 'forward_training', 'backward'):
        getattr(kernels, f'bnet_{function}').argtypes = [ctypes.c_char_p]
    return kernels


@lru_cache(maxsize=None)
def _function(name: str) -> Callable[[bytes], int]:
    return getattr(library(), f'bnet_{name}')


def unsupported(x: Tensor, k: int, dilation: int) -> str | None:
    """See `Backend.unsupported`."""
    if library() is None:
        return 'the CPU kernels were not compiled when bnet_mm was installed'
    if x.dtype not in TYPES:
        return f'{x.dtype} is not one of the types of the CPU kernels'
    # The type's own name in C++ is missing before GCC 12; the library then says so by its result.
    if x.dtype == torch.float16 and not _has_float16():
        return 'the compiler of the CPU kernels had no float16'
    return None


@lru_cache(maxsize=None)
def _has_float16() -> bool:
    try:
        statistics(torch.zeros(1, 1, 1, 1, dtype=torch.float16))
    except RuntimeError:
        return False
    return True


def is_slower_than_torch(x: Tensor, k: int, dilation: int, normalized: bool) -> bool:
    """See `Backend.is_slower_than_torch`; found by timing on AVX-512 (docs/speed.md).

    oneDNN's depthwise convolution reads channels_last maps where they are, and the kernels a copy
    with its padding. That outweighs a pass over the map where the cache holds it. In half precision
    torch would round the map in between, which the kernels do not.
    """
    size, width = x.numel(), x.shape[3]
    if size < 150_000 or x.dtype != torch.float32 or k == 1 or dilation != 1:
        return False
    if normalized:
        return width < 8 or is_channels_last(x)
    return 1_500_000 <= size < 5_000_000 and x.shape[1] >= 1024 and is_channels_last(x)


def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """See `Backend.statistics`."""
    x = dense(x)
    mean, var = _per_channel(x, 2)
    _call('statistics', x, 1, 1, x, mean, var)
    return mean, var


def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor | None,
    invstd: Tensor | None,
    dilation: int,
    residual: Tensor | None = None,
    relu: bool = False,
) -> Tensor:
    """See `Backend.forward`."""
    x = dense(x)
    y = torch.empty_like(x)
    small = _accumulated(x, weight, bias, mean, invstd)
    _call('forward', x, weight.shape[-1], dilation, x, _like(residual, x), y, *small, flags=relu)
    return y


def infer(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    var: Tensor,
    eps: float,
    dilation: int,
    residual: Tensor | None = None,
    relu: bool = False,
) -> Tensor:
    """See `Backend.infer`."""
    x = dense(x)
    y = torch.empty_like(x)
    tensors = x, _like(residual, x), y, *_accumulated(x, weight, bias, mean, var)
    flags = _VARIANCE | _RELU if relu else _VARIANCE
    _call('forward', x, weight.shape[-1], dilation, *tensors, flags=flags, eps=eps)
    return y


def forward_training(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    dilation: int,
    residual: Tensor | None = None,
    relu: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See `Backend.forward_training`."""
    x = dense(x)
    y, (mean, var, invstd) = torch.empty_like(x), _per_channel(x, 3)
    tensors = x, _like(residual, x), y, *_accumulated(x, weight, bias), mean, var, invstd
    _call('forward_training', x, weight.shape[-1], dilation, *tensors, flags=relu, eps=eps)
    return y, mean, var, invstd


def backward(
    grad_output: Tensor,
    x: Tensor,
    weight: Tensor,
    mean: Tensor,
    invstd: Tensor,
    dilation: int,
    frozen: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """See `Backend.backward`."""
    x = dense(x)
    grad_x = torch.empty_like(x)
    passes = _REDUCE | _INPUT | (_FROZEN if frozen else 0)
    sums = _backward(grad_output, x, grad_x, weight, mean, invstd, dilation, passes)
    return grad_x, sums[0], sums[1]


def backward_reduce(
    grad_output: Tensor, x: Tensor, weight: Tensor, mean: Tensor, invstd: Tensor, dilation: int
) -> tuple[Tensor, Tensor, Tensor]:
    """See `Backend.backward_reduce`."""
    return _backward(grad_output, dense(x), None, weight, mean, invstd, dilation, _REDUCE)


def backward_input(
    grad_output: Tensor,
    x: Tensor,
    weight: Tensor,
    mean: Tensor,
    invstd: Tensor,
    mean_dy: Tensor | None,
    mean_dy_xmu: Tensor | None,
    dilation: int,
) -> Tensor:
    """See `Backend.backward_input`."""
    x = dense(x)
    grad_x = torch.empty_like(x)
    passes = _INPUT | (_FROZEN if mean_dy is None else 0)
    means = mean_dy, mean_dy_xmu
    _backward(grad_output, x, grad_x, weight, mean, invstd, dilation, passes, means)
    return grad_x


def _backward(
    grad_output: Tensor,
    x: Tensor,
    grad_x: Tensor | None,
    weight: Tensor,
    mean: Tensor,
    invstd: Tensor,
    dilation: int,
    passes: int,
    means: tuple[Tensor | None, Tensor | None] = (None, None),
) -> tuple[Tensor, Tensor, Tensor]:
    small = _accumulated(x, weight, mean, invstd, *means)
    grad_bias, sum_dy = _per_channel(x, 2)
    sums = grad_bias.new_empty(weight.shape), grad_bias, sum_dy
    tensors = _like(grad_output, x), x, grad_x, *small, *sums
    _call('backward', x, weight.shape[-1], dilation, *tensors, flags=passes)
    return sums


def is_channels_last(x: Tensor) -> bool:
    """Tells whether a dense map's channels lie side by side; so do a single pixel's."""
    return x.is_contiguous(memory_format=torch.channels_last) and (
        not x.is_contiguous() or x.shape[2] * x.shape[3] == 1
    )


def _like(other: Tensor | None, x: Tensor) -> Tensor | None:
    """Returns `other` in the memory format and type of the dense feature map `x`."""
    if other is None:
        return None
    memory_format = torch.channels_last if is_channels_last(x) else torch.contiguous_format
    return other.to(x.dtype).contiguous(memory_format=memory_format)


def _per_channel(x: Tensor, count: int) -> tuple[Tensor, ...]:
    return tuple(x.new_empty(x.shape[1], dtype=acc_dtype(x)) for _ in range(count))


def _accumulated(x: Tensor, *tensors: Tensor | None) -> list[Tensor | None]:
    """Returns small tensors in the accumulate type of `x`."""
    dtype = acc_dtype(x)
    return [
        t
        if t is None or (t.dtype == dtype and t.is_contiguous())
        else t.detach().to(dtype).contiguous()
        for t in tensors
    ]


def _call(
    name: str,
    x: Tensor,
    k: int,
    dilation: int,
    *tensors: Tensor | None,
    flags: int = 0,
    eps: float = 0.0,
) -> None:
    """Calls a function of the library with the sizes of x and tensors, in their order."""
    sizes = *x.shape, k, dilation, TYPES[x.dtype], is_channels_last(x), torch.get_num_threads()
    pointers = [0 if a is None else a.data_ptr() for a in tensors]
    pointers += [0] * (_TENSORS - len(pointers))
    # One packed argument: ctypes takes longer for twenty than a kernel for a small feature map.
    if _function(name)(_CALL.pack(*sizes, *pointers, flags, eps)):
        raise RuntimeError('BNET: the CPU kernels were called with a type that they do not have')
