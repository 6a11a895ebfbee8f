"""Prints a config with its bases and options merged, as a config that stands alone.

tools/print_config.py configs/faster_rcnn_r50_bnet5_fpn_1x.py --cfg-options data_root=photos
"""

from __future__ import annotations

from bnet_mm.engine.command_line import config_parser, parsed
from bnet_mm.engine.config import load_config


def main() -> None:
    parser = config_parser('Print a config as it will be used.')
    with parsed(parser) as args:
        print(load_config(args.config, args.cfg_options).pretty_text)


if __name__ == '__main__':
    main()
