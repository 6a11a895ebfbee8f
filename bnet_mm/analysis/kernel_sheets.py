"""Learnt kernels and receptive fields as a table, as JSON and as a picture."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean

import torch
from matplotlib.figure import Figure
from rich.table import Table

from bnet_mm.analysis.figures import save_figure
from bnet_mm.analysis.learnt_kernels import LearntKernel, ReceptiveField, by_stage


def as_rich(kernels: Sequence[LearntKernel]) -> Table:
    """Returns a table with a line for each layer, and the mean of each stage."""
    table = Table(
        caption='Outside: share of the energy outside the centre taps, 0 for plain batch norm. '
        'Distance: from Dirac, the identity, mean over channels.',
        caption_justify='left',
    )
    table.add_column('Layer', overflow='fold')
    for column in ('Channels', 'k', 'Outside', 'Distance'):
        table.add_column(column, justify='right')
    for stage, members in by_stage(kernels).items():
        for m in members:
            row = (str(m.channels), str(m.k), f'{100 * m.outside:.1f} %', f'{m.distance:.3f}')
            table.add_row(m.layer, *row)
        means = mean(m.outside for m in members), mean(m.distance for m in members)
        title = f'mean of {stage}' if stage else 'mean'
        table.add_row(title, '', '', f'{100 * means[0]:.1f} %', f'{means[1]:.3f}', style='bold')
        table.add_section()
    return table


def as_json(kernels: Sequence[LearntKernel], fields: dict[str, ReceptiveField]) -> str:
    """Returns kernels and sizes of receptive fields as JSON."""
    sizes = {name: field.size for name, field in fields.items()}
    return json.dumps(
        {'kernels': [asdict(k) for k in kernels], 'receptive_field_sizes': sizes}, indent=2
    )


def draw_kernels(
    kernels: Sequence[LearntKernel], fields: dict[str, ReceptiveField], file: Path
) -> None:
    """Writes a sheet: each stage's mean kernel above, the receptive fields below.

    Args:
        kernels: see `learnt_kernels`.
        fields: receptive fields by the name to show, one or several to compare.
        file: a `.png`, `.pdf` or `.svg`.

    Raises:
        InputError: it cannot be written.
    """
    stages = by_stage(kernels)
    columns = max(len(stages), len(fields))
    figure = Figure(figsize=(2.6 * columns, 5.6), layout='constrained')
    axes = figure.subplots(2, columns, squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, (stage, members) in zip(axes[0], stages.items(), strict=False):
        k = max(m.k for m in members)
        profiles = [torch.tensor(m.profile) for m in members if m.k == k]
        profile = torch.stack(profiles).mean(0).numpy()
        top = profile.max()
        ax.imshow(profile, cmap='viridis', vmin=0, vmax=top)
        for i in range(k):
            for j in range(k):
                color = 'black' if profile[i, j] > 0.6 * top else 'white'
                text = f'{100 * profile[i, j]:.0f}'
                ax.text(j, i, text, ha='center', va='center', color=color, fontsize=8)
        ax.set_title(f'{stage or "kernels"}: % of magnitude', fontsize=8)
    for ax, (name, field) in zip(axes[1], fields.items(), strict=False):
        ax.imshow(field.field.numpy(), cmap='inferno')
        ax.set_title(f'{name}: {field.size:.0f} pixels', fontsize=8)
    save_figure(figure, file)
