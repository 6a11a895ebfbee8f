"""Closes gaps of upstream releases that would stop users of BNET.

Each function closes one gap, names where it comes from and can be removed alone.
"""

import pickle
import sys
from functools import partial
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import mmengine.utils.dl_utils
import numpy as np
import torch
from mmengine.fileio import LocalBackend, register_backend
from mmengine.logging import HistoryBuffer
from torch import nn
from torch.hub import load_state_dict_from_url
from torch.nn.parallel import DistributedDataParallel

from bnet_mm.checkpoint.atomic import write_whole
from bnet_mm.checkpoint.reading import ALLOWED
from bnet_mm.kernels.statistics import synchronized_batch_norm


def apply() -> None:
    """Closes every gap; called once, by `import bnet_mm`."""
    allow_mmengine_checkpoints()
    download_weights_only()
    write_files_whole()
    complete_mmaction()
    synchronize_on_cpu()


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
            # Under numpy 2's path and under numpy 1's, which older files name.
            (np._core.multiarray.scalar, 'numpy._core.multiarray.scalar'),
            (np._core.multiarray.scalar, 'numpy.core.multiarray.scalar'),
            (np._core.multiarray._reconstruct, 'numpy._core.multiarray._reconstruct'),
            (np._core.multiarray._reconstruct, 'numpy.core.multiarray._reconstruct'),
        ]
    )
    torch.serialization.add_safe_globals(ALLOWED)


def _history_statistic(owner: type, name: str):
    """Stands for `getattr` in a checkpoint, where `HistoryBuffer` pickles its statistics by it."""
    if owner is HistoryBuffer and name in ('min', 'max', 'mean', 'current'):
        return getattr(HistoryBuffer, name)
    raise pickle.UnpicklingError(
        f'GLOBAL builtins.getattr was not an allowed global for {name!r} of {owner!r}'
    )


def download_weights_only() -> None:
    """Makes mmengine load downloaded files with `weights_only=True`.

    mmengine's `load_url` is torch.hub's, whose own default still runs code from the file.
    """
    safe = partial(load_state_dict_from_url, weights_only=True)
    mmengine.utils.dl_utils.load_url = safe
    if 'mmengine.runner.checkpoint' in sys.modules:
        sys.modules['mmengine.runner.checkpoint'].load_url = safe


def write_files_whole() -> None:
    """Makes mmengine's local files appear whole or not at all.

    mmengine 0.10.7 writes a checkpoint straight to its final name, again over the old one when it
    is also the best: a job killed there leaves half a file where the last good one was.
    """
    register_backend('local', WholeFileBackend, force=True, prefixes='')


class WholeFileBackend(LocalBackend):
    """mmengine's local file backend that writes beside the target and then renames."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Writes `obj` to `filepath`; a reader sees the old file or the whole new one."""
        path = Path(filepath)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, lambda part: part.write_bytes(obj))

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        """Writes the text `obj` to `filepath`; a reader sees the old file or the whole new one."""
        self.put(obj.encode(encoding), filepath)


def complete_mmaction() -> None:
    """Lets mmaction2 import where its wheel lacks `mmaction.models.localizers.drn`.

    The wheel of 1.2.0 leaves that package out and imports it all the same
    (open-mmlab/mmaction2#2714). The stand-in comes last in the import path, so that an installation
    that is whole uses its own.
    """
    sys.meta_path.append(_MissingLocalizer())


def synchronize_on_cpu() -> None:
    """Lets torch's SyncBatchNorm train on CPUs, for the norms beside BNET.

    torch 2.11 refuses CPU tensors as soon as processes are there, and its DistributedDataParallel a
    network on CPUs with such a layer, so that none can be tried with gloo. On other devices nothing
    changes.
    """
    nn.SyncBatchNorm.forward = synchronized_batch_norm
    check = DistributedDataParallel._passing_sync_batchnorm_handle

    def check_devices_but_cpu(self: DistributedDataParallel, module: nn.Module) -> None:
        if self.device_type != 'cpu':
            check(self, module)

    DistributedDataParallel._passing_sync_batchnorm_handle = check_devices_but_cpu


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
