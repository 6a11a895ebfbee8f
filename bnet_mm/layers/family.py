"""BNET's enhancement on the norms beside batch normalization (paper, table 12)."""

from torch import nn

from bnet_mm.errors import InputError
from bnet_mm.layers.enhanced import EnhancedNorm, refuse_positions
from bnet_mm.layers.switchable import SwitchNorm2d


class GNET(EnhancedNorm):
    """Group normalization with a k x k depthwise convolution for its scale and shift.

    In a config: `norm_cfg=dict(type='GNET', k=3, num_groups=32)`. Shapes, state dict and errors
    are those of `EnhancedNorm`.

    Args:
        num_features: channels C.
        k: kernel size, odd.
        num_groups, eps: as in `torch.nn.GroupNorm`.
        dilation: distance between neighbouring taps, in pixels.
        positions: as in `BNET`.
        _scope_: ignored; config inheritance leaves it in `norm_cfg`.
    """

    _abbr_ = 'gn'

    def __init__(
        self,
        num_features: int,
        k: int = 3,
        num_groups: int = 32,
        dilation: int = 1,
        eps: float = 1e-5,
        positions: str | None = None,
        device=None,
        dtype=None,
        _scope_: str | None = None,
    ):
        refuse_positions('GNET', positions)
        if num_features % num_groups:
            raise InputError(
                f'GNET: {num_features} channels cannot be divided into num_groups={num_groups} '
                f'groups; set num_groups in norm_cfg to a divisor of every width it is used at'
            )
        options = dict(device=device, dtype=dtype)
        norm = nn.GroupNorm(num_groups, num_features, eps, affine=False, **options)
        super().__init__(norm, num_features, k, dilation, **options)


class SNET(EnhancedNorm):
    """Switchable normalization with a k x k depthwise convolution for its scale and shift.

    In a config: `norm_cfg=dict(type='SNET', k=3)`. Shapes, state dict and errors are those of
    `EnhancedNorm`.

    Args:
        num_features: channels C.
        k: kernel size, odd.
        dilation: distance between neighbouring taps, in pixels.
        eps, momentum: as in `SwitchNorm2d`.
        positions: as in `BNET`.
        _scope_: ignored; config inheritance leaves it in `norm_cfg`.
    """

    _abbr_ = 'sn'

    def __init__(
        self,
        num_features: int,
        k: int = 3,
        dilation: int = 1,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        positions: str | None = None,
        device=None,
        dtype=None,
        _scope_: str | None = None,
    ):
        refuse_positions('SNET', positions)
        options = dict(device=device, dtype=dtype)
        norm = SwitchNorm2d(num_features, eps, momentum, affine=False, **options)
        super().__init__(norm, num_features, k, dilation, **options)


class INET(EnhancedNorm):
    """Instance normalization with a k x k depthwise convolution for its scale and shift.

    In a config: `norm_cfg=dict(type='INET', k=3)`. Shapes, state dict and errors are those of
    `EnhancedNorm`.

    Args:
        num_features: channels C.
        k: kernel size, odd.
        dilation: distance between neighbouring taps, in pixels.
        eps, momentum, track_running_stats: as in `torch.nn.InstanceNorm2d`.
        positions: as in `BNET`.
        _scope_: ignored; config inheritance leaves it in `norm_cfg`.
    """

    _abbr_ = 'in'

    def __init__(
        self,
        num_features: int,
        k: int = 3,
        dilation: int = 1,
        eps: float = 1e-5,
        momentum: float = 0.1,
        track_running_stats: bool = False,
        positions: str | None = None,
        device=None,
        dtype=None,
        _scope_: str | None = None,
    ):
        refuse_positions('INET', positions)
        options = dict(device=device, dtype=dtype)
        norm = nn.InstanceNorm2d(
            num_features,
            eps,
            momentum,
            affine=False,
            track_running_stats=track_running_stats,
            **options,
        )
        super().__init__(norm, num_features, k, dilation, **options)
