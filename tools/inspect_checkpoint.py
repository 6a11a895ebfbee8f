"""Shows what a checkpoint holds: network, norms, kernels, values that should not be there.

tools/inspect_checkpoint.py R50_BNET-5.pth
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bnet_mm.checkpoint import contents_of, inspect_checkpoint, read_checkpoint
from bnet_mm.engine.command_line import parsed
from bnet_mm.reports.checkpoints import inspection_tables
from bnet_mm.reports.table import show


def main() -> None:
    parser = argparse.ArgumentParser(description='Show what a checkpoint holds.')
    parser.add_argument('checkpoint', type=Path, help='.pth, .pt, .tar or .safetensors')
    with parsed(parser) as args:
        contents = contents_of(read_checkpoint(args.checkpoint))
        show(inspection_tables(args.checkpoint, contents, inspect_checkpoint(contents)))


if __name__ == '__main__':
    main()
