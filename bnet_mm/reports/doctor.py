"""An examination as lines of 80 columns, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import groupby, takewhile

from bnet_mm.analysis.doctor import Examination, NormFacts
from bnet_mm.reports.table import Table
from bnet_mm.text import without_prefix, without_suffix


def examination_tables(examination: Examination) -> Iterator[Table | str]:
    """Yields a row for each BNET, equal ones joined, then what they share, and the warnings."""
    norms = examination.norms
    if norms:
        prefix = _common_prefix([norm.name for norm in norms])
        below = f'Names below {without_suffix(prefix, ".")}. ' if prefix else ''
        options = sorted({_options(norm) for norm in norms})
        rows = [_row(list(equal), prefix, len(options) > 1) for _, equal in groupby(norms, _facts)]
        columns = ['norm', 'kernel', 'at', 'trains', 'statistics', 'off centre']
        columns += ['optimizer'] if len(options) > 1 else []
        yield Table(
            columns,
            rows,
            caption=f'{below}at: position in the block (paper, table 10). off centre: share of the '
            f"kernels' energy outside the centre taps; 0 is plain batch norm.",
        )
        if len(options) == 1:
            yield f'optimizer: {options[0]}'
        for path in dict.fromkeys(norm.path for norm in norms):
            yield f'computed by {path} ({sum(norm.path == path for norm in norms)} norms)'
    others = ', '.join(f'{count} {kind}' for kind, count in examination.others.items()) or 'none'
    yield f'{len(norms)} BNET; other norms: {others}'
    yield from (f'WARNING: {warning}' for warning in examination.warnings)


def as_json(examination: Examination) -> str:
    """Returns everything, norm by norm, as one JSON object."""
    return json.dumps(asdict(examination), indent=2)


def _common_prefix(names: Sequence[str]) -> str:
    """Returns the parts that several names begin with, 'backbone.' for example, or ''."""
    parts = zip(*(name.split('.')[:-1] for name in names))
    common = takewhile(lambda part: len(set(part)) == 1, parts) if len(names) > 1 else ()
    return ''.join(f'{part[0]}.' for part in common)


def _facts(norm: NormFacts) -> tuple:
    """Returns what neighbours must have in common to share a row."""
    own = norm.name.rpartition('.')[2]
    where = norm.position, norm.trainable, norm.frozen, norm.path, _options(norm)
    return own, norm.type, norm.k, norm.dilation, *where


def _options(norm: NormFacts) -> str:
    if norm.lr is None or norm.weight_decay is None:
        return 'in no group'
    return f'lr {norm.lr:g}, weight decay {norm.weight_decay:g}'


def _row(norms: Sequence[NormFacts], prefix: str, with_options: bool) -> list[str]:
    first, last = norms[0], norms[-1]
    name = without_prefix(first.name, prefix)
    if len(norms) > 1:
        # The norm's own name is the first one's: layer1.0.bn3 ... layer4.2 (16).
        name += f' ... {without_prefix(last.name, prefix).rpartition(".")[0]} ({len(norms)})'
    kernel = f'{first.type}-{first.k}'
    least, most = (f'{100 * f(n.from_dirac for n in norms):.1f}' for f in (min, max))
    return [
        name,
        kernel if first.dilation == 1 else f'{kernel}, dilation {first.dilation}',
        first.position,
        'yes' if first.trainable else 'no',
        'frozen' if first.frozen else 'of the batch',
        f'{least} %' if least == most else f'{least} to {most} %',
        *([_options(first)] if with_options else []),
    ]
