"""Evaluates a checkpoint of any OpenMMLab library's model.

tools/test.py configs/faster_rcnn_r50_bnet5_fpn_1x.py work_dirs/r50_bnet5/epoch_12.pth
tools/test.py configs/faster_rcnn_r50_bnet5_fpn_1x.py whole.onnx --runtime openvino
tools/test.py configs/faster_rcnn_r50_bnet5_fpn_1x.py epoch_12.pth --graph backbone.onnx
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from bnet_mm.deploy.runtimes import GRAPHS, RUNTIMES, usual_runtime
from bnet_mm.deploy.stand_in import stand_in
from bnet_mm.engine.command_line import add_run_arguments, config_parser, parsed
from bnet_mm.engine.config import load_config, set_drawing, set_run_options
from bnet_mm.engine.launch import test
from bnet_mm.engine.processes import cpu_processes


def main() -> None:
    parser = config_parser('Evaluate a checkpoint.')
    parser.add_argument(
        'checkpoint', help='file or URL of the weights, or a graph of export_onnx.py'
    )
    parser.add_argument('--out', metavar='FILE.pkl', help='write the predictions to this file')
    parser.add_argument('--show', action='store_true', help='show predictions in a window')
    parser.add_argument(
        '--show-dir', help='write images with predictions here, below <work dir>/<time stamp>'
    )
    parser.add_argument('--wait-time', type=float, default=2, help='seconds a window stays open')
    parser.add_argument(
        '--graph', metavar='GRAPH', help='let this compute, the backbone or the whole network'
    )
    parser.add_argument(
        '--runtime', choices=RUNTIMES, help='for a graph (default: onnxruntime; of .xml, openvino)'
    )
    parser.add_argument('--tta', action='store_true', help='test time augmentation')
    add_run_arguments(parser)
    with parsed(parser) as args:
        whole = Path(args.checkpoint).suffix in GRAPHS
        graph = args.checkpoint if whole else args.graph
        checkpoint = None if whole else args.checkpoint
        if whole and args.graph:
            parser.error(f'--graph beside {args.checkpoint}: name one graph')
        if args.runtime and not graph:
            parser.error('--runtime is for a graph, an .onnx or .xml file')
        prepare = graph and partial(
            stand_in, file=graph, runtime=args.runtime or usual_runtime(graph), whole=whole
        )
        cfg = load_config(args.config, args.cfg_options)
        set_run_options(
            cfg, config_path=args.config, work_dir=args.work_dir, launcher=args.launcher
        )
        if args.show or args.show_dir:
            set_drawing(cfg, show=args.show, show_dir=args.show_dir, wait_time=args.wait_time)
        with cpu_processes(cfg):
            test(cfg, checkpoint, args.out, args.tta, prepare)


if __name__ == '__main__':
    main()
