"""Reads a checkpoint file without running anything in it."""

import pickle
import re
import zipfile
from pathlib import Path

import torch

from bnet_mm.errors import InputError


def read_checkpoint(path: str | Path) -> object:
    """Returns what is in the torch file at `path`, its tensors on the CPU.

    Files of torch's present format are mapped, not read: a look at the keys costs no memory.

    Raises:
        InputError: there is no such file, it is cut off or no torch file, or it asks for a class
            beyond tensors and mmengine's own records.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        what = 'a folder' if path.is_dir() else 'no file'
        raise InputError(f'checkpoint {path}: there is {what} at {path.absolute()}')
    try:
        return torch.load(
            path, map_location='cpu', weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except pickle.UnpicklingError as error:
        asked = re.search(r'GLOBAL (\S+) was not an allowed global', str(error))
        if asked:
            raise InputError(
                f'checkpoint {path} was refused: it asks for {asked[1]}, and loading that could '
                f'run code from the file'
            ) from error
        raise InputError(_broken(path)) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise InputError(_broken(path)) from error


def _broken(path: Path) -> str:
    size = path.stat().st_size
    return (
        f'checkpoint {path} cannot be read ({size} bytes): it is cut off or no torch checkpoint; '
        f'fetch or save it again'
    )
