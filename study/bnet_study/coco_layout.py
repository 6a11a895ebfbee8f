"""Finds boxes and photos in folders that are laid out as COCO or Pascal VOC, or nearly so."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bnet_mm.errors import InputError
from bnet_study.voc_layout import read_voc

SPLITS = {'train': ('train',), 'test': ('val', 'valid', 'test')}
HELD_OUT = 5


@dataclass(frozen=True)
class Detection:
    """A data set of boxes.

    Attributes:
        annotations: COCO's JSON of each split, 'train' and 'test'.
        photos: the folder that the file names of a split are relative to.
        classes: names of the categories that occur in training.
        images: photos of each split.
        remark: what should be said of how it was read, or ''.
    """

    annotations: dict[str, Path]
    photos: dict[str, Path]
    classes: tuple[str, ...]
    images: tuple[int, int]
    remark: str


def find_detection(root: Path, folder: Path) -> Detection:
    """Finds the parts of a data set with boxes.

    Args:
        root: with `annotations/*train*.json` and `*val*.json`, or an `*.json` in the folder of
            each split; photos anywhere the JSON's file names lead to from `root`, from a folder of
            the split's name, `images` or beside the JSON. Of a single JSON every fifth photo is
            held out. Or with Pascal VOC's XML files (`read_voc`).
        folder: for annotations of splits that had to be made.

    Raises:
        InputError: there are no annotations, or no photos to them.
    """
    if not root.is_dir():
        raise InputError(
            f'the data {root} is no folder here; name the folder that holds it with --data-root'
        )
    files = sorted({*root.glob('*.json'), *root.glob('*/*.json'), *root.glob('*/*/*.json')})
    found = {split: _of_split(root, files, names) for split, names in SPLITS.items()}
    remark = ''
    if not all(found.values()):
        single = next((f for f in files if _is_boxes(_read(f))), None)
        if single is None:
            return _of_voc(root, folder)
        found = dict(zip(SPLITS, _divide(_read(single), folder)))
        remark = f'{root} has no test split: every {HELD_OUT}th photo of {single.name} is held out'
        origin = dict.fromkeys(found, single)
    else:
        origin = found
    contents = {split: _read(file) for split, file in found.items()}
    photos = {s: _photos(root, origin[s], contents[s], SPLITS[s]) for s in found}
    return _detection(found, contents, photos, remark)


def _of_voc(root: Path, folder: Path) -> Detection:
    splits, remark = read_voc(root), ''
    if not splits:
        raise InputError(
            f"{root} has no COCO annotations (JSON with 'images' and boxes), nor XML files of "
            f"Pascal VOC's"
        )
    if '' in splits and 'train' not in splits:
        found = dict(zip(SPLITS, _divide(splits[''], folder)))
        remark = f'{root} has no test split: every {HELD_OUT}th photo is held out'
    else:
        found = {split: _write(splits[split], folder, split) for split in SPLITS}
    contents = {split: _read(file) for split, file in found.items()}
    return _detection(found, contents, dict.fromkeys(found, root), remark)


def _detection(
    found: dict[str, Path], contents: dict[str, Any], photos: dict[str, Path], remark: str
) -> Detection:
    used = {box['category_id'] for box in contents['train']['annotations']}
    classes = [c['name'] for c in contents['train']['categories'] if c['id'] in used]
    images = (len(contents['train']['images']), len(contents['test']['images']))
    return Detection(found, photos, tuple(classes), images, remark)


def _of_split(root: Path, files: list[Path], names: tuple[str, ...]) -> Path | None:
    for name in names:
        for file in files:
            words = '/'.join(file.relative_to(root).parts).lower()
            if name in words and _is_boxes(_read(file)):
                return file
    return None


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise InputError(f'{file} cannot be read as JSON: {error}') from error


def _is_boxes(contents: Any) -> bool:
    if not isinstance(contents, dict) or not contents.get('images'):
        return False
    boxes = contents.get('annotations')
    return isinstance(boxes, list) and any('bbox' in box for box in boxes[:100])


def _photos(root: Path, file: Path, contents: dict, names: tuple[str, ...]) -> Path:
    first = contents['images'][0]['file_name']
    years = [path for name in names for path in sorted(root.glob(f'{name}*')) if path.is_dir()]
    images = [root / 'images' / name for name in names]
    for place in (*years, *images, root / 'images', root, file.parent):
        if (place / first).is_file():
            return place
    raise InputError(f'{file} names the photo {first}, which is in no folder of {root}')


def _divide(contents: Any, folder: Path) -> list[Path]:
    images = sorted(contents['images'], key=lambda image: image['file_name'])
    parts = []
    for split in SPLITS:
        kept = [
            image
            for i, image in enumerate(images)
            if (i % HELD_OUT == HELD_OUT - 1) == (split == 'test')
        ]
        ids = {image['id'] for image in kept}
        boxes = [box for box in contents['annotations'] if box['image_id'] in ids]
        parts.append(_write({**contents, 'images': kept, 'annotations': boxes}, folder, split))
    return parts


def _write(contents: Any, folder: Path, split: str) -> Path:
    part = folder / f'{split}.json'
    part.write_text(json.dumps(contents))
    return part
