"""Writes drawn scenes in the layout of PASCAL VOC 2012 with the additional masks (`aug`)."""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from bnet_mm.demo.folder import write_folder
from bnet_mm.demo.scene import SIZES, draw_scene
from bnet_mm.demo.voc_objects import DRAWINGS

CLASSES = (
    'background', 'aeroplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car', 'cat', 'chair',
    'cow', 'diningtable', 'dog', 'horse', 'motorbike', 'person', 'pottedplant', 'sheep', 'sofa',
    'train', 'tvmonitor',
)  # fmt: skip
VOID = 255  # VOC's border around each object, which counts for no class


def write_voc(folder: str | Path, train: int = 240, val: int = 40, seed: int = 0) -> Path:
    """Draws a dataset into `folder` (VOC's `VOC2012`) and returns it.

    Half of the training pictures stand in `train.txt`, with masks in `SegmentationClass` and
    `SegmentationObject`; the other half in `aug.txt`, with masks in `SegmentationClassAug`.
    For repeated and interrupted writing see `bnet_mm.demo.folder`.

    Raises:
        InputError: `folder` holds something else.
    """

    def draw(part: Path) -> None:
        for name in ('JPEGImages', 'SegmentationClass', 'SegmentationObject',
                     'SegmentationClassAug', 'ImageSets/Segmentation'):  # fmt: skip
            (part / name).mkdir(parents=True)
        cuts = np.cumsum([0, train - train // 2, val, train // 2])
        for split, first, last in zip(('train', 'val', 'aug'), cuts[:-1], cuts[1:], strict=True):
            names = [_write_picture(part, split, index, seed) for index in range(first, last)]
            listed = part / f'ImageSets/Segmentation/{split}.txt'
            listed.write_text(''.join(f'{name}\n' for name in names))

    return write_folder(folder, {'train': train, 'val': val, 'seed': seed}, draw)


def _write_picture(root: Path, split: str, index: int, seed: int) -> str:
    rng = np.random.default_rng((seed, index, 2012))
    height, width = SIZES[rng.integers(len(SIZES))]
    picture, instances = draw_scene(rng, height, width, DRAWINGS)
    name = f'2012_{index:06d}'
    cv2.imwrite(str(root / f'JPEGImages/{name}.jpg'), picture, [cv2.IMWRITE_JPEG_QUALITY, 92])
    classes, objects = np.zeros((2, height, width), np.uint8)
    for number, instance in enumerate(instances, 1):
        classes[instance.mask] = CLASSES.index(instance.name)
        objects[instance.mask] = number
    if split == 'aug':
        _save(root / f'SegmentationClassAug/{name}.png', classes)
        return name
    edge = cv2.morphologyEx(objects, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    for kind, mask in (('Class', classes), ('Object', objects)):
        mask[edge] = VOID
        _save(root / f'Segmentation{kind}/{name}.png', mask)
    return name


def _save(path: Path, mask: np.ndarray) -> None:
    picture = Image.fromarray(mask, mode='P')
    picture.putpalette(_palette())
    picture.save(path)


def _palette() -> list[int]:
    """Returns VOC's 256 colours: an id's bits, spread over red, green and blue from the top."""
    ids = np.arange(256)
    channels = [
        sum(((ids >> (3 * bit + channel)) & 1) << (7 - bit) for bit in range(8))
        for channel in range(3)
    ]
    return np.stack(channels, 1).reshape(-1).tolist()
