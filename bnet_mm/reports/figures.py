"""Figures of matplotlib, written whole or not at all, or put into a page."""

import base64
import textwrap
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from matplotlib import rc_context
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure

from bnet_mm.checkpoint.atomic import check_writable, write_whole
from bnet_mm.errors import InputError

DOTS_PER_INCH = 140
POINTS_PER_INCH = 72
# Of matplotlib's font, by its size: of most letters' width.
LETTER = 0.65


def check_figure(file: Path) -> None:
    """Raises InputError unless a figure can be written to `file`: before the work, not after."""
    formats = FigureCanvasBase.get_supported_filetypes()
    if file.suffix.removeprefix('.').lower() not in formats:
        raise InputError(
            f'{file} is no figure: its suffix must be one of .{", .".join(sorted(formats))}'
        )
    check_writable(file)


def wrapped(title: str, inches: float, fontsize: int) -> str:
    """Returns a title in lines that are no wider than its panel, words broken where need be."""
    letters = max(int(inches * POINTS_PER_INCH / (LETTER * fontsize)), 1)
    return '\n'.join(textwrap.fill(line, letters) for line in title.splitlines())


def save_figure(figure: Figure, file: Path) -> None:
    """Writes `figure` to `file`, whose suffix says the format (.png, .pdf, .svg).

    Raises:
        InputError: it cannot be written, or the format is none of matplotlib's.
    """
    kind = file.suffix.removeprefix('.')
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, lambda part: figure.savefig(part, format=kind, dpi=DOTS_PER_INCH))
    except (OSError, ValueError) as error:
        raise InputError(f'{file} cannot be written: {error}') from error


def embed_figure(figure: Figure) -> str:
    """Returns a figure as the `data:` address of an SVG, whose text needs no font."""
    file = BytesIO()
    # Without the date and with names of its own that do not change, it is the same each time.
    with rc_context({'svg.fonttype': 'path', 'svg.hashsalt': 'bnet_mm'}):
        figure.savefig(file, format='svg', metadata={'Date': None})
    return f'data:image/svg+xml;base64,{base64.b64encode(file.getvalue()).decode()}'


def embed_picture(picture: np.ndarray) -> str:
    """Returns `(H, W, 3)` bytes, RGB, as the `data:` address of a JPEG."""
    _, encoded = cv2.imencode('.jpg', picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
    return f'data:image/jpeg;base64,{base64.b64encode(encoded.tobytes()).decode()}'
