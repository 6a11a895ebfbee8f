"""What a run chooses by comparing values: the best queries of a detector, the order of boxes.

Two values that lie close may change places by a rounding, and everything after them differs then
without being wrong. So that a run in another type can be compared, it is given the choices of the
first one; the values that it finds there are its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

TOPK = torch.ops.aten.topk.default
SORTS = (torch.ops.aten.sort.default, torch.ops.aten.sort.stable)


class Choices(TorchDispatchMode):
    """Keeps the indices that `topk` and `sort` give, in the order of the calls.

    Used as a context manager around the runs whose choices are kept.
    """

    def __init__(self) -> None:
        super().__init__()
        self.made: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: Any = None):
        found = func(*args, **(kwargs or {}))
        if func is TOPK or func in SORTS:
            self.made.append(found[1])
        return found

    @contextmanager
    def repeated(self) -> Iterator[None]:
        """Lets the same runs of another model choose the same."""
        with _Repeating(self.made):
            yield


class _Repeating(TorchDispatchMode):
    def __init__(self, made: list[Tensor]):
        super().__init__()
        self.left = iter(made)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: Any = None):
        kwargs = kwargs or {}
        found = func(*args, **kwargs)
        if func is not TOPK and func not in SORTS:
            return found
        chosen = next(self.left, None)
        if chosen is None or chosen.shape != found[1].shape or not chosen.numel():
            return found  # another run than the one that was kept
        dim = _dimension(func, args, kwargs)
        return args[0].gather(dim, chosen), chosen


def _dimension(func: Any, args: tuple, kwargs: dict) -> int:
    names = [argument.name for argument in func._schema.arguments]
    return dict(zip(names, args), **kwargs).get('dim', -1)
