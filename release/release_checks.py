"""What must hold before a release is published; `make release` runs it.

python release/release_checks.py agreement --tag v0.2.0    version, changelog, citation, docs
python release/release_checks.py archives dist/*           what wheels and source archive hold
python release/release_checks.py notes                     the changelog on this version

Needs the standard library and PyYAML. Each problem is one line, and the exit code 1.
"""

from __future__ import annotations

import argparse
import re
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import yaml

ROOT = Path(__file__).resolve().parent.parent
SEMANTIC = re.compile(r'(?:0|[1-9]\d*)(?:\.(?:0|[1-9]\d*)){2}')
SECTION = re.compile(r'^## \[(?P<name>[^\]]+)\](?: - (?P<date>\S+))?.*\n', re.MULTILINE)
DATE = re.compile(r'\d{4}-\d\d-\d\d')
# Bytes of a wheel without its compiled kernels.
MOST_BYTES = 1_500_000
# What a wheel installs beside its metadata.
TOP = ('bnet_mm', 'bnet_command.py')
# What the package is made of; a photo, a checkpoint or an annotation file is none of it.
SUFFIXES = {'.py', '.yml', '.html', '.sh', '.so', '.typed', '.cpp', '.h'}
KERNELS = {f'bnet_mm/kernels/_cpu_{name}.so' for name in ('avx2', 'avx512')}
# What builds a wheel, and what people look for beside it.
IN_SOURCE = (
    'CHANGELOG.md',
    'CITATION.cff',
    'LICENSE',
    'README.md',
    'bnet_mm/kernels/csrc/kernels.cpp',
    'bnet_mm/py.typed',
    'bnet_mm/version.py',
    'model-index.yml',
    'pyproject.toml',
    'requirements/constraints.txt',
    'setup.py',
)


def version_of(root: Path) -> str:
    """Returns the version that bnet_mm/version.py names, without importing it."""
    text = (root / 'bnet_mm/version.py').read_text()
    return re.search(r"^__version__ = '(.+)'$", text, re.MULTILINE)[1]


def sections(changelog: str) -> dict[str, tuple[str | None, str]]:
    """Returns name -> (date, text) of the changelog's sections, newest first."""
    found = list(SECTION.finditer(changelog))
    ends = [match.start() for match in found[1:]] + [len(changelog)]
    return {
        match['name']: (match['date'], _without_links(changelog[match.end() : end]))
        for match, end in zip(found, ends)
    }


def _without_links(text: str) -> str:
    """Drops the link definitions that end a changelog."""
    return re.sub(r'^\[[^\]]+\]: \S+\n?', '', text, flags=re.MULTILINE).strip()


def notes(root: Path) -> str:
    """Returns the text of the changelog on this version: the notes of its release."""
    return sections((root / 'CHANGELOG.md').read_text())[version_of(root)][1]


def disagreements(root: Path, tag: str | None = None) -> Iterator[str]:
    """Yields a sentence for each place that names another version or day than the others.

    Args:
        root: the repository.
        tag: the tag that is released, `v` and the version.
    """
    version = version_of(root)
    if not SEMANTIC.fullmatch(version):
        yield f'bnet_mm/version.py: {version} is not MAJOR.MINOR.PATCH'
    if tag is not None and tag != f'v{version}':
        yield f'the tag is {tag}, bnet_mm/version.py says {version}: tag v{version}'

    changes = sections((root / 'CHANGELOG.md').read_text())
    newest = next((name for name in changes if name != 'Unreleased'), None)
    date, text = changes.get(version, (None, ''))
    if newest != version:
        yield f'CHANGELOG.md: its newest release is {newest}, not {version}'
    elif not DATE.fullmatch(date or ''):
        yield f'CHANGELOG.md: the section of {version} has no day (## [{version}] - YYYY-MM-DD)'
    elif not text:
        yield f'CHANGELOG.md: the section of {version} is empty'
    if changes.get('Unreleased', (None, ''))[1]:
        yield f'CHANGELOG.md: what is under Unreleased belongs to {version}, or to a later release'

    citation = yaml.safe_load((root / 'CITATION.cff').read_text())
    if citation['version'] != version:
        yield f'CITATION.cff: version is {citation["version"]}, not {version}'
    released = str(citation['date-released'])
    if released != date:
        yield f'CITATION.cff: date-released is {released}, the changelog says {date}'

    for path in sorted(root.glob('configs/metafiles/*.yml')):
        for collection in yaml.safe_load(path.read_text())['Collections']:
            named = collection['Code']['Version']
            if named != f'v{version}':
                yield f'{path.relative_to(root)}: Code: Version is {named}, not v{version}'
    for path in [root / 'README.md', *sorted(root.glob('docs/**/*.md'))]:
        for named in sorted(set(re.findall(r'bnet_mm-(\d[\w.]*?)-py3', path.read_text()))):
            if named != version:
                yield f'{path.relative_to(root)}: a wheel is named {named}, not {version}'


