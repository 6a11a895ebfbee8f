"""Draws samples as they leave the pipeline, with their labels."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import VISUALIZERS
from torch import Tensor

from bnet_mm.engine.data.failures import build_dataset
from bnet_mm.engine.launch import make_folder
from bnet_mm.errors import InputError
from bnet_mm.openmmlab.libraries import config_errors
from bnet_mm.openmmlab.pictures import in_colours

FRAMES_PER_ROW = 5


def browse(cfg: Config, stage: str, folder: str | Path, count: int, seed: int) -> Iterator[Path]:
    """Writes images of `count` samples into `folder` and yields their paths.

    Boxes and masks are drawn by the library's own visualizer; a clip becomes a sheet of its frames.

    Args:
        cfg: a whole config of any OpenMMLab library.
        stage: 'train', 'val' or 'test'.
        folder: where to write `000000.png`, ..., named by the index in the dataset.
        count: how many samples, spread evenly over the dataset.
        seed: of the random steps of the pipeline.

    Raises:
        InputError: the dataset is missing, empty or cannot be built, or a sample cannot be drawn.
    """
    dataset = build_dataset(cfg, stage)
    with config_errors():
        visualizer = VISUALIZERS.build(
            {'type': 'Visualizer', **(cfg.get('visualizer') or {}), 'vis_backends': None,
             'name': 'browse'}
        )  # fmt: skip
    metainfo = getattr(dataset, 'metainfo', {})
    visualizer.dataset_meta = metainfo
    folder = Path(folder)
    make_folder(folder, str(folder))
    np.random.seed(seed)
    for index in np.unique(np.linspace(0, len(dataset) - 1, count).round().astype(int)):
        path = folder / f'{index:06d}.png'
        image = _drawn(_load(dataset, int(index)), visualizer, metainfo)
        if not cv2.imwrite(str(path), image[..., ::-1]):
            raise InputError(f'{path} cannot be written')
        yield path


def _load(dataset: BaseDataset, index: int) -> dict:
    try:
        return dataset[index]
    except Exception as error:  # the decoders and transforms raise errors of any kind
        sample = dataset.get_data_info(index) if hasattr(dataset, 'get_data_info') else {}
        named = sample.get('img_path') or sample.get('filename') or sample.get('frame_dir')
        reason = ' '.join(str(error).split())
        raise InputError(
            f'sample {index} of the dataset ({named}) cannot be loaded: '
            f'{type(error).__name__}: {reason}'
        ) from error


def _drawn(item: dict, visualizer, metainfo: dict) -> np.ndarray:
    """Returns a `(H, W, 3)` uint8 RGB image of one sample of a dataset."""
    inputs, sample = item['inputs'], item['data_samples']
    if isinstance(inputs, (list, tuple)):  # test time augmentation, or several streams
        inputs, sample = inputs[0], sample[0] if isinstance(sample, (list, tuple)) else sample
    if inputs.ndim > 3:
        return _sheet(_frames(inputs), _label(sample, metainfo))
    image = in_colours(inputs.permute(1, 2, 0).numpy())[..., ::-1]
    if 'gt_label' in sample:
        return _sheet([image], _label(sample, metainfo))
    instances = sample.get('gt_instances')
    if instances is not None and hasattr(instances.get('bboxes'), 'tensor'):
        instances.bboxes = instances.bboxes.tensor
    with warnings.catch_warnings():
        # A class name that leaves the image is cut off.
        warnings.filterwarnings('ignore', message='.*out of bounds')
        visualizer.add_datasample('sample', np.ascontiguousarray(image), sample, draw_pred=False)
    return visualizer.get_image()


def _frames(inputs: Tensor) -> list[np.ndarray]:
    """Returns the frames of `(N, C, H, W)` or `(N, C, T, H, W)`, each `(H, W, 3)` uint8 RGB."""
    if inputs.ndim == 5:
        inputs = inputs.transpose(1, 2).flatten(0, 1)
    return [in_colours(frame.permute(1, 2, 0).numpy()) for frame in inputs]


def _label(sample: object, metainfo: dict) -> str:
    labels = np.atleast_1d(np.asarray(sample.get('gt_label', [])))
    classes = metainfo.get('classes') or ()
    return 'label ' + ', '.join(
        f'{label} ({classes[label]})' if label < len(classes) else str(label) for label in labels
    )


def _sheet(frames: list[np.ndarray], title: str) -> np.ndarray:
    """Returns the frames in rows, with the title above."""
    columns = min(len(frames), FRAMES_PER_ROW)
    frames = frames + [np.full_like(frames[0], 255)] * (-len(frames) % columns)
    rows = [np.hstack(frames[i : i + columns]) for i in range(0, len(frames), columns)]
    lines = textwrap.wrap(title, max(8, rows[0].shape[1] // 10)) or ['']
    head = np.full((24 * len(lines) + 8, rows[0].shape[1], 3), 255, np.uint8)
    for i, line in enumerate(lines):
        place = (6, 24 * (i + 1) - 4)
        cv2.putText(head, line, place, cv2.FONT_HERSHEY_SIMPLEX, 0.55, (0, 0, 0), 1, cv2.LINE_AA)
    return np.vstack([head, *rows])
