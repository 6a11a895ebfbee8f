"""Converts a BNET or BN checkpoint, of any known layout, to what a network of a library loads.

tools/convert_checkpoint.py R50_BNET-5.pth r50_bnet5.pth --verify
tools/convert_checkpoint.py resnet50-11ad3fa6.pth r50_bnet5.pth --k 5
tools/convert_checkpoint.py yolox_s.pth yolox_s_bnet5.pth --config yolox_s_bnet5.py --what model
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Callable, Dict, Tuple

from torch import Tensor

from bnet_mm.checkpoint import (
    Contents,
    check_target,
    contents_of,
    convert,
    fit,
    provenance,
    read_checkpoint,
    verify,
    write_checkpoint,
)
from bnet_mm.checkpoint.conversion import DESTINATIONS, SOURCES, origin
from bnet_mm.engine.command_line import parsed
from bnet_mm.errors import InputError
from bnet_mm.reports.checkpoints import conversion_tables, fit_tables, use_it, verification_table
from bnet_mm.reports.table import show

# What is written: the tensors, where they come from, and the line that loads the file.
Written = Tuple[Dict[str, Tensor], Dict[str, str], Callable[[Path], str]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description='Convert a checkpoint. Exit codes: 0 done, 1 not equal (--verify), 2 bad input.'
    )
    parser.add_argument('source', metavar='SRC', help='.pth, .pt, .tar or .safetensors')
    parser.add_argument('target', metavar='DST', help='.pth, .pt or .safetensors')
    parser.add_argument(
        '--to', choices=DESTINATIONS, default='mmdet', help='whose names to write (default: mmdet)'
    )
    parser.add_argument(
        '--what',
        choices=['backbone', 'model'],
        default='backbone',
        help="the backbone alone, for init_cfg (default), or all, for load_from ('backbone.' kept)",
    )
    parser.add_argument(
        '--k', type=int, help='kernel size of the result: BN becomes BNET, 1 makes BNET plain BN'
    )
    parser.add_argument(
        '--config',
        help='fit any network to the norms of this config, BN to BNET or back, in place of --to '
        'and --k',
    )
    parser.add_argument(
        '--prefix', default='', help='take what is below it: student.backbone. for example'
    )
    parser.add_argument('--ema', action='store_true', help='take the averaged copy of the weights')
    parser.add_argument(
        '--from', dest='layout', choices=SOURCES, help='insist on this layout of the source'
    )
    parser.add_argument(
        '--verify', action='store_true', help='compare the outputs of both networks; write if equal'
    )
    parser.add_argument('--strict', action='store_true', help='refuse unexplained entries')
    parser.add_argument('--dry-run', action='store_true', help='report, and write nothing')
    parser.add_argument('--force', action='store_true', help='replace DST if it exists')
    with parsed(parser) as args:
        if not args.dry_run:
            check_target(args.target, args.force)
        contents = contents_of(read_checkpoint(args.source), args.prefix, args.ema)
        if args.config:
            state, found, use = fit_to_config(args, contents)
        else:
            state, found, use = convert_names(args, contents)
        if args.dry_run:
            return
        meta = dict(contents.meta, bnet_mm=found)
        path = write_checkpoint({'meta': meta, 'state_dict': state}, args.target, args.force)
        show([f'wrote {path}', use(path)])


def convert_names(args: argparse.Namespace, contents: Contents) -> Written:
    """Converts a residual network from one library's names to another's."""
    conversion = convert(contents, args.to, args.what, args.k, args.layout)
    show(conversion_tables(conversion))
    check_left(args, conversion.unexplained)
    if args.verify:
        differences = verify(contents.state, conversion)
        show([verification_table(differences)])
        if not all(d.equal for d in differences):
            print(
                f'{Path(sys.argv[0]).name}: the converted network is not equal to the source; '
                f'nothing was written',
                file=sys.stderr,
            )
            sys.exit(1)
    return conversion.state, provenance(args.source, conversion), partial(use_it, conversion)


def fit_to_config(args: argparse.Namespace, contents: Contents) -> Written:
    """Fits a file of any network to the model of a config."""
    given = [f'--{name}' for name in ('k', 'layout', 'verify') if getattr(args, name)]
    if given:
        raise InputError(
            f'{given[0].replace("layout", "from")} is for residual networks without --config: the '
            f"config says what the network's norms are"
        )
    from bnet_mm.engine.config import load_config
    from bnet_mm.openmmlab.models import build_model

    model = build_model(load_config(args.config))
    if args.what == 'backbone':
        model = getattr(model, 'backbone', model)
    fitted = fit(contents.state, model)
    show(fit_tables(fitted, model))
    check_left(args, fitted.left)
    entry = 'init_cfg' if args.what == 'backbone' else 'load_from'
    found = origin(args.source, network=type(model).__name__, config=Path(args.config).name)
    return fitted.state, found, lambda path: f'{entry} of {args.config}: {path}'


def check_left(args: argparse.Namespace, left: list[str]) -> None:
    if args.strict and left:
        raise InputError(
            f'{args.source}: {len(left)} entries are unexplained, and --strict was given: '
            f'{", ".join(left[:6])}'
        )


if __name__ == '__main__':
    main()