def wheel_problems(path: Path, version: str) -> Iterator[str]:
    """Yields what is wrong with the contents of a wheel."""
    with zipfile.ZipFile(path) as archive:
        # auditwheel gives folders entries of their own.
        entries = {entry.filename: entry for entry in archive.infolist() if not entry.is_dir()}
        info = f'bnet_mm-{version}.dist-info'
        metadata = f'{info}/METADATA'
        if metadata not in entries:
            yield f'it is not a wheel of version {version}'
        elif f'\nVersion: {version}\n' not in archive.read(metadata).decode():
            yield f'its metadata do not say version {version}'
    if not any(name.startswith(info) and name.endswith('/LICENSE') for name in entries):
        yield 'the licence is missing'
    for name in entries:
        top, *rest = PurePosixPath(name).parts
        if top not in (*TOP, info) or 'tests' in rest:
            yield f'{name} does not belong into a wheel'
        elif top == 'bnet_mm' and PurePosixPath(name).suffix not in SUFFIXES:
            yield f'{name} is no code, and data are not shipped'
    compiled = {name for name in entries if name.endswith('.so')}
    expected = set() if path.stem.endswith('-none-any') else KERNELS
    if compiled != expected:
        yield f'compiled files are {sorted(compiled)}, not {sorted(expected)}'
    size = sum(e.compress_size for name, e in entries.items() if name not in compiled)
    if size > MOST_BYTES:
        yield f'{size} bytes without the kernels are more than {MOST_BYTES}'


def source_problems(path: Path, version: str) -> Iterator[str]:
    """Yields what is wrong with the contents of a source archive."""
    top = f'bnet_mm-{version}'
    with tarfile.open(path) as archive:
        names = [member.name for member in archive.getmembers() if member.isfile()]
    if any(not name.startswith(f'{top}/') for name in names):
        yield f'it is not an archive of version {version}'
    for name in IN_SOURCE:
        if f'{top}/{name}' not in names:
            yield f'{name} is missing'
    for name in names:
        if PurePosixPath(name).suffix in ('.so', '.pth', '.jpg', '.png', '.pyc'):
            yield f'{name} does not belong into a source archive'


def archive_problems(paths: list[Path], version: str) -> Iterator[str]:
    """Yields what is wrong with the files to be published: each, and that each kind is there."""
    kinds = {'-none-any.whl': 0, 'manylinux': 0, '.tar.gz': 0}
    for path in paths:
        problems = source_problems if path.name.endswith('.tar.gz') else wheel_problems
        for problem in problems(path, version):
            yield f'{path.name}: {problem}'
        for kind in kinds:
            kinds[kind] += kind in path.name
    for kind, count in kinds.items():
        if count != 1:
            yield f'there are {count} files *{kind}*, not one'


def main() -> None:
    parser = argparse.ArgumentParser(description='Check what is released.')
    commands = parser.add_subparsers(dest='command', required=True)
    agreement = commands.add_parser('agreement', help='one version and one day everywhere')
    agreement.add_argument('--tag', help='the tag that is released')
    archives = commands.add_parser('archives', help='what the built files hold')
    archives.add_argument('files', nargs='+', type=Path)
    commands.add_parser('notes', help='print the notes of the release')
    args = parser.parse_args()
    if args.command == 'notes':
        print(notes(ROOT))
        return
    if args.command == 'agreement':
        problems = list(disagreements(ROOT, args.tag or None))
    else:
        problems = list(archive_problems(args.files, version_of(ROOT)))
    print(*problems, sep='\n', end='\n' if problems else '')
    sys.exit(bool(problems))


if __name__ == '__main__':
    main()
