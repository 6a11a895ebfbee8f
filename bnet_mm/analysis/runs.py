"""Reads the work dir of a training: scalars, config, seed."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mmengine.config import Config

from bnet_mm.errors import InputError
from bnet_mm.text import without_prefix

# Entries of a record that are no result of the training.
BOOKKEEPING = {'step', 'iter', 'epoch', 'time', 'data_time', 'lr', 'memory', 'base_lr'}
# What the names of BNETVisHook's scalars begin with: they stand beside the losses and metrics.
KERNEL_SCALARS = 'kernels/'
# Entries of a config that make no other experiment.
INCIDENTAL = (
    'work_dir', 'launcher', 'resume', 'randomness', 'log_level', 'visualizer', 'vis_backends',
    'env_cfg', 'gpu_ids', 'device',
)  # fmt: skip
# Backbones that have batch norm where a config names none.
BN_BY_DEFAULT = ('ResNet', 'ResNeXt', 'Res2Net', 'MobileNet', 'HRNet')
# COCO's figure for what no object is of, large ones for example.
NO_OBJECT = -1


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        path: its work dir.
        config: the file that the Runner wrote its whole config into.
        name: its config's.
        norm: the backbone's norm as the paper writes it, 'BN' or 'BNET-3'.
        recipe: the same for configs that differ by the seed, or where they were run, alone.
        seed: None where the config named none.
        training: step -> what was logged of the training there ('loss' and other losses).
        validation: step -> metrics. The steps are epochs, or iterations where the loop counts them.
        epochs: training step -> epoch; empty where the loop counts iterations.
        seconds: training step -> mean time of an iteration since the record before.
    """

    path: Path
    config: Path
    name: str
    norm: str
    recipe: str
    seed: int | None
    training: dict[int, dict[str, float]] = field(repr=False)
    validation: dict[int, dict[str, float]] = field(repr=False)
    epochs: dict[int, int] = field(repr=False)
    seconds: dict[int, float] = field(repr=False)

    def metrics(self) -> list[str]:
        """Returns the names of all metrics, in the order of their first appearance."""
        return list(dict.fromkeys(key for record in self.validation.values() for key in record))

    def series(self, metric: str) -> dict[int, float]:
        """Returns a metric by step, where it was measured."""
        return {step: r[metric] for step, r in self.validation.items() if metric in r}

    def hours(self) -> dict[int, float]:
        """Returns the hours of training until the end of each epoch, or each logged iteration.

        Of iterations alone: evaluations and interruptions do not count.
        """
        passed, before, until = 0.0, 0, {}
        for step in sorted(self.seconds):
            passed += (step - before) * self.seconds[step] / 3600
            before = step
            until[self.epochs.get(step, step)] = passed
        return until

    def loss(self) -> dict[int, float]:
        """Returns the training loss: its mean by epoch, or as logged where there are none."""
        losses = {step: r['loss'] for step, r in self.training.items() if 'loss' in r}
        if not self.epochs:
            return losses
        of_epoch: dict[int, list[float]] = {}
        for step, value in losses.items():
            of_epoch.setdefault(self.epochs[step], []).append(value)
        return {epoch: sum(values) / len(values) for epoch, values in of_epoch.items()}


