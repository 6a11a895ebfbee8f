"""The Dockerfiles as files: what they start from, copy and run, and as whom."""

from __future__ import annotations

import fnmatch
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted((ROOT / 'docker').glob('Dockerfile.*'))
by_name = pytest.mark.parametrize('path', FILES, ids=lambda path: path.suffix[1:])


def instructions(path: Path) -> list[tuple[str, str]]:
    """Returns (INSTRUCTION, arguments), continued lines joined and comments left out."""
    text = re.sub(r'^\s*#.*\n', '', path.read_text(), flags=re.MULTILINE)
    lines = re.sub(r'\\\n\s*', '', text).splitlines()
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines if line.strip()]


def ignored() -> list[tuple[bool, str]]:
    """Returns the patterns of .dockerignore in their order, and whether each lets in."""
    lines = (ROOT / '.dockerignore').read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith('#')]
    return [(pattern.startswith('!'), pattern.lstrip('!')) for pattern in patterns]


def in_context(name: str) -> bool:
    """Whether a file reaches the build: the last pattern that fits it or a folder above decides."""
    parts = name.split('/')
    above = ['/'.join(parts[: i + 1]) for i in range(len(parts))]
    inside = True
    for lets_in, pattern in ignored():
        tails = [pattern, pattern[3:]] if pattern.startswith('**/') else [pattern]
        if any(
            fnmatch.fnmatchcase(part, tail) and part.count('/') == tail.count('/')
            for part in [*above, *(parts if len(tails) > 1 else [])]
            for tail in tails
        ):
            inside = lets_in
    return inside


def tracked() -> list[str]:
    listing = subprocess.run(
        ['git', 'ls-files'], cwd=ROOT, capture_output=True, text=True
    ).stdout.splitlines()
    if not listing:
        pytest.skip('no git checkout')
    return listing


def test_there_are_two():
    assert [path.name for path in FILES] == ['Dockerfile.cpu', 'Dockerfile.cuda']


@by_name
def test_base_images_are_pinned(path):
    stages = set()
    for keyword, arguments in instructions(path):
        if keyword == 'FROM':
            image, *name = arguments.split(' AS ')
            if image not in stages:
                assert re.search(r':\d+\.\d+\.\d+-[\w-]*\w', image), image
            stages.update(name)


@by_name
def test_nobody_is_root_at_run_time(path):
    last = max(i for i, (keyword, _) in enumerate(instructions(path)) if keyword == 'FROM')
    final = instructions(path)[last:]
    (user,) = [arguments for keyword, arguments in final if keyword == 'USER']
    assert user.isdigit() and int(user) > 1000
    assert f'--uid {user} ' in path.read_text()
    # Nothing is installed or built in the last stage: it takes what the others made.
    assert 'RUN' not in [keyword for keyword, _ in final]


@by_name
def test_what_is_copied_exists(path):
    built = ''
    for keyword, arguments in instructions(path):
        if keyword == 'WORKDIR':
            built = arguments
        if keyword == 'COPY':
            *options, source, target = arguments.split()
            if options:
                # The environment knows its own path: it must not move from one stage to another.
                assert (options, source, target) == (['--from=build'], built, built)
            else:
                assert (ROOT / source).exists()


@by_name
def test_environment_is_the_projects_own(path):
    runs = [arguments for keyword, arguments in instructions(path) if keyword == 'RUN']
    assert sum(run.endswith('make env') for run in runs) == 1
    assert not any('pip install' in run for run in runs)
    for run in runs:
        assert ('apt-get install' in run) == ('rm -rf /var/lib/apt/lists/*' in run)


@by_name
def test_its_command_is_one_that_the_wheel_installs(path):
    (command,) = [a for keyword, a in instructions(path) if keyword == 'ENTRYPOINT']
    project = (ROOT / 'pyproject.toml').read_text()
    scripts = re.search(r'^\[project\.scripts\]\n(.*?)(?:\n\n|\Z)', project, re.M | re.S)
    assert scripts, 'pyproject.toml has no [project.scripts]'
    assert re.search(rf'^{json.loads(command)[0]} = ', scripts[1], re.MULTILINE)


def test_cuda_is_torchs():
    constraints = (ROOT / 'requirements/constraints.txt').read_text()
    torchs = re.search(r'^cuda-toolkit==(\d+\.\d+)', constraints, re.MULTILINE)[1]
    images = re.findall(r'nvidia/cuda:(\d+\.\d+)', (ROOT / 'docker/Dockerfile.cuda').read_text())
    assert set(images) == {torchs}


def test_context_is_what_builds_the_package_and_no_more():
    inside = [name for name in tracked() if in_context(name)]
    folders = {name.split('/')[0] for name in inside}
    assert {'bnet_mm', 'configs', 'requirements', 'tools'} <= folders
    assert not folders & {'docs', 'study', '.github', 'docker'}
    assert [name for name in inside if name.startswith('tests/')] == ['tests/kernels/checks.py']
    for name in ('setup.py', 'pyproject.toml', 'bnet_mm/kernels/csrc/kernels.cpp', 'README.md'):
        assert name in inside
    assert not in_context('bnet_mm/kernels/_cpu_avx2.so')
    assert not in_context('bnet_mm/models/__pycache__/finding.pyc')
    assert not in_context('.venv/bin/python')
    # What make env and the set-up read, by their own words.
    script = (ROOT / 'requirements/setup_env.sh').read_text()
    for name in re.search(r'^wanted=\$\(cat (.+?) \|', script, re.MULTILINE)[1].split():
        assert in_context(name.replace('$here', 'requirements').replace('*', 'kernels.cpp')), name


def test_the_development_container_starts_from_a_stage_that_is_there():
    container = json.loads((ROOT / '.devcontainer/devcontainer.json').read_text())
    build = container['build']
    dockerfile = ROOT / '.devcontainer' / build['dockerfile']
    assert f' AS {build["target"]}\n' in dockerfile.read_text()
    assert f'useradd --create-home --uid 10001 {container["remoteUser"]} ' in dockerfile.read_text()
    target = container['postCreateCommand'].removeprefix('make ')
    assert re.search(rf'^{target}:', (ROOT / 'Makefile').read_text(), re.MULTILINE)


@by_name
def test_hadolint_finds_nothing(path):
    program = shutil.which('hadolint')
    if program is None:
        pytest.skip('hadolint is not installed')
    result = subprocess.run([program, '--no-color', path], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
