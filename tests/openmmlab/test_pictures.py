"""Images as models see them: what each library's own loading and preprocessor give."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from abilities import needs_mmaction
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import TRANSFORMS

from bnet_mm.engine.config import load_config
from bnet_mm.errors import InputError
from bnet_mm.openmmlab.models import build_model
from bnet_mm.openmmlab.pictures import in_colours, preprocessed, read_image

ROOT = Path(__file__).resolve().parents[2]
PICTURE = 'LoadImageFromFile'
CLIP = ('DecordInit', {'type': 'SampleFrames', 'clip_len': 1, 'num_clips': 1}, 'DecordDecode',
        {'type': 'FormatShape', 'input_format': 'NCHW'})  # fmt: skip


@pytest.fixture(scope='module')
def blue_and_orange(tmp_path_factory):
    """An image and a video of the same two colours, which no swapped channel leaves alike."""
    folder = tmp_path_factory.mktemp('colours')
    image = np.zeros((64, 64, 3), np.uint8)
    image[:32], image[32:] = (220, 60, 20), (10, 130, 240)  # BGR
    cv2.imwrite(str(folder / 'p.png'), image)
    video = cv2.VideoWriter(str(folder / 'v.avi'), cv2.VideoWriter_fourcc(*'MJPG'), 10, (64, 64))
    for _ in range(4):
        video.write(image)
    video.release()
    return image, folder


def seen(model, scope: str, steps, sample: dict) -> torch.Tensor:
    """Returns what a library's loading and the model's preprocessor make of a file."""
    with TRANSFORMS.switch_scope_and_registry(scope):
        pipeline = Compose([s if isinstance(s, dict) else {'type': s} for s in steps])
    model.data_preprocessor.pad_size_divisor = 1
    inputs = model.data_preprocessor(pseudo_collate([pipeline(sample)]))['inputs']
    return inputs.flatten(0, inputs.dim() - 4)


@pytest.mark.parametrize(
    ('config', 'pack'),
    [
        ('faster_rcnn_r50_bnet5_fpn_1x', 'PackDetInputs'),
        ('pspnet_r50_bnet3_d8_512x1024_40k_cityscapes', 'PackSegInputs'),
        ('resnet18_bnet3_100e_in1k', 'PackInputs'),
    ],
)
def test_images(config, pack, blue_and_orange):
    image, folder = blue_and_orange
    cfg = load_config(ROOT / f'configs/{config}.py')
    model = build_model(cfg)
    sample = {'img_path': str(folder / 'p.png'), 'seg_fields': [], 'reduce_zero_label': False}
    if pack == 'PackSegInputs':
        model.data_preprocessor.test_cfg = None
    pack = {'type': pack, 'meta_keys': ('img_path', 'img_shape', 'ori_shape')}
    theirs = seen(model, cfg.default_scope, (PICTURE, pack), sample)
    torch.testing.assert_close(preprocessed(image, model), theirs)


@needs_mmaction
def test_video_frames(blue_and_orange):
    image, folder = blue_and_orange
    cfg = load_config(ROOT / 'configs/tsn_r50_bnet3_1x1x3_100e_ucf101_split1_rgb.py')
    model = build_model(cfg)
    sample = {'filename': str(folder / 'v.avi'), 'start_index': 0, 'modality': 'RGB', 'label': 0}
    theirs = seen(model, 'mmaction', (*CLIP, 'PackActionInputs'), sample)
    ours, theirs = (t[..., 8:24, 8:24] for t in (preprocessed(image, model), theirs))
    torch.testing.assert_close(ours, theirs, atol=0.15, rtol=0)


def test_cifar():
    cfg = load_config(ROOT / 'configs/resnet20_bnet3_cifar10.py')
    model = build_model(cfg)
    image = np.full((32, 32, 3), (10, 130, 240), np.uint8)  # BGR
    rgb = torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1)
    theirs = model.data_preprocessor({'inputs': [rgb]})['inputs']
    torch.testing.assert_close(preprocessed(image, model), theirs)


@pytest.mark.parametrize('channels', [1, 4, 10])
def test_files_of_other_bands(channels, tmp_path):
    bands = np.random.default_rng(0).random((20, 30, channels)).astype(np.float32) * 900 - 20
    np.save(tmp_path / 'bands.npy', bands)
    image = read_image(tmp_path / 'bands.npy', channels)
    assert np.array_equal(image, bands)
    shown = in_colours(image)
    assert shown.shape == (20, 30, 3) and shown.dtype == np.uint8
    assert shown.min() == 0 and shown.max() == 255
    with pytest.raises(InputError, match=rf'\(20, 30, {channels}\), and the network takes 5'):
        read_image(tmp_path / 'bands.npy', 5)
    if channels == 4:
        cv2.imwrite(str(tmp_path / 'bands.tif'), bands)
        assert np.array_equal(read_image(tmp_path / 'bands.tif', 4), bands)


def test_a_network_of_grey_images_takes_coloured_files(blue_and_orange):
    image = read_image(blue_and_orange[1] / 'p.png', 1)
    assert image.shape == (64, 64, 1)
    assert np.array_equal(in_colours(image)[..., 0], image[..., 0])
