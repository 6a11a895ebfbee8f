"""Bi-Real Net, a ResNet of binary convolutions with real shortcuts, for MMPretrain."""

from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule
from mmpretrain.models.backbones.base_backbone import BaseBackbone
from mmpretrain.registry import MODELS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bnet_mm.layers.binary import BinaryActivation, BinaryConv2d
from bnet_mm.openmmlab.backbones.placement_aware import PlacementAware


class BiRealBlock(BaseModule):
    """Sign, binary 3x3 convolution and norm, with a shortcut of real numbers around the three.

    Args:
        in_channels, out_channels: of the block.
        stride: 1 or 2.
        norm_cfg: of the norm.

    Shape:
        input `(N, in_channels, H, W)`, output `(N, out_channels, H / stride, W / stride)`.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, norm_cfg: dict):
        super().__init__()
        self.binary = BinaryActivation()
        self.conv1 = BinaryConv2d(in_channels, out_channels, 3, stride, 1)
        self.norm1_name, norm = build_norm_layer(norm_cfg, out_channels, postfix=1)
        self.add_module(self.norm1_name, norm)
        self.downsample = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False),
                nn.Conv2d(in_channels, out_channels, 1, bias=False),
                build_norm_layer(norm_cfg, out_channels)[1],
            )

    @property
    def norm1(self) -> nn.Module:
        """The norm after the binary convolution."""
        return getattr(self, self.norm1_name)

    def forward(self, x: Tensor) -> Tensor:
        output = self.norm1(self.conv1(self.binary(x)))
        return output + (x if self.downsample is None else self.downsample(x))


class _BiRealNet(BaseBackbone):
    # Blocks of one convolution: twice as many as a ResNet of that depth has basic blocks.
    arch_settings = {18: (4, 4, 4, 4), 34: (6, 8, 12, 6)}

    def __init__(
        self,
        depth: int = 18,
        in_channels: int = 3,
        base_channels: int = 64,
        out_indices: tuple[int, ...] = (3,),
        frozen_stages: int = -1,
        norm_cfg: dict | None = None,
        norm_eval: bool = False,
        init_cfg: dict | list | None = (
            dict(type='Kaiming', layer='Conv2d'),
            dict(type='Constant', val=1, layer=['_BatchNorm', 'GroupNorm']),
        ),
    ):
        norm_cfg = norm_cfg or dict(type='BN')
        super().__init__(list(init_cfg) if isinstance(init_cfg, tuple) else init_cfg)
        if depth not in self.arch_settings:
            raise KeyError(f'BiRealNet: depth is one of {[*self.arch_settings]}, got {depth}')
        self.depth, self.out_indices = depth, tuple(out_indices)
        self.frozen_stages, self.norm_eval = frozen_stages, norm_eval
        self.conv1 = nn.Conv2d(in_channels, base_channels, 7, 2, 3, bias=False)
        self.norm1_name, norm = build_norm_layer(norm_cfg, base_channels, postfix=1)
        self.add_module(self.norm1_name, norm)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        width = base_channels
        for stage, count in enumerate(self.arch_settings[depth]):
            blocks = []
            for i in range(count):
                out = base_channels * 2**stage
                blocks.append(BiRealBlock(width, out, 2 if stage and i == 0 else 1, norm_cfg))
                width = out
            self.add_module(f'layer{stage + 1}', nn.Sequential(*blocks))
        self._freeze_stages()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.maxpool(getattr(self, self.norm1_name)(self.conv1(x)))
        outputs = []
        for stage in range(4):
            x = getattr(self, f'layer{stage + 1}')(x)
            if stage in self.out_indices:
                outputs.append(x)
        return tuple(outputs)

    def train(self, mode: bool = True) -> '_BiRealNet':
        super().train(mode)
        self._freeze_stages()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def _freeze_stages(self) -> None:
        if self.frozen_stages < 0:
            return
        stages = [getattr(self, f'layer{i}') for i in range(1, self.frozen_stages + 1)]
        for module in (self.conv1, getattr(self, self.norm1_name), *stages):
            module.eval()
            module.requires_grad_(False)


@MODELS.register_module()
class BiRealNet(PlacementAware, _BiRealNet):
    """Bi-Real Net (Liu et al., ECCV 2018), a row of the paper's table 3.

    The first convolution, those of the downsample branches and the classifier are real. The stem
    has no activation. A BNET `norm_cfg` goes to the norms after the binary convolutions, and also
    takes `positions` ('C' and 'all').

    Args:
        depth: 18 or 34.
        in_channels: of the image.
        base_channels: width of the first stage.
        out_indices: stages, from 0 to 3, whose outputs are returned.
        frozen_stages: stages that are not trained, with the stem; -1 for none.
        norm_cfg: of all norms; batch norm unless it is given.
        norm_eval: whether batch norms keep their statistics while training.

    Shape:
        input `(N, in_channels, H, W)`; output of stage i `(N, base_channels * 2**i, H / 2**(i+2),
        W / 2**(i+2))`.
    """
