"""Trains a model of any OpenMMLab library from its config.

tools/train.py configs/faster_rcnn_r50_bnet5_fpn_1x.py --work-dir work_dirs/r50_bnet5
"""

import argparse
import os

from mmengine.config import DictAction

from bnet_mm.engine.config import load_config, set_run_options
from bnet_mm.engine.launch import exit_on_input_error, train


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Train a model from its config.')
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--work-dir',
        help='folder of logs and checkpoints (default: work_dirs/<name of the config>)',
    )
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
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='change entries of the config: train_cfg.max_epochs=2 "list=[(1,2),(3,4)]"; '
        'data_root=FOLDER moves every dataset',
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    try:
        args = parser.parse_args()
    except ValueError as error:  # DictAction's
        parser.error(f'--cfg-options takes KEY=VALUE pairs: {error}')
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


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
        train(cfg, resume=args.resume)


if __name__ == '__main__':
    main()
