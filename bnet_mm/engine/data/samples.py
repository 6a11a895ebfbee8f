"""Opens the masks and the clips of built datasets, before they cost training time."""

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

IGNORED = 255  # mmseg's, in masks whose zero or classes are mapped


def leaves(dataset: object) -> Iterator[BaseDataset]:
    """Yields the datasets proper inside whatever wraps them."""
    if hasattr(dataset, 'datasets'):
        for inner in dataset.datasets:
            yield from leaves(inner)
    elif hasattr(dataset, 'dataset'):
        yield from leaves(dataset.dataset)
    elif isinstance(dataset, BaseDataset):
        yield dataset


def find_bad_sample(dataset: BaseDataset, seconds: float | None = None) -> tuple[str | None, int]:
    """Opens every mask, or decodes every clip, until one is wrong or the time is over.

    Args:
        dataset: a built dataset; other kinds than masks and clips pass.
        seconds: how long to look; None for as long as it takes.

    Returns:
        a sentence that names the first wrong file, or None; and how many samples were looked at.
    """
    check = _check_of(dataset)
    if check is None:
        return None, len(dataset)
    end = None if seconds is None else time.monotonic() + seconds
    workers = os.cpu_count() or 1
    looked = 0
    with ThreadPoolExecutor(workers) as pool:
        # In portions, so that nothing is read long after the first wrong file.
        indices = iter(range(len(dataset)))
        while portion := list(islice(indices, 8 * workers)):
            for sentence in pool.map(check, portion):
                if sentence:
                    return sentence, looked
                looked += 1
            if end is not None and time.monotonic() > end:
                break
    return None, looked


def _check_of(dataset: BaseDataset) -> Callable[[int], str | None] | None:
    if not len(dataset):
        return None
    sample = dataset.get_data_info(0)
    if 'seg_map_path' in sample and 'reduce_zero_label' in sample:
        return lambda index: _wrong_mask(dataset, dataset.get_data_info(index))
    steps = list(getattr(dataset.pipeline, 'transforms', []))
    decode = [i for i, step in enumerate(steps) if type(step).__name__.endswith('Decode')]
    if decode and {'filename', 'frame_dir'} & sample.keys():
        decoding = Compose(steps[: decode[0] + 1])
        return lambda index: _wrong_clip(dataset.get_data_info(index), decoding)
    return None


def _wrong_mask(dataset: BaseDataset, sample: dict) -> str | None:
    path, picture = sample['seg_map_path'], sample['img_path']
    # With the backend of the step that loads masks: OpenCV, which loads pictures, would turn a
    # mask with a palette into colours.
    steps = [s for s in dataset.pipeline.transforms if 'LoadAnnotations' in type(s).__name__]
    backend = getattr(steps[0], 'imdecode_backend', 'pillow') if steps else 'pillow'
    opening = path
    try:
        mask = mmcv.imfrombytes(
            get(path, dataset.backend_args), flag='unchanged', backend=backend
        ).squeeze()
        opening = picture
        with Image.open(picture) as opened:
            size = opened.size
    except FileNotFoundError as error:
        return f'there is no file {error.filename}'
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, AttributeError) as error:
        return f'{opening} cannot be read as a picture ({error})'
    if mask.ndim != 2:
        return f'{path} is a colour picture of shape {mask.shape}; a mask has one class id a pixel'
    # Either way round: a photo may be stored turned, with a note for the reader.
    if sorted(mask.shape) != sorted(size):
        return '{} is {}x{} pixels and {} is {}x{}'.format(path, *mask.shape[::-1], picture, *size)
    classes = dataset.metainfo.get('classes')
    if classes is None:
        return None
    allowed = {dataset.ignore_index, IGNORED}
    wrong = [
        int(value)
        for value in np.unique(mask)
        if (class_id := _mapped(int(value), sample)) not in allowed
        and not 0 <= class_id < len(classes)
    ]
    if not wrong:
        return None
    ignored = f'{dataset.ignore_index} is ignored'
    if sample['reduce_zero_label']:
        ignored += ', and 0, since reduce_zero_label counts classes from 1'
    return (
        f'{path} has the class id {wrong[0]}, which is out of range: the dataset has '
        f'{len(classes)} classes, ids 0 to {len(classes) - 1} ({ignored})'
    )


def _mapped(value: int, sample: dict) -> int:
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
