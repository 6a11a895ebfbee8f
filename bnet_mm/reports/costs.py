"""Costs of models as a table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from bnet_mm.analysis.complexity import CostRow
from bnet_mm.reports.table import Table

LEGEND = (
    '#Params in millions; trained: without frozen ones, which the paper leaves out for detectors. '
    'GMACs: convolutions and matrix products. GFLOPs: the same counted as in the paper, with 1 for '
    'each element of a bias, an activation and a pooling, 2 for each of a batch norm and 0 if that '
    'is synchronized.'
)


def cost_table(rows: Sequence[CostRow], names: Sequence[str] = (), wide: bool = False) -> Table:
    """Returns a row for each model.

    Args:
        rows: the models.
        names: what to call them; by default config, norm and input size.
        wide: whether norm, input size and what is more than with BN are columns of their own,
            and not second lines.
    """
    lines = []
    for i, row in enumerate(rows):
        more, paper = row.over_bn, [str(row.paper.get(key, '-')) for key in ('params', 'gflops')]
        ours = [row.cost.parameters / 1e6, row.cost.macs / 1e9, row.cost.flops / 1e9]
        over = [more.parameters / 1e6, more.macs / 1e9, more.flops / 1e9]
        params, macs, flops = (f'{v:.2f}' if v >= 10 else f'{v:.3f}' for v in ours)
        trained = row.cost.trained / 1e6
        trained_cell = f'{trained:.2f}' if trained >= 10 else f'{trained:.3f}'
        more_cells = [f'{value:+.3f}' for value in over]
        shape = '{}x{}'.format(*row.shape)
        if wide:
            name = [row.name, row.norm, shape]
            lines.append([*name, params, trained_cell, macs, flops, *more_cells, *paper])
            continue
        name = names[i] if names else f'{row.name}\n{row.norm}, {shape}'
        cells = [f'{a}\n{b}' for a, b in zip((params, macs, flops), more_cells)]
        lines.append([name, cells[0], trained_cell, cells[1], cells[2], *paper])
    if wide:
        columns = ['Model', 'Norm', 'Input', '#Params', 'trained', 'GMACs', 'GFLOPs']
        columns += ['over BN: #Params', 'GMACs', 'GFLOPs', 'paper: #Params', 'GFLOPs']
        return Table(columns, lines, caption=LEGEND)
    columns = ['', '#Params', 'trained', 'GMACs', 'GFLOPs']
    columns += ["the paper's #Params", "the paper's GFLOPs"]
    return Table(columns, lines, caption=f'Second lines: more than with BN. {LEGEND}')


def as_json(rows: Sequence[CostRow]) -> str:
    """Returns the rows as a JSON list; ours in units, the paper's figures as printed."""
    return json.dumps([asdict(row) for row in rows], indent=2)
