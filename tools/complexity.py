"""Counts parameters and multiply-accumulates of configs, beside their BN baselines and the paper.

tools/complexity.py configs/faster_rcnn_r50_bnet5_fpn_1x.py
tools/complexity.py --paper --markdown
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bnet_mm.analysis.complexity import config_costs, paper_costs
from bnet_mm.engine.command_line import add_config_options, add_format, add_shape, parsed
from bnet_mm.reports.costs import as_json, cost_table
from bnet_mm.reports.table import as_markdown, show

CONFIGS = Path(__file__).resolve().parent.parent / 'configs'


def main() -> None:
    parser = argparse.ArgumentParser(description='Count what models cost.')
    parser.add_argument('configs', nargs='*', metavar='CONFIG', help='config files')
    parser.add_argument(
        '--paper', action='store_true', help="every cost column of the paper's tables beside ours"
    )
    add_shape(parser, 'height and width of the input')
    add_config_options(parser)
    add_format(parser)
    with parsed(parser) as args:
        if bool(args.configs) == args.paper:
            parser.error("name config files, or --paper for the paper's tables")
        if args.paper:
            rows = list(paper_costs(CONFIGS))
        else:
            rows = [config_costs(path, args.shape, args.cfg_options) for path in args.configs]
    if args.json:
        print(as_json(rows))
    elif args.markdown:
        print(as_markdown(cost_table(rows, wide=True)))
    else:
        show([cost_table(rows)])


if __name__ == '__main__':
    main()
