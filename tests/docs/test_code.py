"""The Python of the pages, run where its libraries are; what needs anything else is named."""

from __future__ import annotations

import re
from importlib.util import find_spec

import pytest
from documents import PAGES, ROOT, python_blocks

NEEDS = {
    ('checkpoints.md', "push_to_hub('my_resnet18'"): 'an account of the Hub',
    ('checkpoints.md', "read_checkpoint('R50_BNET-5.pth')"): "the authors' file",
    ('deploy.md', "load('detector.pth'"): 'a trained detector',
}
# The configs of the first steps are tested as configs, with their commands.
BLOCKS = [
    (f'{page.relative_to(ROOT)}: {title}', page.name, code)
    for page in PAGES
    if page.name != 'start.md'
    for title, code in python_blocks(page)
]


def needed(page: str, code: str) -> str | None:
    """Returns what a block needs that no test has."""
    return next(
        (what for (name, line), what in NEEDS.items() if name == page and line in code), None
    )


def test_there_is_code():
    assert len(BLOCKS) > 20
    assert sum(needed(page, code) is not None for _, page, code in BLOCKS) == len(NEEDS)


@pytest.mark.filterwarnings('ignore::DeprecationWarning')
@pytest.mark.filterwarnings('ignore::UserWarning')
@pytest.mark.parametrize(('title', 'page', 'code'), BLOCKS, ids=[title for title, *_ in BLOCKS])
def test_code(title, page, code, tmp_path, monkeypatch):
    if what := needed(page, code):
        pytest.skip(f'it needs {what}')
    libraries = set(re.findall(r'^(?:from|import) (\w+)', code, re.MULTILINE))
    if 'bnet_mm.deploy' in code:
        libraries.add('mmengine')
    for library in libraries:
        if find_spec(library) is None:
            pytest.skip(f'{library} is not installed')
    monkeypatch.chdir(tmp_path)
    exec(compile(code, title, 'exec'), {})
