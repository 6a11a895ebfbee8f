"""Blocks whose class is exchanged, after building, for one with another forward.

Nothing stands on the instance: a copy, a pickle or a replica on another device computes with its
own modules, and what is put into the block later is seen.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from torch import nn


class Swapped:
    """Base of the classes that give a block another forward; the block's own class stays below.

    Such a class defines `forward`, and its `super().forward` is the block's own.
    """

    def __reduce_ex__(self, protocol: Any) -> tuple:
        mixin, own = type(self).__bases__  # the class itself is made when it is needed
        state = self.__getstate__() if hasattr(self, '__getstate__') else self.__dict__
        return _new, (mixin, own), state


def swap(block: nn.Module, mixin: Any) -> None:
    """Puts `mixin`, a subclass of `Swapped`, in front of the class of `block`.

    A block that has one already keeps that.
    """
    if not isinstance(block, Swapped):
        own: Any = type(block)
        block.__class__ = _swapped(mixin, own)


def swap_back(block: nn.Module) -> None:
    """Gives `block` its own class back."""
    block.__class__ = own_class(block)


def own_class(block: nn.Module) -> type[nn.Module]:
    """Returns the class that `block` was built of."""
    return type(block).__bases__[1] if isinstance(block, Swapped) else type(block)


@lru_cache(maxsize=None)
def _swapped(mixin: Any, own: Any) -> Any:
    # Under its own name: repr, reports and code that goes by names see the block they know.
    return type(own.__name__, (mixin, own), {'__module__': own.__module__})


def _new(mixin: Any, own: Any) -> nn.Module:
    cls = _swapped(mixin, own)
    return cls.__new__(cls)
