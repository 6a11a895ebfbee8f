"""The mixin that places BNET in a library's backbone, and its registration."""

from __future__ import annotations

from importlib import import_module

from torch import nn

from bnet_mm.models.blocks import last_norm, positions_of
from bnet_mm.openmmlab.backbones.funnel_aware import FunnelAware
from bnet_mm.openmmlab.libraries import LIBRARIES
from bnet_mm.openmmlab.norm_cfg import NormSpec


class PlacementAware:
    """Mixin, before a library's backbone class: a BNET `norm_cfg` goes to chosen norms only.

    `norm_cfg=dict(type='BNET', k=5, positions='C')` builds the library's own network with plain BN
    (every other entry of `norm_cfg` applies to it) and then enhances the norms at `positions` (by
    default the paper's, see `bnet_mm.enhance`); `SyncBNET` does the same with SyncBN, `GNET`,
    `SNET` and `INET` with GN, SN and IN, and `BNControl` places the control of table 11. With any
    other `norm_cfg` the network is the library's own.

    Raises:
        InputError: see `NormSpec.parse` and `bnet_mm.enhance`.
    """

    def __init__(self, *args, norm_cfg: dict | None = None, **kwargs):
        spec = NormSpec.parse(norm_cfg)
        norm_cfg = norm_cfg if spec is None else spec.plain
        super().__init__(*args, **kwargs, **({} if norm_cfg is None else {'norm_cfg': norm_cfg}))
        if spec is not None:
            spec.place(self)

    def init_weights(self) -> None:
        fresh = not getattr(self, '_is_init', False)
        super().init_weights()
        # Some libraries set a last norm's own `weight`, which a BNET has not.
        if fresh and getattr(self, 'zero_init_residual', False) and not _is_pretrained(self):
            for block in self.modules():
                norm = last_norm(block)[1] if positions_of(block) else None
                if hasattr(norm, 'zero_output'):
                    norm.zero_output()


def placing_backbones(scope: str, mixin: type | None = None) -> dict[str, type[nn.Module]]:
    """Returns a library's backbones with placement; `building` takes them for a BNET `norm_cfg`.

    Args:
        scope: of the library; `LIBRARIES` says which of its backbones.
        mixin: what else comes before the library's class.

    Returns:
        the classes by name, for the namespace of the calling module, where pickles find them.
    """
    stock = import_module(f'{scope}.models.backbones')
    classes: dict[str, type[nn.Module]] = {}
    for name in LIBRARIES[scope].backbones:
        funnel = (FunnelAware,) if name in LIBRARIES[scope].funnel else ()
        bases = (*funnel, PlacementAware, *((mixin,) if mixin else ()), getattr(stock, name))
        takes = ', and `act_cfg` FReLU' if funnel else ''
        namespace = {
            '__module__': f'{__package__}.{scope}',
            '__doc__': f'`{scope}.{name}`; a BNET `norm_cfg` also takes `positions`{takes}.',
        }
        classes[name] = type(name, bases, namespace)
    return classes


def _is_pretrained(backbone: nn.Module) -> bool:
    init_cfg = getattr(backbone, 'init_cfg', None)
    return isinstance(init_cfg, dict) and init_cfg.get('type') == 'Pretrained'
