"""CIFAR-10 for MMPretrain from the published batches or from folders of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from mmpretrain.datasets import CIFAR10
from PIL import Image, UnidentifiedImageError

from bnet_mm.errors import InputError

EXTENSIONS = {'.jpeg', '.jpg', '.png'}
SIZE = (32, 32)


class CIFAR10Folders(CIFAR10):
    """`mmpretrain.CIFAR10` that also takes images in a folder for each class.

    Where `data_root` has folders `train` and `test` (or `val`) with a folder `airplane`,
    `automobile`, ... each, the images in there are read once, and samples are as the library's:
    `img`, `(32, 32, 3)` in RGB, and `gt_label`. Otherwise it is the library's own, which reads the
    published batches, and downloads them where they are not there.

    Raises:
        InputError: a folder is missing, or a file in it is not an image of 32 x 32.
    """

    def load_data_list(self) -> list[dict]:
        root = self.data_prefix['root']
        split = folder_of(root, self.split)
        if split is None:
            return super().load_data_list()
        samples = []
        for label, name in enumerate(self.CLASSES):
            files = sorted(
                file for file in (split / name).glob('*') if file.suffix.lower() in EXTENSIONS
            )
            if not files:
                raise InputError(
                    f'{split / name} has no images; CIFAR-10 in folders has one for each of '
                    f'{", ".join(self.CLASSES)}'
                )
            samples += [{'img': _read(file), 'gt_label': label} for file in files]
        return samples


def folder_of(root: str, split: str) -> Path | None:
    """Returns the folder of a split's class folders, or None where `root` has none of these.

    Raises:
        InputError: there is a folder of the other split alone.
    """
    if '://' in root:
        return None
    names = {'train': ('train',), 'test': ('test', 'val')}
    found = {
        part: next((Path(root) / n for n in names[part] if (Path(root) / n).is_dir()), None)
        for part in names
    }
    if not any(found.values()):
        return None
    if found[split] is None:
        raise InputError(
            f'{root} has CIFAR-10 in folders, and none for its {split} split: it would be '
            f'{" or ".join(names[split])}'
        )
    return found[split]


def _read(file: Path) -> np.ndarray:
    try:
        with Image.open(file) as image:
            pixels = np.asarray(image.convert('RGB'))
    except (UnidentifiedImageError, OSError) as error:
        raise InputError(f'{file} cannot be read as an image ({error})') from error
    if pixels.shape[:2] != SIZE:
        raise InputError(
            f'{file} is {pixels.shape[1]}x{pixels.shape[0]} pixels, and images of CIFAR-10 are '
            f'32x32'
        )
    return pixels
