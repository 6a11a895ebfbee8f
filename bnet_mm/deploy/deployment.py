"""From a config and a checkpoint to the file of a folded model."""

from __future__ import annotations

from pathlib import Path

from mmengine.config import Config
from mmengine.registry import DATASETS

from bnet_mm.checkpoint import check_target
from bnet_mm.deploy.fusing import fuse
from bnet_mm.deploy.storage import save
from bnet_mm.deploy.structure import Fusion
from bnet_mm.errors import InputError
from bnet_mm.openmmlab.config import class_of
from bnet_mm.openmmlab.models import load_model
from bnet_mm.openmmlab.pictures import preprocessed, read_image, resized
from bnet_mm.openmmlab.running import input_channels


def deploy(
    cfg: Config,
    checkpoint: str | Path,
    out: str | Path,
    shape: tuple[int, int] | None = None,
    image: str | Path | None = None,
    device: str = 'cpu',
    force: bool = False,
    plain: bool = False,
) -> Fusion:
    """Folds the model of `cfg` with the weights of `checkpoint` and writes it to `out`.

    Args:
        cfg: a whole config.
        checkpoint: the trained weights.
        out: a `.pth`, `.pt` or `.safetensors` file.
        shape: height and width of the images that it is checked on.
        image: an image to check it on, beside random values.
        device: where it is checked.
        plain: leaves modules of torch alone, see `fuse`.
        force: whether `out` may be replaced.

    Returns:
        What was folded, what was not, and why.

    Raises:
        InputError: something of this cannot be used, the checkpoint is not the config's, or the
            folded model would not be equal to the trained one.
    """
    out = check_target(out, force)
    model, contents = load_model(cfg, checkpoint)
    try:
        model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f'device {device} cannot be used: {error}') from error
    model.cfg, model.dataset_meta = cfg, _dataset_meta(cfg, contents.meta)
    inputs = None
    if image is not None:
        pixels = read_image(image, input_channels(model))
        if shape is not None:
            pixels = resized(pixels, shape)
        inputs = preprocessed(pixels, model)
    fused = fuse(model, inputs, shape, plain)
    save(fused, out, force)
    return fused.fusion


def _dataset_meta(cfg: Config, meta: dict) -> dict | None:
    """Returns names and colours of the classes: the checkpoint's, or those of the test dataset."""
    found = meta.get('dataset_meta') or ({'classes': meta['CLASSES']} if 'CLASSES' in meta else {})
    if not found:
        dataset = (cfg.get('test_dataloader') or {}).get('dataset') or {}
        try:
            kind = class_of(dataset, DATASETS, cfg.default_scope)
        except RuntimeError as error:
            raise InputError(f'test_dataloader.dataset: {error}') from error
        found = {**getattr(kind, 'METAINFO', {}), **(dataset.get('metainfo') or {})}
    if not found:
        return None
    found = {str(key).lower(): value for key, value in found.items()}
    if cfg.default_scope == 'mmdet':
        found.setdefault('palette', 'random')
    return found
