"""Reads a checkpoint file without running anything in it; every refusal of a file is raised here.

torch's `weights_only` unpickler reads, or before torch 2.6 one of ours, with the classes of
`ALLOWED` beside its own. Their errors do not say what to do, so a file is checked before, and one
that they refuse is examined afterwards.
"""

from __future__ import annotations

import argparse
import inspect
import json
import pickle
import pickletools
import re
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

import torch

from bnet_mm.checkpoint.unpickling import IGNORES_PICKLE_MODULE, load_by, pickle_module
from bnet_mm.errors import InputError

# Classes beyond tensors that a checkpoint may hold: torchvision's and timm's trainings keep their
# options, plain values, in the first; paths may be among them, and one of another system is no path
# that this one could open. Others may take them off torch's list again (torch's own
# `safe_globals` does, when it ends), so they are put there for each file.
ALLOWED: list = [
    argparse.Namespace,
    *(
        (kind, f'{module}.{name}')
        for module in ('pathlib', 'pathlib._local')  # the second since Python 3.13
        for kind, names in (
            (PurePosixPath, ('PosixPath', 'PurePosixPath', 'Path')),
            (PureWindowsPath, ('WindowsPath', 'PureWindowsPath')),
        )
        for name in names
    ),
]
# Whether torch's unpickler reads without running code: since 2.6 (CVE-2025-32434).
TRUSTED = tuple(map(int, torch.__version__.split('.')[:2])) >= (2, 6)
ZIP_START = b'PK\x03\x04'
# The last pickle protocol that torch reads without running code.
LAST_PROTOCOL = 3
# What torch says of a class it does not know, and of one that it knows to be dangerous.
ASKED = re.compile(r'GLOBAL (\S+) (?:was not an allowed global|whose module \S+ is blocked)')
# Enough of a pickle for its classes: they come before the numbers, which torch keeps outside of it.
PICKLE_HEAD = 1 << 20
HARMLESS = ('torch', 'collections')


def read_checkpoint(path: str | Path) -> object:
    """Returns the contents of the torch or safetensors file at `path`, its tensors on the CPU.

    Files of torch's present format and safetensors are memory-mapped: reading the keys alone costs
    no memory. A safetensors file gives `{'state_dict': tensors}`, and with it the `meta` that this
    package writes.

    Raises:
        InputError: there is no such file, it is cut off or no checkpoint, or it asks for a class
            that is not allowed.

    Examples:
        >>> from tempfile import NamedTemporaryFile
        >>> with NamedTemporaryFile(suffix='.pth') as file:
        ...     torch.save({'state_dict': {'fc.bias': torch.zeros(2)}}, file.name)
        ...     read_checkpoint(file.name)
        {'state_dict': {'fc.bias': tensor([0., 0.])}}
    """
    path, start = _start(path)
    zipped = start.startswith(ZIP_START)
    declared = int.from_bytes(start[:8], 'little')
    if path.suffix == '.safetensors' or (start[8:] == b'{' and declared < path.stat().st_size):
        return _read_safetensors(path)
    if zipped:
        _check_zip(path)
    elif _is_tar(path):
        raise InputError(
            f'checkpoint {path} is a tar archive, which torch cannot read safely: load it once '
            f'with the program it came from and save it again, or unpack it if it holds a file'
        )
    try:
        return _load(path, zipped)
    except pickle.UnpicklingError as error:
        raise InputError(_why_refused(path, str(error))) from error
    except Exception as error:
        # torch has no class of its own for the one; damaged bytes end in any exception: of the
        # unpickler, of the classes it may build, of zip.
        if isinstance(error, MemoryError) or 'allocate memory' in str(error):
            raise InputError(f'checkpoint {path} asks for more memory than there is') from error
        raise InputError(_broken(path)) from error


def _load(path: Path, zipped: bool) -> object:
    options: dict = dict(map_location='cpu')
    if 'mmap' in inspect.signature(torch.load).parameters:  # since torch 2.1
        options['mmap'] = zipped
    if TRUSTED:
        torch.serialization.add_safe_globals(ALLOWED)
        return torch.load(str(path), weights_only=True, **options)
    load = load_by if IGNORES_PICKLE_MODULE else torch.load
    return load(str(path), pickle_module=pickle_module(ALLOWED), weights_only=False, **options)


def _start(path: str | Path) -> tuple[Path, bytes]:
    """Returns the path, with the home directory filled in, and the first 9 bytes of the file."""
    try:
        path = Path(path).expanduser()
        if not path.is_file():
            what = (
                'a folder' if path.is_dir() else 'no regular file' if path.exists() else 'no file'
            )
            raise InputError(f'checkpoint {path}: there is {what} at {path.absolute()}')
        with path.open('rb') as file:
            return path, file.read(9)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, 'strerror', None) or error
        raise InputError(f'checkpoint {path} cannot be read: {reason}') from error


