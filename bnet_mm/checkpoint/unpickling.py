"""A restricted unpickler, for releases of torch whose own cannot be trusted.

Before torch 2.6 `torch.load(weights_only=True)` could be made to run code (CVE-2025-32434), and has
no list of further classes. `torch.load` takes another module in the place of `pickle`: this one
finds what is on a list and nothing else, and sets no attributes but those of allowed records.
"""

from __future__ import annotations

import codecs
import collections
import pickle
import types
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, ClassVar

import torch

# What torch writes: tensors, parameters and what they are of. Not `_load_from_bytes`, which is a
# `torch.load` of its own.
_REBUILDING = {
    f'{module}.{name}': getattr(owner, name)
    for module, owner, names in (
        (
            'torch._utils',
            torch._utils,
            (
                *('_rebuild_tensor', '_rebuild_tensor_v2', '_rebuild_tensor_v3'),
                *('_rebuild_parameter', '_rebuild_parameter_with_state'),
                *('_rebuild_sparse_tensor', '_rebuild_sparse_csr_tensor', '_rebuild_qtensor'),
                *('_rebuild_meta_tensor_no_storage', '_rebuild_device_tensor_from_numpy'),
            ),
        ),
        ('torch', torch, ('Size', 'device')),
        ('torch.nn.parameter', torch.nn.parameter, ('Parameter',)),
    )
    for name in names
    if hasattr(owner, name)
}
_DTYPES = {
    f'torch.{key}': value for key, value in vars(torch).items() if type(value) is torch.dtype
}
_PLAIN: dict[str, object] = {
    'collections.OrderedDict': collections.OrderedDict,
    'collections.Counter': collections.Counter,
    'collections.defaultdict': collections.defaultdict,
    'builtins.set': set,
    'builtins.complex': complex,
    'builtins.dict': dict,
    'builtins.list': list,
    'builtins.int': int,
    'builtins.float': float,
}
# Python 2 called it so, and so does every pickle of protocol 2.
_BUILTINS = {'__builtin__': 'builtins'}


# torch 1.13 takes a `pickle_module`, and reads with Python's own all the same.
IGNORES_PICKLE_MODULE = torch.__version__.startswith('1.13')


def load_by(
    path: str, pickle_module: types.ModuleType, map_location: str, weights_only: bool
) -> object:
    """Does what `torch.load` of torch 1.13 should do with these arguments."""
    own = torch.serialization
    with Path(path).open('rb') as file:
        if not own._is_zipfile(file):
            return own._legacy_load(file, map_location, pickle_module, encoding='utf-8')
        with own._open_zipfile_reader(file) as archive:
            return own._load(archive, map_location, pickle_module, encoding='utf-8')


def pickle_module(allowed: Iterable) -> types.ModuleType:
    """Returns what `torch.load` takes as its `pickle_module`.

    Args:
        allowed: classes and functions beyond torch's, as `torch.serialization.add_safe_globals`
            takes them: each itself, or a pair of it and its name in files.
    """
    found = {**_PLAIN, **_DTYPES, **_REBUILDING, '_codecs.encode': _encode}
    for entry in allowed:
        value, name = entry if isinstance(entry, tuple) else (entry, None)
        found[name or f'{value.__module__}.{value.__qualname__}'] = value
    records = {value for value in found.values() if isinstance(value, type)}
    module = types.ModuleType('bnet_mm_restricted_pickle')

    class Unpickler(_Restricted):
        names, classes = found, records

    def load(file: IO[bytes], **options: Any) -> object:
        return Unpickler(file, **options).load()

    module.Unpickler, module.load = Unpickler, load  # type: ignore[attr-defined]
    return module


# In Python and not C, since what BUILD does has to be replaced.
class _Restricted(pickle._Unpickler):
    names: dict[str, object]
    classes: set[type]
    dispatch: ClassVar[dict] = dict(pickle._Unpickler.dispatch)
    stack: Any

    def find_class(self, module: str, name: str) -> object:
        full = f'{_BUILTINS.get(module, module)}.{name}'
        if full not in self.names:
            raise pickle.UnpicklingError(f'GLOBAL {full} was not an allowed global')
        return self.names[full]

    def load_build(self) -> None:
        """Sets the state of a record: never of a class or a function, which are everybody's."""
        state = self.stack.pop()
        record = self.stack[-1]
        if type(record) not in self.classes:
            raise pickle.UnpicklingError(f'a state was given to a {type(record).__name__}')
        if isinstance(record, torch.Tensor):
            raise pickle.UnpicklingError('a state was given to a tensor')
        own = getattr(record, '__setstate__', None)
        if own is not None:
            own(state)
        elif isinstance(state, dict) and all(type(key) is str for key in state):
            vars(record).update(state)
        else:
            raise pickle.UnpicklingError(f'a {type(record).__name__} has a state of another kind')

    dispatch[pickle.BUILD[0]] = load_build

    def get_extension(self, code: int) -> None:
        """Refuses a name by number, from a table that this process keeps."""
        raise pickle.UnpicklingError('a number stands for a class')

    def persistent_load(self, identity: object) -> object:
        """Refuses what torch has not put its own reading of storages in the place of."""
        raise pickle.UnpicklingError('a storage stands where none can be')


def _encode(text: str, encoding: str = 'utf-8', errors: str = 'strict') -> bytes:
    """Stands for `codecs.encode`, by which protocol 2 writes bytes; other codecs do more."""
    if type(text) is not str or encoding not in ('latin1', 'latin-1', 'utf-8'):
        raise pickle.UnpicklingError('GLOBAL _codecs.encode was not an allowed global')
    return codecs.encode(text, encoding)
