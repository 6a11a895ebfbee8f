"""Fixtures of the study's tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from small_study import PLAN, STUDY, draw_photos


@pytest.fixture
def photos(tmp_path) -> Path:
    """A data set of 40 and 20 photos, below a data root."""
    root = tmp_path / 'data'
    draw_photos(root / 'photos' / 'train', 20)
    draw_photos(root / 'photos' / 'val', 10, seed=1)
    return root


@pytest.fixture
def plan_file(tmp_path):
    """Writes a plan with other entries than PLAN's in part, and returns its file."""

    def write(**entries) -> Path:
        file = tmp_path / 'plan.yaml'
        file.write_text(yaml.safe_dump({**PLAN, **entries}))
        return file

    return write


@pytest.fixture
def study(tmp_path, photos):
    """Runs a program of the study below a folder of its own."""

    def run(*arguments, program: str = 'run.py', ok: bool = True) -> subprocess.CompletedProcess:
        if program == 'run.py':
            folders = dict(data_root=photos, out=tmp_path / 'out', work_dir=tmp_path / 'work')
            for name, folder in folders.items():
                option = f'--{name.replace("_", "-")}'
                if option not in arguments:
                    arguments = (*arguments, option, folder)
            arguments = (*arguments, '--device', 'cpu')
        result = subprocess.run(
            [sys.executable, STUDY / program, *map(str, arguments)],
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert (result.returncode == 0) == ok, result.stdout + result.stderr
        return result

    return run
