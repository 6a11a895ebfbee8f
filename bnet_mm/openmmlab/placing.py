"""Builds a network whose `norm_cfg` is of this package: the library's own, on which BNET is placed.

Whatever class a registry builds, named or given as a class, is built with the plain norm and then
changed by `bnet_mm.models.placement`, which finds residual blocks by what they compute.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from importlib import import_module
from typing import Any

from mmengine.logging import print_log
from mmengine.registry import Registry
from torch import nn
from torch.nn.modules.conv import _ConvNd

from bnet_mm.errors import InputError
from bnet_mm.models.finding import find_blocks
from bnet_mm.models.swapping import Swapped, swap
from bnet_mm.openmmlab.config import class_of
from bnet_mm.openmmlab.norm_cfg import NormSpec

# Norms of which BNET is none, by the `norm_cfg` that a class has where none is given: of tokens,
# and of clips and sequences.
LAYER_NORMS = ('LN', 'LayerNorm', 'RMSNorm')
OTHER_DIMENSIONS = {'1d': 'sequences', '3d': 'clips, in 3-D'}


class Placed(Swapped):
    """A network with BNET: it starts as the library has it, last norms at zero among others."""

    def init_weights(self) -> None:
        fresh = not getattr(self, '_is_init', False)
        super().init_weights()  # type: ignore[misc]
        # Some libraries set a last norm's own `weight`, which a BNET has not.
        if fresh and getattr(self, 'zero_init_residual', False) and not _is_pretrained(self):
            for block in find_blocks(self):  # type: ignore[arg-type]
                norm = self.get_submodule(block.norms['C']) if 'C' in block.norms else None
                if hasattr(norm, 'zero_output'):
                    norm.zero_output()


def build_placed(
    build: Callable[[dict], Any], cfg: dict, spec: NormSpec, registry: Registry
) -> Any:
    """Returns what `build` makes of `cfg`, with BNET where `spec` says.

    Raises:
        InputError: the class takes no norm, has norms of another kind, or no place for BNET.
    """
    _check_class(class_of(cfg, registry), spec)
    plain = cfg.copy()
    plain['norm_cfg'] = dict(spec.plain)
    model = build(plain)
    if not isinstance(model, nn.Module):
        return model
    name = type(model).__name__
    dimensions = {len(m.kernel_size) for m in model.modules() if isinstance(m, _ConvNd)}
    if dimensions and 2 not in dimensions:
        raise InputError(
            f'{name} convolves in 1-D or 3-D, and {spec.layer.__name__} is over maps of '
            f'(N, C, H, W): give it a norm_cfg of another type'
        )
    for remark in spec.remarks() + spec.place(model):
        print_log(f'norm_cfg of {name}: {remark}', logger='current', level=logging.WARNING)
    swap(model, _mixin(model))
    return model


def is_of_elsewhere(backbone: Any) -> bool:
    """Tells whether MMAction2 takes a backbone with our `norm_cfg` from torchvision or timm."""
    kind = backbone.get('type') if isinstance(backbone, dict) else None
    return (
        isinstance(kind, str)
        and kind.startswith(('torchvision.', 'timm.'))
        and NormSpec.parse(backbone.get('norm_cfg')) is not None
    )


def build_around(build: Callable[[dict], Any], cfg: dict) -> Any:
    """Returns a model that builds a backbone of elsewhere itself, with BNET in that."""
    plain = cfg.copy()
    plain['backbone'] = {k: v for k, v in cfg['backbone'].items() if k != 'norm_cfg'}
    spec = NormSpec.parse(cfg['backbone']['norm_cfg'])
    model = build(plain)
    if spec is not None:
        for remark in spec.remarks() + spec.place(model.backbone):
            print_log(f'norm_cfg of backbone: {remark}', logger='current', level=logging.WARNING)
    return model


def _check_class(kind: Any, spec: NormSpec) -> None:
    """Raises InputError for a class that cannot have BNET, before it is built."""
    if not inspect.isclass(kind):
        return
    known, default = _declared_norm(kind)
    name, layer = kind.__name__, spec.layer.__name__
    if not known:
        raise InputError(
            f'{name} takes no norm_cfg, its norms cannot be chosen in a config: '
            f'bnet_mm.enhance(model, ...) puts {layer} into a model that is built'
        )
    usual = default.get('type') if isinstance(default, dict) else None
    usual = usual.__name__ if inspect.isclass(usual) else str(usual).rpartition('.')[2]
    if any(part in usual for part in LAYER_NORMS):
        raise InputError(
            f'{name} normalizes each token or pixel over its channels (its norm is {usual}), and '
            f'{layer} takes the place of norms over maps of (N, C, H, W): leave its norm_cfg, and '
            f'give {layer} to a convolutional neck, head or backbone'
        )
    for ending, what in OTHER_DIMENSIONS.items():
        if usual.endswith(ending):
            raise InputError(
                f'{name} computes on {what} (its norm is {usual}), and {layer} is over maps of '
                f'(N, C, H, W): give it a norm_cfg of another type'
            )


def _declared_norm(kind: type) -> tuple[bool, Any]:
    """Returns whether a class takes a `norm_cfg`, and its default."""
    for base in kind.__mro__:
        if '__init__' not in vars(base):
            continue
        parameters = inspect.signature(base.__init__).parameters
        if 'norm_cfg' in parameters:
            return True, parameters['norm_cfg'].default
        if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
            return False, None
    return False, None


def _mixin(model: nn.Module) -> type[Placed]:
    if any(base.__module__.startswith('mmaction.') for base in type(model).__mro__):
        return import_module(f'{__package__}.backbones.mmaction').PlacedInMMAction
    return Placed


def _is_pretrained(backbone: Any) -> bool:
    init_cfg = getattr(backbone, 'init_cfg', None)
    return isinstance(init_cfg, dict) and init_cfg.get('type') == 'Pretrained'
