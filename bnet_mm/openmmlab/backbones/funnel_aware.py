"""The mixin of backbones that can have funnel activations."""

from __future__ import annotations

from bnet_mm.errors import InputError
from bnet_mm.layers.frelu import FReLU
from bnet_mm.models.funnel import replace_relus


class FunnelAware:
    """Mixin, before `PlacementAware`: `act_cfg=dict(type='FReLU')` goes to every activation.

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
