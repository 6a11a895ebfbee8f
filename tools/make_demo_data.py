"""Draws a small labelled dataset in the layout of a real one.

tools/make_demo_data.py coco --out data        # writes data/coco
"""

import argparse
from pathlib import Path

from bnet_mm.demo import write_coco
from bnet_mm.engine.command_line import exit_on_input_error


def main() -> None:
    parser = argparse.ArgumentParser(description='Draw a small labelled dataset.')
    parser.add_argument('layout', choices=['coco'], help='the dataset whose layout to write')
    parser.add_argument('--out', default='data', help='parent folder (default: data)')
    parser.add_argument('--train', type=int, default=480, help='training pictures (default: 480)')
    parser.add_argument('--val', type=int, default=60, help='validation pictures (default: 60)')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    with exit_on_input_error('make_demo_data.py'):
        folder = write_coco(Path(args.out) / args.layout, args.train, args.val, args.seed)
    print(f'{folder}: {args.train} training and {args.val} validation pictures')


if __name__ == '__main__':
    main()
