"""MMSegmentation's backbones, placement-aware under their own names."""

from bnet_mm.openmmlab.backbones.placement_aware import register_backbones

globals().update(register_backbones('mmseg'))
