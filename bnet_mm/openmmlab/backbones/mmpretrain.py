"""MMPretrain's backbones, with BNET placed."""

from __future__ import annotations

from bnet_mm.openmmlab.backbones.placement_aware import placing_backbones

globals().update(placing_backbones('mmpretrain'))
