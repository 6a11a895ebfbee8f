"""Heat maps of pictures and videos, as sheets."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from bnet_mm.analysis.heatmap import HeatMap, heat_maps
from bnet_mm.analysis.pictures import free_name, of_usual_size, pictures_of
from bnet_mm.openmmlab.running import clip_frames, preprocessed
from bnet_mm.reports.overlays import Overlay, Row, draw_overlays


def write_heat_maps(
    model: nn.Module,
    layers: list[str],
    images: Sequence[Path],
    out: Path,
    shape: tuple[int, int] | None = None,
    frames: int = 3,
) -> Iterator[Path]:
    """Writes a sheet for each picture and each frame, and yields its name.

    Args:
        model: of OpenMMLab, in evaluation mode.
        layers: names of BNETs; see `bnet_mm.analysis.layers.chosen_layers`.
        images: pictures and videos.
        out: folder of the sheets.
        shape: height and width of the pictures; their own, within bounds, by default.
        frames: how many of a video; as many as the network shifts between if it does.

    Raises:
        InputError: a picture cannot be read, or the network cannot run on it.
    """
    used: set[str] = set()
    for image in images:
        for name, row in heat_map_rows(model, layers, image, shape, frames):
            file = out / f'{free_name(name, used)}_heatmap.png'
            draw_overlays([row], file)
            yield file


def heat_map_rows(
    model: nn.Module,
    layers: list[str],
    image: Path,
    shape: tuple[int, int] | None = None,
    frames: int = 3,
) -> list[tuple[str, Row]]:
    """Returns name and heat maps of a picture, or of each frame; see `write_heat_maps`."""
    together = clip_frames(getattr(model, 'backbone', model))
    found = [
        (name, of_usual_size(picture, shape))
        for name, picture in pictures_of(image, frames if together == 1 else together)
    ]
    inputs = [preprocessed(picture, model) for _, picture in found]
    if len(inputs) == together:
        maps = heat_maps(model, torch.cat(inputs), layers)
    else:  # a picture, or a video with less frames than are shifted between
        maps = [heat_maps(model, x, layers)[0] for x in inputs]
    return [
        (name, heat_map_row(picture, of_picture))
        for (name, picture), of_picture in zip(found, maps, strict=True)
    ]


def heat_map_row(picture: np.ndarray, maps: Sequence[HeatMap], title: str = 'picture') -> Row:
    """Returns a picture and its heat maps, ready to draw."""
    overlays = []
    for found in maps:
        share = found.above.cpu().numpy() / found.channels
        name = found.layer.removeprefix('backbone.')
        least, most = 100 * share.min(), 100 * share.max()
        text = f'{name}\n{least:.0f} to {most:.0f} % of {found.channels} channels'
        overlays.append(Overlay(text, share))
    return Row(title, picture, overlays)
