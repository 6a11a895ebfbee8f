"""Converts a BNET or BN checkpoint, of any known layout, to what a network of a library loads.

tools/convert_checkpoint.py R50_BNET-5.pth r50_bnet5.pth --verify
tools/convert_checkpoint.py resnet50-11ad3fa6.pth r50_bnet5.pth --k 5
"""

from __future__ import annotations

import argparse
import sys

from bnet_mm.checkpoint import (
    check_target,
    contents_of,
    convert,
    provenance,
    read_checkpoint,
    verify,
    write_checkpoint,
)
from bnet_mm.checkpoint.conversion import DESTINATIONS, SOURCES
from bnet_mm.engine.command_line import parsed
from bnet_mm.errors import InputError
from bnet_mm.reports.checkpoints import conversion_tables, use_it, verification_table
from bnet_mm.reports.table import show

PROGRAM = 'convert_checkpoint.py'


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
        contents = contents_of(read_checkpoint(args.source))
        conversion = convert(contents, args.to, args.what, args.k, args.layout)
        show(conversion_tables(conversion))
        if args.strict and conversion.unexplained:
            raise InputError(
                f'{args.source}: {len(conversion.unexplained)} entries are unexplained, and '
                f'--strict was given: {", ".join(conversion.unexplained[:6])}'
            )
        if args.verify:
            differences = verify(contents.state, conversion)
            show([verification_table(differences)])
            if not all(d.equal for d in differences):
                print(
                    f'{PROGRAM}: the converted network is not equal to the source; nothing was '
                    f'written',
                    file=sys.stderr,
                )
                sys.exit(1)
        if args.dry_run:
            return
        meta = dict(contents.meta, bnet_mm=provenance(args.source, conversion))
        path = write_checkpoint(
            {'meta': meta, 'state_dict': conversion.state}, args.target, args.force
        )
        show([f'wrote {path}', use_it(conversion, path)])


if __name__ == '__main__':
    main()
