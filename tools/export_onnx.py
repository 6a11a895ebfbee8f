"""Writes a model, or the backbone of any model, as ONNX and checks it with onnxruntime.

tools/export_onnx.py pspnet.py iter_40000.pth pspnet.onnx --static --shape 512 1024
tools/export_onnx.py configs/faster_rcnn_r50_bnet5_fpn_1x.py epoch_12.pth r50.onnx --part backbone
"""

import argparse

from bnet_mm.deploy.onnx import export_onnx
from bnet_mm.engine.command_line import (
    add_config_argument,
    add_config_options,
    exit_on_input_error,
    parse_arguments,
    positive,
)
from bnet_mm.engine.config import load_config


def main() -> None:
    parser = argparse.ArgumentParser(description='Export a model to ONNX.')
    add_config_argument(parser)
    parser.add_argument('checkpoint', help="its weights, or 'none' for the initial ones")
    parser.add_argument('out', help='.onnx file')
    parser.add_argument('--part', choices=['model', 'backbone'], default='model')
    parser.add_argument(
        '--shape', nargs=2, type=positive, metavar=('H', 'W'), help='traced at this size'
    )
    parser.add_argument('--static', action='store_true', help='height and width stay as traced')
    parser.add_argument('--no-dynamo', action='store_true', help="torch's older exporter")
    add_config_options(parser)
    args = parse_arguments(parser)
    with exit_on_input_error('export_onnx.py'):
        written = export_onnx(
            load_config(args.config, args.cfg_options),
            None if args.checkpoint == 'none' else args.checkpoint,
            args.out,
            part=args.part,
            shape=tuple(args.shape) if args.shape else None,
            free_size=not args.static,
            dynamo=not args.no_dynamo,
        )
    checked = (
        'onnxruntime is not installed: not compared'
        if written.difference is None
        else f'onnxruntime differs by {written.difference:.1e} of the largest value'
    )
    print(f'{written.path}: {", ".join(written.outputs)}; {checked}')


if __name__ == '__main__':
    main()
