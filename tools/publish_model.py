"""Strips a training's checkpoint for publication and puts its hash into the name.

tools/publish_model.py work_dirs/faster_rcnn_r50_bnet5_fpn_1x/epoch_12.pth faster_rcnn_r50_bnet5.pth
tools/publish_model.py epoch_12.pth my_detector --hub --license mit --metric "box AP=38.2"
"""

from __future__ import annotations

import argparse

from bnet_mm.checkpoint import contents_of, publish, read_checkpoint, save_pretrained
from bnet_mm.engine.command_line import parsed
from bnet_mm.reports.checkpoints import dropped_lines


def main() -> None:
    parser = argparse.ArgumentParser(description='Strip a checkpoint for publication.')
    parser.add_argument('source', metavar='SRC', help='checkpoint of a training')
    parser.add_argument('target', metavar='DST', help='file; the hash goes before its suffix')
    parser.add_argument('--force', action='store_true', help='replace files that exist')
    parser.add_argument(
        '--hub', action='store_true', help='DST is a folder: safetensors, and a model card'
    )
    parser.add_argument('--license', help="of the weights, for the card: 'apache-2.0'")
    parser.add_argument(
        '--metric',
        action='append',
        type=_metric,
        default=[],
        metavar='NAME=VALUE',
        help='for the card; may be given several times',
    )
    with parsed(parser) as args:
        if not args.hub and (args.license or args.metric):
            parser.error('--license and --metric are for the card that --hub writes')
        if args.hub:
            checkpoint = read_checkpoint(args.source)
            dropped = contents_of(checkpoint).dropped
            path = save_pretrained(
                *(checkpoint, args.target, args.license),
                metrics=dict(args.metric),
                force=args.force,
            )
        else:
            path, dropped = publish(args.source, args.target, args.force)
    for line in dropped_lines('left out', dropped):
        print(line)
    print(path)


def _metric(text: str) -> tuple[str, float]:
    name, _, value = text.rpartition('=')
    try:
        if name:
            return name.strip(), float(value)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f'{text!r} is not NAME=VALUE with a number')


if __name__ == '__main__':
    main()
