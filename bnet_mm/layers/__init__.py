"""The layer and its arithmetic. Needs torch alone."""

from torch import nn

from bnet_mm.layers.bnet import BNET, SyncBNET
from bnet_mm.layers.control import BNReLUConv
from bnet_mm.layers.depthwise import DepthwiseTransform
from bnet_mm.layers.enhanced import EnhancedNorm
from bnet_mm.layers.family import GNET, INET, SNET
from bnet_mm.layers.switchable import SwitchNorm2d

__all__ = [
    'BNET',
    'GNET',
    'INET',
    'SNET',
    'BNReLUConv',
    'DepthwiseTransform',
    'EnhancedNorm',
    'SwitchNorm2d',
    'SyncBNET',
    'is_norm',
    'is_plain_norm',
]  # fmt: skip

PLAIN_NORMS = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.GroupNorm,
    SwitchNorm2d,
)


def is_plain_norm(module: nn.Module) -> bool:
    """Tells whether a module normalizes maps, with at most one scale and shift for a channel."""
    return isinstance(module, PLAIN_NORMS)


def is_norm(module: nn.Module) -> bool:
    """Tells whether a module stands in the place of a norm, plain or of this package."""
    return isinstance(module, (*PLAIN_NORMS, EnhancedNorm, BNReLUConv))
