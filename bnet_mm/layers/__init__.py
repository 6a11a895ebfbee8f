"""The layers, as torch modules; they need torch alone."""

from __future__ import annotations

from bnet_mm.layers.bnet import BNET, SyncBNET
from bnet_mm.layers.control import BNControl
from bnet_mm.layers.depthwise import DepthwiseTransform
from bnet_mm.layers.enhanced import EnhancedNorm
from bnet_mm.layers.family import GNET, INET, SNET
from bnet_mm.layers.kinds import is_norm, named_norms
from bnet_mm.layers.switchable import SwitchNorm2d

__all__ = [
    'BNET',
    'GNET',
    'INET',
    'SNET',
    'BNControl',
    'DepthwiseTransform',
    'EnhancedNorm',
    'SwitchNorm2d',
    'SyncBNET',
    'is_norm',
    'named_norms',
]  # fmt: skip
