"""The ResNets for CIFAR of He et al.: three narrow stages, and shortcuts without parameters."""

from __future__ import annotations

import torch.nn.functional as F
from mmpretrain.models.backbones import ResNet_CIFAR as _ResNet_CIFAR
from mmpretrain.models.backbones.resnet import BasicBlock
from torch import Tensor, nn


class PaddedShortcut(nn.Module):
    """Every `stride`-th pixel, with new channels of zeros on both sides (ResNet, option A).

    Args:
        in_channels, out_channels: before and after.
        stride: distance of the pixels that are kept.

    Shape:
        input `(N, in_channels, H, W)`, output `(N, out_channels, H / stride, W / stride)`.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.before = (out_channels - in_channels) // 2
        self.after = out_channels - in_channels - self.before
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, self.before, self.after))


class _CifarResNet(_ResNet_CIFAR):
    arch_settings = {6 * n + 2: (BasicBlock, (n, n, n)) for n in (3, 5, 7, 9, 18)}

    def __init__(
        self,
        depth: int,
        stem_channels: int = 16,
        base_channels: int = 16,
        num_stages: int = 3,
        strides: tuple[int, ...] = (1, 2, 2),
        dilations: tuple[int, ...] = (1, 1, 1),
        out_indices: tuple[int, ...] = (2,),
        zero_init_residual: bool = False,
        **kwargs,
    ):
        super().__init__(
            depth,
            stem_channels=stem_channels,
            base_channels=base_channels,
            num_stages=num_stages,
            strides=strides,
            dilations=dilations,
            out_indices=out_indices,
            zero_init_residual=zero_init_residual,
            **kwargs,
        )

    def make_res_layer(self, **kwargs) -> nn.Sequential:
        layer = super().make_res_layer(**kwargs)
        first = layer[0]
        if first.downsample is not None:
            first.downsample = PaddedShortcut(first.in_channels, first.out_channels, first.stride)
        return layer


class CifarResNet(_CifarResNet):
    """ResNet-20, -32, -44, -56 and -110 for images of 32 x 32 (He et al., 2016, section 4.2).

    Not `ResNet_CIFAR`, which is the ImageNet networks with a smaller stem. A BNET `norm_cfg` also
    takes `positions`. Published weights of these networks load by `load_from`.

    Args:
        depth: 20, 32, 44, 56 or 110.
        The others are those of `mmpretrain.ResNet`, with the defaults of the paper: 16, 32 and 64
        channels, and last norms that do not start at zero.
    """
