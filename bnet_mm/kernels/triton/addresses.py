"""Addresses and masks of the pixels of a feature map, shared by all kernels.

A feature map is cut into jobs: one column of one image, `rows` rows high. A lane of a program walks
down its job and loads, per row of the source, the k pixels that its taps see from left to right;
each of them serves k output rows from a register. That is k loads per output where a loop over
taps has k * k, and it depends neither on the width of the feature map nor on its memory format: a
block of lanes is (jobs, 1), on one channel, in an NCHW feature map, and (jobs, channels) in a
channels_last one. With dilation d the rows of a job are d apart.
"""

from __future__ import annotations

from bnet_mm.kernels.triton.launch import jit, tl


@jit()
def replaced(values, index: tl.constexpr, value):
    """Returns the tuple with another value at an index."""
    return values[:index] + (value,) + values[index + 1 :]


@jit()
def load_channels(values, channel, inside, default: tl.constexpr):
    """Returns the values of a block's channels in float32, `default` for all where it is None."""
    result = tl.full(channel.shape, default, tl.float32)
    if values is not None:
        result = tl.load(values + channel, mask=inside, other=default).to(tl.float32)
    return result


@jit()
def load_taps(weight, channel, inside, per_channel, per_tap, k: tl.constexpr):
    """Returns the k * k taps of a block's channels, row by row."""
    taps = ()
    for i in tl.static_range(k * k):
        at = weight + channel * per_channel + i * per_tap
        taps = taps + (tl.load(at, mask=inside, other=0).to(tl.float32),)
    return taps


@jit()
def jobs_of(
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


@jit()
def offset_of(image, channel, row, column, channels, height, width, channels_last: tl.constexpr):
    """Returns where the pixels are, counted in values from the start of the map."""
    image = image.to(tl.int64)
    if channels_last:
        offset = ((image * height + row) * width + column) * channels + channel
    else:
        offset = ((image * channels + channel) * height + row) * width + column
    return offset


@jit()
def steps_of(channels, width, dilation: tl.constexpr, channels_last: tl.constexpr):
    """Returns the distance of two neighbouring taps in memory, down and to the right."""
    right = channels * dilation if channels_last else dilation
    return tl.cast(width, tl.int64) * right, right


@jit()
def heights_of(column, image, images, height, width, k: tl.constexpr, dilation: tl.constexpr):
    """Returns how high the map is in each of the k columns of taps: 0 where it has no such column.

    Whether a tap is inside the map is then one comparison, of the row as an unsigned number.
    """
    heights = ()
    for dx in tl.static_range(k):
        there = column + (dx - k // 2) * dilation
        inside = (there >= 0) & (there < width) & (image < images)
        heights = heights + (tl.where(inside, height, 0).to(tl.uint32),)
    return heights


@jit()
def is_inside(row, height, known, whole: tl.constexpr):
    """Returns the mask of a row of taps, without the channels' where there is no need for it."""
    mask = row.to(tl.uint32) < height
    return mask if whole else mask & known


@jit()
def load_pixels(source, mask, mean, centred: tl.constexpr):
    """Returns values in float32, less their mean if `centred`, and 0 outside the mask."""
    if centred:
        value = tl.load(source, mask=mask).to(tl.float32)
        value = tl.where(mask, value - mean, 0.0)
    else:
        value = tl.load(source, mask=mask, other=0).to(tl.float32)
    return value


@jit()
def convolve(
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
        heights: of `heights_of`.
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
            value = load_pixels(at, is_inside(there, heights[dx], known, whole), mean, centred)
            for dy in tl.static_range(k):
                if (j - dy >= 0) and (j - dy < rows):
                    tap = taps[k * k - 1 - dy * k - dx if flipped else dy * k + dx]
                    sums = replaced(sums, j - dy, sums[j - dy] + tap * value)
    return sums


@jit()
def block_and_channel(
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


@jit()
def split_and_channel(channels, splits, channels_last: tl.constexpr, lanes: tl.constexpr):
    """Returns a program's place among those that share its channels, and these, `(1, lanes)`."""
    program = tl.program_id(0)
    if channels_last:
        groups = tl.cdiv(channels, lanes)
        split, group = program // groups, program % groups
    else:
        split, group = program % splits, program // splits
    return split, group * lanes + tl.arange(0, lanes)[None, :]
