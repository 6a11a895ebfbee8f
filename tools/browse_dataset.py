"""Draws samples as the model of a config gets them: images with boxes and masks, and clips.

tools/browse_dataset.py configs/pspnet_r50_bnet3_d8_512x1024_40k_cityscapes.py --out seen
"""

from __future__ import annotations

from pathlib import Path

from bnet_mm.engine.browse import browse
from bnet_mm.engine.command_line import config_parser, parsed, positive
from bnet_mm.engine.config import load_config


def main() -> None:
    parser = config_parser('Draw samples as they leave the pipeline.')
    parser.add_argument('--out', help='folder of the images (default: work_dirs/browse/<config>)')
    parser.add_argument('--stage', choices=['train', 'val', 'test'], default='train')
    parser.add_argument('--count', type=positive, default=16, help='samples to draw (default: 16)')
    parser.add_argument('--seed', type=int, default=0, help='seed of the random steps (default: 0)')
    with parsed(parser) as args:
        cfg = load_config(args.config, args.cfg_options)
        out = args.out or Path('work_dirs/browse') / Path(args.config).stem / args.stage
        for path in browse(cfg, args.stage, out, args.count, args.seed):
            print(path)


if __name__ == '__main__':
    main()
