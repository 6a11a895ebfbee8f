"""The back end for GPUs, in Triton: NCHW and channels_last feature maps.

`unsupported` says what it takes; `addresses` is what the kernels share.
"""

from __future__ import annotations

import functools
import os
import shutil
import sysconfig
from pathlib import Path

import torch
from torch import Tensor

from bnet_mm.kernels.triton.backward_pass import backward, backward_input, backward_reduce
from bnet_mm.kernels.triton.forward_pass import _forward_kernel, forward, forward_training
from bnet_mm.kernels.triton.launch import is_interpreted, triton
from bnet_mm.kernels.triton.statistics_pass import statistics

__all__ = [
    'backward',
    'backward_input',
    'backward_reduce',
    'forward',
    'forward_training',
    'infer',
    'is_slower_than_torch',
    'name',
    'statistics',
    'unsupported',
]

name = 'Triton kernels'
# Each size is compiled by itself, with its loops over taps unrolled: another one needs nothing but
# its number here and in the tests, and a look at the registers that its k * k taps take.
KERNEL_SIZES = (1, 3, 5, 7)
DILATIONS = (1, 2)
TYPES = (torch.float32, torch.float16, torch.bfloat16)
# Jobs and pixels of a channel are counted in 32 bits; the rest is room to round up to blocks.
MOST_PIXELS = 2**29


def is_slower_than_torch(x: Tensor, k: int, dilation: int, normalized: bool) -> bool:
    """See `Backend.is_slower_than_torch`; no GPU has told yet."""
    return False


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
    mean, var = mean.float(), var.float()
    return forward(x, weight, bias, mean, (var + eps).rsqrt(), dilation, residual, relu)


def unsupported(x: Tensor, k: int, dilation: int) -> str | None:
    """See `Backend.unsupported`."""
    missing = _missing()
    if missing:
        return missing
    if not is_interpreted(_forward_kernel):
        if x.device.type != 'cuda':
            return f'the input is on {x.device.type}, not on a GPU'
        if torch.version.hip is None and torch.cuda.get_device_capability(x.device) < (8, 0):
            return 'Triton needs a GPU of compute capability 8.0 or later'
    if k not in KERNEL_SIZES:
        return f'there are kernels for k in {KERNEL_SIZES}, not for k = {k}'
    if dilation not in DILATIONS:
        return f'there are kernels for dilation in {DILATIONS}, not for dilation {dilation}'
    if x.dtype not in TYPES:
        return f'there are kernels for float32, float16 and bfloat16, not for {x.dtype}'
    if x.dim() != 4:
        return f'the input has {x.dim()} dimensions, not 4'
    if not (x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last)):
        return 'the input is contiguous neither as NCHW nor as channels_last'
    if x.shape[0] * x.shape[2] * x.shape[3] > MOST_PIXELS:
        return f'the input has more than {MOST_PIXELS} values per channel'
    return None


@functools.lru_cache(maxsize=None)
def _missing() -> str | None:
    """Returns what the kernels lack on this computer."""
    if triton is None:
        return 'Triton is not installed'
    if tuple(int(part) for part in triton.__version__.split('.')[:2]) < (3, 3):
        return f'Triton {triton.__version__} is older than 3.3'
    if is_interpreted(_forward_kernel):
        return None
    # Triton builds the part that launches a kernel with them.
    if not (os.environ.get('CC') or any(map(shutil.which, ('gcc', 'clang', 'cc', 'cl')))):
        return 'Triton needs a C compiler and found none'
    if not Path(sysconfig.get_path('include'), 'Python.h').is_file():
        return "Triton needs Python's header files (python3-dev) and found none"
    return None
