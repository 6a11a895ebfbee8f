"""Writes a model, or the backbone of any model, as ONNX and checks it with onnxruntime.

tools/export_onnx.py pspnet.py iter_40000.pth pspnet.onnx --static --shape 512 1024
tools/export_onnx.py configs/faster_rcnn_r50_bnet5_fpn_1x.py epoch_12.pth r50.onnx --part backbone
"""

from __future__ import annotations

from bnet_mm.deploy.onnx import export_onnx
from bnet_mm.engine.command_line import add_shape, config_parser, parsed
from bnet_mm.engine.config import load_config
from bnet_mm.kernels.versions import HAS_DYNAMO_ONNX


def main() -> None:
    parser = config_parser('Export a model to ONNX.')
    parser.add_argument('checkpoint', help="its weights, or 'none' for the initial ones")
    parser.add_argument('out', help='.onnx file')
    parser.add_argument('--part', choices=['model', 'backbone'], default='model')
    add_shape(parser, 'traced at this size')
    parser.add_argument('--static', action='store_true', help='height and width stay as traced')
    parser.add_argument(
        '--no-dynamo',
        action='store_true',
        help="torch's older exporter, the only one before torch 2.6",
    )
    with parsed(parser) as args:
        written = export_onnx(
            load_config(args.config, args.cfg_options),
            None if args.checkpoint == 'none' else args.checkpoint,
            args.out,
            part=args.part,
            shape=args.shape,
            free_size=not args.static,
            dynamo=HAS_DYNAMO_ONNX and not args.no_dynamo,
        )
    checked = (
        'onnxruntime is not installed: not compared'
        if written.difference is None
        else f'onnxruntime differs by {written.difference:.1e} of the largest value'
    )
    print(f'{written.path}: {", ".join(written.outputs)}; {checked}')


if __name__ == '__main__':
    main()
