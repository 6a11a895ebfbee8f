"""What was folded, as a table."""

from collections.abc import Iterator

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from bnet_mm.deploy.structure import Fusion


def as_rich(fusion: Fusion) -> Iterator[RenderableType]:
    """Yields the counts of what was folded, and a line for everything that was not, and why."""
    counts = Table('', 'norms', 'what was done', box=None, pad_edge=False)
    counts.add_row('BN', str(len(fusion.folded) - len(fusion.taps)), 'folded into the convolution')
    sizes = ', '.join(map(str, sorted(set(fusion.taps.values()))))
    counts.add_row(
        'BNET', str(len(fusion.taps)), f'normalization folded, kernels (k = {sizes}) remain'
    )
    counts.add_row('', str(len(fusion.ends)), 'of these: kernel, addition and ReLU in one call')
    counts.add_row('', str(len(fusion.left)), 'left as they were')
    yield counts
    for title, reasons in (('left', fusion.left), ('block not joined', fusion.apart)):
        if reasons:
            table = Table(title, 'because', box=None, pad_edge=False)
            for name, reason in reasons.items():
                table.add_row(escape(name), escape(reason))
            yield table
    yield f'outputs differ by {fusion.difference:.1e} of the largest value at most'
