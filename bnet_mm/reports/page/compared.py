"""What a report compares: trainings of several configs, each with its config and weights."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mmengine.config import Config

from bnet_mm.analysis.comparison import Group, group_runs
from bnet_mm.analysis.pairs import Pair
from bnet_mm.analysis.runs import read_run
from bnet_mm.checkpoint import latest_checkpoint
from bnet_mm.engine.config import load_config
from bnet_mm.errors import InputError
from bnet_mm.reports.page.kept import file_mark

NUMBER = re.compile(r'(\d+)\.pth$')


@dataclass(frozen=True)
class Compared:
    """The trainings of one config.

    Attributes:
        label: how a table's column calls it: by the norm alone if that is enough.
        group: its runs, over seeds.
    """

    label: str
    group: Group

    @cached_property
    def cfg(self) -> Config:
        """The config of the first run. Whoever changes it takes a copy."""
        return load_config(self.group.runs[0].config)

    @cached_property
    def checkpoint(self) -> Path:
        """The last weights of the first run.

        Raises:
            InputError: there are none.
        """
        folder = self.group.runs[0].path
        found = latest_checkpoint(folder)
        if found is None:  # weights alone, published for example
            files = sorted(folder.glob('*.pth'), key=lambda path: path.stat().st_mtime)
            found = files[-1] if files else None
        if found is None:
            raise InputError(f'{folder} has no checkpoint')
        return found

    @property
    def pair(self) -> Pair:
        """Config and weights, to be loaded."""
        return Pair(self.label, str(self.group.runs[0].config), str(self.checkpoint), None)

    def mark(self) -> list:
        """Returns what tells this model from others and from earlier checkpoints of it."""
        return [self.network(), file_mark(self.checkpoint)]

    def network(self) -> object:
        """Returns the model's config, as JSON takes it."""
        return self.cfg.model.to_dict()

    def trained_for(self) -> str:
        """Returns until when the weights were trained, as far as the file's name tells."""
        number = NUMBER.search(self.checkpoint.name)
        unit = 'iteration' if self.checkpoint.name.startswith('iter') else 'epoch'
        return f'{unit} {number[1]}' if number else self.checkpoint.name


def read_compared(runs: Sequence[str | Path]) -> list[Compared]:
    """Returns what the work dirs hold, by config; the first run's comes first.

    Raises:
        InputError: a run cannot be read, or runs of one config have the same seed.
    """
    groups = group_runs([read_run(run) for run in runs])
    norms = [group.norm for group in groups]
    names = [group.name for group in groups]
    labels = []
    for group in groups:
        label = group.norm if norms.count(group.norm) == 1 else group.name
        if names.count(label) > 1:
            label = f'{group.name}, {group.norm}'
        labels.append(label)
    return [Compared(label, group) for label, group in zip(labels, groups)]
