"""Tables of what one line gives (`bnet_mm.analysis.coverage`)."""

from __future__ import annotations

from collections import Counter

from bnet_mm.analysis.coverage import ERROR, EVERY, PAPER, REFUSED, Row
from bnet_mm.reports.table import Table

OUTCOMES = (PAPER, EVERY, REFUSED, ERROR)
ABOUT = """# What one line gives

Written by `tools/coverage.py`: every distinct backbone of the stock configs with
`norm_cfg=dict(type='BNET', k=3)`, and a small model of each convolutional family of timm after
`bnet_mm.enhance(model, k=3)`. The paper's place is the norm after the last convolution of a
residual block, in inverted ones after the expansion. What is refused says why, in one sentence,
when it is built."""


def coverage_tables(rows: list[Row]) -> list[Table | str]:
    """Returns the counts by library, and a line for each class of network and what came of it."""
    libraries = list(dict.fromkeys(row.library for row in rows))
    counts = {name: Counter(r.outcome for r in rows if r.library == name) for name in libraries}
    summary = Table(
        columns=['', *OUTCOMES, 'backbones'],
        rows=[
            [name, *(str(found[kind]) for kind in OUTCOMES), str(sum(found.values()))]
            for name, found in counts.items()
        ],
    )
    lines: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        network = row.network.rpartition('.')[2]
        reason = row.sentence.partition(':')[0] if row.outcome in (REFUSED, ERROR) else ''
        lines.setdefault((row.library, network, row.outcome + reason), []).append(row)
    detail = Table(
        columns=['library', 'network', 'backbones', 'BNET', 'norms', 'what it gives'],
        rows=[
            [library, network, str(len(found)), *_numbers(found[0]), _what(found[0])]
            for (library, network, _), found in lines.items()
        ],
        caption='Numbers of norms are those of the first backbone.',
    )
    return [ABOUT, summary, detail]


def _numbers(row: Row) -> tuple[str, str]:
    return (str(row.enhanced), str(row.norms)) if row.enhanced else ('-', '-')


def _what(row: Row) -> str:
    return row.outcome if row.enhanced else f'{row.outcome}: {row.sentence}'
