"""The layer's passes over a map as Triton kernels, for NCHW and channels_last maps on a GPU.

A map is cut into jobs: one column of one image, `rows` rows high. A lane of a program walks down
its job and loads, per row of the source, the k pixels that its taps see from left to right; each
of them serves k output rows from a register. That is k loads per output where a loop over taps
has k * k, and it depends neither on the width of the map nor on its memory format: a block of
lanes is (jobs, 1), on one channel, in an NCHW map and (jobs, channels) in a channels_last one.
With dilation d the rows of a job are d apart.

Sums are taken per program into a buffer and then over the buffer, in a fixed order, so that equal
inputs give equal bits. Which block sizes are fastest is measured at the first call with a kind of
map, with the device's timers: make that call before capturing a CUDA graph. Another process may
find other block sizes, and with them another order of summation, so that under
`torch.use_deterministic_algorithms(True)` block sizes are fixed instead.
"""

from __future__ import annotations

import functools
import math
import os
import shutil
import sysconfig
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
    import triton.testing
except ImportError:  # torch for a CPU or for macOS comes without it
    triton = None

name = 'Triton kernels'
# Jobs and pixels of a channel are counted in 32 bits; the rest is room to round up to blocks.
_MOST_PIXELS = 2**29


def _jit(*sizes: str) -> Callable:
    """`triton.jit` where there is a Triton; `sizes` vary from batch to batch of a training.

    A kernel is not compiled anew where one of them happens to be 1 or a multiple of 16.
    """
    return triton.jit(do_not_specialize=sizes) if triton else lambda function: function


def unsupported(x: Tensor, k: int, dilation: int) -> str | None:
    """Returns why `x` can't go through the kernels, as a clause, or None where it can.

    Args:
        x: the map, `(N, C, H, W)`.
        k: kernel size.
        dilation: distance between neighbouring taps.
    """
    missing = _missing()
    if missing:
        return missing
    if not _interpreted():
        if x.device.type != 'cuda':
            return f'the input is on {x.device.type}, not on a GPU'
        if torch.version.hip is None and torch.cuda.get_device_capability(x.device) < (8, 0):
            return 'Triton needs a GPU of compute capability 8.0 or later'
    if k not in (1, 3, 5, 7):
        return f'there are kernels for k = 1, 3, 5 and 7, not for k = {k}'
    if dilation not in (1, 2):
        return f'there are kernels for dilation 1 and 2, not for dilation {dilation}'
    if x.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f'there are kernels for float32, float16 and bfloat16, not for {_name(x.dtype)}'
    if x.dim() != 4:
        return f'the input has {x.dim()} dimensions, not 4'
    if not (x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last)):
        return 'the input is contiguous neither as NCHW nor as channels_last'
    if x.shape[0] * x.shape[2] * x.shape[3] > _MOST_PIXELS:
        return f'the input has more than {_MOST_PIXELS} values per channel'
    return None


