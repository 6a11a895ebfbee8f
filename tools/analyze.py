"""Shows what BNET does in a trained model.

tools/analyze.py heatmap configs/faster_rcnn_r50_bnet3_fpn_1x.py epoch_12.pth street.jpg
tools/analyze.py kernels configs/resnet50_bnet3_100e_in1k.py epoch_100.pth
tools/analyze.py curves work_dirs/faster_rcnn_r50_bn_fpn_1x work_dirs/faster_rcnn_r50_bnet5_fpn_1x
"""

import argparse
from pathlib import Path

from rich.console import Console

from bnet_mm.analysis.comparison import group_runs
from bnet_mm.analysis.curves import plot_curves
from bnet_mm.analysis.heatmap import chosen_layers, heat_maps
from bnet_mm.analysis.kernel_sheets import as_json, as_rich, draw_kernels
from bnet_mm.analysis.learnt_kernels import learnt_kernels, receptive_field
from bnet_mm.analysis.overlays import draw_heat_maps, of_usual_size, pictures_of
from bnet_mm.analysis.runs import read_run
from bnet_mm.deploy.sample import as_input
from bnet_mm.engine.command_line import (
    add_config_argument,
    add_config_options,
    exit_on_input_error,
    parse_arguments,
    positive,
)
from bnet_mm.engine.config import load_config
from bnet_mm.engine.trained import load_trained
from bnet_mm.errors import InputError


def heatmap(args: argparse.Namespace) -> None:
    """Writes a sheet for each picture, and prints its name."""
    model, _ = load_trained(load_config(args.config, args.cfg_options), args.checkpoint)
    layers = chosen_layers(model, args.layers)
    shape = tuple(args.shape) if args.shape else None
    for image in args.images:
        for name, picture in pictures_of(image, args.frames):
            sized = of_usual_size(picture, shape)
            maps = heat_maps(model, as_input(sized, model), layers)
            file = args.out / f'{name}_heatmap.png'
            draw_heat_maps(sized, maps, file)
            print(file)


def kernels(args: argparse.Namespace) -> None:
    """Prints a table of the first model's kernels, writes the sheet and prints its name."""
    if len(args.models) % 2:
        raise InputError('kernels takes pairs of CONFIG and CHECKPOINT')
    fields, found = {}, None
    for config, checkpoint in zip(args.models[::2], args.models[1::2], strict=True):
        model, _ = load_trained(load_config(config, args.cfg_options), checkpoint)
        if found is None:
            chosen_layers(model, None)  # which says so where there is no BNET
            found = learnt_kernels(model)
        name = Path(config).stem if Path(config).stem not in fields else str(checkpoint)
        fields[name] = receptive_field(model, args.size)
    draw_kernels(found, fields, args.out)
    if args.json:
        print(as_json(found, fields))
        return
    Console().print(as_rich(found))
    for name, field in fields.items():
        print(f'effective receptive field of {name}: {field.size:.0f} pixels')
    print(args.out)


def curves(args: argparse.Namespace) -> None:
    """Writes one picture of all runs, and prints its name."""
    groups = group_runs([read_run(run) for run in args.runs])
    plot_curves(groups, args.out, args.metric, args.over == 'time')
    print(args.out)


def main() -> None:
    parser = argparse.ArgumentParser(description='Show what BNET does in a trained model.')
    commands = parser.add_subparsers(required=True, metavar='COMMAND')
    heat = commands.add_parser('heatmap', help='where BNET enhances (paper, figure 4)')
    add_config_argument(heat)
    heat.add_argument('checkpoint', help='its trained weights')
    heat.add_argument('images', nargs='+', type=Path, metavar='IMAGE', help='pictures or videos')
    heat.add_argument(
        '--out', type=Path, default=Path('heatmaps'), help='folder (default: heatmaps)'
    )
    heat.add_argument('--layers', nargs='+', help='BNETs (default: the last one of each stage)')
    heat.add_argument('--shape', nargs=2, type=positive, metavar=('H', 'W'), help='resize to this')
    heat.add_argument('--frames', type=positive, default=3, help='of a video (default: 3)')
    add_config_options(heat)
    heat.set_defaults(run=heatmap)
    taps = commands.add_parser('kernels', help='what the taps learnt, and how far the network sees')
    taps.add_argument(
        'models', nargs='+', metavar='CONFIG CHECKPOINT',
        help='of a BNET model; further pairs, its BN twin say, for their receptive fields',
    )  # fmt: skip
    taps.add_argument('--out', type=Path, default='kernels.png', help='.png, .pdf or .svg')
    taps.add_argument('--size', type=positive, default=224, help='of the pictures (default: 224)')
    taps.add_argument('--json', action='store_true', help='print JSON')
    add_config_options(taps)
    taps.set_defaults(run=kernels)
    course = commands.add_parser('curves', help='loss and metric of trainings (figures 2 and 3)')
    course.add_argument('runs', nargs='+', metavar='RUN', help='work dirs, of running ones too')
    course.add_argument('--out', type=Path, default='curves.png', help='.png, .pdf or .svg')
    course.add_argument('--metric', help='beside the loss (default: the main metric)')
    course.add_argument('--over', choices=['epochs', 'time'], default='epochs', help='the axis')
    course.set_defaults(run=curves)
    args = parse_arguments(parser)
    with exit_on_input_error('analyze.py'):
        args.run(args)


if __name__ == '__main__':
    main()
