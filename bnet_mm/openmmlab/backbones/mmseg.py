"""MMSegmentation's ResNet family and MobileNetV2, placement-aware under its own names."""

from mmseg.models.backbones import MobileNetV2 as _MobileNetV2
from mmseg.models.backbones import ResNet as _ResNet
from mmseg.models.backbones import ResNetV1c as _ResNetV1c
from mmseg.models.backbones import ResNetV1d as _ResNetV1d
from mmseg.models.backbones import ResNeXt as _ResNeXt
from mmseg.registry import MODELS

from bnet_mm.openmmlab.backbones.placement_aware import PlacementAware


@MODELS.register_module(force=True)
class ResNet(PlacementAware, _ResNet):
    """`mmseg.ResNet`; a BNET `norm_cfg` also takes `positions`."""


@MODELS.register_module(force=True)
class ResNetV1c(PlacementAware, _ResNetV1c):
    """`mmseg.ResNetV1c`; a BNET `norm_cfg` also takes `positions`."""


@MODELS.register_module(force=True)
class ResNetV1d(PlacementAware, _ResNetV1d):
    """`mmseg.ResNetV1d`; a BNET `norm_cfg` also takes `positions`."""


@MODELS.register_module(force=True)
class ResNeXt(PlacementAware, _ResNeXt):
    """`mmseg.ResNeXt`; a BNET `norm_cfg` also takes `positions`."""


@MODELS.register_module(force=True)
class MobileNetV2(PlacementAware, _MobileNetV2):
    """`mmseg.MobileNetV2`; a BNET `norm_cfg` also takes `positions`."""
