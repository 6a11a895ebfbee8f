"""What a conversion or an inspection found, as tables."""

import re
from collections.abc import Iterator
from pathlib import Path

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from bnet_mm.checkpoint.contents import Contents
from bnet_mm.checkpoint.conversion import OPENMMLAB, Conversion
from bnet_mm.checkpoint.hashing import sha256
from bnet_mm.checkpoint.inspection import Inspection
from bnet_mm.checkpoint.verification import TOLERANCE, StageDifference, norm_config
from bnet_mm.errors import InputError
from bnet_mm.openmmlab.destinations import backbone_config


def conversion_tables(conversion: Conversion) -> Iterator[RenderableType]:
    """Yields what was found and what became of it, each tensor accounted for."""
    read = len(conversion.state) + len(conversion.dropped) + len(conversion.unexplained)
    found = _facts()
    found.add_row('network', str(conversion.architecture))
    found.add_row('layout', escape(str(conversion.layout)))
    found.add_row('to', f'{conversion.to}{_below(conversion.prefix)}')
    found.add_row('entries read', str(read))
    found.add_row('renamed', str(len(conversion.renamed)))
    found.add_row('dropped', str(len(conversion.dropped)))
    found.add_row('left over, unexplained', str(len(conversion.unexplained)))
    found.add_row('missing', '0')
    yield found
    yield _norms(conversion)
    yield from dropped_lines('dropped', conversion.dropped)
    if conversion.unexplained:
        yield escape(f'left over, unexplained: {_few(conversion.unexplained)}')
    yield from map(escape, conversion.notes)


def dropped_lines(verb: str, dropped: dict[str, str]) -> Iterator[str]:
    """Yields a line for each reason, with the names it holds for."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in dropped.items():
        by_reason.setdefault(reason, []).append(name)
    for reason, names in by_reason.items():
        yield escape(f'{verb}, {reason}: {_few(names)}')


def verification_table(differences: list[StageDifference]) -> Table:
    """Returns the largest difference of each stage."""
    table = Table('stage', 'output', 'largest difference', 'relative', box=None, pad_edge=False)
    for d in differences:
        verdict = '' if d.equal else f'  not equal (limit {TOLERANCE:.0e})'
        table.add_row(
            str(d.stage),
            ' x '.join(map(str, d.shape)),
            f'{d.largest:.1e}',
            f'{d.relative:.1e}{verdict}',
        )
    return table


def inspection_tables(
    path: Path, contents: Contents, inspection: Inspection
) -> Iterator[RenderableType]:
    """Yields what the file holds, its kernels, and what is odd about it."""
    types = ', '.join(f'{count} of {dtype}' for dtype, count in inspection.types.items())
    found = _facts()
    found.add_row('file', escape(f'{path.name}, {path.stat().st_size / 1e6:.1f} MB'))
    found.add_row('network', escape(inspection.network))
    if inspection.layout:
        found.add_row('layout', escape(inspection.layout))
    found.add_row('tensors', f'{inspection.tensors} ({types}), {inspection.values:,} values')
    found.add_row('norms', f'{inspection.plain_norms} plain, {len(inspection.kernels)} BNET')
    beside = [*contents.dropped, *contents.unexplained]
    if beside:
        found.add_row('beside the weights', escape(_few(beside)))
    if 'bnet_mm' in contents.meta:
        found.add_row('converted', escape(str(contents.meta['bnet_mm'])[:400]))
    yield found
    yield f'sha256 {sha256(path)}'
    if inspection.kernels:
        kernels = Table('BNET', 'k', 'channels', 'outside the centre', 'zero kernels', box=None)
        for kernel in inspection.kernels:
            kernels.add_row(
                escape(kernel.site),
                str(kernel.k),
                str(kernel.channels),
                f'{kernel.outside:.2%}',
                str(kernel.zero),
            )
        yield kernels
    yield f'odd values: {len(inspection.odd) or "none"}'
    yield from (escape(f'  {finding}') for finding in inspection.odd[:20])


def _facts() -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column()
    table.add_column(overflow='fold')
    return table


def _norms(conversion: Conversion) -> Table:
    """Returns the kernel size of each layer, blocks of a stage that agree in one row."""
    table = Table('layers', 'norm in the source', 'norm in the result', box=None, pad_edge=False)
    sites = conversion.source_kernels | conversion.kernels
    if not sites:
        table.add_row('all', 'plain', 'plain')
    rows: dict[tuple, list[str]] = {}
    for site in sites:
        block = re.fullmatch(r'(layer\d+)\.(\d+)\.(bn\d)', site)
        before, after = conversion.source_kernels.get(site), conversion.kernels.get(site)
        place = (block[1], block[3]) if block else (site, '')
        rows.setdefault((*place, before, after), []).append(block[2] if block else '')
    for (stage, norm, before, after), blocks in rows.items():
        where = f'{stage}.{{{",".join(blocks)}}}.{norm}' if norm else stage
        table.add_row(escape(where), _norm(before), _norm(after))
    return table


def _norm(k: int | None) -> str:
    return 'plain' if k is None else f'BNET k={k}'


def _below(prefix: str) -> str:
    return f', below {prefix}' if prefix else ''


def _few(names: list[str]) -> str:
    shown = ', '.join(name[:80] for name in names[:6])
    return f'{shown} and {len(names) - 6} more' if len(names) > 6 else shown


def use_it(conversion: Conversion, path: Path) -> str:
    """Returns the line that loads a written checkpoint."""
    try:
        norm = norm_config(conversion)
    except InputError as error:
        return str(error)
    arch = conversion.architecture
    if conversion.prefix and conversion.to != 'authors':
        return f'load_from={str(path)!r}  # of a model whose backbone has norm_cfg={norm}'
    if conversion.to in OPENMMLAB and not (arch.small_input and conversion.to != 'mmpretrain'):
        network = backbone_config(conversion.to, arch, norm)
        if conversion.to == 'mmaction':
            return f'backbone={network | dict(pretrained=str(path))}'
        return f'backbone={network | dict(init_cfg=dict(type="Pretrained", checkpoint=str(path)))}'
    loaded = f"torch.load({str(path)!r})['state_dict']"
    if norm['type'] == 'BN' or conversion.to == 'authors':
        return f'model.load_state_dict({loaded})'
    k, positions = norm['k'], norm.get('positions', 'C')
    return f'bnet_mm.enhance(model, {k=}, {positions=}).load_state_dict({loaded})'
