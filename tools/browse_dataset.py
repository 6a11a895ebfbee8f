"""Draws what the model of a config is fed: pictures with boxes and masks, and clips.

tools/browse_dataset.py configs/pspnet_r50_bnet3_d8_512x1024_40k_cityscapes.py --out seen
"""

import argparse
from pathlib import Path

from bnet_mm.engine.browse import browse
from bnet_mm.engine.command_line import (
    add_config_argument,
    add_config_options,
    exit_on_input_error,
    parse_arguments,
    positive,
)
from bnet_mm.engine.config import load_config


def main() -> None:
    parser = argparse.ArgumentParser(description='Draw samples as they leave the pipeline.')
    add_config_argument(parser)
    parser.add_argument('--out', help='folder of the pictures (default: work_dirs/browse/<config>)')
    parser.add_argument('--stage', choices=['train', 'val', 'test'], default='train')
    parser.add_argument('--count', type=positive, default=16, help='samples to draw (default: 16)')
    parser.add_argument('--seed', type=int, default=0, help='of the random steps (default: 0)')
    add_config_options(parser)
    args = parse_arguments(parser)
    with exit_on_input_error('browse_dataset.py'):
        cfg = load_config(args.config, args.cfg_options)
        out = args.out or Path('work_dirs/browse') / Path(args.config).stem / args.stage
        for path in browse(cfg, args.stage, out, args.count, args.seed):
            print(path)


if __name__ == '__main__':
    main()