def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Returns mean and biased variance of each channel over images and pixels; zeros if none.

    Within a program deviations are summed from the mean of its first pixels, and the programs'
    results are combined by the formula of Chan et al., so that a mean far from zero costs the
    variance nothing.

    Args:
        x: `(N, C, H, W)`, NCHW or channels_last.

    Returns:
        two tensors `(C,)`, float32.
    """
    images, channels, height, width = x.shape
    result = torch.empty(2, channels, dtype=torch.float32, device=x.device)
    if x.numel() == 0:
        result.zero_()
        return result[0], result[1]
    channels_last = _channels_last(x)
    pixels = height * width
    if channels_last:
        images, pixels = 1, images * pixels
    splits = _splits(x, 8, *((64, 128) if channels_last else (1, 1024)))
    partial = torch.empty(4, splits, channels, dtype=torch.float32, device=x.device)
    _launch(
        _statistics_kernel,
        lambda meta: (splits * triton.cdiv(channels, meta['lanes']),),
        x,
        partial,
        images,
        channels,
        pixels,
        splits,
        _bucket(pixels),
        channels_last=channels_last,
        alignment=1 if channels_last else math.gcd(pixels, 16),
    )
    with torch.cuda.device_of(x):
        _combine_kernel[(triton.cdiv(channels, 4),)](
            partial, result, channels, splits, most_splits=triton.next_power_of_2(splits), lanes=4
        )
    return result[0], result[1]


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
    """Returns `conv((x - mean) * invstd) + bias`, then `+ residual`, then its ReLU.

    Padding is zero on the normalized map.

    Args:
        x: `(N, C, H, W)`, NCHW or channels_last.
        weight: `(C, 1, k, k)`.
        bias: `(C,)`.
        mean, invstd: `(C,)`, float32; both None where `x` is normalized already.
        dilation: distance between neighbouring taps.
        residual: `(N, C, H, W)`.
        relu: whether to end with a ReLU.

    Returns:
        `(N, C, H, W)`, in the type and memory format of `x`.
    """
    y = torch.empty_like(x)
    if x.numel() == 0:
        return y
    residual = None if residual is None else _like(residual, x)
    operands = (x, bias, mean, invstd, residual, y)
    _launch_taps(_forward_kernel, operands, weight, dilation, relu=relu)
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
    """Returns the output with the batch's own statistics, and these: mean, biased var, invstd.

    Args:
        x: `(N, C, H, W)`.
        weight, bias: the kernel `(C, 1, k, k)` and its bias `(C,)`.
        eps: added to the variance.
        dilation: distance between neighbouring taps.
        residual: None, or what is added to the output.
        relu: whether to end with a ReLU.
    """
    mean, var = statistics(x)
    invstd = (var + eps).rsqrt()
    y = forward(x, weight, bias, mean, invstd, dilation, residual, relu)
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
    """Returns the gradients of the map, the kernel and the bias, the latter two in fp32.

    The two sums that the statistics' gradient needs come with the kernel's: the sum of the
    normalized map's gradient, and `<weight, grad_weight>` for that of its product with the map.
    """
    grad_weight, grad_bias, sum_dy = backward_reduce(grad_output, x, weight, mean, invstd, dilation)
    means = None, None
    if not frozen:
        count = x.numel() // x.shape[1]
        product = (weight.float() * grad_weight).sum((1, 2, 3))
        means = sum_dy / count, product / count
    grad_x = backward_input(grad_output, x, weight, mean, invstd, *means, dilation)
    return grad_x, grad_weight, grad_bias


def backward_reduce(
    grad_output: Tensor,
    x: Tensor,
    weight: Tensor,
    mean: Tensor | None,
    invstd: Tensor | None,
    dilation: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the gradients of kernel and bias, and the sum of the normalized map's gradient.

    The other sum that batch statistics need, of that gradient times the normalized map, is
    `(weight * grad_weight).sum((1, 2, 3))`.

    Args:
        g: gradient of the output, `(N, C, H, W)`.
        x: the input, `(N, C, H, W)`, NCHW or channels_last.
        weight: `(C, 1, k, k)`.
        mean, invstd: `(C,)`, float32; both None where `x` is normalized already.
        dilation: distance between neighbouring taps.

    Returns:
        `(C, 1, k, k)`, `(C,)` and `(C,)`, float32.
    """
    channels, k = weight.shape[0], weight.shape[-1]
    taps = k * k
    if x.numel() == 0:
        sums = x.new_zeros(channels * (taps + 2), dtype=torch.float32)
    else:
        channels_last = _channels_last(x)
        # One wave of programs of four warps, or two of many small ones: where lanes are jobs of
        # one channel each program ends with a sum across lanes per tap, cheapest in one warp.
        splits = _splits(x, *((4, 32, 256) if channels_last else (32, 1, 512)))
        partial = torch.empty(splits, channels * (taps + 2), dtype=torch.float32, device=x.device)
        images, _, height, width = x.shape
        _launch(
            _backward_reduce_kernel,
            lambda meta: (splits * triton.cdiv(channels, meta['lanes']),),
            _like(grad_output, x),
            x,
            *_taps_of(weight, channels_last),
            mean,
            invstd,
            partial,
            images,
            channels,
            height,
            width,
            splits,
            _bucket(height * width),
            k=k,
            dilation=dilation,
            channels_last=channels_last,
        )
        sums = partial.sum(0)
    grad_weight, grad_bias, sum_dy = sums.split([channels * taps, channels, channels])
    return grad_weight.view(channels, 1, k, k), grad_bias, sum_dy


