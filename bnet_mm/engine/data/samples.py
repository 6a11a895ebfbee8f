"""Looks at the samples of built datasets, through the loading steps of their own pipelines."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock, Thread
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset
from PIL import Image
from torch.utils.data import Dataset

IGNORED = 255  # mmseg's, in masks whose class ids are mapped
ORIENTATION = 0x0112  # of EXIF
# What mmcv turns by it: with these types of colours, by OpenCV and by Pillow.
TURNED = ('color', 'grayscale')


@dataclass(frozen=True)
class Finding:
    """Something in the data that its owner should know.

    Attributes:
        text: a sentence that names the file.
        stage: 'train', 'val' or 'test'.
        ends_run: whether a run ends with an error when it comes to this sample.
    """

    text: str
    stage: str
    ends_run: bool = False


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


def look(datasets: Sequence[tuple[str, BaseDataset]], seconds: float | None) -> list[Finding]:
    """Opens samples, spread over all datasets, until the time is over, and returns what is wrong.

    Random numbers that loading takes are given back. A file that takes longer than the time that is
    left is not waited for.

    Args:
        datasets: the stage of each built dataset, and the dataset.
        seconds: time limit; None for all samples, however long it takes.
    """
    seen = [_Seen(stage, dataset) for stage, dataset in datasets if len(dataset)]
    seen = [one for one in seen if one.steps]
    order = iter(_interleaved(seen))
    end = None if seconds is None else time.monotonic() + seconds
    lock = Lock()

    def work() -> None:
        while end is None or time.monotonic() < end:
            with lock:
                task = next(order, None)
            if task is None:
                return
            one, index = task
            problem = one.open(index)
            with lock:
                one.note(*problem)

    with _random_numbers_kept():
        # Daemons: nobody waits for a disk that does not answer.
        workers = [Thread(target=work, daemon=True) for _ in range(os.cpu_count() or 1)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(None if end is None else max(0.0, end - time.monotonic()) + 0.1)
    with lock:
        return [finding for one in seen for finding in one.findings()]


def _interleaved(seen: list[_Seen]) -> Iterator[tuple[_Seen, int]]:
    """Yields the samples of all datasets by turns, those of each spread over it."""
    orders = [(one, _spread(len(one.dataset))) for one in seen]
    while orders:
        left = []
        for one, order in orders:
            index = next(order, None)
            if index is not None:
                yield one, index
                left.append((one, order))
        orders = left


def _spread(count: int) -> Iterator[int]:
    """Yields each number below `count` once, first such that lie far apart."""
    step = max(1, int(count * 0.618))
    while np.gcd(step, count) != 1:
        step += 1
    return ((i * step) % count for i in range(count))


@contextmanager
def _random_numbers_kept() -> Iterator[None]:
    numpys, pythons = np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        np.random.set_state(numpys)
        random.setstate(pythons)


@dataclass
class _Problem:
    kind: str
    text: str
    ends_run: bool = False


@dataclass
class _Seen:
    """What the samples of one dataset were found to be."""

    stage: str
    dataset: BaseDataset
    steps: list[Any] = field(init=False)
    first: dict[str, _Problem] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    values: Counter[int] = field(default_factory=Counter)  # pixels by class id, of masks
    opened: int = 0

    def __post_init__(self) -> None:
        steps = list(getattr(self.dataset.pipeline, 'transforms', []))
        names = [type(step).__name__ for step in steps]
        decoding = [i for i, name in enumerate(names) if name.endswith('Decode')]
        if decoding:  # a clip: whatever comes before chooses its frames
            self.steps = steps[: decoding[0] + 1]
        else:
            self.steps = [step for step, name in zip(steps, names) if name.startswith('Load')]

    def open(self, index: int) -> tuple[list[_Problem], Counter[int]]:
        """Loads a sample; called from several threads."""
        sample: dict = self.dataset.get_data_info(index)
        info = dict(sample)
        step: Any = None
        try:
            for step in self.steps:
                loaded = step(sample)
                if loaded is None:  # it may be left out
                    return [], Counter()
                sample = loaded
        except Exception as error:  # loaders have errors of their own
            problem = self._unreadable(index, info, type(step).__name__, error)
            return [problem] if problem else [], Counter()
        return list(self._problems(info, sample)), _pixels(sample.get('gt_seg_map'))

    def note(self, problems: list[_Problem], pixels: Counter[int]) -> None:
        """Counts what was found in one sample."""
        self.opened += 1
        self.values.update(pixels)
        for problem in problems:
            self.counts[problem.kind] += 1
            self.first.setdefault(problem.kind, problem)

    def findings(self) -> Iterator[Finding]:
        """Yields a sentence for each kind of problem, and for classes that never occur."""
        kind = type(self.dataset).__name__
        for problem in self.first.values():
            more = self.counts[problem.kind]
            count = f' ({more} of {self.opened} samples that were opened)' if more > 1 else ''
            text = f'{self.stage} {kind}: {problem.text}{count}'
            yield Finding(text, self.stage, problem.ends_run)
        classes = self.dataset.metainfo.get('classes')
        if classes and self.values and self.stage == 'train' and self.opened == len(self.dataset):
            absent = [name for i, name in enumerate(classes) if not self.values[i]]
            if absent:
                text = f'{self.stage} {kind}: never in its {self.opened} masks: {some(absent)}'
                if ignored := self.values[IGNORED]:
                    share = ignored / sum(self.values.values())
                    text += (
                        f'; {share:.0%} of the pixels are {IGNORED}, which is ignored: an object '
                        f'that is drawn as {IGNORED} is not trained, and the metrics leave it out'
                    )
                yield Finding(text, self.stage)

    def _unreadable(self, index: int, info: dict, step: str, error: Exception) -> _Problem | None:
        if isinstance(error, ImportError):
            text = f'samples cannot be loaded: a package is missing ({error})'
            return _Problem('package', text)
        reason = ' '.join(str(error).split())
        if step.endswith('Decode') or 'filename' in info:
            name = info.get('filename') or info.get('frame_dir')
            text = f'{name} cannot be decoded as a video ({type(error).__name__}: {reason})'
            return _Problem('unreadable', text, True)
        if isinstance(error, FileNotFoundError):
            return _Problem('missing', f'there is no file {error.filename or reason}', True)
        broken = isinstance(error, (OSError, SyntaxError)) or 'failed to load image' in reason
        path = info.get('seg_map_path' if 'Annotations' in step else 'img_path')
        path = path or info.get('img_path')
        if broken:
            return _Problem('unreadable', f'{path} cannot be read as an image ({reason})', True)
        try:  # steps between the loading ones may be needed
            self.dataset.pipeline(self.dataset.get_data_info(index))
        except Exception as again:
            return _Problem('unloaded', f'{path}: {step}: {type(again).__name__}: {again}')
        return None

    def _problems(self, info: dict, sample: dict) -> Iterator[_Problem]:
        image, mask = sample.get('img'), sample.get('gt_seg_map')
        path = info.get('img_path')
        shape = getattr(image, 'shape', None)
        size = shape[:2] if shape is not None and len(shape) in (2, 3) else None
        turn = (
            f'{path} is turned by its EXIF orientation when it is loaded, and its {{}} not: set '
            f"color_type='color_ignore_orientation' in the step that loads images, or turn the "
            f'files'
        )
        if mask is not None and 'seg_map_path' in info:
            yield from self._mask_problems(info, mask)
            if mask.ndim == 2 and size is not None:
                if self._turns(path) and mask.shape in (size[::-1], size):
                    same = mask.shape == size
                    if not same or size[0] == size[1]:
                        yield _Problem('turned', turn.format('mask is'))
                elif mask.shape != size:
                    shown = '{} is {}x{} pixels and {} is {}x{}'.format(
                        info['seg_map_path'], *mask.shape[::-1], path, *size[::-1]
                    )
                    yield _Problem('size', shown)
        elif size is not None and {'height', 'width'} <= info.keys():
            said = (info['height'], info['width'])
            if all(said) and said != size:
                if said == size[::-1] and self._turns(path):
                    yield _Problem('turned', turn.format('boxes are'))
                else:
                    shown = '{} is {}x{} pixels, and the annotations say {}x{}'
                    yield _Problem('size', shown.format(path, *size[::-1], *said[::-1]))

    def _mask_problems(self, info: dict, mask: np.ndarray) -> Iterator[_Problem]:
        path, classes = info['seg_map_path'], self.dataset.metainfo.get('classes')
        if mask.ndim != 2:
            text = (
                f'{path} is a colour image of shape {mask.shape}; a mask has one class id a pixel'
            )
            yield _Problem('colour', text)
            return
        if classes is None:
            return
        count = len(classes)
        allowed = {getattr(self.dataset, 'ignore_index', IGNORED), IGNORED, *range(count)}
        wrong = next((value for value in _pixels(mask) if value not in allowed), None)
        ignored, shown = f'{IGNORED} is ignored', wrong
        if info.get('reduce_zero_label'):
            shown = None if wrong is None else wrong + 1
            ignored += ', and 0, since reduce_zero_label counts classes from 1'
        if wrong is not None:
            text = (
                f'{path} has the class id {shown}, which is out of range: the dataset has {count} '
                f'classes, ids 0 to {count - 1} ({ignored})'
            )
            yield _Problem('range', text)
        cut = _cut_to_eight_bits(path)
        if cut:
            text = (
                f'{path} has the class id {cut}, which is loaded as {cut % 256}: masks have 8 bits'
            )
            yield _Problem('bits', text)

    def _turns(self, path: str | None) -> bool:
        """Tells whether loading turns a photo by what its file says of its orientation."""
        loads = [s for s in self.steps if type(s).__name__.startswith('LoadImage')]
        backend = getattr(loads[0], 'imdecode_backend', 'cv2') if loads else None
        if path is None or backend not in ('cv2', 'pillow'):
            return False
        if getattr(loads[0], 'color_type', None) not in TURNED:
            return False
        try:
            with Image.open(path) as opened:
                return opened.getexif().get(ORIENTATION, 1) not in (0, 1)
        except OSError:  # not Pillow's to read
            return False


def _pixels(mask: Any) -> Counter[int]:
    if mask is None or getattr(mask, 'ndim', 0) != 2 or mask.dtype.kind not in 'ui':
        return Counter()
    if mask.dtype == np.uint8:
        counts = np.bincount(mask.reshape(-1), minlength=256)
        return Counter({int(value): int(counts[value]) for value in np.flatnonzero(counts)})
    values, counts = np.unique(mask, return_counts=True)
    return Counter(dict(zip(map(int, values), map(int, counts))))


def _cut_to_eight_bits(path: str) -> int | None:
    """Returns a class id that loading changes into another one, or None."""
    try:
        with Image.open(path) as opened:
            if not opened.mode.startswith('I'):
                return None
            values = np.unique(np.asarray(opened))
    except (OSError, SyntaxError):
        return None
    changed = [int(value) for value in values if value > IGNORED and value % 256 != IGNORED]
    return changed[0] if changed else None


def some(names: Sequence[str]) -> str:
    """Returns the first of many names, and how many there are."""
    return ', '.join(map(str, names[:6])) + (f', ... ({len(names)})' if len(names) > 6 else '')
