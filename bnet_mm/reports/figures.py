"""Figures of matplotlib, written whole or not at all or put into a page, and maps over images."""

from __future__ import annotations

import base64
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure

from bnet_mm.checkpoint.atomic import check_writable, write_whole
from bnet_mm.errors import InputError
from bnet_mm.text import without_prefix

DOTS_PER_INCH = 140
POINTS_PER_INCH = 72
# Of matplotlib's font, by its size: of most letters' width.
LETTER = 0.65
PANEL, NARROWEST = 3.2, 1.6  # inches of an image's longer side; of any
OPACITY = 0.65
FONTSIZE = 8
LINE = 0.15  # inches


@dataclass(frozen=True)
class Row:
    """An image, and maps over it.

    Attributes:
        title: of the image.
        image: `(H, W, 3)` bytes, BGR.
        maps: title and values `(h, w)`, of any size, of each map; drawn from its least to its most.
    """

    title: str
    image: np.ndarray
    maps: Sequence[tuple[str, np.ndarray]]

    def panels(self) -> list[tuple[str, np.ndarray]]:
        """Returns the image and its maps over it, title and `(H, W, 3)` bytes, RGB, each."""
        plain = cv2.cvtColor(self.image, cv2.COLOR_BGR2RGB)
        return [(self.title, plain), *((t, _blend(self.image, v)) for t, v in self.maps)]


def check_figure(file: Path) -> None:
    """Raises InputError unless a figure can be written to `file`: before the work, not after."""
    formats = FigureCanvasBase.get_supported_filetypes()
    if without_prefix(file.suffix, '.').lower() not in formats:
        raise InputError(
            f'{file} is not a figure: its suffix must be one of .{", .".join(sorted(formats))}'
        )
    check_writable(file)


def wrapped(title: str, inches: float, fontsize: int) -> str:
    """Returns a title in lines that are no wider than its panel, words broken where need be."""
    letters = max(int(inches * POINTS_PER_INCH / (LETTER * fontsize)), 1)
    return '\n'.join(textwrap.fill(line, letters) for line in title.splitlines())


def save_figure(figure: Figure, file: Path) -> None:
    """Writes `figure` to `file`, whose suffix says the format (.png, .pdf, .svg).

    Raises:
        InputError: it cannot be written, or matplotlib does not know the format.
    """
    kind = without_prefix(file.suffix, '.')
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, lambda part: figure.savefig(part, format=kind, dpi=DOTS_PER_INCH))
    except (OSError, ValueError) as error:
        raise InputError(f'{file} cannot be written: {error}') from error


def draw_rows(rows: Sequence[Row], file: Path) -> None:
    """Writes a sheet: in each row an image, and beside it the image below its maps.

    Args:
        rows: one or several; the first image's shape is that of all panels.
        file: a `.png`, `.pdf` or `.svg`.

    Raises:
        InputError: it cannot be written.
    """
    height, width = rows[0].image.shape[:2]
    panel = [max(PANEL * side / max(height, width), NARROWEST) for side in (width, height)]
    columns = 1 + max(len(row.maps) for row in rows)
    titled = [
        [(wrapped(title, panel[0], FONTSIZE), image) for title, image in row.panels()]
        for row in rows
    ]
    lines = max(title.count('\n') + 1 for row in titled for title, _ in row)
    size = panel[0] * columns, (panel[1] + LINE * (lines + 2)) * len(rows)
    figure = Figure(figsize=size, layout='constrained')
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for axes, row in zip(grid, titled):
        for ax in axes:
            ax.set_axis_off()
        for ax, (title, image) in zip(axes, row):
            ax.imshow(image)
            ax.set_title(title, fontsize=FONTSIZE)
    save_figure(figure, file)


def embed_figure(figure: Figure) -> str:
    """Returns a figure as the `data:` address of an SVG, whose text needs no font."""
    file = BytesIO()
    # Without the date and with names of its own that do not change, it is the same each time.
    with rc_context({'svg.fonttype': 'path', 'svg.hashsalt': 'bnet_mm'}):
        figure.savefig(file, format='svg', metadata={'Date': None})
    return f'data:image/svg+xml;base64,{base64.b64encode(file.getvalue()).decode()}'


def embed_image(image: np.ndarray) -> str:
    """Returns `(H, W, 3)` bytes, RGB, as the `data:` address of a JPEG."""
    _, encoded = cv2.imencode('.jpg', image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
    return f'data:image/jpeg;base64,{base64.b64encode(encoded.tobytes()).decode()}'


def _blend(image: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Returns a map in colours over the grey image, `(H, W, 3)` bytes, RGB."""
    height, width = image.shape[:2]
    values = values.astype(np.float32)
    values = (values - values.min()) / max(np.ptp(values), np.finfo(np.float32).tiny)
    smooth = cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR)
    colors = colormaps['inferno'](smooth)[..., :3] * 255
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)[..., None]
    return np.rint(OPACITY * colors + (1 - OPACITY) * grey).astype(np.uint8)
