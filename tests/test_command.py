"""The command `bnet`: every program of `tools/` by a short name, quick to say what there is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bnet_command import COMMANDS, load, main, overview
from bnet_mm.engine.command_line import parser_of
from bnet_mm.engine.completion import SHELLS
from bnet_mm.errors import program
from bnet_mm.version import __version__

TOOLS = Path(__file__).resolve().parent.parent / 'tools'
ALONE = """
import sys
from bnet_command import main
sys.argv = ['bnet', *sys.argv[1:]]
try:
    main()
finally:
    print([name for name in ('torch', 'bnet_mm', 'mmengine') if name in sys.modules])
"""
# Stand-ins for what zsh gives to a completion.
ZSH = """
compdef() { :; }
compadd() { shift; print -r -- $* }
_files() { print files }
"""


@pytest.fixture
def bnet(monkeypatch, capsys):
    """Calls the command in this process, as its entry point does."""

    def call(*args) -> subprocess.CompletedProcess:
        monkeypatch.setattr(sys, 'argv', ['/somewhere/bin/bnet', *map(str, args)])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as ended:
            code = ended.code or 0
        return subprocess.CompletedProcess(args, code, *capsys.readouterr())

    return call


def test_every_program_is_a_command():
    stems = [stem for stem, _ in COMMANDS.values()]
    assert sorted(stems) == sorted(path.stem for path in TOOLS.glob('*.py'))


def test_the_overview_fits_a_screen_and_has_a_line_for_each_command():
    lines = overview().splitlines()
    assert len(lines) < 24  # and the prompt below it
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines[2:]] == list(COMMANDS)


@pytest.mark.parametrize('name', COMMANDS)
def test_every_command_has_a_help_of_its_own(bnet, name):
    result = bnet(name, '--help')
    assert result.returncode == 0
    assert result.stdout.startswith(f'usage: bnet {name} [-h]')
    assert '--traceback' in result.stdout


def test_commands_of_a_command_say_whose_they_are(bnet):
    assert bnet('analyze', 'heatmap', '--help').stdout.startswith('usage: bnet analyze heatmap ')


@pytest.mark.parametrize(
    ('arguments', 'code', 'said'),
    [
        (['--help'], 0, overview()),
        (['-h'], 0, overview()),
        (['--version'], 0, f'bnet_mm {__version__}\n'),
        ([], 2, 'bnet: error: name a command; `bnet --help` lists all.'),
        (['trian'], 2, "there is no command 'trian'; did you mean `bnet train`? `bnet --help`"),
        (['convert_checkpoint.py', 'x.pth'], 2, 'did you mean `bnet convert`?'),
        (['Doctor'], 2, 'did you mean `bnet doctor`?'),
        (['xyzzy'], 2, "there is no command 'xyzzy'. `bnet --help` lists all."),
    ],
)
def test_what_is_no_command_is_answered_without_torch(arguments, code, said):
    result = subprocess.run(
        [sys.executable, '-c', ALONE, *arguments], capture_output=True, text=True
    )
    assert result.returncode == code, result.stderr
    assert said in (result.stderr if code else result.stdout)
    assert result.stderr.count('\n') == (1 if code else 0)
    assert result.stdout.splitlines()[-1] == '[]'


def test_a_command_runs_its_program_with_its_exit_codes(bnet, tmp_path):
    result = bnet('inspect', tmp_path / 'none.pth')
    assert result.returncode == 2
    assert result.stderr.startswith('bnet inspect: error: checkpoint ')
    assert result.stderr.count('\n') == 1
    assert bnet('demo-data', 'coco', '--train', 0).returncode == 2
    written = bnet('demo-data', 'coco', '--train', 1, '--val', 1, '--out', tmp_path)
    assert written.returncode == 0
    assert written.stdout.strip() == str(tmp_path / 'coco')


def test_sentences_name_commands_as_they_were_called(monkeypatch):
    assert program('export_onnx') == 'python tools/export_onnx.py'
    monkeypatch.setattr(sys, 'argv', ['bnet test', 'x.py', 'x.pth'])
    assert [program(file) for _, (file, _) in COMMANDS.items()] == [f'bnet {n}' for n in COMMANDS]


def test_a_program_that_is_asked_for_its_parser_does_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'argv', ['bnet demo-data', 'coco'])
    options = {option for action in parser_of(load('demo-data').main)._actions
               for option in action.option_strings}  # fmt: skip
    assert {'--out', '--train', '--traceback'} <= options
    assert not list(tmp_path.iterdir())
    with pytest.raises(TypeError, match='parses nothing'):
        parser_of(lambda: None)


@pytest.fixture(scope='module')
def scripts(tmp_path_factory):
    """The completion of each shell, in a file."""
    folder = tmp_path_factory.mktemp('completion')
    for shell in SHELLS:
        (folder / shell).write_text(
            subprocess.run(
                [sys.executable, '-c', 'from bnet_command import main; main()']
                + ['completion', shell],
                check=True,
                capture_output=True,
                text=True,
            ).stdout
        )
    return folder


def completed(shell: str, file: Path, *words: str) -> list[str]:
    """Returns what a shell offers for the last of the words after `bnet`."""
    words = ('bnet', *words)
    quoted = ' '.join(f"'{word}'" for word in words)
    if shell == 'bash':
        code = f'. {file}; COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _bnet'
        code += '; echo "${COMPREPLY[@]}"'
    elif shell == 'zsh':
        code = f'{ZSH}. {file}; words=({quoted}); CURRENT={len(words)}; _bnet'
    else:
        code = f"source {file}; complete -C '{' '.join(words)}'"
    quiet = {'bash': '--norc', 'zsh': '-f', 'fish': '--no-config'}[shell]
    result = subprocess.run(
        [shutil.which(shell), quiet, '-c', code],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, 'HOME': str(file.parent)},
    )
    if shell == 'fish':
        return [line.partition('\t')[0] for line in result.stdout.splitlines()]
    # zsh is offered all, and takes those that fit itself.
    return [word for word in result.stdout.split() if word.startswith(words[-1])]


@pytest.mark.parametrize('shell', SHELLS)
def test_shells_complete_commands_options_and_their_values(shell, scripts):
    if shutil.which(shell) is None:
        pytest.skip(f'no {shell} here')
    file = scripts / shell
    subprocess.run([shell, '-n', file], check=True, capture_output=True)
    for words, offered in (
        (['conv'], ['convert']),
        (['convert', '--fo'], ['--force']),
        (['convert', '--to', 'mmd'], ['mmdet']),
        (['train', '--launcher', 'sl'], ['slurm']),
        (['analyze', 'heat'], ['heatmap']),
        (['analyze', 'heatmap', '--sha'], ['--shape']),
        (['demo-data', 'city'], ['cityscapes']),
        (['publish', '--am'], []),  # which is train's
    ):
        assert completed(shell, file, *words) == offered, words


@pytest.mark.skipif(shutil.which('bash') is None, reason='no bash here')
def test_bash_is_offered_every_command(scripts):
    assert completed('bash', scripts / 'bash', '') == list(COMMANDS)
