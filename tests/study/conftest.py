"""Small data and plans for the study's tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

STUDY = Path(__file__).resolve().parents[2] / 'study'


def draw_photos(folder: Path, number: int, size: int = 16, seed: int = 0) -> Path:
    """Draws photos of two classes that differ in colour, in a folder for each."""
    random = np.random.default_rng(seed)
    for name, colour in (('red', (200, 60, 60)), ('blue', (60, 60, 200))):
        (folder / name).mkdir(parents=True)
        for i in range(number):
            photo = np.clip(random.normal(colour, 60, (size, size, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(photo).save(folder / name / f'{i:03}.png')
    return folder


@pytest.fixture
def photos(tmp_path) -> Path:
    """A data set of 40 and 20 photos, below a data root."""
    root = tmp_path / 'data'
    draw_photos(root / 'photos' / 'train', 20)
    draw_photos(root / 'photos' / 'val', 10, seed=1)
    return root


PLAN = dict(
    data=dict(photos='photos'),
    nets=dict(
        tiny=dict(block='basic', blocks=[1, 1], channels=4, stem='cifar'),
        neck=dict(block='bottleneck', blocks=[1, 1], channels=4, stem='cifar'),
    ),
    arms=dict(
        bn={},
        bnet3=dict(norm='bnet', k=3),
        control3=dict(norm='control'),
        dw3=dict(norm='depthwise'),
        longer=dict(longer=2.0),
        fast=dict(norm='bnet', kernel_lr=10, kernel_decay=0),
    ),
    tasks=dict(
        colours=dict(
            kind='classification', data='photos', size=16, train_size=16, epochs=2, batch=10,
            lr=0.05,
        ),
        later=dict(
            kind='classification', data='photos', size=16, train_size=12, augment='scale', epochs=1,
            batch=10, lr=0.05,
        ),
    ),
    runs=[dict(task='colours', net='tiny', arm=['bn', 'bnet3'], seed=[0, 1])],
)  # fmt: skip


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
