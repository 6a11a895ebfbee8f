"""Draws the curves of trainings."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator

from bnet_mm.analysis.comparison import LOSS, PAPER, Group
from bnet_mm.analysis.runs import Run
from bnet_mm.errors import InputError
from bnet_mm.reports.figures import save_figure

FEW = 12


def plot_curves(
    groups: Sequence[Group], file: Path, metric: str | None = None, over_time: bool = False
) -> None:
    """Draws training loss and a metric, as figures 2 and 3 do, of running trainings as well.

    Lines are means over seeds, and bands reach from the lowest seed to the highest.

    Args:
        groups: see `bnet_mm.analysis.comparison.group_runs`.
        file: what to write; its suffix says the format (.png, .pdf, .svg).
        metric: which metric; the paper's main one of the task if not given.
        over_time: against hours of training, and not against epochs or iterations.

    Raises:
        InputError: no run has the metric, or the file cannot be written.
    """
    runs = [run for group in groups for run in group.runs]
    if metric is None:
        metric = main_metric(runs)
    elif metric not in (known := metrics_of(runs)):
        raise InputError(f'no run has {metric!r}; they have {", ".join(known) or "none"}')
    if over_time and not all(run.hours() for run in runs):
        raise InputError('a training logged no time (the entry "time"), so that none can be shown')
    if not over_time and counts_differ(runs):
        raise InputError(
            'some of the trainings count epochs and some iterations, which share no axis: draw '
            'them --over time'
        )
    metrics = [LOSS, metric] if metric else [LOSS]
    canvas = Canvas(figsize=(10 if metric else 5.5, 3.8), layout='constrained')
    for panel, name in zip(canvas.subplots(1, len(metrics), squeeze=False)[0], metrics):
        draw_curves(panel, groups, name, over_time)
    save_figure(canvas, file)


def draw_curves(
    panel: Axes,
    groups: Sequence[Group],
    metric: str,
    over_time: bool = False,
    names: Sequence[str] | None = None,
) -> None:
    """Draws one metric of each group, or the training loss, with its title and axes.

    Args:
        panel: where to.
        groups: see `bnet_mm.analysis.comparison.group_runs`.
        metric: one that a run has, or `bnet_mm.analysis.comparison.LOSS`.
        over_time: see `plot_curves`.
        names: of the groups; by default norm and config.
    """
    runs = [run for group in groups for run in group.runs]
    for i, group in enumerate(groups):
        of_group = [run for run in group.runs if metric == LOSS or metric in run.metrics()]
        if not of_group:
            continue
        places = [run.hours() for run in of_group] if over_time else None
        if metric == LOSS:
            curves = [run.loss() for run in of_group]
        else:
            curves = [_scaled(run, metric, PAPER.get(metric, ('', 1))[1]) for run in of_group]
        name = names[i] if names else f'{group.norm} ({group.name})'
        _draw(panel, name, curves, places, f'C{i}')
    by_epoch = all(run.epochs for run in runs)
    panel.set_title(metric.capitalize() if metric == LOSS else metric)
    panel.set_xlabel('hours of training' if over_time else 'epoch' if by_epoch else 'iteration')
    # The panels of a figure share their axis, which begins with the training.
    ends = [max(run.hours().values()) if over_time else max(run.loss()) for run in runs]
    panel.set_xlim(0, 1.03 * max(ends))
    if not over_time:
        panel.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    panel.grid(alpha=0.3)
    if metric == LOSS:
        panel.legend(fontsize='small')


def main_metric(runs: Sequence[Run]) -> str | None:
    """Returns the metric that most of the runs have: the paper's first of these, or any."""
    known = metrics_of(runs)
    having = {metric: sum(metric in run.metrics() for run in runs) for metric in known}
    order = [*(m for m in PAPER if m in known), *(m for m in known if m not in PAPER)]
    return max(order, key=lambda metric: having[metric], default=None)


def metrics_of(runs: Sequence[Run]) -> list[str]:
    """Returns the metrics that any of the runs has."""
    return list(dict.fromkeys(metric for run in runs for metric in run.metrics()))


def counts_differ(runs: Sequence[Run]) -> bool:
    """Tells whether some runs count epochs and some iterations."""
    return len({bool(run.epochs) for run in runs}) > 1


def _scaled(run: Run, metric: str, factor: float) -> dict[int, float]:
    return {step: factor * value for step, value in run.series(metric).items()}


def _draw(
    panel: Axes,
    name: str,
    curves: list[dict[int, float]],
    places: list[dict[int, float]] | None,
    color: str,
) -> None:
    steps = sorted(set().union(*curves))
    at = [[curve[step] for curve in curves if step in curve] for step in steps]
    x = steps
    if places is not None:
        x = [mean(of_step) for of_step in zip(*(_at(p, steps) for p in places))]
    # A few points are shown as such: a line through one would not be seen.
    marker = 'o' if len(x) <= FEW else None
    panel.plot(x, [mean(v) for v in at], color=color, label=name, marker=marker, markersize=4)
    if len(curves) > 1:
        panel.fill_between(
            x, [min(v) for v in at], [max(v) for v in at], color=color, alpha=0.2, linewidth=0
        )


def _at(hours: dict[int, float], steps: Sequence[int]) -> list[float]:
    """Returns the hours until each of `steps`, or until the last record before it."""
    known = sorted(hours)
    return [hours[known[max(bisect_right(known, step) - 1, 0)]] for step in steps]
