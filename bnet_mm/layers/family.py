"""BNET's enhancement on the norms beside batch normalization (paper, table 12).

`k`, `dilation`, `positions` and `_scope_` are those of `BNET`; shapes, state dicts and errors are
those of `EnhancedNorm`.
"""

from __future__ import annotations

from torch import nn

from bnet_mm.errors import InputError
from bnet_mm.layers.enhanced import EnhancedNorm
from bnet_mm.layers.switchable import SwitchNorm2d


class GNET(EnhancedNorm):
    """Group normalization with a k x k depthwise convolution for its scale and shift.

    Args:
        num_features: channels C.
        k: kernel size, odd.
        num_groups: as in `torch.nn.GroupNorm`.
        dilation: distance between neighbouring taps, in pixels.
        eps: added to the variance, as in `torch.nn.GroupNorm`.
        positions: as in `BNET`.
        _scope_: ignored; config inheritance leaves it there.

    Examples:
        >>> GNET(64, k=5, num_groups=16).dw.weight.shape
        torch.Size([64, 1, 5, 5])
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
        if num_features % num_groups:
            raise InputError(
                f'GNET: {num_features} channels cannot be divided into num_groups={num_groups} '
                f'groups; set num_groups to a divisor of every width that it is used at'
            )
        where = dict(device=device, dtype=dtype)
        norm = nn.GroupNorm(num_groups, num_features, eps, affine=False, **where)
        super().__init__(norm, num_features, k, dilation, positions, **where)


class SNET(EnhancedNorm):
    """Switchable normalization with a k x k depthwise convolution for its scale and shift.

    Args:
        num_features: channels C.
        k: kernel size, odd.
        dilation: distance between neighbouring taps, in pixels.
        eps: added to the variance, as in `SwitchNorm2d`.
        momentum: of the running statistics, as there.
        positions: as in `BNET`.
        _scope_: ignored; config inheritance leaves it there.

    Examples:
        >>> SNET(64).norm.mean_weight.shape  # of instance, layer and batch statistics
        torch.Size([3])
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
        where = dict(device=device, dtype=dtype)
        norm = SwitchNorm2d(num_features, eps, momentum, affine=False, **where)
        super().__init__(norm, num_features, k, dilation, positions, **where)


class INET(EnhancedNorm):
    """Instance normalization with a k x k depthwise convolution for its scale and shift.

    Args:
        num_features: channels C.
        k: kernel size, odd.
        dilation: distance between neighbouring taps, in pixels.
        eps: added to the variance, as in `torch.nn.InstanceNorm2d`.
        momentum: of the running statistics, as there.
        track_running_stats: whether there are running statistics, as there.
        positions: as in `BNET`.
        _scope_: ignored; config inheritance leaves it there.

    Examples:
        >>> import torch
        >>> x = torch.randn(2, 8, 16, 16)
        >>> torch.allclose(INET(8, k=3)(x), nn.InstanceNorm2d(8)(x), atol=1e-5)
        True
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
        where = dict(device=device, dtype=dtype)
        norm = nn.InstanceNorm2d(num_features, eps, momentum, False, track_running_stats, **where)
        super().__init__(norm, num_features, k, dilation, positions, **where)
