"""The exception for wrong input from a user."""

from __future__ import annotations


class InputError(ValueError):
    """Something the user gave is wrong: an argument, a config entry, a file, a missing package.

    The message is one sentence that says what was wrong, where it was found and what to do. The
    command lines print it without a traceback and exit with 2.
    """


class ExplainedError(InputError):
    """A library's error (its `__cause__`), and a sentence on what in the input may have caused it.

    The command lines print the error's traceback, then the sentence, and exit with 2.
    """
