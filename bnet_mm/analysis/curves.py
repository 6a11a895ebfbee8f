"""Draws the course of trainings."""

from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator

from bnet_mm.analysis.comparison import LOSS, PAPER, Group
from bnet_mm.analysis.figures import save_figure
from bnet_mm.analysis.runs import Run
from bnet_mm.errors import InputError

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
    common = common_metrics(runs)
    if metric is None:
        metric = main_metric(runs)
    elif metric not in common:
        raise InputError(f'not all runs have {metric!r}; they have {", ".join(common) or "none"}')
    if over_time and not all(run.hours() for run in runs):
        raise InputError('a training logged no time (the entry "time"), so that none can be shown')
    metrics = [LOSS, metric] if metric else [LOSS]
    canvas = Canvas(figsize=(10 if metric else 5.5, 3.8), layout='constrained')
    for panel, name in zip(
        canvas.subplots(1, len(metrics), squeeze=False)[0], metrics, strict=True
    ):
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
        metric: one that all runs have, or `bnet_mm.analysis.comparison.LOSS`.
        over_time: see `plot_curves`.
        names: of the groups; by default norm and config.
    """
    runs = [run for group in groups for run in group.runs]
    for i, group in enumerate(groups):
        places = [run.hours() for run in group.runs] if over_time else None
        if metric == LOSS:
            curves = [run.loss() for run in group.runs]
        else:
            curves = [_scaled(run, metric, PAPER.get(metric, ('', 1))[1]) for run in group.runs]
        name = names[i] if names else f'{group.norm} ({group.name})'
        _draw(panel, name, curves, places, f'C{i}')
    by_epoch = all(run.epochs for run in runs)
    panel.set_title(metric.capitalize() if metric == LOSS else metric)
    panel.set_xlabel('hours of training' if over_time else 'epoch' if by_epoch else 'iteration')
    if not over_time:
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.grid(alpha=0.3)
    if metric == LOSS:
        panel.legend(fontsize='small')


def main_metric(runs: Sequence[Run]) -> str | None:
    """Returns the first of the paper's metrics that all runs have, or any that all have."""
    common = common_metrics(runs)
    return next((m for m in PAPER if m in common), common[0] if common else None)


def common_metrics(runs: Sequence[Run]) -> list[str]:
    """Returns the metrics that all runs have."""
    return [m for m in runs[0].metrics() if all(m in run.metrics() for run in runs)]


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
        x = [mean(_place(of_run, step) for of_run in places) for step in steps]
    # A few points are shown as such: a line through one would not be seen.
    marker = 'o' if len(x) <= FEW else None
    panel.plot(x, [mean(v) for v in at], color=color, label=name, marker=marker, markersize=4)
    if len(curves) > 1:
        panel.fill_between(
            x, [min(v) for v in at], [max(v) for v in at], color=color, alpha=0.2, linewidth=0
        )


def _place(hours: dict[int, float], step: int) -> float:
    """Returns the hours until `step`, or until the last record before it."""
    return hours[max((s for s in hours if s <= step), default=min(hours))]
