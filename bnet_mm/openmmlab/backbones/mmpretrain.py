"""MMPretrain's ResNet family and MobileNetV2, placement-aware under its own names."""

from mmpretrain.models.backbones import MobileNetV2 as _MobileNetV2
from mmpretrain.models.backbones import ResNet as _ResNet
from mmpretrain.models.backbones import ResNet_CIFAR as _ResNet_CIFAR
from mmpretrain.models.backbones import ResNetV1c as _ResNetV1c
from mmpretrain.models.backbones import ResNetV1d as _ResNetV1d
from mmpretrain.models.backbones import ResNeXt as _ResNeXt
from mmpretrain.registry import MODELS

from bnet_mm.openmmlab.backbones.funnel_aware import FunnelAware
from bnet_mm.openmmlab.backbones.placement_aware import PlacementAware


@MODELS.register_module(force=True)
class ResNet(FunnelAware, PlacementAware, _ResNet):
    """`mmpretrain.ResNet`; `norm_cfg` also takes `positions`, and `act_cfg` FReLU."""


@MODELS.register_module(force=True)
class ResNetV1c(PlacementAware, _ResNetV1c):
    """`mmpretrain.ResNetV1c`; a BNET `norm_cfg` also takes `positions`."""


@MODELS.register_module(force=True)
class ResNetV1d(PlacementAware, _ResNetV1d):
    """`mmpretrain.ResNetV1d`; a BNET `norm_cfg` also takes `positions`."""


@MODELS.register_module(force=True)
class ResNeXt(FunnelAware, PlacementAware, _ResNeXt):
    """`mmpretrain.ResNeXt`; `norm_cfg` also takes `positions`, and `act_cfg` FReLU."""


@MODELS.register_module(force=True)
class ResNet_CIFAR(FunnelAware, PlacementAware, _ResNet_CIFAR):  # noqa: N801
    """`mmpretrain.ResNet_CIFAR`; `norm_cfg` also takes `positions`, and `act_cfg` FReLU."""


@MODELS.register_module(force=True)
class MobileNetV2(PlacementAware, _MobileNetV2):
    """`mmpretrain.MobileNetV2`; a BNET `norm_cfg` also takes `positions`."""
