"""Folded norms as a table, and what is said of a written graph."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from bnet_mm.deploy.operators import lacking
from bnet_mm.deploy.structure import Fusion
from bnet_mm.errors import program
from bnet_mm.reports.table import Table

if TYPE_CHECKING:
    from bnet_mm.deploy.onnx import Export


def fusion_tables(fusion: Fusion) -> Iterator[Table | str]:
    """Yields the counts of what was folded, and a line for everything that was not, and why."""
    sizes = ', '.join(map(str, sorted(set(fusion.taps.values()))))
    whole = set(fusion.folded) & set(fusion.centred)
    plain = set(fusion.folded) - whole - set(fusion.taps)
    rows = [
        ('BN', str(len(plain)), 'folded into the convolution'),
        ('BNET', str(len(whole)), 'folded whole, its kernel is zero around the centre'),
        ('BNET', str(len(fusion.taps)), f'normalization folded, kernels (k = {sizes}) remain'),
        ('', str(len(fusion.ends)), 'of these: kernel, addition and ReLU in one call'),
        ('', str(len(fusion.left)), 'left as they were'),
    ]
    yield Table(('', 'norms', 'what was done'), rows)
    for title, reasons in (('left', fusion.left), ('block not joined', fusion.apart)):
        if reasons:
            yield Table((title, 'because'), list(reasons.items()))
    if whole and not fusion.taps:
        yield 'every kernel is zero around its centre, as before training: the model is one of BN'
    yield f'outputs differ by {fusion.difference:.1e} of the largest value at most'


def export_lines(export: Export, runtime: str) -> Iterator[str]:
    """Yields what was written, what a runtime found in it, and what other runtimes lack for it."""
    if export.difference is None:
        agrees = f'{runtime} is not installed: not compared'
    elif export.compared is not None:
        size = 'any size' if export.size is None else f'{export.size[0]}x{export.size[1]}'
        agrees = (
            f'for one image of {size}; {runtime} finds the same {export.compared} detections, '
            f'scores differ by {export.difference:.1e}'
        )
    else:
        agrees = f'{runtime} differs by {export.difference:.1e} of the largest value'
    yield f'{export.path}: {", ".join(export.outputs)}; {agrees}'
    if export.why_fixed is not None:
        yield f'other sizes than {export.size[0]}x{export.size[1]} failed: {export.why_fixed}'
    if export.cost is not None:
        cost = export.cost
        what = 'detections are found again' if export.compared is not None else 'keep their class'
        same = '' if cost.same is None else f'{cost.same:.1%} {what}, '
        of_what = 'scores' if export.compared is not None else 'outputs'
        where = f'on {cost.photos} photos ' if cost.bits == 8 else ''
        yield (
            f'{cost.bits} bits: {where}{same}{of_what} differ by {cost.error:.1%} on average. The '
            f'metric of the test set: {program("test")} CONFIG {export.path} --runtime {runtime}'
        )
    if export.path.suffix != '.onnx':
        return
    for name, operators in lacking(export.path).items():
        said = f'lacks {", ".join(operators)}' if operators else 'has all operators of the graph'
        yield f'not run: the list of {name} {said}'
