"""The mixin of backbones that can have funnel activations, and these backbones."""

from __future__ import annotations

from importlib import import_module

from torch import nn

from bnet_mm.errors import InputError
from bnet_mm.layers.frelu import FReLU
from bnet_mm.models.funnel import replace_relus
from bnet_mm.openmmlab.libraries import LIBRARIES


class FunnelAware:
    """Mixin, before a library's class: `act_cfg=dict(type='FReLU')` goes to every activation.

    Without it, or with ReLU, the network is the one it would be otherwise.

    Raises:
        InputError: another activation is asked for, or the network's stem or blocks are not those
            of a plain ResNet.
    """

    def __init__(self, *args, act_cfg: dict | None = None, **kwargs):
        super().__init__(*args, **kwargs)
        kind = 'ReLU' if act_cfg is None else act_cfg.get('type')
        if kind == 'ReLU':
            return
        if kind not in (FReLU, 'FReLU') or set(act_cfg) - {'type', '_scope_'}:
            raise InputError(
                f"{type(self).__name__} takes act_cfg=dict(type='FReLU') or dict(type='ReLU'), "
                f'got act_cfg={dict(act_cfg)}'
            )
        replace_relus(self)
        self._freeze_stages()

    def _freeze_stages(self) -> None:
        super()._freeze_stages()
        # The library freezes the stem by the names of its convolution and its norm.
        relu = self._modules.get('relu')
        if self.frozen_stages >= 0 and isinstance(relu, FReLU):
            relu.eval()
            relu.requires_grad_(False)


def funnel_backbones(scope: str) -> dict[str, type[nn.Module]]:
    """Returns a library's backbones with FReLU; `building` takes them for an `act_cfg`.

    Args:
        scope: of the library; `LIBRARIES` says which of its backbones.

    Returns:
        the classes by name, for the namespace of the calling module, where pickles find them.
    """
    stock = import_module(f'{scope}.models.backbones')
    return {
        name: type(
            name,
            (FunnelAware, getattr(stock, name)),
            {
                '__module__': f'{__package__}.{scope}',
                '__doc__': f'`{scope}.{name}`, which also takes `act_cfg` FReLU.',
            },
        )
        for name in LIBRARIES[scope].funnel
    }
