"""MMAction2's 2-D ResNets, placement-aware under their own names.

Their norms live in `ConvModule.bn`, and they load, and freeze, a norm by its own `weight`.
"""

from mmaction.models.backbones import ResNet as _ResNet
from mmaction.models.backbones import ResNetTSM as _ResNetTSM
from mmaction.registry import MODELS
from torch import Tensor, nn

from bnet_mm.backbones.placement_aware import PlacementAware
from bnet_mm.norm import EnhancedNorm


class _NormsByLayer:
    """Mixin: what the library does to a norm's `weight` and `bias`, done to a BNET."""

    @staticmethod
    def _load_bn_params(
        bn: nn.Module, state_dict_tv: dict[str, Tensor], module_name_tv: str, loaded: list[str]
    ) -> None:
        if not isinstance(bn, EnhancedNorm):
            _ResNet._load_bn_params(bn, state_dict_tv, module_name_tv, loaded)
            return
        prefix = f'{module_name_tv}.'
        found = {name: value for name, value in state_dict_tv.items() if name.startswith(prefix)}
        bn.load_state_dict({name[len(prefix) :]: value for name, value in found.items()})
        loaded.extend(found)

    def _partial_bn(self) -> None:
        norms = [m for m in self.modules() if isinstance(m, (EnhancedNorm, nn.BatchNorm2d))]
        statistics = {id(norm.norm) for norm in norms if isinstance(norm, EnhancedNorm)}
        if not statistics:
            super()._partial_bn()
            return
        for norm in [norm for norm in norms if id(norm) not in statistics][1:]:
            norm.eval()
            norm.requires_grad_(False)


@MODELS.register_module(force=True)
class ResNet(PlacementAware, _NormsByLayer, _ResNet):
    """`mmaction.ResNet`; a BNET `norm_cfg` also takes `positions`."""


@MODELS.register_module(force=True)
class ResNetTSM(PlacementAware, _NormsByLayer, _ResNetTSM):
    """`mmaction.ResNetTSM`; a BNET `norm_cfg` also takes `positions`."""
