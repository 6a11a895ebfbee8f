"""The prefixes below which a file has a network: wrappers, encoders, students and teachers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from bnet_mm.errors import InputError

# What DataParallel and torch.compile put into names.
WRAPPERS = ('module', '_orig_mod')


def below(keys: Iterable[str], prefix: str) -> dict[str, str]:
    """Returns the keys below a prefix, with what is left of each.

    Args:
        keys: of a file.
        prefix: whole parts of names, with or without the dot at its end; what wrappers put into
            names may be left out.

    Raises:
        InputError: there is none.

    Examples:
        >>> below(['student.module.conv1.weight', 'teacher.conv1.weight'], 'student.')
        {'student.module.conv1.weight': 'conv1.weight'}
    """
    keys = list(keys)
    wanted = _parts(prefix)
    found = {}
    for key in keys:
        parts = key.split('.')
        kept = 0  # parts of the prefix that were met
        for i, part in enumerate(parts):
            if kept == len(wanted) and part not in WRAPPERS:
                found[key] = '.'.join(parts[i:])
                break
            if part in WRAPPERS:
                continue
            if part != wanted[kept]:
                break
            kept += 1
    if not found:
        raise InputError(
            f'the checkpoint has no tensor below {prefix!r}; its names begin with '
            f'{", ".join(beginnings(keys))}'
        )
    return found


def prefixes_of(keys: Iterable[str], own: Iterable[str]) -> list[str]:
    """Returns the prefixes below which a file has the tensors of a network, fullest first.

    Args:
        keys: of the file.
        own: names of the network's tensors.

    Examples:
        >>> prefixes_of(['a.fc.bias', 'b.fc.bias', 'a.fc.weight'], ['fc.weight', 'fc.bias'])
        ['a.', 'b.']
    """
    names, counts = set(own), Counter[str]()
    for key in keys:
        parts = key.split('.')
        for i in range(len(parts)):
            if '.'.join(parts[i:]) in names:
                counts['.'.join(parts[:i]) + '.' if i else ''] += 1
    most = max(counts.values(), default=0)
    return [prefix for prefix, count in counts.most_common() if 2 * count >= most]


def beginnings(keys: Iterable[str], most: int = 6) -> list[str]:
    """Returns how names begin, in as many parts as tell something, most frequent first."""
    keys = list(keys)
    parts = 1
    while True:
        starts = Counter('.'.join(key.split('.')[:parts]) for key in keys)
        if len(starts) > 1 or parts > 8:
            break
        parts += 1
    return [start + '.' if '.' in start else start for start, _ in starts.most_common(most)]


def _parts(prefix: str) -> list[str]:
    parts = [part for part in prefix.split('.') if part and part not in WRAPPERS]
    if not parts and not any(part in WRAPPERS for part in prefix.split('.')):
        raise InputError(f'--prefix {prefix!r} names nothing')
    return parts
