"""A comparison of trainings as a table for a terminal, and as JSON."""

import json
from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from bnet_mm.analysis.comparison import LOSS, Figure, Group


def as_rich(table: Sequence[tuple[Group, list[Figure]]]) -> Table:
    """Returns the comparison, one metric below the other, a line for each group."""
    rich = Table(
        caption='±: standard deviation over seeds; p: two-sided paired t-test on equal seeds. '
        'Paper: its difference between the two configs.',
        caption_justify='left',
    )
    rich.add_column('Metric', overflow='fold')
    rich.add_column('Config', overflow='fold', ratio=1)
    for column in ('Value', 'Difference', 'Paper'):
        rich.add_column(column, justify='right', no_wrap=True)
    for i, figure in enumerate(table[0][1]):
        shown = figure.metric if figure.metric == LOSS else f'{figure.metric}, {figure.when}'
        for group, figures in table:
            runs = f', {len(group.runs)} runs' if len(group.runs) > 1 else ''
            name = f'{group.name} ({group.norm}{runs})'
            first = escape(shown) if group is table[0][0] else ''
            rich.add_row(first, escape(name), *_cells(figures[i]))
        rich.add_section()
    return rich


def as_json(table: Sequence[tuple[Group, list[Figure]]]) -> str:
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
        for group, figures in table
    ]
    return json.dumps(groups, indent=2)


def _cells(figure: Figure) -> list[str]:
    digits = 4 if figure.metric == LOSS else 2
    if not figure.values:
        return ['-', '', '']
    value = f'{figure.mean:.{digits}f}'
    if figure.deviation is not None:
        value += f' ± {figure.deviation:.{digits}f}'
    difference = '' if figure.difference is None else f'{figure.difference:+.{digits}f}'
    if figure.p is not None:
        difference += f'\np = {figure.p:.3f}' if figure.p >= 0.001 else '\np < 0.001'
    paper = '' if figure.paper is None else f'{figure.paper:+.1f}'
    return [value, difference, paper]
