"""Evaluates a checkpoint of any OpenMMLab library's model.

tools/test.py configs/faster_rcnn_r50_bnet5_fpn_1x.py work_dirs/r50_bnet5/epoch_12.pth
"""

import argparse
import os

from mmengine.config import DictAction

from bnet_mm.engine.config import load_config, set_drawing, set_run_options
from bnet_mm.engine.launch import exit_on_input_error, test


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Evaluate a checkpoint.')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='file or URL of the weights')
    parser.add_argument(
        '--work-dir', help='folder of logs and metrics (default: work_dirs/<name of the config>)'
    )
    parser.add_argument('--out', metavar='FILE.pkl', help='write the predictions to this file')
    parser.add_argument('--show', action='store_true', help='show predictions in a window')
    parser.add_argument(
        '--show-dir', help='write painted pictures here, below <work dir>/<time stamp>'
    )
    parser.add_argument('--wait-time', type=float, default=2, help='seconds a window stays')
    parser.add_argument('--tta', action='store_true', help='test time augmentation')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='change entries of the config; data_root=FOLDER moves every dataset',
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
    with exit_on_input_error('test.py'):
        cfg = load_config(args.config, args.cfg_options)
        set_run_options(
            cfg, config_path=args.config, work_dir=args.work_dir, launcher=args.launcher
        )
        if args.show or args.show_dir:
            set_drawing(cfg, show=args.show, show_dir=args.show_dir, wait_time=args.wait_time)
        test(cfg, args.checkpoint, out=args.out, tta=args.tta)


if __name__ == '__main__':
    main()
