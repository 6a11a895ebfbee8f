"""BNET, batch normalization with an enhanced linear transformation."""

from torch import nn

from bnet_mm.layers.depthwise import check_kernel
from bnet_mm.layers.enhanced import EnhancedNorm, refuse_positions


class BNET(EnhancedNorm):
    """Batch normalization whose scale and shift is a k x k depthwise convolution (BNET-k).

    Source: Xu et al., "Batch Normalization with Enhanced Linear Transformation" (arXiv 2011.14150),
    algorithm 1. It starts as plain batch normalization does (kernel Dirac, bias 0), takes plain
    batch normalization's state dict, and with `k=1` is plain batch normalization.

    In a config: `norm_cfg=dict(type='BNET', k=5)`.

    Args:
        num_features: channels C.
        k: kernel size, odd.
        dilation: distance between neighbouring taps, in pixels.
        eps, momentum, track_running_stats: as in `torch.nn.BatchNorm2d`.
        positions: not for the layer. A backbone that places BNET takes it out of `norm_cfg`; if it
            arrives here, the network would silently differ from what was asked for.
        _scope_: ignored; config inheritance leaves it in `norm_cfg`.

    Shape:
        input and output `(N, C, H, W)`.

    Raises:
        InputError: `k` is not a positive odd integer, `dilation` not a positive integer, or
            `positions` came from a backbone that cannot place norms.
    """

    _norm_class = nn.BatchNorm2d

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
        k, dilation = check_kernel(k, dilation)
        refuse_positions('BNET', positions)
        norm = self._norm_class(
            num_features,
            eps=eps,
            momentum=momentum,
            affine=False,
            track_running_stats=track_running_stats,
            device=device,
            dtype=dtype,
        )
        super().__init__(norm, num_features, k, dilation, device=device, dtype=dtype)


class SyncBNET(BNET):
    """`BNET` with batch statistics over all processes, as `torch.nn.SyncBatchNorm` has them.

    In a config: `norm_cfg=dict(type='SyncBNET', k=5)`. Without processes, on a CPU too, it computes
    what `BNET` does. Arguments, shapes and errors are those of `BNET`.
    """

    _norm_class = nn.SyncBatchNorm
