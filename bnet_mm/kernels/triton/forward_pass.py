"""Normalization, kernel, and the end of a residual block, on a GPU."""

from __future__ import annotations

import torch
from torch import Tensor

from bnet_mm.kernels.triton.addresses import (
    block_and_channel,
    convolve,
    heights_of,
    is_inside,
    jobs_of,
    load_channels,
    load_taps,
    offset_of,
    steps_of,
)
from bnet_mm.kernels.triton.launch import Blocks, jit, launch_taps, like, tl
from bnet_mm.kernels.triton.statistics_pass import statistics

BLOCKS = Blocks(
    ('jobs', 'lanes', 'rows'),
    nchw=((128, 1, 8, 4), (128, 1, 16, 4), (256, 1, 8, 4), (64, 1, 8, 2)),
    channels_last=((4, 32, 8, 4), (4, 64, 8, 4), (4, 64, 4, 4), (8, 32, 8, 8)),
    small=((32, 1, 4), (16, 2, 4)),
)


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
    y = torch.empty_like(x)
    if x.numel() == 0:
        return y
    residual = None if residual is None else like(residual, x)
    operands = (x, bias, mean, invstd, residual, y)
    launch_taps(_forward_kernel, BLOCKS, operands, weight, dilation, relu=relu)
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
    mean, var = statistics(x)
    invstd = (var + eps).rsqrt()
    y = forward(x, weight, bias, mean, invstd, dilation, residual, relu)
    return y, mean, var, invstd


@jit('images', 'height', 'width', 'map_size')
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
    block, channel = block_and_channel(
        images, channels, height, width, dilation, channels_last, jobs, lanes, rows
    )
    image, row, column = jobs_of(block, images, height, width, dilation, jobs, rows)
    offset = offset_of(image, channel, row, column, channels, height, width, channels_last)
    down, right = steps_of(channels, width, dilation, channels_last)
    known = channel < channels
    heights = heights_of(column, image, images, height, width, k, dilation)
    taps = load_taps(weight, channel, known, per_channel, per_tap, k)
    scale = load_channels(invstd, channel, known, 1.0)
    sums = convolve(
        x,
        load_channels(mean, channel, known, 0.0),
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
    shift = load_channels(bias, channel, known, 0.0)
    for i in tl.static_range(rows):
        mask = is_inside(row + i * dilation, heights[k // 2], known, whole)
        result = sums[i] * scale + shift
        if residual is not None:
            result += tl.load(residual + offset + i * down, mask=mask, other=0).to(tl.float32)
        if relu:
            # Not tl.maximum, which makes a number of NaN.
            result = tl.where(result < 0, 0.0, result)
        tl.store(y + offset + i * down, result.to(y.dtype.element_ty), mask=mask)
