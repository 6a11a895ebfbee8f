"""The arguments that training and testing share, with mmdet's names and meanings."""

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.config import DictAction

from bnet_mm.errors import InputError


def positive(text: str) -> int:
    """Returns a number of 1 or more: the type of an argument that counts or measures."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f'{text} is not 1 or more')
    return number


def add_config_argument(parser: argparse.ArgumentParser) -> None:
    """Adds the config, which stands first."""
    parser.add_argument('config', help='config file')


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Adds `--cfg-options`, changes to the config."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='change entries of the config: train_cfg.max_epochs=2 "list=[(1,2),(3,4)]"; '
        'data_root=FOLDER moves every dataset',
    )


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what every run has: work dir, changes to the config, launcher."""
    parser.add_argument(
        '--work-dir',
        help='folder of logs and results (default: work_dirs/<name of the config>)',
    )
    add_config_options(parser)
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)


def parse_arguments(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parses the command line; ends it with a sentence where an option is not KEY=VALUE."""
    try:
        return parser.parse_args()
    except ValueError as error:  # DictAction's
        parser.error(f'--cfg-options takes KEY=VALUE pairs: {error}')


def parse_run_arguments(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parses the command line and hands the local rank to torch.distributed."""
    args = parse_arguments(parser)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


@contextmanager
def exit_on_input_error(program: str) -> Iterator[None]:
    """Ends a command line with the sentence of an InputError and exit code 2."""
    try:
        yield
    except InputError as error:
        print(f'{program}: error: {error}', file=sys.stderr)
        sys.exit(2)
