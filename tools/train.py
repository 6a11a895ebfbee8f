"""Trains a model of any OpenMMLab library from its config.

tools/train.py configs/faster_rcnn_r50_bnet5_fpn_1x.py --work-dir work_dirs/r50_bnet5
"""

import argparse

from bnet_mm.engine.command_line import (
    add_config_argument,
    add_run_arguments,
    exit_on_input_error,
    parse_run_arguments,
)
from bnet_mm.engine.config import load_config, set_run_options
from bnet_mm.engine.launch import train
from bnet_mm.engine.processes import cpu_processes


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Train a model from its config.')
    add_config_argument(parser)
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='go on from this checkpoint; without a path, from the last one in the work dir',
    )
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help="scale the learning rate by this run's batch size over the config's",
    )
    parser.add_argument('--no-validate', action='store_true', help='do not evaluate while training')
    parser.add_argument('--seed', type=int, help='random seed (default: a random one, logged)')
    add_run_arguments(parser)
    return parse_run_arguments(parser)


def main() -> None:
    args = parse_args()
    with exit_on_input_error('train.py'):
        cfg = load_config(args.config, args.cfg_options)
        set_run_options(
            cfg,
            config_path=args.config,
            work_dir=args.work_dir,
            launcher=args.launcher,
            amp=args.amp,
            auto_scale_lr=args.auto_scale_lr,
            validate=not args.no_validate,
            seed=args.seed,
        )
        with cpu_processes(cfg):
            train(cfg, resume=args.resume)


if __name__ == '__main__':
    main()
