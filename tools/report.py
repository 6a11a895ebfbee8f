"""Compares trainings on one page of HTML that opens from disk without a network.

tools/report.py work_dirs/faster_rcnn_r50_bn_fpn_1x work_dirs/faster_rcnn_r50_bnet5_fpn_1x
tools/report.py runs/bn_seed* runs/bnet3_seed* --out seeds.html --skip speed --images street.jpg
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bnet_mm.engine.command_line import parsed
from bnet_mm.reports.page import SECTIONS, write_report

CONFIGS = Path(__file__).resolve().parent.parent / 'configs'


def main() -> None:
    parser = argparse.ArgumentParser(description='Compare trainings on one page.')
    parser.add_argument(
        'runs', nargs='+', metavar='RUN', help='work dirs; the first is compared with'
    )
    parser.add_argument('--out', type=Path, default='report.html', help='default: report.html')
    parser.add_argument(
        '--images', nargs='+', type=Path, default=[],
        help='images or videos to look at (default: the first three of the test set)',
    )  # fmt: skip
    parser.add_argument('--skip', nargs='+', choices=SECTIONS, default=[], help='leave these out')
    parser.add_argument(
        '--parts', type=Path, metavar='FOLDER',
        help='of results that are kept, to go on from (default: <out>.parts)',
    )  # fmt: skip
    with parsed(parser) as args:
        folder = args.parts or args.out.parent / f'{args.out.name}.parts'
        try:
            write_report(args.runs, args.out, CONFIGS, folder, args.images, args.skip, _say)
        except KeyboardInterrupt:
            _say(f'interrupted; the same command goes on with what is kept in {folder}')
            sys.exit(130)
        print(args.out)


def _say(text: str) -> None:
    print(f'[report] {text}', file=sys.stderr, flush=True)


if __name__ == '__main__':
    main()
