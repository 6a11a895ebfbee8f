"""Draws small labelled datasets in the layouts of real ones.

tools/make_demo_data.py coco --out data        # writes data/coco
tools/make_demo_data.py all --out data         # data/coco, cityscapes, imagenet, ...
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bnet_mm.demo import (
    write_cityscapes,
    write_coco,
    write_imagenet,
    write_ucf101,
    write_voc,
)
from bnet_mm.engine.command_line import parsed, positive

# What to call, and the dataset's place below --out in the stock configs.
LAYOUTS = {
    'coco': (write_coco, 'coco'),
    'cityscapes': (write_cityscapes, 'cityscapes'),
    'voc': (write_voc, 'VOCdevkit/VOC2012'),
    'ucf101': (write_ucf101, 'ucf101'),
    'imagenet': (write_imagenet, 'imagenet'),
}


def main() -> None:
    parser = argparse.ArgumentParser(description='Draw a small labelled dataset.')
    parser.add_argument(
        'layout', choices=[*LAYOUTS, 'all'], help='the dataset whose layout to write'
    )
    parser.add_argument('--out', default='data', help='parent folder (default: data)')
    parser.add_argument('--train', type=positive, help='training images or clips')
    parser.add_argument('--val', type=positive, help='validation images or clips')
    parser.add_argument('--seed', type=int, default=0)
    with parsed(parser) as args:
        counts = {key: getattr(args, key) for key in ('train', 'val') if getattr(args, key)}
        for layout in LAYOUTS if args.layout == 'all' else [args.layout]:
            write, place = LAYOUTS[layout]
            print(write(Path(args.out) / place, **counts, seed=args.seed))


if __name__ == '__main__':
    main()
