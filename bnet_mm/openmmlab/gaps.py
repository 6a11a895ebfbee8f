"""Closes gaps of upstream releases: what was an error works, and nothing else changes.

Each function closes one gap, names where it comes from and can be removed alone.
"""

from __future__ import annotations

import os
import pickle
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

from bnet_mm.checkpoint.reading import ALLOWED, TRUSTED


def apply() -> None:
    """Closes every gap; called once, by `import bnet_mm`.

    `BNET_MM_COMPAT=0` in the environment leaves them open.
    """
    if os.environ.get('BNET_MM_COMPAT') != '0':
        allow_mmengine_checkpoints()
        complete_mmaction()


def allow_mmengine_checkpoints() -> None:
    """Lets `torch.load(weights_only=True)` read what mmengine's Runner writes.

    Since torch 2.6 that is the default, and mmengine 0.10.7 cannot resume from its own checkpoints
    (open-mmlab/mmengine#1655): they hold its log history and numpy scalars. These classes are
    allowed by name; anything else in a file is still refused.
    """
    numpy_dtypes = {type(np.dtype(code)) for code in '?bBhHiIlLqQefdg'}
    ALLOWED.extend(
        [
            HistoryBuffer,
            (_history_statistic, 'builtins.getattr'),
            np.ndarray,
            np.dtype,
            *numpy_dtypes,
            # Under numpy 2's path and under numpy 1's, whichever wrote the file.
            *(
                (value.__reduce__()[0], f'numpy.{core}.multiarray.{name}')
                for value, name in ((np.float32(0), 'scalar'), (np.zeros(1), '_reconstruct'))
                for core in ('_core', 'core')
            ),
        ]
    )
    if TRUSTED:
        torch.serialization.add_safe_globals(ALLOWED)


def _history_statistic(owner: type, name: str):
    """Stands for `getattr` in a checkpoint, where `HistoryBuffer` pickles its statistics by it."""
    if owner is HistoryBuffer and name in ('min', 'max', 'mean', 'current'):
        return getattr(HistoryBuffer, name)
    raise pickle.UnpicklingError(
        f'GLOBAL builtins.getattr was not an allowed global for {name!r} of {owner!r}'
    )


def complete_mmaction() -> None:
    """Lets mmaction2 import where its wheel lacks `mmaction.models.localizers.drn`.

    The wheel of 1.2.0 leaves that package out and imports it all the same
    (open-mmlab/mmaction2#2714). The stand-in comes last in the import path, so that an installation
    that is whole uses its own.
    """
    sys.meta_path.append(_MissingLocalizer())


class _MissingLocalizer(MetaPathFinder, Loader):
    """Finds the absent package with a `DRN` that says where to get it when it is built."""

    PACKAGE = 'mmaction.models.localizers.drn'

    def find_spec(self, fullname: str, path=None, target=None) -> ModuleSpec | None:
        if fullname not in (self.PACKAGE, f'{self.PACKAGE}.drn'):
            return None
        return ModuleSpec(fullname, self, is_package=fullname == self.PACKAGE)

    def exec_module(self, module: ModuleType) -> None:
        if module.__name__ != self.PACKAGE:
            module.DRN = _MissingDRN


class _MissingDRN:
    def __init__(self, *args, **kwargs):
        raise ImportError(
            'DRN is not in the mmaction2 that is installed: its wheel was published without it '
            '(open-mmlab/mmaction2#2714); install mmaction2 from its source repository'
        )
