"""Sections from the work dirs alone: configs, metrics beside the paper's, curves."""

from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from statistics import median

from matplotlib.figure import Figure as Canvas

from bnet_mm.analysis.comparison import LOSS, PAPER, Figure, compare, papers_figures
from bnet_mm.reports.curves import counts_differ, draw_curves, main_metric
from bnet_mm.reports.figures import embed_figure
from bnet_mm.reports.page.compared import Compared
from bnet_mm.reports.page.page import Gallery, Picture, Section, Table

# Entries in which configs differ that say nothing of the experiment.
UNTOLD = ('work_dir', 'launcher', 'resume', 'load_from', 'randomness.seed', 'visualizer', 'log_')
CURVE = (4.2, 3.2)  # inches: text of 10 points can be read on a phone
LONGEST_ENTRY = 160


def configs_section(compared: Sequence[Compared]) -> Section:
    """Returns what was trained, and in which entries the configs differ."""
    rows = [
        ('config', [c.group.name for c in compared]),
        ('norm', [c.group.norm for c in compared]),
        ('seeds', [_seeds(c) for c in compared]),
        ('trained until', [_progress(c) for c in compared]),
        ('pictures a batch', [_batch(c) for c in compared]),
        ('time of an iteration', [_iteration(c) for c in compared]),
    ]
    tables = [Table(['', *_labels(compared)], [[name, *cells] for name, cells in rows])]
    differences = _differences(compared)
    if len(compared) > 1:
        if differences:
            caption = 'Every entry in which the configs differ; - where one has none.'
            tables.append(Table(['entry', *_labels(compared)], differences, caption))
        else:
            tables.append(Table(['entry'], [['The configs are the same.']]))
    return Section('Configs', 'What was trained, and in what the trainings differ.', tables)


def metrics_section(compared: Sequence[Compared], configs: Path) -> Section:
    """Returns the metrics of all runs, beside the paper's where it has these configs.

    Args:
        compared: the trainings.
        configs: the folder of this package's configs.
    """
    table = compare([c.group for c in compared], configs)
    paper = papers_figures(configs)
    rows = []
    for i, figure in enumerate(table[0][1]):
        title = figure.metric if figure.metric == LOSS else f'{figure.metric}, {figure.when}'
        rows.append([title, *(_value(figures[i]) for _, figures in table)])
        name = PAPER.get(figure.metric, ('',))[0]
        theirs = [paper.get(group.name, {}).get(name) for group, _ in table]
        if figure.when == 'final' and any(value is not None for value in theirs):
            rows.append([f"the paper's {name}", *(_papers(value, theirs[0]) for value in theirs)])
    caption = (
        'Means over seeds, ± standard deviation; below, the difference to the first column and p '
        'of a two-sided paired t-test over equal seeds.'
    )
    if not any(paper.get(c.group.name) for c in compared):
        caption += ' The paper has no row of these configs.'
    text = 'The last evaluation and the best one. One seed cannot tell a gain from luck.'
    missing = []
    if len(rows) == 1:
        missing.append('Nothing was evaluated while these trained.')
    return Section(
        'Metrics', text, [Table(['', *_labels(compared)], rows, caption)], missing=missing
    )


def curves_section(compared: Sequence[Compared]) -> Section:
    """Returns the course of loss and main metric, over epochs and over hours."""
    groups = [c.group for c in compared]
    runs = [run for group in groups for run in group.runs]
    metric = main_metric(runs)
    timed = all(run.hours() for run in runs)
    stepped = not counts_differ(runs)
    galleries = []
    for name in (LOSS, metric) if metric else (LOSS,):
        pictures = []
        for over_time in [False] * stepped + [True] * timed:
            canvas = Canvas(figsize=CURVE, layout='constrained')
            draw_curves(canvas.subplots(), groups, name, over_time, _labels(compared))
            over = 'hours of training' if over_time else 'epochs or iterations'
            pictures.append(Picture(embed_figure(canvas), f'{name} over {over}'))
        galleries.append(Gallery('', pictures))
    missing = []
    if not galleries[0].pictures:
        missing.append(
            'Some trainings count epochs and some iterations, and not all logged the time: there '
            'is no axis that they share.'
        )
    return Section(
        'Curves',
        'As figures 2 and 3 of the paper. Over hours, a norm has to make up for what it costs. '
        'Lines are means over seeds, bands reach from the lowest to the highest.',
        galleries=galleries,
        missing=missing,
    )


def _labels(compared: Sequence[Compared]) -> list[str]:
    return [c.label for c in compared]


def _seeds(compared: Compared) -> str:
    seeds = [run.seed for run in compared.group.runs]
    return ', '.join('not set' if seed is None else str(seed) for seed in seeds)


def _progress(compared: Compared) -> str:
    run = compared.group.runs[0]
    last = max(run.training)
    cfg = compared.cfg.get('train_cfg') or {}
    whole = cfg.get('max_epochs') if run.epochs else cfg.get('max_iters')
    done, unit = (run.epochs[last], 'epoch') if run.epochs else (last, 'iteration')
    return f'{unit} {done}' + (f' of {whole}' if whole else '')


def _batch(compared: Compared) -> str:
    size = (compared.cfg.get('train_dataloader') or {}).get('batch_size')
    return '-' if size is None else f'{size} a process'


def _iteration(compared: Compared) -> str:
    seconds = [s for run in compared.group.runs for s in run.seconds.values()]
    return f'{1000 * median(seconds):.0f} ms' if seconds else '-'


def _differences(compared: Sequence[Compared]) -> list[list[str]]:
    flat = [dict(_flattened(c.cfg.to_dict(), '')) for c in compared]
    names = [name for entries in flat for name in entries]
    rows = []
    for name in dict.fromkeys(names):
        cells = [entries.get(name, '-') for entries in flat]
        if len(set(cells)) > 1 and not name.startswith(UNTOLD):
            rows.append([name, *cells])
    return rows


def _flattened(node: object, name: str):
    """Yields name and value of each entry; lists are taken whole."""
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from _flattened(value, f'{name}.{key}' if name else str(key))
        return
    text = repr(node)
    yield name, text if len(text) <= LONGEST_ENTRY else f'{text[: LONGEST_ENTRY - 1]}…'


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
            text += f', p = {figure.p:.3f}' if figure.p >= 0.001 else ', p < 0.001'
    return text


def _papers(value: float | None, first: float | None) -> str:
    if value is None:
        return '-'
    return f'{value:.1f}' if first in (None, value) else f'{value:.1f}\n{value - first:+.1f}'
