"""The Python of recipes.md, faq.md and deploy.md's exporters, run where its libraries are."""

from __future__ import annotations

import re
from importlib.util import find_spec

import pytest
from documents import ROOT, python_blocks

DOCS = ROOT / 'docs'
BLOCKS = [
    *python_blocks(DOCS / 'recipes.md'),
    *python_blocks(DOCS / 'faq.md'),
    *(block for block in python_blocks(DOCS / 'deploy.md') if block[0].startswith("Torch's own")),
]


def test_there_is_code():
    assert len(python_blocks(DOCS / 'recipes.md')) == 6
    assert len(python_blocks(DOCS / 'faq.md')) == 2
    assert len(BLOCKS) == 9


@pytest.mark.filterwarnings('ignore::DeprecationWarning')
@pytest.mark.filterwarnings('ignore::UserWarning')
@pytest.mark.parametrize(('title', 'code'), BLOCKS, ids=[title for title, _ in BLOCKS])
def test_code(title, code, tmp_path, monkeypatch):
    libraries = set(re.findall(r'^(?:from|import) (\w+)', code, re.MULTILINE))
    if 'bnet_mm.deploy' in code:
        libraries.add('mmengine')
    for library in libraries:
        if find_spec(library) is None:
            pytest.skip(f'{library} is not installed')
    monkeypatch.chdir(tmp_path)
    exec(compile(code, title, 'exec'), {})
