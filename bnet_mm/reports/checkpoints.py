"""Conversions and inspections of checkpoints as tables."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor, nn

from bnet_mm.checkpoint.contents import Contents
from bnet_mm.checkpoint.conversion import OPENMMLAB, Conversion
from bnet_mm.checkpoint.fitting import Fit
from bnet_mm.checkpoint.inspection import Inspection, energy_outside_centre
from bnet_mm.checkpoint.verification import TOLERANCE, StageDifference, placement_of
from bnet_mm.checkpoint.writing import sha256
from bnet_mm.errors import InputError
from bnet_mm.openmmlab.destinations import backbone_config, norm_cfg
from bnet_mm.reports.table import Table


def conversion_tables(conversion: Conversion) -> Iterator[Table | str]:
    """Yields what was found and what became of it, each tensor accounted for."""
    c = conversion
    yield _facts(
        {
            'network': str(c.architecture),
            'layout': str(c.layout),
            'to': f'{c.to}, below {c.prefix}' if c.prefix else c.to,
            'entries read': str(len(c.state) + len(c.dropped) + len(c.unexplained)),
            'renamed': str(len(c.renamed)),
            'dropped': str(len(c.dropped)),
            'left over, unexplained': str(len(c.unexplained)),
            'missing': '0',
        }
    )
    yield Table(('layers', 'norm in the source', 'norm in the result'), _norm_rows(c))
    yield from dropped_lines('dropped', c.dropped)
    if c.unexplained:
        yield f'left over, unexplained: {_few(c.unexplained)}'
    yield from c.notes


def fit_tables(fitted: Fit, model: nn.Module) -> Iterator[Table | str]:
    """Yields what a model takes of a file, and what it has no place for."""
    sizes = Counter(fitted.kernels.values())
    norms = ', '.join(f'{count} BNET k={k}' for k, count in sorted(sizes.items()))
    facts = {
        'network': type(model).__name__,
        'below': fitted.prefix,
        'tensors': f'{len(fitted.state)} of {len(model.state_dict())}',
        'norms of the result': norms or 'all plain',
        'left over': str(len(fitted.left)),
    }
    yield _facts({name: fact for name, fact in facts.items() if fact})
    if fitted.left:
        yield f'left over: {_few(fitted.left)}'


def verification_table(differences: list[StageDifference]) -> Table:
    """Returns the largest difference of each stage."""
    rows = []
    for d in differences:
        verdict = '' if d.equal else f'  not equal (limit {TOLERANCE:.0e})'
        shape = ' x '.join(map(str, d.shape))
        rows.append((str(d.stage), shape, f'{d.largest:.1e}', f'{d.relative:.1e}{verdict}'))
    return Table(('stage', 'output', 'largest difference', 'relative'), rows)


def inspection_tables(
    path: Path, contents: Contents, inspection: Inspection
) -> Iterator[Table | str]:
    """Yields the contents of a file, its kernels, and values that a trained network lacks."""
    types = ', '.join(f'{count} of {dtype}' for dtype, count in inspection.types.items())
    facts = {
        'file': f'{path.name}, {path.stat().st_size / 1e6:.1f} MB',
        'network': inspection.network,
        'layout': inspection.layout,
        'tensors': f'{inspection.tensors} ({types}), {inspection.values:,} values',
        'norms': f'{inspection.plain_norms} plain, {len(inspection.kernels)} BNET',
        'beside the weights': _few([*contents.dropped, *contents.unexplained]),
        'converted': str(contents.meta.get('bnet_mm', ''))[:400],
    }
    yield _facts({name: fact for name, fact in facts.items() if fact})
    yield f'sha256 {sha256(path)}'
    if inspection.kernels:
        columns = 'BNET', 'k', 'channels', 'outside the centre', 'zero kernels'
        yield Table(columns, [_kernel_row(*kernel) for kernel in inspection.kernels.items()])
    yield f'odd values: {len(inspection.odd) or "none"}'
    yield from (f'  {finding}' for finding in inspection.odd[:20])


def dropped_lines(verb: str, dropped: dict[str, str]) -> Iterator[str]:
    """Yields a line for each reason, with the names it holds for."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in dropped.items():
        by_reason.setdefault(reason, []).append(name)
    for reason, names in by_reason.items():
        yield f'{verb}, {reason}: {_few(names)}'


def use_it(conversion: Conversion, path: Path) -> str:
    """Returns the line that loads a written checkpoint."""
    try:
        placement = placement_of(conversion)
    except InputError as error:
        return str(error)
    to = conversion.to
    if conversion.prefix and to != 'authors':
        norm = norm_cfg(placement)
        return f'load_from={str(path)!r}  # of a model whose backbone has norm_cfg={norm}'
    if conversion.library in OPENMMLAB:
        network = backbone_config(to, conversion.architecture, placement)
        if to == 'mmaction':
            weights: dict = dict(pretrained=str(path))
        else:
            weights = dict(init_cfg=dict(type='Pretrained', checkpoint=str(path)))
        return f'backbone={dict(network, **weights)}'
    loaded = f"torch.load({str(path)!r})['state_dict']"
    if placement is None or to == 'authors':
        return f'model.load_state_dict({loaded})'
    options = dict(k=placement.k, positions=placement.positions)
    if placement.dilation != 1:
        options['dilation'] = placement.dilation
    shown = ', '.join(f'{name}={value!r}' for name, value in options.items())
    return f'bnet_mm.enhance(model, {shown}).load_state_dict({loaded})'


def _kernel_row(site: str, kernel: Tensor) -> tuple[str, ...]:
    zero = int((kernel.flatten(1) == 0).all(1).sum())
    outside = f'{energy_outside_centre(kernel):.2%}'
    return site, str(kernel.shape[-1]), str(len(kernel)), outside, str(zero)


def _norm_rows(conversion: Conversion) -> list[tuple[str, str, str]]:
    """Returns the kernel size of each layer, blocks of a stage that agree in one row."""
    rows: dict[tuple, list[str]] = {}
    for site in {**conversion.source_kernels, **conversion.kernels}:
        before, after = conversion.source_kernels.get(site), conversion.kernels.get(site)
        block = re.fullmatch(r'(layer\d+)\.(\d+)\.(bn\d)', site)
        place = (block[1], block[3]) if block else (site, '')
        dilation = conversion.dilations.get(site, 1)
        rows.setdefault((*place, before, after, dilation), []).append(block[2] if block else '')
    return [
        (
            f'{stage}.{{{",".join(blocks)}}}.{norm}' if norm else stage,
            *(_norm(k, dilation) for k in (before, after)),
        )
        for (stage, norm, before, after, dilation), blocks in rows.items()
    ] or [('all', 'plain', 'plain')]


def _norm(k: int | None, dilation: int) -> str:
    if k is None:
        return 'plain'
    return f'BNET k={k}' + (f' dilation {dilation}' if dilation != 1 else '')


def _few(names: list[str]) -> str:
    shown = ', '.join(name[:80] for name in names[:6])
    return f'{shown} and {len(names) - 6} more' if len(names) > 6 else shown


def _facts(facts: dict[str, str]) -> Table:
    return Table((), list(facts.items()))
