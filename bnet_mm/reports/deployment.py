"""Folded norms as a table."""

from __future__ import annotations

from collections.abc import Iterator

from bnet_mm.deploy.structure import Fusion
from bnet_mm.reports.table import Table


def fusion_tables(fusion: Fusion) -> Iterator[Table | str]:
    """Yields the counts of what was folded, and a line for everything that was not, and why."""
    sizes = ', '.join(map(str, sorted(set(fusion.taps.values()))))
    rows = [
        ('BN', str(len(fusion.folded) - len(fusion.taps)), 'folded into the convolution'),
        ('BNET', str(len(fusion.taps)), f'normalization folded, kernels (k = {sizes}) remain'),
        ('', str(len(fusion.ends)), 'of these: kernel, addition and ReLU in one call'),
        ('', str(len(fusion.left)), 'left as they were'),
    ]
    yield Table(('', 'norms', 'what was done'), rows)
    for title, reasons in (('left', fusion.left), ('block not joined', fusion.apart)):
        if reasons:
            yield Table((title, 'because'), list(reasons.items()))
    yield f'outputs differ by {fusion.difference:.1e} of the largest value at most'
