"""Writes drawn streets in the layout of Cityscapes, with masks of classes and of instances."""

from pathlib import Path

import cv2
import numpy as np

from bnet_mm.demo.folder import write_folder
from bnet_mm.demo.street import draw_street

SIZE = (256, 512)  # height, width: Cityscapes' own, an eighth as large
# Cityscapes' ids of its 19 training classes, in their order; every other id is 255 there.
TRAIN_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
IGNORED = 255


def write_cityscapes(folder: str | Path, train: int = 120, val: int = 24, seed: int = 0) -> Path:
    """Draws a dataset into `folder` (`leftImg8bit`, `gtFine`) and returns it.

    For each picture there are `labelIds`, `labelTrainIds` and `instanceIds`. For repeated and
    interrupted writing see `bnet_mm.demo.folder`.

    Raises:
        InputError: `folder` holds something else.
    """

    def draw(part: Path) -> None:
        for split, first, count in (('train', 0, train), ('val', train, val)):
            for index in range(first, first + count):
                _write_picture(part, split, index, seed)

    return write_folder(folder, {'train': train, 'val': val, 'seed': seed}, draw)


def _write_picture(root: Path, split: str, index: int, seed: int) -> None:
    picture, ids, instances = draw_street(np.random.default_rng((seed, index, 19)), *SIZE)
    train_ids = np.full(256, IGNORED, np.uint8)
    train_ids[list(TRAIN_IDS)] = np.arange(len(TRAIN_IDS))
    name = f'drawn/drawn_{index:06d}_000000'
    for path, content in (
        (f'leftImg8bit/{split}/{name}_leftImg8bit.png', picture),
        (f'gtFine/{split}/{name}_gtFine_labelIds.png', ids),
        (f'gtFine/{split}/{name}_gtFine_labelTrainIds.png', train_ids[ids]),
        (f'gtFine/{split}/{name}_gtFine_instanceIds.png', instances),
    ):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / path), content)
