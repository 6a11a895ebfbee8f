"""Measures BNET beside plain batch norm and the paper's two lines, in one interleaved run.

tools/benchmark.py
tools/benchmark.py --only layers --k 3 5 7 --plot cost.png
tools/benchmark.py --only layers --grid --modes training frozen evaluation
tools/benchmark.py --only inference --config configs/faster_rcnn_r50_bnet5_fpn_1x.py --json
tools/benchmark.py --only runtimes --runtimes onnxruntime openvino --int8 --batch 1

Layers need torch alone, training torchvision, runtimes onnx and themselves, and inference the
OpenMMLab libraries.
"""

from __future__ import annotations

import argparse
import os
import sys
from importlib.util import find_spec
from pathlib import Path

import torch

from bnet_mm.benchmark import layers, models
from bnet_mm.benchmark.machine import describe
from bnet_mm.checkpoint.atomic import check_writable, write_whole
from bnet_mm.engine.command_line import add_config_options, add_format, add_shape, parsed, positive
from bnet_mm.errors import InputError
from bnet_mm.kernels import use
from bnet_mm.reports.benchmark import as_json, benchmark_tables, draw, grid_table
from bnet_mm.reports.table import as_markdown, show

PARTS = ('layers', 'training', 'inference', 'runtimes')
RUNTIMES = ('onnxruntime', 'openvino')  # named here, since layers need torch alone
DTYPES = ('float32', 'bfloat16', 'float16')


