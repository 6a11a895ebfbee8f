"""Folds a trained model for inference, and keeps the result in a file that holds no code."""

from __future__ import annotations

from importlib.util import find_spec

from bnet_mm.deploy.fusing import fuse
from bnet_mm.deploy.structure import Fusion

__all__ = ['Fusion', 'fuse']

# A file is built from its config, which takes OpenMMLab's registries.
if find_spec('mmengine') is not None:
    from bnet_mm.deploy.storage import load, save

    __all__ += ['load', 'save']
