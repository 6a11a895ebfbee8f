"""Heat maps and attention maps of images and videos, as sheets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor, nn

from bnet_mm.analysis.attention import Seen, attention_maps
from bnet_mm.analysis.heatmap import HeatMap, heat_maps
from bnet_mm.analysis.images import free_name, images_of, of_side, of_usual_size, tested_side
from bnet_mm.analysis.layers import last_blocks
from bnet_mm.analysis.pairs import Pair
from bnet_mm.checkpoint import Contents
from bnet_mm.openmmlab.models import load_model
from bnet_mm.openmmlab.pictures import in_colours, preprocessed
from bnet_mm.openmmlab.running import clip_frames, input_channels
from bnet_mm.reports.figures import Row, draw_rows
from bnet_mm.text import without_prefix


@dataclass(frozen=True)
class Looking:
    """How images are looked at.

    Attributes:
        layers: names of modules; each analysis has its default.
        shape: height and width of the images; by default those that a classifier is tested with
            (attention), or their own within bounds.
        frames: how many of a video; as many as a network shifts between if it does.
        label: the class whose evidence attention shows; each model's own answer by default.
    """

    layers: Sequence[str] | None = None
    shape: tuple[int, int] | None = None
    frames: int = 3
    label: int | None = None


def write_heat_maps(
    model: nn.Module, images: Sequence[Path], out: Path, looking: Looking
) -> Iterator[Path]:
    """Writes a sheet for each image and each frame, and yields its name.

    Args:
        model: of OpenMMLab, in evaluation mode.
        images: images and videos.
        out: folder of the sheets.
        looking: `layers` are BNETs, see `bnet_mm.analysis.layers.chosen_layers`.

    Raises:
        InputError: an image cannot be read, or the network cannot run on it.
    """
    used: set[str] = set()
    for image in images:
        for name, row in heat_map_rows(model, image, looking):
            file = out / f'{free_name(name, used)}_heatmap.png'
            draw_rows([row], file)
            yield file


def heat_map_rows(model: nn.Module, image: Path, looking: Looking) -> list[tuple[str, Row]]:
    """Returns name and heat maps of an image, or of each frame; see `write_heat_maps`."""
    names, images, batches = _inputs(model, image, looking, None)
    found = [maps for x in batches for maps in heat_maps(model, x, list(looking.layers or ()))]
    return [(name, heat_map_row(image, maps)) for name, image, maps in zip(names, images, found)]


def heat_map_row(image: np.ndarray, maps: Sequence[HeatMap]) -> Row:
    """Returns an image and its heat maps, ready to draw."""
    titled = []
    for found in maps:
        share = found.above.cpu().numpy() / found.channels
        name = without_prefix(found.layer, 'backbone.')
        least, most = 100 * share.min(), 100 * share.max()
        text = f'{name}\n{least:.0f} to {most:.0f} % of {found.channels} channels'
        titled.append((text, share))
    return Row('image', image, titled)


def write_attention(
    pairs: Sequence[Pair], images: Sequence[Path], out: Path, looking: Looking
) -> Iterator[Path]:
    """Writes a sheet for each image and frame, with a row for each model, and yields its name.

    Args:
        pairs: the models, BNET and BN say.
        images: images and videos.
        out: folder of the sheets.
        looking: `layers` are any modules; by default the last block of each stage.

    Raises:
        InputError: a model or an image cannot be used.
    """
    models = []
    for pair in pairs:
        cfg = pair.read_config()
        model, contents = load_model(cfg, pair.checkpoint)
        last_blocks(model, looking.layers)  # says it before the first sheet where one cannot be
        models.append((pair.name, cfg, model, contents))
    used: set[str] = set()
    for image in images:
        rows: dict[str, list[Row]] = {}
        for name, cfg, model, contents in models:
            for place, row in attention_rows(cfg, model, contents, image, looking):
                rows.setdefault(place, []).append(replace(row, title=f'{name}\n{row.title}'))
        for place, of_models in rows.items():
            file = out / f'{free_name(place, used)}_attention.png'
            draw_rows(of_models, file)
            yield file


def attention_rows(
    cfg: Config, model: nn.Module, contents: Contents, image: Path, looking: Looking
) -> list[tuple[str, Row]]:
    """Returns name and attention maps of an image, or of each frame; see `write_attention`.

    Args:
        cfg, model, contents: a trained model, as `bnet_mm.openmmlab.models.load_model` gives it.
        image, looking: one image or video, and how to look at it.
    """
    blocks = last_blocks(model, looking.layers)
    meta = contents.meta
    classes = (meta.get('dataset_meta') or {}).get('classes') or meta.get('CLASSES') or ()
    names, images, batches = _inputs(model, image, looking, cfg)
    seen = [one for x in batches for one in attention_maps(model, x, blocks, looking.label)]
    return [
        (name, Row(_answer(of_image, classes), image, [
            (without_prefix(a.layer, 'backbone.'), a.map.numpy()) for a in of_image.maps
        ]))
        for name, image, of_image in zip(names, images, seen)
    ]  # fmt: skip


def _inputs(
    model: nn.Module, path: Path, looking: Looking, cfg: Config | None
) -> tuple[list[str], list[np.ndarray], list[Tensor]]:
    """Returns names and images of a file, and the batches that the model is to see of them."""
    together = clip_frames(model)
    side = tested_side(cfg) if cfg is not None and looking.shape is None else None
    frames = looking.frames if together == 1 else together
    found = list(images_of(path, frames, input_channels(model)))
    images = [
        of_usual_size(image, looking.shape) if side is None else of_side(image, side)
        for _, image in found
    ]
    inputs = [preprocessed(image, model) for image in images]
    # An image, or a video with less frames than are shifted between, is looked at by itself.
    batches = [torch.cat(inputs)] if len(inputs) == together else inputs
    return [name for name, _ in found], [in_colours(image) for image in images], batches


def _answer(seen: Seen, classes: Sequence[str]) -> str:
    if seen.label is None:
        return 'activation'
    name = str(classes[seen.label]) if seen.label < len(classes) else f'class {seen.label}'
    name = name if len(name) <= 30 else f'{name[:28]}…'
    return f'{name}, {100 * seen.share:.0f} %'
