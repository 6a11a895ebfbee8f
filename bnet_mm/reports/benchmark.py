"""Measurements as tables, as JSON and as an image."""

import json
from dataclasses import asdict
from pathlib import Path

from bnet_mm.benchmark.interleaved import Ratio
from bnet_mm.benchmark.layers import FORMATS, LayerRow
from bnet_mm.benchmark.models import ModelRow
from bnet_mm.benchmark.peers import OURS, TWO_LINES
from bnet_mm.checkpoint.atomic import write_whole
from bnet_mm.reports.table import Table

LAYER_COLUMNS = (
    *('format', 'map', 'k', 'BN ms', 'BNET / BN', 'two lines / BN', 'copy limit / BN'),
    *('kept / BN', 'two lines kept / BN'),
)
MODEL_COLUMNS = (
    *('model', 'task', 'format', 'k', 'norm', 'ms', '/ BN', '/ BN deployed', 'memory MB'),
)


def benchmark_tables(layers: list[LayerRow], models: list[ModelRow]) -> list[Table]:
    """Returns a table of layers and one of models, those that have rows."""
    tables = []
    if layers:
        tables.append(Table(LAYER_COLUMNS, [_layer(row) for row in layers]))
    if models:
        tables.append(Table(MODEL_COLUMNS, [_model(row) for row in models]))
    return tables


def as_json(machine: dict, layers: list[LayerRow], models: list[ModelRow]) -> str:
    """Returns everything as one JSON object."""
    parts = {'layers': [asdict(row) for row in layers], 'models': [asdict(row) for row in models]}
    return json.dumps({'machine': machine, **parts}, indent=2)


def _layer(row: LayerRow) -> list[str]:
    return [
        row.memory_format,
        'x'.join(map(str, row.shape)),
        str(row.k),
        f'{row.bn * 1e3:.1f}',
        _ratio(row.bnet),
        _ratio(row.two_lines),
        f'{row.limit:.2f}',
        f'{row.saved:.3f}',
        f'{row.saved_two_lines:.3f}',
    ]


def _model(row: ModelRow) -> list[str]:
    return [
        *(row.model, row.task, row.memory_format, str(row.k), row.peer),
        f'{row.seconds * 1e3:.0f}',
        _ratio(row.over_bn),
        '' if row.over_bn_deployed is None else _ratio(row.over_bn_deployed),
        '' if row.memory is None else f'{row.memory / 1e6:.0f}',
    ]


def _ratio(value: Ratio) -> str:
    return f'{value.median:.2f} ({value.low:.2f}-{value.high:.2f})'


def draw(rows: list[LayerRow], path: str | Path, title: str) -> None:
    """Draws cost over batch norm's against kernel size, a panel for each memory format.

    A line is a map: BNET's is whole, the two lines' is dashed, and the dotted one at the bottom is
    what moving batch norm's bytes takes at the speed of a copy.

    Args:
        rows: at least one.
        path: the image to write, whole or not at all; its ending says in which format.
        title: what stands above, such as the machine and the date.
    """
    from matplotlib.figure import Figure

    formats = [f for f in FORMATS if any(row.memory_format == f for row in rows)]
    figure = Figure(figsize=(5.2 * len(formats), 4.6), layout='constrained')
    panels = figure.subplots(1, len(formats), sharey=True, squeeze=False)[0]
    for panel, memory_format in zip(panels, formats, strict=True):
        mine = [row for row in rows if row.memory_format == memory_format]
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
        panel.set(title=memory_format, xlabel='kernel size k', yscale='log')
        panel.set_xticks(sorted({row.k for row in mine}))
        panel.yaxis.set_major_formatter('{x:g}')
        panel.yaxis.set_minor_formatter('')
        panel.set_yticks([0.5, 1, 2, 3, 5, 10, 20, 40])
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("time over batch norm's, forward and backward")
    panels[0].plot([], [], '--', color='grey', label="the paper's two lines")
    panels[0].plot([], [], ':', color='grey', label="limit: batch norm's bytes, copied")
    handles, _ = panels[0].get_legend_handles_labels()
    figure.legend(handles=handles, loc='outside lower center', ncols=3, fontsize='small')
    figure.suptitle(title, fontsize='medium')
    path = Path(path)
    write_whole(path, lambda file: figure.savefig(file, dpi=150, format=path.suffix[1:] or 'png'))
