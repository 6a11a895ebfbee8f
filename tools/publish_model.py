"""Strips a training's checkpoint for publication and puts its hash into the name.

tools/publish_model.py work_dirs/faster_rcnn_r50_bnet5_fpn_1x/epoch_12.pth faster_rcnn_r50_bnet5.pth
"""

from __future__ import annotations

import argparse

from bnet_mm.checkpoint import publish
from bnet_mm.engine.command_line import parsed
from bnet_mm.reports.checkpoints import dropped_lines


def main() -> None:
    parser = argparse.ArgumentParser(description='Strip a checkpoint for publication.')
    parser.add_argument('source', metavar='SRC', help='checkpoint of a training')
    parser.add_argument('target', metavar='DST', help='the hash goes before its suffix')
    parser.add_argument('--force', action='store_true', help='replace the file if it exists')
    with parsed(parser) as args:
        path, dropped = publish(args.source, args.target, args.force)
    for line in dropped_lines('left out', dropped):
        print(line)
    print(path)


if __name__ == '__main__':
    main()
