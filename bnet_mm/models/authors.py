"""The names that the paper's authors' files have for a BNET, and this package's for the same."""

import re
from collections.abc import Iterable

from torch import nn

STATISTICS = r'running_mean|running_var|num_batches_tracked'
BLOCK = r'layer\d+\.\d+\.'

# The authors' names of a BNET: since the release, and in their first detectors.
AUTHORS = [
    (re.compile(rf'({BLOCK})bnet(\d)\.bnconv\.(weight|bias)$'), r'\1bn\2.dw.\3'),
    (re.compile(rf'({BLOCK})bnet(\d)\.({STATISTICS})$'), r'\1bn\2.norm.\3'),
]
AUTHORS_OLD = re.compile(rf'({BLOCK})bnconv(\d)\.(weight|bias)$')


def rename_kernels(keys: Iterable[str]) -> dict[str, str]:
    """Returns this package's names of those `keys` that are the authors' names of a BNET.

    Whatever stands before `layerI.J` is kept.
    """
    keys = list(keys)
    renamed = {}
    old_sites = set()
    for key in keys:
        for pattern, replacement in AUTHORS:
            new = pattern.sub(replacement, key)
            if new != key:
                renamed[key] = new
        old = AUTHORS_OLD.search(key)
        if old:
            site = f'{key[: old.start()]}{old[1]}bn{old[2]}.'
            renamed[key] = f'{site}dw.{old[3]}'
            old_sites.add(site)
    for key in keys:
        site, _, name = key.rpartition('.')
        if f'{site}.' in old_sites and re.fullmatch(STATISTICS, name):
            renamed[key] = f'{site}.norm.{name}'
    return renamed


def rename_kernels_on_load(module: nn.Module, state_dict: dict, prefix: str, *args) -> None:
    """A pre-hook of `load_state_dict`: gives the authors' names of BNET those of this package."""
    for key, new in rename_kernels([key for key in state_dict if key.startswith(prefix)]).items():
        state_dict[new] = state_dict.pop(key)
