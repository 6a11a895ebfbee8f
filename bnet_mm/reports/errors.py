"""The error analysis as table 14, as JSON, and as figure 6."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from bnet_mm.analysis.tide import MAIN, TABLE_14, ErrorRow
from bnet_mm.reports.figures import save_figure
from bnet_mm.reports.table import Table

COLORS = dict(zip(MAIN, ('C0', 'C1', 'C4', 'C5', 'C2', 'C3')))
NAMES = {
    'E_cls': 'class', 'E_loc': 'localization', 'E_both': 'both', 'E_dupe': 'duplicate',
    'E_bkg': 'background', 'E_miss': 'missed',
}  # fmt: skip
LEGEND = (
    "AP and AP50 are tidecv's, whose classes without an object count as 0 where something is "
    "detected; COCO's evaluation leaves them out. E: how much higher AP50 were without the error. "
    'FP and FN: without any false positive or false negative.'
)


def error_table(rows: Sequence[ErrorRow], names: Sequence[str] = ()) -> Table:
    """Returns table 14, with the paper's figures where it has these configs.

    Args:
        rows: of the detectors to compare; of each kind the first is the baseline.
        names: what to call the rows; by default detector and kind.
    """
    first: dict[str, ErrorRow] = {}
    lines = []
    for i, row in enumerate(rows):
        base = first.setdefault(row.kind, row)
        cells = []
        for column in TABLE_14:
            text = f'{row.values[column]:.2f}'
            if row is not base:
                text += f'\n{row.values[column] - base.values[column]:+.2f}'
            if row.paper:
                text += f'\npaper {row.paper[column]:.1f}'
            cells.append(text)
        lines.append([names[i] if names else f'{row.name}, {row.kind}', *cells])
    caption = f'{LEGEND} Second lines: more than in the first row.{notes_of(rows)}'
    return Table(['in %', *TABLE_14], lines, caption=caption)


def notes_of(rows: Sequence[ErrorRow]) -> str:
    """Returns what was left out of the rows, in sentences that begin with a space, or ''."""
    notes = dict.fromkeys(note for row in rows for note in row.notes)
    return ''.join(f' {note[0].upper()}{note[1:]}.' for note in notes)


def as_json(rows: Sequence[ErrorRow]) -> str:
    """Returns the rows as a JSON list, in percent."""
    return json.dumps([{**asdict(row), 'shares': row.shares()} for row in rows], indent=2)


def draw_errors(rows: Sequence[ErrorRow], file: Path) -> None:
    """Draws which share each error has, as figure 6, and below what each costs, model by model.

    Args:
        rows: see `bnet_mm.analysis.tide.analyze_errors`.
        file: a `.png`, `.pdf` or `.svg`.

    Raises:
        InputError: it cannot be written.
    """
    columns = len(rows)
    figure = Figure(figsize=(max(2.4 * columns, 7.2), 5.4), layout='constrained')
    shares, costs = figure.subfigures(2, 1, height_ratios=(1, 1))
    pies = shares.subplots(1, columns, squeeze=False)[0]
    for pie, row in zip(pies, rows):
        draw_shares(pie, row)
    shares.legend(
        handles=legend_of_shares(),
        loc='outside lower center',
        ncols=len(MAIN),
        fontsize=8,
        frameon=False,
    )
    draw_costs(costs.subplots(), rows)
    save_figure(figure, file)


def draw_costs(axes: Axes, rows: Sequence[ErrorRow]) -> None:
    """Draws what each of table 14's errors costs, model by model."""
    columns = len(rows)
    errors = [column for column in TABLE_14 if column.startswith('E_')]
    width = 0.8 / columns
    for i, row in enumerate(rows):
        places = [j + (i - (columns - 1) / 2) * width for j in range(len(errors))]
        color = colormaps['cividis'](0.1 + 0.8 * i / max(columns - 1, 1))
        values = [row.values[e] for e in errors]
        bars = axes.bar(places, values, 0.92 * width, label=_title(row), color=color)
        axes.bar_label(bars, fmt='%.1f', fontsize=7, padding=1)
    axes.set_xticks(range(len(errors)), [f'$E_\\mathrm{{{e[2:]}}}$' for e in errors], fontsize=9)
    axes.set_ylabel('cost in AP50, %', fontsize=8)
    axes.tick_params('y', labelsize=8)
    axes.margins(y=0.12)
    axes.spines[['top', 'right']].set_visible(False)
    axes.legend(fontsize=8, frameon=False)


def draw_shares(axes: Axes, row: ErrorRow) -> None:
    """Draws which share of all errors each of the main ones is, in percent (figure 6)."""
    axes.set_title(_title(row), fontsize=8)
    parts = {name: share for name, share in row.shares().items() if share > 0}
    if not parts:
        axes.text(0.5, 0.5, 'no errors', ha='center', va='center', transform=axes.transAxes)
        axes.set_axis_off()
        return
    axes.pie(
        list(parts.values()),
        colors=[COLORS[name] for name in parts],
        autopct=lambda percent: f'{percent:.0f}' if percent >= 4 else '',
        pctdistance=0.75,
        startangle=90,
        counterclock=False,
        textprops={'fontsize': 8, 'color': 'white'},
        wedgeprops={'width': 0.55, 'edgecolor': 'white'},
    )


def legend_of_shares() -> list[Patch]:
    """Returns the colours of `draw_shares` for a legend."""
    return [Patch(color=COLORS[name], label=f'{NAMES[name]}, %') for name in MAIN]


def _title(row: ErrorRow) -> str:
    return f'{row.name}\n{row.kind}'
