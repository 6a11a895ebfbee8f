"""Learnt kernels and receptive fields as a table, as JSON and as a figure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import floor, log10
from pathlib import Path
from statistics import mean

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from bnet_mm.analysis.learnt_kernels import LearntKernel, ReceptiveField, by_stage
from bnet_mm.reports.figures import save_figure, wrapped
from bnet_mm.reports.table import Table
from bnet_mm.text import without_prefix

PANEL = 2.1  # inches


def kernel_table(name: str, kernels: Sequence[LearntKernel]) -> Table:
    """Returns a row for each layer, and the mean of each stage."""
    rows = []
    for stage, members in by_stage(kernels).items():
        for m in members:
            size = str(m.channels), str(m.k)
            rows.append([m.layer, *size, f'{100 * m.outside:.1f} %', f'{m.distance:.3f}'])
        means = mean(m.outside for m in members), mean(m.distance for m in members)
        title = f'mean of {stage}' if stage else 'mean'
        rows.append([title, '', '', f'{100 * means[0]:.1f} %', f'{means[1]:.3f}'])
    caption = (
        'Outside: share of the energy outside the centre taps, 0 for plain batch norm. Distance: '
        'from Dirac, the identity, mean over channels.'
    )
    return Table(['Layer', 'Channels', 'k', 'Outside', 'Distance'], rows, name, caption)


def as_json(
    kernels: Mapping[str, Sequence[LearntKernel]], fields: Mapping[str, ReceptiveField]
) -> str:
    """Returns kernels and sizes of receptive fields, model by model, as JSON."""
    models = {
        name: {
            'kernels': [asdict(kernel) for kernel in kernels.get(name, ())],
            'receptive_field_size': field.size,
        }
        for name, field in fields.items()
    }
    return json.dumps(models, indent=2)


def draw_kernels(
    kernels: Mapping[str, Sequence[LearntKernel]],
    fields: Mapping[str, ReceptiveField],
    file: Path,
) -> None:
    """Writes a sheet: for each model each stage's mean kernel, and below the receptive fields.

    Args:
        kernels: by the name to show, of each model with BNET; see `learnt_kernels`.
        fields: of each model, one or several to compare.
        file: a `.png`, `.pdf` or `.svg`.

    Raises:
        InputError: it cannot be written.
    """
    columns = max(*(len(by_stage(of_model)) + 2 for of_model in kernels.values()), len(fields))
    heights = [2 * PANEL + 0.7] * len(kernels) + [PANEL + 0.7]
    figure = Figure(figsize=(PANEL * columns, sum(heights)), layout='constrained')
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    for part, (name, of_model) in zip(parts, kernels.items()):
        part.suptitle(f'{name}: mean kernels of stages', fontsize=9)
        _draw_model(part, of_model)
    parts[-1].suptitle('Effective receptive fields', fontsize=9)
    axes = parts[-1].subplots(1, columns, squeeze=False)[0]
    for ax in axes:
        ax.set_axis_off()
    for ax, (name, field) in zip(axes, fields.items()):
        ax.imshow(field.field.numpy(), cmap='inferno')
        ax.set_title(wrapped(f'{name}\n{field.size:.0f} pixels', PANEL, 7), fontsize=7)
    save_figure(figure, file)


def _draw_model(part: SubFigure, kernels: Sequence[LearntKernel]) -> None:
    stages = by_stage(kernels)
    grid = part.add_gridspec(2, len(stages) + 2)
    for i, (stage, members) in enumerate(stages.items()):
        k = max(m.k for m in members)
        mean_kernel = np.mean([m.mean for m in members if m.k == k], 0)
        profile = 100 * np.mean([m.profile for m in members if m.k == k], 0)
        mean_kernel, title = _scaled(mean_kernel, without_prefix(stage, 'backbone.') or 'kernels')
        reach = max(abs(mean_kernel).max(), np.finfo(float).tiny)
        _draw_taps(part.add_subplot(grid[0, i]), title, mean_kernel, 'RdBu_r', (-reach, reach), 1)
        top = 0, profile.max()
        _draw_taps(part.add_subplot(grid[1, i]), '% of magnitude', profile, 'viridis', top, 0)
    bars = part.add_subplot(grid[:, len(stages) :])
    numbers = [list(stages).index(m.stage) for m in kernels]
    bars.barh(
        range(len(kernels)), [100 * m.outside for m in kernels], color=[f'C{n}' for n in numbers]
    )
    names = [without_prefix(m.layer, 'backbone.') for m in kernels]
    bars.set_yticks(range(len(kernels)), names, fontsize=7 if len(kernels) <= 20 else 4)
    bars.invert_yaxis()
    bars.set_xlim(0, 100)
    bars.tick_params('x', labelsize=7)
    bars.set_title('energy outside the centre, %', fontsize=8)
    bars.spines[['top', 'right']].set_visible(False)


def _scaled(kernel: np.ndarray, title: str) -> tuple[np.ndarray, str]:
    """Returns a kernel in units of a power of ten, so that one decimal will do, and its title."""
    largest = abs(kernel).max()
    exponent = floor(log10(largest)) if largest > 0 else 0
    if exponent >= 0:
        return kernel, title
    return kernel / 10.0**exponent, f'{title}, in $10^{{{exponent}}}$'


def _draw_taps(
    ax: Axes,
    title: str,
    values: np.ndarray,
    colors: str,
    limits: tuple[float, float],
    digits: int,
) -> None:
    """Draws a kernel with its figures, in black on the light colours and white on the dark."""
    shown = ax.imshow(values, cmap=colors, vmin=limits[0], vmax=limits[1])
    for (i, j), value in np.ndenumerate(values):
        light = np.dot(shown.to_rgba(value)[:3], (0.3, 0.6, 0.1)) > 0.5
        text = {'ha': 'center', 'va': 'center', 'fontsize': 8 if len(values) <= 3 else 5}
        ax.text(j, i, f'{value:.{digits}f}', color='black' if light else 'white', **text)
    ax.set_title(title, fontsize=8)
    ax.set_axis_off()
