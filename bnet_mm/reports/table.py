"""The one table type, with its renderers for the terminal and Markdown (HTML: page/page.html)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # Markdown and HTML need torch alone
    from rich.table import Table as RichTable

# What a column of figures begins with.
FIGURE = re.compile(r'[-+]?[\d.]+|-?$')


@dataclass(frozen=True)
class Table:
    """Text in rows and columns.

    Attributes:
        columns: headings; none where the first column says what a row is about.
        rows: as many cells each. What follows a line break in a cell is of less weight.
        title: above the table, or ''.
        caption: what the figures are, or ''.

    Examples:
        >>> print(as_markdown(Table(('norm', 'AP'), [('BN', '37.5'), ('BNET-5', '40.1\\n+2.6')])))
        | norm | AP |
        | --- | ---: |
        | BN | 37.5 |
        | BNET-5 | 40.1<br>+2.6 |
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ''
    caption: str = ''

    def transposed(self) -> Table:
        """Returns the table with a column for each row, headed by its first cell."""
        columns, *rows = zip(self.columns, *self.rows)
        return replace(self, columns=columns, rows=rows)

    def are_figures(self) -> list[bool]:
        """Tells of each column whether it holds figures, which end at the right."""
        cells = zip(*self.rows) if self.rows else [()] * len(self.columns)
        return [all(map(FIGURE.match, column)) and any(column) for column in cells]


def as_rich(table: Table) -> RichTable:
    """Returns a table for a terminal."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table as RichTable

    shown = RichTable(
        title=escape(table.title) or None,
        caption=escape(table.caption) or None,
        title_justify='left',
        caption_justify='left',
        show_header=bool(table.columns),
        box=box.SIMPLE_HEAD if table.columns else None,
        pad_edge=False,
        show_edge=False,
    )
    for i, figures in enumerate(table.are_figures()):
        heading = escape(table.columns[i]) if table.columns else ''
        shown.add_column(heading, justify='right' if figures else 'left', overflow='fold')
    for row in table.rows:
        lines = [cell.split('\n') for cell in row]
        shown.add_row(*('\n'.join([escape(a), *(f'[dim]{escape(b)}[/]' for b in rest)])
                        for a, *rest in lines))  # fmt: skip
    return shown


def as_markdown(table: Table) -> str:
    """Returns a table in Markdown, its caption below."""
    rules = ['---:' if figures else '---' for figures in table.are_figures()]
    rows = [[cell.replace('\n', '<br>') for cell in row] for row in table.rows]
    lines = [f'| {" | ".join(row)} |' for row in (table.columns, rules, *rows)]
    return '\n'.join(lines) + (f'\n\n{table.caption}' if table.caption else '')


def show(parts: Iterable[Table | str], file_width: int | None = None, wrap: bool = False) -> None:
    """Prints tables and sentences, in Markdown where rich is not installed (mmengine brings it).

    Args:
        parts: in their order.
        file_width: columns where the output is not a terminal; 80 by default.
        wrap: whether sentences are broken at the width; else they are one line each, to be copied.
    """
    try:
        from rich.console import Console
        from rich.markup import escape
    except ImportError:
        for part in parts:
            print(as_markdown(part) if isinstance(part, Table) else part)
        return
    console = Console(highlight=False)
    if file_width is not None and not console.is_terminal:
        console.width = file_width
    for part in parts:
        if isinstance(part, Table):
            console.print(as_rich(part))
        else:
            console.print(escape(part), soft_wrap=not wrap)
