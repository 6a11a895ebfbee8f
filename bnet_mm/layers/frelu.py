"""Funnel activation, which also looks at an activation's neighbours (paper, section 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class FReLU(nn.Module):
    """FReLU of Ma et al., arXiv 2007.11824: `max(x, T(x))`.

    `T`, the funnel condition, is a k x k depthwise convolution and a batch norm, `conv` and `bn`.

    In a config: `act_cfg=dict(type='FReLU', num_features=64)`; the ResNets of MMDetection and
    MMPretrain find the number of channels by themselves.

    Args:
        num_features: channels C.
        k: kernel size, odd.

    Shape:
        input and output `(N, C, H, W)`.

    Examples:
        >>> FReLU(64)(torch.zeros(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
    """

    def __init__(self, num_features: int, k: int = 3, device=None, dtype=None):
        super().__init__()
        options = dict(device=device, dtype=dtype)
        # Without a bias: the norm behind it takes every constant out again.
        self.conv = nn.Conv2d(
            num_features,
            num_features,
            k,
            padding=k // 2,
            groups=num_features,
            bias=False,
            **options,
        )
        self.bn = nn.BatchNorm2d(num_features, **options)

    def forward(self, input: Tensor) -> Tensor:
        return torch.maximum(input, self.bn(self.conv(input)))
