"""What the placement-aware backbones of all libraries share."""

from bnet_mm.norm import BNET
from bnet_mm.placement import enhance


class PlacementAware:
    """Mixin, before a library's backbone class: a BNET `norm_cfg` goes to chosen norms only.

    `norm_cfg=dict(type='BNET', k=5, positions='C')` builds the library's own network with plain BN
    (every other entry of `norm_cfg` applies to it) and then enhances the norms at `positions`
    (default 'C', paper table 10). With any other `norm_cfg` the network is the library's own.

    Raises:
        InputError: see `bnet_mm.enhance`.
    """

    def __init__(self, *args, norm_cfg: dict | None = None, **kwargs):
        if norm_cfg is not None:
            kwargs['norm_cfg'] = norm_cfg
        if norm_cfg is None or not is_bnet(norm_cfg.get('type')):
            super().__init__(*args, **kwargs)
            return
        plain = {**norm_cfg, 'type': 'BN'}
        placing = {key: plain.pop(key) for key in ('k', 'dilation', 'positions') if key in plain}
        super().__init__(*args, **{**kwargs, 'norm_cfg': plain})
        enhance(self, **placing)


def is_bnet(norm_type: object) -> bool:
    """Tells whether the `type` of a norm_cfg, a class or a name with or without scope, is BNET."""
    if isinstance(norm_type, str):
        return norm_type.rpartition('.')[2] == BNET.__name__
    return norm_type is BNET
