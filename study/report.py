"""Writes the study's tables and figures from its lines of results.

study/report.py                        # study/results, its README.md and figures
study/report.py --results mine study/results --out /tmp/report
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from bnet_mm.checkpoint.atomic import write_whole
from bnet_mm.engine.command_line import parsed
from bnet_mm.errors import InputError
from bnet_mm.reports.table import as_markdown
from bnet_study.comparing import cells_of, comparisons_of
from bnet_study.figures import draw_curves
from bnet_study.records import read_records
from bnet_study.tables import (
    comparisons_table,
    convergence_table,
    kernels_table,
    repeats_table,
    results_table,
    robustness_table,
    times_table,
)

HERE = Path(__file__).resolve().parent
TIMES = 'times.json'
HEAD = """# What the study found

Made by `python study/report.py` from the lines beside this page, not edited by hand. The design,
with what counts as a gain, is in [../README.md](../README.md).
"""


def main() -> None:
    parser = argparse.ArgumentParser(description='Write tables and figures from lines of results.')
    parser.add_argument(
        '--results', type=Path, nargs='+', default=[HERE / 'results'], help='folders of *.jsonl'
    )
    parser.add_argument('--out', type=Path, help='where to (default: the first of these folders)')
    with parsed(parser) as args:
        out = args.out or args.results[0]
        files = [file for folder in args.results for file in sorted(folder.glob('*.jsonl'))]
        records = read_records(files)
        if not records:
            raise InputError(
                f'{args.results[0]} has no lines of results (*.jsonl); run.py makes them'
            )
        times = [
            entry
            for folder in args.results
            if (folder / TIMES).is_file()
            for entry in json.loads((folder / TIMES).read_text())['steps']
        ]
        cells, repeats = cells_of(records)
        tables = [
            comparisons_table(comparisons_of(cells)),
            results_table(cells),
            *([times_table(times)] if times else []),
            convergence_table(cells),
            robustness_table(cells),
            kernels_table(cells),
            *([repeats_table(repeats)] if repeats else []),
        ]
        out.mkdir(parents=True, exist_ok=True)
        figures = draw_curves(cells, times, out)
        summary = f'{len(records)} runs, of {len(cells)} configurations.'
        parts = [HEAD.strip(), summary]
        parts += [f'## {table.title}\n\n{as_markdown(table)}' for table in tables]
        parts += ['## Curves', *(f'![{f.stem}]({f.name})' for f in figures)]
        write_whole(out / 'README.md', lambda part: part.write_text('\n\n'.join(parts) + '\n'))
    print(f'{summary} {out / "README.md"}')


if __name__ == '__main__':
    main()
