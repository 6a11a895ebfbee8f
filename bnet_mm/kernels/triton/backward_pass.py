"""The gradients, on a GPU: one pass for kernel and bias, one for the input.

Sums are taken per program into a buffer and then over the buffer, in a fixed order, so that equal
inputs give equal bits.
"""

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
    load_pixels,
    load_taps,
    offset_of,
    replaced,
    split_and_channel,
    steps_of,
)
from bnet_mm.kernels.triton.forward_pass import BLOCKS
from bnet_mm.kernels.triton.launch import (
    Blocks,
    bucket_of,
    is_channels_last,
    jit,
    launch,
    launch_taps,
    like,
    splits_of,
    taps_of,
    tl,
    triton,
)

REDUCE_BLOCKS = Blocks(
    ('jobs', 'lanes', 'rows'),
    nchw=((32, 1, 8, 1), (32, 1, 16, 1), (128, 1, 8, 4)),
    channels_last=((4, 32, 8, 4), (8, 32, 8, 8)),
    small=((32, 1, 4), (16, 2, 4)),
    capped=True,
)


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
    grad_weight, grad_bias, sum_dy = backward_reduce(grad_output, x, weight, mean, invstd, dilation)
    means: tuple[Tensor | None, Tensor | None] = (None, None)
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
    """See `Backend.backward_reduce`."""
    channels, k = weight.shape[0], weight.shape[-1]
    taps = k * k
    if x.numel() == 0:
        sums = x.new_zeros(channels * (taps + 2), dtype=torch.float32)
    else:
        last = is_channels_last(x)
        # One wave of programs of four warps, or two of many small ones: where lanes are jobs of
        # one channel each program ends with a sum across lanes per tap, cheapest in one warp.
        splits = splits_of(x, *((4, 32, 256) if last else (32, 1, 512)))
        partial = torch.empty(splits, channels * (taps + 2), dtype=torch.float32, device=x.device)
        images, _, height, width = x.shape
        launch(
            _backward_reduce_kernel,
            REDUCE_BLOCKS,
            lambda meta: (splits * triton.cdiv(channels, meta['lanes']),),
            like(grad_output, x),
            x,
            *taps_of(weight, last),
            mean,
            invstd,
            partial,
            images,
            channels,
            height,
            width,
            splits,
            bucket_of(height * width),
            k=k,
            dilation=dilation,
            channels_last=last,
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
    """See `Backend.backward_input`."""
    dx = torch.empty_like(x)
    if x.numel() == 0:
        return dx
    operands = (like(grad_output, x), x, mean, invstd, mean_dy, mean_dy_xmu, dx)
    launch_taps(_backward_input_kernel, BLOCKS, operands, weight, dilation)
    return dx


@jit('images', 'height', 'width', 'map_size')
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
    block, channel = block_and_channel(
        images, channels, height, width, dilation, channels_last, jobs, lanes, rows
    )
    image, row, column = jobs_of(block, images, height, width, dilation, jobs, rows)
    offset = offset_of(image, channel, row, column, channels, height, width, channels_last)
    down, right = steps_of(channels, width, dilation, channels_last)
    known = channel < channels
    heights = heights_of(column, image, images, height, width, k, dilation)
    taps = load_taps(weight, channel, known, per_channel, per_tap, k)
    sums = convolve(
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
    scale = load_channels(invstd, channel, known, 1.0)
    centre = load_channels(mean, channel, known, 0.0)
    shift = load_channels(mean_dy, channel, known, 0.0)
    slope = scale * load_channels(mean_dy_xmu, channel, known, 0.0)
    for i in tl.static_range(rows):
        mask = is_inside(row + i * dilation, heights[k // 2], known, whole)
        result = sums[i] - shift
        if mean_dy_xmu is not None:
            value = tl.load(x + offset + i * down, mask=mask, other=0).to(tl.float32)
            result -= (value - centre) * slope
        result *= scale
        tl.store(dx + offset + i * down, result.to(dx.dtype.element_ty), mask=mask)


@jit('images', 'height', 'width', 'splits', 'map_size')
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
    split, channel = split_and_channel(channels, splits, channels_last, lanes)
    known = channel < channels
    taps = load_taps(weight, channel, known, per_channel, per_tap, k)
    centre = load_channels(mean, channel, known, 0.0)
    down, right = steps_of(channels, width, dilation, channels_last)
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
        image, row, column = jobs_of(block, images, height, width, dilation, jobs, rows)
        offset = offset_of(image, channel, row, column, channels, height, width, channels_last)
        heights = heights_of(column, image, images, height, width, k, dilation)
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
            mask = is_inside(there, heights[k // 2], known, whole)
            at = x + offset + (j - k // 2) * down
            values = values + (load_pixels(at, mask, centre, mean is not None),)
            seen = seen + (tl.where(mask, 1.0, 0.0),)
            if j >= k - 1:
                # Not given a name: a name's value would be a tensor, and no index of a tuple.
                there = row + (j - k + 1) * dilation
                for dx in tl.static_range(k):
                    at = g + offset + (j - k + 1) * down - (dx - k // 2) * right
                    mask = is_inside(there, heights[k - 1 - dx], known, whole)
                    gradient = load_pixels(at, mask, 0.0, False)
                    for dy in tl.static_range(k):
                        total = products[dy * k + dx] + gradient * values[j - k + 1 + dy]
                        products = replaced(products, dy * k + dx, total)
                    if dx == k // 2:
                        weights = zeros
                        for dy in tl.static_range(k):
                            weights += seen[j - k + 1 + dy] * in_row[dy]
                        of_bias += gradient
                        of_normalized += gradient * weights
        block += 1

    scale = load_channels(invstd, channel, known, 1.0)
    scale = tl.reshape(scale, [lanes])
    channel = tl.reshape(channel, [lanes])
    known = channel < channels
    first = partial + tl.cast(split, tl.int64) * channels * (k * k + 2)
    for i in tl.static_range(k * k):
        tl.store(first + channel * (k * k) + i, tl.sum(products[i], 0) * scale, mask=known)
    first += channels * (k * k)
    tl.store(first + channel, tl.sum(of_bias, 0), mask=known)
    tl.store(first + channels + channel, tl.sum(of_normalized, 0), mask=known)
