"""The report of a study: its tables, from the lines of results."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from statistics import mean
from typing import Any

from bnet_mm.reports.table import Table
from bnet_study.comparing import BASELINE, Cell, Comparison, epochs_to, spread
from bnet_study.measures import CORRUPTIONS

METRICS = dict(top1='top-1, %', ap='box AP', miou='mIoU, %')


def where(cell: Cell) -> str:
    """Returns what the cells of a comparison share, in words."""
    return f'{cell.task}, {cell.net}'


def results_table(cells: Sequence[Cell]) -> Table:
    """Returns mean and deviation of the deciding measure of each cell."""
    rows = [
        (
            where(cell), cell.start, cell.arm, METRICS[cell.metric],
            spread(list(cell.values().values())), str(len(cell.runs)),
            ' '.join(f'{v:.2f}' for _, v in sorted(cell.values().items())),
            f'{next(iter(cell.runs.values())).get("parameters", 0) / 1e6:.3f}',
        )
        for cell in cells
    ]  # fmt: skip
    return Table(
        ('task, network', 'start', 'arm', 'measure', 'after the last epoch', 'seeds', 'each seed',
         'parameters, M'),
        rows,
        'Results',
        'Mean and sample standard deviation over seeds.',
    )  # fmt: skip


def comparisons_table(comparisons: Sequence[Comparison]) -> Table:
    """Returns every comparison, with the test that decides."""
    rows = []
    for c in comparisons:
        theirs = c.theirs.arm
        if c.theirs.start != c.ours.start:
            theirs += f' from {c.theirs.start}'
        interval = '-' if isnan(c.low) else f'{c.low:+.2f} to {c.high:+.2f}'
        rows.append(
            (
                where(c.ours), c.ours.start, c.ours.arm, theirs, str(c.pairs),
                f'{c.difference:+.2f}', interval, _p(c.p), _p(c.corrected), c.verdict,
            )
        )  # fmt: skip
    tests = sum(c.p is not None for c in comparisons)
    return Table(
        ('task, network', 'start', 'arm', 'against', 'pairs', 'difference', '95 % interval', 'p',
         'p, Holm', 'verdict'),
        rows,
        'Comparisons',
        f'Points; mean over pairs of equal seed. {len(comparisons)} comparisons, {tests} of them '
        f'tested (two-sided paired t-tests), the last p corrected for all of these.',
    )  # fmt: skip


def _p(value: float | None) -> str:
    return '-' if value is None else f'{value:.3f}'


def convergence_table(cells: Sequence[Cell]) -> Table:
    """Returns how many epochs an arm needs for the baseline's final figure, seed by seed."""
    baselines = {(c.task, c.net, c.start): c for c in cells if c.arm == BASELINE}
    rows = []
    for cell in cells:
        baseline = baselines.get((cell.task, cell.net, cell.start))
        if baseline is None or cell.metric == 'miou':
            continue
        goal = baseline.values()
        epochs = {
            seed: epochs_to(run, cell.metric, goal[seed])
            for seed, run in sorted(cell.runs.items())
            if seed in goal
        }
        if not epochs:
            continue
        total = max(len(run['curve'].get('loss', [])) for run in cell.runs.values())
        shown = ' '.join('never' if e is None else str(e) for e in epochs.values())
        rows.append((where(cell), cell.start, cell.arm, shown, str(total)))
    return Table(
        ('task, network', 'start', 'arm', 'epochs, each seed', 'of'),
        rows,
        "Epochs until the accuracy that bn ends with at the same seed",
        'Detectors are evaluated after every third epoch or so.',
    )  # fmt: skip


def robustness_table(cells: Sequence[Cell]) -> Table:
    """Returns calibration and accuracies on corrupted photos of classifiers."""
    rows = []
    for cell in cells:
        if cell.metric != 'top1':
            continue
        found = [spread(list(cell.values('ece').values()))]
        means = []
        for kind in CORRUPTIONS:
            values = list(cell.values(f'top1_{kind}').values())
            means.append(mean(values) if values else float('nan'))
            found.append('-' if not values else f'{mean(values):.1f}')
        found.append(f'{mean(means):.1f}')
        rows.append((where(cell), cell.start, cell.arm, *found))
    return Table(
        ('task, network', 'start', 'arm', 'ECE, %', *CORRUPTIONS, 'mean'),
        rows,
        'Calibration, and top-1 on corrupted test photos',
        'Means over seeds. They decide nothing: they were not corrected for being looked at.',
    )


def kernels_table(cells: Sequence[Cell]) -> Table:
    """Returns how much of the kernels' energy is outside the centre tap, by stage."""
    rows = []
    for cell in cells:
        stages: dict[str, list[float]] = {}
        for run in cell.runs.values():
            for layer, share in run.get('kernels', {}).items():
                stage = next((p for p in layer.split('.') if p.startswith('layer')), 'net')
                stages.setdefault(stage, []).append(100 * share)
        if stages:
            shown = ' / '.join(f'{mean(stages[stage]):.1f}' for stage in sorted(stages))
            rows.append((where(cell), cell.start, cell.arm, shown))
    return Table(
        ('task, network', 'start', 'arm', 'outside the centre, %, stage by stage'),
        rows,
        "The kernels' energy",
        'Share of the squared kernel weights outside the centre tap: 0 is batch norm, 88.9 '
        '(k = 3) and 96 (k = 5) a box filter. Mean over layers and seeds.',
    )


def times_table(times: Sequence[dict[str, Any]]) -> Table:
    """Returns the times of training steps that `run.py --times` took."""
    rows = [
        (f'{t["task"]}, {t["net"]}', t['arm'], f'{1000 * t["seconds"]:.0f}', f'{t["ratio"]:.3f}')
        for t in times
    ]
    return Table(
        ('task, network', 'arm', 'step, ms', 'over bn'),
        rows,
        'Cost of a training step',
        'Medians of interleaved rounds on one machine, the ratios round by round.',
    )


def repeats_table(repeats: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> Table:
    """Returns runs that were done more than once, and how far they came out apart."""
    rows = []
    for first, other in repeats:
        name = next(n for n in METRICS if n in first['test'])
        values = first['test'][name], other['test'][name]
        machines = [r.get('machine', {}) for r in (first, other)]
        shown = [m.get('gpu', m.get('cpu', '-')) for m in machines]
        rows.append(
            (f'{first["task"]}, {first["net"]}', first['start'], first['arm'], str(first['seed']),
             f'{values[0]:.2f}', f'{values[1]:.2f}', f'{values[1] - values[0]:+.2f}',
             ' and '.join(dict.fromkeys(shown)))
        )  # fmt: skip
    return Table(
        ('task, network', 'start', 'arm', 'seed', 'first', 'again', 'difference', 'machines'),
        rows,
        'Runs that were repeated',
        'The first line of a run counts everywhere else.',
    )
