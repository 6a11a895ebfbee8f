"""Folders of classes and lists of labelled images are checked before a training."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from mmengine.registry import DATASETS
from PIL import Image

from bnet_mm.engine.config import load_config
from bnet_mm.engine.data.files import explain_files
from bnet_mm.errors import InputError

CONFIG = 'configs/resnet18_bnet3_100e_in1k.py'
TEN = [f'class{i}' for i in range(10)]


def check_data(cfg, stages):
    """Raises what a run that failed would be told of its files."""
    if problem := explain_files(cfg, stages):
        raise InputError(problem)


def check(data: Path, options: dict | None = None) -> None:
    check_data(load_config(CONFIG, {'data_root': str(data), **(options or {})}), ('train', 'val'))


@pytest.fixture
def listed(demo_imagenet, tmp_path):
    return Path(shutil.copytree(demo_imagenet, tmp_path / 'imagenet'))


@pytest.fixture
def folders(listed):
    shutil.rmtree(listed / 'meta')
    return listed


def named(classes):
    return {f'{s}_dataloader.dataset.metainfo': {'classes': classes} for s in ('train', 'val')}


def test_what_is_in_order_passes(listed):
    check(listed)
    shutil.rmtree(listed / 'meta')
    check(listed, {**named(TEN), 'model.head.num_classes': 10})


@pytest.mark.parametrize(
    ('line', 'sentence'),
    [
        ('n02708093/gone.JPEG 409', 'there is no file'),
        ('n02708093/n02708093_0.JPEG', 'there is no label; a line is FILE LABEL'),
        ('n02708093/n02708093_0.JPEG clock', "label 'clock' is not a number of a class"),
        ('n02708093/n02708093_0.JPEG 1000', 'label 1000 is out of range: the 1000 classes'),
        ('', 'line 2 is blank'),
    ],
)
def test_lines_of_lists(line, sentence, listed):
    file = listed / 'meta/val.txt'
    lines = file.read_text().splitlines()
    file.write_text('\n'.join([lines[0], line, *lines[1:]]) + '\n')
    with pytest.raises(InputError, match=r'val\.txt, line 2') as error:
        check(listed)
    assert sentence in str(error.value)


def test_a_head_of_less_classes_is_named(listed):
    with pytest.raises(InputError, match=r'label 409 is out of range.*model\.head\.num_classes'):
        check(listed, {'model.head.num_classes': 10})


def test_folders(folders):
    with pytest.raises(InputError, match='has 10 folders, and the dataset 1000 classes') as error:
        check(folders)
    assert "dataset.metainfo.classes=('n02708093'" in str(error.value)
    with pytest.raises(InputError, match=r'num_classes=5: set model\.head\.num_classes=10'):
        check(folders, {**named(TEN), 'model.head.num_classes': 5})
    for file in (folders / 'val/n02708093').iterdir():
        file.unlink()
    with pytest.raises(InputError, match='n02708093 is empty'):
        check(folders, named(TEN))
    shutil.rmtree(folders / 'val')
    with pytest.raises(InputError, match=r'nothing at .*val;.*make_demo_data\.py imagenet'):
        check(folders, named(TEN))
    (folders / 'val').mkdir()
    with pytest.raises(InputError, match='has no folders; it should have one for each class'):
        check(folders, named(TEN))


@pytest.fixture
def cifar(tmp_path):
    """Two images of each class, in folders."""
    __import__('mmpretrain.datasets')
    names = DATASETS.build(dict(type='CIFAR10Folders', data_root='x', lazy_init=True)).CLASSES
    for split in ('train', 'val'):
        for label, name in enumerate(names):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(2):
                pixels = np.full((32, 32, 3), (10 * label, 20, 30 + i), np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f'{i}.png')
    return tmp_path


def build_cifar(root, split='train'):
    return DATASETS.build(dict(type='CIFAR10Folders', data_root=str(root), split=split))


@pytest.mark.parametrize('split', ['train', 'test'])
def test_cifar_in_folders(split, cifar):
    dataset = build_cifar(cifar, split)
    assert len(dataset) == 20
    for i in range(20):
        sample = dataset.get_data_info(i)
        assert sample['img'].shape == (32, 32, 3)
        # RGB, as the published batches have it.
        assert sample['img'][0, 0].tolist() == [10 * sample['gt_label'], 20, 30 + i % 2]


def test_broken_cifar_folders_are_named(cifar):
    Image.new('RGB', (33, 32)).save(cifar / 'train/cat/1.png')
    with pytest.raises(InputError, match=r'cat/1\.png is 33x32 pixels'):
        build_cifar(cifar)
    (cifar / 'train/cat/1.png').write_bytes(b'no image')
    with pytest.raises(InputError, match=r'cat/1\.png cannot be read as an image'):
        build_cifar(cifar)
    shutil.rmtree(cifar / 'train/cat')
    with pytest.raises(InputError, match='cat has no images'):
        build_cifar(cifar)
    shutil.rmtree(cifar / 'train')
    with pytest.raises(InputError, match='none for its train split'):
        build_cifar(cifar)


def test_published_batches_are_read_by_the_library(tmp_path):
    with pytest.raises(RuntimeError, match='Cannot find CIFAR10'):
        DATASETS.build(dict(type='CIFAR10Folders', data_root=str(tmp_path), download=False))
