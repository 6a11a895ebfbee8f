"""MMDetection's ResNet family and MobileNetV2, placement-aware under its own names."""

from mmdet.models.backbones import MobileNetV2 as _MobileNetV2
from mmdet.models.backbones import ResNet as _ResNet
from mmdet.models.backbones import ResNetV1d as _ResNetV1d
from mmdet.models.backbones import ResNeXt as _ResNeXt
from mmdet.registry import MODELS

from bnet_mm.openmmlab.backbones.funnel_aware import FunnelAware
from bnet_mm.openmmlab.backbones.placement_aware import PlacementAware


@MODELS.register_module(force=True)
class ResNet(FunnelAware, PlacementAware, _ResNet):
    """`mmdet.ResNet`; `norm_cfg` also takes `positions`, and `act_cfg` FReLU."""


@MODELS.register_module(force=True)
class ResNetV1d(PlacementAware, _ResNetV1d):
    """`mmdet.ResNetV1d`; a BNET `norm_cfg` also takes `positions`."""


@MODELS.register_module(force=True)
class ResNeXt(FunnelAware, PlacementAware, _ResNeXt):
    """`mmdet.ResNeXt`; `norm_cfg` also takes `positions`, and `act_cfg` FReLU."""


@MODELS.register_module(force=True)
class MobileNetV2(PlacementAware, _MobileNetV2):
    """`mmdet.MobileNetV2`; a BNET `norm_cfg` also takes `positions`."""
