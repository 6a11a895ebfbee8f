"""Compares trainings that differ by their norm, over seeds, and gives the paper's difference."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path
from statistics import mean, stdev

import yaml

from bnet_mm.analysis.runs import Run
from bnet_mm.errors import InputError
from bnet_mm.text import without_suffix

# mmengine's names of what the paper reports, how the metafiles call it, and what makes it percent.
PAPER = {
    'accuracy/top1': ('top-1 accuracy', 1),
    'accuracy/top5': ('top-5 accuracy', 1),
    'acc/top1': ('top-1 accuracy', 100),
    'acc/top5': ('top-5 accuracy', 100),
    'coco/bbox_mAP': ('box AP', 100),
    'coco/bbox_mAP_50': ('box AP50', 100),
    'coco/bbox_mAP_75': ('box AP75', 100),
    'coco/bbox_mAP_s': ('box AP small', 100),
    'coco/bbox_mAP_m': ('box AP medium', 100),
    'coco/bbox_mAP_l': ('box AP large', 100),
    'coco/segm_mAP': ('mask AP', 100),
    'coco/segm_mAP_50': ('mask AP50', 100),
    'coco/segm_mAP_75': ('mask AP75', 100),
    'mIoU': ('mIoU', 1),
}
LOSS = 'training loss'
# Parts of the names of metrics of which less is better.
LOWER = ('loss', 'error', 'mae', 'mse')


@dataclass(frozen=True)
class Group:
    """Trainings of one config, with one seed each.

    Attributes:
        name: the config's, and that of a work dir where configs of one name differ.
        norm: the backbone's norm.
        runs: ordered by seed.
    """

    name: str
    norm: str
    runs: tuple[Run, ...]


@dataclass(frozen=True)
class Figure:
    """One metric of one group beside the first group.

    Attributes:
        metric: mmengine's name of it, or 'training loss'.
        when: 'final' or 'best'.
        values: of each run, in percent where the paper reports percent.
        difference: of the mean to the first group's; None for that group itself.
        p: of a paired t-test on the runs of equal seed (two-sided); None for less than two pairs,
            or where all pairs differ by the same.
        pairs: how many pairs there are.
        paper: the paper's difference for these two configs; None where it has none.
    """

    metric: str
    when: str
    values: tuple[float, ...]
    difference: float | None
    p: float | None
    pairs: int
    paper: float | None

    @property
    def mean(self) -> float:
        """Over the runs; not a number where none has the metric."""
        return mean(self.values) if self.values else nan

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation over the runs; None of a single one."""
        return stdev(self.values) if len(self.values) > 1 else None


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Puts runs of one config together; the group of the first run comes first.

    Configs that differ in anything but the seed are different ones, of whatever name.

    Raises:
        InputError: two runs of a config have the same seed.
    """
    by_config: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        by_config.setdefault((run.name, run.recipe), []).append(run)
    groups = []
    for (name, _), members in by_config.items():
        seeds = [run.seed for run in members if run.seed is not None]
        if len(set(seeds)) < len(seeds):
            shown = ', '.join(str(run.path) for run in members)
            raise InputError(
                f'several runs of {name} have the same seed, and no difference between them but '
                f'rounding: {shown}'
            )
        members.sort(key=lambda run: (run.seed is None, run.seed or 0))
        norm = members[0].norm
        if sum(key[0] == name and of[0].norm == norm for key, of in by_config.items()) > 1:
            name = f'{name} in {members[0].path.name}'
        groups.append(Group(name, norm, tuple(members)))
    return groups


def compare(groups: Sequence[Group], configs: str | Path) -> list[tuple[Group, list[Figure]]]:
    """Returns each group's figures for every metric that a run has, and for the training loss.

    Args:
        groups: the first one is what the others are compared with.
        configs: the folder of this package's configs, whose metafiles hold the paper's figures.

    Returns:
        each group with its figures, of the same metrics in the same order for all; `values` is
        empty where no run of a group has the metric.
    """
    paper = papers_figures(Path(configs))
    runs = [run for group in groups for run in group.runs]
    metrics = list(dict.fromkeys(metric for run in runs for metric in run.metrics()))
    first = groups[0]
    table = []
    for group in groups:
        figures = []
        for metric in (LOSS, *metrics):
            for when in ('final',) if metric == LOSS else ('final', 'best'):
                ours, theirs = (_values(g, metric, when) for g in (group, first))
                difference, p, pairs = None, None, 0
                if group is not first and ours and theirs:
                    difference = mean(ours.values()) - mean(theirs.values())
                    p, pairs = _paired_test(ours, theirs)
                figures.append(
                    Figure(
                        metric, when, tuple(ours.values()), difference, p, pairs,
                        None if group is first else _papers_difference(paper, group, first, metric),
                    )
                )  # fmt: skip
        table.append((group, figures))
    return table


def _values(group: Group, metric: str, when: str) -> dict[int, float]:
    """Returns the values of those runs that have the metric, by seed, or by number without."""
    seeds = [run.seed for run in group.runs]
    keys = range(len(seeds)) if None in seeds else seeds
    values = {}
    for key, run in zip(keys, group.runs):
        factor = PAPER.get(metric, ('', 1))[1]
        series = run.loss() if metric == LOSS else run.series(metric)
        if series:
            last = series[max(series)]
            values[key] = factor * (last if when == 'final' else _best(metric, series.values()))
    return values


def _best(metric: str, values: Iterable[float]) -> float:
    return min(values) if any(word in metric.lower() for word in LOWER) else max(values)


def _paired_test(ours: dict[int, float], theirs: dict[int, float]) -> tuple[float | None, int]:
    """Pairs by seed, or in order where no seed is known."""
    from scipy.stats import ttest_rel  # takes a second to import

    common = [key for key in ours if key in theirs]
    differences = {round(ours[key] - theirs[key], 12) for key in common}
    if len(differences) < 2:
        return None, len(common)
    result = ttest_rel([ours[key] for key in common], [theirs[key] for key in common])
    return float(result.pvalue), len(common)


def papers_figures(configs: Path) -> dict[str, dict[str, float]]:
    """Returns the paper's metrics by the names of configs, as their metafiles have them.

    Args:
        configs: the folder of this package's configs.
    """
    found = {}
    for file in sorted(configs.glob('metafiles/*.yml')):
        for model in yaml.safe_load(file.read_text())['Models']:
            metrics = {}
            for result in model.get('Results', []):
                for key, value in result['Metrics'].items():
                    metrics[without_suffix(key, ' (paper)')] = value
            found[model['Name']] = metrics
    return found


def _papers_difference(
    paper: dict[str, dict[str, float]], group: Group, first: Group, metric: str
) -> float | None:
    name = PAPER.get(metric, ('',))[0]
    ours, theirs = (paper.get(g.name, {}).get(name) for g in (group, first))
    return None if ours is None or theirs is None else ours - theirs
