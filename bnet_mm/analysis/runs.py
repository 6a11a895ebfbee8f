"""What a training left in its work dir: scalars, config, seed."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mmengine.config import Config

from bnet_mm.errors import InputError

# Entries of a record that are no result of the training.
BOOKKEEPING = {'step', 'iter', 'epoch', 'time', 'data_time', 'lr', 'memory', 'base_lr'}
# What the names of BNETVisHook's scalars begin with: they stand beside the losses and metrics.
KERNEL_SCALARS = 'kernels/'


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        path: its work dir.
        config: the file that the Runner wrote its whole config into.
        name: its config's.
        norm: the backbone's norm as the paper writes it, 'BN' or 'BNET-3'.
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
        raise InputError(f'{path} is no folder; name the work dir of a training')
    files = sorted(path.glob('*/vis_data/scalars.json'))
    if not files:
        raise InputError(
            f'{path} holds no training: there is no <time>/vis_data/scalars.json below it, which '
            f"mmengine's LocalVisBackend writes"
        )
    training, validation, epochs, seconds = {}, {}, {}, {}
    for file in files:
        records = list(_records(file))
        # A resumed training starts at a checkpoint, and logs again what came after that.
        for of_stage, of_training in ((training, True), (validation, False)):
            steps = [r['step'] for r in records if ('loss' in r) == of_training]
            for step in [s for s in of_stage if steps and s >= min(steps)]:
                del of_stage[step]
                if of_training:
                    seconds.pop(step, None)
        for record in records:
            values = {
                key: float(value)
                for key, value in record.items()
                if key not in BOOKKEEPING and isinstance(value, (int, float))
            }
            if 'loss' not in record:
                validation.setdefault(record['step'], {}).update(values)
                continue
            training[record['step']] = values
            if isinstance(record.get('time'), (int, float)):
                seconds[record['step']] = float(record['time'])
            if 'epoch' in record:
                epochs[record['step']] = record['epoch']
    if not training:
        raise InputError(f'{path} holds no training: {files[-1]} has no loss')
    file, name, cfg = _config(path, files)
    return Run(path, file, name, _norm(cfg), _seed(cfg), training, validation, epochs, seconds)


def _records(file: Path) -> Iterator[dict]:
    lines = file.read_text(errors='replace').splitlines()
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except ValueError as error:
            if number == len(lines):
                return  # of a training that is just writing it
            raise InputError(f'{file}, line {number} is damaged: {error}') from error
        if not isinstance(record, dict) or not isinstance(record.get('step'), int):
            continue
        if not any(key.startswith(KERNEL_SCALARS) for key in record):
            yield record


def _config(path: Path, files: list[Path]) -> tuple[Path, str, Config]:
    """Returns file, name and contents of the config that the Runner left in a work dir."""
    named = [f for f in path.glob('*.py') if f.is_file()]
    dumped = files[-1].with_name('config.py')
    file = max(named, key=lambda f: f.stat().st_mtime) if named else dumped
    try:
        cfg = Config.fromfile(file, import_custom_modules=False)
    except Exception as error:  # a config is a program
        raise InputError(f'{file} cannot be read as a config: {error}') from error
    return file, (file.stem if named else path.name), cfg


def _norm(cfg: Config) -> str:
    norm_cfg = ((cfg.get('model') or {}).get('backbone') or {}).get('norm_cfg') or {}
    kind = str(norm_cfg.get('type', '-')).removeprefix('Sync')
    return f'{kind}-{norm_cfg.get("k", 3)}' if kind.endswith(('NET', 'Conv')) else kind


def _seed(cfg: Config) -> int | None:
    return (cfg.get('randomness') or {}).get('seed')
