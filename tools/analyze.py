"""Shows what BNET does in a trained model; docs/analysis says how to read what it shows.

tools/analyze.py heatmap configs/faster_rcnn_r50_bnet3_fpn_1x.py epoch_12.pth street.jpg
tools/analyze.py attention resnet50_bnet3.py bnet.pth resnet50_bn.py bn.pth street.jpg
tools/analyze.py kernels configs/resnet50_bnet3_100e_in1k.py epoch_100.pth
tools/analyze.py errors bn.bbox.json bnet3.bbox.json --annotations instances_val2017.json
tools/analyze.py curves work_dirs/faster_rcnn_r50_bn_fpn_1x work_dirs/faster_rcnn_r50_bnet5_fpn_1x
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bnet_mm.analysis.comparison import group_runs
from bnet_mm.analysis.layers import chosen_layers
from bnet_mm.analysis.learnt_kernels import analyze_kernels, enhances
from bnet_mm.analysis.pairs import leading_pairs, pairs_of
from bnet_mm.analysis.runs import read_run
from bnet_mm.analysis.tide import errors_of_files, errors_of_models
from bnet_mm.engine.command_line import add_config_options, add_shape, parsed, positive
from bnet_mm.errors import InputError
from bnet_mm.reports import errors as error_sheets
from bnet_mm.reports import kernels as kernel_sheets
from bnet_mm.reports.curves import plot_curves
from bnet_mm.reports.figures import check_figure
from bnet_mm.reports.maps import Looking, write_attention, write_heat_maps
from bnet_mm.reports.table import show

PAIRS = 'CONFIG CHECKPOINT'


def heatmap(args: argparse.Namespace) -> None:
    [pair] = pairs_of([args.config, args.checkpoint], args.cfg_options)
    model = pair.load()
    layers = chosen_layers(model, args.layers)
    if not enhances(model):
        print(
            f'{Path(sys.argv[0]).name}: the kernels in {args.checkpoint} are zero outside their '
            f"centres and enhance nothing: is it batch norm's, or not trained yet?",
            file=sys.stderr,
        )
    looking = Looking(layers, args.shape, args.frames)
    for file in write_heat_maps(model, args.images, args.out, looking):
        print(file)


def attention(args: argparse.Namespace) -> None:
    pairs, images = leading_pairs(args.models, args.cfg_options)
    if not images:
        raise InputError('attention takes pairs of CONFIG and CHECKPOINT, and then images')
    looking = Looking(args.layers, args.shape, args.frames, args.label)
    for file in write_attention(pairs, images, args.out, looking):
        print(file)


def kernels(args: argparse.Namespace) -> None:
    check_figure(args.out)
    found, fields = analyze_kernels(pairs_of(args.models, args.cfg_options), args.size)
    if args.json:
        print(kernel_sheets.as_json(found, fields))
    else:
        show(kernel_sheets.kernel_table(name, of_model) for name, of_model in found.items())
        for name, field in fields.items():
            print(f'effective receptive field of {name}: {field.size:.0f} pixels')
    kernel_sheets.draw_kernels(found, fields, args.out)
    if not args.json:
        print(args.out)


def errors(args: argparse.Namespace) -> None:
    check_figure(args.out)
    if args.annotations:
        rows = errors_of_files(args.detectors, args.annotations)
    elif all(name.endswith('.json') for name in args.detectors):
        raise InputError('result files are compared with annotations: add --annotations FILE')
    else:
        rows = errors_of_models(pairs_of(args.detectors, args.cfg_options), args.keep)
    if args.json:
        print(error_sheets.as_json(rows))
    else:
        show([error_sheets.error_table(rows)], file_width=160)
    error_sheets.draw_errors(rows, args.out)
    if not args.json:
        print(args.out)


def curves(args: argparse.Namespace) -> None:
    check_figure(args.out)
    groups = group_runs([read_run(run) for run in args.runs])
    plot_curves(groups, args.out, args.metric, args.over == 'time')
    print(args.out)


def main() -> None:
    parser = argparse.ArgumentParser(description='Show what BNET does in a trained model.')
    commands = parser.add_subparsers(required=True, metavar='COMMAND')

    heat = commands.add_parser('heatmap', help='where BNET enhances (paper, figure 4)')
    heat.add_argument('config', help='config file')
    heat.add_argument('checkpoint', help='its trained weights')
    heat.add_argument('images', nargs='+', type=Path, metavar='IMAGE', help='images or videos')
    heat.add_argument('--layers', nargs='+', help='BNETs (default: the last one of each stage)')
    _add_image_arguments(heat, 'heatmaps')
    heat.set_defaults(run=heatmap)

    look = commands.add_parser('attention', help='where networks look (paper, figure 5)')
    look.add_argument(
        'models', nargs='+', metavar=f'{PAIRS} [...] IMAGE',
        help='one or more models, each a row, and then images or videos',
    )  # fmt: skip
    look.add_argument('--layers', nargs='+', help='modules (default: last block of each stage)')
    look.add_argument(
        '--class', dest='label', type=int, metavar='INDEX',
        help="the class to look for (default: each model's own answer)",
    )  # fmt: skip
    _add_image_arguments(look, 'attention')
    look.set_defaults(run=attention)

    taps = commands.add_parser('kernels', help='what the taps learnt, and how far the network sees')
    taps.add_argument(
        'models', nargs='+', metavar=PAIRS,
        help='one or more models, BNET ones and, for their receptive fields, BN ones',
    )  # fmt: skip
    taps.add_argument('--size', type=positive, default=224, help='of the images (default: 224)')
    _add_figure_arguments(taps, 'kernels.png')
    add_config_options(taps)
    taps.set_defaults(run=kernels)

    wrong = commands.add_parser('errors', help="a detector's errors (table 14 and figure 6)")
    wrong.add_argument(
        'detectors', nargs='+', metavar=PAIRS,
        help='one or more detectors to test, the first one to compare with; or, with '
        '--annotations, COCO result files',
    )  # fmt: skip
    wrong.add_argument(
        '--annotations', metavar='FILE', help='COCO annotations that result files are compared with'
    )
    wrong.add_argument(
        '--keep', type=Path, metavar='FOLDER', help='keep the detections there, as result files'
    )
    _add_figure_arguments(wrong, 'errors.png')
    add_config_options(wrong)
    wrong.set_defaults(run=errors)

    course = commands.add_parser('curves', help='loss and metric of trainings (figures 2 and 3)')
    course.add_argument('runs', nargs='+', metavar='RUN', help='work dirs, of running ones too')
    course.add_argument('--out', type=Path, default='curves.png', help='.png, .pdf or .svg')
    course.add_argument('--metric', help='beside the loss (default: the main metric)')
    course.add_argument('--over', choices=['epochs', 'time'], default='epochs', help='the axis')
    course.set_defaults(run=curves)

    with parsed(parser) as args:
        try:
            args.run(args)
        except KeyboardInterrupt:
            sys.exit(130)


def _add_image_arguments(parser: argparse.ArgumentParser, folder: str) -> None:
    parser.add_argument('--out', type=Path, default=folder, help=f'folder (default: {folder})')
    add_shape(parser, 'resize the images to this')
    parser.add_argument('--frames', type=positive, default=3, help='of a video (default: 3)')
    add_config_options(parser)


def _add_figure_arguments(parser: argparse.ArgumentParser, file: str) -> None:
    parser.add_argument('--out', type=Path, default=file, help='.png, .pdf or .svg')
    parser.add_argument('--json', action='store_true', help='print JSON')


if __name__ == '__main__':
    main()
