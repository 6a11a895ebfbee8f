"""Writes drawn pictures in MMPretrain's layout of ImageNet."""

from pathlib import Path

import cv2
import numpy as np

from bnet_mm.demo import objects, voc_objects
from bnet_mm.demo.folder import write_folder
from bnet_mm.demo.ink import Drawing
from bnet_mm.demo.scene import SIZES, draw_scene

# Folder, class id among ImageNet's 1000 classes, and what is drawn for it.
CLASSES: tuple[tuple[str, int, Drawing], ...] = (
    ('n02708093', 409, objects.DRAWINGS['clock']),  # analog clock
    ('n03782006', 664, voc_objects.DRAWINGS['tvmonitor']),  # monitor
    ('n03991062', 738, voc_objects.DRAWINGS['pottedplant']),  # flowerpot
    ('n04146614', 779, voc_objects.DRAWINGS['bus']),  # school bus
    ('n04254680', 805, objects.DRAWINGS['sports ball']),  # soccer ball
    ('n04285008', 817, voc_objects.DRAWINGS['car']),  # sports car
    ('n04591713', 907, voc_objects.DRAWINGS['bottle']),  # wine bottle
    ('n04612504', 914, voc_objects.DRAWINGS['boat']),  # yawl
    ('n06794110', 919, objects.DRAWINGS['stop sign']),  # street sign
    ('n06874185', 920, objects.DRAWINGS['traffic light']),  # traffic light
)


def write_imagenet(folder: str | Path, train: int = 480, val: int = 100, seed: int = 0) -> Path:
    """Draws a dataset into `folder` (`train`, `val`, and lists of both in `meta`) and returns it.

    Ten of the 1000 classes have pictures, in turn, in a folder each; the lists give every picture
    its ImageNet class id. For repeated and interrupted writing see `bnet_mm.demo.folder`.

    Raises:
        InputError: `folder` holds something else.
    """

    def draw(part: Path) -> None:
        (part / 'meta').mkdir()
        for split, first, count in (('train', 0, train), ('val', train, val)):
            lines = [_write_picture(part / split, n, seed) for n in range(first, first + count)]
            (part / f'meta/{split}.txt').write_text(''.join(lines))

    return write_folder(folder, {'train': train, 'val': val, 'seed': seed}, draw)


def _write_picture(split: Path, index: int, seed: int) -> str:
    """Writes one picture and returns its line of a list."""
    name, class_id, drawing = CLASSES[index % len(CLASSES)]
    rng = np.random.default_rng((seed, index, 1000))
    height, width = SIZES[rng.integers(len(SIZES))]
    picture, _ = draw_scene(rng, height, width, {name: drawing})
    file = f'{name}/{name}_{index}.JPEG'
    (split / name).mkdir(parents=True, exist_ok=True)
    encoded = cv2.imencode('.jpg', picture, [cv2.IMWRITE_JPEG_QUALITY, 92])[1]
    (split / file).write_bytes(encoded.tobytes())
    return f'{file} {class_id}\n'
