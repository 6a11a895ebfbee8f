"""The pages of the documentation, their code, and their commands."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    path
    for pattern in ('README.md', 'CONTRIBUTING.md', 'docs/**/*.md', 'study/README.md')
    for path in ROOT.glob(pattern)
)
# What a line of shell begins with.
PROGRAM = re.compile(
    r'(?:\.venv/bin/)?(?:python|pip|pytest|pre-commit)\b|make\b|source\b|(?:tools|benchmarks)/\w+\.sh'
)
FENCE = re.compile(r'^```(\w*)\n(.*?)^```$', re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Command:
    """One command of a page."""

    page: Path
    line: str

    @property
    def words(self) -> list[str]:
        """Its words, without comments, and without the brackets of what may be repeated."""
        return [word for word in shlex.split(self.line, comments=True) if word != '[...]']

    def __str__(self) -> str:
        return f'{self.page.relative_to(ROOT)}: {self.line}'


def python_blocks(page: Path) -> list[tuple[str, str]]:
    """Returns the title and the code of each block of Python, a page's title where it has none."""
    title, blocks = page.stem, []
    parts = re.split(r'^(#+ [^\n]*)$|(^```\w*\n.*?^```$)', page.read_text(), flags=re.M | re.S)
    for part in filter(None, parts):
        if re.match('#+ ', part):
            title = part.lstrip('# ')
        elif part.startswith('```python\n'):
            blocks.append((title, part[len('```python\n') : -3]))
    return blocks


def commands(page: Path) -> list[Command]:
    """Returns the commands in a page's blocks of shell: indented ones, and fences of `bash`."""
    text = page.read_text()
    fenced = [code for language, code in FENCE.findall(text) if language in ('bash', 'sh', 'shell')]
    indented = re.findall(r'(?:\A|\n)\n((?: {4}\S.*\n(?: {4}.*\n)*)+)', FENCE.sub('', text))
    found = []
    for block in fenced + [re.sub('^ {4}', '', block, flags=re.M) for block in indented]:
        lines = re.sub(r'\\\n\s*', ' ', block).strip().splitlines()
        if PROGRAM.match(lines[0]):
            found += [Command(page, line.strip()) for line in lines if line.strip()]
    return found
