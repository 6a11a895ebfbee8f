"""Trains a model of any OpenMMLab library from its config.

tools/train.py configs/faster_rcnn_r50_bnet5_fpn_1x.py --work-dir work_dirs/r50_bnet5
"""

from __future__ import annotations

from bnet_mm.engine.command_line import add_run_arguments, config_parser, parsed
from bnet_mm.engine.config import load_config, set_run_options
from bnet_mm.engine.launch import train
from bnet_mm.engine.processes import cpu_processes


def main() -> None:
    parser = config_parser('Train a model from its config.')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='resume from this checkpoint; without a path, from the last one in the work dir',
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
    with parsed(parser) as args:
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
