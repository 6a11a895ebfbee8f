"""What a checkpoint holds, and how far its BNETs are from plain batch normalization."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor

from bnet_mm.checkpoint.architecture import infer_architecture
from bnet_mm.checkpoint.contents import Contents
from bnet_mm.checkpoint.layouts import detect_layout
from bnet_mm.errors import InputError
from bnet_mm.models.authors import rename_kernels
from bnet_mm.text import without_prefix, without_suffix


@dataclass(frozen=True)
class Inspection:
    """A checkpoint's weights at a glance.

    Attributes:
        network: the residual network it is, or why it is not a known one.
        layout: how it names its tensors; '' for an unknown layout.
        tensors, values: how many there are.
        types: type -> number of tensors.
        plain_norms: norms with statistics and no kernel.
        kernels: the kernels of each BNET, `(C, 1, k, k)`, by its name in this package.
        odd: findings that a trained network should not have.
    """

    network: str
    layout: str
    tensors: int
    values: int
    types: Counter[str]
    plain_norms: int
    kernels: dict[str, Tensor]
    odd: list[str]


def inspect_checkpoint(contents: Contents) -> Inspection:
    """Looks at every tensor of a checkpoint, of a residual or any other network.

    Examples:
        >>> from bnet_mm import BNET
        >>> from bnet_mm.checkpoint import contents_of
        >>> state = {f'norm.{key}': value for key, value in BNET(8, k=5).state_dict().items()}
        >>> inspect_checkpoint(contents_of(state)).kernels['norm'].shape
        torch.Size([8, 1, 5, 5])
    """
    renamed = rename_kernels(contents.state)
    state = {renamed.get(key, key): value for key, value in contents.state.items()}
    kernels = {
        without_suffix(name, '.dw.weight'): value
        for name, value in state.items()
        if name.endswith('.dw.weight') and value.ndim == 4 and 0 not in value.shape
    }
    try:
        layout = detect_layout(contents.state)
        common = layout.to_common(contents.state)
        network = str(
            infer_architecture({name: contents.state[key] for key, name in common.items()})
        )
        shown = str(layout)
    except InputError as error:
        network, shown = str(error), ''
    return Inspection(
        network=network,
        layout=shown,
        tensors=len(state),
        values=sum(value.numel() for value in state.values()),
        types=Counter(without_prefix(str(value.dtype), 'torch.') for value in state.values()),
        plain_norms=sum(name.endswith('running_mean') for name in state) - len(kernels),
        kernels=kernels,
        odd=[finding for name, value in state.items() for finding in _odd(name, value)],
    )


def energy_outside_centre(kernel: Tensor) -> float:
    """Returns which share of the sum of squares of `(C, 1, k, k)` is outside the centre taps.

    0 is plain batch normalization, 1 - 1/k^2 a box filter; NaN where a tap is.
    """
    squares, k = kernel.detach().double().square(), kernel.shape[-1]
    total, centre = squares.sum(), squares[:, :, k // 2, k // 2].sum()
    return ((total - centre) / total).item() if total else 0.0


def _odd(name: str, value: Tensor) -> list[str]:
    if not value.is_floating_point():
        return []
    found = []
    if value.element_size() == 1:
        value = value.float()  # torch computes nothing in 8 bits
    wrong = int((~torch.isfinite(value)).sum())
    if wrong:
        found.append(f'{name}: {wrong} of {value.numel()} values are NaN or infinite')
    if name.rpartition('.')[2] == 'running_var':
        negative, zero = int((value < 0).sum()), int((value == 0).sum())
        if negative:
            found.append(f'{name}: {negative} variances are negative')
        if zero:
            found.append(f'{name}: {zero} variances are zero (their channels never changed)')
    if name.endswith('.dw.weight') and not value.any():
        found.append(f'{name}: every kernel is zero')
    return found
