"""Prints a script with which a shell completes the commands of `bnet` and their options.

bnet completion bash > ~/.local/share/bash-completion/completions/bnet
bnet completion zsh > ~/.zfunc/_bnet        # a folder of fpath
bnet completion fish > ~/.config/fish/completions/bnet.fish
"""

from __future__ import annotations

import argparse
import sys

from bnet_command import COMMANDS, load
from bnet_mm.engine.command_line import parsed, parser_of
from bnet_mm.engine.completion import SHELLS, script


def main() -> None:
    parser = argparse.ArgumentParser(description='Print a script that completes `bnet`.')
    parser.add_argument('shell', choices=SHELLS)
    with parsed(parser) as args:
        parsers = {}
        for name in COMMANDS:
            try:
                parsers[name] = parser_of(load(name).main)
            except ImportError as error:
                print(f'the options of `bnet {name}` are left out: {error}', file=sys.stderr)
                parsers[name] = argparse.ArgumentParser()
        summaries = {name: summary for name, (_, summary) in COMMANDS.items()}
        print(script(args.shell, parsers, summaries), end='')


if __name__ == '__main__':
    main()
