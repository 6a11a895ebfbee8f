"""A cache of results, so that an interrupted report continues where it stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from bnet_mm.checkpoint.atomic import write_whole
from bnet_mm.errors import InputError
from bnet_mm.version import __version__


class Kept:
    """A folder of results, each in a file that is named by what it was made from.

    Args:
        folder: where; made if it is missing.
        say: is told what is being done.

    Raises:
        InputError: the folder cannot be made.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]):
        self.folder, self.say = folder, say
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f'the folder {folder} cannot be made: {error}') from error

    def get(self, name: str, made_from: object, what: str, make: Callable[[], object]) -> object:
        """Returns a result that was kept, or makes and keeps it.

        Args:
            name: of the part.
            made_from: everything the result depends on, in JSON's types.
            what: the work in words.
            make: does it; what it returns must be of JSON's types.
        """
        file = self.folder / f'{name}-{digest(made_from)}.json'
        try:
            kept = json.loads(file.read_text(encoding='utf-8'))
        except (OSError, ValueError):
            self.say(what)
        else:
            self.say(f'{what}: kept from before')
            return kept
        made = make()
        text = json.dumps(made)
        try:
            write_whole(file, lambda part: part.write_text(text, encoding='utf-8'))
        except OSError as error:
            raise InputError(f'{file} cannot be written: {error.strerror or error}') from error
        return json.loads(text)


def digest(made_from: object) -> str:
    """Returns a short name of what something is made from, another one for each version of us."""
    text = json.dumps([__version__, made_from], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_mark(path: str | Path) -> list:
    """Returns what tells a file from an earlier one of its name.

    Raises:
        InputError: it is not there.
    """
    try:
        found = Path(path).stat()
    except OSError as error:
        raise InputError(f'{path} cannot be read: {error.strerror}') from error
    return [Path(path).name, found.st_size, found.st_mtime_ns]