def main() -> None:
    parser = argparse.ArgumentParser(description='Measure what BNET costs.')
    parser.add_argument(
        '--only', nargs='+', choices=PARTS, help='parts to measure (default: layers and training)'
    )
    parser.add_argument('--config', help='a config, for inference before and after deployment')
    parser.add_argument('--k', nargs='+', type=positive, default=[3, 5, 7], help='kernel sizes')
    parser.add_argument(
        '--map',
        nargs=4,
        type=positive,
        action='append',
        metavar=('N', 'C', 'H', 'W'),
        help="a layer's feature map (default: a ResNet-50's last norms at 1333x800)",
    )
    parser.add_argument(
        '--grid',
        action='store_true',
        help='layers of small and large maps, and BNET over the faster of the two lines on each',
    )
    parser.add_argument('--formats', nargs='+', choices=layers.FORMATS, help='memory formats')
    parser.add_argument(
        '--model', default='resnet50', help='torchvision classifier to train, or to deploy'
    )
    parser.add_argument(
        '--runtimes', nargs='+', choices=RUNTIMES, default=['onnxruntime'], help='to deploy it to'
    )
    parser.add_argument('--int8', action='store_true', help='there in 8 bits, too')
    parser.add_argument(
        '--frozen',
        nargs='+',
        default=[],
        metavar='STAGE',
        help='there with the kernels of these (layer1) as they start, as in frozen stages',
    )
    parser.add_argument('--batch', type=positive, default=8, help='images of a step, or of a run')
    add_shape(parser, 'height and width of images')
    parser.add_argument('--rounds', type=positive, default=9, help='times of each job')
    parser.add_argument('--device', default='cpu', help='cpu or cuda')
    parser.add_argument(
        '--dtype', nargs='+', choices=DTYPES, default=['float32'], help='types of layers'
    )
    parser.add_argument(
        '--modes',
        nargs='+',
        choices=layers.PASSES,
        default=['training'],
        help='layers forward and backward in training or with frozen statistics, or forward alone',
    )
    parser.add_argument(
        '--compiled', action='store_true', help='also layers of the two lines by torch.compile'
    )
    parser.add_argument('--plot', metavar='FILE', help="draw the layers' cost")
    parser.add_argument('--output', metavar='STEM', help='write STEM.json and STEM.md')
    add_format(parser)
    add_config_options(parser)
    with parsed(parser) as args:
        parts = args.only or ['layers', 'training', *(['inference'] if args.config else [])]
        if ('inference' in parts) != bool(args.config):
            parser.error('inference and --config go together')
        if args.plot and 'layers' not in parts:
            parser.error('--plot draws layers: add layers to --only')
        if args.grid and ('layers' not in parts or args.map):
            parser.error('--grid is of layers, and has its own maps')
        maps = layers.GRID if args.grid else args.map or layers.DETECTION_SITES
        formats = tuple(args.formats or layers.FORMATS)
        outputs = [Path(f'{args.output}.{kind}') for kind in ('json', 'md') if args.output]
        for path in outputs:
            check_writable(path)
        if args.device.startswith('cuda') and not torch.cuda.is_available():
            raise InputError('torch finds no CUDA device here: say --device cpu')
        if args.device.startswith('cuda') and 'BNET_MM_KERNELS' not in os.environ:
            use('triton')  # which is what is to be measured
        machine = describe(args.device)
        of_layers, of_models = [], []
        sizes = tuple(dict.fromkeys(args.k))
        if 'layers' in parts:
            for row in layers.layer_costs(
                tuple(map(tuple, maps)),
                *(sizes, formats, args.rounds, args.device),
                [getattr(torch, name) for name in args.dtype],
                *(args.modes, args.compiled),
            ):
                of_layers.append(row)
                _progress(_line(row))
        if 'training' in parts and find_spec('torchvision') is None:
            _progress('training is left out: torchvision is not installed')
        elif 'training' in parts:
            _progress(f'training steps of {args.model}')
            shape = (args.batch, 3, *(args.shape or (224, 224)))
            of_models += models.training_step(
                args.model, sizes, shape, formats, args.rounds, args.device
            )
        if 'inference' in parts:
            _progress(f'inference of {args.config}')
            # Here, since layers need torch alone.
            from bnet_mm.benchmark.inference import inference
            from bnet_mm.engine.config import load_config

            cfg = load_config(args.config, args.cfg_options)
            of_models += inference(
                cfg, Path(args.config).stem, sizes, args.shape, formats, args.rounds, args.device
            )
        if 'runtimes' in parts:
            _progress(f'{args.model} in {", ".join(args.runtimes)}')
            from bnet_mm.benchmark.runtimes import in_runtimes

            shape = (args.batch, 3, *(args.shape or (224, 224)))
            of_models += in_runtimes(
                args.model, sizes, shape, args.runtimes, args.int8, args.rounds, args.frozen
            )
        if args.plot:
            draw(of_layers, args.plot, _title(machine))
    tables = benchmark_tables(of_layers, of_models)
    if args.grid:
        tables.insert(0, grid_table(of_layers))
    data = as_json(machine, of_layers, of_models)
    markdown = '\n\n'.join([_title(machine), *map(as_markdown, tables)])
    if args.output:
        for path, text in zip(outputs, (data, markdown)):
            write_whole(path, lambda part, text=text: part.write_text(text + '\n'))
    if args.json:
        print(data)
    elif args.markdown or find_spec('rich') is None:
        print(markdown)
    else:
        show([_title(machine), *tables], file_width=200)


def _title(machine: dict) -> str:
    where = machine.get('gpu') or f'{machine["cpu"]}, {machine["threads"]} threads'
    return f'{where}, torch {machine["torch"]}, {machine["date"]}'


def _line(row: layers.LayerRow) -> str:
    of_others = {'BNET': row.bnet, 'two lines': row.two_lines, 'compiled': row.two_lines_compiled}
    ratios = [f'{name} {ratio.median:.2f}' for name, ratio in of_others.items() if ratio]
    return (
        f'{row.mode} {row.dtype} {row.memory_format} {row.shape} k={row.k}: BN {row.bn * 1e3:#.4g} '
        f'ms; times BN: {", ".join(ratios)}, copy limit {row.limit:.2f}'
    )


def _progress(text: str) -> None:
    print(f'[benchmark] {text}', file=sys.stderr, flush=True)


if __name__ == '__main__':
    main()
