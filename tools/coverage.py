"""What one line gives in every backbone of the stock configs, and in timm's families, as a table.

python tools/coverage.py --markdown > docs/coverage.md
"""

from __future__ import annotations

import argparse
import logging
import sys
from importlib.util import find_spec

import bnet_mm  # noqa: F401
from bnet_mm.analysis.coverage import ERROR, FAMILIES, stock_backbones, try_backbone, try_timm
from bnet_mm.engine.command_line import parsed
from bnet_mm.reports.coverage import coverage_tables
from bnet_mm.reports.table import as_markdown, show

LIBRARIES = ('mmdet', 'mmseg', 'mmaction', 'mmpretrain', 'timm')


def main() -> None:
    parser = argparse.ArgumentParser(description='Try BNET on every stock backbone.')
    parser.add_argument('libraries', nargs='*', help=f'of {", ".join(LIBRARIES)}; default: all')
    parser.add_argument('--markdown', action='store_true', help='a page of Markdown')
    with parsed(parser) as args:
        unknown = sorted(set(args.libraries) - set(LIBRARIES))
        if unknown:
            parser.error(f'{unknown[0]} is none of {", ".join(LIBRARIES)}')
        logging.disable(logging.WARNING)
        rows = []
        for library in args.libraries or LIBRARIES:
            if find_spec(library) is None:
                print(f'{library} is not installed', file=sys.stderr)
            elif library == 'timm':
                rows += [try_timm(name) for name in FAMILIES]
            else:
                rows += [try_backbone(library, *found) for found in stock_backbones(library)]
    tables = coverage_tables(rows)
    if args.markdown:
        print('\n\n'.join(t if isinstance(t, str) else as_markdown(t) for t in tables))
    else:
        show(tables)
    sys.exit(any(row.outcome == ERROR for row in rows))


if __name__ == '__main__':
    main()