def backward_input(
    grad_output: Tensor,
    x: Tensor,
    weight: Tensor,
    mean: Tensor | None,
    invstd: Tensor | None,
    mean_dy: Tensor | None,
    mean_dy_xmu: Tensor | None,
    dilation: int,
) -> Tensor:
    """See `Backend.backward_input`.

    Args:
        g: gradient of the output, `(N, C, H, W)`.
        x: the input, `(N, C, H, W)`, NCHW or channels_last.
        weight: `(C, 1, k, k)`.
        mean, invstd: `(C,)`, float32; both None where `x` is normalized already.
        mean_dy, mean_dy_xmu: `(C,)`, float32: means over the batch of the normalized map's gradient
            and of that times the normalized map. Both None for frozen statistics, and the values
            of `x` are not read.
        dilation: distance between neighbouring taps.

    Returns:
        `(N, C, H, W)`, in the type and memory format of `x`.
    """
    dx = torch.empty_like(x)
    if x.numel() == 0:
        return dx
    operands = (_like(grad_output, x), x, mean, invstd, mean_dy, mean_dy_xmu, dx)
    _launch_taps(_backward_input_kernel, operands, weight, dilation)
    return dx


@functools.cache
def _missing() -> str | None:
    """Returns what the kernels lack on this computer."""
    if triton is None:
        return 'Triton is not installed'
    if tuple(int(part) for part in triton.__version__.split('.')[:2]) < (3, 3):
        return f'Triton {triton.__version__} is older than 3.3'
    if _interpreted():
        return None
    # Triton builds the part that launches a kernel with them.
    if not (os.environ.get('CC') or any(map(shutil.which, ('gcc', 'clang', 'cc', 'cl')))):
        return 'Triton needs a C compiler and found none'
    if not Path(sysconfig.get_path('include'), 'Python.h').is_file():
        return "Triton needs Python's header files (python3-dev) and found none"
    return None


def _interpreted() -> bool:
    """Returns whether Triton runs kernels in Python, on a CPU."""
    return not isinstance(_forward_kernel, triton.JITFunction)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix('torch.')


def _channels_last(x: Tensor) -> bool:
    """Returns which kernels take `x`, where it is contiguous in both formats the faster ones."""
    if not x.is_contiguous():
        return True
    return x.shape[2] * x.shape[3] == 1


def _like(other: Tensor, x: Tensor) -> Tensor:
    """Returns `other` in the memory format of `x`."""
    memory_format = torch.contiguous_format if x.is_contiguous() else torch.channels_last
    return other.contiguous(memory_format=memory_format)


def _taps_of(weight: Tensor, channels_last: bool) -> tuple[Tensor, int, int]:
    """Returns the kernels, the distance of two channels and that of two taps in memory.

    Neighbouring lanes read neighbouring channels of a channels_last map, and so of the kernels.
    """
    channels, _, k, _ = weight.shape
    weight = weight.reshape(channels, k * k).contiguous()
    return (weight.t().contiguous(), 1, channels) if channels_last else (weight, k * k, 1)


def _bucket(pixels: int) -> int:
    """Returns the size of a map as far as block sizes are chosen by it: its power of 4."""
    return pixels.bit_length() // 2


@functools.cache
def _processors(device: torch.device) -> int:
    if device.type != 'cuda':
        return 1
    return torch.cuda.get_device_properties(device).multi_processor_count


def _splits(x: Tensor, per_processor: int, lanes: int, pixels: int) -> int:
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


def _launch_taps(kernel, operands: tuple, weight: Tensor, dilation: int, **constants: bool) -> None:
    x, k = operands[0], weight.shape[-1]
    images, channels, height, width = x.shape
    channels_last = _channels_last(x)

    def grid(meta: dict) -> tuple[int]:
        bands = triton.cdiv(height, meta['rows'] * dilation)
        blocks = triton.cdiv(images * bands * dilation * width, meta['jobs'])
        return (blocks * triton.cdiv(channels, meta['lanes']),)

    _launch(
        kernel,
        grid,
        *operands,
        *_taps_of(weight, channels_last),
        images,
        channels,
        height,
        width,
        _bucket(height * width),
        k=k,
        dilation=dilation,
        channels_last=channels_last,
        **constants,
    )