def read_run(path: str | Path) -> Run:
    """Reads a work dir, of a training that is over, was resumed, or still runs.

    Raises:
        InputError: there is no such folder, no training in it, or a file is damaged.
    """
    path = Path(path)
    if not path.is_dir():
        raise InputError(f'{path} is not a folder; name the work dir of a training')
    files = sorted(file for file in path.glob('*/vis_data/scalars.json') if file.is_file())
    if not files:
        raise InputError(
            f'{path} holds no training: there is no <time>/vis_data/scalars.json below it, which '
            f"mmengine's LocalVisBackend writes"
        )
    training, validation, epochs, seconds = {}, {}, {}, {}
    for file in files:
        records = list(_records(file))
        first = next((r for r in records if 'loss' in r), None)
        if first is not None:
            if ('epoch' in first) != bool(epochs):  # counted otherwise, which goes on from nothing
                training, validation, epochs, seconds = {}, {}, {}, {}
            # A training that is resumed, or begun anew, does again what came after its start.
            for of_steps in (training, epochs, seconds):
                _cut(of_steps, first['step'])
            _cut(validation, first.get('epoch', first['step']))
        step = 0
        for record in records:
            values = {
                key: float(value)
                for key, value in record.items()
                if key not in BOOKKEEPING and isinstance(value, (int, float))
            }
            if 'loss' not in record:
                # Where iterations count and metrics are logged by epoch, the epoch is always 0.
                at = record['step'] or step
                found = {k: v for k, v in values.items() if not _of_nothing(k, v)}
                validation.setdefault(at, {}).update(found)
                continue
            step = record['step']
            training[step] = values
            if isinstance(record.get('time'), (int, float)):
                seconds[step] = float(record['time'])
            if 'epoch' in record:
                epochs[step] = record['epoch']
    if not training:
        raise InputError(f'{path} holds no training: {files[-1]} has no loss')
    file, name, cfg = _config(path, files)
    return Run(
        path,
        file,
        name,
        _norm(cfg),
        _recipe(cfg),
        _seed(cfg),
        training,
        validation,
        epochs,
        seconds,
    )


def _cut(series: dict[int, object], start: int) -> None:
    for step in [step for step in series if step >= start]:
        del series[step]


def _of_nothing(metric: str, value: float) -> bool:
    return metric.startswith('coco/') and value == NO_OBJECT


def _records(file: Path) -> Iterator[dict]:
    try:
        lines = file.read_text(errors='replace').splitlines()
    except OSError as error:
        raise InputError(f'{file} cannot be read: {error.strerror}') from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            if number == len(lines):
                return  # of a training that is just writing it
            raise InputError(f'{file}, line {number} is damaged: {error}') from error
        if not isinstance(record, dict) or not isinstance(record.get('step'), int):
            continue
        if 'loss' in record and not isinstance(record['loss'], (int, float)):
            raise InputError(f'{file}, line {number} is damaged: its loss is not a number')
        if not any(key.startswith(KERNEL_SCALARS) for key in record):
            yield record


def _config(path: Path, files: list[Path]) -> tuple[Path, str, Config]:
    """Returns file, name and contents of the config that the Runner left in a work dir.

    It leaves two: one with its name, and one beside the scalars. Whoever has a Python program of
    their own in the folder does not have it run.
    """
    named = sorted(
        (f for f in path.glob('*.py') if f.is_file() and _is_dumped(f)),
        key=lambda f: f.stat().st_mtime,
    )
    beside = files[-1].with_name('config.py')
    file = named[-1] if named else beside
    try:
        cfg = Config.fromfile(file, import_custom_modules=False)
    except (Exception, SystemExit) as error:  # a config is a program
        raise InputError(f'{file} cannot be read as a config: {error}') from error
    return file, (file.stem if named else path.name), cfg


def _is_dumped(file: Path) -> bool:
    """Tells whether a file is a config as the Runner writes it: a model, and nothing but values."""
    try:
        body = ast.parse(file.read_text(encoding='utf-8')).body
    except (OSError, SyntaxError, ValueError):
        return False
    names = [t.id for node in body if isinstance(node, ast.Assign) for t in node.targets
             if isinstance(t, ast.Name)]  # fmt: skip
    return len(names) == len(body) and 'model' in names


def _norm(cfg: Config) -> str:
    backbone = (cfg.get('model') or {}).get('backbone') or {}
    norm_cfg = backbone.get('norm_cfg') or {}
    default = 'BN' if any(k in str(backbone.get('type')) for k in BN_BY_DEFAULT) else '-'
    kind = str(norm_cfg.get('type', default)).rpartition('.')[2]  # with a scope, or its path
    kind = without_prefix(kind, 'Sync')
    return f'{kind}-{norm_cfg.get("k", 3)}' if kind.endswith(('NET', 'Conv')) else kind


def _recipe(cfg: Config) -> str:
    kept = {key: value for key, value in cfg.to_dict().items() if key not in INCIDENTAL}
    # Where a training that is resumed goes on from is its own; another one starts from weights.
    if cfg.get('resume') or not cfg.get('load_from'):
        kept.pop('load_from', None)
    text = json.dumps(kept, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()


def _seed(cfg: Config) -> int | None:
    return (cfg.get('randomness') or {}).get('seed')
