"""Compares trainings that differ by their norm, over seeds, with the paper's difference beside."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

import yaml

from bnet_mm.analysis.runs import Run
from bnet_mm.errors import InputError

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


@dataclass(frozen=True)
class Group:
    """Trainings of one config, with one seed each.

    Attributes:
        name: the config's.
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
        """Over the runs."""
        return mean(self.values)

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation over the runs; None of a single one."""
        return stdev(self.values) if len(self.values) > 1 else None


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Puts runs of one config together; the group of the first run comes first.

    Raises:
        InputError: two runs of a config have the same seed, or have no metric in common.
    """
    by_config: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        by_config.setdefault((run.name, run.norm), []).append(run)
    for (name, _), members in by_config.items():
        seeds = [run.seed for run in members if run.seed is not None]
        if len(set(seeds)) < len(seeds):
            shown = ', '.join(str(run.path) for run in members)
            raise InputError(
                f'several runs of {name} have the same seed, and no difference between them but '
                f'rounding: {shown}'
            )
        members.sort(key=lambda run: (run.seed is None, run.seed or 0))
    return [Group(name, norm, tuple(members)) for (name, norm), members in by_config.items()]


def compare(groups: Sequence[Group], configs: str | Path) -> list[tuple[Group, list[Figure]]]:
    """Returns each group's figures for every metric that all runs have, and for the training loss.

    Args:
        groups: the first one is what the others are compared with.
        configs: the folder of this package's configs, whose metafiles hold the paper's figures.
    """
    paper = papers_figures(Path(configs))
    runs = [run for group in groups for run in group.runs]
    metrics = [m for m in runs[0].metrics() if all(m in run.metrics() for run in runs)]
    first = groups[0]
    table = []
    for group in groups:
        figures = []
        for metric in (LOSS, *metrics):
            for when in ('final',) if metric == LOSS else ('final', 'best'):
                ours, theirs = ([_value(r, metric, when) for r in g.runs] for g in (group, first))
                difference, p, pairs = None, None, 0
                if group is not first:
                    difference = mean(ours) - mean(theirs)
                    p, pairs = _paired_test(group, first, ours, theirs)
                figures.append(
                    Figure(
                        metric, when, tuple(ours), difference, p, pairs,
                        None if group is first else _papers_difference(paper, group, first, metric),
                    )
                )  # fmt: skip
        table.append((group, figures))
    return table


def _value(run: Run, metric: str, when: str) -> float:
    if metric == LOSS:
        series = run.loss()
    else:
        factor = PAPER.get(metric, ('', 1))[1]
        series = {step: factor * value for step, value in run.series(metric).items()}
    return series[max(series)] if when == 'final' else max(series.values())


def _paired_test(
    group: Group, first: Group, ours: list[float], theirs: list[float]
) -> tuple[float | None, int]:
    """Pairs by seed, or in order where no seed is known."""
    from scipy.stats import ttest_rel  # takes a second to import

    def keyed(members: Group, values: list[float]) -> dict:
        seeds = [run.seed for run in members.runs]
        keys = range(len(seeds)) if None in seeds else seeds
        return dict(zip(keys, values, strict=True))

    a, b = keyed(group, ours), keyed(first, theirs)
    common = [key for key in a if key in b]
    differences = {round(a[key] - b[key], 12) for key in common}
    if len(differences) < 2:
        return None, len(common)
    result = ttest_rel([a[key] for key in common], [b[key] for key in common])
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
                metrics |= {
                    key.removesuffix(' (paper)'): value for key, value in result['Metrics'].items()
                }
            found[model['Name']] = metrics
    return found


def _papers_difference(
    paper: dict[str, dict[str, float]], group: Group, first: Group, metric: str
) -> float | None:
    name = PAPER.get(metric, ('',))[0]
    ours, theirs = (paper.get(g.name, {}).get(name) for g in (group, first))
    return None if ours is None or theirs is None else ours - theirs
