"""Rows of costs as a table for a terminal, as Markdown and as JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from rich.table import Table

from bnet_mm.analysis.complexity import CostRow

COLUMNS = (
    'Model', 'Norm', 'Input', '#Params', 'trained', 'GMACs', 'GFLOPs', 'over BN: #Params', 'GMACs',
    'GFLOPs', 'paper: #Params', 'GFLOPs',
)  # fmt: skip
LEGEND = (
    '#Params in millions; trained: without frozen ones, which the paper leaves out for detectors. '
    'GMACs: convolutions and matrix products. GFLOPs: the same counted as in the paper, with 1 for '
    'each element of a bias, an activation and a pooling, 2 for each of a batch norm and 0 if that '
    'is synchronized.'
)


def as_rich(rows: Sequence[CostRow]) -> Table:
    """Returns the rows as a table for the terminal, what is more than BN's below each figure."""
    table = Table(
        caption=f"Second lines: more than with BN; the paper's GFLOPs. {LEGEND}",
        caption_justify='left',
    )
    table.add_column('Model', overflow='fold', min_width=24)
    for column in ('#Params', 'trained', 'GMACs', 'GFLOPs', 'paper'):
        table.add_column(column, justify='right')
    for row in rows:
        name, norm, shape, params, trained, macs, flops, *over_bn, paper, paper_flops = _cells(row)
        figures = [f'{params}\n{over_bn[0]}', trained]
        figures += [f'{macs}\n{over_bn[1]}', f'{flops}\n{over_bn[2]}', f'{paper}\n{paper_flops}']
        table.add_row(f'{name}\n{norm}, {shape}', *figures)
    return table


def as_markdown(rows: Sequence[CostRow]) -> str:
    """Returns the rows as a Markdown table, with the meaning of its columns below."""
    lines = [COLUMNS, ['---' if i < 2 else '---:' for i in range(len(COLUMNS))]]
    lines += [_cells(row) for row in rows]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines) + f'\n\n{LEGEND}'


def as_json(rows: Sequence[CostRow]) -> str:
    """Returns the rows as a JSON list; ours in units, the paper's figures as printed."""
    return json.dumps([asdict(row) for row in rows], indent=2)


def _cells(row: CostRow) -> list[str]:
    cells = [row.name, row.norm, '{}x{}'.format(*row.shape)]
    cells += [_short(row.cost.parameters / 1e6), _short(row.cost.trained / 1e6)]
    cells += [_short(row.cost.macs / 1e9), _short(row.cost.flops / 1e9)]
    more = row.over_bn
    cells += [
        f'{value:+.3f}' for value in (more.parameters / 1e6, more.macs / 1e9, more.flops / 1e9)
    ]
    cells += [str(row.paper.get(key, '-')) for key in ('params', 'gflops')]
    return cells


def _short(value: float) -> str:
    return f'{value:.2f}' if value >= 10 else f'{value:.3f}'
