"""What exporters take for a fixed size, put so that images of any size can be computed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class CellMeans(nn.Module):
    """What `nn.AdaptiveAvgPool2d` computes, as products with two matrices of means.

    ONNX has pooling by a window of fixed size alone: which window makes 3 cells of a map follows
    from the size of the map. The matrices are made of that size in the graph.

    Shape:
        `(N, C, H, W)` to `(N, C, *cells)`.
    """

    def __init__(self, cells: tuple[int | None, int | None]):
        super().__init__()
        self.cells = cells

    def forward(self, input: Tensor) -> Tensor:
        rows, columns = self.cells
        if rows is not None:
            input = _means(input.shape[-2], rows, input) @ input
        if columns is not None:
            input = input @ _means(input.shape[-1], columns, input).T
        return input


def _means(size: int, cells: int, like: Tensor) -> Tensor:
    place = torch.arange(size, device=like.device)
    cell = torch.arange(cells, device=like.device)[:, None]
    # In integers: a cell is from floor(cell * size / cells) to ceil((cell + 1) * size / cells).
    inside = (cells * place + cells > cell * size) & (cells * place < (cell + 1) * size)
    weights = inside.to(like.dtype)
    return weights / weights.sum(1, keepdim=True)


class Multiplied(nn.Module):
    """What MMSegmentation's `Upsample` by a whole factor computes.

    That module multiplies sides by a float and rounds, which exporters take for a constant.

    Shape:
        `(N, C, H, W)` to `(N, C, H * factor, W * factor)`.
    """

    def __init__(self, factor: int, mode: str, align_corners: bool | None):
        super().__init__()
        self.factor, self.mode, self.align_corners = factor, mode, align_corners

    def forward(self, input: Tensor) -> Tensor:
        size = [side * self.factor for side in input.shape[-2:]]
        return F.interpolate(input, size, mode=self.mode, align_corners=self.align_corners)


class SamePadded(nn.Module):
    """What mmcv's `Conv2dAdaptivePadding` computes, for kernels no smaller than their stride.

    That module asks whether the padding is negative, which those never need. Of a deep network the
    exporter then thinks about its sizes for longer than anyone waits.

    Shape:
        `(N, C, H, W)` to `(N, out_channels, ceil(H / stride), ceil(W / stride))`.
    """

    def __init__(self, conv: nn.Conv2d):
        super().__init__()
        self.conv = conv

    def forward(self, input: Tensor) -> Tensor:
        conv, pads = self.conv, []
        for axis in (1, 0):  # the last dimension first, as `pad` takes them
            size, stride = input.shape[2 + axis], conv.stride[axis]
            reach = (conv.kernel_size[axis] - 1) * conv.dilation[axis] + 1
            total = ((size + stride - 1) // stride - 1) * stride + reach - size
            pads += [total // 2, total - total // 2]
        options = (conv.stride, conv.padding, conv.dilation, conv.groups)
        return F.conv2d(F.pad(input, pads), conv.weight, conv.bias, *options)


@contextmanager
def free_sizes(model: nn.Module) -> Iterator[None]:
    """Replaces what has a fixed size in a graph and none in the network, while it lasts."""
    found = [
        (parent, name, child, _free(child))
        for parent in model.modules()
        for name, child in parent.named_children()
    ]
    replaced = [entry for entry in found if entry[3] is not None]
    for parent, name, _, free in replaced:
        setattr(parent, name, free)
    try:
        yield
    finally:
        for parent, name, child, _ in replaced:
            setattr(parent, name, child)


def _free(module: nn.Module) -> nn.Module | None:
    if type(module) is nn.AdaptiveAvgPool2d and _cells(module) != (1, 1):
        return CellMeans(_cells(module))
    kind = type(module)
    if kind.__name__ == 'Upsample' and kind.__module__.startswith('mmseg.'):
        factor: object = module.scale_factor
        if not module.size and isinstance(factor, float) and factor.is_integer():
            return Multiplied(int(factor), str(module.mode), module.align_corners)
    if kind.__name__ == 'Conv2dAdaptivePadding' and isinstance(module, nn.Conv2d):
        reach = [(k - 1) * d + 1 for k, d in zip(module.kernel_size, module.dilation)]
        if all(r >= stride for r, stride in zip(reach, module.stride)):
            return SamePadded(module)
    return None


def _cells(pooling: nn.AdaptiveAvgPool2d) -> tuple[int | None, int | None]:
    size = pooling.output_size
    return (size, size) if size is None or isinstance(size, int) else tuple(size)
