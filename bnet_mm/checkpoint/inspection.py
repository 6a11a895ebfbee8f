"""What a checkpoint holds, and how far its BNETs are from plain batch normalization."""

import re
from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor

from bnet_mm.checkpoint.architecture import infer_architecture
from bnet_mm.checkpoint.contents import Contents
from bnet_mm.checkpoint.kernels import energy_outside_centre
from bnet_mm.checkpoint.layouts import common_names, detect_layout
from bnet_mm.errors import InputError
from bnet_mm.models.authors import rename_kernels


@dataclass(frozen=True)
class KernelFacts:
    """One BNET's kernel.

    Attributes:
        site: the norm, by its name in this package.
        channels: how many kernels there are, one for each channel.
        k: kernel size.
        outside: share of the sum of squares that is outside the centre taps: 0 is plain batch
            normalization, 1 - 1/k^2 a box filter; NaN where a tap is.
        zero: kernels all of whose taps are zero: their channel gives its bias alone.
    """

    site: str
    channels: int
    k: int
    outside: float
    zero: int


@dataclass(frozen=True)
class Inspection:
    """A checkpoint's weights at a glance.

    Attributes:
        network: the residual network it is, or why it is none that is known.
        layout: how it names its tensors; '' if it is none that is known.
        tensors, values: how many there are.
        types: type -> number of tensors.
        plain_norms: norms with statistics and no kernel.
        kernels: every BNET.
        odd: findings that a trained network should not have.
    """

    network: str
    layout: str
    tensors: int
    values: int
    types: dict[str, int]
    plain_norms: int
    kernels: list[KernelFacts]
    odd: list[str]


def inspect_checkpoint(contents: Contents) -> Inspection:
    """Looks at every tensor of a checkpoint, of a residual or any other network."""
    renamed = rename_kernels(contents.state)
    state = {renamed.get(key, key): value for key, value in contents.state.items()}
    kernels = [
        _kernel(name.removesuffix('.dw.weight'), value)
        for name, value in state.items()
        if name.endswith('.dw.weight') and value.ndim == 4 and 0 not in value.shape
    ]
    norms = sum(name.endswith('running_mean') for name in state)
    try:
        layout = detect_layout(contents.state)
        common = common_names(contents.state, layout)
        network = str(
            infer_architecture({name: contents.state[key] for key, name in common.items()})
        )
    except InputError as error:
        layout, network = '', str(error)
    return Inspection(
        network=network,
        layout=str(layout),
        tensors=len(state),
        values=sum(value.numel() for value in state.values()),
        types=Counter(str(value.dtype).removeprefix('torch.') for value in state.values()),
        plain_norms=norms - len(kernels),
        kernels=kernels,
        odd=[finding for name, value in state.items() for finding in _odd(name, value)],
    )


def _kernel(site: str, kernel: Tensor) -> KernelFacts:
    return KernelFacts(
        site=site,
        channels=kernel.shape[0],
        k=kernel.shape[-1],
        outside=energy_outside_centre(kernel),
        zero=int((kernel.flatten(1) == 0).all(1).sum()),
    )


def _odd(name: str, value: Tensor) -> list[str]:
    if not value.is_floating_point():
        return []
    found = []
    if value.element_size() == 1:
        value = value.float()  # torch computes nothing in 8 bits
    wrong = int((~torch.isfinite(value)).sum())
    if wrong:
        found.append(f'{name}: {wrong} of {value.numel()} values are NaN or infinite')
    if re.search(r'(^|\.)running_var$', name):
        negative, zero = int((value < 0).sum()), int((value == 0).sum())
        if negative:
            found.append(f'{name}: {negative} variances are negative')
        if zero:
            found.append(f'{name}: {zero} variances are zero (their channels never changed)')
    if name.endswith('.dw.weight') and not value.any():
        found.append(f'{name}: every kernel is zero')
    return found
