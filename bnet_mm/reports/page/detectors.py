"""The section of detectors' errors."""

from collections.abc import Sequence
from copy import deepcopy

from matplotlib.figure import Figure

from bnet_mm.analysis.detections import annotation_file, annotations_of, detect
from bnet_mm.analysis.tide import TABLE_14, ErrorRow, errors_of_detections
from bnet_mm.errors import InputError
from bnet_mm.reports.errors import (
    LEGEND,
    draw_costs,
    draw_shares,
    legend_of_shares,
    notes_of,
)
from bnet_mm.reports.figures import embed_figure
from bnet_mm.reports.page.compared import Compared
from bnet_mm.reports.page.page import Gallery, Picture, Section, Table
from bnet_mm.reports.page.parts import Parts, digest, file_mark


def errors_section(compared: Sequence[Compared], parts: Parts) -> Section:
    """Returns table 14 and figure 6 for the detectors, tested on their own test sets."""
    rows, missing = [], []
    for c in compared:
        try:
            kept = parts.get(
                'errors',
                [c.mark(), file_mark(annotation_file(c.cfg))],
                f'testing {c.label} for its errors (as long as a test takes)',
                lambda c=c: _errors(c, parts),
            )
        except InputError as error:
            missing.append(f'{c.label}: {error}.')
        else:
            rows += [ErrorRow(c.label, *row) for row in kept]
    tables, galleries = [], []
    for kind in dict.fromkeys(row.kind for row in rows):
        of_kind = [row for row in rows if row.kind == kind]
        tables.append(_table(kind, of_kind))
        galleries += _figures(kind, of_kind)
    text = (
        'What AP50 loses to each kind of error, by TIDE (table 14), and which share of all errors '
        f'each has (figure 6). {LEGEND}{notes_of(rows)}'
    )
    return Section('Errors', text, tables, galleries, missing)


def _errors(c: Compared, parts: Parts) -> list:
    cfg = deepcopy(c.cfg)
    truth = annotations_of(cfg)
    prefix = parts.folder / f'detections-{digest(c.mark())}'
    files, _ = detect(cfg, c.group.runs[0].config, str(c.checkpoint), prefix)
    rows = errors_of_detections(c.group.name, files, truth)
    return [[row.kind, row.values, row.paper, list(row.notes)] for row in rows]


def _table(kind: str, rows: Sequence[ErrorRow]) -> Table:
    lines = []
    for column in TABLE_14:
        cells = []
        for row in rows:
            text = f'{row.values[column]:.2f}'
            if row is not rows[0]:
                text += f'\n{row.values[column] - rows[0].values[column]:+.2f}'
            if row.paper:
                text += f'\npaper {row.paper[column]:.1f}'
            cells.append(text)
        lines.append([column, *cells])
    return Table([f'{kind}, %', *(row.name for row in rows)], lines)


def _figures(kind: str, rows: Sequence[ErrorRow]) -> list[Gallery]:
    pies = []
    for row in rows:
        figure = Figure(figsize=(3.2, 3.2), layout='constrained')
        draw_shares(figure.subplots(), row)
        figure.legend(
            handles=legend_of_shares(), loc='outside lower center', ncols=2, fontsize=8,
            frameon=False,
        )  # fmt: skip
        parts = [f'{name} {100 * share:.0f} %' for name, share in row.shares().items()]
        pies.append(Picture(embed_figure(figure), f'{row.name}, {kind}: {", ".join(parts)}'))
    costs = Figure(figsize=(4.2, 3.4), layout='constrained')
    draw_costs(costs.subplots(), rows)
    return [Gallery('', [*pies, Picture(embed_figure(costs), f'What each error costs, {kind}')])]
