"""The figures of a study: accuracy against epochs and against the time that they take."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bnet_mm.reports.figures import save_figure
from bnet_study.comparing import Cell
from bnet_study.tables import METRICS

# Apart in hue and in lightness (Okabe and Ito), and by dashes.
STYLES = [
    ('#000000', '-'), ('#0072B2', '-'), ('#D55E00', '-'), ('#009E73', '--'), ('#CC79A7', '--'),
    ('#56B4E9', ':'), ('#E69F00', ':'), ('#777777', '-.'),
]  # fmt: skip


def draw_curves(cells: Sequence[Cell], times: Sequence[dict[str, Any]], folder: Path) -> list[Path]:
    """Draws, for each task and network, the deciding measure by epoch and by time.

    Time is the number of epochs times the measured cost of a step over batch norm's, so that one
    unit is an epoch of `bn`: seconds of runs beside one another compare nothing.

    Args:
        cells: see `bnet_study.comparing.cells_of`.
        times: see `bnet_study.times`; without them there is no panel of time.
        folder: where to.

    Returns:
        the files.
    """
    cost = {(t['task'], t['net'], t['arm']): t['ratio'] for t in times}
    places = dict.fromkeys((c.task, c.net, c.start.partition(':')[0]) for c in cells)
    files = []
    for task, net, start in places:
        shown = [
            c for c in cells if (c.task, c.net, c.start.partition(':')[0]) == (task, net, start)
        ]
        metric = shown[0].metric
        timed = all((task, net, c.arm) in cost for c in shown)
        figure = Figure(figsize=(9 if timed else 5, 3.4), layout='constrained')
        panels = figure.subplots(1, 2 if timed else 1, squeeze=False)[0]
        for cell, (colour, dashes) in zip(shown, STYLES * (1 + len(shown) // len(STYLES))):
            curves = [run['curve'].get(metric, []) for run in cell.runs.values()]
            length = min(map(len, curves))
            total = min(len(run['curve'].get('loss', [])) for run in cell.runs.values())
            if not length:
                continue
            middle = [mean(values) for values in zip(*(c[:length] for c in curves))]
            lowest, highest = (
                [of(values) for values in zip(*(c[:length] for c in curves))] for of in (min, max)
            )
            epochs = [total * (i + 1) / length for i in range(length)]
            factors = [1.0, cost.get((task, net, cell.arm), 1.0)]
            name = cell.arm if cell.start == 'scratch' else f'{cell.arm} from {cell.start}'
            for panel, factor in zip(panels, factors):
                x = [factor * e for e in epochs]
                panel.plot(x, middle, color=colour, linestyle=dashes, lw=1.4,
                           label=f'{name} ({len(curves)})')  # fmt: skip
                panel.fill_between(x, lowest, highest, color=colour, alpha=0.12, lw=0)
        for panel, axis in zip(panels, ('epochs', "time, in epochs of bn's")):
            panel.set_xlabel(axis)
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
            panel.set_ylabel(METRICS[metric])
            panel.grid(alpha=0.3)
            panel.set_ylim(bottom=_bottom(shown, metric))
        panels[0].legend(fontsize=7, title='arm (seeds); band: all seeds', title_fontsize=7)
        figure.suptitle(f'{task}, {net}, {"from " if start != "scratch" else ""}{start}', size=10)
        file = folder / f'curves_{task}_{net}_{start}.png'
        save_figure(figure, file)
        files.append(file)
    return files


def _bottom(cells: Sequence[Cell], metric: str) -> float:
    """Cuts off the first third of the climb, in which all look alike."""
    ends = [v for cell in cells for v in cell.values().values()]
    starts = [r['curve'][metric][0] for c in cells for r in c.runs.values() if r['curve'][metric]]
    return min(starts) + (min(ends) - min(starts)) / 3
