"""Gives a newly built model the structure of a folded one."""

from __future__ import annotations

from torch import nn

from bnet_mm.deploy.centre_taps import centre_taps_to_norm
from bnet_mm.deploy.plain import make_plain, split_norm
from bnet_mm.deploy.structure import (
    Fusion,
    ResidualBlock,
    Taps,
    fix_norms,
    is_foldable,
    remains_of,
    replace,
    set_tensors,
)
from bnet_mm.errors import InputError


def restructure(model: nn.Module, fusion: Fusion) -> None:
    """Gives a newly built model the modules of a folded one, which then takes its tensors.

    Raises:
        InputError: the description does not fit the model.
    """
    for name in fusion.split:
        split_norm(model, name)
    for name in fusion.centred:
        centre_taps_to_norm(model, name)
    for name, convs in fusion.folded.items():
        norm = _submodule(model, name)
        if not is_foldable(norm):
            raise InputError(f'{name} is neither a batch norm nor a BNET of this model')
        for conv in (_submodule(model, conv) for conv in convs):
            if not isinstance(conv, nn.Conv2d) or conv.out_channels != norm.num_features:
                raise InputError(f'{name} cannot have been folded into {", ".join(convs)}')
            set_tensors(conv, conv.weight, conv.weight.new_zeros(conv.out_channels))
        replace(model, norm, remains_of(norm))
    for name in fusion.ends:
        block = _submodule(model, name)
        joined = ResidualBlock.of(block, Taps)
        if isinstance(joined, str):
            raise InputError(f'the end of {name} cannot have been joined: {joined}')
        replace(model, block, joined)
    if fusion.plain:
        make_plain(model)
    else:
        fix_norms(model)


def _submodule(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError as error:
        raise InputError(f'the model has no {name}') from error
