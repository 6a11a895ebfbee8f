"""The exception for wrong input from a user, and the commands that its sentences name."""

from __future__ import annotations

import sys


class InputError(ValueError):
    """Something the user gave is wrong: an argument, a config entry, a file, a missing package.

    The message is one sentence that says what was wrong, where it was found and what to do. The
    command lines print it without a traceback and exit with 2.
    """


class ExplainedError(InputError):
    """A library's error (its `__cause__`), and a sentence on what in the input may have caused it.

    The command lines print the error's traceback, then the sentence, and exit with 2.
    """


def program(stem: str) -> str:
    """Returns how to call a program of `tools/`, in the way that the running one was called.

    Args:
        stem: of its file. Where the command `bnet` was used there may be no `tools/`.
    """
    if not sys.argv[0].startswith('bnet '):
        return f'python tools/{stem}.py'
    from bnet_command import COMMANDS

    return 'bnet ' + next(name for name, (file, _) in COMMANDS.items() if file == stem)
