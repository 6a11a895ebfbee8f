"""The drawn Cityscapes, VOC and UCF-101: as the libraries and the real ones have them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import decord
import numpy as np
import pytest
from PIL import Image

from bnet_mm.demo import write_cityscapes, write_coco, write_imagenet, write_ucf101, write_voc
from bnet_mm.demo.names import CITYSCAPES_TRAIN_IDS, IMAGENET, UCF101, VOC_IDS
from bnet_mm.demo.street import COUNTED, IDS

WRITERS = [write_cityscapes, write_coco, write_imagenet, write_ucf101, write_voc]


def digest(folder: Path) -> str:
    files = sorted(p for p in folder.rglob('*') if p.is_file())
    return hashlib.sha256(b''.join(p.read_bytes() for p in files)).hexdigest()


@pytest.mark.parametrize('write', WRITERS)
def test_the_same_seed_draws_the_same_files(write, tmp_path):
    one = digest(write(tmp_path / 'a', 2, 1, seed=5))
    assert one == digest(write(tmp_path / 'b', 2, 1, seed=5))
    assert one != digest(write(tmp_path / 'c', 2, 1, seed=6))


def test_streets_have_cityscapes_names_sizes_and_ids(demo_cityscapes):
    images = sorted((demo_cityscapes / 'leftImg8bit/train').rglob('*_leftImg8bit.png'))
    assert len(images) == 4
    seen = set()
    for path in images:
        image = cv2.imread(str(path))
        name = path.name.replace('_leftImg8bit.png', '')
        folder = demo_cityscapes / 'gtFine/train' / path.parent.name
        ids, train_ids, instances = (
            cv2.imread(str(folder / f'{name}_gtFine_{kind}.png'), cv2.IMREAD_UNCHANGED)
            for kind in ('labelIds', 'labelTrainIds', 'instanceIds')
        )
        assert image.shape[:2] == ids.shape == train_ids.shape == instances.shape
        assert instances.dtype == np.uint16
        seen |= set(np.unique(ids).tolist())
        expected = [
            CITYSCAPES_TRAIN_IDS.index(i) if i in CITYSCAPES_TRAIN_IDS else 255 for i in range(256)
        ]
        assert np.array_equal(train_ids, np.array(expected)[ids])
        things = [IDS[name] for name in COUNTED]
        assert np.array_equal(np.where(instances >= 1000, instances // 1000, instances), ids)
        assert np.array_equal(instances >= 1000, np.isin(ids, things))
    assert {IDS['road'], IDS['sky'], IDS['building'], IDS['car']} <= seen <= set(IDS.values())


def test_classes_are_the_libraries(demo_cityscapes):
    from mmseg.datasets import CityscapesDataset, PascalVOCDataset

    trained = {name: i for name, i in IDS.items() if i in CITYSCAPES_TRAIN_IDS}
    classes = CityscapesDataset.METAINFO['classes']
    assert all(classes[CITYSCAPES_TRAIN_IDS.index(i)] == name for name, i in trained.items())
    assert trained.keys() == IDS.keys() & set(classes)
    assert all(PascalVOCDataset.METAINFO['classes'][i] == name for name, i in VOC_IDS.items())


def test_voc_masks_agree_with_one_another_and_are_coloured_as_vocs(demo_voc):
    from mmseg.datasets import PascalVOCDataset

    lists = demo_voc / 'ImageSets/Segmentation'
    counts = {s: lists.joinpath(f'{s}.txt').read_text().split() for s in ('train', 'aug', 'val')}
    assert {split: len(names) for split, names in counts.items()} == {
        'train': 3, 'aug': 3, 'val': 2,
    }  # fmt: skip
    for name in counts['train'] + counts['val']:
        classes = Image.open(demo_voc / f'SegmentationClass/{name}.png')
        objects = np.array(Image.open(demo_voc / f'SegmentationObject/{name}.png'))
        ids = np.array(classes)
        assert classes.size == Image.open(demo_voc / f'JPEGImages/{name}.jpg').size
        assert np.array_equal(ids == 255, objects == 255) and (ids == 255).any()
        assert np.array_equal(ids == 0, objects == 0)
        for number in set(np.unique(objects)) - {0, 255}:
            assert len(np.unique(ids[objects == number])) == 1
        colors = np.array(classes.convert('RGB'))[ids == ids[ids % 255 > 0][0]]
        palette = PascalVOCDataset.METAINFO['palette']
        assert colors[0].tolist() == palette[ids[ids % 255 > 0][0]]
    for name in counts['aug']:
        ids = np.array(Image.open(demo_voc / f'SegmentationClassAug/{name}.png'))
        assert ids.max() > 0 and set(np.unique(ids)) <= {0, *VOC_IDS.values()}


def test_clips_are_videos_that_move_and_labels_are_ucfs(demo_ucf101):
    assert len(UCF101) == len(set(UCF101)) == 101
    lines = (demo_ucf101 / 'annotations/classInd.txt').read_text().splitlines()
    assert (lines[0], lines[-1]) == ('1 ApplyEyeMakeup', '101 YoYo')
    listed = [
        line.split()
        for split in ('train', 'val')
        for line in (demo_ucf101 / f'ucf101_{split}_split_1_videos.txt').read_text().splitlines()
    ]
    assert len(listed) == len(dict(listed)) == 12
    for name, label in listed:
        assert UCF101[int(label)] == Path(name).parent.name
        video = decord.VideoReader(str(demo_ucf101 / 'videos' / name))
        assert len(video) == 40
        first, later = video[0].asnumpy().astype(float), video[12].asnumpy().astype(float)
        assert first.shape == (240, 320, 3)
        assert np.abs(first - later).max() > 60


def test_tool_draws_every_layout_where_the_stock_configs_look(run_tool, tmp_path):
    run_tool('make_demo_data.py', 'all', '--train', 2, '--val', 1, check=True)
    for path in ('coco/annotations/instances_val2017.json', 'cityscapes/gtFine/val',
                 'VOCdevkit/VOC2012/ImageSets/Segmentation/aug.txt',
                 'ucf101/ucf101_val_split_1_videos.txt'):  # fmt: skip
        assert (tmp_path / 'data' / path).exists()


@pytest.mark.parametrize('layout', ['coco', 'cityscapes', 'voc', 'ucf101'])
def test_tool_leaves_something_else_alone(layout, call_tool, tmp_path):
    place = {'voc': 'VOCdevkit/VOC2012'}.get(layout, layout)
    (tmp_path / 'data' / place).mkdir(parents=True)
    (tmp_path / 'data' / place / 'mine.txt').write_text('mine')
    result = call_tool('make_demo_data.py', layout)
    assert result.returncode == 2
    assert 'holds something that was not drawn here' in result.stderr
    kept = [p for p in (tmp_path / 'data').rglob('*') if p.is_file()]
    assert [p.read_text() for p in kept] == ['mine']


def test_tool_says_what_it_cannot_write(call_tool, tmp_path):
    (tmp_path / 'data').write_text('a file')
    result = call_tool('make_demo_data.py', 'voc')
    assert result.returncode == 2
    assert 'cannot be written' in result.stderr
    result = call_tool('make_demo_data.py', 'voc', '--train', 0)
    assert result.returncode == 2
    assert '0 is not 1 or more' in result.stderr


def test_imagenets_lists_have_its_class_ids_in_the_order_of_its_folders(demo_imagenet):
    from mmpretrain.datasets import ImageNet

    ids = [class_id for _, class_id, _ in IMAGENET]
    names = [name for name, _, _ in IMAGENET]
    assert names == sorted(names) and ids == sorted(ids)
    for split, count in (('train', 20), ('val', 10)):
        dataset = ImageNet(data_root=str(demo_imagenet), split=split)
        assert len(dataset) == count
        for sample in (dataset.get_data_info(i) for i in range(count)):
            path = Path(sample['img_path'])
            assert ids[names.index(path.parent.name)] == sample['gt_label']
            assert cv2.imread(str(path)).shape[2] == 3
    assert dataset.CLASSES[920].startswith('traffic light')
