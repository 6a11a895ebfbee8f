"""The command lines of `tools/`: options that they share, and how they end on wrong input."""

from __future__ import annotations

import argparse
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from bnet_mm.errors import ExplainedError, InputError

# Whether a program is called for its parser alone.
_ASKED = ContextVar('asked', default=False)


def positive(text: str) -> int:
    """Returns a number of 1 or more: the type of an argument that counts or measures."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f'{text} is not 1 or more')
    return number


def config_parser(description: str) -> argparse.ArgumentParser:
    """Returns a parser whose first argument is a config, with options that change its entries."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('config', help='config file')
    add_config_options(parser)
    return parser


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Adds `--cfg-options`, changes to the config."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=_ConfigOptions,
        metavar='KEY=VALUE',
        help='change entries of the config: train_cfg.max_epochs=2 "list=[(1,2),(3,4)]"; '
        'data_root=FOLDER moves every dataset',
    )


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the work dir and the launcher of a training or a test."""
    parser.add_argument(
        '--work-dir', help='folder of logs and results (default: work_dirs/<name of the config>)'
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)


def add_shape(parser: argparse.ArgumentParser, help: str) -> None:
    """Adds `--shape H W`, which is None or a tuple."""
    parser.add_argument(
        '--shape', nargs=2, type=positive, action=_Tuple, metavar=('H', 'W'), help=help
    )


def add_format(parser: argparse.ArgumentParser) -> None:
    """Adds `--markdown` and `--json`, of which a command line takes one."""
    formats = parser.add_mutually_exclusive_group()
    formats.add_argument('--markdown', action='store_true', help='print Markdown tables')
    formats.add_argument('--json', action='store_true', help='print JSON')


@contextmanager
def parsed(parser: argparse.ArgumentParser) -> Iterator[argparse.Namespace]:
    """Parses the command line for what follows, and ends the program on wrong input.

    That is an InputError, or an option that is not KEY=VALUE: one sentence and exit code 2. What a
    library said before is shown where the sentence explains it, and always with `--traceback`.
    """
    parser.add_argument(
        '--traceback', action='store_true', help='show where in the code wrong input was met'
    )
    if _ASKED.get():
        raise _ParserAsked(parser)
    try:
        args = parser.parse_args()
    except ValueError as error:  # DictAction's
        parser.error(f'--cfg-options takes KEY=VALUE pairs: {error}')
    if 'local_rank' in args:
        os.environ.setdefault('LOCAL_RANK', str(args.local_rank))  # for torch.distributed
    try:
        yield args
    except InputError as error:
        if args.traceback:
            traceback.print_exception(type(error), error, error.__traceback__)
        elif isinstance(error, ExplainedError) and error.__cause__ is not None:
            cause = error.__cause__
            traceback.print_exception(type(cause), cause, cause.__traceback__)
        parser.exit(2, f'{parser.prog}: error: {error}\n')


def parser_of(program: Callable[[], None]) -> argparse.ArgumentParser:
    """Returns the parser of a program, which is what it gives to `parsed`; it does nothing else.

    Args:
        program: the `main` of a tool.

    Example:
        >>> def main():
        ...     with parsed(config_parser('Print a config.')) as args:
        ...         print(args.config)
        >>> parser_of(main).description
        'Print a config.'
    """
    asked = _ASKED.set(True)
    try:
        program()
    except _ParserAsked as found:
        return found.parser
    finally:
        _ASKED.reset(asked)
    raise TypeError(f'{program.__module__} parses nothing by `parsed`')


class _ParserAsked(Exception):  # noqa: N818  (no error)
    def __init__(self, parser: argparse.ArgumentParser):
        self.parser = parser


class _ConfigOptions(argparse.Action):
    """mmengine's DictAction, imported where the option is used: not all tools need mmengine."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        from mmengine.config import DictAction

        action = DictAction(self.option_strings, self.dest, nargs=self.nargs)
        action(parser, namespace, values, option_string)


class _Tuple(argparse.Action):
    def __call__(self, parser, namespace, values, option_string=None) -> None:
        setattr(namespace, self.dest, tuple(values))
