"""Folds a trained model for inference and writes it as a file of tensors and plain text.

tools/deploy.py configs/faster_rcnn_r50_bnet5_fpn_1x.py epoch_12.pth detector.pth
tools/deploy.py pspnet.py iter_40000.pth segmentor.pth --shape 512 1024 --image street.png
"""

from __future__ import annotations

from bnet_mm.deploy.deployment import deploy
from bnet_mm.engine.command_line import add_shape, config_parser, parsed
from bnet_mm.engine.config import load_config
from bnet_mm.reports.deployment import fusion_tables
from bnet_mm.reports.table import show


def main() -> None:
    parser = config_parser('Fold a model for inference.')
    parser.add_argument('checkpoint', help='its trained weights')
    parser.add_argument('out', help='.pth, .pt or .safetensors file')
    add_shape(parser, 'size of what it is checked on')
    parser.add_argument('--image', help='an image to check it on, beside random values')
    parser.add_argument('--device', default='cpu', help='where it is checked (default: cpu)')
    parser.add_argument(
        '--plain', action='store_true', help="leave torch's own modules alone, for other exporters"
    )
    parser.add_argument('--force', action='store_true', help='replace OUT if it exists')
    with parsed(parser) as args:
        fusion = deploy(
            load_config(args.config, args.cfg_options),
            args.checkpoint,
            args.out,
            args.shape,
            args.image,
            args.device,
            args.force,
            args.plain,
        )
        show([*fusion_tables(fusion), f'wrote {args.out}'])


if __name__ == '__main__':
    main()
