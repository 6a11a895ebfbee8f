"""Selects the layers of a network to analyze: named ones, or the last of each stage."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from torch import nn

from bnet_mm.errors import InputError
from bnet_mm.layers import EnhancedNorm, named_norms

# What ResNets and their kin, HRNet and most others call a stage.
STAGE = re.compile(r'((?:.*\.)?(?:layer|stage|stages\.)\d+)(?:\.|$)')
SHORTCUT = re.compile(r'\.(?:downsample|shortcut)\.')
BACKBONE = 'backbone.'


class NoBNETError(InputError):
    """A model has no BNET where an analysis is of nothing else."""


def stage_of(name: str) -> str:
    """Returns the name of the stage that a module is or belongs to, '' outside of any."""
    match = STAGE.match(name)
    return match[1] if match else ''


def chosen_layers(model: nn.Module, names: Sequence[str] | None = None) -> list[str]:
    """Returns the BNETs that are meant by `names`, or the last of each stage of the backbone.

    The last ones are those whose blocks feed a feature pyramid (paper, figure 4). A model without
    BNET in its backbone has its others looked at.

    Args:
        model: any model.
        names: full names of BNETs, or the ends of such names.

    Raises:
        NoBNETError: the model has none.
        InputError: it has not one of such a name.
    """
    known = [name for name, _ in named_norms(model, EnhancedNorm)]
    if not known:
        raise NoBNETError(
            f'{type(model).__name__} has no BNET, and a plain norm enhances nothing: take a config '
            f"with norm_cfg=dict(type='BNET', ...)"
        )
    if names:
        return _meant(names, known, 'BNET')
    last = {stage_of(name): name for name in _in_backbone(known) if not SHORTCUT.search(name)}
    of_stages = [name for stage, name in last.items() if stage]
    return of_stages or list(last.values()) or known[-1:]


def last_blocks(model: nn.Module, names: Sequence[str] | None = None) -> list[str]:
    """Returns the modules that are meant by `names`, or the last block of each stage.

    Of a stage that has several branches, as HRNet's, it is that of the finest resolution.

    Args:
        model: one whose backbone has stages called layer1, layer2, ... unless modules are named.
        names: full names of modules, or the ends of such names.

    Raises:
        InputError: there is no such stage, or not one module of such a name.
    """
    modules = dict(model.named_modules())
    if names:
        return _meant(names, [name for name in modules if name], 'module')
    blocks = []
    for stage in _in_backbone([name for name in modules if name and stage_of(name) == name]):
        block = _last_child(stage, modules)
        finest = f'{block}.branches.0'
        blocks.append(_last_child(finest, modules) if finest in modules else block)
    if not blocks:
        raise InputError(
            f'{type(model).__name__} has no stages called layer1, layer2, ...: name modules of it '
            f'with --layers'
        )
    return blocks


def _last_child(name: str, modules: Mapping[str, nn.Module]) -> str:
    """Returns the name of a module's last child, or its own if it has none."""
    children = [child for child, _ in modules[name].named_children()]
    return f'{name}.{children[-1]}' if children else name


def _in_backbone(names: Sequence[str]) -> Sequence[str]:
    """Returns those of the backbone, or all where none is of one."""
    return [name for name in names if name.startswith(BACKBONE)] or names


def _meant(names: Iterable[str], known: Sequence[str], what: str) -> list[str]:
    chosen = []
    for name in names:
        found = [k for k in known if k == name] or [k for k in known if k.endswith(f'.{name}')]
        if not found:
            shown = (
                f'{", ".join(known[:4])}, ... {known[-1]}' if len(known) > 5 else ', '.join(known)
            )
            raise InputError(f'no {what} is called {name}; there are {shown}')
        if len(found) > 1:
            raise InputError(
                f'{len(found)} {what}s have names that end in {name}: {", ".join(found[:3])}'
            )
        chosen += found
    return chosen
