"""The network of a library that a converted backbone is for."""

from importlib import import_module

from torch import nn

from bnet_mm.checkpoint.architecture import Architecture
from bnet_mm.errors import InputError


def backbone_config(library: str, arch: Architecture, norm: dict) -> dict:
    """Returns the `backbone` of a config of an OpenMMLab `library`, what is the default left out.

    Args:
        library: 'mmdet', 'mmseg', 'mmpretrain' or 'mmaction'.
        arch: the network.
        norm: its `norm_cfg`.

    Raises:
        InputError: the library has no network like this.
    """
    wide = arch.groups == 1 and arch.base_width != arch.base_channels
    small = arch.small_input and library != 'mmpretrain'
    other_width = {arch.base_channels, arch.stem_channels} != {64}
    if (
        arch.depth is None
        or wide
        or small
        or (library == 'mmaction' and (arch.groups > 1 or other_width or arch.deep_stem))
    ):
        raise InputError(f'{library} has no {arch}')
    kind = 'ResNeXt' if arch.groups > 1 else 'ResNet_CIFAR' if arch.small_input else 'ResNet'
    options = dict(type=kind, depth=arch.depth, norm_cfg=norm)
    if arch.groups > 1:
        width = 'width_per_group' if library == 'mmpretrain' else 'base_width'
        options |= {'groups': arch.groups, width: arch.base_width}
    for name in ('base_channels', 'stem_channels'):
        if getattr(arch, name) != 64:
            options[name] = getattr(arch, name)
    for name in ('deep_stem', 'avg_down'):
        if getattr(arch, name):
            options[name] = True
    return options


def build_backbone(library: str, arch: Architecture, norm: dict) -> nn.Module:
    """Returns the backbone of a library, as its users build it.

    Raises:
        InputError: the library cannot be imported, or has no network like this.
    """
    from mmengine.config import Config

    from bnet_mm.openmmlab.models import build_model

    try:
        import_module(f'{library}.models')
    except (ImportError, AssertionError) as error:  # the libraries assert one another's versions
        raise InputError(f'--verify needs {library}, which cannot be imported: {error}') from error
    options = backbone_config(library, arch, norm)
    if library == 'mmaction':
        options['pretrained'] = None
    options |= dict(out_indices=(0, 1, 2, 3), style='pytorch')
    return build_model(Config(dict(default_scope=library, model=options)))
