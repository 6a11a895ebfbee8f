"""Sections of pictures: where BNET enhances, and where the networks look."""

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

import numpy as np

from bnet_mm.analysis.layers import NoBNETError, chosen_layers
from bnet_mm.analysis.pictures import no_longer_than
from bnet_mm.engine.data.failures import build_dataset
from bnet_mm.engine.data.samples import files_of
from bnet_mm.errors import InputError
from bnet_mm.openmmlab.models import load_model
from bnet_mm.reports.attention import attention_rows
from bnet_mm.reports.figures import embed_picture
from bnet_mm.reports.heatmaps import heat_map_rows
from bnet_mm.reports.overlays import Row, panels_of
from bnet_mm.reports.page.compared import Compared
from bnet_mm.reports.page.page import Gallery, Picture, Section
from bnet_mm.reports.page.parts import Parts, file_mark

SAMPLES = 3
LONGEST = 400  # pixels of a picture on the page


def sample_images(compared: Sequence[Compared], named: Sequence[Path]) -> list[Path]:
    """Returns the pictures to look at: those that were named, or the test set's first.

    Raises:
        InputError: none were named, and there is no test set here.
    """
    if named:
        return list(named)
    found = files_of(build_dataset(compared[0].cfg.copy(), 'test'), SAMPLES)
    if not found:
        raise InputError('the test set names no files of pictures: name some with --images')
    return [Path(file) for file in found]


def heat_map_section(compared: Sequence[Compared], images: Sequence[Path], parts: Parts) -> Section:
    """Returns the heat maps of every network that has BNETs (figure 4)."""
    galleries, missing, plain = [], [], []
    for c in compared:
        try:
            galleries += _kept(parts, 'heatmaps', f'heat maps of {c.label}', c, images, _heat_rows)
        except NoBNETError as error:
            plain.append(f'{c.label}: {error}')
        except InputError as error:
            missing.append(f'{c.label}: {error}')
    if not galleries:  # beside one that has BNET, that others have none is no news
        missing += plain
    text = (
        'For the last BNET of each stage: in how many channels the output at a position is above '
        'the line that fits output to input best. Bright is where BNET enhances most, in its own '
        'scale; plain batch norm is flat. The bright frame is the border, where kernels see zeros.'
    )
    return Section('Heat maps', text, galleries=galleries, missing=missing)


def attention_section(
    compared: Sequence[Compared], images: Sequence[Path], parts: Parts
) -> Section:
    """Returns the attention maps of all networks (figure 5)."""
    of_models, missing = [], []
    for c in compared:
        what = f'attention maps of {c.label}'
        try:
            of_models.append(_kept(parts, 'attention', what, c, images, _attention_rows))
        except InputError as error:
            missing.append(f'{c.label}: {error}')
    # Picture by picture, the networks below one another; of clips one can show more frames.
    by_picture = zip_longest(*of_models)
    ordered = [gallery for of_picture in by_picture for gallery in of_picture if gallery]
    text = (
        'The last block of each stage: evidence for the class that the network itself finds '
        '(Grad-CAM) or, of detectors, activation.'
    )
    return Section('Attention', text, galleries=ordered, missing=missing)


def _kept(parts: Parts, name: str, what: str, c: Compared, images: Sequence[Path], rows_of):
    """Returns a gallery for each picture, made or kept from before."""
    for image in images:
        if not image.is_file():
            raise InputError(f'there is no picture {image}')
    found = parts.get(
        name,
        [c.mark(), [[str(image), file_mark(image)] for image in images]],
        f'{what} (seconds)',
        lambda: [[name, _panels(row)] for image in images for name, row in rows_of(c, image)],
    )
    return [
        Gallery(f'{name}, {c.label} after {c.trained_for()}', [Picture(*p) for p in panels], True)
        for name, panels in found
    ]


def _heat_rows(c: Compared, image: Path) -> list[tuple[str, Row]]:
    model = c.pair.load()
    return heat_map_rows(model, chosen_layers(model, None), image)


def _attention_rows(c: Compared, image: Path) -> list[tuple[str, Row]]:
    model, contents = load_model(c.cfg.copy(), c.checkpoint)
    return attention_rows(c.cfg, model, contents, image)


def _panels(row: Row) -> list[list[str]]:
    """Returns address and caption of the picture and of each map."""
    return [
        [embed_picture(_small(panel)), title.replace('\n', ', ')] for title, panel in panels_of(row)
    ]


def _small(panel: np.ndarray) -> np.ndarray:
    return no_longer_than(panel, LONGEST)
