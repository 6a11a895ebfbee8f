"""Compares trainings by their work dirs: metrics, differences, seeds, beside the paper's.

tools/compare.py work_dirs/resnet20_bn_cifar10 work_dirs/resnet20_bnet3_cifar10 --plot curves.png
tools/compare.py runs/bn_seed* runs/bnet3_seed*     # work dirs of one config count as its seeds
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bnet_mm.analysis.comparison import compare, group_runs, papers_figures
from bnet_mm.analysis.runs import read_run
from bnet_mm.engine.command_line import parsed
from bnet_mm.reports.comparison import as_json, comparison_table
from bnet_mm.reports.curves import plot_curves
from bnet_mm.reports.table import show

CONFIGS = Path(__file__).resolve().parent.parent / 'configs'


def main() -> None:
    parser = argparse.ArgumentParser(description='Compare trainings by their work dirs.')
    parser.add_argument(
        'runs', nargs='+', metavar='RUN', help="work dirs; the first one's config is the reference"
    )
    parser.add_argument('--plot', type=Path, metavar='FILE', help='curves as .png, .pdf or .svg')
    parser.add_argument('--metric', help='what to draw beside the loss (default: the main metric)')
    parser.add_argument('--json', action='store_true', help='print JSON')
    with parsed(parser) as args:
        groups = group_runs([read_run(run) for run in args.runs])
        table = compare(groups, CONFIGS)
        if args.plot:
            plot_curves(groups, args.plot, args.metric)
    if args.json:
        print(as_json(table))
    else:
        show([comparison_table(table, papers_figures(CONFIGS))])
    if args.plot and not args.json:
        print(args.plot)


if __name__ == '__main__':
    main()
