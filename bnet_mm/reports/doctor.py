"""An examination as a table and as JSON."""

import json
from collections.abc import Iterator
from dataclasses import asdict

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from bnet_mm.analysis.doctor import Examination


def as_rich(examination: Examination) -> Iterator[RenderableType]:
    """Yields a row for each BNET, a line for the other norms, and the warnings."""
    if examination.norms:
        table = Table(
            *('norm', 'type', 'k', 'at', 'trains', 'group', 'decay', 'lr'),
            *('statistics', 'off centre', 'forward'),
            box=None,
            pad_edge=False,
        )
        for n in examination.norms:
            table.add_row(
                escape(n.name),
                n.type,
                f'{n.k}' if n.dilation == 1 else f'{n.k} dilated {n.dilation}',
                n.position,
                'yes' if n.trainable else 'no',
                '-' if n.group is None else str(n.group),
                '-' if n.weight_decay is None else f'{n.weight_decay:g}',
                '-' if n.lr is None else f'{n.lr:g}',
                'frozen' if n.frozen else 'of the batch',
                f'{n.from_dirac:.2%}',
                n.path,
            )
        yield table
    others = ', '.join(f'{count} {kind}' for kind, count in examination.others.items()) or 'none'
    yield f'{len(examination.norms)} BNET; other norms: {others}'
    yield from (escape(f'WARNING: {warning}') for warning in examination.warnings)


def as_json(examination: Examination) -> str:
    """Returns everything as one JSON object."""
    return json.dumps(asdict(examination), indent=2)
