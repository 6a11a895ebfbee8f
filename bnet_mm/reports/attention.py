"""Attention maps of several models side by side, as sheets."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from mmengine.config import Config
from torch import nn

from bnet_mm.analysis.attention import Seen, attention_maps
from bnet_mm.analysis.layers import last_blocks
from bnet_mm.analysis.pairs import Pair
from bnet_mm.analysis.pictures import free_name, of_side, of_usual_size, pictures_of, tested_side
from bnet_mm.checkpoint.contents import Contents
from bnet_mm.openmmlab.models import load_model
from bnet_mm.openmmlab.running import clip_frames, preprocessed
from bnet_mm.reports.overlays import Overlay, Row, draw_overlays


def write_attention(
    pairs: Sequence[Pair],
    images: Sequence[Path],
    out: Path,
    layers: Sequence[str] | None = None,
    shape: tuple[int, int] | None = None,
    frames: int = 3,
    label: int | None = None,
) -> Iterator[Path]:
    """Writes a sheet for each picture and frame, with a row for each model, and yields its name.

    Args:
        pairs: the models, BNET and BN say.
        images: pictures and videos.
        out: folder of the sheets.
        layers: names of modules; by default the last block of each stage.
        shape: height and width of the pictures; by default those a classifier is tested with, else
            their own within bounds.
        frames: how many of a video; as many as a network shifts between if it does.
        label: the class to look for; each model's own answer by default.

    Raises:
        InputError: a model or a picture cannot be used.
    """
    models = []
    for pair in pairs:
        cfg = pair.read_config()
        model, contents = load_model(cfg, pair.checkpoint)
        last_blocks(model, layers)  # says it before the first sheet where one cannot be made
        models.append((pair.name, cfg, model, contents))
    used: set[str] = set()
    for image in images:
        rows: dict[str, list[Row]] = {}
        for name, cfg, model, contents in models:
            found = attention_rows(cfg, model, contents, image, layers, shape, frames, label)
            for place, row in found:
                rows.setdefault(place, []).append(replace(row, title=f'{name}\n{row.title}'))
        for place, of_models in rows.items():
            file = out / f'{free_name(place, used)}_attention.png'
            draw_overlays(of_models, file)
            yield file


def attention_rows(
    cfg: Config,
    model: nn.Module,
    contents: Contents,
    image: Path,
    layers: Sequence[str] | None = None,
    shape: tuple[int, int] | None = None,
    frames: int = 3,
    label: int | None = None,
) -> list[tuple[str, Row]]:
    """Returns name and attention maps of a picture, or of each frame; see `write_attention`.

    Args:
        cfg, model, contents: a trained model, as `bnet_mm.openmmlab.models.load_model` gives it.
        image, layers, shape, frames, label: of one picture or video.
    """
    blocks = last_blocks(model, layers)
    classes = _class_names(contents.meta)
    together = clip_frames(getattr(model, 'backbone', model))
    side = tested_side(cfg) if shape is None else None
    found = [
        (name, of_usual_size(picture, shape) if side is None else of_side(picture, side))
        for name, picture in pictures_of(image, frames if together == 1 else together)
    ]
    inputs = [preprocessed(picture, model) for _, picture in found]
    if len(inputs) == together:
        seen = attention_maps(model, torch.cat(inputs), blocks, label)
    else:
        seen = [attention_maps(model, x, blocks, label)[0] for x in inputs]
    rows = []
    for (name, picture), of_picture in zip(found, seen, strict=True):
        overlays = [
            Overlay(a.layer.removeprefix('backbone.'), a.map.numpy()) for a in of_picture.maps
        ]
        rows.append((name, Row(_answer(of_picture, classes), picture, overlays)))
    return rows


def _class_names(meta: dict) -> Sequence[str]:
    """Returns the classes that a checkpoint of mmengine names."""
    return (meta.get('dataset_meta') or {}).get('classes') or meta.get('CLASSES') or ()


def _answer(seen: Seen, classes: Sequence[str]) -> str:
    if seen.label is None:
        return 'activation'
    name = str(classes[seen.label]) if seen.label < len(classes) else f'class {seen.label}'
    name = name if len(name) <= 30 else f'{name[:28]}…'
    return f'{name}, {100 * seen.share:.0f} %'
