"""BNETs that compute what a batch norm does, because nothing but their centre taps is not zero.

Kernels start so, and those of frozen stages stay so. As a batch norm such a layer goes into the
convolution before it whole.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from bnet_mm.deploy.structure import is_watched, replace, unfit
from bnet_mm.errors import InputError
from bnet_mm.layers import EnhancedNorm
from bnet_mm.layers.plain import own_affine


def centre_taps_to_norms(model: nn.Module) -> list[str]:
    """Puts batch norms in the place of the BNETs that compute the same, and returns their names."""
    names = [name for name, layer in model.named_modules() if name and _is_batch_norm(layer)]
    for name in names:
        centre_taps_to_norm(model, name)
    return names


def centre_taps_to_norm(model: nn.Module, name: str) -> None:
    """Does so with one BNET, of which only the centre taps are kept.

    Raises:
        InputError: there is no such layer.
    """
    try:
        layer: Any = model.get_submodule(name)
    except AttributeError as error:
        raise InputError(f'the model has no {name}') from error
    if not isinstance(layer, EnhancedNorm) or unfit(layer):
        raise InputError(f'{name} is no BNET with running statistics')
    norm = nn.BatchNorm2d(layer.num_features, layer.norm.eps, device='meta')
    taps, centre = layer.dw.weight, layer.k // 2
    norm.weight = nn.Parameter(taps[:, 0, centre, centre].detach().clone(), taps.requires_grad)
    norm.bias = layer.dw.bias
    norm._buffers.update(layer.norm._buffers)
    replace(model, layer, norm.eval())


def _is_batch_norm(layer: nn.Module) -> bool:
    if not isinstance(layer, EnhancedNorm) or unfit(layer) or is_watched(layer.dw):
        return False
    if own_affine(layer.norm) != (None, None):
        return False
    around = layer.dw.weight.detach().clone()
    around[:, :, layer.k // 2, layer.k // 2] = 0
    return not torch.count_nonzero(around)
