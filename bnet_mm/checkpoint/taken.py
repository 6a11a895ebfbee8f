"""Which tensors of a network are those of a file, whatever way it was loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Dict

import torch
from torch import Tensor, nn

from bnet_mm.checkpoint.fitting import COUNTERS

# How many values at either end tell two tensors apart, before all are compared.
ENDS = 4


@dataclass(frozen=True)
class Taken:
    """What a network has of a file; counters of batches aside.

    Attributes:
        total: tensors of the network.
        missing: names of those that are not the file's.
        left: names of the file's that are not the network's.
    """

    total: int
    missing: list[str]
    left: list[str]

    @property
    def count(self) -> int:
        """How many tensors are the file's."""
        return self.total - len(self.missing)


def taken_from(state: Mapping[str, Tensor], model: nn.Module) -> Taken:
    """Compares the values of a network with those of a file that it was loaded from.

    Names do not count, for libraries rename what they load; a plain norm's scale in a file is also
    found as the centre taps of a BNET. Tensors that are one value throughout (the zeros and ones of
    an initialization) count where others are found.

    Args:
        state: names and tensors of the file, see `contents_of`.
        model: the network, or a part of it, before it has trained.

    Examples:
        >>> file = nn.Linear(2, 2).state_dict()
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        >>> _ = model[1].load_state_dict(file)
        >>> taken = taken_from(file, model)
        >>> taken.count, taken.total, taken.missing
        (2, 4, ['0.weight', '0.bias'])
    """
    file = _Tensors(state)
    own = _Tensors(model.state_dict())
    # File name or None of each tensor of the model.
    found = {name: file.like(value) or file.like_centre(value) for name, value in own.items()}
    if all(_is_constant(own[name]) for name, same in found.items() if same):
        found = dict.fromkeys(found)
    missing = [name for name, same in found.items() if same is None]
    used = set(found.values())
    left = [] if len(missing) < len(own) else list(file)
    if not left:
        left = [name for name, value in file.items() if name not in used and not own.like(value)]
    return Taken(len(own), missing, left)


class _Tensors(Dict[str, Tensor]):
    """Tensors by name, which are also found by their values."""

    def __init__(self, state: Mapping[str, Tensor]):
        super().__init__(
            (name, value.detach().cpu())
            for name, value in state.items()
            if isinstance(value, Tensor) and not name.endswith(COUNTERS)
        )
        self.by_ends: dict[object, list[str]] = {}
        for name, value in self.items():
            self.by_ends.setdefault(_ends(value), []).append(name)

    def like(self, value: Tensor) -> str | None:
        """Returns the name of a tensor with the same values, or None."""
        for name in self.by_ends.get(_ends(value), []):
            if torch.equal(self[name].to(value.dtype), value):
                return name
        return None

    def like_centre(self, kernel: Tensor) -> str | None:
        """Returns the name of the scale that is a kernel's centre taps, the others being zero."""
        centre = _scale_of(kernel)
        return None if centre is None else self.like(centre)


def _ends(value: Tensor) -> object:
    # In float32, as which most networks load what a file has in another type.
    flat = value.reshape(-1)
    return tuple(value.shape), tuple(torch.cat([flat[:ENDS], flat[-ENDS:]]).float().tolist())


def _scale_of(kernel: Tensor) -> Tensor | None:
    """Returns the centre taps of a depthwise kernel, or None where others are not zero."""
    if kernel.ndim != 4 or kernel.shape[1] != 1:
        return None
    middle = kernel.shape[-1] // 2
    centre = kernel[:, 0, middle, middle]
    return centre if kernel.count_nonzero() == centre.count_nonzero() else None


def _is_constant(value: Tensor) -> bool:
    scale = _scale_of(value)
    value = value if scale is None else scale
    return value.numel() < 2 or bool((value == value.reshape(-1)[0]).all())
