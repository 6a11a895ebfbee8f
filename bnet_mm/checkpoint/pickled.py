"""Names the classes that a pickle asks for, without loading it."""

import pickle
import pickletools
import zipfile
from collections.abc import Container, Iterator
from pathlib import Path

# Enough for the names: they come before the numbers, which torch keeps outside the pickle.
LOOKED_AT = 1 << 20
HARMLESS = ('torch', 'collections')


def foreign_class(path: Path, allowed: Container[str] = ()) -> str | None:
    """Returns the first class or function that the file's pickle names, or None.

    Torch's own and the `allowed` ones are passed over, with the methods of allowed classes.
    """
    for name in _names(_pickled(path)):
        known = name in allowed or name.rpartition('.')[0] in allowed
        if name.partition('.')[0] not in HARMLESS and not known:
            return name
    return None


def pickle_protocol(path: Path) -> int:
    """Returns the protocol that the file's pickle says it is in; 0 where it says none."""
    pickled = _pickled(path)
    return pickled[1] if pickled[:1] == pickle.PROTO and len(pickled) > 1 else 0


def _pickled(path: Path) -> bytes:
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                entry = next(n for n in archive.namelist() if n.endswith('data.pkl'))
                with archive.open(entry) as file:
                    return file.read(LOOKED_AT)
        with path.open('rb') as file:
            return file.read(LOOKED_AT)
    except Exception:
        # Damaged bytes end in any exception; there is no pickle in them then.
        return b''


def _names(pickled: bytes) -> Iterator[str]:
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
            elif opcode.name in ('BINGET', 'LONG_BINGET') and argument < len(memo):
                texts += [memo[argument]] if memo[argument] else []
            last = argument if isinstance(argument, str) else None
    except Exception:
        return  # as above: no pickle, or the rest of one
