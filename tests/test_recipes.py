"""The recipes of docs/recipes.md, and the code of docs/deploy.md, run where their libraries are."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[1] / 'docs'
PAGE = (DOCS / 'recipes.md').read_text(encoding='utf-8')
RECIPES = re.findall(r'^## (.*?)$.*?```python\n(.*?)```', PAGE, re.MULTILINE | re.DOTALL)
EXPORTERS = re.findall(
    r"^### (Torch's own exporters.*?)$.*?```python\n(.*?)```",
    (DOCS / 'deploy.md').read_text(encoding='utf-8'),
    re.MULTILINE | re.DOTALL,
)


def test_there_are_recipes():
    assert len(RECIPES) == PAGE.count('```python') == 6
    assert len(EXPORTERS) == 1


@pytest.mark.filterwarnings('ignore::DeprecationWarning')
@pytest.mark.filterwarnings('ignore::UserWarning')
@pytest.mark.parametrize(
    ('title', 'code'), RECIPES + EXPORTERS, ids=[title for title, _ in RECIPES + EXPORTERS]
)
def test_recipe(title, code, tmp_path, monkeypatch):
    libraries = set(re.findall(r'^(?:from|import) (\w+)', code, re.MULTILINE))
    if 'bnet_mm.deploy' in code:
        libraries.add('mmengine')
    for library in libraries:
        if find_spec(library) is None:
            pytest.skip(f'{library} is not installed')
    monkeypatch.chdir(tmp_path)
    exec(compile(code, title, 'exec'), {})
