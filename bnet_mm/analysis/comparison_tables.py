"""A comparison of trainings as tables for a terminal, as JSON, and as curves."""

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from matplotlib.figure import Figure as Canvas
from rich.table import Table

from bnet_mm.analysis.comparison import LOSS, PAPER, Figure, Group
from bnet_mm.analysis.runs import Run
from bnet_mm.errors import InputError
from bnet_mm.whole_file import write_whole


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
            rich.add_row(shown if group is table[0][0] else '', name, *_cells(figures[i]))
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
                    **{key: getattr(f, key) for key in ('metric', 'when', 'values', 'mean')},
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
    value = f'{figure.mean:.{digits}f}'
    if figure.deviation is not None:
        value += f' ± {figure.deviation:.{digits}f}'
    difference = '' if figure.difference is None else f'{figure.difference:+.{digits}f}'
    if figure.p is not None:
        difference += f'\np = {figure.p:.3f}' if figure.p >= 0.001 else '\np < 0.001'
    paper = '' if figure.paper is None else f'{figure.paper:+.1f}'
    return [value, difference, paper]


def plot_curves(groups: Sequence[Group], file: Path, metric: str | None = None) -> None:
    """Draws training loss and a metric against epochs (or iterations), as figures 2 and 3 do.

    Lines are means over seeds, and bands reach from the lowest seed to the highest.

    Args:
        groups: see `bnet_mm.analysis.comparison.group_runs`.
        file: what to write; its suffix says the format (.png, .pdf, .svg).
        metric: which metric; the paper's main one of the task if not given.

    Raises:
        InputError: no run has the metric, or the file cannot be written.
    """
    runs = [run for group in groups for run in group.runs]
    common = [m for m in runs[0].metrics() if all(m in run.metrics() for run in runs)]
    if metric is None:
        metric = next((m for m in PAPER if m in common), common[0] if common else None)
    elif metric not in common:
        raise InputError(f'not all runs have {metric!r}; they have {", ".join(common) or "none"}')
    canvas = Canvas(figsize=(10 if metric else 5.5, 3.8), layout='constrained')
    panels = canvas.subplots(1, 2 if metric else 1, squeeze=False)[0]
    by_epoch = all(run.epochs for run in runs)
    factor = PAPER.get(metric, ('', 1))[1]
    for i, group in enumerate(groups):
        _draw(panels[0], group, [run.loss() for run in group.runs], i)
        if metric:
            _draw(panels[1], group, [_scaled(run, metric, factor) for run in group.runs], i)
    for panel, title in zip(panels, ('Training loss', metric), strict=False):
        panel.set_title(title)
        panel.set_xlabel('epoch' if by_epoch else 'iteration')
        panel.grid(alpha=0.3)
    panels[0].legend()
    suffix = file.suffix.removeprefix('.') or 'png'
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, lambda part: canvas.savefig(part, format=suffix, dpi=150))
    except (OSError, ValueError) as error:
        raise InputError(f'{file} cannot be written: {error}') from error


def _scaled(run: Run, metric: str, factor: float) -> dict[int, float]:
    return {step: factor * value for step, value in run.series(metric).items()}


def _draw(panel, group: Group, curves: list[dict[int, float]], index: int) -> None:
    steps = sorted(set().union(*curves))
    at = [[curve[step] for curve in curves if step in curve] for step in steps]
    color = f'C{index}'
    panel.plot(steps, [mean(v) for v in at], color=color, label=f'{group.norm} ({group.name})')
    if len(curves) > 1:
        panel.fill_between(
            steps, [min(v) for v in at], [max(v) for v in at], color=color, alpha=0.2, linewidth=0
        )
