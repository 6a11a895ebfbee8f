"""Writes one row of docs/compatibility.md: run by the row's own Python, after its tests.

python tests/compat/report.py ROW RESULTS.xml docs/compatibility.md
"""

from __future__ import annotations

import datetime
import platform
import re
import sys
from collections import Counter
from importlib import metadata
from pathlib import Path
from xml.etree import ElementTree

LIBRARIES = (
    'mmengine',
    'mmcv',
    'mmdet',
    'mmdetection',
    'mmsegmentation',
    'mmaction2',
    'mmpretrain',
)
START, END = '<!-- rows: written by tests/compat/run.sh -->', '<!-- end of the rows -->'
HEAD = """
| row | Python | torch | numpy | libraries | day | passed | skipped | failed |
|---|---|---|---|---|---|---|---|---|
"""


def version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def libraries() -> str:
    names = (name for library in LIBRARIES for name in (library, f'onedl-{library}'))
    return ', '.join(f'{name} {found}' for name in names if (found := version(name))) or 'none'


def outcome(results: Path) -> tuple[str, list[str]]:
    """Returns the cells of what passed, was skipped and failed, and the reasons of the skipped."""
    if not results.is_file():
        return '- | - | did not start', []
    cases = list(ElementTree.parse(results).iter('testcase'))
    reasons = Counter(
        # Up to the colon: what an exception says beyond it has paths and addresses of a machine.
        re.split(r':(?:\s|$)', reason.get('message', ''))[0]
        for case in cases
        for reason in case.findall('skipped')
    )
    skipped = sum(reasons.values())
    failed = [case for case in cases if {'failure', 'error'} & {part.tag for part in case}]
    counts = f'{len(cases) - skipped - len(failed)} | {skipped} | {len(failed)}'
    return counts, [f'{n} x {reason}' for reason, n in reasons.most_common()]


def main(row: str, results: Path, page: Path) -> None:
    text = page.read_text(encoding='utf-8')
    before, _, rest = text.partition(START)
    written, _, after = rest.partition(END)
    lines = {
        found[1]: line
        for line in written.splitlines()
        if (found := re.match(r'\| (\w+) \| \d', line))
    }
    skips = {
        found[1]: line for line in written.splitlines() if (found := re.match(r'- (\w+): ', line))
    }
    counts, reasons = outcome(results)
    lines[row] = (
        f'| {row} | {platform.python_version()} | {version("torch")} | {version("numpy")} | '
        f'{libraries()} | {datetime.date.today()} | {counts} |'
    )
    skips[row] = f'- {row}: ' + ('; '.join(reasons) or 'nothing')
    written = (
        HEAD + '\n'.join(lines.values()) + '\n\nSkipped:\n\n' + '\n'.join(skips.values()) + '\n\n'
    )
    page.write_text(before + START + '\n' + written.lstrip('\n') + END + after, encoding='utf-8')


if __name__ == '__main__':
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
