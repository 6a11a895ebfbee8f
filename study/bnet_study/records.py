"""The lines of results: one of JSON for each run, appended whole."""

from __future__ import annotations

import fcntl
import json
import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bnet_mm.benchmark.machine import describe
from bnet_mm.errors import InputError
from bnet_study.plan import Run

REQUIRED = ('task', 'data', 'net', 'start', 'arm', 'seed', 'test', 'seconds', 'config_hash')
LIBRARIES = ('torch', 'torchvision', 'numpy', 'mmengine', 'mmcv', 'mmdet', 'mmsegmentation')


def record_of(run: Run, device: str, **found: Any) -> dict[str, Any]:
    """Returns the line of a run: what it was, where it ran, and what it gave."""
    about = describe(device)
    versions = {'python': platform.python_version(), 'bnet_mm': about.pop('bnet_mm')}
    for library in LIBRARIES:
        try:
            versions[library] = version(library)
        except PackageNotFoundError:
            continue
    about.pop('torch')
    date = about.pop('date')
    return dict(
        task=run.task, data=run.data, net=run.net, start=run.start, arm=run.arm, seed=run.seed,
        config_hash=run.config_hash, date=date, **found, versions=versions, machine=about,
        config=run.config,
    )  # fmt: skip


def append(file: Path, record: dict[str, Any]) -> None:
    """Appends a line, whole, also where several processes append to one file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(record) + '\n'
    with file.open('a', encoding='utf-8') as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        stream.write(line)
        stream.flush()
        os.fsync(stream.fileno())


def read_records(files: Iterable[Path]) -> list[dict[str, Any]]:
    """Reads the lines of several files, in order.

    Raises:
        InputError: a line is none of results.
    """
    records = []
    for file in files:
        try:
            lines = file.read_text(encoding='utf-8').splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f'{file} cannot be read: {error}') from error
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except ValueError as error:
                raise InputError(f'{file}, line {number} is no JSON: {error}') from error
            missing = [key for key in REQUIRED if not isinstance(record, dict) or key not in record]
            if missing:
                raise InputError(f'{file}, line {number} lacks {", ".join(missing)}')
            records.append(record)
    return records
