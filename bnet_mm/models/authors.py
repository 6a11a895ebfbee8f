"""Translates the tensor names of the paper's authors to this package's.

Rules for names are pairs of templates, read in both directions: `{i}` stands for a digit, the
other fields for what `FIELDS` says.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Tuple

from torch import nn

STATISTICS = 'running_mean|running_var|num_batches_tracked'
FIELDS = {
    'at': r'(?:layer\d+\.\d+\.)?',
    'block': r'(?:.*\.)?layer\d+\.\d+',  # with whatever stands before
    'i': r'\d',
    'norm': 'bn|gn|sn|in',  # as the libraries abbreviate batch norm and the others
    'affine': 'weight|bias',
    'statistic': STATISTICS,
    'rest': '.*',
}
Rules = Tuple[Tuple[str, str], ...]

# A BNET in the authors' files and here: since their release, and in their first detectors, where
# its statistics have the names of a plain norm's.
AUTHORS: Rules = (
    ('{block}.bnet{i}.bnconv.{affine}', '{block}.bn{i}.dw.{affine}'),
    ('{block}.bnet{i}.{statistic}', '{block}.bn{i}.norm.{statistic}'),
)
AUTHORS_OLD: Rules = (('{block}.bnconv{i}.{affine}', '{block}.bn{i}.dw.{affine}'),)
OLD_STATISTICS: Rules = (('{block}.bn{i}.{statistic}', '{block}.bn{i}.norm.{statistic}'),)


def rename(name: str, rules: Rules, back: bool = False) -> str:
    """Returns `name` by the first rule that it matches, or as it is.

    Args:
        name: of a tensor.
        rules: pairs of templates.
        back: whether to go from the second template of a rule to the first.

    Examples:
        >>> rename('layer1.0.bnet3.bnconv.weight', AUTHORS)
        'layer1.0.bn3.dw.weight'
        >>> rename('layer1.0.bn3.norm.running_var', AUTHORS, back=True)
        'layer1.0.bnet3.running_var'
    """
    for rule in rules:
        old, new = reversed(rule) if back else rule
        match = _pattern(old).fullmatch(name)
        if match:
            return new.format(**match.groupdict())
    return name


@lru_cache(maxsize=None)
def _pattern(template: str) -> re.Pattern[str]:
    fields = {field: f'(?P<{field}>{pattern})' for field, pattern in FIELDS.items()}
    return re.compile(template.replace('.', r'\.').format(**fields))


def rename_kernels(keys: Iterable[str]) -> dict[str, str]:
    """Returns this package's names of those `keys` that are the authors' names of a BNET.

    Whatever stands before `layerI.J` is kept.
    """
    names = {key: rename(key, AUTHORS + AUTHORS_OLD) for key in keys}
    old_sites = {
        names[key].partition('.dw.')[0] for key in names if rename(key, AUTHORS_OLD) != key
    }
    for key in names:
        if key.rpartition('.')[0] in old_sites:
            names[key] = rename(key, OLD_STATISTICS)
    return {key: name for key, name in names.items() if name != key}


def rename_kernels_on_load(module: nn.Module, state_dict: dict, prefix: str, *args) -> None:
    """A pre-hook of `load_state_dict`: gives the authors' names of BNET those of this package."""
    for key, new in rename_kernels([key for key in state_dict if key.startswith(prefix)]).items():
        state_dict[new] = state_dict.pop(key)
