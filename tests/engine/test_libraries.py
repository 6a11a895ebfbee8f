"""The launchers with MMSegmentation and MMAction2: trained, evaluated, tested from a checkpoint."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from bnet_mm.checkpoint import read_checkpoint
from bnet_mm.engine import dataset_check

pytestmark = pytest.mark.slow


def kernels(checkpoint) -> dict[str, torch.Tensor]:
    state = read_checkpoint(checkpoint)['state_dict']
    return {name: value for name, value in state.items() if name.endswith('dw.weight')}


def output(result) -> str:
    return result.stdout + result.stderr


def test_segmentor(tiny_segmentor, run_tool, tmp_path):
    log = output(run_tool('train.py', tiny_segmentor, '--work-dir', 'run', check=True))
    assert 'Norms: 8 SyncBNET-3 (backbone.layer1.0.bn2 ... backbone.layer4.1.bn2)' in log
    assert 'Weights: all from random values' in log
    assert re.search(r'Iter\(train\) \[2/2\].*loss: \d', log)
    assert re.search(r'Iter\(val\) \[2/2\].*mIoU: \d', log)
    assert len(kernels(tmp_path / 'run/iter_2.pth')) == 8
    tested = run_tool('test.py', tiny_segmentor, 'run/iter_2.pth', '--work-dir', 'tested',
                      '--out', 'found.pkl', check=True)  # fmt: skip
    trained = re.search(r'mIoU: ([\d.]+)', log)[1]
    assert f'mIoU: {trained}' in output(tested)
    assert (tmp_path / 'found.pkl').stat().st_size > 0


def test_recognizer(tiny_recognizer, run_tool, tmp_path):
    log = output(run_tool('train.py', tiny_recognizer, '--work-dir', 'run', check=True))
    assert 'Norms: 8 BNET-3 (backbone.layer1.0.conv2.bn ... backbone.layer4.1.conv2.bn)' in log
    assert re.search(r'Epoch\(train\) \[1\]\[2/2\].*loss: \d', log)
    assert re.search(r'Epoch\(val\) \[1\]\[1/1\].*acc/top1: \d', log)
    assert len(kernels(tmp_path / 'run/epoch_1.pth')) == 8
    tested = run_tool('test.py', tiny_recognizer, 'run/epoch_1.pth', check=True)
    assert 'acc/top1' in output(tested)


def test_heads_take_bnet_from_the_command_line(tiny_segmentor, run_tool, tmp_path):
    options = ['model.decode_head.norm_cfg.type=SyncBNET', 'model.decode_head.norm_cfg.k=3']
    log = output(run_tool('train.py', tiny_segmentor, '--work-dir', 'run', '--cfg-options',
                          *options, check=True))  # fmt: skip
    assert 'decode_head.bottleneck.bn' in log
    names = kernels(tmp_path / 'run/iter_2.pth')
    assert sum(name.startswith('decode_head') for name in names) == 5


def said(result) -> str:
    assert result.returncode == 2, output(result)[-2000:]
    assert 'Traceback' not in output(result)
    return result.stderr.strip().splitlines()[-1]


def test_mask_with_a_class_that_is_not_there(tiny_segmentor, demo_cityscapes, run_tool, tmp_path):
    city = shutil.copytree(demo_cityscapes, tmp_path / 'city')
    path = next((city / 'gtFine/val').rglob('*_labelTrainIds.png'))
    mask = np.array(Image.open(path))
    mask[0, 0] = 90
    Image.fromarray(mask).save(path)
    root = f'data_root={city}'
    trained = run_tool('train.py', tiny_segmentor, '--work-dir', 'run', '--cfg-options', root)
    assert f'WARNING - val CityscapesDataset: {path} has the class id 90' in output(trained)
    assert trained.returncode == 0  # the metric leaves such a pixel out
    last = next((tmp_path / 'run').glob('iter_*.pth'))
    tested = run_tool('test.py', tiny_segmentor, last, '--cfg-options', root)
    assert f'test CityscapesDataset: {path} has the class id 90' in output(tested)
    off = (root, 'bnet_mm.data_check=False')
    quiet = run_tool('test.py', tiny_segmentor, last, '--cfg-options', *off, check=True)
    assert 'class id 90' not in output(quiet)


def test_a_mask_that_was_not_looked_at_is_named_when_it_fails(
    tiny_segmentor, demo_cityscapes, refused, monkeypatch, tmp_path
):
    city = shutil.copytree(demo_cityscapes, tmp_path / 'city')
    for path in (city / 'gtFine/train').rglob('*_labelTrainIds.png'):
        mask = np.array(Image.open(path))
        mask[:] = 90
        Image.fromarray(mask).save(path)
    monkeypatch.setattr(dataset_check, 'SECONDS', 0)
    sentence = refused(tiny_segmentor, {'data_root': str(city)})
    assert 'has the class id 90' in sentence


def test_video_that_does_not_decode(tiny_recognizer, demo_ucf101, run_tool, tmp_path):
    clips = shutil.copytree(demo_ucf101, tmp_path / 'clips')
    video = clips / 'videos/HulaHoop/v_HulaHoop_g01_c01.avi'
    video.write_bytes(video.read_bytes()[:3000])
    result = run_tool('train.py', tiny_recognizer, '--cfg-options', f'data_root={clips}')
    assert f'{video} cannot be decoded as a video' in said(result)
    assert 'Epoch(train)' not in output(result)


def test_line_without_a_label(tiny_recognizer, demo_ucf101, run_tool, tmp_path):
    clips = shutil.copytree(demo_ucf101, tmp_path / 'clips')
    listed = clips / 'ucf101_val_split_1_videos.txt'
    listed.write_text(listed.read_text() + 'Swing/v_Swing_g01_c03.avi\n')
    result = run_tool('train.py', tiny_recognizer, '--cfg-options', f'data_root={clips}')
    assert f'WARNING - {listed}, line 5' in output(result)


@pytest.mark.parametrize(
    ('config', 'entry'), [('tiny_segmentor', 'model.pretrained'),
                          ('tiny_recognizer', 'model.backbone.pretrained')],
)  # fmt: skip
def test_weights_that_cannot_be_had(config, entry, request, refused, monkeypatch, tmp_path):
    config = request.getfixturevalue(config)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    sentence = refused(config, {entry: 'https://localhost:1/x.pth'})
    assert 'could not be downloaded' in sentence
    assert f'--cfg-options {entry}=FILE' in sentence
    sentence = refused(config, {entry: 'gone.pth'})
    assert f'{entry}: checkpoint gone.pth: there is no file' in sentence
