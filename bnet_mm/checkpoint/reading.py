"""Reads a checkpoint file without running anything in it."""

import argparse
import json
import pickle
import re
import tarfile
import zipfile
from pathlib import Path

import torch

from bnet_mm.checkpoint.pickled import foreign_class, pickle_protocol
from bnet_mm.errors import InputError

# Classes beyond tensors that a checkpoint may hold: trainings of torchvision and timm keep their
# options, plain values, in that one. Others may take them off torch's list again (torch's own
# `safe_globals` does, when it ends), so they are put there for each file.
ALLOWED: list = [argparse.Namespace]
ZIP_START = b'PK\x03\x04'
# The last pickle protocol that torch reads without running code.
LAST_PROTOCOL = 3
# What torch says of a class it does not know, and of one that it knows to be dangerous.
ASKED = re.compile(r'GLOBAL (\S+) (?:was not an allowed global|whose module \S+ is blocked)')


def read_checkpoint(path: str | Path) -> object:
    """Returns what is in the torch or safetensors file at `path`, its tensors on the CPU.

    Files of torch's present format and safetensors are mapped, not read: a look at the keys costs
    no memory. A safetensors file gives `{'state_dict': tensors}`, and with it the `meta` that this
    package writes.

    Raises:
        InputError: there is no such file, it is cut off or no checkpoint, or it asks for a class
            beyond tensors and mmengine's own records.
    """
    path, start = _start(path)
    if path.suffix == '.safetensors' or _starts_safetensors(start, path.stat().st_size):
        return _read_safetensors(path)
    if start.startswith(ZIP_START):
        _check_zip(path)
    elif _is_tar(path):
        raise InputError(
            f'checkpoint {path} is a tar archive, which torch cannot read safely: load it once '
            f'with the program it came from and save it again, or unpack it if it holds a file'
        )
    try:
        torch.serialization.add_safe_globals(ALLOWED)
        return torch.load(
            path, map_location='cpu', weights_only=True, mmap=start.startswith(ZIP_START)
        )
    except pickle.UnpicklingError as error:
        found = ASKED.search(str(error))
        # Of pickles in other protocols than its own torch says that they are none.
        asked = found[1] if found else foreign_class(path, _allowed_names())
        if asked:
            raise InputError(
                f'checkpoint {path} was refused: it asks for {asked}, and loading that could run '
                f'code from the file'
            ) from error
        protocol = pickle_protocol(path)
        if LAST_PROTOCOL < protocol <= pickle.HIGHEST_PROTOCOL:
            raise InputError(
                f'checkpoint {path} is pickled in protocol {protocol}, which torch cannot read '
                f'safely: load it once with the program it came from and save it without '
                f'pickle_protocol'
            ) from error
        raise InputError(_broken(path)) from error
    except Exception as error:
        # Torch has no class of its own for that.
        if isinstance(error, MemoryError) or 'allocate memory' in str(error):
            raise InputError(f'checkpoint {path} asks for more memory than there is') from error
        # Damaged bytes end in any exception: of the unpickler, of the classes it may build, of zip.
        raise InputError(_broken(path)) from error


def _allowed_names() -> set[str]:
    return {
        entry[1] if isinstance(entry, tuple) else f'{entry.__module__}.{entry.__qualname__}'
        for entry in ALLOWED
    }


def _start(path: str | Path) -> tuple[Path, bytes]:
    """Returns the path, the user's folder filled in, and the first bytes of the file there."""
    try:
        path = Path(path).expanduser()
        if not path.is_file():
            what = 'a folder' if path.is_dir() else 'no file'
            if path.exists() and not path.is_dir():
                what = 'no regular file'
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


def _starts_safetensors(start: bytes, size: int) -> bool:
    return start[8:9] == b'{' and int.from_bytes(start[:8], 'little') < size


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


def _check_zip(path: Path) -> None:
    """Refuses what torch never writes: entries that unpack to more than the file holds."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except Exception as error:
        # As in the reading itself.
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


def _broken(path: Path) -> str:
    size = path.stat().st_size
    return (
        f'checkpoint {path} cannot be read ({size} bytes): it is cut off or no torch checkpoint; '
        f'fetch or save it again'
    )
