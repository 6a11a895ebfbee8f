"""Builds the backbone of a library that a converted checkpoint is for."""

from __future__ import annotations

from importlib import import_module

from torch import nn

from bnet_mm.checkpoint.architecture import Architecture
from bnet_mm.checkpoint.verification import Placement
from bnet_mm.errors import InputError


def norm_cfg(placement: Placement | None) -> dict:
    """Returns the `norm_cfg` of a network that places BNET so, or nowhere."""
    if placement is None:
        return dict(type='BN')
    positions = {} if placement.positions == 'C' else {'positions': placement.positions}
    dilation = {} if placement.dilation == 1 else {'dilation': placement.dilation}
    return dict(type='BNET', k=placement.k, **dilation, **positions)


def backbone_config(library: str, arch: Architecture, placement: Placement | None) -> dict:
    """Returns the `backbone` of a config of an OpenMMLab library, without its defaults.

    Args:
        library: 'mmdet', 'mmseg', 'mmpretrain' or 'mmaction'.
        arch: a network that the library has (see `Conversion.library`).
        placement: where it has BNET.
    """
    kind = 'ResNeXt' if arch.groups > 1 else 'ResNet_CIFAR' if arch.small_input else 'ResNet'
    options = dict(type=kind, depth=arch.depth, norm_cfg=norm_cfg(placement))
    if arch.groups > 1:
        width = 'width_per_group' if library == 'mmpretrain' else 'base_width'
        options.update({'groups': arch.groups, width: arch.base_width})
    for name, default in dict(
        base_channels=64, stem_channels=64, deep_stem=False, avg_down=False
    ).items():
        if getattr(arch, name) != default:
            options[name] = getattr(arch, name)
    return options


def build_backbone(library: str, arch: Architecture, placement: Placement | None) -> nn.Module:
    """Returns the backbone of a library, as its users build it.

    Raises:
        InputError: the library cannot be imported.
    """
    from mmengine.registry import MODELS

    try:
        import_module(f'{library}.models')
    except (ImportError, AssertionError) as error:  # the libraries assert one another's versions
        raise InputError(f'--verify needs {library}, which cannot be imported: {error}') from error
    options = backbone_config(library, arch, placement)
    if library == 'mmaction':
        options['pretrained'] = None
    options['type'] = f'{library}.{options["type"]}'
    return MODELS.build(dict(options, out_indices=(0, 1, 2, 3), style='pytorch'))
