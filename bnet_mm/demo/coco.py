"""Writes drawn scenes in COCO 2017's layout, with COCO's categories, boxes and polygons."""

import json
from pathlib import Path

import cv2
import numpy as np

from bnet_mm.demo.folder import write_folder
from bnet_mm.demo.objects import DRAWINGS
from bnet_mm.demo.scene import SIZES, Instance, draw_scene

# COCO's 80 categories in order; its ids run from 1 to 90 and leave ten of them out.
NAMES = (  # noqa: SIM905 (eighty quoted words are no easier to read)
    'person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, '
    'fire hydrant, stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, '
    'bear, zebra, giraffe, backpack, umbrella, handbag, tie, suitcase, frisbee, skis, snowboard, '
    'sports ball, kite, baseball bat, baseball glove, skateboard, surfboard, tennis racket, '
    'bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, '
    'carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, '
    'tv, laptop, mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, '
    'refrigerator, book, clock, vase, scissors, teddy bear, hair drier, toothbrush'
).split(', ')
UNUSED_IDS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
CATEGORY_IDS = dict(zip(NAMES, sorted(set(range(1, 91)) - UNUSED_IDS), strict=True))


def write_coco(folder: str | Path, train: int = 480, val: int = 60, seed: int = 0) -> Path:
    """Draws a dataset into `folder` (`train2017`, `val2017`, `annotations`) and returns it.

    The same arguments give the same pictures. A folder that already holds this dataset is kept as
    it is; an interrupted writing leaves nothing.

    Raises:
        InputError: `folder` holds something else.
    """

    def draw(part: Path) -> None:
        _write_split(part, 'train2017', 0, train, seed)
        _write_split(part, 'val2017', train, val, seed)

    return write_folder(folder, {'train': train, 'val': val, 'seed': seed}, draw)


def _write_split(root: Path, split: str, first: int, count: int, seed: int) -> None:
    (root / split).mkdir()
    (root / 'annotations').mkdir(exist_ok=True)
    images, annotations = [], []
    for image_id in range(first + 1, first + count + 1):
        # A generator for each picture: more of them do not change the first ones.
        rng = np.random.default_rng((seed, image_id))
        height, width = SIZES[rng.integers(len(SIZES))]
        picture, instances = draw_scene(rng, height, width, DRAWINGS)
        file_name = f'{image_id:012d}.jpg'
        cv2.imwrite(str(root / split / file_name), picture, [cv2.IMWRITE_JPEG_QUALITY, 92])
        images.append({'id': image_id, 'file_name': file_name, 'height': height, 'width': width})
        for instance in instances:
            annotations.append(
                {
                    'id': len(annotations) + 1,
                    'image_id': image_id,
                    'category_id': CATEGORY_IDS[instance.name],
                    'iscrowd': 0,
                    **_outline(instance),
                }
            )
    (root / 'annotations' / f'instances_{split}.json').write_text(
        json.dumps(
            {
                'info': {'description': 'Scenes drawn by bnet_mm in the layout of COCO 2017'},
                'images': images,
                'annotations': annotations,
                'categories': [{'id': i, 'name': name} for name, i in CATEGORY_IDS.items()],
            }
        )
    )


def _outline(instance: Instance) -> dict:
    """Returns COCO's box (x, y, width, height), area and polygons of what is seen."""
    ys, xs = np.nonzero(instance.mask)
    contours, _ = cv2.findContours(
        instance.mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_TC89_L1
    )
    x, y = int(xs.min()), int(ys.min())
    return {
        'bbox': [x, y, int(xs.max()) - x + 1, int(ys.max()) - y + 1],
        'area': int(instance.mask.sum()),
        'segmentation': [c.reshape(-1).tolist() for c in contours if len(c) >= 3],
    }
