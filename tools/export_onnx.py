"""Writes a model, or the backbone of any model, as ONNX or for OpenVINO, and compares it there.

tools/export_onnx.py pspnet.py iter_40000.pth pspnet.onnx --static --shape 512 1024
tools/export_onnx.py configs/faster_rcnn_r50_bnet5_fpn_1x.py epoch_12.pth r50.onnx --part backbone
tools/export_onnx.py configs/faster_rcnn_r50_bnet5_fpn_1x.py epoch_12.pth whole.onnx --image a.jpg
tools/export_onnx.py pspnet.py iter_40000.pth pspnet.xml --half
"""

from __future__ import annotations

from bnet_mm.deploy.onnx import export_onnx
from bnet_mm.deploy.runtimes import RUNTIMES, usual_runtime
from bnet_mm.engine.command_line import add_shape, config_parser, parsed
from bnet_mm.engine.config import load_config
from bnet_mm.kernels.versions import HAS_DYNAMO_ONNX
from bnet_mm.reports.deployment import export_lines


def main() -> None:
    parser = config_parser('Export a model to ONNX.')
    parser.add_argument('checkpoint', help="its weights, or 'none' for the initial ones")
    parser.add_argument('out', help=".onnx file, or OpenVINO's .xml")
    parser.add_argument('--part', choices=['model', 'detector', 'backbone'], default='model')
    parser.add_argument(
        '--runtime',
        choices=RUNTIMES,
        help='in which the file is compared (default: onnxruntime; of .xml, openvino)',
    )
    fewer_bits = parser.add_mutually_exclusive_group()
    fewer_bits.add_argument(
        '--int8', metavar='FOLDER', help='weights and maps in 8 bits, ranges from these photos'
    )
    fewer_bits.add_argument(
        '--half', action='store_true', help="weights of OpenVINO's file in 16 bits"
    )
    parser.add_argument('--opset', type=int, help="version of ONNX's operators")
    parser.add_argument('--image', help='a photo to compare a detector on')
    add_shape(parser, 'traced at this size')
    parser.add_argument('--static', action='store_true', help='height and width stay as traced')
    parser.add_argument(
        '--no-dynamo',
        action='store_true',
        help="torch's older exporter, the only one before torch 2.6",
    )
    with parsed(parser) as args:
        cfg = load_config(args.config, args.cfg_options)
        runtime = args.runtime or usual_runtime(args.out)
        checkpoint = None if args.checkpoint == 'none' else args.checkpoint
        if args.part == 'detector' or (args.part == 'model' and cfg.default_scope == 'mmdet'):
            from bnet_mm.deploy.detectors import export_detector

            written = export_detector(
                *(cfg, checkpoint, args.out, args.shape, args.image),
                *(runtime, args.int8, args.opset, not args.static, args.half),
            )
        else:
            written = export_onnx(
                cfg,
                checkpoint,
                args.out,
                part=args.part,
                shape=args.shape,
                free_size=not args.static,
                dynamo=HAS_DYNAMO_ONNX and not args.no_dynamo,
                runtime=runtime,
                int8=args.int8,
                opset=args.opset,
                half=args.half,
            )
    for line in export_lines(written, runtime):
        print(line)


if __name__ == '__main__':
    main()
