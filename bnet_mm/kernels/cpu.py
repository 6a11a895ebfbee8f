"""The compiled kernels for CPUs (csrc/), called by way of their C interface.

They are optional: without a compiler the package installs all the same, and the layer computes by
`bnet_mm.kernels.eager`. One library per instruction set is built, the best that runs is loaded.
All functions take maps `(N, C, H, W)`, contiguous or channels_last, and return them so.
"""

import ctypes
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import torch
from torch import Tensor

# As torch.backends.cpu.get_cpu_capability() calls the instruction sets, best first; the last is for
# processors that are not x86.
LIBRARIES = {'AVX512': '_cpu_avx512', 'AVX2': '_cpu_avx2', 'DEFAULT': '_cpu'}
TYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
_REDUCE, _INPUT, _FROZEN = 1, 2, 4


@cache
def library() -> ctypes.CDLL | None:
    """Returns the loaded kernels, or None where none were built that run on this CPU."""
    names = list(LIBRARIES.values())
    names = names[names.index(LIBRARIES.get(torch.backends.cpu.get_cpu_capability(), '_cpu')) :]
    for name in names:
        for suffix in EXTENSION_SUFFIXES:
            path = Path(__file__).with_name(name + suffix)
            if path.exists():
                return _declared(ctypes.CDLL(str(path)))
    return None


def _declared(kernels: ctypes.CDLL) -> ctypes.CDLL:
    pointer, size, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    common = [size] * 4 + [number] * 5
    kernels.bnet_statistics.argtypes = common + [pointer] * 3
    kernels.bnet_forward.argtypes = common + [pointer] * 7 + [number]
    kernels.bnet_forward_training.argtypes = common + [pointer] * 8 + [number, ctypes.c_double]
    kernels.bnet_backward.argtypes = common + [pointer] * 11 + [number]
    return kernels


def unsupported(x: Tensor, k: int, dilation: int) -> str | None:
    """Returns why maps like `x` cannot go through these kernels, or None if they can."""
    if library() is None:
        return 'the CPU kernels were not compiled when bnet_mm was installed'
    if x.dtype not in TYPES:
        return f'{x.dtype} is not one of the types of the CPU kernels'
    # The type's own name in C++ is missing before GCC 12; the library then says so by its result.
    if x.dtype == torch.float16 and not _has_float16():
        return 'the compiler of the CPU kernels had no float16'
    return None


@cache
def _has_float16() -> bool:
    one = torch.zeros(1, 1, 1, 1, dtype=torch.float16)
    number = torch.empty(1)
    return library().bnet_statistics(*_sizes(one, 1, 1), *_pointers(one, number, number)) == 0


def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Returns mean and biased variance of each channel, `(C,)`, in `computing_type(x)`."""
    x = dense(x)
    mean, var = _per_channel(x, 2)
    _check(library().bnet_statistics(*_sizes(x, 1, 1), *_pointers(x, mean, var)))
    return mean, var


def apply(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor | None,
    rstd: Tensor | None,
    dilation: int,
    residual: Tensor | None = None,
    relu: bool = False,
) -> Tensor:
    """Returns `relu(dw((x - mean) * rstd) + bias + residual)`; see `kernels.eager.apply`."""
    x = dense(x)
    if residual is not None:
        residual = like(residual, x)
    y = torch.empty_like(x)
    small = _computed_in(computing_type(x), weight, bias, mean, rstd)
    _check(
        library().bnet_forward(
            *_sizes(x, weight.shape[-1], dilation), *_pointers(x, residual, y, *small), relu
        )
    )
    return y


def training(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    dilation: int,
    residual: Tensor | None = None,
    relu: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns the output with the batch's own statistics, and these: mean, biased var, rstd."""
    x = dense(x)
    if residual is not None:
        residual = like(residual, x)
    y, (mean, var, rstd) = torch.empty_like(x), _per_channel(x, 3)
    small = _computed_in(computing_type(x), weight, bias)
    pointers = _pointers(x, residual, y, *small, mean, var, rstd)
    sizes = _sizes(x, weight.shape[-1], dilation)
    _check(library().bnet_forward_training(*sizes, *pointers, relu, eps))
    return y, mean, var, rstd


def backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    mean: Tensor,
    rstd: Tensor,
    dilation: int,
    frozen: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the gradients of input, kernel and bias; the latter two in `computing_type(x)`."""
    x = dense(x)
    grad_x = torch.empty_like(x)
    sums = _backward(
        like(grad, x),
        x,
        grad_x,
        weight,
        mean,
        rstd,
        dilation,
        passes=_REDUCE | _INPUT | (_FROZEN if frozen else 0),
    )
    return grad_x, sums[0], sums[1]


def backward_reduce(
    grad: Tensor, x: Tensor, weight: Tensor, mean: Tensor, rstd: Tensor, dilation: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the gradients of kernel and bias and the sum of the normalized map's gradient."""
    x = dense(x)
    return _backward(like(grad, x), x, None, weight, mean, rstd, dilation, passes=_REDUCE)


def backward_input(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    mean: Tensor,
    rstd: Tensor,
    of_grad: Tensor | None,
    of_product: Tensor | None,
    dilation: int,
) -> Tensor:
    """Returns the input's gradient; see `bnet_mm.kernels.eager.backward_input`."""
    x = dense(x)
    grad_x = torch.empty_like(x)
    passes = _INPUT | (_FROZEN if of_grad is None else 0)
    means = _computed_in(computing_type(x), of_grad, of_product)
    _backward(like(grad, x), x, grad_x, weight, mean, rstd, dilation, passes, *means)
    return grad_x


def _backward(
    grad, x, grad_x, weight, mean, rstd, dilation, passes, of_grad=None, of_product=None
) -> tuple[Tensor, Tensor, Tensor]:
    dtype = computing_type(x)
    weight, mean, rstd = _computed_in(dtype, weight, mean, rstd)
    grad_weight = torch.empty_like(weight)
    grad_bias, sum_of_grad = _per_channel(x, 2)
    pointers = _pointers(
        grad,
        x,
        grad_x,
        weight,
        mean,
        rstd,
        of_grad,
        of_product,
        grad_weight,
        grad_bias,
        sum_of_grad,
    )
    _check(library().bnet_backward(*_sizes(x, weight.shape[-1], dilation), *pointers, passes))
    return grad_weight, grad_bias, sum_of_grad


def computing_type(x: Tensor) -> torch.dtype:
    """Returns what sums, statistics and kernels are computed in: float32, or float64 for such x."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def is_channels_last(x: Tensor) -> bool:
    """Tells whether a dense map's channels lie side by side; so do a single pixel's."""
    return x.is_contiguous(memory_format=torch.channels_last) and (
        not x.is_contiguous() or x.shape[2] * x.shape[3] == 1
    )


def dense(x: Tensor) -> Tensor:
    """Returns `x`, or a copy that is contiguous, or channels_last if its strides suggest that."""
    if x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last):
        return x
    in_order = x.stride(1) == 1 and x.shape[1] > 1
    return x.contiguous(memory_format=torch.channels_last if in_order else torch.contiguous_format)


def like(other: Tensor, x: Tensor) -> Tensor:
    """Returns `other` in the memory format and type of the dense map `x`."""
    channels_last = is_channels_last(x)
    return other.to(x.dtype).contiguous(
        memory_format=torch.channels_last if channels_last else torch.contiguous_format
    )


def _per_channel(x: Tensor, count: int) -> tuple[Tensor, ...]:
    return tuple(x.new_empty(x.shape[1], dtype=computing_type(x)) for _ in range(count))


def _computed_in(dtype: torch.dtype, *tensors: Tensor | None) -> list[Tensor | None]:
    return [t if t is None else t.detach().to(dtype).contiguous() for t in tensors]


def _sizes(x: Tensor, k: int, dilation: int) -> tuple[int, ...]:
    return *x.shape, k, dilation, TYPES[x.dtype], is_channels_last(x), torch.get_num_threads()


def _pointers(*tensors: Tensor | None) -> list[int | None]:
    return [None if t is None else t.data_ptr() for t in tensors]


def _check(status: int) -> None:
    if status:
        raise RuntimeError('BNET: the CPU kernels were called with a type that they do not have')
