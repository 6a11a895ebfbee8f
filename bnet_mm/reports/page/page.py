"""The page: sections of tables and figures, in one file of HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, PackageLoader

from bnet_mm.checkpoint.atomic import write_whole
from bnet_mm.errors import InputError
from bnet_mm.reports.table import Table


@dataclass(frozen=True)
class Figure:
    """A figure.

    Attributes:
        address: `data:` address; the page has no other.
        caption: below it, and read out in its place.
    """

    address: str
    caption: str


@dataclass(frozen=True)
class Gallery:
    """Figures that belong together.

    Attributes:
        title: above them, or ''.
        figures: in reading order.
        small: several in a row even on a phone; for figures without text.
    """

    title: str
    figures: Sequence[Figure]
    small: bool = False


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        title: its heading.
        text: what it shows and how to read it.
        tables, galleries: what it shows.
        missing: what could not be made, and why.
    """

    title: str
    text: str
    tables: Sequence[Table] = ()
    galleries: Sequence[Gallery] = ()
    missing: Sequence[str] = field(default=())


def write_page(title: str, facts: Sequence[str], sections: Sequence[Section], file: Path) -> None:
    """Writes the page, whole or not at all.

    Args:
        title: of the page.
        facts: below the title: when and with what it was made.
        sections: its parts.
        file: where to.

    Raises:
        InputError: it cannot be written.
    """
    environment = Environment(
        loader=PackageLoader('bnet_mm.reports.page', '.'),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template('page.html').render(title=title, facts=facts, sections=sections)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, lambda part: part.write_text(text, encoding='utf-8'))
    except OSError as error:
        raise InputError(f'{file} cannot be written: {error}') from error
