"""Shows what a checkpoint holds: network, norms, kernels, values that should not be there.

tools/inspect_checkpoint.py R50_BNET-5.pth
"""

import argparse
from pathlib import Path

from rich.console import Console

from bnet_mm.checkpoint import contents_of, inspect_checkpoint, read_checkpoint
from bnet_mm.engine.command_line import parsed
from bnet_mm.reports.checkpoints import inspection_tables


def main() -> None:
    parser = argparse.ArgumentParser(description='Show what a checkpoint holds.')
    parser.add_argument('checkpoint', type=Path, help='.pth, .pt, .tar or .safetensors')
    with parsed(parser) as args:
        console = Console(soft_wrap=True, highlight=False)
        contents = contents_of(read_checkpoint(args.checkpoint))
        for part in inspection_tables(args.checkpoint, contents, inspect_checkpoint(contents)):
            console.print(part)


if __name__ == '__main__':
    main()