def _launch(kernel, grid: Callable, *args, channels_last: bool, **constants) -> None:
    constants['channels_last'] = channels_last
    with torch.cuda.device_of(args[0]):
        if _interpreted():
            sizes = _small(kernel, channels_last)
            _whole_groups(kernel)[grid](*args, **constants, **sizes)
        elif torch.are_deterministic_algorithms_enabled():
            sizes = _configs(kernel, channels_last)[0].all_kwargs()
            _whole_groups(kernel)[grid](*args, **constants, **sizes)
        else:
            _tuned(kernel, channels_last)[grid](*args, **constants)


@functools.cache
def _whole_groups(kernel):
    """Tells a kernel that has to know whether no group of its channels is incomplete."""
    if 'whole' not in kernel.arg_names:
        return kernel
    return triton.heuristics({'whole': lambda args: args['channels'] % args['lanes'] == 0})(kernel)


def _small(kernel, channels_last: bool) -> dict[str, int]:
    """Returns block sizes for the interpreter: small maps have several blocks of them."""
    lanes = 2 if channels_last else 1
    if kernel is _statistics_kernel:
        return dict(tile=16, lanes=lanes, unroll=2)
    return dict(jobs=16 if channels_last else 32, lanes=lanes, rows=4)


@functools.cache
def _tuned(kernel, channels_last: bool):
    return triton.autotune(
        _configs(kernel, channels_last),
        key=['map_size', 'channels', 'k', 'dilation'],
        do_bench=functools.partial(triton.testing.do_bench, warmup=5, rep=20),
    )(_whole_groups(kernel))


def _configs(kernel, channels_last: bool) -> list[triton.Config]:
    """Returns the block sizes to choose from; the first is the fixed choice."""
    if kernel is _statistics_kernel:
        names = 'tile', 'lanes', 'unroll'
        sizes = (
            [(64, 64, 1, 4), (32, 64, 2, 4), (32, 128, 1, 4), (64, 32, 2, 4)]
            if channels_last
            else [(1024, 1, 2, 4), (2048, 1, 2, 8), (512, 1, 4, 4), (256, 1, 2, 1)]
        )
    else:
        names = 'jobs', 'lanes', 'rows'
        if kernel is _backward_reduce_kernel:
            sizes = [(4, 32, 8, 4), (8, 32, 8, 8)] if channels_last else [(32, 1, 8, 1)]
            sizes += [] if channels_last else [(32, 1, 16, 1), (128, 1, 8, 4)]
        elif channels_last:
            sizes = [(4, 32, 8, 4), (4, 64, 8, 4), (4, 64, 4, 4), (8, 32, 8, 8)]
        else:
            sizes = [(128, 1, 8, 4), (128, 1, 16, 4), (256, 1, 8, 4), (64, 1, 8, 2)]
    configs = [
        triton.Config(dict(zip(names, values[:-1], strict=True)), num_warps=values[-1])
        for values in sizes
    ]
    if kernel is _backward_reduce_kernel and torch.version.hip is None:
        # Left alone, the compiler starts so many loads at once that few programs fit beside one
        # another; which of the two hides more of memory's latency is for the device to say.
        kwargs, warps = configs[0].kwargs, configs[0].num_warps
        configs.insert(1, triton.Config(kwargs, num_warps=warps, maxnreg=128))
    return configs


@_jit()
def _replace(values, index: tl.constexpr, value):
    """Returns the tuple with another value at an index."""
    return values[:index] + (value,) + values[index + 1 :]


@_jit()
def _per_channel(values, channel, inside, default: tl.constexpr):
    """Returns the values of a block's channels in float32, `default` for all where it is None."""
    result = tl.full(channel.shape, default, tl.float32)
    if values is not None:
        result = tl.load(values + channel, mask=inside, other=default).to(tl.float32)
    return result


@_jit()
def _all_taps(weight, channel, inside, per_channel, per_tap, k: tl.constexpr):
    """Returns the k * k taps of a block's channels, row by row."""
    taps = ()
    for i in tl.static_range(k * k):
        at = weight + channel * per_channel + i * per_tap
        taps = taps + (tl.load(at, mask=inside, other=0).to(tl.float32),)
    return taps


