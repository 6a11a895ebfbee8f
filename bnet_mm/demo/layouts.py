"""Writes drawn images and clips in the layouts of five datasets.

The same arguments give the same files. A folder that already holds the same dataset is kept as it
is, and an interrupted writing leaves nothing (see `bnet_mm.demo.folder`). Every function raises an
`InputError` where the folder holds something else.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Callable

import cv2
import numpy as np
from PIL import Image

from bnet_mm.demo import names
from bnet_mm.demo.clip import ACTIONS, draw_clip
from bnet_mm.demo.folder import write_folder
from bnet_mm.demo.scene import draw_scene
from bnet_mm.demo.street import draw_street
from bnet_mm.errors import InputError

STREET = (256, 512)  # height, width: Cityscapes' own, an eighth as large
CLIP = (240, 320)  # height, width: UCF-101's own
FRAMES, FRAMES_PER_SECOND = 40, 25
CLIPS_PER_GROUP = 4
IGNORED = 255  # in masks: counts for no class

# Takes a folder, a split and a number, writes that sample below the folder, and returns its entry
# in the split's list.
Sample = Callable[[Path, str, int], object]


def write_coco(folder: str | Path, train: int = 480, val: int = 60, seed: int = 0) -> Path:
    """Draws a dataset into `folder` (`train2017`, `val2017`, `annotations`) and returns it.

    Six of the 80 categories are drawn, with boxes and polygons.
    """

    def sample(part: Path, split: str, index: int) -> tuple[dict, list[dict]]:
        rng = np.random.default_rng((seed, index + 1))
        image, objects = draw_scene(rng, names.COCO_DRAWN)
        file_name = f'{index + 1:012d}.jpg'
        _save(part / f'{split}2017' / file_name, image)
        height, width = image.shape[:2]
        return (
            {'id': index + 1, 'file_name': file_name, 'height': height, 'width': width},
            [{'category_id': names.COCO_IDS[name], **_outline(mask)} for name, mask in objects],
        )

    def write_list(part: Path, split: str, samples: list) -> None:
        annotations = [{'image_id': image['id'], **one} for image, ones in samples for one in ones]
        content = {
            'info': {'description': 'Scenes drawn by bnet_mm in the layout of COCO 2017'},
            'images': [image for image, _ in samples],
            'annotations': [{'id': i, **one} for i, one in enumerate(annotations, 1)],
            'categories': [{'id': i, 'name': name} for name, i in names.COCO_IDS.items()],
        }
        _write(part / f'annotations/instances_{split}2017.json', json.dumps(content))

    return _write_splits(folder, train, val, seed, sample, write_list)


def write_cityscapes(folder: str | Path, train: int = 120, val: int = 24, seed: int = 0) -> Path:
    """Draws a dataset into `folder` (`leftImg8bit`, `gtFine`) and returns it.

    There are `labelIds`, `labelTrainIds` and `instanceIds` for each image.
    """
    train_ids = np.full(256, IGNORED, np.uint8)
    train_ids[list(names.CITYSCAPES_TRAIN_IDS)] = np.arange(len(names.CITYSCAPES_TRAIN_IDS))

    def sample(part: Path, split: str, index: int) -> None:
        rng = np.random.default_rng((seed, index, 19))
        image, ids, instances = draw_street(rng, *STREET)
        name = f'{split}/drawn/drawn_{index:06d}_000000'
        _save(part / f'leftImg8bit/{name}_leftImg8bit.png', image)
        _save(part / f'gtFine/{name}_gtFine_labelIds.png', ids)
        _save(part / f'gtFine/{name}_gtFine_labelTrainIds.png', train_ids[ids])
        _save(part / f'gtFine/{name}_gtFine_instanceIds.png', instances)

    return _write_splits(folder, train, val, seed, sample)


def write_voc(folder: str | Path, train: int = 240, val: int = 40, seed: int = 0) -> Path:
    """Draws a dataset into `folder` (VOC's `VOC2012`) and returns it.

    Half of the training images are in `train.txt`, with masks in `SegmentationClass` and
    `SegmentationObject`; the other half are in `aug.txt`, with masks in `SegmentationClassAug`.
    """

    def sample(part: Path, split: str, index: int) -> str:
        image, found = draw_scene(np.random.default_rng((seed, index, 2012)), tuple(names.VOC_IDS))
        name = f'2012_{index:06d}'
        _save(part / f'JPEGImages/{name}.jpg', image)
        classes, objects = np.zeros((2, *image.shape[:2]), np.uint8)
        for number, (kind, mask) in enumerate(found, 1):
            classes[mask] = names.VOC_IDS[kind]
            objects[mask] = number
        if split == 'train' and index >= train - train // 2:
            _save_colored(part / f'SegmentationClassAug/{name}.png', classes)
            return name
        edge = cv2.morphologyEx(objects, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
        for kind, mask in (('Class', classes), ('Object', objects)):
            mask[edge] = IGNORED
            _save_colored(part / f'Segmentation{kind}/{name}.png', mask)
        return name

    def write_list(part: Path, split: str, listed: list[str]) -> None:
        lists = {split: listed}
        if split == 'train':
            half = train - train // 2
            lists = {'train': listed[:half], 'aug': listed[half:]}
        for name, lines in lists.items():
            content = ''.join(f'{line}\n' for line in lines)
            _write(part / f'ImageSets/Segmentation/{name}.txt', content)

    return _write_splits(folder, train, val, seed, sample, write_list)


def write_ucf101(folder: str | Path, train: int = 48, val: int = 16, seed: int = 0) -> Path:
    """Draws a dataset into `folder` (`videos`, `annotations`, two split lists) and returns it.

    Four of the 101 classes have clips, in turn; they are encoded videos in MMAction2's layout of
    split 1. An OpenCV that has no encoder of videos is an `InputError`, too.
    """

    def sample(part: Path, split: str, index: int) -> str:
        action = list(ACTIONS)[index % len(ACTIONS)]
        group, clip = divmod(index // len(ACTIONS), CLIPS_PER_GROUP)
        name = f'{action}/v_{action}_g{group + 1:02d}_c{clip + 1:02d}.avi'
        path = part / 'videos' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        codec = cv2.VideoWriter_fourcc(*'XVID')
        writer = cv2.VideoWriter(str(path), codec, FRAMES_PER_SECOND, CLIP[::-1])
        if not writer.isOpened():
            raise InputError('this OpenCV cannot encode XVID videos; install opencv-python')
        for frame in draw_clip(np.random.default_rng((seed, index, 101)), action, FRAMES, *CLIP):
            writer.write(frame)
        writer.release()
        return f'{name} {names.UCF101.index(action)}\n'

    def write_list(part: Path, split: str, lines: list[str]) -> None:
        _write(part / f'ucf101_{split}_split_1_videos.txt', ''.join(lines))
        classes = ''.join(f'{number} {name}\n' for number, name in enumerate(names.UCF101, 1))
        _write(part / 'annotations/classInd.txt', classes)

    return _write_splits(folder, train, val, seed, sample, write_list)


def write_imagenet(folder: str | Path, train: int = 480, val: int = 100, seed: int = 0) -> Path:
    """Draws a dataset into `folder` (`train`, `val`, and lists of both in `meta`) and returns it.

    Ten of the 1000 classes have images, in turn, in a folder each; the lists give every image its
    ImageNet class id.
    """

    def sample(part: Path, split: str, index: int) -> str:
        name, class_id, thing = names.IMAGENET[index % len(names.IMAGENET)]
        image, _ = draw_scene(np.random.default_rng((seed, index, 1000)), [thing])
        file_name = f'{name}/{name}_{index}.JPEG'
        _save(part / split / file_name, image)
        return f'{file_name} {class_id}\n'

    def write_list(part: Path, split: str, lines: list[str]) -> None:
        _write(part / f'meta/{split}.txt', ''.join(lines))

    return _write_splits(folder, train, val, seed, sample, write_list)


def _write_splits(
    folder: str | Path,
    train: int,
    val: int,
    seed: int,
    sample: Sample,
    write_list: Callable[[Path, str, list], None] = lambda part, split, samples: None,
) -> Path:
    """Writes the samples of both splits, numbered throughout, and the list of each split."""

    def draw(part: Path) -> None:
        for split, numbers in (('train', range(train)), ('val', range(train, train + val))):
            write_list(part, split, [sample(part, split, number) for number in numbers])

    return write_folder(folder, {'train': train, 'val': val, 'seed': seed}, draw)


def _write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def _save(path: Path, image: np.ndarray) -> None:
    """Writes a PNG as it is, and any other image as a JPEG of quality 92."""
    suffix = '.png' if path.suffix == '.png' else '.jpg'
    quality = [] if suffix == '.png' else [cv2.IMWRITE_JPEG_QUALITY, 92]
    _write(path, cv2.imencode(suffix, image, quality)[1].tobytes())


def _save_colored(path: Path, mask: np.ndarray) -> None:
    """Writes a mask with VOC's palette: an id's bits, spread over red, green and blue."""
    ids = np.arange(256)
    palette = [
        sum(((ids >> (3 * bit + channel)) & 1) << (7 - bit) for bit in range(8))
        for channel in range(3)
    ]
    image = Image.fromarray(mask, mode='P')
    image.putpalette(np.stack(palette, 1).reshape(-1).tolist())
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def _outline(mask: np.ndarray) -> dict:
    """Returns COCO's box (x, y, width, height), area and polygons of a mask."""
    ys, xs = np.nonzero(mask)
    contours, _ = cv2.findContours(
        mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_TC89_L1
    )
    x, y = int(xs.min()), int(ys.min())
    return {
        'iscrowd': 0,
        'bbox': [x, y, int(xs.max()) - x + 1, int(ys.max()) - y + 1],
        'area': int(mask.sum()),
        'segmentation': [c.reshape(-1).tolist() for c in contours if len(c) >= 3],
    }
