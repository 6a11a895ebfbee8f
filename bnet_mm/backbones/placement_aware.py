"""What the placement-aware backbones of all libraries share."""

from bnet_mm.checkpoint.loading import extend_mmengine
from bnet_mm.norm import BNET, SyncBNET
from bnet_mm.placement import enhance
from bnet_mm.residual_blocks import join_ends

# What the network is built with before BNET takes its place.
PLAIN = {BNET: 'BN', SyncBNET: 'SyncBN'}

# These are the networks that the paper's authors' checkpoints, and ImageNet's, are loaded into.
extend_mmengine()


class PlacementAware:
    """Mixin, before a library's backbone class: a BNET `norm_cfg` goes to chosen norms only.

    `norm_cfg=dict(type='BNET', k=5, positions='C')` builds the library's own network with plain BN
    (every other entry of `norm_cfg` applies to it) and then enhances the norms at `positions`
    (default 'C', paper table 10); `SyncBNET` does the same with SyncBN. With any other `norm_cfg`
    the network is the library's own.

    Raises:
        InputError: see `bnet_mm.enhance`.
    """

    def __init__(self, *args, norm_cfg: dict | None = None, **kwargs):
        if norm_cfg is not None:
            kwargs['norm_cfg'] = norm_cfg
        bnet = bnet_class(norm_cfg.get('type')) if norm_cfg is not None else None
        if bnet is None:
            super().__init__(*args, **kwargs)
            return
        plain = {**norm_cfg, 'type': PLAIN[bnet]}
        placing = {key: plain.pop(key) for key in ('k', 'dilation', 'positions') if key in plain}
        super().__init__(*args, **{**kwargs, 'norm_cfg': plain})
        enhance(self, **placing)
        join_ends(self)


def bnet_class(norm_type: object) -> type[BNET] | None:
    """Returns which BNET the `type` of a norm_cfg, a class or a name with any scope, means."""
    if isinstance(norm_type, str):
        norm_type = norm_type.rpartition('.')[2]
    return next((bnet for bnet in PLAIN if norm_type in (bnet, bnet.__name__)), None)
