"""Measurements as tables, as JSON and as a figure."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from bnet_mm.benchmark.interleaved import Ratio
from bnet_mm.benchmark.layers import LayerRow
from bnet_mm.benchmark.models import ModelRow
from bnet_mm.benchmark.peers import OURS, TWO_LINES
from bnet_mm.checkpoint.atomic import write_whole
from bnet_mm.reports.table import Table

LAYER_COLUMNS = (
    *('mode', 'type', 'format', 'map', 'k', 'BN ms', 'BNET / BN', 'two lines / BN'),
    *('compiled / BN', 'copy limit / BN', 'kept / BN', 'two lines kept / BN'),
)
MODEL_COLUMNS = (
    *('model', 'task', 'format', 'k', 'norm', 'ms', '/ BN', '/ BN deployed', 'memory MB'),
)


def benchmark_tables(layers: list[LayerRow], models: list[ModelRow]) -> list[Table]:
    """Returns a table of layers and one of models, those that have rows."""
    tables = []
    if layers:
        rows = [_layer(row) for row in layers]
        # Nothing is said of what was not measured.
        cells = zip(LAYER_COLUMNS, *rows)
        columns, *rows = zip(*(column for column in cells if any(column[1:])))
        tables.append(Table(columns, rows))
    if models:
        tables.append(Table(MODEL_COLUMNS, [_model(row) for row in models]))
    return tables


def grid_table(layers: list[LayerRow]) -> Table:
    """Returns BNET over the faster of the two lines, map by map, the worst map first.

    A column is a mode, a type and a format; its cells hold one number for each kernel size.
    """
    kinds = list(dict.fromkeys((row.mode, row.dtype, row.memory_format) for row in layers))
    maps: dict[tuple, dict[tuple, list[float]]] = {}
    for row in layers:
        kind = row.mode, row.dtype, row.memory_format
        maps.setdefault(row.shape, {}).setdefault(kind, []).append(row.over_peer)
    worst_first = sorted(maps, key=lambda shape: -max(map(max, maps[shape].values())))
    rows = [
        [
            'x'.join(map(str, shape)),
            *(' '.join(f'{ratio:.2f}' for ratio in maps[shape].get(kind, ())) for kind in kinds),
        ]
        for shape in worst_first
    ]
    return Table(['map', *map(' '.join, kinds)], rows)


def as_json(machine: dict, layers: list[LayerRow], models: list[ModelRow]) -> str:
    """Returns everything as one JSON object."""
    parts = {'layers': [asdict(row) for row in layers], 'models': [asdict(row) for row in models]}
    return json.dumps({'machine': machine, **parts}, indent=2)


def _layer(row: LayerRow) -> list[str]:
    return [
        *(row.mode, row.dtype, row.memory_format, 'x'.join(map(str, row.shape)), str(row.k)),
        f'{row.bn * 1e3:#.4g}',
        *map(_ratio, (row.bnet, row.two_lines, row.two_lines_compiled)),
        f'{row.limit:.2f}',
        *('' if kept is None else f'{kept:.3f}' for kept in (row.saved, row.saved_two_lines)),
    ]


def _model(row: ModelRow) -> list[str]:
    return [
        *(row.model, row.task, row.memory_format, str(row.k), row.peer),
        f'{row.seconds * 1e3:.0f}',
        *map(_ratio, (row.over_bn, row.over_bn_deployed)),
        '' if row.memory is None else f'{row.memory / 1e6:.0f}',
    ]


def _ratio(value: Ratio | None) -> str:
    return '' if value is None else f'{value.median:.2f} ({value.low:.2f}-{value.high:.2f})'


def draw(rows: list[LayerRow], path: str | Path, title: str) -> None:
    """Draws cost over batch norm's against kernel size, a panel for each memory format.

    A line is a feature map: BNET's is whole, the two lines' is dashed, and the dotted one at the
    bottom is what moving batch norm's bytes takes at the speed of a copy. Modes and types have
    panels of their own where there are several.

    Args:
        rows: at least one.
        path: the image to write, whole or not at all; its ending says in which format.
        title: what stands above, such as the machine and the date.
    """
    from matplotlib.figure import Figure

    by_panel: dict[tuple, list[LayerRow]] = {}
    for row in rows:
        by_panel.setdefault((row.memory_format, row.mode, row.dtype), []).append(row)
    told = [i for i, values in enumerate(zip(*by_panel)) if i == 0 or len({*values}) > 1]
    figure = Figure(figsize=(5.2 * len(by_panel), 4.6), layout='constrained')
    panels = figure.subplots(1, len(by_panel), sharey=True, squeeze=False)[0]
    for panel, (kind, mine) in zip(panels, by_panel.items()):
        for i, shape in enumerate(dict.fromkeys(row.shape for row in mine)):
            line = sorted((row for row in mine if row.shape == shape), key=lambda row: row.k)
            sizes, color = [row.k for row in line], f'C{i}'
            name = f'{shape[1]} x {shape[2]} x {shape[3]}'
            for peer, style in ((OURS, '-'), (TWO_LINES, '--')):
                ratios = [row.bnet if peer == OURS else row.two_lines for row in line]
                label = f'{peer}, {name}' if peer == OURS else None
                panel.plot(sizes, [r.median for r in ratios], style, color=color, label=label)
                low, high = [r.low for r in ratios], [r.high for r in ratios]
                panel.fill_between(sizes, low, high, color=color, alpha=0.15, linewidth=0)
            panel.plot(sizes, [row.limit for row in line], ':', color=color)
        panel.axhline(1, color='black', linewidth=0.8)
        panel.set(title=', '.join(kind[i] for i in told), xlabel='kernel size k', yscale='log')
        panel.set_xticks(sorted({row.k for row in mine}))
        panel.yaxis.set_major_formatter('{x:g}')
        panel.yaxis.set_minor_formatter('')
        panel.set_yticks([0.5, 1, 2, 3, 5, 10, 20, 40])
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("time over batch norm's")
    panels[0].plot([], [], '--', color='grey', label="the paper's two lines")
    panels[0].plot([], [], ':', color='grey', label="limit: batch norm's bytes, copied")
    handles, _ = panels[0].get_legend_handles_labels()
    figure.legend(handles=handles, loc='outside lower center', ncols=3, fontsize='small')
    figure.suptitle(title, fontsize='medium')
    path = Path(path)
    write_whole(path, lambda file: figure.savefig(file, dpi=150, format=path.suffix[1:] or 'png'))
