"""Pairs of runs that differ by one thing, and what their differences say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import isnan, nan, sqrt
from statistics import mean, stdev
from typing import Any

from scipy.stats import t as student
from scipy.stats import ttest_rel

MAIN = ('top1', 'ap', 'miou')  # of a task's measures, the one that decides
LEVEL = 0.05
SMALLEST = 0.3  # points that count as a gain
NEGLIGIBLE = 0.5  # points; 'no gain' where the interval lies below
BASELINE = 'bn'
# An arm, and what it is compared with besides the baseline: arms whose names begin so.
RIVALS = (
    ('bnet3', 'control3'), ('bnet3', 'dw3'), ('bnet3', 'bnet3_zero'), ('bnet3', 'bnet3_kaiming'),
    ('bnet3', 'bnet3_replicate'), ('bnet3', 'bnet3_nodecay'), ('bnet3', 'bnet3_lr10'),
    ('bnet5', 'bnet5_lr10'), ('bnet5', 'wide'), ('bnet5', 'deep'), ('bnet5', 'longer'),
)  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """The runs of one configuration.

    Attributes:
        task, net, start, arm: what they share.
        runs: the first line of each seed.
    """

    task: str
    net: str
    start: str
    arm: str
    runs: dict[int, dict[str, Any]]

    @property
    def metric(self) -> str:
        """The measure that decides, by its name in the lines."""
        test = next(iter(self.runs.values()))['test']
        return next(name for name in MAIN if name in test)

    def values(self, metric: str | None = None) -> dict[int, float]:
        """Returns a measure by seed, where it was taken; the one that decides by default."""
        name = metric or self.metric
        return {s: run['test'][name] for s, run in self.runs.items() if name in run['test']}


@dataclass(frozen=True)
class Comparison:
    """One cell against another, by pairs of equal seed.

    Attributes:
        ours, theirs: what is compared.
        pairs: how many seeds both have.
        difference: mean of ours minus theirs, in points.
        low, high: its 95 % confidence interval; not a number for less than two pairs.
        p: of a two-sided paired t-test; None for less than two pairs or where all differ alike.
        corrected: by Holm for all comparisons of the report.
    """

    ours: Cell
    theirs: Cell
    pairs: int
    difference: float
    low: float
    high: float
    p: float | None
    corrected: float | None = None

    @property
    def verdict(self) -> str:
        """'gain', 'loss', 'no gain' or 'undecided', as study/README.md defines them."""
        sure = self.corrected is not None and self.corrected < LEVEL
        if sure and abs(self.difference) >= SMALLEST:
            return 'gain' if self.difference > 0 else 'loss'
        return 'no gain' if self.high < NEGLIGIBLE else 'undecided'


def cells_of(records: Iterable[dict[str, Any]]) -> tuple[list[Cell], list[tuple[dict, dict]]]:
    """Puts lines of one configuration together.

    Returns:
        the cells, in the order of their first lines, and of each run that was repeated the first
        line and the other.
    """
    found: dict[tuple, dict[int, dict[str, Any]]] = {}
    repeats = []
    for record in records:
        key = tuple(record[k] for k in ('task', 'net', 'start', 'arm', 'config_hash'))
        runs = found.setdefault(key, {})
        if record['seed'] in runs:
            repeats.append((runs[record['seed']], record))
        else:
            runs[record['seed']] = record
    # One name with two configurations is two cells; the later ones say which they are.
    cells, names = [], set()
    for (task, net, start, arm, config_hash), runs in found.items():
        name = (task, net, start, arm)
        shown = arm if name not in names else f'{arm} ({config_hash})'
        names.add(name)
        cells.append(Cell(task, net, start, shown, runs))
    return cells, repeats


def comparisons_of(cells: Sequence[Cell]) -> list[Comparison]:
    """Returns all comparisons that the design names, of cells that there are.

    Within a task, network and start every arm with the baseline, and arms with their rivals; across
    starts BNET from BNET's weights with BNET and with batch norm from batch norm's.
    """
    by_name = {(c.task, c.net, c.start, c.arm): c for c in cells}
    found = []
    for cell in cells:
        of_start = [by_name.get((cell.task, cell.net, cell.start, BASELINE))]
        for ours, theirs in RIVALS:
            if cell.arm == ours:
                of_start += [
                    c for (*place, arm), c in by_name.items()
                    if place == [cell.task, cell.net, cell.start] and arm.startswith(theirs)
                ]  # fmt: skip
        if cell.arm != BASELINE:
            found += [compare(cell, other) for other in of_start if other is not None]
        source, _, arm = cell.start.rpartition(':')
        if source and arm == cell.arm != BASELINE:
            for other in (cell.arm, BASELINE):
                theirs = by_name.get((cell.task, cell.net, f'{source}:{BASELINE}', other))
                if theirs is not None:
                    found.append(compare(cell, theirs))
    return corrected([c for c in found if c.pairs])


def compare(ours: Cell, theirs: Cell) -> Comparison:
    """Compares two cells by the seeds that both have."""
    a, b = ours.values(), theirs.values(ours.metric)
    seeds = sorted(set(a) & set(b))
    differences = [a[seed] - b[seed] for seed in seeds]
    if not differences:
        return Comparison(ours, theirs, 0, nan, nan, nan, None)
    middle, low, high, p = mean(differences), nan, nan, None
    if len(differences) > 1:
        deviation = stdev(differences)
        reach = student.ppf(1 - LEVEL / 2, len(seeds) - 1) * deviation / sqrt(len(seeds))
        low, high = middle - reach, middle + reach
        if deviation > 1e-12:
            p = float(ttest_rel([a[s] for s in seeds], [b[s] for s in seeds]).pvalue)
    return Comparison(ours, theirs, len(seeds), middle, low, high, p)


def corrected(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Corrects the p values for the number of tests (Holm, 1979).

    Example:
        >>> [c.corrected for c in corrected([])]
        []
    """
    tested = sorted((c.p, i) for i, c in enumerate(comparisons) if c.p is not None)
    found, largest = list(comparisons), 0.0
    for rank, (p, i) in enumerate(tested):
        largest = max(largest, min(1.0, p * (len(tested) - rank)))
        found[i] = replace(found[i], corrected=largest)
    return found


def epochs_to(run: dict[str, Any], metric: str, level: float) -> int | None:
    """Returns the first epoch after which a run was at least as good, or None if it never was.

    Where there are fewer evaluations than epochs, they are taken to be equally far apart.
    """
    values = run['curve'].get(metric, [])
    apart = max(1, len(run['curve'].get('loss', [])) // max(1, len(values)))
    return next((apart * i for i, v in enumerate(values, 1) if v >= level), None)


def spread(values: Sequence[float]) -> str:
    """Returns mean and sample standard deviation as text.

    Example:
        >>> spread([1.0, 2.0]), spread([1.0])
        ('1.50 ± 0.71', '1.00')
    """
    if not values or any(map(isnan, values)):
        return '-'
    if len(values) == 1:
        return f'{values[0]:.2f}'
    return f'{mean(values):.2f} ± {stdev(values):.2f}'
