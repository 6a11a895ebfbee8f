"""Bi-Real Net, a ResNet of binary convolutions with real shortcuts, for MMPretrain."""

from __future__ import annotations

from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule
from mmpretrain.models.backbones import ResNet
from torch import Tensor, nn

from bnet_mm.layers.binary import BinaryActivation, BinaryConv2d


class BiRealBlock(BaseModule):
    """Sign, binary 3x3 convolution and norm, with a shortcut of real numbers around the three.

    Args:
        in_channels, out_channels: of the block.
        stride: 1 or 2.
        downsample: the shortcut where size or channels change.
        norm_cfg: of the norm.
        unused: what MMPretrain's `ResLayer` gives to every kind of block.

    Shape:
        input `(N, in_channels, H, W)`, output `(N, out_channels, H / stride, W / stride)`.
    """

    expansion = 1

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        norm_cfg: dict,
        downsample: nn.Module | None = None,
        **unused,
    ):
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.binary = BinaryActivation()
        self.conv1 = BinaryConv2d(in_channels, out_channels, 3, stride, 1)
        self.norm1_name, norm = build_norm_layer(norm_cfg, out_channels, postfix=1)
        self.add_module(self.norm1_name, norm)
        self.downsample = downsample

    @property
    def norm1(self) -> nn.Module:
        """The norm after the binary convolution."""
        return getattr(self, self.norm1_name)

    def forward(self, x: Tensor) -> Tensor:
        output = self.norm1(self.conv1(self.binary(x)))
        return output + (x if self.downsample is None else self.downsample(x))


class _BiRealNet(ResNet):
    # Blocks of one convolution: twice as many as a ResNet of that depth has basic blocks.
    arch_settings = {18: (BiRealBlock, (4, 4, 4, 4)), 34: (BiRealBlock, (6, 8, 12, 6))}

    def __init__(self, depth: int = 18, base_channels: int = 64, **kwargs):
        options = dict(stem_channels=base_channels, avg_down=True, zero_init_residual=False)
        super().__init__(depth, base_channels=base_channels, **{**options, **kwargs})
        self.relu = nn.Identity()  # the stem has no activation


class BiRealNet(_BiRealNet):
    """Bi-Real Net (Liu et al., ECCV 2018), a row of the paper's table 3.

    The first convolution, those of the downsample branches and the classifier are real. The stem
    has no activation. A BNET `norm_cfg` goes to the norms after the binary convolutions, and also
    takes `positions` ('C' and 'all').

    Args:
        depth: 18 or 34.
        base_channels: width of the first stage.
        The others are those of `mmpretrain.ResNet`.

    Shape:
        input `(N, in_channels, H, W)`; output of stage i `(N, base_channels * 2**i, H / 2**(i+2),
        W / 2**(i+2))`.
    """
