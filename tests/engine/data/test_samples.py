"""Masks and clips are opened before the first step, and the first wrong one is named."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from time import monotonic, sleep

import numpy as np
import pytest
from abilities import needs_mmaction
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image

from bnet_mm.engine.config import load_config
from bnet_mm.engine.data.samples import leaves, look

VOC = 'configs/deeplabv3_r101_bnet3_d8_512x512_20k_voc12aug.py'
CITYSCAPES = 'configs/pspnet_r50_bnet3_d8_512x1024_40k_cityscapes.py'
VIDEOS = 'configs/tsn_r50_bnet3_1x1x3_100e_ucf101_split1_rgb.py'


def build(config: str, data: Path, stage: str = 'train', **entries):
    cfg = load_config(config, {'data_root': str(data)})
    init_default_scope(cfg.default_scope)
    return DATASETS.build({**cfg[f'{stage}_dataloader'].dataset, **entries})


def problems(dataset, stage: str = 'val') -> list[str]:
    return [finding.text for finding in look([(stage, leaf) for leaf in leaves(dataset)], None)]


def first_problem(dataset) -> str | None:
    return next(iter(problems(dataset)), None)


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


def test_ids_of_sixteen_bits_that_wrap_around(city):
    path = masks(city)[0]
    mask = np.array(Image.open(path)).astype(np.uint16)
    mask[0, 0] = 256 + 7  # a car's neighbour, once it is cut to eight bits
    Image.fromarray(mask).save(path)
    assert 'class id 263, which is loaded as 7' in first_problem(build(CITYSCAPES, city))
    mask[0, 0] = 65535  # void, before and after
    Image.fromarray(mask).save(path)
    assert first_problem(build(CITYSCAPES, city)) is None


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
    assert 'samples cannot be loaded: a package is missing' in sentence
    assert 'pip install decord' in sentence


def test_the_time_limit_is_kept_for_all_datasets_together(demo_cityscapes, monkeypatch):
    dataset = build(CITYSCAPES, demo_cityscapes)
    monkeypatch.setattr(dataset.pipeline.transforms[0], 'transform', lambda _: sleep(30))
    start = monotonic()
    assert look([('train', dataset), ('val', dataset)] * 5, seconds=0.3) == []
    assert monotonic() - start < 10


def test_random_numbers_are_given_back(demo_ucf101):
    dataset = build(VIDEOS, demo_ucf101)
    np.random.seed(0)
    state = np.random.get_state()[1].tolist()
    assert look([('train', dataset)], None) == []
    assert np.random.get_state()[1].tolist() == state


def test_classes_that_never_occur_and_objects_that_are_drawn_as_ignored(city):
    dataset = build(CITYSCAPES, city, metainfo=dict(classes=('road', 'car')))
    for path in masks(city):
        Image.fromarray(np.full_like(np.array(Image.open(path)), 0)).save(path)
    [said] = problems(dataset, 'train')
    assert said.endswith(f'never in its {len(dataset)} masks: car')
    for path in masks(city):
        mask = np.array(Image.open(path))
        mask[:16] = 255
        Image.fromarray(mask).save(path)
    assert 'an object that is drawn as 255 is not trained' in problems(dataset, 'train')[0]
    assert problems(dataset, 'val') == []


@pytest.mark.parametrize('shape', [(40, 60), (48, 48)])
def test_photos_that_are_turned_without_their_masks(shape, tmp_path):
    for folder in ('img', 'ann'):
        (tmp_path / folder).mkdir()
    photo = Image.fromarray(np.zeros((*shape, 3), np.uint8))
    exif = photo.getexif()
    exif[0x0112] = 6
    photo.save(tmp_path / 'img/0.jpg', exif=exif)
    Image.fromarray(np.zeros(shape, np.uint8)).save(tmp_path / 'ann/0.png')

    def said(**options) -> str | None:
        init_default_scope('mmseg')
        steps = [dict(type='LoadImageFromFile', **options), dict(type='LoadAnnotations')]
        return first_problem(
            DATASETS.build(
                dict(
                    type='BaseSegDataset',
                    data_root=str(tmp_path),
                    data_prefix=dict(img_path='img', seg_map_path='ann'),
                    metainfo=dict(classes=('bg', 'box')),
                    img_suffix='.jpg',
                    seg_map_suffix='.png',
                    pipeline=steps,
                )
            )
        )

    assert f'{tmp_path}/img/0.jpg is turned by its EXIF orientation' in said()
    assert said(color_type='color_ignore_orientation') is None


def test_what_only_the_pipeline_s_own_loader_reads_is_no_fault(city):
    dataset = build(CITYSCAPES, city)
    image = Path(dataset.get_data_info(0)['img_path'])
    np.save(image.with_suffix('.npy'), np.zeros((4, 4, 5), np.float32))
    shutil.move(image.with_suffix('.npy'), image)
    assert 'cannot be read as an image' in first_problem(dataset)

    class LoadImageFromNpy:
        def __call__(self, results):
            results['img'] = np.zeros((*np.array(Image.open(masks(city)[0])).shape, 5), np.float32)
            return results

    dataset.pipeline.transforms[0] = LoadImageFromNpy()
    assert first_problem(dataset) is None
