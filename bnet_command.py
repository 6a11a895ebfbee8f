"""The command `bnet`: the programs of `tools/` by short names.

It stands beside the package and not in it: importing the package imports torch, which takes seconds
and which neither `bnet --help` nor a mistyped command needs. A program parses its own arguments;
here it is only found, in a wheel (`bnet_mm/.mim/tools`) or in a checkout, and called.
"""

from __future__ import annotations

import sys
from difflib import get_close_matches
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

# By command, in the order of work: the file in `tools/`, and what `bnet --help` says of it.
COMMANDS = {
    'train': ('train', 'train the model of a config'),
    'test': ('test', 'evaluate a checkpoint, or an exported model'),
    'doctor': ('doctor', "show the norms of a config's model and what may go wrong"),
    'print-config': ('print_config', 'print a config with its bases and options merged'),
    'browse': ('browse_dataset', 'draw samples as the model gets them'),
    'convert': ('convert_checkpoint', 'convert a checkpoint between libraries, and BN to BNET'),
    'inspect': ('inspect_checkpoint', 'show what a checkpoint holds'),
    'publish': ('publish_model', "strip a training's checkpoint for publication"),
    'deploy': ('deploy', 'fold a trained model for inference'),
    'export': ('export_onnx', 'write a model as ONNX and check it'),
    'compare': ('compare', 'compare trainings in a table'),
    'report': ('report', 'compare trainings on a page of HTML'),
    'analyze': ('analyze', 'heat maps, attention, kernels, errors, curves'),
    'complexity': ('complexity', 'count parameters and multiply-accumulates'),
    'benchmark': ('benchmark', 'measure times beside batch norm'),
    'coverage': ('coverage', 'try BNET on every stock backbone'),
    'demo': ('demo', 'train, evaluate and show a small detector'),
    'demo-data': ('make_demo_data', 'draw small labelled datasets'),
    'completion': ('completion', 'print a script that completes these in bash, zsh or fish'),
}


def main() -> None:
    """Runs the program of a command with the arguments that follow it, and its exit code."""
    name, *arguments = sys.argv[1:] or ['']
    if name in ('-h', '--help'):
        print(overview())
    elif name == '--version':
        print(f'bnet_mm {_loaded("version", _package() / "version.py").__version__}')
    elif name in COMMANDS:
        sys.argv = [f'bnet {name}', *arguments]  # of which argparse takes the program's name
        load(name).main()
    else:
        print(f'bnet: error: {_unknown(name)} `bnet --help` lists all.', file=sys.stderr)
        sys.exit(2)


def overview() -> str:
    """Returns what `bnet --help` prints: a line for each command, all on one screen."""
    width = max(map(len, COMMANDS))
    lines = [f'  {name:{width}}  {summary}' for name, (_, summary) in COMMANDS.items()]
    usage = 'usage: bnet COMMAND ...    (bnet COMMAND --help: its arguments; bnet --version)'
    return '\n'.join([usage, '', *lines])


def load(name: str) -> ModuleType:
    """Imports the program of a command, whose `main` parses `sys.argv` and runs it."""
    stem = COMMANDS[name][0]
    return _loaded(stem, _tools() / f'{stem}.py')


def _unknown(name: str) -> str:
    """Returns what is wrong with the name of a command, and which one may be meant."""
    if not name:
        return 'name a command;'
    stems = {stem: command for command, (stem, _) in COMMANDS.items()}
    stem = name[:-3] if name.endswith('.py') else name
    close = get_close_matches(stem.lower(), [*stems, *COMMANDS], 1)
    meant = f'; did you mean `bnet {stems.get(close[0], close[0])}`?' if close else '.'
    return f'there is no command {name!r}{meant}'


def _package() -> Path:
    spec = find_spec('bnet_mm')  # which imports nothing
    if spec is None or spec.origin is None:
        sys.exit('bnet: error: the package bnet_mm cannot be found: install it again')
    return Path(spec.origin).parent


def _tools() -> Path:
    installed = _package() / '.mim/tools'
    return installed if installed.is_dir() else _package().parent / 'tools'


def _loaded(stem: str, path: Path) -> ModuleType:
    spec = spec_from_file_location(f'bnet_command_{stem}', path)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses and pickle look
    spec.loader.exec_module(module)
    return module


if __name__ == '__main__':
    main()
