"""Prints a config with its bases and options merged, as a config that stands alone.

tools/print_config.py configs/faster_rcnn_r50_bnet5_fpn_1x.py --cfg-options data_root=photos
"""

import argparse

from bnet_mm.engine.command_line import (
    add_config_argument,
    add_config_options,
    exit_on_input_error,
    parse_arguments,
)
from bnet_mm.engine.config import load_config


def main() -> None:
    parser = argparse.ArgumentParser(description='Print a config as it will be used.')
    add_config_argument(parser)
    add_config_options(parser)
    args = parse_arguments(parser)
    with exit_on_input_error('print_config.py'):
        print(load_config(args.config, args.cfg_options).pretty_text)


if __name__ == '__main__':
    main()
