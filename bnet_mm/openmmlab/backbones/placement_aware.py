"""What the placement-aware backbones of all libraries share."""

from collections.abc import Callable

from torch import nn

from bnet_mm.layers import BNET, GNET, INET, SNET, BNReLUConv, SyncBNET
from bnet_mm.models.blocks import LETTERS, block_kind, norm_after_conv
from bnet_mm.models.placement import add_control, enhance
from bnet_mm.models.residual_blocks import join_ends
from bnet_mm.openmmlab.loading import extend_mmengine

# What the network is built with before one of this package's takes its place at some norms.
PLAIN = {
    BNET: dict(type='BN'),
    SyncBNET: dict(type='SyncBN'),
    GNET: dict(type='GN'),
    SNET: dict(type='SN'),
    INET: dict(type='IN', affine=True),
    BNReLUConv: dict(type='BN'),
}
# Entries of a norm_cfg that say where and how, and not which normalization.
PLACING = ('k', 'dilation', 'positions')

# These are the networks that the paper's authors' checkpoints, and ImageNet's, are loaded into.
extend_mmengine()


class PlacementAware:
    """Mixin, before a library's backbone class: a BNET `norm_cfg` goes to chosen norms only.

    `norm_cfg=dict(type='BNET', k=5, positions='C')` builds the library's own network with plain BN
    (every other entry of `norm_cfg` applies to it) and then enhances the norms at `positions` (by
    default the paper's place, see `bnet_mm.enhance`); `SyncBNET` does the same with SyncBN, `GNET`,
    `SNET` and `INET` with GN, SN and IN, and `BNReLUConv` places the control of table 11. With any
    other `norm_cfg` the network is the library's own.

    Raises:
        InputError: see `bnet_mm.enhance`.
    """

    def __init__(self, *args, norm_cfg: dict | None = None, **kwargs):
        if norm_cfg is not None:
            kwargs['norm_cfg'] = norm_cfg
        kind = bnet_class(norm_cfg.get('type')) if norm_cfg is not None else None
        if kind is None:
            super().__init__(*args, **kwargs)
            return
        placing = {key: norm_cfg[key] for key in PLACING if key in norm_cfg}
        super().__init__(*args, **{**kwargs, 'norm_cfg': plain_norm_cfg(norm_cfg)})
        place: Callable[..., nn.Module] = add_control if kind is BNReLUConv else enhance
        place(self, **placing)
        join_ends(self)

    def init_weights(self) -> None:
        fresh = not getattr(self, '_is_init', False)
        super().init_weights()
        # Some libraries set a last norm's own `weight`, which a BNET has not.
        if fresh and getattr(self, 'zero_init_residual', False) and not _is_pretrained(self):
            for block in self.modules():
                if (kind := block_kind(block)) is not None:
                    norm = norm_after_conv(block, max(LETTERS[kind].values()))[1]
                    if hasattr(norm, 'zero_output'):
                        norm.zero_output()


def bnet_class(norm_type: object) -> type[nn.Module] | None:
    """Returns which of this package's norms the `type` of a norm_cfg means, or None.

    Args:
        norm_type: a class, or a name with any scope.
    """
    if isinstance(norm_type, str):
        norm_type = norm_type.rpartition('.')[2]
    return next((bnet for bnet in PLAIN if norm_type in (bnet, bnet.__name__)), None)


def plain_norm_cfg(norm_cfg: dict) -> dict:
    """Returns the `norm_cfg` of the plain norm that one of this package's is built on."""
    kept = {key: value for key, value in norm_cfg.items() if key not in PLACING}
    return {**kept, **PLAIN[bnet_class(norm_cfg['type'])]}


def _is_pretrained(backbone: nn.Module) -> bool:
    init_cfg = getattr(backbone, 'init_cfg', None)
    return isinstance(init_cfg, dict) and init_cfg.get('type') == 'Pretrained'
