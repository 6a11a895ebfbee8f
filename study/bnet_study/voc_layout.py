"""Reads boxes in the XML files of Pascal VOC, one for each photo, as COCO's JSON."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import Any
from xml.etree import ElementTree

from PIL import Image, UnidentifiedImageError

from bnet_mm.errors import InputError
from bnet_study.images import EXTENSIONS, TEST, TRAIN

CORNERS = ('xmin', 'ymin', 'xmax', 'ymax')


def read_voc(root: Path) -> dict[str, dict[str, Any]]:
    """Returns COCO's JSON of each split of a data set in Pascal VOC's layout.

    A photo is of the split that `ImageSets/Main/*.txt` or a folder above its XML file names. Where
    that does not give both, for training and for testing, all photos are under ''. A box that is
    marked as difficult becomes a crowd, which counts neither as found nor as missed.

    Args:
        root: with `.xml` files anywhere below, and a photo of the same name for each.

    Returns:
        for 'train' and 'test', or for '', images whose file names are relative to
        `root`, categories and annotations; nothing where no XML file is an annotation.

    Raises:
        InputError: a file cannot be read, or has no photo.
    """
    files = sorted(root.rglob('*.xml'))
    trees = {file: tree for file in files if (tree := _parsed(file)).tag == 'annotation'}
    if not trees:
        return {}
    boxes = {file: list(_boxes(file, tree)) for file, tree in trees.items()}
    names = sorted({name for found in boxes.values() for name, _, _ in found})
    categories = [dict(id=i, name=name) for i, name in enumerate(names, 1)]
    listed = _listed(root, {file.stem for file in trees})
    split_of = {
        file: listed.get(file.stem, '') if listed else _split_of(file.relative_to(root))
        for file in trees
    }
    if not {'train', 'test'} <= set(split_of.values()):
        split_of = dict.fromkeys(trees, '')
    photos: dict[str, list[Path]] = {}
    for photo in sorted(root.rglob('*')):
        if photo.suffix.lower() in EXTENSIONS:
            photos.setdefault(photo.stem, []).append(photo.relative_to(root))
    splits: dict[str, dict[str, Any]] = {}
    for file, found in boxes.items():
        place = file.relative_to(root)
        part = splits.setdefault(
            split_of[file], dict(categories=categories, images=[], annotations=[])
        )
        photo = _nearest(place, photos.get(file.stem, []))
        if photo is None:
            raise InputError(f'{file} has no photo of its name ({file.stem}.jpg, ...) in {root}')
        width, height = _size(root / photo)
        image = dict(
            id=len(part['images']) + 1, file_name=photo.as_posix(), width=width, height=height
        )
        part['images'].append(image)
        for name, (left, top, right, bottom), difficult in found:
            size = [right - left, bottom - top]
            part['annotations'].append(
                dict(id=len(part['annotations']) + 1, image_id=image['id'],
                     category_id=names.index(name) + 1, bbox=[left, top, *size],
                     area=size[0] * size[1], iscrowd=int(difficult))
            )  # fmt: skip
    return splits


def _parsed(file: Path) -> ElementTree.Element:
    try:
        text = file.read_bytes()
        if b'<!DOCTYPE' in text or b'<!ENTITY' in text:  # which make a small file a huge one
            raise InputError(f'{file} declares a document type, which no annotation needs')
        return ElementTree.fromstring(text)
    except (OSError, ElementTree.ParseError) as error:
        raise InputError(f'{file} cannot be read as XML: {error}') from error


def _boxes(file: Path, tree: ElementTree.Element) -> Iterable[tuple[str, list[float], bool]]:
    """Gives the class, corners and whether it is difficult of each object."""
    for thing in tree.findall('object'):
        try:
            corners = [float(thing.findtext(f'bndbox/{corner}', '')) for corner in CORNERS]
        except ValueError as error:
            raise InputError(f'{file}: an object has no bndbox of {", ".join(CORNERS)}') from error
        name, difficult = thing.findtext('name', ''), thing.findtext('difficult', '0')
        yield name.strip(), corners, difficult.strip() == '1'


def _listed(root: Path, annotated: set[str]) -> dict[str, str]:
    """Returns the split of each name that `ImageSets/Main` lists for training or testing.

    The test set is `test`, or `val` where none of `test` is annotated, as VOC's of 2012 are not.
    """
    lists: dict[str, set[str]] = {}
    for file in sorted(root.glob('**/ImageSets/Main/*.txt')):
        lines = file.read_text(encoding='utf-8', errors='replace').splitlines()
        names = {PurePath(line.split()[0]).stem for line in lines if line.strip()}
        lists.setdefault(file.stem, set()).update(names & annotated)
    test = next((lists[name] for name in TEST if lists.get(name)), set())
    train = lists.get('trainval', set()) | lists.get('train', set())
    return {**dict.fromkeys(train - test, 'train'), **dict.fromkeys(test, 'test')}


def _split_of(place: Path) -> str:
    for folder in place.parts[:-1]:
        for split, names in (('train', TRAIN), ('test', TEST)):
            if folder.lower() in names:
                return split
    return ''


def _nearest(place: Path, photos: list[Path]) -> Path | None:
    """Returns the photo that shares the most folders: two splits may use one name."""

    def shared(photo: Path) -> int:
        return len(set(place.parts[:-1]) & set(photo.parts[:-1]))

    return max(photos, key=shared, default=None)


def _size(photo: Path) -> tuple[int, int]:
    try:
        with Image.open(photo) as image:
            return image.size
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise InputError(f'the photo {photo} cannot be read: {error}') from error
