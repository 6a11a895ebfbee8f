"""What MMAction2's 2-D ResNets do to norms, done to BNET.

Their norms live in `ConvModule.bn`, and they load, and freeze, a norm by its own `weight`.
"""

from __future__ import annotations

from mmengine.logging import MMLogger
from mmengine.runner import load_checkpoint
from torch import nn

from bnet_mm.layers import EnhancedNorm
from bnet_mm.openmmlab.placing import Placed


class PlacedInMMAction(Placed):
    """A network with BNET whose library goes by each norm's `weight` and `bias`."""

    def _load_torchvision_checkpoint(self, logger: MMLogger | None = None) -> None:
        # The library knows torchvision's names of plain norms, and passes over what it does not
        # find: another file, of a classifier say, would silently leave the start random.
        load_checkpoint(self, self.pretrained, map_location='cpu', logger=logger)

    def load_original_weights(self, logger: MMLogger | None = None) -> None:
        """Loads `pretrained`, under torchvision's or any other known names (ResNetTSM only)."""
        load_checkpoint(self, self.pretrained, map_location='cpu', logger=logger)

    def _partial_bn(self) -> None:
        norms = [m for m in self.modules() if isinstance(m, (EnhancedNorm, nn.BatchNorm2d))]
        statistics = {id(norm.norm) for norm in norms if isinstance(norm, EnhancedNorm)}
        if not statistics:
            super()._partial_bn()
            return
        for norm in [norm for norm in norms if id(norm) not in statistics][1:]:
            norm.eval()
            norm.requires_grad_(False)
