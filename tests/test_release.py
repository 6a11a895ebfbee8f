"""What is checked before a release (release/), and that this checkout passes it."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

from release_checks import (
    IN_SOURCE,
    KERNELS,
    MOST_BYTES,
    archive_problems,
    disagreements,
    notes,
    sections,
    source_problems,
    version_of,
    wheel_problems,
)

ROOT = Path(__file__).resolve().parent.parent
VERSION = version_of(ROOT)
INFO = f'bnet_mm-{VERSION}.dist-info'
# What any wheel of the package holds.
CONTENTS = {
    'bnet_mm/__init__.py': b'',
    'bnet_mm/py.typed': b'',
    'bnet_mm/.mim/configs/a.py': b'',
    f'{INFO}/METADATA': f'Name: bnet_mm\nVersion: {VERSION}\n'.encode(),
    f'{INFO}/licenses/LICENSE': b'',
}


def test_this_checkout_agrees_with_itself():
    # Between releases there are changes that are not released; `make release` refuses them.
    assert [said for said in disagreements(ROOT) if 'under Unreleased' not in said] == []
    import bnet_mm

    assert bnet_mm.__version__ == VERSION


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A copy of what names the version, as it is when a version is made."""
    for name in ('CHANGELOG.md', 'CITATION.cff', 'README.md', 'bnet_mm/version.py'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    changes = tmp_path / 'CHANGELOG.md'
    changes.write_text(
        re.sub(r'(## \[Unreleased\]\n).*?(?=## \[)', r'\1\n', changes.read_text(), flags=re.DOTALL)
    )
    shutil.copytree(ROOT / 'configs/metafiles', tmp_path / 'configs/metafiles')
    (tmp_path / 'docs').mkdir()
    shutil.copy(ROOT / 'docs/compatibility.md', tmp_path / 'docs')
    return tmp_path


@pytest.mark.parametrize(
    ('file', 'old', 'new', 'problem'),
    [
        ('CITATION.cff', f'version: {VERSION}', 'version: 9.9.9', 'version is 9.9.9'),
        ('CITATION.cff', r'date-released: \S+', 'date-released: 2001-02-03', '2001-02-03'),
        ('CHANGELOG.md', rf'## \[{VERSION}\]', '## [9.9.9]', 'its newest release is 9.9.9'),
        ('CHANGELOG.md', rf'(## \[{VERSION}\]) - \S+', r'\1', 'has no day'),
        ('CHANGELOG.md', rf'(## \[{VERSION}\] - \S+\n)', r'\1\n## [0.0.1]\n', 'is empty'),
        ('CHANGELOG.md', r'## \[Unreleased\]\n', '## [Unreleased]\n- more\n', 'under Unreleased'),
        ('configs/metafiles/tsn.yml', f'v{VERSION}', 'v9.9.9', 'tsn.yml: Code: Version is v9.9.9'),
        ('docs/compatibility.md', f'bnet_mm-{VERSION}', 'bnet_mm-9.9.9', 'a wheel is named 9.9.9'),
        ('bnet_mm/version.py', f"'{VERSION}'", "'1.0rc1'", 'is not MAJOR.MINOR.PATCH'),
    ],
)
def test_each_disagreement_is_named(checkout, file, old, new, problem):
    path = checkout / file
    text, count = re.subn(old, new, path.read_text())
    assert count
    path.write_text(text)
    assert any(problem in said for said in disagreements(checkout))


def test_a_tag_of_another_version_is_refused(checkout):
    assert list(disagreements(checkout, f'v{VERSION}')) == []
    assert list(disagreements(checkout, 'v9.9.9')) == [
        f'the tag is v9.9.9, bnet_mm/version.py says {VERSION}: tag v{VERSION}'
    ]


def test_notes_are_the_section_of_the_version():
    text = notes(ROOT)
    assert text.startswith('### ') and '## [' not in text.replace('### ', '')
    two = (
        '# C\n\n## [Unreleased]\n\n## [1.1.0] - 2026-01-02\n\n- b\n\n## [1.0.0] - 2026-01-01\n- a\n'
    )
    links = '\n[1.1.0]: https://example.org\n'
    assert sections(two + links) == {
        'Unreleased': (None, ''),
        '1.1.0': ('2026-01-02', '- b'),
        '1.0.0': ('2026-01-01', '- a'),
    }


def wheel(folder: Path, contents: dict[str, bytes], tag: str = 'none-any') -> Path:
    path = folder / f'bnet_mm-{VERSION}-py3-{tag}.whl'
    with zipfile.ZipFile(path, 'w') as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    return path


def source(folder: Path, names: tuple[str, ...]) -> Path:
    path = folder / f'bnet_mm-{VERSION}.tar.gz'
    with tarfile.open(path, 'w:gz') as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(f'bnet_mm-{VERSION}/{name}'), io.BytesIO())
    return path