@_jit()
def _jobs_of(
    block, images, height, width, dilation: tl.constexpr, jobs: tl.constexpr, rows: tl.constexpr
):
    """Returns image, first row and column of a block's jobs, `(jobs, 1)` each.

    The last block has jobs beyond the last image.
    """
    job = block * jobs + tl.arange(0, jobs)[:, None]
    column = job % width
    rest = job // width
    phase = rest % dilation
    rest = rest // dilation
    bands = tl.cdiv(height, rows * dilation)
    row = (rest % bands) * (rows * dilation) + phase
    return rest // bands, row, column


@_jit()
def _offset(image, channel, row, column, channels, height, width, channels_last: tl.constexpr):
    """Returns where the pixels are, counted in values from the start of the map."""
    image = image.to(tl.int64)
    if channels_last:
        offset = ((image * height + row) * width + column) * channels + channel
    else:
        offset = ((image * channels + channel) * height + row) * width + column
    return offset


@_jit()
def _steps(channels, width, dilation: tl.constexpr, channels_last: tl.constexpr):
    """Returns the distance of two neighbouring taps in memory, down and to the right."""
    right = channels * dilation if channels_last else dilation
    return tl.cast(width, tl.int64) * right, right


@_jit()
def _heights(column, image, images, height, width, k: tl.constexpr, dilation: tl.constexpr):
    """Returns how high the map is in each of the k columns of taps: 0 where it has no such column.

    Whether a tap is inside the map is then one comparison, of the row as an unsigned number.
    """
    heights = ()
    for dx in tl.static_range(k):
        there = column + (dx - k // 2) * dilation
        inside = (there >= 0) & (there < width) & (image < images)
        heights = heights + (tl.where(inside, height, 0).to(tl.uint32),)
    return heights


@_jit()
def _inside(row, height, known, whole: tl.constexpr):
    """Returns the mask of a row of taps, without the channels' where there is no need for it."""
    mask = row.to(tl.uint32) < height
    return mask if whole else mask & known


@_jit()
def _load(source, mask, mean, centred: tl.constexpr):
    """Returns values in float32, less their mean if `centred`, and 0 outside the mask."""
    if centred:
        value = tl.load(source, mask=mask).to(tl.float32)
        value = tl.where(mask, value - mean, 0.0)
    else:
        value = tl.load(source, mask=mask, other=0).to(tl.float32)
    return value


@_jit()
def _convolve(
    source,
    mean,
    taps,
    offset,
    row,
    down,
    right,
    heights,
    known,
    whole: tl.constexpr,
    flipped: tl.constexpr,
    centred: tl.constexpr,
    k: tl.constexpr,
    dilation: tl.constexpr,
    rows: tl.constexpr,
):
    """Returns the sums of taps times `source - mean`, a block of lanes per row of the jobs.

    Nothing is stored before everything is loaded, so that the compiler may start loads early.

    Args:
        offset: of the jobs' first pixels.
        heights: of `_heights`.
        known, whole: which channels exist, and whether all do.
        flipped: whether the taps are those of the transposed convolution.
        centred: whether there is a mean to subtract.
    """
    sums = ()
    for _ in tl.static_range(rows):
        sums = sums + (tl.zeros(offset.shape, tl.float32),)
    for j in tl.static_range(rows + k - 1):
        there = row + (j - k // 2) * dilation
        for dx in tl.static_range(k):
            at = source + offset + (j - k // 2) * down + (dx - k // 2) * right
            value = _load(at, _inside(there, heights[dx], known, whole), mean, centred)
            for dy in tl.static_range(k):
                if (j - dy >= 0) and (j - dy < rows):
                    tap = taps[k * k - 1 - dy * k - dx if flipped else dy * k + dx]
                    sums = _replace(sums, j - dy, sums[j - dy] + tap * value)
    return sums


@_jit('images', 'height', 'width', 'map_size')
def _forward_kernel(
    x,
    bias,
    mean,
    invstd,
    residual,
    y,
    weight,
    per_channel,
    per_tap,
    images,
    channels,
    height,
    width,
    map_size,
    k: tl.constexpr,
    dilation: tl.constexpr,
    channels_last: tl.constexpr,
    whole: tl.constexpr,
    relu: tl.constexpr,
    jobs: tl.constexpr,
    lanes: tl.constexpr,
    rows: tl.constexpr,
):
    block, channel = _block_and_channel(
        images, channels, height, width, dilation, channels_last, jobs, lanes, rows
    )
    image, row, column = _jobs_of(block, images, height, width, dilation, jobs, rows)
    offset = _offset(image, channel, row, column, channels, height, width, channels_last)
    down, right = _steps(channels, width, dilation, channels_last)
    known = channel < channels
    heights = _heights(column, image, images, height, width, k, dilation)
    taps = _all_taps(weight, channel, known, per_channel, per_tap, k)
    scale = _per_channel(invstd, channel, known, 1.0)
    sums = _convolve(
        x,
        _per_channel(mean, channel, known, 0.0),
        taps,
        offset,
        row,
        down,
        right,
        heights,
        known,
        whole,
        False,
        mean is not None,
        k,
        dilation,
        rows,
    )
    shift = _per_channel(bias, channel, known, 0.0)
    for i in tl.static_range(rows):
        mask = _inside(row + i * dilation, heights[k // 2], known, whole)
        result = sums[i] * scale + shift
        if residual is not None:
            result += tl.load(residual + offset + i * down, mask=mask, other=0).to(tl.float32)
        if relu:
            # Not tl.maximum, which makes a number of NaN.
            result = tl.where(result < 0, 0.0, result)
        tl.store(y + offset + i * down, result.to(y.dtype.element_ty), mask=mask)


@_jit('images', 'height', 'width', 'map_size')
def _backward_input_kernel(
    g,
    x,
    mean,
    invstd,
    mean_dy,
    mean_dy_xmu,
    dx,
    weight,
    per_channel,
    per_tap,
    images,
    channels,
    height,
    width,
    map_size,
    k: tl.constexpr,
    dilation: tl.constexpr,
    channels_last: tl.constexpr,
    whole: tl.constexpr,
    jobs: tl.constexpr,
    lanes: tl.constexpr,
    rows: tl.constexpr,
):
    block, channel = _block_and_channel(
        images, channels, height, width, dilation, channels_last, jobs, lanes, rows
    )
    image, row, column = _jobs_of(block, images, height, width, dilation, jobs, rows)
    offset = _offset(image, channel, row, column, channels, height, width, channels_last)
    down, right = _steps(channels, width, dilation, channels_last)
    known = channel < channels
    heights = _heights(column, image, images, height, width, k, dilation)
    taps = _all_taps(weight, channel, known, per_channel, per_tap, k)
    sums = _convolve(
        g,
        0.0,
        taps,
        offset,
        row,
        down,
        right,
        heights,
        known,
        whole,
        True,
        False,
        k,
        dilation,
        rows,
    )
    scale = _per_channel(invstd, channel, known, 1.0)
    centre = _per_channel(mean, channel, known, 0.0)
    shift = _per_channel(mean_dy, channel, known, 0.0)
    slope = scale * _per_channel(mean_dy_xmu, channel, known, 0.0)
    for i in tl.static_range(rows):
        mask = _inside(row + i * dilation, heights[k // 2], known, whole)
        result = sums[i] - shift
        if mean_dy_xmu is not None:
            value = tl.load(x + offset + i * down, mask=mask, other=0).to(tl.float32)
            result -= (value - centre) * slope
        result *= scale
        tl.store(dx + offset + i * down, result.to(dx.dtype.element_ty), mask=mask)


@_jit()
def _block_and_channel(
    images,
    channels,
    height,
    width,
    dilation: tl.constexpr,
    channels_last: tl.constexpr,
    jobs: tl.constexpr,
    lanes: tl.constexpr,
    rows: tl.constexpr,
):
    """Returns a program's block of jobs and its channels, `(1, lanes)`.

    Consecutive programs are neighbours in memory.
    """
    program = tl.program_id(0)
    if channels_last:
        groups = tl.cdiv(channels, lanes)
        block, group = program // groups, program % groups
    else:
        bands = tl.cdiv(height, rows * dilation)
        blocks = tl.cdiv(images * bands * dilation * width, jobs)
        block, group = program % blocks, program // blocks
    return block, group * lanes + tl.arange(0, lanes)[None, :]


@_jit('images', 'height', 'width', 'splits', 'map_size')
def _backward_reduce_kernel(
    g,
    x,
    weight,
    per_channel,
    per_tap,
    mean,
    invstd,
    partial,
    images,
    channels,
    height,
    width,
    splits,
    map_size,
    k: tl.constexpr,
    dilation: tl.constexpr,
    channels_last: tl.constexpr,
    whole: tl.constexpr,
    jobs: tl.constexpr,
    lanes: tl.constexpr,
    rows: tl.constexpr,
):
    split, channel = _split_and_channel(channels, splits, channels_last, lanes)
    known = channel < channels
    taps = _all_taps(weight, channel, known, per_channel, per_tap, k)
    centre = _per_channel(mean, channel, known, 0.0)
    down, right = _steps(channels, width, dilation, channels_last)
    zeros = tl.zeros([jobs, lanes], tl.float32)
    products = ()
    for _ in tl.static_range(k * k):
        products = products + (zeros,)
    of_bias = zeros
    of_normalized = zeros

    bands = tl.cdiv(height, rows * dilation)
    blocks = tl.cdiv(images * bands * dilation * width, jobs)
    share = tl.cdiv(blocks, splits)
    block = split * share
    end = tl.minimum(block + share, blocks)
    # The interpreter has no `range` with bounds that are known only at run time.
    while block < end:
        image, row, column = _jobs_of(block, images, height, width, dilation, jobs, rows)
        offset = _offset(image, channel, row, column, channels, height, width, channels_last)
        heights = _heights(column, image, images, height, width, k, dilation)
        # How the gradients of a row of pixels add up in the normalized map's, for each row of taps.
        in_row = ()
        for dy in tl.static_range(k):
            total = zeros
            for dx in tl.static_range(k):
                total += tl.where(heights[dx] > 0, taps[dy * k + dx], 0.0)
            in_row = in_row + (total,)
        values = ()
        seen = ()
        for j in tl.static_range(rows + k - 1):
            # Lanes stay on their column of x and look left and right in g: x has a mean to
            # subtract, and this way it is loaded once.
            there = row + (j - k // 2) * dilation
            mask = _inside(there, heights[k // 2], known, whole)
            at = x + offset + (j - k // 2) * down
            values = values + (_load(at, mask, centre, mean is not None),)
            seen = seen + (tl.where(mask, 1.0, 0.0),)
            if j >= k - 1:
                # Not given a name: a name's value would be a tensor, and no index of a tuple.
                there = row + (j - k + 1) * dilation
                for dx in tl.static_range(k):
                    at = g + offset + (j - k + 1) * down - (dx - k // 2) * right
                    mask = _inside(there, heights[k - 1 - dx], known, whole)
                    gradient = _load(at, mask, 0.0, False)
                    for dy in tl.static_range(k):
                        total = products[dy * k + dx] + gradient * values[j - k + 1 + dy]
                        products = _replace(products, dy * k + dx, total)
                    if dx == k // 2:
                        weights = zeros
                        for dy in tl.static_range(k):
                            weights += seen[j - k + 1 + dy] * in_row[dy]
                        of_bias += gradient
                        of_normalized += gradient * weights
        block += 1

    scale = _per_channel(invstd, channel, known, 1.0)
    scale = tl.reshape(scale, [lanes])
    channel = tl.reshape(channel, [lanes])
    known = channel < channels
    first = partial + tl.cast(split, tl.int64) * channels * (k * k + 2)
    for i in tl.static_range(k * k):
        tl.store(first + channel * (k * k) + i, tl.sum(products[i], 0) * scale, mask=known)
    first += channels * (k * k)
    tl.store(first + channel, tl.sum(of_bias, 0), mask=known)
    tl.store(first + channels + channel, tl.sum(of_normalized, 0), mask=known)


@_jit()
def _split_and_channel(channels, splits, channels_last: tl.constexpr, lanes: tl.constexpr):
    """Returns a program's place among those that share its channels, and these, `(1, lanes)`."""
    program = tl.program_id(0)
    if channels_last:
        groups = tl.cdiv(channels, lanes)
        split, group = program // groups, program % groups
    else:
        split, group = program % splits, program // splits
    return split, group * lanes + tl.arange(0, lanes)[None, :]


@_jit('images', 'pixels', 'splits', 'map_size')
def _statistics_kernel(
    x,
    partial,
    images,
    channels,
    pixels,
    splits,
    map_size,
    channels_last: tl.constexpr,
    alignment: tl.constexpr,
    tile: tl.constexpr,
    lanes: tl.constexpr,
    unroll: tl.constexpr,
):
    split, channel = _split_and_channel(channels, splits, channels_last, lanes)
    known = channel < channels
    # Shows the compiler that the images start where several values can be loaded at once.
    pixels = pixels // alignment * alignment
    tiles_per_image = tl.cdiv(pixels, tile)
    tiles = images * tiles_per_image
    share = tl.cdiv(tiles, splits)
    position = split * share
    end = tl.minimum(position + share, tiles)

    value, mask = _tile(
        x, position, end, tiles_per_image, channel, known, channels, pixels, channels_last, tile
    )
    count = tl.sum(mask.to(tl.float32), 0)
    pivot = (tl.sum(value, 0) / tl.maximum(count, 1.0))[None, :]

    count = tl.zeros([tile, lanes], tl.float32)
    total = tl.zeros([tile, lanes], tl.float32)
    squares = tl.zeros([tile, lanes], tl.float32)
    while position < end:
        values = ()
        masks = ()
        for i in tl.static_range(unroll):
            value, mask = _tile(
                x,
                position + i,
                end,
                tiles_per_image,
                channel,
                known,
                channels,
                pixels,
                channels_last,
                tile,
            )
            values = values + (value,)
            masks = masks + (mask,)
        for i in tl.static_range(unroll):
            deviation = tl.where(masks[i], values[i] - pivot, 0.0)
            count += tl.where(masks[i], 1.0, 0.0)
            total += deviation
            squares += deviation * deviation
        position += unroll

    count = tl.sum(count, 0)
    deviation = tl.sum(total, 0) / tl.maximum(count, 1.0)
    squares = tl.maximum(tl.sum(squares, 0) - count * deviation * deviation, 0.0)
    channel = tl.reshape(channel, [lanes])
    known = channel < channels
    at = partial + split * channels + channel
    tl.store(at, count, mask=known)
    tl.store(at + splits * channels, tl.reshape(pivot, [lanes]), mask=known)
    tl.store(at + 2 * splits * channels, deviation, mask=known)
    tl.store(at + 3 * splits * channels, squares, mask=known)


@_jit()
def _tile(
    x,
    position,
    end,
    tiles_per_image,
    channel,
    known,
    channels,
    pixels,
    channels_last: tl.constexpr,
    tile: tl.constexpr,
):
    """Returns a tile's values, `(tile, lanes)`, and which of them exist."""
    image = (position // tiles_per_image).to(tl.int64)
    pixel = position % tiles_per_image * tile + tl.arange(0, tile)[:, None]
    mask = known & (pixel < pixels) & (position < end)
    if channels_last:
        at = pixel.to(tl.int64) * channels + channel
    else:
        at = (image * channels + channel) * pixels + pixel
    return tl.load(x + at, mask=mask, other=0).to(tl.float32), mask


@_jit('splits')
def _combine_kernel(
    partial, result, channels, splits, most_splits: tl.constexpr, lanes: tl.constexpr
):
    channel = tl.program_id(0) * lanes + tl.arange(0, lanes)
    known = channel < channels
    split = tl.arange(0, most_splits)[:, None]
    at = partial + split * channels + channel[None, :]
    mask = (split < splits) & known[None, :]
    count = tl.load(at, mask=mask, other=0)
    pivot = tl.load(at + splits * channels, mask=mask, other=0)
    deviation = tl.load(at + 2 * splits * channels, mask=mask, other=0)
    squares = tl.load(at + 3 * splits * channels, mask=mask, other=0)
    # Pivots differ exactly where the means, rounded as far from zero as they are, would not.
    first = tl.load(partial + splits * channels + channel, mask=known, other=0)
    deviation += pivot - first[None, :]
    total = tl.maximum(tl.sum(count, 0), 1.0)
    shift = tl.sum(count * deviation, 0) / total
    rest = deviation - shift[None, :]
    tl.store(result + channel, first + shift, mask=known)
    variance = tl.sum(squares + count * rest * rest, 0) / total
    tl.store(result + channels + channel, variance, mask=known)
