"""Names the classes that a pickle asks for, without loading it."""

import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path

# Enough for the names: they come before the numbers, which torch keeps outside the pickle.
LOOKED_AT = 1 << 20
HARMLESS = ('torch', 'collections')


def foreign_class(path: Path) -> str | None:
    """Returns the first class or function beyond torch's that the file's pickle names, or None."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                entry = next(n for n in archive.namelist() if n.endswith('data.pkl'))
                with archive.open(entry) as file:
                    pickled = file.read(LOOKED_AT)
        else:
            with path.open('rb') as file:
                pickled = file.read(LOOKED_AT)
        names = _names(pickled)
        return next(name for name in names if name.partition('.')[0] not in HARMLESS)
    except Exception:
        # Damaged bytes end in any exception; there is no name in them then.
        return None


def _names(pickled: bytes) -> Iterator[str]:
    texts: list[str] = []
    try:
        for opcode, argument, _ in pickletools.genops(pickled):
            if opcode.name in ('GLOBAL', 'INST'):
                yield str(argument).replace(' ', '.')
            elif opcode.name == 'STACK_GLOBAL' and len(texts) > 1:
                yield '.'.join(texts[-2:])
            elif isinstance(argument, str):
                texts.append(argument)
    except Exception:
        return  # as above: no pickle, or the rest of one
