"""The notebooks of docs/notebooks: their code runs, and their committed outputs are in order.

The cells run as one plain program in a process of its own. So the tests need no Jupyter, which is
no dependency of anything here, and the notebooks hold to Python: a cell with a magic fails.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / 'docs/notebooks'
# What each needs beside torch, numpy and this package.
NEEDS = {
    'torchvision_transfer': ('torchvision', 'cv2', 'matplotlib'),
    'one_line_mmdet': ('torchvision', 'mmdet', 'matplotlib'),
    'what_kernels_learnt': ('torchvision', 'cv2', 'mmengine', 'matplotlib'),
}
# What they import of Python's own.
STANDARD = {'collections', 'contextlib', 'copy', 'io', 'json', 're'}
IMAGES, TEXT = 60_000, 8_000  # bytes of all images of a notebook, and of all its printed text
MACHINE = re.compile(r'(?<![\w.:/])/(?:home|root|tmp|usr|opt|work|Users|mnt|content)/|[A-Z]:\\')


def read(name: str) -> dict:
    return json.loads((FOLDER / f'{name}.ipynb').read_text(encoding='utf-8'))


def code_of(name: str) -> list[str]:
    return [''.join(cell['source']) for cell in read(name)['cells'] if cell['cell_type'] == 'code']


def outputs_of(name: str) -> list[dict]:
    return [output for cell in read(name)['cells'] for output in cell.get('outputs', ())]


def test_every_notebook_is_tested():
    assert {path.stem for path in FOLDER.glob('*.ipynb')} == set(NEEDS)


def words(text: str) -> str:
    """Returns a text without its figures and spaces."""
    return re.sub(r'[\d.\s]+(?:e-\d+)?', ' ', text)


@pytest.mark.slow
@pytest.mark.parametrize('name', NEEDS)
def test_notebook_runs(name, tmp_path):
    for module in NEEDS[name]:
        if find_spec(module) is None:
            pytest.skip(f'{module} is not installed')
    # Each cell as a statement of its own, so that a traceback names it.
    program = tmp_path / 'program.py'
    program.write_text(
        f'space = {{"__name__": "__main__"}}\n'
        f'for number, code in enumerate({code_of(name)!r}, 1):\n'
        f'    exec(compile(code, f"{name}, code cell {{number}}", "exec"), space)\n',
        encoding='utf-8',
    )
    paths = [str(ROOT), *filter(None, [os.environ.get('PYTHONPATH')])]
    result = subprocess.run(
        [sys.executable, str(program)],
        cwd=tmp_path,
        env={**os.environ, 'MPLBACKEND': 'Agg', 'PYTHONPATH': os.pathsep.join(paths)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-3000:]
    # The words of the committed outputs, whatever the figures are on another machine.
    printed = ''.join(''.join(output.get('text', '')) for output in outputs_of(name))
    assert words(result.stdout) == words(printed)


@pytest.mark.parametrize('name', NEEDS)
def test_first_cell_installs_only_what_is_missing(name, tmp_path, monkeypatch):
    """It runs no pip where all is there, and names every module that the notebook imports."""
    monkeypatch.chdir(tmp_path)
    first, *others = code_of(name)
    imported = set(re.findall(r'^(?:from|import) (\w+)', '\n'.join(others), re.MULTILINE))
    space: dict = {}
    calls = []
    monkeypatch.setattr(subprocess, 'run', lambda command, **_: calls.append(command))
    monkeypatch.setattr('importlib.util.find_spec', lambda module: True)
    exec(first, space)
    assert calls == []
    assert imported - STANDARD - {'bnet_mm', 'torch'} <= set(space['PACKAGES'])

    monkeypatch.setattr('importlib.util.find_spec', lambda module: None)
    exec(first, {})
    assert calls[0][1:4] == ['-m', 'pip', 'install']
    assert set(space['PACKAGES'].values()) < set(calls[0])
    assert calls[0][-1] == '../..'


@pytest.mark.parametrize('name', NEEDS)
def test_committed_notebook_is_clean(name):
    notebook = read(name)
    kernel = {'display_name': 'Python 3', 'language': 'python', 'name': 'python3'}
    assert notebook['metadata'] == {'kernelspec': kernel, 'language_info': {'name': 'python'}}
    for cell in notebook['cells']:
        assert cell['metadata'] == {}
        assert cell.get('execution_count') is None
        for text in (
            cell['source'],
            *(output.get('text', '') for output in cell.get('outputs', ())),
        ):
            assert not MACHINE.search(''.join(text))


@pytest.mark.parametrize('name', NEEDS)
def test_committed_outputs_are_there_and_small(name):
    for cell in read(name)['cells'][2:]:  # beside the one that installs
        assert cell['cell_type'] == 'markdown' or cell['outputs'], ''.join(cell['source'])[:80]
    outputs = outputs_of(name)
    assert {output['output_type'] for output in outputs} <= {'stream', 'display_data'}
    assert {output.get('name', 'stdout') for output in outputs} == {'stdout'}  # no warnings
    pictures = [
        base64.b64decode(data)
        for output in outputs
        for kind, data in output.get('data', {}).items()
        if kind in ('image/png', 'image/jpeg')
    ]
    assert pictures
    assert all(len(output.get('data', 'x')) == 1 for output in outputs)  # and no widgets
    assert sum(map(len, pictures)) <= IMAGES
    assert sum(len(''.join(output.get('text', ''))) for output in outputs) <= TEXT