def test_files_as_they_must_be_pass(tmp_path):
    compiled = {'bnet_mm/': b'', **CONTENTS, **dict.fromkeys(KERNELS, b'')}  # as auditwheel's
    files = [
        wheel(tmp_path, CONTENTS),
        wheel(tmp_path, compiled, 'none-manylinux_2_17_x86_64'),
        source(tmp_path, IN_SOURCE),
    ]
    assert list(archive_problems(files, VERSION)) == []
    assert list(archive_problems(files[1:], VERSION)) == [
        'there are 0 files *-none-any.whl*, not one'
    ]


@pytest.mark.parametrize(
    ('more', 'problem'),
    [
        ({'tests/test_a.py': b''}, 'tests/test_a.py does not belong into a wheel'),
        ({'bnet_mm/tests/a.py': b''}, 'bnet_mm/tests/a.py does not belong into a wheel'),
        ({'study/run.py': b''}, 'study/run.py does not belong into a wheel'),
        ({'bnet_mm/demo/street.jpg': b''}, 'bnet_mm/demo/street.jpg is no code'),
        ({'bnet_mm/weights.pth': b''}, 'bnet_mm/weights.pth is no code'),
        ({'bnet_mm/kernels/_cpu_avx2.so': b''}, 'compiled files are'),
        ({'bnet_mm/large.py': bytes(MOST_BYTES + 1)}, 'bytes without the kernels are more than'),
        ({f'{INFO}/METADATA': b'Name: bnet_mm\nVersion: 9.9.9\n'}, 'do not say version'),
        ({f'{INFO}/METADATA': None}, 'it is not a wheel of version'),
        ({f'{INFO}/licenses/LICENSE': None}, 'the licence is missing'),
    ],
)
def test_each_problem_of_a_wheel_is_named(tmp_path, more, problem):
    contents = {name: data for name, data in {**CONTENTS, **more}.items() if data is not None}
    assert any(problem in said for said in wheel_problems(wheel(tmp_path, contents), VERSION))


def test_a_wheel_for_linux_without_kernels_is_refused(tmp_path):
    path = wheel(tmp_path, CONTENTS, 'none-manylinux_2_17_x86_64')
    (problem,) = wheel_problems(path, VERSION)
    assert problem.startswith('compiled files are [], not')


@pytest.mark.parametrize('name', IN_SOURCE)
def test_what_a_source_archive_lacks_is_named(tmp_path, name):
    path = source(tmp_path, tuple(other for other in IN_SOURCE if other != name))
    assert list(source_problems(path, VERSION)) == [f'{name} is missing']


def test_data_in_a_source_archive_are_named(tmp_path):
    (problem,) = source_problems(source(tmp_path, (*IN_SOURCE, 'docs/a.jpg')), VERSION)
    assert problem.endswith('docs/a.jpg does not belong into a source archive')


def test_command_line_ends_with_the_problems(checkout, tmp_path):
    broken = wheel(tmp_path, {'tests/a.py': b''})
    command = [sys.executable, str(ROOT / 'release/release_checks.py')]
    result = subprocess.run([*command, 'archives', broken], capture_output=True, text=True)
    assert result.returncode == 1
    assert f'{broken.name}: the licence is missing' in result.stdout.splitlines()
    shutil.copytree(ROOT / 'release', checkout / 'release')
    command = [sys.executable, str(checkout / 'release/release_checks.py')]
    result = subprocess.run([*command, 'agreement'], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, '')


def test_a_release_of_uncommitted_changes_is_refused(tmp_path):
    """In a copy, with git's own opinion of it."""
    shutil.copytree(ROOT / 'release', tmp_path / 'release')
    subprocess.run(['git', 'init', '-q', tmp_path], check=True)
    result = subprocess.run(
        ['bash', tmp_path / 'release/run.sh'], capture_output=True, text=True, cwd='/'
    )
    assert result.returncode == 2
    assert 'changes that are not committed' in result.stdout + result.stderr


def test_the_citation_is_that_of_the_docs():
    article = yaml.safe_load((ROOT / 'CITATION.cff').read_text())['preferred-citation']
    pages = [ROOT / 'README.md', *ROOT.glob('docs/**/*.md')]
    (bibtex, *_) = (t for t in map(Path.read_text, pages) if '@article{xu2023bnet' in t)
    entries = dict(re.findall(r'^  (\w+) += \{(.+?)\},?$', bibtex, re.MULTILINE | re.DOTALL))
    authors = [
        f'{a["family-names"]}, {a["given-names"]}' for a in article['authors']
    ]  # as BibTeX writes them
    assert re.split(r'\s+and\s+', entries['author']) == authors
    assert entries['title'].replace('{', '').replace('}', '') == article['title']
    assert entries['doi'] == article['doi']
    assert entries['pages'] == f'{article["start"]}--{article["end"]}'
    for name in ('journal', 'volume', 'number', 'year'):
        assert entries[name] == str(article['issue' if name == 'number' else name])
