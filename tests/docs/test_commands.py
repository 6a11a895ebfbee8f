"""The commands of the pages: each is one that exists, with options that it has."""

from __future__ import annotations

import argparse
import re
import runpy
import sys

import pytest
from documents import PAGES, PROGRAM, ROOT, commands, python_blocks

pytest.importorskip('mmengine')

COMMANDS = [command for page in PAGES for command in commands(page)]
TARGETS = set(re.findall(r'^(\w+):', (ROOT / 'Makefile').read_text(), re.MULTILINE))
EXTRAS = re.findall(r'^(\w+) = \[', (ROOT / 'pyproject.toml').read_text(), re.MULTILINE)
START = ROOT / 'docs/start.md'


class StoppedError(Exception):
    """A program has read its options, and is not to go on."""


def test_commands_are_found():
    pages = {command.page.name for command in COMMANDS}
    assert {'README.md', 'start.md', 'training.md', 'faq.md', 'report.md'} <= pages
    assert len(COMMANDS) > 60


@pytest.mark.parametrize('command', COMMANDS, ids=str)
def test_command(command, monkeypatch):
    assert PROGRAM.match(command.line), f'{command} is no command that is known here'
    program, *words = command.words
    for word in words:
        for path in re.findall(r'(?:^|=)((?:configs|study|requirements|tests)/[\w./]+)', word):
            assert (ROOT / path).exists(), f'{command}: there is no {path}'
    name = program.rpartition('/')[2]
    if name == 'make':
        assert {word for word in words if '=' not in word} <= TARGETS
    elif name == 'pip' or words[:2] == ['-m', 'pip']:
        for extra in re.findall(r'(?:\.|bnet_mm)\[([\w,]+)\]', command.line):
            assert set(extra.split(',')) <= set(EXTRAS)
    elif name == 'python' and words[0].endswith('.py'):
        parses(words[0], words[1:], monkeypatch)
    elif name.endswith('.sh'):
        assert (ROOT / program).is_file()
        options = {word for word in words if word.startswith('--')}
        assert all(option in (ROOT / program).read_text() for option in options)


def parses(script: str, words: list[str], monkeypatch) -> None:
    """Runs a program of the repository until it has read its options."""
    read = argparse.ArgumentParser.parse_args

    def stop(parser, *args, **kwargs):
        read(parser, *args, **kwargs)
        raise StoppedError

    assert (ROOT / script).is_file()
    monkeypatch.setattr(argparse.ArgumentParser, 'parse_args', stop)
    monkeypatch.setattr(sys, 'argv', [script, *words])
    with pytest.raises(StoppedError):
        runpy.run_path(str(ROOT / script), run_name='__main__')


@pytest.mark.slow
def test_the_start_page_runs_from_its_first_command_to_its_last(tmp_path, run_tool, call_tool):
    """As it stands there, with fewer pictures.

    After so few steps a detector may be sure of nothing, of which its whole graph is not compared.
    """
    pytest.importorskip('mmdet')
    (tmp_path / 'configs').symlink_to(ROOT / 'configs')
    for title, code in python_blocks(START):
        name = re.match(r'# (\w+\.py)\n', code)
        assert name, f'{title}: the first line names the file'
        (tmp_path / name[1]).write_text(code)
    small = {'120': '8', '30': '4'}  # and the first photo of the second part
    run, made = 0, {'curves.png', 'report.html', 'mine.pth', 'mine.onnx', 'backbone.onnx'}
    for command in commands(START):
        words = command.words
        if words[0] != 'python':
            continue
        run += 1
        tool = words[1].rpartition('/')[2]
        arguments = [small.get(word, word).replace('0121.jpg', '0009.jpg') for word in words[2:]]
        if 'mine.onnx' in arguments and 'mine.onnx' not in made:
            continue
        result = (run_tool if tool in ('train.py', 'test.py') else call_tool)(tool, *arguments)
        if 'sure of nothing in this photo' in result.stderr:
            made.remove('mine.onnx')
            continue
        assert result.returncode == 0, f'{command}: {result.stdout[-2000:]}{result.stderr[-2000:]}'
    assert run >= 12
    assert all((tmp_path / name).is_file() for name in made)
