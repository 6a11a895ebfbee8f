"""Pooling to a number of cells that exporters can write for images of any size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
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


@contextmanager
def free_pooling(model: nn.Module) -> Iterator[None]:
    """Puts `CellMeans` in the place of all pooling to more than one cell, while it lasts."""
    found = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if type(child) is nn.AdaptiveAvgPool2d and _cells(child) != (1, 1)
    ]
    for parent, name, child in found:
        setattr(parent, name, CellMeans(_cells(child)))
    try:
        yield
    finally:
        for parent, name, child in found:
            setattr(parent, name, child)


def _cells(pooling: nn.AdaptiveAvgPool2d) -> tuple[int | None, int | None]:
    size = pooling.output_size
    return (size, size) if size is None or isinstance(size, int) else tuple(size)
