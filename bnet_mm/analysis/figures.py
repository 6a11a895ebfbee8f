"""Writes figures of matplotlib whole or not at all."""

from pathlib import Path

from matplotlib.figure import Figure

from bnet_mm.errors import InputError
from bnet_mm.whole_file import write_whole

DOTS_PER_INCH = 140


def save_figure(figure: Figure, file: Path) -> None:
    """Writes `figure` to `file`, whose suffix says the format (.png, .pdf, .svg).

    Raises:
        InputError: it cannot be written, or the format is none of matplotlib's.
    """
    kind = file.suffix.removeprefix('.') or 'png'
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, lambda part: figure.savefig(part, format=kind, dpi=DOTS_PER_INCH))
    except (OSError, ValueError) as error:
        raise InputError(f'{file} cannot be written: {error}') from error
