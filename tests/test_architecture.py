"""The rooms of the package and what holds them apart (docs/architecture.md)."""

from __future__ import annotations

import doctest
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from bnet_mm.text import without_suffix

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / 'bnet_mm'
SOURCES = [f for f in PACKAGE.rglob('*') if f.suffix in ('.py', '.cpp', '.h')]
TORCH_ALONE = ('kernels', 'layers', 'models', 'checkpoint')
MOST_LINES = 400
WITH_EXAMPLES = sorted(
    without_suffix('.'.join(f.relative_to(ROOT).with_suffix('').parts), '.__init__')
    for f in SOURCES
    if f.suffix == '.py' and '>>> ' in f.read_text()
)


def test_rooms_import_from_rooms_below_them():
    linter = Path(sys.executable).with_name('lint-imports')
    result = subprocess.run([linter, '--no-cache'], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize('room', TORCH_ALONE)
def test_the_lower_rooms_know_nothing_of_openmmlab(room):
    for file in (PACKAGE / room).rglob('*.py'):
        found = [word for word in ('mmengine', 'mmcv', 'norm_cfg') if word in file.read_text()]
        assert not found, f'{file} speaks of {found}'


def test_no_file_is_too_long_to_read():
    lines = {file: len(file.read_text().splitlines()) for file in SOURCES}
    assert not {file: count for file, count in lines.items() if count > MOST_LINES}


@pytest.mark.parametrize('module', WITH_EXAMPLES)
def test_examples_of_docstrings(module):
    failed, tried = doctest.testmod(import_module(module))
    assert tried and not failed
