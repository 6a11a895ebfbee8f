"""The drawn COCO dataset: valid, repeatable, and never in the place of something else."""

from __future__ import annotations

import hashlib
import json

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from bnet_mm.demo import write_coco
from bnet_mm.demo.names import COCO_IDS
from bnet_mm.errors import InputError


def digest(folder) -> str:
    files = sorted(p for p in folder.rglob('*') if p.is_file())
    return hashlib.sha256(b''.join(p.read_bytes() for p in files)).hexdigest()


def test_the_same_seed_draws_the_same_files(tmp_path):
    one = digest(write_coco(tmp_path / 'a', 3, 2, seed=5))
    assert one == digest(write_coco(tmp_path / 'b', 3, 2, seed=5))
    assert one != digest(write_coco(tmp_path / 'c', 3, 2, seed=6))


def test_categories_are_cocos():
    from mmdet.datasets import CocoDataset

    assert tuple(COCO_IDS) == CocoDataset.METAINFO['classes']
    assert (COCO_IDS['person'], COCO_IDS['toothbrush']) == (1, 90)
    assert COCO_IDS['stop sign'] == 13


def test_boxes_areas_and_polygons_agree(demo_coco):
    coco = COCO(demo_coco / 'annotations/instances_train2017.json')
    assert len(coco.imgs) == 12
    for annotation in coco.anns.values():
        image = coco.imgs[annotation['image_id']]
        mask = coco.annToMask(annotation)
        assert mask.shape == (image['height'], image['width'])
        x, y, w, h = annotation['bbox']
        assert x >= 0 and y >= 0 and x + w <= image['width'] and y + h <= image['height']
        assert mask.sum() == pytest.approx(annotation['area'], rel=0.25, abs=40)
        assert mask[y : y + h, x : x + w].sum() >= 0.95 * mask.sum()
    image = cv2.imread(str(demo_coco / 'train2017/000000000001.jpg'))
    assert image.shape[:2] == (coco.imgs[1]['height'], coco.imgs[1]['width'])
    assert image.std() > 10


def test_objects_hide_one_another(demo_coco):
    coco = COCO(demo_coco / 'annotations/instances_train2017.json')
    boxes = [(a['image_id'], np.array(a['bbox'])) for a in coco.anns.values()]
    overlapping = sum(
        i == j and (np.maximum(a[:2], b[:2]) < np.minimum(a[:2] + a[2:], b[:2] + b[2:])).all()
        for n, (i, a) in enumerate(boxes)
        for j, b in boxes[n + 1 :]
    )
    assert overlapping > 0


def test_the_same_dataset_is_kept_and_another_replaces_it(tmp_path):
    folder = write_coco(tmp_path / 'coco', 2, 1)
    touched = (folder / 'annotations/instances_val2017.json').stat().st_mtime_ns
    write_coco(folder, 2, 1)
    assert (folder / 'annotations/instances_val2017.json').stat().st_mtime_ns == touched
    write_coco(folder, 3, 1)
    images = json.loads((folder / 'annotations/instances_train2017.json').read_text())['images']
    assert len(images) == len(list((folder / 'train2017').iterdir())) == 3


def test_something_else_in_the_folder_is_left_alone(tmp_path):
    (tmp_path / 'coco').mkdir()
    (tmp_path / 'coco/photo.jpg').write_bytes(b'mine')
    with pytest.raises(InputError, match='holds something that was not drawn here'):
        write_coco(tmp_path / 'coco', 1, 1)
    assert [p.name for p in tmp_path.rglob('*') if p.is_file()] == ['photo.jpg']


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / 'coco').write_text('mine')
    with pytest.raises(InputError, match='coco is a file; name a folder'):
        write_coco(tmp_path / 'coco', 1, 1)


def test_an_interrupted_writing_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr('bnet_mm.demo.layouts._outline', lambda mask: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_coco(tmp_path / 'coco', 1, 1)
    assert list(tmp_path.iterdir()) == []
