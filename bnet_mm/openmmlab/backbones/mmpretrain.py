"""MMPretrain's backbones that can have funnel activations."""

from __future__ import annotations

from bnet_mm.openmmlab.backbones.funnel_aware import funnel_backbones

globals().update(funnel_backbones('mmpretrain'))
