"""How kernels are launched: block sizes, tuned or fixed, grids, and Triton's interpreter.

Which block sizes are fastest is measured at the first call with a kind of feature map, with the
device's timers: make that call before capturing a CUDA graph. Another process may find other block
sizes, and with them another order of summation, so that under
`torch.use_deterministic_algorithms(True)` the first of them are fixed instead.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
    import triton.testing
except ImportError:  # torch for a CPU or for macOS comes without it
    triton = tl = None


def jit(*sizes: str) -> Callable:
    """`triton.jit` where there is a Triton; `sizes` vary from batch to batch of a training.

    A kernel is not compiled anew where one of them happens to be 1 or a multiple of 16.
    """
    return triton.jit(do_not_specialize=sizes) if triton else lambda function: function


@dataclass(frozen=True)
class Blocks:
    """The block sizes of a kernel.

    Attributes:
        names: of its block sizes.
        nchw, channels_last: values of these and the number of warps, to choose from; the first is
            the fixed choice.
        small: values for NCHW and channels_last in the interpreter, in which small feature maps
            should have several blocks.
        capped: whether one more choice limits the registers of a thread. Left alone, the compiler
            starts so many loads at once that few programs fit beside one another; which of the two
            hides more of memory's latency is for the device to say.
    """

    names: tuple[str, ...]
    nchw: tuple[tuple[int, ...], ...]
    channels_last: tuple[tuple[int, ...], ...]
    small: tuple[tuple[int, ...], tuple[int, ...]]
    capped: bool = False

    def configs(self, channels_last: bool) -> list:
        """Returns the choices as Triton's tuner takes them."""
        configs = [
            triton.Config(dict(zip(self.names, values[:-1])), num_warps=values[-1])
            for values in (self.channels_last if channels_last else self.nchw)
        ]
        if self.capped and torch.version.hip is None:
            kwargs, warps = configs[0].kwargs, configs[0].num_warps
            configs.insert(1, triton.Config(kwargs, num_warps=warps, maxnreg=128))
        return configs


def launch(kernel, blocks: Blocks, grid: Callable, *args, channels_last: bool, **constants) -> None:
    """Runs a kernel on the device of its first argument, with block sizes chosen from `blocks`."""
    constants['channels_last'] = channels_last
    with torch.cuda.device_of(args[0]):
        if is_interpreted(kernel):
            sizes = dict(zip(blocks.names, blocks.small[channels_last]))
            _whole_groups(kernel)[grid](*args, **constants, **sizes)
        elif torch.are_deterministic_algorithms_enabled():
            sizes = blocks.configs(channels_last)[0].all_kwargs()
            _whole_groups(kernel)[grid](*args, **constants, **sizes)
        else:
            _tuned(kernel, blocks, channels_last)[grid](*args, **constants)


def launch_taps(
    kernel, blocks: Blocks, operands: tuple, weight: Tensor, dilation: int, **constants: bool
) -> None:
    """Runs a kernel whose jobs cover all of a feature map, the first operand."""
    x, k = operands[0], weight.shape[-1]
    images, channels, height, width = x.shape

    def grid(meta: dict) -> tuple[int]:
        bands = triton.cdiv(height, meta['rows'] * dilation)
        tiles = triton.cdiv(images * bands * dilation * width, meta['jobs'])
        return (tiles * triton.cdiv(channels, meta['lanes']),)

    launch(
        kernel,
        blocks,
        grid,
        *operands,
        *taps_of(weight, is_channels_last(x)),
        *(images, channels, height, width),
        bucket_of(height * width),
        k=k,
        dilation=dilation,
        channels_last=is_channels_last(x),
        **constants,
    )


def is_interpreted(kernel) -> bool:
    """Tells whether Triton runs kernels in Python, on a CPU."""
    return not isinstance(kernel, triton.JITFunction)


@functools.lru_cache(maxsize=None)
def _whole_groups(kernel):
    """Tells a kernel that has to know whether no group of its channels is incomplete."""
    if 'whole' not in kernel.arg_names:
        return kernel
    return triton.heuristics({'whole': lambda args: args['channels'] % args['lanes'] == 0})(kernel)


@functools.lru_cache(maxsize=None)
def _tuned(kernel, blocks: Blocks, channels_last: bool):
    return triton.autotune(
        blocks.configs(channels_last),
        key=['map_size', 'channels', 'k', 'dilation'],
        do_bench=functools.partial(triton.testing.do_bench, warmup=5, rep=20),
    )(_whole_groups(kernel))


def is_channels_last(x: Tensor) -> bool:
    """Returns which kernels take `x`, where it is contiguous in both formats the faster ones."""
    if not x.is_contiguous():
        return True
    return x.shape[2] * x.shape[3] == 1


def like(other: Tensor, x: Tensor) -> Tensor:
    """Returns `other` in the memory format of `x`."""
    memory_format = torch.contiguous_format if x.is_contiguous() else torch.channels_last
    return other.contiguous(memory_format=memory_format)


def taps_of(weight: Tensor, channels_last: bool) -> tuple[Tensor, int, int]:
    """Returns the kernels, the distance of two channels and that of two taps in memory.

    Neighbouring lanes read neighbouring channels of a channels_last map, and so of the kernels.
    """
    channels, _, k, _ = weight.shape
    weight = weight.reshape(channels, k * k).contiguous()
    return (weight.t().contiguous(), 1, channels) if channels_last else (weight, k * k, 1)


def bucket_of(pixels: int) -> int:
    """Returns the size of a map as far as block sizes are chosen by it: its power of 4."""
    return pixels.bit_length() // 2


@functools.lru_cache(maxsize=None)
def _processors(device: torch.device) -> int:
    if device.type != 'cuda':
        return 1
    return torch.cuda.get_device_properties(device).multi_processor_count


def splits_of(x: Tensor, per_processor: int, lanes: int, pixels: int) -> int:
    """Returns among how many programs to divide the sum of a channel.

    Args:
        x: `(N, C, H, W)`.
        per_processor: programs wanted per multiprocessor.
        lanes: channels of a program.
        pixels: fewest pixels worth a program.
    """
    most = x.shape[0] * x.shape[2] * x.shape[3] // pixels
    wanted = _processors(x.device) * per_processor // triton.cdiv(x.shape[1], lanes)
    return max(1, min(most, wanted, 1024))
