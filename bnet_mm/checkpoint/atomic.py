"""Atomic writes: a file appears whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from tempfile import NamedTemporaryFile

from bnet_mm.errors import InputError


def check_writable(path: Path) -> None:
    """Raises InputError unless `path` can be written, to be called before the work is done."""
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK) or path.is_dir():
        raise InputError(f'{path} cannot be written: name a file in a folder that can')


def write_whole(
    path: Path,
    write: Callable[[Path], object],
    name: Callable[[Path], Path] | None = None,
) -> Path:
    """Calls `write` with an empty file beside `path`, which then takes the place of `path`.

    A reader sees the old file or the whole new one. On an exception nothing is left behind.

    Args:
        path: the file to write.
        write: fills the file it is given.
        name: tells the path from the written file, where it depends on the contents.

    Returns:
        The file that was written.
    """
    if path.is_symlink():  # what it points to is written, and the link stays
        path = path.resolve()
    with NamedTemporaryFile(
        dir=path.parent, prefix=f'.{path.name}.', suffix='.part', delete=False
    ) as file:
        part = Path(file.name)
    try:
        write(part)
        with part.open('rb+') as file:  # Windows syncs only what may be written
            os.fsync(file.fileno())
        part.chmod(0o666 & ~_umask())
        path = path if name is None else name(part)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return path


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
