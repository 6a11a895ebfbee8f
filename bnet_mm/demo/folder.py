"""Writes a drawn dataset as a whole folder or not at all, and never over something else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp

from bnet_mm.errors import InputError

MARK = 'drawn_by_bnet_mm.json'


def write_folder(folder: str | Path, recipe: dict, draw: Callable[[Path], None]) -> Path:
    """Lets `draw` fill a new folder, puts it in the place of `folder`, and returns that.

    A folder that was drawn by the same `recipe` is kept as it is; one that was drawn by another is
    replaced; an interrupted drawing leaves nothing.

    Args:
        folder: the dataset's folder.
        recipe: everything that the files follow from; it is written beside them.
        draw: writes the files below the path it is given.

    Raises:
        InputError: `folder` holds something that was not drawn here, or cannot be written.
    """
    folder = Path(folder)
    mark = folder / MARK
    if mark.is_file() and json.loads(mark.read_text()) == recipe:
        return folder
    if folder.exists() and not folder.is_dir():
        raise InputError(f'{folder} is a file; name a folder')
    if folder.is_dir() and any(folder.iterdir()) and not mark.is_file():
        raise InputError(
            f'{folder} holds something that was not drawn here, and is left as it is; name another '
            f'folder'
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(mkdtemp(prefix=f'.{folder.name}.', dir=folder.parent))
    except OSError as error:
        raise InputError(f'{folder} cannot be written: {error}; name another folder') from error
    try:
        part.chmod(0o755)
        draw(part)
        (part / MARK).write_text(json.dumps(recipe))
        if folder.exists():
            shutil.rmtree(folder)
        part.rename(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return folder
