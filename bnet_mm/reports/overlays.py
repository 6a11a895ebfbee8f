"""Draws maps over the pictures they belong to."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from bnet_mm.reports.figures import save_figure, wrapped

PANEL = 3.2  # inches of a picture's longer side
NARROWEST = 1.6
OPACITY = 0.65
FONTSIZE = 8
LINE = 0.15  # inches


@dataclass(frozen=True)
class Overlay:
    """A map over a picture.

    Attributes:
        title: what to write above it.
        values: `(h, w)`, of any size; drawn from its least to its most.
    """

    title: str
    values: np.ndarray


@dataclass(frozen=True)
class Row:
    """A picture, and maps over it.

    Attributes:
        title: of the picture.
        picture: `(H, W, 3)` bytes, BGR.
        overlays: its maps.
    """

    title: str
    picture: np.ndarray
    overlays: Sequence[Overlay]


def draw_overlays(rows: Sequence[Row], file: Path) -> None:
    """Writes a sheet: in each row a picture, and beside it the picture below its maps.

    Args:
        rows: one or several; the first picture's shape is that of all panels.
        file: a `.png`, `.pdf` or `.svg`.

    Raises:
        InputError: it cannot be written.
    """
    height, width = rows[0].picture.shape[:2]
    panel = [max(PANEL * side / max(height, width), NARROWEST) for side in (width, height)]
    columns = 1 + max(len(row.overlays) for row in rows)
    titled = [
        [(wrapped(title, panel[0], FONTSIZE), picture) for title, picture in panels_of(row)]
        for row in rows
    ]
    lines = max(title.count('\n') + 1 for row in titled for title, _ in row)
    size = panel[0] * columns, (panel[1] + LINE * (lines + 2)) * len(rows)
    figure = Figure(figsize=size, layout='constrained')
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for axes, row in zip(grid, titled, strict=True):
        for ax in axes:
            ax.set_axis_off()
        for ax, (title, picture) in zip(axes, row, strict=False):
            ax.imshow(picture)
            ax.set_title(title, fontsize=FONTSIZE)
    save_figure(figure, file)


def panels_of(row: Row) -> list[tuple[str, np.ndarray]]:
    """Returns the picture and its maps over it, title and `(H, W, 3)` bytes, RGB, each."""
    picture = cv2.cvtColor(row.picture, cv2.COLOR_BGR2RGB)
    return [(row.title, picture), *((o.title, _blend(row.picture, o)) for o in row.overlays)]


def _blend(picture: np.ndarray, overlay: Overlay) -> np.ndarray:
    """Returns a map in colours over the grey picture, `(H, W, 3)` bytes, RGB."""
    height, width = picture.shape[:2]
    values = overlay.values.astype(np.float32)
    values = (values - values.min()) / max(np.ptp(values), np.finfo(np.float32).tiny)
    smooth = cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR)
    colors = colormaps['inferno'](smooth)[..., :3] * 255
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)[..., None]
    return np.rint(OPACITY * colors + (1 - OPACITY) * grey).astype(np.uint8)
