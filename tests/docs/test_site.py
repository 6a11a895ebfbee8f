"""The site builds without a warning, and none of its links is dead."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest
from documents import PAGES, ROOT

LINK = re.compile(r'(?<!`)\[[^]\n]*\]\(([^)\s]+)\)')


class Addresses(HTMLParser):
    """The addresses that a page leads to, and the names of its places."""

    def __init__(self, text: str):
        super().__init__()
        self.links, self.loaded, self.ids = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        entries = dict(attributes)
        self.ids |= {entries[key] for key in ('id', 'name') if entries.get(key)}
        if tag == 'a' and entries.get('href'):
            self.links.append(entries['href'])
        elif tag == 'link' and entries.get('rel') in ('stylesheet', 'icon'):
            self.loaded.append(entries['href'])
        elif entries.get('src'):
            self.loaded.append(entries['src'])


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_of_the_repository(page):
    text = re.sub(r'^```.*?^```$', '', page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for link in LINK.findall(text):
        if re.match(r'\w+:|#', link):
            continue
        target = (page.parent / urldefrag(link)[0]).resolve()
        assert target.exists(), f'{page.name} leads to {link}, which is not there'


@pytest.fixture(scope='module')
def site(tmp_path_factory) -> Path:
    """The site, built strictly: a warning is an error."""
    own = ROOT / '.venv-docs/bin/mkdocs'
    if own.is_file():
        mkdocs = [str(own)]
    elif find_spec('mkdocs') and find_spec('material') and find_spec('mkdocstrings'):
        mkdocs = [sys.executable, '-m', 'mkdocs']
    elif shutil.which('mkdocs'):
        mkdocs = ['mkdocs']
    else:
        pytest.skip('mkdocs is not installed: make docs')
    folder = tmp_path_factory.mktemp('site')
    built = subprocess.run(
        [*mkdocs, 'build', '--strict', '--site-dir', str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr[-3000:]
    return folder


@pytest.mark.slow
def test_no_link_of_the_site_is_dead_and_nothing_is_loaded_from_elsewhere(site):
    pages = {path: Addresses(path.read_text()) for path in site.rglob('*.html')}
    assert len(pages) > 100
    dead = []
    for path, page in pages.items():
        assert not [link for link in page.loaded if re.match(r'(https?:)?//', link)], path
        for link in page.links + page.loaded:
            if re.match(r'\w+:', link):
                continue
            file, place = urldefrag(unquote(link))
            target = (path.parent / file).resolve() if file else path
            if not target.is_file() or (
                place and target in pages and place not in pages[target].ids
            ):
                dead.append(f'{path.relative_to(site)}: {link}')
    assert not dead, dead


@pytest.mark.slow
def test_the_search_of_the_site_knows_its_pages(site):
    index = (site / 'search/search_index.js').read_text()
    for words in ('Start in five minutes', 'not in the mmengine::model registry', 'SyncBNET'):
        assert words in index
    assert 'faster_rcnn_r101_bnet7_fpn_1x.py.html' not in index  # configs are found by their page
