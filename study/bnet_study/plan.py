"""Reads a plan: a YAML file of data, networks, arms and tasks, and of what is run with them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from bnet_mm.errors import InputError

SCRATCH = 'scratch'
ENTRIES = ('data', 'nets', 'arms', 'tasks', 'runs')
# What an entry may say, and what it says by default; None is for what must be given.
TASKS = {
    'classification': dict(
        data=None, size=None, train_size=None, augment='shift', epochs=None, batch=None, lr=None,
        weight_decay=5e-4, warmup=1,
    ),
    'detection': dict(
        data=None, scale=None, epochs=None, batch=None, lr=None, weight_decay=1e-4, frozen=True,
        width=64,
    ),
    'segmentation': dict(
        data=None, crop=None, iterations=None, batch=None, lr=None, weight_decay=5e-4, frozen=False,
        width=64,
    ),
}  # fmt: skip
NET = dict(block=None, blocks=None, channels=None, stem='imagenet')
ARM = dict(norm='bn', k=3, kernel='dirac', padding='zeros', width=1.0, longer=1.0)
# Settings that came later: a run that does not say them keeps the configuration that it had.
LATER = dict(
    arms=('kernel_lr', 'kernel_decay', 'more_blocks'),
    detection=('regions', 'head'),
)
RUN = ('task', 'net', 'start', 'arm', 'seed')
CHOICES = dict(
    kind=tuple(TASKS),
    block=('basic', 'bottleneck'),
    stem=('imagenet', 'cifar'),
    augment=('shift', 'scale', 'none'),
    norm=('bn', 'bnet', 'control', 'depthwise'),
    kernel=('dirac', 'zero', 'kaiming'),
    padding=('zeros', 'replicate'),
)
FACTORS = ('width', 'longer', 'kernel_lr', 'kernel_decay')
COUNTS = ('regions', 'head', 'size', 'train_size', 'epochs', 'batch', 'channels', 'k', 'iterations')


@dataclass(frozen=True)
class Run:
    """One training of a plan.

    Attributes:
        task, net, start, arm, seed: as the plan names them; `start` is 'scratch', 'TASK:ARM', or
            a file of weights.
        data: the name of its data.
        config: all that makes its result but seed and machine, resolved; `data` is where the
            plan says that they are.
    """

    task: str
    net: str
    start: str
    arm: str
    seed: int
    data: str
    config: dict[str, Any]

    @property
    def name(self) -> str:
        """One word for files: `imagenette112.resnet26.scratch.bnet3.0`."""
        start = Path(self.start).stem if '/' in self.start else self.start
        return f'{self.task}.{self.net}.{start.replace(":", "-")}.{self.arm}.{self.seed}'

    @property
    def config_hash(self) -> str:
        """Of the configuration; runs that differ by the seed alone share it."""
        text = json.dumps(self.config, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def kind(self) -> str:
        """'classification', 'detection' or 'segmentation'."""
        return self.config['task']['kind']


@dataclass(frozen=True)
class Plan:
    """A plan that was read.

    Attributes:
        runs: in order of value, without repetitions.
        data: where data lie, by name; relative to the data root.
    """

    runs: tuple[Run, ...]
    data: dict[str, str]

    def source_of(self, run: Run) -> Run | None:
        """Returns the run whose weights `run` starts from, or None where that is a file."""
        source = run.config['start'].get('run')
        if source is None:
            return None
        return Run(
            **{key: source[key] for key in ('task', 'net', 'start', 'arm', 'data', 'config')},
            seed=run.seed,
        )


def read_plan(path: str | Path, data: dict[str, str] | None = None) -> Plan:
    """Reads a plan and resolves its lines.

    Args:
        path: a YAML file.
        data: other places of data that the plan names.

    Raises:
        InputError: it cannot be read, or names or says what there is not.
    """
    try:
        entries = yaml.safe_load(Path(path).read_text(encoding='utf-8'))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f'the plan {path} cannot be read: {error}') from error
    if not isinstance(entries, dict) or set(entries) != set(ENTRIES):
        raise InputError(f'the plan {path} needs the entries {", ".join(ENTRIES)}, and no other')
    for name in ENTRIES[:-1]:
        if not isinstance(entries[name], dict):
            raise InputError(f'{path}, {name}: names with what they mean are wanted')
    for name, place in (data or {}).items():
        if name not in entries['data']:
            raise InputError(
                f'{path} has no data {name!r} to be elsewhere; it has {", ".join(entries["data"])}'
            )
        entries['data'][name] = place
    resolver = _Resolver(entries)
    runs: dict[tuple, Run] = {}
    lines = entries['runs'] if isinstance(entries['runs'], list) else [entries['runs']]
    for number, line in enumerate(lines, 1):
        where = f'{path}, run {number}'
        for run in resolver.expand(line, where):
            runs.setdefault((run.name, run.config_hash), run)
    return Plan(tuple(runs.values()), {name: str(p) for name, p in entries['data'].items()})


class _Resolver:
    def __init__(self, entries: dict[str, Any]):
        self.entries = entries

    def expand(self, line: Any, where: str) -> Iterator[Run]:
        if not isinstance(line, dict) or not set(line) <= set(RUN):
            raise InputError(f'{where}: {line!r} is no line of {", ".join(RUN)}')
        lists = {}
        for key in RUN:
            value = line.get(key, {'start': SCRATCH, 'seed': 0}.get(key))
            if value is None:
                raise InputError(f'{where} names no {key}')
            lists[key] = value if isinstance(value, list) else [value]
        for seed, task, net, start, arm in product(
            *(lists[key] for key in ('seed', 'task', 'net', 'start', 'arm'))
        ):
            if not isinstance(seed, int):
                raise InputError(f'{where}: the seed {seed!r} is not a whole number')
            yield self.run(str(task), str(net), str(start), str(arm), seed, where)

    def run(self, task: str, net: str, start: str, arm: str, seed: int, where: str) -> Run:
        config = dict(
            task=self.task(task, where),
            net=self.settings('nets', net, NET, where),
            arm=self.settings('arms', arm, ARM, where),
        )
        data = config['task'].pop('data')
        if data not in self.entries['data']:
            raise InputError(f'{where}: task {task} names the data {data!r}, which data: has not')
        config['data'] = str(self.entries['data'][data])
        config['start'] = self.start(start, net, where)
        return Run(task, net, start, arm, seed, data, config)

    def start(self, start: str, net: str, where: str) -> dict[str, Any]:
        if start == SCRATCH:
            return {}
        if ':' not in start:
            return dict(file=start)
        task, _, arm = start.partition(':')
        source = self.run(task, net, SCRATCH, arm, 0, f'{where}, start {start}')
        fields = ('task', 'net', 'start', 'arm', 'data', 'config')
        return dict(run={key: getattr(source, key) for key in fields})

    def task(self, name: str, where: str) -> dict[str, Any]:
        given = self._entry('tasks', name, where)
        kind = given.get('kind')
        if kind not in TASKS:
            raise InputError(
                f'{where}: task {name} has kind {kind!r}; there are {", ".join(TASKS)}'
            )
        return self.settings('tasks', name, dict(kind=None, **TASKS[kind]), where)

    def settings(self, kind: str, name: str, defaults: dict, where: str) -> dict[str, Any]:
        given = self._entry(kind, name, where)
        what = f'{where}: {kind[:-1]} {name}'
        known = [*defaults, *LATER.get(given.get('kind', kind), ())]
        unknown = sorted(set(given) - set(known))
        if unknown:
            raise InputError(
                f'{what} has {", ".join(map(repr, unknown))}; it may have {", ".join(known)}'
            )
        found = {**defaults, **given}
        missing = [key for key, value in found.items() if value is None]
        if missing:
            raise InputError(f'{what} lacks {", ".join(missing)}')
        for key, value in found.items():
            if key in CHOICES and value not in CHOICES[key]:
                raise InputError(f'{what}: {key} is {value!r}, not of {", ".join(CHOICES[key])}')
            if key in FACTORS and not (isinstance(value, (int, float)) and value >= 0):
                raise InputError(f'{what}: {key} is {value!r}, not a factor')
            if key in COUNTS and not (isinstance(value, int) and value > 0):
                raise InputError(f'{what}: {key} is {value!r}, not a positive whole number')
        return found

    def _entry(self, kind: str, name: str, where: str) -> dict[str, Any]:
        entries = self.entries[kind]
        if name not in entries:
            raise InputError(f'{where}: there is no {kind[:-1]} {name!r}; {kind}: has '
                             f'{", ".join(map(str, entries))}')  # fmt: skip
        if not isinstance(entries[name], dict):
            raise InputError(f'{where}: {kind[:-1]} {name} is {entries[name]!r}, not settings')
        return entries[name]
