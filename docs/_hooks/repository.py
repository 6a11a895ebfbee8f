"""The site's view of the repository: pages link to files outside of docs/, and find them.

Where the code is read, a link such as `../configs/x.py` leads to the file. Here the file becomes
part of the site: README.md is the first page, Markdown and notebooks are pages, other text is a
page that shows it, figures and data lie where they lie in the repository. Files outside of docs/
are taken in when a page links to them, or when the navigation of mkdocs.yml names them.
"""

from __future__ import annotations

import json
import posixpath
import re
import shutil
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
DOCS = PurePosixPath('docs')
AS_THEY_ARE = {'.gif', '.jpg', '.json', '.jsonl', '.pdf', '.png', '.svg', '.webp'}
LANGUAGES = {'.py': 'python', '.sh': 'bash', '.yaml': 'yaml', '.yml': 'yaml', '.toml': 'toml'}
LINK = re.compile(r'(\]\()([^)\s#]+)((?:#[^)\s]*)?(?:\s+"[^"]*")?\))')
UNSEARCHED = '---\nsearch:\n  exclude: true\n---\n\n'

# The file of each page of the site that docs/ does not have under the page's own name.
_sources: dict[str, PurePosixPath] = {}


def site_uri(path: PurePosixPath) -> str:
    """Returns where a file or folder of the repository is on the site."""
    if str(path) == 'README.md':
        return 'index.md'
    if path.suffix == '.ipynb':
        path = path.with_name(f'{path.name}.md')
    elif (ROOT / path).is_dir():
        path /= 'README.md' if (ROOT / path / 'README.md').is_file() else 'index.md'
    elif path.suffix not in AS_THEY_ARE and path.suffix != '.md' and not path.is_relative_to(DOCS):
        path = path.with_name(f'{path.name}.md')
    shown = path.relative_to(DOCS) if path.is_relative_to(DOCS) else path
    return str(shown).lstrip('.')  # sites leave out what begins with a dot, as `.github`


def repository_path(uri: str) -> PurePosixPath:
    """Returns the file of the repository that a page of the site shows."""
    return _sources.get(uri, DOCS / uri)


def target_of(link: str, base: PurePosixPath) -> PurePosixPath | None:
    """Returns the file or folder of the repository that a link leads to, or None."""
    if re.match(r'[a-z+]+:|/', link):
        return None
    path = PurePosixPath(posixpath.normpath(base.parent / link))
    return path if '..' not in path.parts and (ROOT / path).exists() else None


def text_of(path: PurePosixPath) -> str:
    """Returns the Markdown that shows a file or folder of the repository."""
    file = ROOT / path
    if file.is_dir():
        entries = sorted(entry.name for entry in file.iterdir() if not entry.name.startswith('_'))
        lines = [f'- [{name}]({posixpath.join(path.name, name)})' for name in entries]
        return f'{UNSEARCHED}# {path}\n\n' + '\n'.join(lines)
    text = file.read_text(encoding='utf-8')
    if path.suffix == '.md':
        return text
    if path.suffix == '.ipynb':
        return notebook(json.loads(text))
    fence = '`' * max(3, 1 + max((len(run) for run in re.findall('`+', text)), default=0))
    return f'{UNSEARCHED}# {path}\n\n{fence}{LANGUAGES.get(path.suffix, "")}\n{text}\n{fence}\n'


def notebook(content: dict) -> str:
    """Returns a notebook as Markdown: its text, its code, and what the code gave."""
    parts = []
    for cell in content['cells']:
        source = ''.join(cell['source'])
        if cell['cell_type'] == 'markdown':
            parts.append(source)
        elif cell['cell_type'] == 'code' and source.strip():
            parts.append(f'```python\n{source}\n```')
            parts += [shown for output in cell['outputs'] if (shown := result(output))]
    return '\n\n'.join(parts) + '\n'


def result(output: dict) -> str:
    """Returns one output of a notebook's cell as Markdown."""
    data = output.get('data', {})
    for kind in ('image/png', 'image/jpeg'):
        if kind in data:
            image = ''.join(data[kind]).replace('\n', '')
            return f'![What the cell above drew](data:{kind};base64,{image})'
    text = ''.join(output.get('text', data.get('text/plain', '')))
    return f'```text\n{text.rstrip()}\n```' if text.strip() else ''


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Lists what an entry of the navigation that ends in `/*` stands for: a folder's notebooks."""
    config.nav = _expanded(config.nav)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds README.md, what the navigation names, and everything that a page links to."""
    _sources.clear()
    waiting = [PurePosixPath('README.md')]
    waiting += [path for uri in _named(config.nav) if (path := _outside(uri))]
    for file in list(files):
        if file.src_uri.endswith('.ipynb'):
            files.remove(file)
            waiting.append(DOCS / file.src_uri)
        elif file.is_documentation_page():
            waiting += _links(text_of(DOCS / file.src_uri), DOCS / file.src_uri)
    while waiting:
        path = waiting.pop()
        uri = site_uri(path)
        if uri in files.src_uris:
            continue
        if (ROOT / path).is_dir() and uri.endswith('README.md'):
            path /= 'README.md'
        if path.suffix in AS_THEY_ARE:
            files.append(File.generated(config, uri, abs_src_path=str(ROOT / path)))
            continue
        text = text_of(path)
        # A folder's links are written from beside it, as those of a page with its name would be.
        _sources[uri] = path
        files.append(File.generated(config, uri, content=text))
        if path.suffix in ('.md', '.ipynb') or (ROOT / path).is_dir():
            waiting += _links(text, path)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns links to files of the repository into links of the site."""
    here = page.file.src_uri
    base = repository_path(here)

    def turned(match: re.Match) -> str:
        target = target_of(match[2], base)
        if target is None:
            return match[0]
        link = posixpath.relpath(site_uri(target), posixpath.dirname(here) or '.')
        return match[1] + link + match[3]

    return LINK.sub(turned, markdown)


def on_post_build(config: MkDocsConfig) -> None:
    """Leaves out what no reader's browser asks for.

    That is source maps, search in other languages, and the page for addresses that are not there,
    which finds its style only below a server's root.
    """
    Path(config.site_dir, '404.html').unlink()
    scripts = Path(config.site_dir, 'assets/javascripts')
    shutil.rmtree(scripts / 'lunr', ignore_errors=True)
    for file in Path(config.site_dir, 'assets').rglob('*.map'):
        file.unlink()


def _links(text: str, base: PurePosixPath) -> list[PurePosixPath]:
    return [path for match in LINK.finditer(text) if (path := target_of(match[2], base))]


def _outside(uri: str) -> PurePosixPath | None:
    """Returns the file that an entry of the navigation names, unless docs/ has it."""
    if (ROOT / DOCS / uri).is_file():
        return None
    for path in (PurePosixPath(uri), PurePosixPath(uri.removesuffix('.md'))):
        for candidate in (path, DOCS / path):
            if (ROOT / candidate).is_file():
                return candidate
    return None


def _named(entry: object) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    children = entry.values() if isinstance(entry, dict) else entry
    return [name for child in children for name in _named(child)]


def _expanded(entry: object) -> object:
    if isinstance(entry, str) and entry.endswith('/*'):
        found = sorted((ROOT / DOCS / entry[:-2]).glob('*.ipynb'))
        return [site_uri(DOCS / entry[:-1] / file.name) for file in found]
    if isinstance(entry, list):
        return [_expanded(child) for child in entry]
    if isinstance(entry, dict):
        return {title: _expanded(child) for title, child in entry.items()}
    return entry
