"""Writes a checkpoint file atomically, and hashes files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch

from bnet_mm.checkpoint.atomic import write_whole
from bnet_mm.errors import InputError
from bnet_mm.kernels.versions import storage_of

FORMATS = ('.pth', '.pt', '.safetensors')


def sha256(path: str | Path) -> str:
    """Returns the SHA-256 of a file as hexadecimal digits."""
    digest = hashlib.sha256()
    with Path(path).open('rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def check_target(path: str | Path, force: bool = False) -> Path:
    """Returns `path` if a checkpoint can be written there, before work is spent on its contents.

    Raises:
        InputError: its suffix is unknown, its folder is missing, or it exists (a file may with
            `force`).
    """
    try:
        path = Path(path).expanduser()
        if path.suffix not in FORMATS:
            raise InputError(f'{path}: a checkpoint is written as {", ".join(FORMATS)}')
        if not path.parent.is_dir():
            folder = path.parent.absolute()
            raise InputError(f'{path} cannot be written: there is no folder {folder}')
        if path.exists() and not path.is_file():
            raise InputError(f'{path} is not a regular file: choose another name')
        if path.exists() and not force:
            raise InputError(f'{path} exists already and was kept: choose another name, or --force')
    except (OSError, RuntimeError) as error:
        raise InputError(f'{path} cannot be written: {_reason(error)}') from error
    return path


def write_checkpoint(
    checkpoint: dict, path: str | Path, force: bool = False, hashed: bool = False
) -> Path:
    """Writes `{'state_dict': tensors, 'meta': ...}` to `path`, in the format of its suffix.

    The write is atomic: a reader sees no file, the old one or the whole new one. A safetensors file
    keeps of `meta` what JSON can hold (a tuple becomes a list), and of other entries nothing.

    Args:
        checkpoint: what to write.
        path: file to write.
        force: whether a file that is there may be replaced.
        hashed: puts the first 8 digits of the file's SHA-256 before the suffix, as OpenMMLab does.

    Returns:
        The file that was written.

    Raises:
        InputError: as in `check_target`, or the file cannot be written.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     state = {'fc.bias': torch.zeros(2)}
        ...     write_checkpoint({'state_dict': state}, f'{folder}/classifier.pth').name
        'classifier.pth'
    """
    path = check_target(path, force or hashed)
    save = _save_safetensors if path.suffix == '.safetensors' else _save_torch

    def hashed_name(part: Path) -> Path:
        return check_target(path.with_name(f'{path.stem}-{sha256(part)[:8]}{path.suffix}'), force)

    try:
        return write_whole(
            path, lambda part: save(checkpoint, part), hashed_name if hashed else None
        )
    except (OSError, RuntimeError) as error:
        raise InputError(
            f'{path} could not be written ({_reason(error)}) and nothing was left behind: look at '
            f'the space and the permissions of {path.parent.absolute()}'
        ) from error


def _reason(error: BaseException) -> str:
    """Returns what the system said; torch's own error comes after it and names a line of C++."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__context__
    return str(error).splitlines()[0]


def _save_torch(checkpoint: dict, part: Path) -> None:
    # Given a name, torch puts it into the file, and the same contents would hash differently.
    with part.open('wb') as file:
        torch.save(checkpoint, file)


def _save_safetensors(checkpoint: dict, part: Path) -> None:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import save_file
    except ImportError as error:
        raise InputError(
            'a .safetensors file needs the package safetensors: pip install safetensors'
        ) from error
    metadata = {'format': 'pt'}
    meta = {key: value for key, value in checkpoint.get('meta', {}).items() if _as_json(value)}
    if meta:
        metadata['meta'] = json.dumps(meta)
    # The format takes no two names for one memory, and nothing that is not contiguous.
    seen, tensors = set(), {}
    for name, value in checkpoint['state_dict'].items():
        memory = storage_of(value).data_ptr()
        tensors[name] = value.clone() if memory in seen else value
        tensors[name] = tensors[name].contiguous()
        seen.add(memory)
    try:
        save_file(tensors, part, metadata=metadata)
    except SafetensorError as error:
        raise OSError(str(error)) from error


def _as_json(value: object) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True
