"""BNET, batch normalization with an enhanced linear transformation."""

from __future__ import annotations

from torch import nn

from bnet_mm.layers.enhanced import EnhancedNorm


class BNET(EnhancedNorm):
    """Batch normalization whose scale and shift is a k x k depthwise convolution (BNET-k).

    Source: Xu et al., "Batch Normalization with Enhanced Linear Transformation" (arXiv 2011.14150),
    algorithm 1. It starts as plain batch normalization does (kernel Dirac, bias 0), takes plain
    batch normalization's state dict, and with `k=1` is plain batch normalization.

    Args:
        num_features: channels C.
        k: kernel size, odd.
        dilation: distance between neighbouring taps, in pixels.
        eps: added to the variance, as in `torch.nn.BatchNorm2d`.
        momentum: of the running statistics, as there.
        track_running_stats: whether there are running statistics, as there.
        positions: not for the layer: networks that place norms take it out. Anything but None and
            'all' is an error here, since the network would differ from what was asked for.
        _scope_: ignored; config inheritance leaves it there.

    Shape:
        input and output `(N, C, H, W)`.

    Raises:
        InputError: `k` is not a positive odd integer, `dilation` not a positive integer, or
            `positions` came from a network that does not place norms.

    Examples:
        >>> import torch
        >>> x = torch.randn(2, 8, 16, 16)
        >>> torch.allclose(BNET(8, k=5)(x), nn.BatchNorm2d(8)(x), atol=1e-5)
        True
    """

    _norm_class = nn.BatchNorm2d  # type: type[nn.modules.batchnorm._BatchNorm]

    def __init__(
        self,
        num_features: int,
        k: int = 3,
        dilation: int = 1,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        track_running_stats: bool = True,
        positions: str | None = None,
        device=None,
        dtype=None,
        _scope_: str | None = None,
    ):
        where = dict(device=device, dtype=dtype)
        norm = self._norm_class(num_features, eps, momentum, False, track_running_stats, **where)
        super().__init__(norm, num_features, k, dilation, positions, **where)


class SyncBNET(BNET):
    """`BNET` with batch statistics over all processes, as `torch.nn.SyncBatchNorm` has them.

    Without processes, on a CPU too, it computes what `BNET` does. Arguments, shapes and errors are
    those of `BNET`.

    Examples:
        >>> type(SyncBNET(8, k=3).norm).__name__
        'SyncBatchNorm'
    """

    _norm_class = nn.SyncBatchNorm
