"""The layer and its arithmetic. Needs torch alone."""

from bnet_mm.norm.bnet import BNET, SyncBNET
from bnet_mm.norm.depthwise import DepthwiseTransform
from bnet_mm.norm.enhanced import EnhancedNorm

__all__ = ['BNET', 'DepthwiseTransform', 'EnhancedNorm', 'SyncBNET']
