"""BNET (arXiv 2011.14150), batch normalization with an enhanced linear transformation.

With torch alone this gives the layers and `enhance`. Where mmengine is installed, importing the
package also makes `norm_cfg=dict(type='BNET', k=5)` work in every OpenMMLab library.
"""

from __future__ import annotations

from importlib.util import find_spec

from bnet_mm.version import __version__, check_torch

check_torch()  # before what needs it
# ruff: noqa: E402
from bnet_mm.layers import BNET, GNET, INET, SNET, SyncBNET
from bnet_mm.models.placement import enhance
from bnet_mm.models.residual_blocks import join_ends, split_ends

__all__ = [
    'BNET',
    'GNET',
    'INET',
    'SNET',
    'SyncBNET',
    '__version__',
    'enhance',
    'join_ends',
    'split_ends',
]

if find_spec('mmengine') is not None:
    from bnet_mm.openmmlab import registration

    registration.register()