def _is_tar(path: Path) -> bool:
    try:
        return tarfile.is_tarfile(path)
    except (OSError, EOFError):  # of a compressed file that is cut off
        return False


def _check_zip(path: Path) -> None:
    """Refuses programs, and what torch never writes: entries larger than they are in the file."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except Exception as error:  # damaged bytes end in any exception
        raise InputError(_broken(path)) from error
    if any('/code/' in entry.filename for entry in entries):
        raise InputError(
            f'checkpoint {path} is a TorchScript program, which runs code when it is loaded: save '
            f'the state_dict of its model instead'
        )
    claimed = sum(entry.file_size for entry in entries)
    if claimed > path.stat().st_size or any(e.compress_type != zipfile.ZIP_STORED for e in entries):
        raise InputError(
            f'checkpoint {path} was refused: it is a compressed archive ({claimed} bytes when '
            f'unpacked), and torch writes none; if it holds a checkpoint, unpack that first'
        )


def _read_safetensors(path: Path) -> dict:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise InputError(
            f'checkpoint {path} needs the package safetensors: pip install safetensors'
        ) from error
    try:
        with safe_open(path, framework='pt', device='cpu') as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise InputError(_broken(path)) from error
    checkpoint: dict = {'state_dict': state}
    if 'meta' in metadata:
        try:
            checkpoint['meta'] = json.loads(metadata['meta'])
        except (ValueError, RecursionError) as error:
            raise InputError(f"checkpoint {path}: its entry 'meta' is not JSON") from error
    return checkpoint


def _broken(path: Path) -> str:
    return (
        f'checkpoint {path} cannot be read ({path.stat().st_size} bytes): it is cut off or no '
        f'torch checkpoint; fetch or save it again'
    )


def _why_refused(path: Path, message: str) -> str:
    """Returns what is wrong with a file of which torch's unpickler said `message`."""
    found = ASKED.search(message)
    pickled = _pickle_head(path)
    # torch does not look for classes in pickles of other protocols than its own.
    asked = found[1] if found else _foreign_class(pickled)
    if asked:
        return (
            f'checkpoint {path} was refused: it asks for {asked}, and loading that could run code '
            f'from the file'
        )
    protocol = pickled[1] if pickled[:1] == pickle.PROTO and len(pickled) > 1 else 0
    if LAST_PROTOCOL < protocol <= pickle.HIGHEST_PROTOCOL:
        return (
            f'checkpoint {path} is pickled in protocol {protocol}, which torch cannot read safely: '
            f'load it once with the program it came from and save it without pickle_protocol'
        )
    return _broken(path)


def _pickle_head(path: Path) -> bytes:
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                entry = next(n for n in archive.namelist() if n.endswith('data.pkl'))
                with archive.open(entry) as file:
                    return file.read(PICKLE_HEAD)
        with path.open('rb') as file:
            return file.read(PICKLE_HEAD)
    except Exception:  # damaged bytes end in any exception; there is no pickle in them
        return b''


def _foreign_class(pickled: bytes) -> str | None:
    """Returns the first class or function, neither torch's nor allowed, that a pickle names."""
    allowed = {
        entry[1] if isinstance(entry, tuple) else f'{entry.__module__}.{entry.__qualname__}'
        for entry in ALLOWED
    }
    for name in _names(pickled):
        known = name in allowed or name.rpartition('.')[0] in allowed  # a method of an allowed one
        if name.partition('.')[0] not in HARMLESS and not known:
            return name
    return None


def _names(pickled: bytes) -> Iterator[str]:
    """Yields what a pickle would import, without loading it."""
    texts: list[str] = []
    memo: list[str | None] = []  # protocol 4 writes a text once, and then the number it had
    last = None
    try:
        for opcode, argument, _ in pickletools.genops(pickled):
            if opcode.name in ('GLOBAL', 'INST'):
                yield str(argument).replace(' ', '.')
            elif opcode.name == 'STACK_GLOBAL' and len(texts) > 1:
                yield '.'.join(texts[-2:])
            elif isinstance(argument, str):
                texts.append(argument)
            elif opcode.name == 'MEMOIZE':
                memo.append(last)
            elif opcode.name in ('BINGET', 'LONG_BINGET') and isinstance(argument, int):
                text = memo[argument] if argument < len(memo) else None
                texts += [text] if text else []
            last = argument if isinstance(argument, str) else None
    except Exception:
        return  # no pickle, or the rest of one
