"""Mean and variance of each channel, on a GPU."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bnet_mm.kernels.triton.addresses import split_and_channel
from bnet_mm.kernels.triton.launch import (
    Blocks,
    bucket_of,
    is_channels_last,
    jit,
    launch,
    splits_of,
    tl,
    triton,
)

BLOCKS = Blocks(
    ('tile', 'lanes', 'unroll'),
    nchw=((1024, 1, 2, 4), (2048, 1, 2, 8), (512, 1, 4, 4), (256, 1, 2, 1)),
    channels_last=((64, 64, 1, 4), (32, 64, 2, 4), (32, 128, 1, 4), (64, 32, 2, 4)),
    small=((16, 1, 2), (16, 2, 2)),
)


def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """See `Backend.statistics`; zeros where there is nothing.

    Within a program deviations are summed from the mean of its first pixels, and the programs'
    results are combined by the formula of Chan et al., so that a mean far from zero costs the
    variance nothing.
    """
    images, channels, height, width = x.shape
    result = torch.empty(2, channels, dtype=torch.float32, device=x.device)
    if x.numel() == 0:
        result.zero_()
        return result[0], result[1]
    last = is_channels_last(x)
    pixels = height * width
    if last:
        images, pixels = 1, images * pixels
    splits = splits_of(x, 8, *((64, 128) if last else (1, 1024)))
    partial = torch.empty(4, splits, channels, dtype=torch.float32, device=x.device)
    launch(
        _statistics_kernel,
        BLOCKS,
        lambda meta: (splits * triton.cdiv(channels, meta['lanes']),),
        x,
        partial,
        images,
        channels,
        pixels,
        splits,
        bucket_of(pixels),
        channels_last=last,
        alignment=1 if last else math.gcd(pixels, 16),
    )
    with torch.cuda.device_of(x):
        _combine_kernel[(triton.cdiv(channels, 4),)](
            partial, result, channels, splits, most_splits=triton.next_power_of_2(splits), lanes=4
        )
    return result[0], result[1]


@jit('images', 'pixels', 'splits', 'map_size')
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
    split, channel = split_and_channel(channels, splits, channels_last, lanes)
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


@jit()
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


@jit('splits')
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
