"""A comparison of trainings as a table and as JSON."""

from __future__ import annotations

import json
from math import isfinite
from typing import List, Mapping, Sequence, Tuple

from bnet_mm.analysis.comparison import LOSS, PAPER, Figure, Group
from bnet_mm.reports.table import Table

CAPTION = (
    'Means over seeds, ± standard deviation; below, the difference to the first column and p of a '
    'two-sided paired t-test over equal seeds.'
)
Compared = Sequence[Tuple[Group, List[Figure]]]


def comparison_table(
    compared: Compared, paper: Mapping[str, Mapping[str, float]], labels: Sequence[str] = ()
) -> Table:
    """Returns the metrics of all groups, with the paper's where it has these configs.

    Args:
        compared: see `bnet_mm.analysis.comparison.compare`.
        paper: see `bnet_mm.analysis.comparison.papers_figures`.
        labels: what to call the groups; by default config, norm and number of runs.
    """
    groups = [group for group, _ in compared]
    labels = labels or [_label(group) for group in groups]
    rows = []
    for figures in zip(*(figures for _, figures in compared)):
        first = figures[0]
        title = first.metric if first.metric == LOSS else f'{first.metric}, {first.when}'
        rows.append([title, *map(_value, figures)])
        name = PAPER.get(first.metric, ('',))[0]
        theirs = [paper.get(group.name, {}).get(name) for group in groups]
        if first.when == 'final' and any(value is not None for value in theirs):
            rows.append([f"the paper's {name}", *(_papers(value, theirs[0]) for value in theirs)])
    none = any(paper.get(group.name) for group in groups)
    caption = CAPTION if none else f'{CAPTION} The paper has no row of these configs.'
    return Table(['', *labels], rows, caption=caption)


def as_json(compared: Compared) -> str:
    """Returns the comparison as a JSON list of groups."""
    groups = [
        {
            'config': group.name,
            'norm': group.norm,
            'runs': [{'path': str(run.path), 'seed': run.seed} for run in group.runs],
            'figures': [
                {
                    **{key: getattr(f, key) for key in ('metric', 'when', 'values')},
                    'mean': f.mean if f.values else None,
                    **{key: getattr(f, key) for key in ('deviation', 'difference', 'p', 'pairs')},
                    'paper': f.paper,
                }
                for f in figures
            ],
        }
        for group, figures in compared
    ]
    return json.dumps(groups, indent=2)


def _label(group: Group) -> str:
    runs = f', {len(group.runs)} runs' if len(group.runs) > 1 else ''
    return f'{group.name}\n{group.norm}{runs}'


def _value(figure: Figure) -> str:
    digits = 4 if figure.metric == LOSS else 2
    if not figure.values:
        return '-'
    if not isfinite(figure.mean):
        return 'diverged'
    text = f'{figure.mean:.{digits}f}'
    if figure.deviation is not None:
        text += f' ± {figure.deviation:.{digits}f}'
    if figure.difference is not None and isfinite(figure.difference):
        text += f'\n{figure.difference:+.{digits}f}'
        if figure.p is not None:
            text += f' (p = {figure.p:.3f})' if figure.p >= 0.001 else ' (p < 0.001)'
    return text


def _papers(value: float | None, first: float | None) -> str:
    if value is None:
        return '-'
    return f'{value:.1f}' if first in (None, value) else f'{value:.1f}\n{value - first:+.1f}'
