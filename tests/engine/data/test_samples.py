"""Masks and clips are opened before the first step, and the first wrong one is named."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from abilities import needs_mmaction
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image

from bnet_mm.engine.config import load_config
from bnet_mm.engine.data.samples import find_bad_sample, leaves

VOC = 'configs/deeplabv3_r101_bnet3_d8_512x512_20k_voc12aug.py'
CITYSCAPES = 'configs/pspnet_r50_bnet3_d8_512x1024_40k_cityscapes.py'
VIDEOS = 'configs/tsn_r50_bnet3_1x1x3_100e_ucf101_split1_rgb.py'


def build(config: str, data: Path, stage: str = 'train', **entries):
    cfg = load_config(config, {'data_root': str(data)})
    init_default_scope(cfg.default_scope)
    return DATASETS.build({**cfg[f'{stage}_dataloader'].dataset, **entries})


def first_problem(dataset) -> str | None:
    for leaf in leaves(dataset):
        sentence, looked = find_bad_sample(leaf)
        if sentence:
            return sentence
        assert looked == len(leaf)
    return None


@pytest.fixture
def city(demo_cityscapes, tmp_path):
    return Path(shutil.copytree(demo_cityscapes, tmp_path / 'cityscapes'))


def masks(city: Path, split: str = 'train') -> list[Path]:
    return sorted((city / f'gtFine/{split}').rglob('*_labelTrainIds.png'))


def test_good_data_passes(demo_cityscapes, demo_voc, demo_ucf101, demo_coco):
    assert first_problem(build(CITYSCAPES, demo_cityscapes)) is None
    assert len(list(leaves(build(VOC, demo_voc)))) == 2
    assert first_problem(build(VOC, demo_voc)) is None
    assert first_problem(build(VIDEOS, demo_ucf101)) is None
    assert first_problem(build('configs/faster_rcnn_r50_bnet5_fpn_ms_3x.py', demo_coco)) is None


@needs_mmaction
def test_real_data_passes(real_data):
    assert first_problem(build(CITYSCAPES, real_data / 'cityscapes')) is None
    assert first_problem(build(VOC, real_data / 'VOCdevkit/VOC2012')) is None
    assert first_problem(build(VIDEOS, real_data / 'ucf101')) is None


@pytest.mark.parametrize('wrong', [19, 33, 254])
def test_class_id_beyond_the_classes(wrong, city):
    path = masks(city)[2]
    mask = np.array(Image.open(path))
    mask[3, 5] = wrong
    Image.fromarray(mask).save(path)
    sentence = first_problem(build(CITYSCAPES, city))
    assert path.name in sentence
    assert (
        f'has the class id {wrong}, which is out of range: the dataset has 19 classes' in sentence
    )


def test_ids_of_sixteen_bits_do_not_wrap_around(city):
    path = masks(city)[0]
    mask = np.array(Image.open(path)).astype(np.uint16)
    mask[0, 0] = 256 + 7  # a car's neighbour, once it is cut to eight bits
    Image.fromarray(mask).save(path)
    assert 'class id 263' in first_problem(build(CITYSCAPES, city))


def test_classes_that_are_left_out_or_counted_from_one(city):
    fewer = dict(metainfo=dict(classes=('road', 'car')))
    assert first_problem(build(CITYSCAPES, city, **fewer)) is None
    path = masks(city)[0]
    mask = np.array(Image.open(path))
    mask[0, 0] = 19
    Image.fromarray(mask).save(path)
    assert 'class id 19' in first_problem(build(CITYSCAPES, city))
    assert first_problem(build(CITYSCAPES, city, reduce_zero_label=True)) is None
    mask[0, 0] = 20
    Image.fromarray(mask).save(path)
    assert 'class id 20' in first_problem(build(CITYSCAPES, city, reduce_zero_label=True))


def test_masks_that_are_none(city):
    dataset = build(CITYSCAPES, city)
    path = masks(city)[1]
    mask = Image.open(path).copy()

    mask.convert('RGB').save(path)
    assert f'{path} is a colour image' in first_problem(dataset)
    mask.crop((0, 0, 40, 30)).save(path)
    assert f'{path} is 40x30 pixels and' in first_problem(dataset)
    path.write_bytes(b'no image')
    assert f'{path} cannot be read as an image' in first_problem(dataset)
    mask.save(path)
    image = Path(dataset.get_data_info(1)['img_path'])
    whole = image.read_bytes()
    image.write_bytes(b'no image')
    assert f'{image} cannot be read as an image' in first_problem(dataset)
    image.write_bytes(whole)
    path.unlink()
    assert f'there is no file {path}' in first_problem(dataset)


@pytest.mark.parametrize('left', [0, 100, 5000])
def test_video_that_does_not_decode(left, demo_ucf101, tmp_path):
    data = Path(shutil.copytree(demo_ucf101, tmp_path / 'ucf101'))
    video = data / 'videos/Swing/v_Swing_g01_c02.avi'
    video.write_bytes(video.read_bytes()[:left])
    sentence = first_problem(build(VIDEOS, data))
    assert str(video) in sentence
    assert 'cannot be decoded as a video' in sentence


def test_a_decoder_that_is_missing_is_not_the_videos_fault(demo_ucf101, monkeypatch):
    monkeypatch.setitem(sys.modules, 'decord', None)  # as if it were not installed
    sentence = first_problem(build(VIDEOS, demo_ucf101))
    assert 'cannot be decoded: a package is missing' in sentence
    assert 'pip install decord' in sentence


def test_time_limit_is_kept_and_said(demo_cityscapes):
    dataset = build(CITYSCAPES, demo_cityscapes)
    dataset._indices = None
    sentence, looked = find_bad_sample(dataset, seconds=0)
    assert sentence is None
    assert 0 < looked <= len(dataset)
