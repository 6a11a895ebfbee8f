"""Opens every mask and clip of a built dataset, before a bad one ends a training."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import mmcv
import numpy as np
from mmengine.dataset import BaseDataset, Compose
from mmengine.fileio import get
from PIL import Image, UnidentifiedImageError
from torch.utils.data import Dataset

IGNORED = 255  # mmseg's, in masks whose class ids are mapped


def leaves(dataset: object) -> Iterator[BaseDataset]:
    """Yields the datasets inside any wrappers."""
    if hasattr(dataset, 'datasets'):
        for inner in dataset.datasets:
            yield from leaves(inner)
    elif hasattr(dataset, 'dataset'):
        yield from leaves(dataset.dataset)
    elif isinstance(dataset, BaseDataset):
        yield dataset


def files_of(dataset: Dataset, count: int) -> list[str]:
    """Returns the files of a dataset's first images or videos, as far as it names files."""
    while not hasattr(dataset, 'get_data_info') and hasattr(dataset, 'dataset'):
        dataset = dataset.dataset  # repeated or balanced
    if not hasattr(dataset, 'get_data_info'):
        return []
    infos = (dataset.get_data_info(index) for index in range(min(count, len(dataset))))
    paths = (info.get('img_path', info.get('filename')) for info in infos)
    return [str(path) for path in paths if path is not None]


def find_bad_sample(dataset: BaseDataset, seconds: float | None = None) -> tuple[str | None, int]:
    """Opens every mask, or decodes every clip, until one is wrong or the time is over.

    Args:
        dataset: a built dataset; one without masks or clips passes.
        seconds: time limit; None for as long as it takes.

    Returns:
        a sentence that names the first wrong file, or None; and the number of samples checked.
    """
    check = _check_of(dataset)
    if check is None:
        return None, len(dataset)
    end = float('inf') if seconds is None else time.monotonic() + seconds
    workers = os.cpu_count() or 1
    checked = 0
    with ThreadPoolExecutor(workers) as pool:
        # In portions, so that nothing is read long after the first wrong file.
        indices = iter(range(len(dataset)))
        while portion := list(islice(indices, 8 * workers)):
            for sentence in pool.map(lambda index: check(dataset.get_data_info(index)), portion):
                if sentence:
                    return sentence, checked
                checked += 1
            if time.monotonic() > end:
                break
    return None, checked


def _check_of(dataset: BaseDataset) -> Callable[[dict], str | None] | None:
    if not len(dataset):
        return None
    sample = dataset.get_data_info(0)
    if 'seg_map_path' in sample and 'reduce_zero_label' in sample:
        return lambda sample: _wrong_mask(dataset, sample)
    steps = list(getattr(dataset.pipeline, 'transforms', []))
    decode = [i for i, step in enumerate(steps) if type(step).__name__.endswith('Decode')]
    if decode and {'filename', 'frame_dir'} & sample.keys():
        decoding = Compose(steps[: decode[0] + 1])
        return lambda sample: _wrong_clip(sample, decoding)
    return None


def _wrong_mask(dataset: BaseDataset, sample: dict) -> str | None:
    path, image = sample['seg_map_path'], sample['img_path']
    # With the backend of the step that loads masks: OpenCV, which loads images, would turn a
    # mask with a palette into colours.
    steps = [s for s in dataset.pipeline.transforms if 'LoadAnnotations' in type(s).__name__]
    backend = getattr(steps[0], 'imdecode_backend', 'pillow') if steps else 'pillow'
    opening = path
    try:
        content = get(path, dataset.backend_args)
        mask = mmcv.imfrombytes(content, flag='unchanged', backend=backend).squeeze()
        opening = image
        with Image.open(image) as opened:
            size = opened.size
    except FileNotFoundError as error:
        return f'there is no file {error.filename}'
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, AttributeError) as error:
        return f'{opening} cannot be read as an image ({error})'
    if mask.ndim != 2:
        return f'{path} is a colour image of shape {mask.shape}; a mask has one class id a pixel'
    # Either way round: a photo may be stored turned, with its orientation in its metadata.
    if sorted(mask.shape) != sorted(size):
        return '{} is {}x{} pixels and {} is {}x{}'.format(path, *mask.shape[::-1], image, *size)
    classes = dataset.metainfo.get('classes')
    if classes is None:
        return None
    allowed = {dataset.ignore_index, IGNORED, *range(len(classes))}
    values = map(int, np.unique(mask))
    wrong = next((value for value in values if _class_id(value, sample) not in allowed), None)
    if wrong is None:
        return None
    ignored = f'{dataset.ignore_index} is ignored'
    if sample['reduce_zero_label']:
        ignored += ', and 0, since reduce_zero_label counts classes from 1'
    return (
        f'{path} has the class id {wrong}, which is out of range: the dataset has '
        f'{len(classes)} classes, ids 0 to {len(classes) - 1} ({ignored})'
    )


def _class_id(value: int, sample: dict) -> int:
    """Returns the class id that mmseg's `LoadAnnotations` makes of a mask's value."""
    if sample['reduce_zero_label']:
        value = IGNORED if value in (0, IGNORED) else value - 1
    return (sample.get('label_map') or {}).get(value, value)


def _wrong_clip(sample: dict, decoding: Compose) -> str | None:
    name = sample.get('filename') or sample['frame_dir']
    try:
        decoding(sample)
    except ImportError as error:
        return f'{name} cannot be decoded: a package is missing ({error})'
    except Exception as error:  # each of the decoders has errors of its own
        reason = ' '.join(str(error).split())
        return f'{name} cannot be decoded as a video ({type(error).__name__}: {reason})'
    return None
